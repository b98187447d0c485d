//! What a client may take of the HTTP server: connections, time, places in a queue. And under which names it
//! may call.

use std::time::Duration;

use crate::http::host::HostPattern;

/// Each is a setting, or as it is by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// At a time. A connection takes a descriptor and up to a quarter of a megabyte of buffers.
    pub connections: usize,
    /// At a time from one address: half a dozen browsers' worth. Loopback is exempt, because everything on
    /// this machine shares it.
    pub connections_per_peer: usize,
    /// For the head of a request, from its first byte or from the connection's beginning. A head is a few
    /// hundred bytes, which arrive together.
    pub head: Duration,
    /// For a whole JSON body: a megabyte takes this long at 800 kbit/s.
    pub small_body: Duration,
    /// In bytes a second, of an upload: a tenth of what a bad mobile connection gives.
    pub least_rate: u32,
    /// What the rate is averaged over: a network may be away for some seconds.
    pub rate_window: Duration,
    /// Between two requests. Whoever polls each half minute keeps a connection.
    pub keep_alive: Duration,
    /// Probes of uploads that wait for their turn, and as many checks of configurations: more would wait in
    /// vain.
    pub waiting_checks: usize,
    /// How long each waits at most: clients and balancers are patient for half a minute.
    pub check_patience: Duration,
    /// Names under which a client may call, besides those of this machine.
    pub hosts: Vec<HostPattern>,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_peer: 32,
            head: Duration::from_secs(10),
            small_body: Duration::from_secs(10),
            least_rate: 1024,
            rate_window: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            waiting_checks: 16,
            check_patience: Duration::from_secs(20),
            hosts: Vec::new(),
        }
    }
}
