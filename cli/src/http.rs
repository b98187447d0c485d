//! The settings of the HTTP server: what a client may take, and under which names it may call.

use std::time::Duration;

use clap::Args;
use framehook_api::{HostPattern, HttpLimits};

use crate::settings::{
    SERVERS,
    parsers::{at_least, number, positive},
};

/// The table `[http]`. The reasons of the defaults stand beside them in `HttpLimits`.
#[derive(Args, Clone)]
#[group(id = "http")]
pub(crate) struct Http {
    /// Name that clients may call this process by, besides those of this machine: framehook.example.org,
    /// .example.org for all below it, or * for any; repeat for several [default: none]
    #[arg(long = "host", value_name = "NAME", value_delimiter = ',', groups = SERVERS)]
    hosts: Vec<HostPattern>,

    /// Most connections at a time, and at most a quarter of the files that may be open
    #[arg(long, value_name = "N", groups = SERVERS)]
    #[arg(default_value_t = limits().connections, value_parser = positive::<usize>())]
    pub(crate) max_connections: usize,

    /// Most connections from one address, loopback excepted; behind a balancer on another host, give as
    /// many as `max_connections`
    #[arg(long, value_name = "N", groups = SERVERS)]
    #[arg(default_value_t = limits().connections_per_peer, value_parser = positive::<usize>())]
    pub(crate) max_connections_per_peer: usize,

    /// Longest the head of a request may take to come, in seconds
    #[arg(long, value_name = "S", groups = SERVERS)]
    #[arg(default_value_t = limits().head.as_secs(), value_parser = seconds())]
    head_timeout_s: u64,

    /// Longest a JSON body may take to come, in seconds
    #[arg(long, value_name = "S", groups = SERVERS)]
    #[arg(default_value_t = limits().small_body.as_secs(), value_parser = seconds())]
    body_timeout_s: u64,

    /// Least an upload must bring, in bytes a second over half a minute
    #[arg(long, value_name = "BYTES", groups = SERVERS)]
    #[arg(default_value_t = limits().least_rate, value_parser = at_least::<u32>(0))]
    min_upload_rate: u32,

    /// Longest a connection may wait for its next request, in seconds
    #[arg(long, value_name = "S", groups = SERVERS)]
    #[arg(default_value_t = limits().keep_alive.as_secs(), value_parser = seconds())]
    keep_alive_s: u64,

    /// Most uploads that wait to be looked at, and most configurations; one client has half of the places
    #[arg(long, value_name = "N", group = "api")]
    #[arg(default_value_t = limits().waiting_checks, value_parser = positive::<usize>())]
    max_waiting_checks: usize,

    /// Longest that an upload or configuration waits to be looked at, in seconds
    #[arg(long, value_name = "S", group = "api")]
    #[arg(default_value_t = limits().check_patience.as_secs(), value_parser = seconds())]
    check_wait_s: u64,
}

fn limits() -> HttpLimits {
    HttpLimits::default()
}

/// Up to an hour; more is as good as no limit.
fn seconds() -> impl Fn(&str) -> Result<u64, String> + Clone {
    number(1..=3600)
}

impl Http {
    pub(crate) fn limits(&self) -> HttpLimits {
        HttpLimits {
            connections: self.max_connections,
            connections_per_peer: self.max_connections_per_peer.min(self.max_connections),
            head: Duration::from_secs(self.head_timeout_s),
            small_body: Duration::from_secs(self.body_timeout_s),
            least_rate: self.min_upload_rate,
            keep_alive: Duration::from_secs(self.keep_alive_s),
            waiting_checks: self.max_waiting_checks,
            check_patience: Duration::from_secs(self.check_wait_s),
            hosts: self.hosts.clone(),
            ..limits()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn what_is_not_set_is_as_the_server_has_it() {
        assert_eq!(settings(&[]).http.limits(), HttpLimits::default());
    }
}
