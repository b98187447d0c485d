//! What a plugin takes, as numbers that are kept and compared.
//!
//! A time is compared only with one of the same processor, and what single repeats differ by is not called a
//! difference. Times of the start and of the slowest calls are told and not judged: on a machine that does
//! anything else they say more of that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Half of the calls may take this much more: a build with another compiler moves code by as much.
const MORE_TIME: f64 = 0.15;
/// In microseconds: what the clock and the caches make of two runs of one hook.
const LEAST_TIME: f64 = 1.0;
/// Bytes may be this many more: a worker that is told to stop may still work on some frames.
const MORE_BYTES: f64 = 0.05;

/// What `bench.json` holds.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    pub(super) processor: String,
    /// By the names of the golden cases.
    pub(super) cases: BTreeMap<String, Figures>,
}

/// What the plugin takes in one case: medians of the repeats. Times are microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Half of the calls took this or less.
    pub(super) p50_us: f64,
    /// By how much the repeats' `p50_us` differ at most.
    #[serde(default)]
    pub(super) spread_us: f64,
    pub(super) p99_us: f64,
    /// What a call copies into the plugin.
    pub(super) copied_bytes: u64,
    /// Most that an instance had.
    pub(super) memory_bytes: u64,
    /// Until an instance is made and has described itself.
    pub(super) instantiation_us: f64,
    /// Until the compiled plugin is loaded; a case of a video does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) load_us: Option<f64>,
}

impl Figures {
    /// Figure by figure, that of several runs of one case.
    pub(super) fn median(runs: &[Self]) -> Self {
        let middle = |of: &dyn Fn(&Self) -> f64| {
            let mut all: Vec<_> = runs.iter().map(of).collect();
            all.sort_unstable_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let times = || runs.iter().map(|run| run.p50_us);
        Self {
            p50_us: middle(&|run| run.p50_us),
            spread_us: times().fold(f64::MIN, f64::max) - times().fold(f64::MAX, f64::min),
            p99_us: middle(&|run| run.p99_us),
            copied_bytes: middle(&|run| run.copied_bytes as f64) as u64,
            memory_bytes: middle(&|run| run.memory_bytes as f64) as u64,
            instantiation_us: middle(&|run| run.instantiation_us),
            load_us: runs.iter().all(|run| run.load_us.is_some()).then(|| middle(&|run| run.load_us.unwrap_or(0.0))),
        }
    }

    /// In a line.
    pub(super) fn told(&self) -> String {
        let load = self.load_us.map(|us| format!(", loaded in {us:.0} us")).unwrap_or_default();
        format!(
            "p50 {:.1} us (repeats differ by {:.1}), p99 {:.1} us, {} bytes copied, {:.1} MiB of memory, instantiated in \
             {:.0} us{load}",
            self.p50_us,
            self.spread_us,
            self.p99_us,
            self.copied_bytes,
            self.memory_bytes as f64 / f64::from(1 << 20),
            self.instantiation_us,
        )
    }

    /// What is worse than it was, each in words. `same_processor`: whether times can be compared.
    pub(super) fn worse_than(&self, before: &Self, same_processor: bool) -> Vec<String> {
        let noise = [MORE_TIME * before.p50_us, before.spread_us, self.spread_us, LEAST_TIME];
        let most_us = before.p50_us + noise.into_iter().fold(0.0, f64::max);
        let most = |bytes: u64| (bytes as f64 * (1.0 + MORE_BYTES)) as u64;
        let mut worse = Vec::new();
        if same_processor && self.p50_us > most_us {
            worse.push(format!("p50 was {:.1} us, and up to {most_us:.1} would be as before", before.p50_us));
        }
        if self.copied_bytes > most(before.copied_bytes) {
            worse.push(format!("{} bytes were copied", before.copied_bytes));
        }
        if self.memory_bytes > most(before.memory_bytes) {
            worse.push(format!("it had {:.1} MiB of memory", before.memory_bytes as f64 / f64::from(1 << 20)));
        }
        worse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(p50_us: f64, spread_us: f64) -> Figures {
        Figures { p50_us, spread_us, copied_bytes: 1000, memory_bytes: 1 << 20, ..Figures::default() }
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let run = |p50_us, p99_us, copied_bytes| Figures { p50_us, p99_us, copied_bytes, ..Figures::default() };
        let median = Figures::median(&[run(3.0, 9.0, 1), run(1.0, 7.0, 3), run(2.0, 8.0, 2)]);
        assert_eq!((median.p50_us, median.p99_us, median.copied_bytes), (2.0, 8.0, 2));
        assert_eq!((median.spread_us, median.load_us), (2.0, None));
        assert_eq!(Figures::median(&[Figures { load_us: Some(4.0), ..run(1.0, 1.0, 1) }]).load_us, Some(4.0));
    }

    #[test]
    fn a_difference_counts_where_it_is_more_than_noise() {
        for (before, now, is_worse) in [
            (figures(100.0, 0.0), figures(115.0, 0.0), false),
            (figures(100.0, 0.0), figures(115.1, 0.0), true),
            (figures(100.0, 30.0), figures(129.0, 0.0), false),
            (figures(100.0, 0.0), figures(129.0, 30.0), false),
            (figures(100.0, 30.0), figures(131.0, 30.0), true),
            (figures(2.0, 0.0), figures(2.9, 0.0), false),
            (figures(100.0, 0.0), figures(20.0, 0.0), false),
        ] {
            assert_eq!(now.worse_than(&before, true).is_empty(), !is_worse, "{before:?} {now:?}");
            assert!(now.worse_than(&before, false).is_empty(), "another processor");
        }
        let more = Figures { copied_bytes: 1051, memory_bytes: 2 << 20, ..figures(1.0, 0.0) };
        let worse = more.worse_than(&figures(1.0, 0.0), false);
        assert_eq!(worse, ["1000 bytes were copied", "it had 1.0 MiB of memory"]);
        assert!(Figures { copied_bytes: 1050, ..figures(1.0, 0.0) }.worse_than(&figures(1.0, 0.0), false).is_empty());
    }
}
