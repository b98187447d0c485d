//! One PostgreSQL server, as `scripts/postgres.sh` runs it.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::PathBuf,
    process::Command,
    sync::LazyLock,
};

use rustix::process::Signal;

use super::{Session, certify, free_port, server::Server};
use crate::{
    process::{children_of, signal},
    root,
};

/// Dropping it ends the server and removes its data.
pub struct Postgres {
    server: Server,
    port: u16,
}

impl Postgres {
    /// On an empty cluster; returns when it answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let mut postgres = Self { server: Server::new("postgres"), port: free_port() };
        postgres.start_again();
        postgres
    }

    /// The URL of the database that every cluster has.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// From now on it speaks TLS to whoever asks for it; gives the certificate that it shows.
    ///
    /// # Panics
    /// When it is not running, or without `openssl`.
    #[must_use]
    pub fn encrypt(&self) -> PathBuf {
        let folder = self.server.folder().join("cluster");
        certify(&folder);
        // The server wants to own its key, and may have another user than we.
        let owner = fs::metadata(&folder).expect("the cluster is there").uid();
        chown(folder.join("server.key"), Some(owner), None).expect("the file is ours");
        let mut session = Session::open(&self.url());
        session.query("ALTER SYSTEM SET ssl = on");
        session.query("SELECT pg_reload_conf()");
        folder.join("server.crt")
    }

    /// Stops all of its processes where they are, or lets them go on.
    ///
    /// # Panics
    /// When it is not running.
    pub fn signal(&self, to_send: Signal) {
        // The first one first: it starts no others then.
        self.server.signal(to_send);
        children_of(self.server.pid()).into_iter().for_each(|pid| signal(pid, to_send));
    }

    /// As a crash would: the server's other processes notice, and end too.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// On the data and the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let (cluster, port) = (self.server.folder().join("cluster"), self.port.to_string());
        let command = || {
            let mut command = Command::new(root().join("scripts/postgres.sh"));
            command.arg(&cluster).arg(&port);
            command
        };
        self.server.start(command, |said| said.contains("database system is ready to accept connections"));
    }
}

/// The server that the tests of this process share: that of `DATABASE_URL`, or else one of ours, started by
/// who asks first. Tests stay apart by databases of their own.
#[must_use]
pub fn postgres_url() -> String {
    static SHARED: LazyLock<Postgres> = LazyLock::new(Postgres::start);
    env::var("DATABASE_URL").unwrap_or_else(|_| SHARED.url())
}
