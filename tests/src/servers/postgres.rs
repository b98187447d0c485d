//! One PostgreSQL server, as `scripts/postgres.sh` runs it.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use super::{folder, free_port, spawn};
use crate::{DEADLINE, root, wait_for};

/// Dropping it ends the server and removes its data.
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Postgres {
    /// On an empty cluster; returns when it answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder = folder("postgres").expect("a folder for the server");
        let mut postgres = Self { folder, port: free_port(), process: None };
        postgres.start_again();
        postgres
    }

    /// Of the database that every cluster has.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// As a crash would: the server's other processes notice, and end too.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it is running");
        process.kill().and_then(|()| process.wait()).expect("a child of ours can be killed");
    }

    /// On the data and the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let output = self.folder.join("output");
        let said = || fs::read_to_string(&output).unwrap_or_default();
        wait_for("PostgreSQL to start", DEADLINE, || {
            let log = File::create(&output).expect("the folder is ours");
            let mut command = Command::new(root().join("scripts/postgres.sh"));
            command.arg(self.folder.join("cluster")).arg(self.port.to_string());
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
            let mut process = spawn(command).expect("scripts/postgres.sh can be run");
            let is_up = wait_for("PostgreSQL to answer", DEADLINE, || {
                if process.try_wait().expect("a child of ours can be waited for").is_some() {
                    return Some(false);
                }
                said().contains("database system is ready to accept connections").then_some(true)
            });
            // The processes of a killed server may still be ending: they keep its memory, and a new one refuses to begin.
            assert!(is_up || said().contains("is still in use"), "PostgreSQL ended:\n{}", said());
            self.process = is_up.then_some(process);
            is_up.then_some(())
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// The server that the tests of this process share: that of `DATABASE_URL`, or else one of ours, started by who asks
/// first. Tests stay apart by databases of their own.
#[must_use]
pub fn postgres_url() -> String {
    static SHARED: LazyLock<Postgres> = LazyLock::new(Postgres::start);
    env::var("DATABASE_URL").unwrap_or_else(|_| SHARED.url())
}
