//! What came of a scenario's shadow: a second chain of post hooks, which sees the same frames as the
//! scenario's own and whose results go nowhere but into a comparison.
//!
//! Invariants: at the end of a worker, each of its frames was compared or is counted as not compared. What a
//! shadow makes is bounded, whatever its hooks do: the newest differences are kept ([`RING`], [`Recent`]),
//! each of at most [`MAX_DIFFERENCE`] bytes.
//!
//! Deliberately absent: a promise that a difference arrives. What a runner has not published when it dies is
//! lost, and so is what a shadow's hooks keep when their worker ends: the next one begins without it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    compare::{Comparison, FrameDifference},
    ids::{Generation, ScenarioId},
    prediction::PluginIdentity,
    reason::Reason,
    ring::{Batch, Ring},
    size::json_bytes,
};

/// What is kept of one scenario: enough to see what kinds of differences there are, in one answer of the API.
pub const RING: Ring = Ring { items: 1_000, bytes: 1 << 20 };

/// Bytes of JSON of one difference: some thirty detections.
pub const MAX_DIFFERENCE: usize = 4 << 10;

/// Differences of one message, and their bytes: a message a second fills the ring within seconds.
const MAX_BATCH: usize = 200;
const MAX_BATCH_BYTES: usize = 128 << 10;

/// What became of the frames of a shadow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ShadowCounts {
    #[serde(flatten)]
    pub comparison: Comparison,
    /// Frames that the shadow did not see, because it was busy with those before or had ended.
    pub not_compared: u64,
}

/// From a worker: all that its shadow has done so far, and the newest differences since the last report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowReport {
    pub counts: ShadowCounts,
    pub differences: Vec<FrameDifference>,
    /// Why it compares no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Reason>,
}

/// A shadow in the current or last deployment of its scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShadowSummary {
    /// Revision of the scenario's settings, from 1.
    pub revision: i64,
    /// The hooks of the shadow, in the order they are called.
    pub plugins: Vec<PluginIdentity>,
    #[serde(flatten)]
    pub counts: ShadowCounts,
    /// Workers that ran it. Each began without what the hooks of the one before kept, so that hooks which
    /// count or track may differ behind a restart for that alone.
    pub starts: u64,
    /// Why it compares no more: a hook of it cannot be started or refuses its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Reason>,
}

/// What one deployment's shadow found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShadowFindings {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// So far.
    pub summary: ShadowSummary,
    /// The number of the first difference among those of this deployment, from 0; the others follow.
    pub first: u64,
    /// Those that are new.
    pub differences: Vec<ShadowDifference>,
}

/// A frame on which a shadow differs from its scenario's own hooks, which are what was `before`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShadowDifference {
    /// Revision of the scenario's settings, from 1.
    pub revision: i64,
    #[serde(flatten)]
    pub difference: FrameDifference,
}

impl ShadowCounts {
    pub fn add(&mut self, more: &Self) {
        self.comparison.add(&more.comparison);
        self.not_compared += more.not_compared;
    }

    /// Frames that the shadow was to see.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.comparison.compared + self.not_compared
    }
}

impl<'a> From<&'a ShadowFindings> for Batch<'a, ShadowDifference> {
    fn from(findings: &'a ShadowFindings) -> Self {
        Self { generation: findings.generation, first: findings.first, items: &findings.differences }
    }
}

/// The newest differences, up to what fits into one message. Each has a number, from 0.
#[derive(Debug, Default)]
pub struct Recent {
    /// With their bytes.
    kept: VecDeque<(usize, FrameDifference)>,
    bytes: usize,
    /// The number of the first one.
    first: u64,
}

impl Recent {
    pub fn push(&mut self, difference: FrameDifference) {
        let difference = difference.within(MAX_DIFFERENCE);
        let bytes = json_bytes(&difference);
        self.bytes += bytes;
        self.kept.push_back((bytes, difference));
        while self.kept.len() > MAX_BATCH || self.bytes > MAX_BATCH_BYTES {
            let Some((bytes, _)) = self.kept.pop_front() else { return };
            self.bytes -= bytes;
            self.first += 1;
        }
    }

    /// Those that are kept, and the number of the first; from then on nothing is.
    pub fn take(&mut self) -> (u64, Vec<FrameDifference>) {
        let (first, kept) = (self.first, std::mem::take(&mut self.kept));
        self.first += kept.len() as u64;
        self.bytes = 0;
        (first, kept.into_iter().map(|(_, difference)| difference).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{DifferenceCounts, Found};

    fn difference(frame: u64, found: usize) -> FrameDifference {
        let one = Found { class_id: 0, label: Some("car".into()), score: 0.5, bbox: [0.1, 0.2, 0.3, 0.4] };
        let counts = DifferenceCounts { added: found as u64, ..DifferenceCounts::default() };
        FrameDifference { frame, counts, added: vec![one; found], ..FrameDifference::default() }
    }

    fn numbers(recent: &mut Recent) -> (u64, Vec<u64>) {
        let (first, differences) = recent.take();
        (first, differences.iter().map(|difference| difference.frame).collect())
    }

    #[test]
    fn the_newest_differences_are_kept_and_numbers_go_on() {
        let mut recent = Recent::default();
        (0..3).for_each(|frame| recent.push(difference(frame, 1)));
        assert_eq!(numbers(&mut recent), (0, vec![0, 1, 2]));
        (3..3 + MAX_BATCH as u64 + 7).for_each(|frame| recent.push(difference(frame, 1)));
        let (first, frames) = numbers(&mut recent);
        assert_eq!((first, frames[0], frames.len()), (10, 10, MAX_BATCH));
        assert_eq!(numbers(&mut recent), (10 + MAX_BATCH as u64, vec![]));
    }

    #[test]
    fn bytes_are_bounded_and_what_a_long_difference_counts_is_whole() {
        let mut recent = Recent::default();
        (0..100).for_each(|frame| recent.push(difference(frame, 500)));
        let (first, differences) = recent.take();
        assert!(json_bytes(&differences) <= MAX_BATCH_BYTES + 200 && differences.len() > 20, "{}", differences.len());
        assert_eq!(first + differences.len() as u64, 100);
        assert!(differences.iter().all(|d| d.counts.added == 500 && json_bytes(d) <= MAX_DIFFERENCE));
    }

    #[test]
    fn a_summary_is_flat() {
        let mut counts = ShadowCounts { not_compared: 2, ..ShadowCounts::default() };
        counts.comparison.count(Some(&difference(0, 1)));
        counts.comparison.count(None);
        let mut twice = counts;
        twice.add(&counts);
        assert_eq!((twice.frames(), twice.comparison.equal, twice.comparison.counts.added), (8, 2, 2));
        let summary = ShadowSummary { revision: 1, plugins: vec![], counts, starts: 1, ended: None };
        let written = serde_json::to_value(&summary).unwrap();
        assert_eq!((&written["compared"], &written["not_compared"]), (&2.into(), &2.into()));
        assert_eq!(written["counts"]["added"], 1);
        assert_eq!(serde_json::from_value::<ShadowSummary>(written).unwrap(), summary);
    }
}
