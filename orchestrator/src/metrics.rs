//! What an orchestrator tells Prometheus: whether it leads, and how late it is.
//!
//! Ages are looked up at the time of the scrape, so that a leader that hangs shows as a growing age
//! and not as a gauge that nobody sets. Who does not lead is late with nothing: both ages are 0.

use std::{fmt, sync::LazyLock};

use framehook_infra::metrics::{added, register};
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::{ConstGauge, Gauge},
    registry::Unit,
};
use tokio::time::Instant;

/// The one set of this process.
pub(crate) fn global() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
        register(|registry| {
            let leading = added(registry, "leading", "Whether this orchestrator leads", Gauge::default());
            registry.register_collector(Box::new(Ages));
            Metrics { leading, since: Mutex::default() }
        })
    });
    &METRICS
}

pub(crate) struct Metrics {
    leading: Gauge,
    since: Mutex<Since>,
}

/// `None`: this process does not lead.
#[derive(Clone, Copy, Default)]
struct Since {
    heard: Option<Instant>,
    scanned: Option<Instant>,
}

impl Metrics {
    /// A term begins; until something is known, everything is as old as the term.
    pub(crate) fn leads(&self) {
        self.leading.set(1);
        let now = Some(Instant::now());
        *self.since.lock() = Since { heard: now, scanned: now };
    }

    pub(crate) fn stands_by(&self) {
        self.leading.set(0);
        *self.since.lock() = Since::default();
    }

    /// Every heartbeat that was on the bus at this time is recorded.
    pub(crate) fn heard(&self, at: Instant) {
        let mut since = self.since.lock();
        since.heard = since.heard.max(Some(at));
    }

    /// What runs was brought to what is desired, as far as it went.
    pub(crate) fn scanned(&self) {
        self.since.lock().scanned = Some(Instant::now());
    }
}

#[derive(Debug)]
struct Ages;

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Since { heard, scanned } = *global().since.lock();
        let ages = [
            ("heartbeat_lag", "How long ago the leader last knew that it had read every heartbeat.", heard),
            ("scan_age", "How long ago the leader last compared what runs with what is desired.", scanned),
        ];
        for (name, help, since) in ages {
            let age = ConstGauge::new(since.map_or(0.0, |since| since.elapsed().as_secs_f64()));
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), age.metric_type())?;
            age.encode(metric)?;
        }
        Ok(())
    }
}
