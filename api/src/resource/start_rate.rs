//! How often a scenario may be stopped and started. Each change is a message for the orchestrator and, if it
//! is new, a line of history and a deployment; a client in a loop would make thousands in seconds.
//!
//! Invariant: deleting is never refused. Each API counts for itself, so N of them allow N times as many.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use framehook_core::ids::ScenarioId;
use parking_lot::Mutex;

/// This share of a minute's changes (a sixth) may come at once: a person who changes their mind, or a client
/// that repeats what was not answered.
const BURST: u32 = 6;
/// Scenarios with a change in the last seconds. Beyond it all is forgiven: the memory matters more.
const MAX_SCENARIOS: usize = 10_000;

pub(crate) struct StartRate {
    /// One in this time, for as long as somebody likes.
    period: Duration,
    /// For each scenario, when all its changes will have had their time.
    paid: Mutex<HashMap<ScenarioId, Instant>>,
}

impl StartRate {
    pub(crate) fn new(a_minute: u32) -> Self {
        Self { period: Duration::from_secs(60) / a_minute.max(1), paid: Mutex::default() }
    }

    /// Counts a change.
    ///
    /// # Errors
    /// When there were too many: how long to wait for the next.
    pub(crate) fn admit(&self, id: ScenarioId, now: Instant) -> Result<(), Duration> {
        let mut all = self.paid.lock();
        if all.len() >= MAX_SCENARIOS {
            all.retain(|_, paid| *paid > now);
            if all.len() >= MAX_SCENARIOS {
                all.clear();
            }
        }
        let paid = all.entry(id).or_insert(now);
        let ahead = paid.saturating_duration_since(now);
        // The first one is free.
        let at_once = (Duration::from_secs(60) / BURST).saturating_sub(self.period);
        if let Some(wait) = ahead.checked_sub(at_once).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        *paid = now + ahead + self.period;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_then_one_in_a_while() {
        let (rate, id, start) = (StartRate::new(60), ScenarioId::generate(), Instant::now());
        let period = Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| rate.admit(id, start).is_ok()).count(), 10);
        assert_eq!(rate.admit(id, start), Err(period));
        assert!(rate.admit(ScenarioId::generate(), start).is_ok(), "others are not concerned");
        assert!(rate.admit(id, start + period).is_ok());
        assert!(rate.admit(id, start + period).is_err());
        let later = start + period * 60;
        assert_eq!((0..20).filter(|_| rate.admit(id, later).is_ok()).count(), 10, "as much as at first, and no more");
    }

    #[test]
    fn it_is_as_patient_as_it_was_told_to_be() {
        let (id, start) = (ScenarioId::generate(), Instant::now());
        for (a_minute, at_once) in [(1, 1), (6, 1), (12, 2), (600, 100)] {
            let rate = StartRate::new(a_minute);
            assert_eq!((0..1000).filter(|_| rate.admit(id, start).is_ok()).count(), at_once, "{a_minute} a minute");
            let period = Duration::from_secs(60) / a_minute;
            assert_eq!(rate.admit(id, start).unwrap_err(), period);
        }
    }

    #[test]
    fn it_forgets_whom_it_need_not_know() {
        let (rate, start) = (StartRate::new(60), Instant::now());
        for _ in 0..2 * MAX_SCENARIOS {
            assert!(rate.admit(ScenarioId::generate(), start).is_ok());
        }
        assert!(rate.paid.lock().len() <= MAX_SCENARIOS);
    }
}
