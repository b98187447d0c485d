//! What a Prometheus server may scrape.
//!
//! Counters belong to the process and are kept here; what the store and the bus know is read at the time of
//! the scrape (`operation.rs`), so that a stalled service shows as a growing lag and not as a gauge that
//! nobody updates.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    pub method: &'static str,
    pub route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UploadLabels {
    pub kind: &'static str,
    /// `created`, `unchanged`, or a problem's code.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    /// `scenario` or `prediction`.
    what: &'static str,
    /// `hit`, `miss`, or `unavailable`.
    outcome: &'static str,
}

pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram>,
    pub uploads: Family<UploadLabels, Counter>,
    cached: Family<CacheLabels, Counter>,
    /// For another that came.
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
        let metrics = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(histogram as fn() -> Histogram),
            uploads: Family::default(),
            cached: Family::default(),
            connections_closed: Counter::default(),
            connections_refused: Counter::default(),
            relayed: Counter::default(),
            stored: Counter::default(),
            dead_letters: Counter::default(),
            inbox: Mutex::default(),
        };
        framehook_infra::metrics::register(|registry| {
            registry.register("http_requests", "Requests answered", metrics.requests.clone());
            let help = "Time from a request's head to its answer's head";
            registry.register_with_unit("http_request_duration", help, Unit::Seconds, metrics.latency.clone());
            registry.register("uploads", "Uploads by kind and outcome", metrics.uploads.clone());
            registry.register("cache_requests", "Answers asked of the cache, by outcome", metrics.cached.clone());
            let help = "Slow connections closed because others needed their place";
            registry.register("http_connections_closed", help, metrics.connections_closed.clone());
            let help = "Connections refused because all others were being served";
            registry.register("http_connections_refused", help, metrics.connections_refused.clone());
            registry.register("outbox_published", "Messages taken from the outbox to the bus", metrics.relayed.clone());
            registry.register("inbox_predictions", "Predictions taken from the bus", metrics.stored.clone());
            registry.register("inbox_dead_letters", "Records that could not be read", metrics.dead_letters.clone());
        });
        metrics
    }

    pub(crate) fn observe_request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        self.latency.get_or_create(&RouteLabels { method, route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    }

    pub(crate) fn cached(&self, what: &'static str, outcome: &'static str) {
        self.cached.get_or_create(&CacheLabels { what, outcome }).inc();
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
