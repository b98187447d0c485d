//! The metrics of this process. Each service registers its own; whoever answers `/metrics` shows all of them,
//! so that a process tells of what it does and of nothing else.

use std::{fmt, sync::LazyLock};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::text,
    registry::{Metric, Registry},
};

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| Mutex::new(registry()));

/// An empty one, whose metrics are called `framehook_...`.
pub fn registry() -> Registry {
    Registry::with_prefix("framehook")
}

/// Adds the metrics of a service, once in the life of the process.
pub fn register<T>(add: impl FnOnce(&mut Registry) -> T) -> T {
    add(&mut REGISTRY.lock())
}

/// A metric that `registry` shows.
pub fn added<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Everything that was registered, and `now`, which was looked up for this answer, in the `OpenMetrics` text
/// format.
///
/// # Errors
/// When a metric cannot be written as text.
pub fn encode(now: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode_registry(&mut text, &REGISTRY.lock())?;
    text::encode(&mut text, now)?;
    Ok(text)
}
