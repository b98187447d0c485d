//! Leaves a plugin out while it keeps failing, and tries it again with one frame.
//!
//! Pure: the time is passed in. Closed -> open after [`IN_A_ROW`] failures in a row or more than
//! [`TOLERATED`] among the last [`WINDOW`] calls; open -> one trial after the wait; a good trial
//! closes, a bad one doubles the wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use framehook_core::reason::Reason;

/// One failure may be the frame's fault, three in a row are the plugin's.
const IN_A_ROW: u32 = 3;
/// Eight seconds at 25 frames a second.
const WINDOW: usize = 200;
/// 5 % of the window.
const TOLERATED: usize = WINDOW / 20;
/// Short enough that a hiccup costs 25 frames.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A plugin that is repaired from outside comes back within a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Breaker {
    /// Whether each of the last calls failed.
    recent: VecDeque<bool>,
    in_a_row: u32,
    wait: Duration,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    reason: Reason,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { recent: VecDeque::with_capacity(WINDOW), in_a_row: 0, wait: FIRST_WAIT, open: None }
    }
}

fn left_out(reason: &Reason) -> Reason {
    Reason::new(reason.code, format!("not called for a while after repeated failures; the last: {}", reason.message))
}

impl Breaker {
    /// Whether the plugin may be called now.
    ///
    /// # Errors
    /// While it is left out: the failure that opened the breaker, and that the plugin was not called.
    pub(crate) fn admit(&self, now: Instant) -> Result<(), Reason> {
        match &self.open {
            Some(open) if now < open.until => Err(left_out(&open.reason)),
            _ => Ok(()),
        }
    }

    /// A call went well.
    pub(crate) fn succeeded(&mut self) {
        if self.open.take().is_some() {
            self.recent.clear();
        }
        self.in_a_row = 0;
        self.remember(false);
        // The long wait is forgiven only after a whole window without a failure.
        if self.recent.len() == WINDOW && !self.recent.contains(&true) {
            self.wait = FIRST_WAIT;
        }
    }

    /// A call failed.
    pub(crate) fn failed(&mut self, reason: &Reason, now: Instant) {
        self.in_a_row += 1;
        self.remember(true);
        let failures = self.recent.iter().filter(|failed| **failed).count();
        if self.open.is_some() || self.in_a_row >= IN_A_ROW || failures > TOLERATED {
            self.open = Some(Open { until: now + self.wait, reason: reason.clone() });
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
    }

    /// The failure for which the plugin is left out, until a trial went well.
    #[must_use]
    pub(crate) fn open_reason(&self) -> Option<&Reason> {
        self.open.as_ref().map(|open| &open.reason)
    }

    fn remember(&mut self, failed: bool) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(failed);
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::reason::ReasonCode;

    use super::*;

    fn reason() -> Reason {
        Reason::new(ReasonCode::PluginTrap, "trap")
    }

    #[test]
    fn opens_after_three_in_a_row_and_doubles_its_wait() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..IN_A_ROW {
            assert_eq!(breaker.admit(start), Ok(()));
            breaker.failed(&reason(), start);
        }
        assert_eq!(breaker.admit(start), Err(left_out(&reason())));
        let trial = start + FIRST_WAIT;
        assert_eq!(breaker.admit(trial), Ok(()));
        breaker.failed(&reason(), trial);
        assert!(breaker.admit(trial + FIRST_WAIT).is_err());
        assert_eq!(breaker.admit(trial + 2 * FIRST_WAIT), Ok(()));
        assert!(breaker.open_reason().is_some());
        breaker.succeeded();
        assert_eq!(breaker.open_reason(), None);
    }

    #[test]
    fn opens_on_a_share_of_failures_but_not_on_a_few() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let mut failures = 0;
        while breaker.open_reason().is_none() {
            breaker.failed(&reason(), now);
            failures += 1;
            (0..5).for_each(|_| {
                if breaker.open_reason().is_none() {
                    breaker.succeeded()
                }
            });
        }
        assert_eq!(failures, TOLERATED + 1);
        let mut rare = Breaker::default();
        for _ in 0..100 {
            rare.failed(&reason(), now);
            (0..50).for_each(|_| rare.succeeded());
        }
        assert_eq!(rare.open_reason(), None);
    }

    #[test]
    fn the_wait_is_bounded_and_forgiven() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..20 {
            breaker.failed(&reason(), now);
            now += LONGEST_WAIT;
            assert_eq!(breaker.admit(now), Ok(()));
        }
        (0..=WINDOW).for_each(|_| breaker.succeeded());
        (0..IN_A_ROW).for_each(|_| breaker.failed(&reason(), now));
        assert_eq!(breaker.admit(now + FIRST_WAIT), Ok(()));
    }
}
