//! How much a scenario may log: lines and bytes a second, all its hooks together, and how many
//! lines were left out.
//!
//! Pure: the time is passed in. In any stretch of time at most what the budget holds when it is
//! full passes, and what comes in during that time.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What may be logged in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLimits {
    pub lines: u32,
    pub bytes: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        // Two lines a frame at 25 frames a second can still be followed; a day of it all the time
        // is 5 GiB.
        Self { lines: 50, bytes: 64 << 10 }
    }
}

impl LogLimits {
    /// Those of all hooks of a shadow: a quarter of what those of its scenario have, so that a log is mostly
    /// theirs.
    #[must_use]
    pub const fn of_shadow(self) -> Self {
        Self { lines: self.lines.div_ceil(4), bytes: self.bytes.div_ceil(4) }
    }
}

/// How often it is said that lines were left out.
const TELL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct LogBudget {
    limits: LogLimits,
    /// In millionths, so that each microsecond adds a whole number.
    lines: u64,
    bytes: u64,
    at: Instant,
    left_out: u64,
    told_at: Instant,
}

const MILLION: u64 = 1_000_000;

impl LogBudget {
    /// A full one: it holds a second of each.
    pub fn new(limits: LogLimits, now: Instant) -> Self {
        let mut budget = Self { limits, lines: 0, bytes: 0, at: now, left_out: 0, told_at: now };
        (budget.lines, budget.bytes) = budget.full();
        budget
    }

    fn full(&self) -> (u64, u64) {
        (u64::from(self.limits.lines) * MILLION, u64::from(self.limits.bytes) * MILLION)
    }

    /// Whether a line of this many bytes passes. `Some(n)`: it does, and if `n` is not 0, a line
    /// that says that `n` were left out goes before it.
    pub fn admit(&mut self, bytes: usize, now: Instant) -> Option<u64> {
        self.refill(now);
        let is_to_tell = self.left_out > 0 && now.saturating_duration_since(self.told_at) >= TELL;
        let lines = (1 + u64::from(is_to_tell)) * MILLION;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(MILLION);
        if self.lines < lines || self.bytes < bytes {
            if self.left_out == 0 {
                self.told_at = now;
            }
            self.left_out += 1;
            return None;
        }
        self.lines -= lines;
        self.bytes -= bytes;
        if !is_to_tell {
            return Some(0);
        }
        self.told_at = now;
        Some(self.rest())
    }

    /// What is said of lines that were left out.
    pub fn left_out(&self, lines: u64) -> String {
        let LogLimits { lines: per_second, bytes } = self.limits;
        format!(
            "{lines} lines were left out: a scenario may log {per_second} lines and {bytes} bytes a second (max_log_lines, \
             max_log_kib)"
        )
    }

    /// Lines left out that nobody has been told of, at the end.
    pub fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    fn refill(&mut self, now: Instant) {
        let us = u64::try_from(now.saturating_duration_since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        let (lines, bytes) = self.full();
        self.lines = lines.min(self.lines.saturating_add(us.saturating_mul(self.limits.lines.into())));
        self.bytes = bytes.min(self.bytes.saturating_add(us.saturating_mul(self.limits.bytes.into())));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: LogLimits = LogLimits { lines: 5, bytes: 1000 };

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut budget = LogBudget::new(LIMITS, start);
        let passed = (0..100).filter(|_| budget.admit(1, start).is_some()).count();
        assert_eq!(passed, 5);
        let second = start + Duration::from_secs(1);
        assert_eq!(budget.admit(1, second), Some(95), "and the first one after a second says so");
        assert_eq!((0..100).filter(|_| budget.admit(1, second).is_some()).count(), 3, "five, less the two before");
        assert_eq!(budget.rest(), 97);
        assert_eq!(budget.rest(), 0);
    }

    #[test]
    fn bytes_count_as_well() {
        let start = Instant::now();
        let mut budget = LogBudget::new(LIMITS, start);
        assert_eq!(budget.admit(1000, start), Some(0), "to the last byte");
        assert_eq!(budget.admit(1, start), None, "and one more");
        assert_eq!(budget.admit(1, start + Duration::from_millis(1)), Some(0));
        assert_eq!(budget.admit(1001, start + Duration::from_secs(9)), None, "longer than any may be");
    }

    #[test]
    fn nothing_is_told_where_nothing_was_left_out() {
        let start = Instant::now();
        let mut budget = LogBudget::new(LIMITS, start);
        let later = start + TELL;
        assert!((0..5).all(|_| budget.admit(1, later) == Some(0)), "each of a full budget, and nothing else");
    }

    #[test]
    fn it_is_told_a_second_after_the_first_line_that_was_left_out() {
        let start = Instant::now();
        let mut budget = LogBudget::new(LIMITS, start);
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(budget.admit(1001, at(9000)), None, "the first");
        assert_eq!(budget.admit(1, at(9500)), Some(0), "not yet");
        assert_eq!(budget.admit(1001, at(9900)), None, "one more");
        assert_eq!(budget.admit(1, at(10_000)), Some(2));
        let said = budget.left_out(2);
        assert!(
            said.starts_with("2 lines were left out: a scenario may log 5 lines and 1000 bytes a second"),
            "{said}"
        );
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_passes_more(steps in prop::collection::vec((0_u64..400, 0_usize..600), 1..200)) {
            let start = Instant::now();
            let mut budget = LogBudget::new(LIMITS, start);
            let (mut now, mut passed, mut bytes) = (start, 0, 0);
            for (ms, size) in steps {
                now += Duration::from_millis(ms);
                if let Some(told) = budget.admit(size, now) {
                    passed += 1 + u64::from(told > 0);
                    bytes += size as u128;
                }
                let ms = (now - start).as_millis();
                prop_assert!(u128::from(passed) * 1000 <= 5 * (1000 + ms) && bytes * 1000 <= 1000 * (1000 + ms));
            }
        }
    }
}
