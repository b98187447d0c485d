//! One Redis, as `scripts/redis.sh` runs it.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{folder, free_port, spawn};
use crate::{DEADLINE, root, wait_for};

/// Dropping it ends the server.
pub struct Redis {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Redis {
    /// Empty; returns when it answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder = folder("redis").expect("a folder for the server");
        let mut redis = Self { folder, port: free_port(), process: None };
        redis.start_again();
        redis
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it is running");
        process.kill().and_then(|()| process.wait()).expect("a child of ours can be killed");
    }

    /// It takes connections and commands, and answers none, until [`Redis::resume`].
    ///
    /// # Panics
    /// When it is not running.
    pub fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// It answers what it was asked meanwhile.
    ///
    /// # Panics
    /// When it is not running.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it is running");
        kill_process(Pid::from_child(process), signal).expect("a child of ours can be signalled");
    }

    /// Empty, on the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let output = self.folder.join("output");
        let log = File::create(&output).expect("the folder is ours");
        let mut command = Command::new(root().join("scripts/redis.sh"));
        command.arg(self.port.to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let mut process = spawn(command).expect("scripts/redis.sh can be run");
        let said = || fs::read_to_string(&output).unwrap_or_default();
        wait_for("Redis to start", DEADLINE, || {
            let ended = process.try_wait().expect("a child of ours can be waited for");
            assert!(ended.is_none(), "Redis ended with {ended:?}:\n{}", said());
            said().contains("Ready to accept connections").then_some(())
        });
        self.process = Some(process);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// The server that the tests of this process share: that of `REDIS_URL`, or else one of ours, started by who asks first.
/// Tests stay apart by the scenarios they ask for.
#[must_use]
pub fn redis_url() -> String {
    static SHARED: LazyLock<Redis> = LazyLock::new(Redis::start);
    env::var("REDIS_URL").unwrap_or_else(|_| SHARED.url())
}
