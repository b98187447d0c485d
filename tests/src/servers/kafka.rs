//! One Apache Kafka broker, as `scripts/kafka.sh` runs it.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use rustix::process::Signal;

use super::{folder, free_port, proxy::Proxy, spawn};
use crate::{DEADLINE, process::signal, root, wait_for};

/// Dropping it ends the broker and removes its log.
pub struct Kafka {
    folder: PathBuf,
    port: u16,
    controller: u16,
    /// A second port of the broker, whose clients come through this.
    proxy: Option<(u16, Proxy)>,
    process: Option<Child>,
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
        let folder = folder("kafka").expect("a folder for the broker");
        let mut kafka = Self { folder, port: free_port(), controller: free_port(), proxy, process: None };
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
        signal(self.process.as_ref().expect("it is running").id(), to_send);
    }

    /// As a crash would: nothing is flushed, nobody is told.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it is running");
        process.kill().and_then(|()| process.wait()).expect("a child of ours can be killed");
    }

    /// On the log and the port that it had.
    ///
    /// # Panics
    /// When it does not start, with what it said.
    pub fn start_again(&mut self) {
        let output = self.folder.join("output");
        let log = File::create(&output).expect("the folder is ours");
        let mut command = Command::new(root().join("scripts/kafka.sh"));
        let proxy = self.proxy.as_ref().map(|(port, proxy)| [*port, proxy.port()]);
        let ports = [self.port, self.controller].into_iter().chain(proxy.into_iter().flatten());
        command.arg(&self.folder).args(ports.map(|port| port.to_string()));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let mut process = spawn(command).expect("scripts/kafka.sh can be run");
        let said = || fs::read_to_string(&output).unwrap_or_default();
        wait_for("Apache Kafka to start", DEADLINE, || {
            let ended = process.try_wait().expect("a child of ours can be waited for");
            assert!(ended.is_none(), "Apache Kafka ended with {ended:?}:\n{}", said());
            said().contains("Kafka Server started").then_some(())
        });
        self.process = Some(process);
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// The broker that the tests of this process share: that of `KAFKA_BROKERS`, or else one of ours, started by who asks
/// first. Tests stay apart by prefixes of their own.
#[must_use]
pub fn kafka_brokers() -> String {
    static SHARED: LazyLock<Kafka> = LazyLock::new(Kafka::start);
    env::var("KAFKA_BROKERS").unwrap_or_else(|_| SHARED.brokers())
}
