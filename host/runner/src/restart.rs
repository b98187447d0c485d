//! How long a worker that went down waits for its next start: a pure schedule.

use std::time::Duration;

/// Delays between restarts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RestartSchedule {
    /// Before the first restart after progress: most crashes are single ones, and a stream should not wait
    /// for long.
    pub quick: Duration,
    /// Before the second; doubles from there.
    pub base: Duration,
    /// Never longer than this.
    pub cap: Duration,
    /// Share by which a delay is made shorter or longer, so that workers that went down together do not come
    /// back together.
    pub jitter: f64,
    /// Restarts in a row without a new frame; after these the worker has failed.
    pub max_attempts: u32,
}

impl Default for RestartSchedule {
    fn default() -> Self {
        Self {
            quick: Duration::from_millis(100),
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            jitter: 0.2,
            max_attempts: 5,
        }
    }
}

impl RestartSchedule {
    /// The delay before restart number `attempt` (from 1). `random` is in 0..1.
    pub(crate) fn delay(&self, attempt: u32, random: f64) -> Duration {
        let plain = match attempt {
            0 | 1 => self.quick,
            // 2^31 times any base is past any cap.
            _ => self.base.saturating_mul(1 << (attempt - 2).min(31)),
        };
        let factor = 1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0);
        plain.min(self.cap).mul_f64(factor.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_schedule_is_quick_then_doubles_up_to_its_cap() {
        let millis = |attempt| RestartSchedule::default().delay(attempt, 0.5).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 8, 9, 40].map(millis), [100, 500, 1000, 2000, 4000, 30_000, 30_000, 30_000]);
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_share(attempt in 1u32..60, random in 0.0..1.0) {
            let schedule = RestartSchedule::default();
            let plain = schedule.delay(attempt, 0.5).as_secs_f64();
            let delay = schedule.delay(attempt, random).as_secs_f64();
            prop_assert!((plain * 0.799..=plain * 1.201).contains(&delay), "{delay} is not {plain} +- 20 %");
        }
    }
}
