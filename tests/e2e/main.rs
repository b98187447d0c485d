//! End to end, over HTTP, against real processes. One binary, because linking is what costs.
//!
//! Each test has a platform of its own, and one platform runs at a time: see `Platform::start`.

#![allow(clippy::unwrap_used)]

mod author;
mod bad_input;
mod demo;
mod docs;
mod faults;
mod hooks;
mod lifecycle;
mod structure;
