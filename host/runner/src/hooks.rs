//! What became of the calls of a deployment's hooks: those of its current worker, added to those of the
//! workers before.
//!
//! Invariant: it is always of the hooks that the scenario has, in their order. A worker that tells of others,
//! or of more than there can be, is not believed.

use framehook_core::{hook_stats::HookStats, spec::ResolvedScenario};

#[derive(Debug)]
pub(crate) struct Hooks {
    /// What the workers had that are gone.
    before: Vec<HookStats>,
    /// What the current one has.
    now: Vec<HookStats>,
    /// What there is before one has said anything.
    none: Vec<HookStats>,
}

impl Hooks {
    pub(crate) fn new(scenario: &ResolvedScenario) -> Self {
        let none = HookStats::of(scenario);
        Self { before: none.clone(), now: none.clone(), none }
    }

    /// Another worker begins, and counts anew.
    pub(crate) fn begin(&mut self) {
        self.before = self.all();
        self.now.clone_from(&self.none);
    }

    /// Takes what the worker says, and gives what is new in it.
    ///
    /// # Errors
    /// With what no worker says.
    pub(crate) fn hear(&mut self, told: Vec<HookStats>) -> Result<Vec<HookStats>, String> {
        let is_same = |(told, ours): (&HookStats, &HookStats)| told.plugin == ours.plugin && told.stage == ours.stage;
        if told.len() != self.now.len() || !told.iter().zip(&self.now).all(is_same) {
            return Err("what became of hooks that its scenario does not have".to_owned());
        }
        told.iter().try_for_each(HookStats::check)?;
        let new = told.iter().zip(&self.now).map(|(now, before)| now.since(before)).collect();
        self.now = told;
        Ok(new)
    }

    pub(crate) fn all(&self) -> Vec<HookStats> {
        let mut all = self.before.clone();
        all.iter_mut().zip(&self.now).for_each(|(all, now)| all.add(now));
        all
    }

    /// Writes a line on each to the log, at the end of a deployment.
    pub(crate) fn log(&self) {
        for hook in self.all() {
            let HookStats { plugin, stage, calls, traps, timeouts, errors, not_called, p50_us, p99_us, .. } = &hook;
            let HookStats { detections_in, detections_out, events, cut, dropped, memory_bytes, .. } = &hook;
            let (failed, out_of_range) = (traps + timeouts + errors, cut + dropped);
            tracing::info!(
                plugin,
                %stage,
                calls,
                failed,
                not_called,
                p50_us,
                p99_us,
                detections_in,
                detections_out,
                events,
                out_of_range,
                memory_kib = memory_bytes >> 10,
                "hook ended"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::hook_stats::{HookStage, MAX_LABELS};

    use super::*;

    fn stats(plugin: &str, calls: u64) -> HookStats {
        HookStats { calls, ..HookStats::new(plugin.into(), HookStage::Post) }
    }

    fn hooks() -> Hooks {
        let none = vec![stats("a@1", 0), stats("b@1", 0)];
        Hooks { before: none.clone(), now: none.clone(), none }
    }

    fn calls(hooks: &[HookStats]) -> Vec<u64> {
        hooks.iter().map(|hook| hook.calls).collect()
    }

    #[test]
    fn workers_add_up_and_what_is_new_is_given_once() {
        let mut hooks = hooks();
        assert_eq!(calls(&hooks.hear(vec![stats("a@1", 5), stats("b@1", 4)]).unwrap()), [5, 4]);
        assert_eq!(calls(&hooks.hear(vec![stats("a@1", 7), stats("b@1", 4)]).unwrap()), [2, 0]);
        hooks.begin();
        assert_eq!(calls(&hooks.all()), [7, 4]);
        assert_eq!(calls(&hooks.hear(vec![stats("a@1", 1), stats("b@1", 1)]).unwrap()), [1, 1]);
        assert_eq!(calls(&hooks.all()), [8, 5]);
    }

    #[test]
    fn a_worker_tells_of_its_own_hooks_and_no_more_than_there_is() {
        let pre = HookStats { stage: HookStage::Pre, ..stats("a@1", 1) };
        let long = HookStats { unknown_labels: vec!["x".into(); MAX_LABELS + 1], ..stats("a@1", 1) };
        for told in [
            vec![],
            vec![stats("a@1", 1)],
            vec![stats("b@1", 1), stats("a@1", 1)],
            vec![pre, stats("b@1", 1)],
            vec![long, stats("b@1", 1)],
        ] {
            let mut hooks = hooks();
            assert!(hooks.hear(told).is_err());
            assert_eq!(calls(&hooks.all()), [0, 0]);
        }
    }
}
