//! What a scenario's worker may write into the runner's log.
//!
//! Invariant: plugins' lines and the worker's own standard error stay within one budget, restarts
//! included, whatever the worker does: it keeps to the same budget by itself, but is not trusted.

use std::{sync::Arc, time::Instant};

use framehook_core::log_budget::{LogBudget, LogLimits};
use parking_lot::Mutex;

/// Clones share the budget.
#[derive(Clone)]
pub(crate) struct ScenarioLog(Arc<Mutex<Budget>>);

struct Budget(LogBudget);

impl ScenarioLog {
    pub(crate) fn new(limits: LogLimits) -> Self {
        Self(Arc::new(Mutex::new(Budget(LogBudget::new(limits, Instant::now())))))
    }

    /// Whether a line of this many bytes may be logged now. Says how many could not, once a second.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        let mut budget = self.0.lock();
        let admitted = budget.0.admit(bytes, Instant::now());
        budget.tell(admitted.unwrap_or_default());
        admitted.is_some()
    }
}

impl Budget {
    fn tell(&self, lines: u64) {
        if lines > 0 {
            tracing::warn!("{}", self.0.left_out(lines));
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let lines = self.0.rest();
        self.tell(lines);
    }
}
