//! What became of the calls of a scenario's hooks: counted by the worker that makes them, added up over the
//! workers of a deployment by its runner.
//!
//! Invariant: what one scenario's hooks have is bounded, whatever the hooks do ([`hook_metrics`],
//! [`MAX_LABELS`]).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    hook_metrics::{self, Metrics},
    spec::{ResolvedHook, ResolvedScenario},
    state::words,
};

/// Labels in [`HookStats::unknown_labels`]: a few tell the mistake.
pub const MAX_LABELS: usize = 8;
/// Bytes of each; a longer one is no label of a class.
pub const MAX_LABEL: usize = 64;

/// How the failure of a frame ends for which a hook was not called: the rest is the failure that led to it.
pub const NOT_CALLED: &str = "; not called for a while after repeated failures";

words! {
    /// Where a hook is called: before the inference, or after it.
    HookStage { Pre = "pre", Post = "post" }
}

/// One hook of a scenario, in its current or last deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
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
    /// Frames for which it was not called for a while, because it had failed repeatedly.
    #[serde(default)]
    pub not_called: u64,
    /// Instances that were made of it: one, and one more after each trap and each missed deadline.
    #[serde(default)]
    pub instances: u64,
    /// Microseconds of all calls together, with what the host did for it meanwhile, but without further
    /// models.
    #[serde(default)]
    pub total_us: u64,
    /// Microseconds that further models took for it. They are in no other time of it.
    #[serde(default)]
    pub model_us: u64,
    /// Microseconds that half of the calls of the newest worker took, or less.
    #[serde(default)]
    pub p50_us: u64,
    /// Microseconds that 99 of 100 calls of the newest worker took, or less.
    #[serde(default)]
    pub p99_us: u64,
    /// Microseconds of the longest call.
    #[serde(default)]
    pub max_us: u64,
    /// Detections that it was given, of all frames on which it did not fail.
    #[serde(default)]
    pub detections_in: u64,
    /// Detections that it returned, without those that were dropped.
    #[serde(default)]
    pub detections_out: u64,
    #[serde(default)]
    pub events: u64,
    /// Detections that were cut to scores of 0 to 1 and to the frame, and attributes of events that were
    /// dropped.
    #[serde(default)]
    pub cut: u64,
    /// Detections that were dropped, for numbers that are not finite or a box beside the frame.
    #[serde(default)]
    pub dropped: u64,
    /// Bytes of pixels and of elements that were copied into the plugin.
    #[serde(default)]
    pub copied_bytes: u64,
    /// Most memory that an instance of it had.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Keys and values that it keeps.
    #[serde(default)]
    pub state_bytes: u64,
    /// The highest value from 0 to 1 that it found with `argmax-rows` or `top-k`, in its first 100 searches
    /// also below the threshold that it asked for; absent: it found none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_score: Option<f32>,
    /// What its configuration lists under `labels`, `keep` or `classes` and what is neither the label of a
    /// detection so far nor the name of a class of this hook, of those before it or of the model; at most 8
    /// of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_labels: Vec<String>,
    /// Its own, by name.
    #[serde(default, skip_serializing_if = "Metrics::is_empty")]
    pub metrics: Metrics,
}

impl HookStats {
    /// What a hook has that was not called yet.
    #[must_use]
    pub const fn new(plugin: String, stage: HookStage) -> Self {
        Self {
            plugin,
            stage,
            calls: 0,
            traps: 0,
            timeouts: 0,
            errors: 0,
            not_called: 0,
            instances: 0,
            total_us: 0,
            model_us: 0,
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
            state_bytes: 0,
            highest_score: None,
            unknown_labels: Vec::new(),
            metrics: Metrics::new(),
        }
    }

    /// What all hooks of a scenario have that did not run yet, pre hooks first.
    #[must_use]
    pub fn of(scenario: &ResolvedScenario) -> Vec<Self> {
        let new =
            |hook: &ResolvedHook, stage| Self::new(format!("{}@{}", hook.identity.name, hook.identity.version), stage);
        let pre = scenario.pre.iter().map(|hook| new(hook, HookStage::Pre));
        pre.chain(scenario.post.iter().map(|hook| new(hook, HookStage::Post))).collect()
    }

    /// Calls that went well.
    #[must_use]
    pub const fn successes(&self) -> u64 {
        self.calls.saturating_sub(self.traps + self.timeouts + self.errors)
    }

    /// What is counted: it only grows.
    const fn counts(&mut self) -> [&mut u64; 14] {
        [
            &mut self.calls,
            &mut self.traps,
            &mut self.timeouts,
            &mut self.errors,
            &mut self.not_called,
            &mut self.instances,
            &mut self.total_us,
            &mut self.model_us,
            &mut self.detections_in,
            &mut self.detections_out,
            &mut self.events,
            &mut self.cut,
            &mut self.dropped,
            &mut self.copied_bytes,
        ]
    }

    /// Adds those of the worker that came behind this one. What is not counted is as it was there, or the
    /// higher of both.
    pub fn add(&mut self, more: &Self) {
        let mut copy = more.clone();
        for (count, more) in self.counts().into_iter().zip(copy.counts()) {
            *count = count.saturating_add(*more);
        }
        hook_metrics::add(&mut self.metrics, &more.metrics);
        self.max_us = self.max_us.max(more.max_us);
        self.memory_bytes = self.memory_bytes.max(more.memory_bytes);
        self.state_bytes = more.state_bytes;
        let scores = [self.highest_score, more.highest_score];
        self.highest_score = scores.into_iter().flatten().reduce(f32::max);
        if more.calls > 0 {
            (self.p50_us, self.p99_us) = (more.p50_us, more.p99_us);
            self.unknown_labels.clone_from(&more.unknown_labels);
        }
    }

    /// With counts of what is new since they were `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let (mut new, mut before) = (self.clone(), before.clone());
        for (count, before) in new.counts().into_iter().zip(before.counts()) {
            *count = count.saturating_sub(*before);
        }
        new.metrics = hook_metrics::since(&self.metrics, &before.metrics);
        new
    }

    /// What no worker says of a hook: its labels and metrics are the only parts whose size it decides.
    ///
    /// # Errors
    /// With the first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        let is_short = |label: &String| label.len() <= MAX_LABEL;
        if self.unknown_labels.len() > MAX_LABELS || !self.unknown_labels.iter().all(is_short) {
            return Err("more labels that are not known than there may be".to_owned());
        }
        hook_metrics::check(&self.metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook_metrics::Metric;

    fn stats(calls: u64, max_us: u64, score: Option<f32>) -> HookStats {
        let metrics = [("n".to_owned(), Metric::Counter(calls)), ("g".to_owned(), Metric::Gauge(calls as f64))];
        HookStats {
            calls,
            max_us,
            p50_us: 5,
            highest_score: score,
            metrics: metrics.into(),
            ..HookStats::new("p@1".into(), HookStage::Post)
        }
    }

    #[test]
    fn workers_add_up_to_a_deployment() {
        let mut all = stats(3, 90, Some(0.25));
        all.add(&stats(4, 70, None));
        let expected = HookStats {
            metrics: [("n".to_owned(), Metric::Counter(7)), ("g".to_owned(), Metric::Gauge(4.0))].into(),
            ..stats(7, 90, Some(0.25))
        };
        assert_eq!(all, expected);
        // One that was not called has no quantiles to tell of.
        all.add(&HookStats::new("p@1".into(), HookStage::Post));
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_new_is_told_once() {
        let (before, now) = (stats(3, 90, None), stats(10, 95, None));
        let new = now.since(&before);
        assert_eq!((new.calls, &new.metrics["n"]), (7, &Metric::Counter(7)));
        assert_eq!(before.since(&now).calls, 0, "a worker that counts backwards");
        let mut sum = before;
        sum.add(&new);
        assert_eq!(sum, now);
    }

    #[test]
    fn what_another_release_did_not_say_is_nothing() {
        let read: HookStats = serde_json::from_str(r#"{"plugin": "p@1", "stage": "pre", "calls": 2}"#).unwrap();
        assert_eq!(read, HookStats { calls: 2, ..HookStats::new("p@1".into(), HookStage::Pre) });
        assert_eq!(serde_json::from_str::<HookStats>(&serde_json::to_string(&read).unwrap()).unwrap(), read);
    }

    #[test]
    fn what_a_worker_decides_is_bounded() {
        let with = |labels: Vec<String>| HookStats { unknown_labels: labels, ..stats(1, 1, None) }.check();
        assert_eq!(with(vec!["x".repeat(MAX_LABEL); MAX_LABELS]), Ok(()));
        assert!(with(vec!["x".into(); MAX_LABELS + 1]).is_err());
        assert!(with(vec!["x".repeat(MAX_LABEL + 1)]).is_err());
    }
}
