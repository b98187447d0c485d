//! How often a scenario may be stopped and started. Each wish is a message for the orchestrator
//! and, if it is new, a line of history and a deployment; a client in a loop would make thousands
//! in seconds.
//!
//! Invariant: deleting is never refused. Each API counts for itself, so that several let through
//! that many times as much.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use framehook_core::ids::ScenarioId;

/// One wish in this time, for as long as somebody likes: a worker takes about as long to start.
const PERIOD: Duration = Duration::from_secs(1);
/// At once: a person who changes their mind, or a client that repeats what was not answered.
const BURST: u32 = 10;
/// Scenarios with a wish in the last ten seconds. Beyond it all is forgiven: the memory matters
/// more.
const MAX_SCENARIOS: usize = 10_000;

/// Of each scenario, when all its wishes will have had their time.
#[derive(Default)]
pub(crate) struct Wishes(Mutex<HashMap<ScenarioId, Instant>>);

impl Wishes {
    /// Counts a wish.
    ///
    /// # Errors
    /// When there were too many: how long to wait for the next.
    pub(crate) fn admit(&self, id: ScenarioId, now: Instant) -> Result<(), Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_SCENARIOS {
            all.retain(|_, paid| *paid > now);
            if all.len() >= MAX_SCENARIOS {
                all.clear();
            }
        }
        let paid = all.entry(id).or_insert(now);
        let ahead = paid.saturating_duration_since(now);
        if let Some(wait) = ahead.checked_sub(PERIOD * (BURST - 1)).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        *paid = now + ahead + PERIOD;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_then_one_in_a_while() {
        let (wishes, id, start) = (Wishes::default(), ScenarioId::generate(), Instant::now());
        assert_eq!((0..20).filter(|_| wishes.admit(id, start).is_ok()).count(), 10);
        assert_eq!(wishes.admit(id, start), Err(PERIOD));
        assert!(wishes.admit(ScenarioId::generate(), start).is_ok(), "others are not concerned");
        assert!(wishes.admit(id, start + PERIOD).is_ok());
        assert!(wishes.admit(id, start + PERIOD).is_err());
        let later = start + PERIOD * 60;
        assert_eq!((0..20).filter(|_| wishes.admit(id, later).is_ok()).count(), 10, "as much as at first, and no more");
    }

    #[test]
    fn it_forgets_whom_it_need_not_know() {
        let (wishes, start) = (Wishes::default(), Instant::now());
        for _ in 0..2 * MAX_SCENARIOS {
            assert!(wishes.admit(ScenarioId::generate(), start).is_ok());
        }
        assert!(wishes.0.lock().unwrap().len() <= MAX_SCENARIOS);
    }
}
