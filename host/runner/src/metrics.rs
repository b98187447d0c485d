//! What a Prometheus server may scrape of a runner. Several runners in one process (in tests only) share
//! these.

use std::sync::LazyLock;

use framehook_core::{
    execution::Execution,
    message::{WorkerPhase, WorkerStatus},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::plugin_metrics::PluginMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExecutionLabel {
    provider: &'static str,
    precision: &'static str,
}

#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) slots: Gauge,
    workers: Family<PhaseLabel, Gauge>,
    models: Family<ExecutionLabel, Gauge>,
    pub(crate) restarts: Counter,
    pub(crate) frames: Counter,
    pub(crate) plugins: PluginMetrics,
}

/// The phases of a worker that has not ended.
const LIVE: [(WorkerPhase, &str); 5] = [
    (WorkerPhase::Starting, "starting"),
    (WorkerPhase::Running, "running"),
    (WorkerPhase::Degraded, "degraded"),
    (WorkerPhase::Recovering, "recovering"),
    (WorkerPhase::Stopping, "stopping"),
];

pub(crate) fn global() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
        let metrics = Metrics::default();
        framehook_infra::metrics::register(|registry| {
            registry.register("worker_slots", "Workers that may run at a time", metrics.slots.clone());
            registry.register("workers", "Workers by phase, without those that ended", metrics.workers.clone());
            registry.register("models", "Models that run, by what runs them", metrics.models.clone());
            registry.register("worker_restarts", "Workers that ended before their time", metrics.restarts.clone());
            registry.register("frames_published", "Frames that the bus has acknowledged", metrics.frames.clone());
            registry.register_collector(Box::new(metrics.plugins.clone()));
        });
        metrics
    });
    &METRICS
}

impl Metrics {
    /// Those of the runner.
    pub(crate) fn workers<'a>(&self, workers: impl Iterator<Item = &'a WorkerStatus> + Clone) {
        for (phase, name) in LIVE {
            let count = workers.clone().filter(|worker| worker.phase == phase).count();
            self.workers.get_or_create(&PhaseLabel { phase: name }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.plugins.workers(workers.clone());
        // Those that nobody uses any more are gone.
        self.models.clear();
        for worker in workers.filter(|worker| !worker.phase.is_ended()) {
            let Some(Execution { provider, precision }) = worker.progress.execution else { continue };
            let label = ExecutionLabel { provider: provider.as_str(), precision: precision.as_str() };
            self.models.get_or_create(&label).inc();
        }
    }
}
