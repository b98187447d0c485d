//! The pure domain of Framehook: what a scenario, a prediction, a message and a state are, and
//! what the orchestrator should do next.
//!
//! Invariant: nothing here does I/O, reads a clock or knows a runtime, a database, a broker or
//! a WebAssembly engine. Whatever needs one of them lives in `infra` or above.

pub mod artifact;
pub mod compare;
pub mod delivery;
pub mod error_code;
pub mod evidence;
pub mod execution;
pub mod fences;
pub mod hints;
pub mod hook_metrics;
pub mod hook_state;
pub mod hook_stats;
pub mod ids;
pub mod input;
pub mod invariants;
pub mod job;
pub mod limits;
pub mod log_budget;
pub mod memory;
pub mod message;
#[cfg(test)]
mod message_tests;
pub mod model_use;
pub mod noted;
pub mod placement;
pub mod planner;
pub mod prediction;
pub mod prediction_record;
pub mod probe;
pub mod reason;
pub mod recorded;
pub mod revision;
pub mod ring;
pub mod scenario_log;
pub mod schemas;
pub mod shadow;
pub mod signature;
pub mod size;
pub mod source_url;
pub mod spec;
pub mod state;
pub mod text;
pub mod topic;
pub mod writes;
