//! Counts what becomes of one hook's calls.

use std::time::Duration;

use framehook_core::{
    hook_stats::{HookStage, HookStats},
    reason::ReasonCode,
};
use hdrhistogram::Histogram;

use crate::{media::Outcome, range::Mended};

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

    /// It was left out of a frame.
    pub(crate) const fn left_out(&mut self) {
        self.counts.left_out += 1;
    }

    /// It was called, and failed for this reason if there is one.
    pub(crate) fn called(&mut self, took: Duration, failure: Option<ReasonCode>) {
        self.counts.calls += 1;
        match failure {
            None => {}
            Some(ReasonCode::PluginTrap) => self.counts.traps += 1,
            Some(ReasonCode::PluginTimeout) => self.counts.timeouts += 1,
            Some(_) => self.counts.errors += 1,
        }
        if let Some(histogram) = &mut self.took {
            histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
        }
    }

    /// What it made of so many detections.
    pub(crate) fn made(&mut self, given: usize, outcome: &Outcome) {
        self.counts.detections_in += given as u64;
        self.counts.detections_out += outcome.detections.len() as u64;
        self.counts.events += outcome.events.len() as u64;
    }

    pub(crate) const fn mended(&mut self, Mended { cut, dropped }: Mended) {
        self.counts.cut += cut;
        self.counts.dropped += dropped;
    }

    /// An instance is gone.
    pub(crate) const fn lost(&mut self, used: Used) {
        self.counts.copied_bytes += used.copied_bytes;
    }

    /// With what the living instance has used.
    pub(crate) fn now(&self, used: Used) -> HookStats {
        let at = |quantile: f64| self.took.as_ref().map_or(0, |took| took.value_at_quantile(quantile));
        HookStats {
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: self.took.as_ref().map_or(0, Histogram::max),
            copied_bytes: self.counts.copied_bytes + used.copied_bytes,
            memory_bytes: used.memory_bytes,
            ..self.counts.clone()
        }
    }
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
        stats.lost(Used { memory_bytes: 9, copied_bytes: 5 });
        let now = stats.now(Used { memory_bytes: 7, copied_bytes: 3 });
        assert_eq!((now.calls, now.timeouts, now.traps, now.errors), (1001, 1, 0, 0));
        let near = |value: u64, expected: u64| value.abs_diff(expected) * 100 <= expected;
        assert!(near(now.p50_us, 500) && near(now.p99_us, 990) && near(now.max_us, LONGEST_US), "{now:?}");
        assert_eq!((now.memory_bytes, now.copied_bytes), (7, 8));
    }
}
