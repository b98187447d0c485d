//! One Apache Kafka broker, as `scripts/kafka.sh` runs it.

use std::{env, fs, process::Command, sync::LazyLock};

use rustix::process::Signal;

use super::{free_port, proxy::Proxy, server::Server};
use crate::root;

/// Dropping it ends the broker and removes its log.
pub struct Kafka {
    server: Server,
    port: u16,
    controller: u16,
    /// A second port of the broker, whose clients come through this.
    proxy: Option<(u16, Proxy)>,
}

impl Kafka {
    /// On an empty log; returns when it takes records.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same, with a second road to it that can be cut.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_proxy() -> Self {
        let port = free_port();
        Self::start_with(Some((port, Proxy::start(free_port(), port))))
    }

    fn start_with(proxy: Option<(u16, Proxy)>) -> Self {
        let mut kafka = Self { server: Server::new("kafka"), port: free_port(), controller: free_port(), proxy };
        kafka.start_again();
        kafka
    }

    /// The second road.
    ///
    /// # Panics
    /// When it was started without.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        &self.proxy.as_ref().expect("it was started with a proxy").1
    }

    /// What a client connects to.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it where it is, or lets it go on.
    ///
    /// # Panics
    /// When it is not running.
    pub fn signal(&self, to_send: Signal) {
        self.server.signal(to_send);
    }

    /// As a crash would: nothing is flushed, nobody is told.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// As if its only disk had died, and a new one had been put in.
    ///
    /// # Panics
    /// When it is not running, or does not start again.
    pub fn lose_everything(&mut self) {
        self.kill();
        fs::remove_dir_all(self.server.folder().join("log")).expect("the log is ours");
        self.start_again();
    }

    /// On the log and the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let folder = self.server.folder().to_owned();
        let proxy = self.proxy.as_ref().map(|(port, proxy)| [*port, proxy.port()]);
        let ports = [self.port, self.controller].into_iter().chain(proxy.into_iter().flatten());
        let ports: Vec<_> = ports.map(|port| port.to_string()).collect();
        let command = || {
            let mut command = Command::new(root().join("scripts/kafka.sh"));
            command.arg(&folder).args(&ports);
            command
        };
        self.server.start(command, |said| said.contains("Kafka Server started"));
    }
}

/// The broker that the tests of this process share: that of `KAFKA_BROKERS`, or else one of ours, started by
/// who asks first. Tests stay apart by prefixes of their own.
#[must_use]
pub fn kafka_brokers() -> String {
    static SHARED: LazyLock<Kafka> = LazyLock::new(Kafka::start);
    env::var("KAFKA_BROKERS").unwrap_or_else(|_| SHARED.brokers())
}
