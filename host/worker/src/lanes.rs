//! How many lanes there are and how many of them may work.
//!
//! Invariants: the first one always may. Whoever allows more or fewer waits for nothing, not even for the
//! runner to read.

use std::sync::Arc;

use framehook_core::job::Report;
use parking_lot::{Condvar, Mutex};

use crate::report::Reporter;

pub struct Lanes {
    state: Mutex<State>,
    changed: Condvar,
    reporter: Arc<Reporter>,
    /// How many work, as reported last.
    reported: Mutex<usize>,
}

struct State {
    allowed: usize,
    open: usize,
}

impl Lanes {
    #[must_use]
    pub fn new(allowed: u32, reporter: Arc<Reporter>) -> Self {
        let state = State { allowed: allowed.max(1) as usize, open: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), reporter, reported: Mutex::new(0) }
    }

    /// So many may work from now on.
    pub fn allow(&self, lanes: u32) {
        self.state.lock().allowed = lanes.max(1) as usize;
        self.changed.notify_all();
    }

    /// There is one more.
    pub fn open(&self) {
        self.state.lock().open += 1;
        self.report();
    }

    /// The last one is no more.
    pub fn close(&self) {
        self.state.lock().open -= 1;
        self.report();
    }

    /// Says how many work, if that has changed.
    pub fn report(&self) {
        let mut reported = self.reported.lock();
        let working = {
            let State { allowed, open } = *self.state.lock();
            allowed.min(open)
        };
        if working != *reported {
            *reported = working;
            self.reporter.send(&Report::Lanes { lanes: working as u32 });
        }
    }

    /// Waits until this one may work; they are counted from 0.
    pub fn wait_for(&self, lane: usize) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.allowed <= lane);
    }
}
