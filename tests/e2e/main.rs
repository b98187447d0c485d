//! End to end, over HTTP, against real processes. One binary, because linking is what costs.
//!
//! Each test has a platform of its own. They share two cores, so those that measure promptness or kill
//! things hold [`alone`].

#![allow(clippy::unwrap_used)]

mod author;
mod bad_input;
mod demo;
mod faults;
mod hooks;
mod lifecycle;
mod structure;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One heavy test at a time: eight workers on two cores would only wait for each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed while it held this says nothing about the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
