//! The settings of the HTTP server: what a client may take, and under which names it may call.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use framehook_api::HttpLimits;
use serde::{Deserialize, Serialize};

/// What somebody set; absent means "as it is". In the file they stand in a table `[http]`.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpOptions {
    /// Name that clients may call this process by, besides those of this machine: framehook.example.org,
    /// .example.org for all below it, or * for any; repeat for several [default: none]
    #[arg(long = "host", env = "FRAMEHOOK_HOSTS", value_name = "NAME", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<Vec<String>>,

    /// Most connections at a time [default: 512, and at most a quarter of the files that may be open]
    #[arg(long, env = "FRAMEHOOK_MAX_CONNECTIONS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<usize>,

    /// Most of them from one address but loopback; behind a balancer on another host, as many as in all [default: 32]
    #[arg(long, env = "FRAMEHOOK_MAX_CONNECTIONS_PER_PEER", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections_per_peer: Option<usize>,

    /// Longest the head of a request may take to come, in seconds [default: 10]
    #[arg(long, env = "FRAMEHOOK_HEAD_TIMEOUT_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    head_timeout_s: Option<u64>,

    /// Longest a JSON body may take to come, in seconds [default: 10]
    #[arg(long, env = "FRAMEHOOK_BODY_TIMEOUT_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    body_timeout_s: Option<u64>,

    /// Least an upload must bring, in bytes a second over half a minute [default: 1024]
    #[arg(long, env = "FRAMEHOOK_MIN_UPLOAD_RATE", value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_upload_rate: Option<u32>,

    /// Longest a connection may wait for its next request, in seconds [default: 60]
    #[arg(long, env = "FRAMEHOOK_KEEP_ALIVE_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive_s: Option<u64>,

    /// Most uploads that wait to be looked at, and most configurations; one client has half of the places [default: 16]
    #[arg(long, env = "FRAMEHOOK_MAX_WAITING_CHECKS", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_waiting_checks: Option<usize>,

    /// Longest each of them waits, in seconds [default: 20]
    #[arg(long, env = "FRAMEHOOK_CHECK_WAIT_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    check_wait_s: Option<u64>,
}

impl HttpOptions {
    pub(crate) fn defaults() -> Self {
        let limits = HttpLimits::default();
        Self {
            hosts: Some(vec![]),
            max_connections: Some(limits.connections),
            max_connections_per_peer: Some(limits.connections_per_peer),
            head_timeout_s: Some(limits.head.as_secs()),
            body_timeout_s: Some(limits.small_body.as_secs()),
            min_upload_rate: Some(limits.least_rate),
            keep_alive_s: Some(limits.keep_alive.as_secs()),
            max_waiting_checks: Some(limits.waiting_checks),
            check_wait_s: Some(limits.check_patience.as_secs()),
        }
    }

    /// What is set here, and for the rest what is set in `other`.
    pub(crate) fn over(self, other: Self) -> Self {
        Self {
            hosts: self.hosts.or(other.hosts),
            max_connections: self.max_connections.or(other.max_connections),
            max_connections_per_peer: self.max_connections_per_peer.or(other.max_connections_per_peer),
            head_timeout_s: self.head_timeout_s.or(other.head_timeout_s),
            body_timeout_s: self.body_timeout_s.or(other.body_timeout_s),
            min_upload_rate: self.min_upload_rate.or(other.min_upload_rate),
            keep_alive_s: self.keep_alive_s.or(other.keep_alive_s),
            max_waiting_checks: self.max_waiting_checks.or(other.max_waiting_checks),
            check_wait_s: self.check_wait_s.or(other.check_wait_s),
        }
    }

    /// # Errors
    /// Which setting cannot be, and why.
    pub(crate) fn limits(&self) -> anyhow::Result<HttpLimits> {
        let defaults = HttpLimits::default();
        let positive = |name: &str, value: Option<u64>, default: u64| match value {
            Some(0) => Err(anyhow!("http.{name} is 0; it must be at least 1")),
            value => Ok(value.unwrap_or(default)),
        };
        let count = |name, value: Option<usize>, default: usize| {
            Ok::<_, anyhow::Error>(usize::try_from(positive(name, value.map(|n| n as u64), default as u64)?)?)
        };
        let seconds = |name, value, default: Duration| {
            let seconds = positive(name, value, default.as_secs())?;
            if seconds > MAX_SECONDS {
                bail!("http.{name} is {seconds}; it must be at most {MAX_SECONDS}");
            }
            Ok(Duration::from_secs(seconds))
        };
        let hosts = self.hosts.iter().flatten().map(|name| name.parse().map_err(|why: String| anyhow!(why)));
        let connections = count("max_connections", self.max_connections, defaults.connections)?;
        let per_peer = defaults.connections_per_peer;
        let connections_per_peer = count("max_connections_per_peer", self.max_connections_per_peer, per_peer)?;
        // The default follows: whoever lowers the first need not know of the second.
        if connections_per_peer > connections && connections_per_peer != per_peer {
            bail!(
                "http.max_connections_per_peer is {connections_per_peer}, but http.max_connections is {connections}: one \
                 address may not have more than all of them"
            );
        }
        Ok(HttpLimits {
            connections,
            connections_per_peer: connections_per_peer.min(connections),
            head: seconds("head_timeout_s", self.head_timeout_s, defaults.head)?,
            small_body: seconds("body_timeout_s", self.body_timeout_s, defaults.small_body)?,
            least_rate: self.min_upload_rate.unwrap_or(defaults.least_rate),
            keep_alive: seconds("keep_alive_s", self.keep_alive_s, defaults.keep_alive)?,
            waiting_checks: count("max_waiting_checks", self.max_waiting_checks, defaults.waiting_checks)?,
            check_patience: seconds("check_wait_s", self.check_wait_s, defaults.check_patience)?,
            hosts: hosts.collect::<anyhow::Result<_>>().context("http.hosts")?,
            ..defaults
        })
    }
}

/// An hour; more is as good as no limit.
const MAX_SECONDS: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_as_the_server_has_it() {
        assert_eq!(HttpOptions::default().limits().unwrap(), HttpLimits::default());
        assert_eq!(HttpOptions::defaults().limits().unwrap(), HttpLimits::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (options, words) in [
            (HttpOptions { max_connections: Some(0), ..Default::default() }, "http.max_connections is 0"),
            (HttpOptions { keep_alive_s: Some(u64::MAX), ..Default::default() }, "at most 3600"),
            (HttpOptions { hosts: Some(vec!["http://a".into()]), ..Default::default() }, "http.hosts: `http://a`"),
        ] {
            let error = options.limits().unwrap_err();
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
    }
}
