//! What became of the calls of a scenario's hooks, as the worker that makes them counts it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::state::words;

words! {
    /// Where a hook is called: before the inference, or after it.
    HookStage { Pre = "pre", Post = "post" }
}

/// One hook of a scenario, since its worker began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookStats {
    /// `name@version`.
    pub plugin: String,
    pub stage: HookStage,
    /// For a frame, those that failed among them.
    pub calls: u64,
    /// Calls that trapped or panicked.
    #[serde(default)]
    pub traps: u64,
    /// Calls that missed their deadline.
    #[serde(default)]
    pub timeouts: u64,
    /// Calls that gave an error, or a result that cannot be used.
    #[serde(default)]
    pub errors: u64,
    /// Frames for which it was not called, because it had failed before.
    #[serde(default)]
    pub left_out: u64,
    /// Microseconds that half of the calls took, or less.
    #[serde(default)]
    pub p50_us: u64,
    /// Microseconds that 99 of 100 calls took, or less.
    #[serde(default)]
    pub p99_us: u64,
    #[serde(default)]
    pub max_us: u64,
    /// Detections that it was given, of all frames.
    #[serde(default)]
    pub detections_in: u64,
    /// Detections that it returned.
    #[serde(default)]
    pub detections_out: u64,
    #[serde(default)]
    pub events: u64,
    /// Detections that were cut to scores of 0 to 1 and to the frame, and attributes of events that were dropped.
    #[serde(default)]
    pub cut: u64,
    /// Detections that were dropped, for numbers that are not finite or a box beside the frame.
    #[serde(default)]
    pub dropped: u64,
    /// Bytes of pixels and elements that were copied into the plugin.
    #[serde(default)]
    pub copied_bytes: u64,
    /// Memory of its instance; 0 if it has none.
    #[serde(default)]
    pub memory_bytes: u64,
}

impl HookStats {
    /// Of a hook that was not called yet.
    #[must_use]
    pub const fn new(plugin: String, stage: HookStage) -> Self {
        Self {
            plugin,
            stage,
            calls: 0,
            traps: 0,
            timeouts: 0,
            errors: 0,
            left_out: 0,
            p50_us: 0,
            p99_us: 0,
            max_us: 0,
            detections_in: 0,
            detections_out: 0,
            events: 0,
            cut: 0,
            dropped: 0,
            copied_bytes: 0,
            memory_bytes: 0,
        }
    }
}
