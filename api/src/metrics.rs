//! What a Prometheus server may scrape.
//!
//! Counters belong to the process and are kept here; what the store and the bus know is read at the time of
//! the scrape (`operation.rs`), so that a stalled service shows as a growing lag and not as a gauge that
//! nobody updates.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use framehook_infra::metrics::{added, register};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Unit,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// One of [`METHODS`], or `other`: a client can invent any number.
    pub method: &'static str,
    /// The route's pattern, so that ids make no series of their own; `none` where there is none.
    pub route: String,
    pub status: u16,
}

/// Two labels with names and values of ours.
type Labels = [(&'static str, &'static str); 2];

pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<[(&'static str, String); 2], Histogram>,
    uploads: Family<Labels, Counter>,
    cached: Family<Labels, Counter>,
    /// To make room for others.
    pub connections_closed: Counter,
    pub connections_refused: Counter,
    pub relayed: Counter,
    pub stored: Counter,
    pub dead_letters: Counter,
    /// The next offset of each partition that the inbox of this process holds.
    inbox: Mutex<BTreeMap<i32, i64>>,
}

/// Those of routes, and those that standards define.
const METHODS: [&str; 9] = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS", "CONNECT", "TRACE"];

/// A method as a label and in the log.
pub(crate) fn method_label(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// The one set of counters of this process.
pub(crate) fn global() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    fn new() -> Self {
        // 0.5 ms to 8 s: from a cached read to an upload's probe.
        fn histogram() -> Histogram {
            Histogram::new(exponential_buckets(0.0005, 2.0, 15))
        }
        register(|r| Self {
            requests: added(r, "http_requests", "Requests answered", Family::default()),
            latency: {
                let latency = Family::new_with_constructor(histogram as fn() -> Histogram);
                let help = "Time from a request's head to its answer's head";
                r.register_with_unit("http_request_duration", help, Unit::Seconds, latency.clone());
                latency
            },
            uploads: added(r, "uploads", "Uploads by kind and outcome", Family::default()),
            cached: added(r, "cache_requests", "Answers asked of the cache, by outcome", Family::default()),
            connections_closed: {
                let help = "Slow connections closed because others needed their place";
                added(r, "http_connections_closed", help, Counter::default())
            },
            connections_refused: {
                let help = "Connections refused because all others were being served";
                added(r, "http_connections_refused", help, Counter::default())
            },
            relayed: added(r, "outbox_published", "Messages taken from the outbox to the bus", Counter::default()),
            stored: added(r, "inbox_predictions", "Predictions taken from the bus", Counter::default()),
            dead_letters: added(r, "inbox_dead_letters", "Records that could not be read", Counter::default()),
            inbox: Mutex::default(),
        })
    }

    pub(crate) fn observe_request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        self.latency
            .get_or_create(&[("method", method.to_owned()), ("route", route.clone())])
            .observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    }

    /// `outcome`: `created`, `unchanged`, or a problem's code.
    pub(crate) fn uploaded(&self, kind: &'static str, outcome: &'static str) {
        self.uploads.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
    }

    /// `what`: `scenario` or `prediction`. `outcome`: `hit`, `miss` or `unavailable`.
    pub(crate) fn cached(&self, what: &'static str, outcome: &'static str) {
        self.cached.get_or_create(&[("what", what), ("outcome", outcome)]).inc();
    }

    pub(crate) fn inbox_at(&self, partition: i32, next: i64) {
        self.inbox.lock().insert(partition, next);
    }

    pub(crate) fn inbox_left(&self, partition: i32) {
        self.inbox.lock().remove(&partition);
    }

    pub(crate) fn inbox_positions(&self) -> BTreeMap<i32, i64> {
        self.inbox.lock().clone()
    }
}
