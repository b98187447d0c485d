//! Real servers for tests, each on a port and a folder of its own, on 127.0.0.1.
//!
//! Invariant: no server outlives its test process, however that ends; its folder may, and goes when the next
//! one starts.

mod kafka;
mod postgres;
mod proxy;
mod redis;
mod registry;
mod s3;
mod server;
mod sql;
pub mod topics;

use std::{
    ffi::OsStr,
    fs, io,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use rustix::process::{Signal, set_parent_process_death_signal};

pub use self::{
    kafka::{Kafka, kafka_brokers},
    postgres::{Postgres, postgres_url},
    proxy::Proxy,
    redis::{Redis, redis_url},
    registry::Registry,
    s3::S3,
    sql::Session,
};
use crate::executables;

/// Below the ports that Linux gives to outgoing connections (`ip_local_port_range`, from 32768): while a
/// server is down, nobody's connection sits on its port.
const FIRST_PORT: u32 = 16_384;
const PORTS: u32 = 16_384;

/// A port that nobody listened on a moment ago. No other test of this process gets it, so that a server can
/// be started on it again.
///
/// # Panics
/// When the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    // Test processes that run at the same time begin apart; one takes some dozens.
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(101)));
    (0..PORTS)
        .map(|_| FIRST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Puts `server.key` and `server.crt` into a folder: a certificate of its own for 127.0.0.1.
pub(crate) fn certify(folder: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=framehook-test"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "server.key", "-out", "server.crt"]);
    let made = openssl.current_dir(folder).output().expect("openssl is installed by scripts/setup.sh --tests");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

type Spawn = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a process that is killed when this one ends. The kernel watches the *thread* that started it, and
/// tests end long before their servers: so a thread that never ends does it.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    static KEEPER: LazyLock<mpsc::Sender<Spawn>> = LazyLock::new(|| {
        let (requests, spawns) = mpsc::channel::<Spawn>();
        thread::spawn(move || {
            for (mut command, answer) in spawns {
                answer.send(command.spawn()).ok();
            }
        });
        requests
    });
    let die_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe { command.pre_exec(die_with_us) };
    let (answer, outcome) = mpsc::channel();
    KEEPER.send((command, answer)).map_err(io::Error::other)?;
    outcome.recv().map_err(io::Error::other)?
}

/// An empty folder for a server; first removes those of test processes that are gone.
pub(crate) fn folder(server: &str) -> io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let all = executables().join("servers");
    fs::create_dir_all(&all)?;
    for old in fs::read_dir(&all)? {
        let old = old?.path();
        let process =
            old.file_name().and_then(OsStr::to_str).and_then(|name| name.split('-').next().map(str::to_owned));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another test process may be doing the same.
            fs::remove_dir_all(&old).ok();
        }
    }
    let folder = all.join(format!("{}-{server}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&folder)?;
    Ok(folder)
}
