//! What a leader may conclude from heartbeats although it reads them late, by any time.
//!
//! A heartbeat proves what it says. That none came, or that one does not show an order, proves something
//! only about the time whose heartbeats were all read. So conclusions from absence go by two times of the
//! database, never by the present one:
//!
//! - *Heard until*: every heartbeat that reached the bus before it is in the store. The leader
//!   reads the clock, then asks the bus where its topic ends, then reads up to there. A lease is
//!   over once it ended before this time: then its runner was silent for a whole term of what was
//!   heard.
//! - *Arrived after*, of a heartbeat: heard-until as it was when the heartbeat was read. Everything
//!   that had reached the bus by then had been read, so this one came later. An order is unanswered
//!   once a heartbeat arrived [`Timing::resend_after`] behind it that does not show it.
//!
//! Both are lower bounds: a leader that falls behind concludes later, not wrongly. What they cannot
//! show is that nobody could be heard, because the bus was away or this leader was not there to
//! listen. Heard-until does not move meanwhile, so it shows afterwards as a jump: then all leases
//! begin anew before it counts ([`Hearing::is_gap`]).
//!
//! A runner may be slow as well, and answer behind its time. So each repetition waits twice as long as the
//! one before: a runner that answers nothing for a minute is told four times more, not thirty.
//!
//! Deliberately absent: the clocks of runners, which need not agree with anybody's.
//!
//! [`Timing::resend_after`]: crate::planner::Timing

use std::{collections::HashMap, time::Duration};

use crate::ids::{Generation, Incarnation, ScenarioId};

/// Doublings of the time between two repetitions: an order that is really lost is given again
/// within a minute or so, however often it was lost before.
const MAX_DOUBLINGS: u32 = 5;

/// What a leader knows beside the store: how far it has heard, and its orders to workers that the store does
/// not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hearing {
    until_us: i64,
    strays: HashMap<Stray, Order>,
}

/// A worker that should not be there.
pub type Stray = (ScenarioId, Generation, Incarnation);

impl Hearing {
    /// A term of leadership begins: every lease was extended at or before this time.
    pub fn since(now_us: i64) -> Self {
        Self { until_us: now_us, strays: HashMap::new() }
    }

    /// Every heartbeat that reached the bus before this is in the store.
    pub const fn until_us(&self) -> i64 {
        self.until_us
    }

    /// Whether nobody may have been heard for half a lease: then all leases have to begin anew before
    /// [`Self::advance`]. The time is that of the bus's answer, because the bus may have hung since it was
    /// asked. In the other half of a lease a healthy runner sends ten heartbeats.
    pub fn is_gap(&self, answered_us: i64, runner_lease_time: Duration) -> bool {
        answered_us.saturating_sub(self.until_us) > micros(runner_lease_time / 2)
    }

    /// Everything that the bus had at `asked_us` is recorded.
    pub fn advance(&mut self, asked_us: i64) {
        self.until_us = self.until_us.max(asked_us);
    }

    /// A stop order was written.
    pub fn told(&mut self, stray: Stray, now_us: i64, resend_after: Duration) {
        // One that is still there would have been told again.
        let forgotten = now_us.saturating_sub(micros(resend_after) << (MAX_DOUBLINGS + 1));
        self.strays.retain(|_, order| order.at_us > forgotten);
        let repeats = self.strays.get(&stray).map_or(0, |order| order.repeats + 1);
        self.strays.insert(stray, Order { at_us: now_us, repeats });
    }

    /// What it was told last, if anything.
    pub fn order_to(&self, stray: Stray) -> Option<Order> {
        self.strays.get(&stray).copied()
    }
}

/// The last order about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// When it was written, or published where that is known.
    pub at_us: i64,
    /// How often it was given before.
    pub repeats: u32,
}

impl Order {
    /// Whether a heartbeat that arrived after `arrived_after_us` should show it.
    pub fn is_overdue(self, arrived_after_us: i64, resend_after: Duration) -> bool {
        let patience = micros(resend_after).saturating_mul(1 << self.repeats.min(MAX_DOUBLINGS));
        arrived_after_us >= self.at_us.saturating_add(patience)
    }
}

/// Whether a lease ended in a time that was heard through.
pub const fn is_over(expires_at_us: i64, heard_until_us: i64) -> bool {
    expires_at_us <= heard_until_us
}

pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const RESEND: Duration = Duration::from_secs(2);

    #[test]
    fn each_repetition_waits_twice_as_long_up_to_a_minute() {
        let overdue =
            |at: i64, repeats, arrived: i64| Order { at_us: at * SECOND, repeats }.is_overdue(arrived * SECOND, RESEND);
        // (repeats, seconds that a heartbeat must have come behind the order)
        for (repeats, patience) in [(0, 2), (1, 4), (2, 8), (5, 64), (6, 64), (u32::MAX, 64)] {
            assert!(!overdue(100, repeats, 100 + patience - 1), "{repeats}");
            assert!(overdue(100, repeats, 100 + patience), "{repeats}");
        }
        assert!(!overdue(100, 0, 99), "a heartbeat from before the order");
    }

    #[test]
    fn repetitions_of_an_order_over_a_silence_of_a_minute_are_few() {
        // A runner that takes nothing for a minute, and whose heartbeats arrive all the while.
        let mut order = Order { at_us: 0, repeats: 0 };
        for now in 0..60 {
            if order.is_overdue(now * SECOND, RESEND) {
                order = Order { at_us: now * SECOND, repeats: order.repeats + 1 };
            }
        }
        assert_eq!(order.repeats, 4, "after 2, 6, 14 and 30 s");
    }

    #[test]
    fn only_a_long_jump_is_a_gap_and_time_never_goes_back() {
        let lease_time = Duration::from_secs(10);
        let mut hearing = Hearing::since(100 * SECOND);
        assert!(!hearing.is_gap(105 * SECOND, lease_time));
        assert!(hearing.is_gap(105 * SECOND + 1, lease_time));
        hearing.advance(103 * SECOND);
        hearing.advance(101 * SECOND);
        assert_eq!(hearing.until_us(), 103 * SECOND);
        assert!(!hearing.is_gap(108 * SECOND, lease_time) && !hearing.is_gap(0, lease_time));
    }

    #[test]
    fn a_stray_is_remembered_while_it_is_told() {
        let mut hearing = Hearing::since(0);
        let [a, b] = [1, 2].map(|n| (ScenarioId::generate(), n, Incarnation::generate()));
        assert_eq!(hearing.order_to(a), None);
        hearing.told(a, SECOND, RESEND);
        hearing.told(a, 5 * SECOND, RESEND);
        assert_eq!(hearing.order_to(a), Some(Order { at_us: 5 * SECOND, repeats: 1 }));
        // One that is still there is told at least every 64 s; twice that is enough.
        hearing.told(b, 133 * SECOND - 1, RESEND);
        assert!(hearing.order_to(a).is_some());
        hearing.told(b, 133 * SECOND, RESEND);
        assert_eq!(hearing.order_to(a), None, "it has not been there for long");
    }
}
