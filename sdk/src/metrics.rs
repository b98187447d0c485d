//! Numbers of a hook's own: shown with its scenario (`GET /scenario/{id}/plugins`) and, added up over
//! scenarios, in the runner's `/metrics`.
//!
//! ```no_run
//! use framehook_sdk::metrics;
//!
//! metrics::add("crossings", 1).ok();
//! metrics::set("in_zone", 3.0).ok();
//! metrics::observe("dwell_seconds", 12.5).ok();
//! ```
//!
//! A name is `[a-z][a-z0-9_]*`, of up to 64 characters, and of one kind from its first use on; a hook has 64
//! (less where a scenario has more than four hooks). A number that is not taken changes nothing, and the log
//! says so once: most hooks need not look at the answer. In tests that run natively, numbers go nowhere.

#[cfg(target_family = "wasm")]
use crate::bindings::host::framehook::plugin::metrics as host;
pub use crate::bindings::host::framehook::plugin::metrics::MetricError;

/// Adds to a counter, which only grows.
///
/// # Errors
/// When the name is none, that of another kind, or one too many.
pub fn add(name: &str, value: u64) -> Result<(), MetricError> {
    #[cfg(target_family = "wasm")]
    return host::add(name, value);
    #[cfg(not(target_family = "wasm"))]
    nowhere(name, value)
}

/// Says what a gauge is now.
///
/// # Errors
/// As [`add`], and when the value is not finite.
pub fn set(name: &str, value: f64) -> Result<(), MetricError> {
    #[cfg(target_family = "wasm")]
    return host::set(name, value);
    #[cfg(not(target_family = "wasm"))]
    nowhere(name, value)
}

/// Adds one value to a histogram, whose buckets end at 0.001, 0.002, 0.005, 0.01 and so on to 1,000,000.
///
/// # Errors
/// As [`set`].
pub fn observe(name: &str, value: f64) -> Result<(), MetricError> {
    #[cfg(target_family = "wasm")]
    return host::observe(name, value);
    #[cfg(not(target_family = "wasm"))]
    nowhere(name, value)
}

#[cfg(not(target_family = "wasm"))]
#[allow(clippy::unnecessary_wraps, reason = "as the host answers")]
fn nowhere<T>(_: &str, _: T) -> Result<(), MetricError> {
    Ok(())
}
