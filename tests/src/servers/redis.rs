//! One Redis, as `scripts/redis.sh` runs it.

use std::{env, process::Command, sync::LazyLock};

use rustix::process::Signal;

use super::{certify, free_port, server::Server};
use crate::root;

/// Dropping it ends the server.
pub struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    /// Empty; returns when it answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let mut redis = Self { server: Server::new("redis"), port: free_port() };
        redis.start_again();
        redis
    }

    /// Empty, and speaking nothing but TLS, with a certificate that nobody has to trust: its URL says so.
    ///
    /// # Panics
    /// When it does not start, or without `openssl`.
    #[must_use]
    pub fn start_encrypted() -> (Self, String) {
        let mut redis = Self { server: Server::new("redis"), port: free_port() };
        let (folder, port) = (redis.server.folder().to_owned(), redis.port.to_string());
        certify(&folder);
        let command = || {
            let mut command = Command::new("redis-server");
            command.current_dir(&folder).args([
                "--bind",
                "127.0.0.1",
                "--port",
                "0",
                "--save",
                "",
                "--tls-port",
                &port,
            ]);
            command.args(["--tls-cert-file", "server.crt", "--tls-key-file", "server.key"]);
            command.args(["--tls-ca-cert-file", "server.crt", "--tls-auth-clients", "no"]);
            command
        };
        redis.server.start(command, |said| said.contains("Ready to accept connections"));
        let url = format!("rediss://127.0.0.1:{}/#insecure", redis.port);
        (redis, url)
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// It takes connections and commands, and answers none, until [`Redis::resume`].
    ///
    /// # Panics
    /// When it is not running.
    pub fn hang(&self) {
        self.server.signal(Signal::STOP);
    }

    /// It answers what it was asked meanwhile.
    ///
    /// # Panics
    /// When it is not running.
    pub fn resume(&self) {
        self.server.signal(Signal::CONT);
    }

    /// Empty, on the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let port = self.port.to_string();
        let command = || {
            let mut command = Command::new(root().join("scripts/redis.sh"));
            command.arg(&port);
            command
        };
        self.server.start(command, |said| said.contains("Ready to accept connections"));
    }
}

/// The server that the tests of this process share: that of `REDIS_URL`, or else one of ours, started by who
/// asks first. Tests stay apart by the scenarios they ask for.
#[must_use]
pub fn redis_url() -> String {
    static SHARED: LazyLock<Redis> = LazyLock::new(Redis::start);
    env::var("REDIS_URL").unwrap_or_else(|_| SHARED.url())
}
