//! What the shadow of a deployment found: that of its current worker, added to that of the workers before.
//!
//! Invariant: a worker that tells of a shadow which its scenario does not have is not believed. What it tells
//! is bounded by whoever gathers it (`framehook_core::shadow::Recent`).

use framehook_core::{
    compare::FrameDifference,
    message::DeployOrder,
    shadow::{ShadowCounts, ShadowReport, ShadowSummary},
    text::short_line,
};

/// Some sentences of a plugin about why it cannot be used.
const MAX_MESSAGE: usize = 2000;

#[derive(Debug)]
pub(crate) struct Shadow {
    /// What was told last, with the counts of all workers. `None`: the scenario has no shadow.
    summary: Option<ShadowSummary>,
    /// What the workers found that are gone.
    before: ShadowCounts,
}

impl Shadow {
    pub(crate) fn new(order: &DeployOrder) -> Self {
        Self { summary: summary(order), before: ShadowCounts::default() }
    }

    /// Another worker begins, and counts anew. Its revision may be another, with other hooks or none; the
    /// counts are of the deployment.
    pub(crate) fn begin(&mut self, order: &DeployOrder) {
        let Some(now) = summary(order) else { return };
        let before = self.summary.take();
        self.before = before.as_ref().map_or_else(ShadowCounts::default, |before| before.counts);
        let starts = before.map_or(0, |before| before.starts) + 1;
        self.summary = Some(ShadowSummary { counts: self.before, starts, ..now });
    }

    /// Takes what the worker says; gives the whole so far, and what is new.
    ///
    /// # Errors
    /// With what no worker says.
    pub(crate) fn hear(&mut self, told: ShadowReport) -> Result<(ShadowSummary, Vec<FrameDifference>), String> {
        let Some(summary) = &mut self.summary else {
            return Err("what a shadow found that its scenario does not have".to_owned());
        };
        summary.counts = self.before;
        summary.counts.add(&told.counts);
        summary.ended = told.ended.map(|mut reason| {
            reason.message = short_line(&reason.message, MAX_MESSAGE);
            reason
        });
        Ok((summary.clone(), told.differences))
    }
}

/// A shadow that has seen nothing; `None`: the order has no shadow.
fn summary(order: &DeployOrder) -> Option<ShadowSummary> {
    let plugins: Vec<_> = order.scenario.shadow.iter().map(|hook| hook.identity.clone()).collect();
    let (revision, counts) = (order.revision, ShadowCounts::default());
    (!plugins.is_empty()).then_some(ShadowSummary { revision, plugins, counts, starts: 0, ended: None })
}

#[cfg(test)]
mod tests {
    use framehook_core::{
        compare::Comparison,
        ids::{Incarnation, ScenarioId},
        reason::{Reason, ReasonCode},
    };

    use serde_json::json;

    use super::*;

    fn order(revision: i64) -> DeployOrder {
        let digest = format!("sha256:{}", "0".repeat(64));
        let artifact = |version: &str| json!({"name": "a", "version": version, "digest": digest, "config": {}});
        let input = json!({"tensor": "x", "width": 8, "height": 8, "resize": "letterbox", "anchor": "center",
            "channels": "rgb", "pad": 114, "scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]});
        let scenario = json!({"source": {"file": "/v.mp4"}, "model": artifact("1"), "input": input, "pre": [],
            "post": [artifact("1")], "shadow": [artifact("2")], "on_plugin_failure": "skip_frame"});
        let order = json!({"scenario_id": ScenarioId::generate(), "generation": 1, "runner_id": "r",
            "incarnation": Incarnation::generate(), "revision": revision, "created_at": "2026-11-27T03:04:05Z",
            "scenario": scenario, "resume_after": null});
        serde_json::from_value(order).unwrap()
    }

    fn report(equal: u64, ended: Option<Reason>) -> ShadowReport {
        let comparison = Comparison { compared: equal, equal, ..Comparison::default() };
        ShadowReport { counts: ShadowCounts { comparison, not_compared: 1 }, ended, ..ShadowReport::default() }
    }

    #[test]
    fn workers_add_up_and_each_begins_anew() {
        let mut shadow = Shadow::new(&order(3));
        shadow.begin(&order(3));
        let why = Reason::new(ReasonCode::PluginIncompatible, "a\nb");
        let mut told = |report| {
            let (summary, _) = shadow.hear(report).unwrap();
            (summary.counts.comparison.equal, summary.counts.not_compared, summary.starts, summary.ended)
        };
        assert_eq!(told(report(5, None)), (5, 1, 1, None));
        let (.., ended) = told(report(7, Some(why)));
        assert_eq!(ended.unwrap().message, "a\\nb");
        shadow.begin(&order(4));
        let (summary, _) = shadow.hear(report(2, None)).unwrap();
        assert_eq!((summary.counts.comparison.equal, summary.counts.not_compared), (9, 2));
        assert_eq!((summary.starts, summary.revision, summary.ended), (2, 4, None));
    }

    #[test]
    fn nobody_tells_of_a_shadow_that_is_not_there() {
        let mut shadow = Shadow { summary: None, before: ShadowCounts::default() };
        assert!(shadow.hear(report(1, None)).is_err());
    }
}
