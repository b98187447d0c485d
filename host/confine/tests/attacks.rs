//! What a child that was taken over tries, against each piece of the confinement alone: an attack is stopped
//! by exactly the pieces that its line names. So with all of them on every attack fails, and with those taken
//! away it succeeds again.
//!
//! The attacker is this executable once more, which does what [`ATTACK`] says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "attacks/attacker.rs"]
mod attacker;

use std::{
    fs::{self, File},
    io::Read as _,
    net::{TcpListener, UdpSocket},
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::PermissionsExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use framehook_confine::{DEFAULT_USER, Limits, Piece, Sandbox, User};
use tempfile::TempDir;

/// Environment variables of the attacker: what it does, and what it confines itself by first.
const ATTACK: &str = "FRAMEHOOK_TEST_ATTACK";
const INSIDE: &str = "FRAMEHOOK_TEST_INSIDE";
/// One of the platform.
const SECRET: &str = "FRAMEHOOK_TEST_SECRET";

const LIMITS: Limits = Limits { memory: 256 << 20, cpu_seconds: Some(1), file_size: 0 };

/// The pieces that a parent sees to, and the ones of the child itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Parent(Piece),
    Files,
    SystemCalls,
}

use By::{Files, Parent, SystemCalls};

const ENVIRONMENT: By = Parent(Piece::Environment);
const DESCRIPTORS: By = Parent(Piece::Descriptors);
const DIRECTORY: By = Parent(Piece::WorkingDirectory);
const LIMITED: By = Parent(Piece::Limits);
const NO_NEW_PRIVILEGES: By = Parent(Piece::NoNewPrivileges);
const USER: By = Parent(Piece::User);

const ALL: [By; 8] = [ENVIRONMENT, DESCRIPTORS, DIRECTORY, LIMITED, NO_NEW_PRIVILEGES, USER, Files, SystemCalls];

/// What is attacked.
struct World {
    dir: TempDir,
    inherited: File,
    tcp: TcpListener,
    udp: UdpSocket,
    /// Kept, so that somebody listens.
    _unix: UnixListener,
    name: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "the secret").unwrap();
        fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let id = dir.path().join("id");
        fs::copy("/usr/bin/id", &id).unwrap();
        fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let inherited = File::open(dir.path().join("secret")).unwrap();
        // SAFETY: the descriptor is open, and the call takes no pointers.
        assert_eq!(unsafe { libc::fcntl(inherited.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        Self { inherited, tcp, udp, _unix: UnixListener::bind_addr(&address).unwrap(), name, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

fn this_test(sandbox: &Sandbox, attack: &str, inside: &str) -> Command {
    let mut command = sandbox.command(&std::env::current_exe().unwrap(), LIMITS);
    command.args(["--exact", "attacker", "--nocapture", "--test-threads=1"]);
    command.env(ATTACK, attack).env(INSIDE, inside);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// A sandbox of these pieces only.
fn sandbox(pieces: &[By]) -> Sandbox {
    let others = ALL.into_iter().filter(|by| !pieces.contains(by));
    others.fold(Sandbox::default(), |sandbox, by| match by {
        Parent(piece) => sandbox.without(piece),
        _ => sandbox,
    })
}

/// Whether the attack succeeds against these pieces.
fn succeeds(attack: &str, pieces: &[By]) -> bool {
    let inside: Vec<_> = [(Files, "files"), (SystemCalls, "system_calls")]
        .iter()
        .filter_map(|(by, name)| pieces.contains(by).then_some(*name))
        .collect();
    let mut command = this_test(&sandbox(pieces), attack, &inside.join(","));
    if pieces.contains(&ENVIRONMENT) {
        assert!(command.get_envs().all(|(name, _)| name != SECRET));
    } else {
        command.env(SECRET, "the secret");
    }
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains("attack succeeded")
}

/// Every piece alone stops the attack exactly if it is one of `stopped_by`; and nothing but these does.
fn check(attack: &str, stopped_by: &[By]) {
    let can = |by: &By| *by != USER || User::new(DEFAULT_USER).is_ok();
    assert!(succeeds(attack, &[]), "`{attack}` does not even succeed against nothing");
    for by in ALL.into_iter().filter(can) {
        assert_eq!(!succeeds(attack, &[by]), stopped_by.contains(&by), "`{attack}` against {by:?} alone");
    }
    let others: Vec<_> = ALL.into_iter().filter(|by| !stopped_by.contains(by)).collect();
    assert!(succeeds(attack, &others), "`{attack}` is stopped by one of {others:?} too");
    assert!(!succeeds(attack, &ALL), "`{attack}` against everything");
}

/// Does nothing unless [`check`] started it.
#[test]
fn attacker() {
    if let Ok(attack) = std::env::var(ATTACK) {
        attacker::run(&attack, &std::env::var(INSIDE).unwrap());
    }
}

#[test]
fn what_a_child_begins_with() {
    let world = World::new();
    check("environment", &[ENVIRONMENT]);
    check(&format!("descriptor {}", world.inherited.as_raw_fd()), &[DESCRIPTORS]);
    // The working directory of a test is its crate's.
    check("read Cargo.toml", &[DIRECTORY, Files]);
}

#[test]
fn files() {
    let world = World::new();
    check(&format!("read {}", world.path("secret")), &[Files]);
    check(&format!("write {}", world.path("secret")), &[Files, USER, LIMITED]);
    check(&format!("empty {}", world.path("secret")), &[Files, USER, SystemCalls]);
    check(&format!("make {}", world.path("new")), &[Files, USER]);
}

#[test]
fn connections() {
    let world = World::new();
    check(&format!("tcp {}", world.tcp.local_addr().unwrap()), &[Files, SystemCalls]);
    check(&format!("udp {}", world.udp.local_addr().unwrap()), &[SystemCalls]);
    check(&format!("abstract {}", world.name), &[Files, SystemCalls]);
}

/// CUDA listens at a socket, shares memory and names threads; nothing of that leads out.
#[test]
fn what_a_worker_on_a_gpu_may_do_leads_nowhere() {
    let world = World::new();
    let secret = world.path("secret");
    let tries = |attack: &str, inside: &str| {
        let output = this_test(&sandbox(&[]), attack, inside).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("attack succeeded")
    };
    for attack in [
        format!("read {secret}"),
        format!("write {secret}"),
        format!("make {}", world.path("new")),
        format!("tcp {}", world.tcp.local_addr().unwrap()),
        format!("abstract {}", world.name),
        format!("signal {}", std::process::id()),
    ] {
        assert!(tries(&attack, ""), "`{attack}` does not even succeed against nothing");
        assert!(!tries(&attack, "gpu_files"), "`{attack}`");
    }
    for attack in [
        format!("tcp {}", world.tcp.local_addr().unwrap()),
        format!("udp {}", world.udp.local_addr().unwrap()),
        format!("abstract {}", world.name),
        "fork".to_owned(),
        "execute /bin/echo".to_owned(),
        "call ptrace".to_owned(),
        "call mount".to_owned(),
        "call bpf".to_owned(),
    ] {
        assert!(!tries(&attack, "gpu_system_calls"), "`{attack}`");
    }
}

#[test]
fn new_processes() {
    check("fork", &[SystemCalls]);
    check("execute /bin/echo", &[Files, SystemCalls]);
}

#[test]
fn system_calls() {
    // Some are not in every kernel.
    for call in ["bpf", "handle", "io_uring", "keyctl", "perf", "userfaultfd"] {
        assert!(!succeeds(&format!("call {call}"), &[SystemCalls]), "{call}");
    }
    for call in ["mount", "ptrace", "setuid", "socketpair", "unshare"] {
        check(&format!("call {call}"), &[SystemCalls]);
    }
}

#[test]
fn other_processes() {
    check(&format!("signal {}", std::process::id()), &[Files, SystemCalls, USER]);
}

#[test]
fn resources() {
    check("memory", &[LIMITED]);
    check("open", &[LIMITED]);
    // Takes its seconds, so not against every piece.
    assert!(succeeds("processor", &[]));
    assert!(!succeeds("processor", &[LIMITED]));
}

#[test]
fn privileges() {
    if User::new(DEFAULT_USER).is_err() {
        return eprintln!("not root: nothing to gain");
    }
    let world = World::new();
    // Root gains nothing by it, so the attacker is of another user throughout.
    let attack = format!("execute {}", world.path("id"));
    let gains = |pieces: &[By]| {
        let output = this_test(&sandbox(pieces), &attack, "").output().unwrap();
        // What `id` prints stands behind the name of the test.
        String::from_utf8_lossy(&output.stdout).split_whitespace().last() == Some("0")
    };
    assert!(gains(&[USER]));
    assert!(!gains(&[USER, NO_NEW_PRIVILEGES]));
}

/// A process of the attacker's own user that holds a secret in its environment.
struct Victim(Child);

impl Victim {
    fn start(inside: &str) -> Self {
        let mut command = this_test(&sandbox(&[USER]), "wait", inside);
        let mut child = command.env(SECRET, "the secret").stdin(Stdio::piped()).spawn().unwrap();
        // It is ready when it says so.
        let mut output = child.stdout.take().unwrap();
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"waiting") && output.read(&mut byte).unwrap() == 1 {
            text.push(byte[0]);
        }
        assert!(text.ends_with(b"waiting"), "{}", String::from_utf8_lossy(&text));
        Self(child)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_process_of_the_same_user() {
    let open = Victim::start("");
    let closed = Victim::start("memory");
    for (attack, stopped_by) in [("environment-of", vec![Files]), ("memory-of", vec![Files, SystemCalls])] {
        for by in [None, Some(Files), Some(SystemCalls)] {
            let pieces: Vec<_> = by.into_iter().chain([USER]).collect();
            let stopped = by.is_some_and(|by| stopped_by.contains(&by));
            assert_eq!(succeeds(&format!("{attack} {}", open.0.id()), &pieces), !stopped, "{attack} against {by:?}");
            assert!(!succeeds(&format!("{attack} {}", closed.0.id()), &pieces), "{attack} of one that is closed");
        }
    }
}

#[test]
fn what_the_kernel_would_kill_first() {
    let score = |pieces: &[By]| {
        let output = this_test(&sandbox(pieces), "score", "").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| line.strip_prefix("score ")?.trim().parse::<i32>().ok()).unwrap()
    };
    let ours: i32 = fs::read_to_string(Path::new("/proc/self/oom_score_adj")).unwrap().trim().parse().unwrap();
    assert_eq!(score(&[]), ours);
    assert_eq!(score(&ALL), 900);
}
