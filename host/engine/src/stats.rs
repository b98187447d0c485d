//! Counts what becomes of one hook's calls.

use std::time::Duration;

use framehook_core::{
    hook_stats::{HookStage, HookStats},
    reason::ReasonCode,
};
use hdrhistogram::Histogram;

use crate::media::Outcome;

/// Microseconds of a call, at most: a hook has 20 ms of processor time, which may last 50 times as long.
const LONGEST_US: u64 = 60_000_000;
/// Digits of a quantile. More would tell noise.
const DIGITS: u8 = 2;

/// What an instance has used of its host.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) memory_bytes: u64,
    /// Bytes that were copied into it.
    pub(crate) copied_bytes: u64,
    /// Time of further models that it ran.
    pub(crate) models: Duration,
    /// The highest value that it had looked for.
    pub(crate) highest_score: Option<f32>,
}

pub(crate) struct Stats {
    counts: HookStats,
    /// `None` only if there is no memory for it.
    took: Option<Histogram<u32>>,
}

impl Stats {
    pub(crate) fn new(plugin: String, stage: HookStage) -> Self {
        let took = Histogram::new_with_bounds(1, LONGEST_US, DIGITS).ok();
        Self { counts: HookStats::new(plugin, stage), took }
    }

    /// An instance was made.
    pub(crate) const fn began(&mut self) {
        self.counts.instances += 1;
    }

    /// It was left out of a frame.
    pub(crate) const fn left_out(&mut self) {
        self.counts.not_called += 1;
    }

    /// It was called, and failed for this reason if there is one. `took` is without the time of models.
    pub(crate) fn called(&mut self, took: Duration, failure: Option<ReasonCode>) {
        self.counts.calls += 1;
        match failure {
            None => {}
            Some(ReasonCode::PluginTrap) => self.counts.traps += 1,
            Some(ReasonCode::PluginTimeout) => self.counts.timeouts += 1,
            Some(_) => self.counts.errors += 1,
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST_US);
        self.counts.total_us += us;
        if let Some(histogram) = &mut self.took {
            histogram.saturating_record(us);
        }
    }

    /// What it made of so many detections.
    pub(crate) fn made(&mut self, given: usize, outcome: &Outcome) {
        self.counts.detections_in += given as u64;
        self.counts.detections_out += outcome.detections.len() as u64;
        self.said(outcome.events.len());
    }

    /// So many events.
    pub(crate) const fn said(&mut self, events: usize) {
        self.counts.events += events as u64;
    }

    /// Time of the models that instances ran which are gone.
    pub(crate) const fn models(&self) -> Duration {
        Duration::from_micros(self.counts.model_us)
    }

    /// What an instance has used that is gone.
    pub(crate) fn lost(&mut self, used: Used) {
        use_more(&mut self.counts, used);
    }

    /// With what the living instance has used.
    pub(crate) fn now(&self, used: Used) -> HookStats {
        let mut now = self.counts.clone();
        if let Some(took) = &self.took {
            (now.p50_us, now.p99_us, now.max_us) =
                (took.value_at_quantile(0.5), took.value_at_quantile(0.99), took.max());
        }
        use_more(&mut now, used);
        now
    }
}

fn use_more(counts: &mut HookStats, used: Used) {
    counts.copied_bytes += used.copied_bytes;
    counts.model_us += u64::try_from(used.models.as_micros()).unwrap_or(u64::MAX);
    counts.memory_bytes = counts.memory_bytes.max(used.memory_bytes);
    counts.highest_score = counts.highest_score.into_iter().chain(used.highest_score).reduce(f32::max);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_calls() {
        let mut stats = Stats::new("p@1".into(), HookStage::Post);
        assert_eq!(stats.now(Used::default()), HookStats::new("p@1".into(), HookStage::Post));
        for us in 1..=1000 {
            stats.called(Duration::from_micros(us), None);
        }
        stats.called(Duration::from_secs(3600), Some(ReasonCode::PluginTimeout));
        let models = Duration::from_micros(20);
        stats.lost(Used { memory_bytes: 9, copied_bytes: 5, models, highest_score: Some(0.5) });
        let now = stats.now(Used { memory_bytes: 7, copied_bytes: 3, models, highest_score: None });
        assert_eq!((now.calls, now.timeouts, now.traps, now.errors), (1001, 1, 0, 0));
        let near = |value: u64, expected: u64| value.abs_diff(expected) * 100 <= expected;
        assert!(near(now.p50_us, 500) && near(now.p99_us, 990) && near(now.max_us, LONGEST_US), "{now:?}");
        assert_eq!((now.memory_bytes, now.copied_bytes, now.model_us, now.highest_score), (9, 8, 40, Some(0.5)));
    }
}
