//! The engine against plugins that behave, plugins that do not, and files that are no plugins.
//!
//! The components come from `plugins/`, built before by `make plugins`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod conformance;
mod contract;
mod golden;
mod guests;
mod hostile;
mod hostile_guests;
mod models;
mod refused;
mod stats;
mod stock;
mod support;
mod trial;
