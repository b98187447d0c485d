//! The plugin engine: loads components and guards every call into them.
//!
//! - [`Engine`] and [`Plugin`] load what [`compile`] produced. A worker's engine has no compiler.
//! - [`hook::Hook`] is one instance of a plugin in one scenario. Whatever its code does (trap, loop,
//!   allocate, flood) costs it its instance, never the process; the next call gets a new one.
//! - [`chain::Chain`] runs a scenario's hooks of one stage in order and applies its policy for failures. It
//!   is all that a worker needs.
//! - [`compile::Compiler`] checks and compiles components from outside, and [`judge::Judge`] asks them what
//!   they are, for [`command`]: each in a child process with limits of its own.
//!
//! Invariants: exactly one function enters a guest (`sandbox::Guarded::enter`), a store is never
//! used again after a trap, and no plugin sees files, network or environment.

mod abi;
mod asked;
mod breaker;
pub mod chain;
mod check;
pub mod command;
pub mod compile;
pub mod conformance;
mod engine;
pub mod hook;
pub mod judge;
mod log;
pub mod media;
mod metrics;
pub mod models;
mod passed_on;
mod range;
mod returned;
mod sandbox;
mod schema;
mod state;
mod stats;
pub mod trial;

use framehook_helpers::{masks, scan, suppress};

pub use check::interface_names;
pub use engine::{Engine, LoadError, Plugin};
pub use log::{Log, LogSink};
