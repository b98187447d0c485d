//! Waiting between attempts: exponential, capped, with jitter.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Shorter than a person notices.
const FIRST: Duration = Duration::from_millis(50);
/// Longer would delay the recovery after an outage noticeably.
const LONGEST: Duration = Duration::from_secs(5);

/// Attempts that failed in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Whether nothing has failed yet.
    pub fn is_new(&self) -> bool {
        self.failures == 0
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt; `false` if `cancel` came first.
    pub async fn wait(&mut self, cancel: &CancellationToken) -> bool {
        let delay = self.next_delay();
        cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
    }

    /// Before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Half fixed, half random, so that processes that failed together do not come back together.
        let random = f64::from((Uuid::new_v4().as_u128() & 0xffff) as u16) / f64::from(u16::MAX);
        whole.div_f64(2.0) + whole.mul_f64(random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_cap_and_start_again_after_success() {
        let mut backoff = Backoff::default();
        for n in 0..40 {
            let whole = (FIRST * (1 << n.min(10))).min(LONGEST);
            let delay = backoff.next_delay();
            assert!(delay >= whole / 2 && delay <= whole, "{n}: {delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }
}
