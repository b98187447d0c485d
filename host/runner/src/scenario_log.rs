//! What a scenario's worker may write into the runner's log.
//!
//! Invariant: plugins' lines and the worker's own standard error stay within one budget, restarts
//! included, whatever the worker does: it keeps to the same budget by itself, but is not trusted.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;

use framehook_core::log_budget::{LogBudget, LogLimits, left_out};

/// Clones share the budget.
#[derive(Clone)]
pub(crate) struct ScenarioLog(Arc<Mutex<Inner>>);

struct Inner {
    limits: LogLimits,
    budget: LogBudget,
}

impl ScenarioLog {
    pub(crate) fn new(limits: LogLimits) -> Self {
        Self(Arc::new(Mutex::new(Inner { limits, budget: LogBudget::new(limits, Instant::now()) })))
    }

    /// Whether a line of this many bytes may be logged now. Says how many could not, once a second.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        let mut inner = self.0.lock();
        let admitted = inner.budget.admit(bytes, Instant::now());
        inner.tell(admitted.unwrap_or_default());
        admitted.is_some()
    }
}

impl Inner {
    fn tell(&self, lines: u64) {
        if lines > 0 {
            tracing::warn!("{}", left_out(lines, self.limits));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let lines = self.budget.rest();
        self.tell(lines);
    }
}
