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
    /// Of the workers that are gone.
    before: ShadowCounts,
}

impl Shadow {
    pub(crate) fn new(order: &DeployOrder) -> Self {
        let plugins: Vec<_> = order.scenario.shadow.iter().map(|hook| hook.identity.clone()).collect();
        let (revision, counts) = (order.revision, ShadowCounts::default());
        let summary =
            (!plugins.is_empty()).then_some(ShadowSummary { revision, plugins, counts, starts: 0, ended: None });
        Self { summary, before: counts }
    }

    /// Another worker begins, and counts anew.
    pub(crate) fn begin(&mut self) {
        if let Some(summary) = &mut self.summary {
            self.before = summary.counts;
            summary.starts += 1;
            summary.ended = None;
        }
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

#[cfg(test)]
mod tests {
    use framehook_core::{
        compare::Comparison,
        reason::{Reason, ReasonCode},
    };

    use super::*;

    fn report(equal: u64, ended: Option<Reason>) -> ShadowReport {
        let comparison = Comparison { compared: equal, equal, ..Comparison::default() };
        ShadowReport { counts: ShadowCounts { comparison, not_compared: 1 }, ended, ..ShadowReport::default() }
    }

    #[test]
    fn workers_add_up_and_each_begins_anew() {
        let summary =
            ShadowSummary { revision: 3, plugins: vec![], counts: ShadowCounts::default(), starts: 0, ended: None };
        let mut shadow = Shadow { summary: Some(summary), before: ShadowCounts::default() };
        let why = Reason::new(ReasonCode::PluginIncompatible, "a\nb");
        let mut told = |report| {
            let (summary, _) = shadow.hear(report).unwrap();
            (summary.counts.comparison.equal, summary.counts.not_compared, summary.starts, summary.ended)
        };
        assert_eq!(told(report(5, None)), (5, 1, 0, None));
        let (.., ended) = told(report(7, Some(why)));
        assert_eq!(ended.unwrap().message, "a\\nb");
        shadow.begin();
        let (summary, _) = shadow.hear(report(2, None)).unwrap();
        assert_eq!((summary.counts.comparison.equal, summary.counts.not_compared), (9, 2));
        assert_eq!((summary.starts, summary.ended), (1, None));
    }

    #[test]
    fn nobody_tells_of_a_shadow_that_is_not_there() {
        let mut shadow = Shadow { summary: None, before: ShadowCounts::default() };
        shadow.begin();
        assert!(shadow.hear(report(1, None)).is_err());
    }
}
