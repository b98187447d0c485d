//! The runner: takes orders from the bus, keeps one worker process a scenario alive, and publishes what the
//! workers report.
//!
//! Invariants:
//! - A runner takes only orders that name its incarnation, and never starts a generation that is not newer
//!   than every one it has heard of, in whatever order the orders come (`framehook_core::fences`).
//! - A heartbeat carries the whole state, so that losing one loses nothing (`status`, `heartbeat`).
//! - A frame counts as published only once the bus has acknowledged it. While the bus is away, reading stops:
//!   the pipe fills, the worker waits, nothing is lost (`publisher`).
//! - No worker outlives its runner: dropping the future of [`run`] kills every child, and a worker ends by
//!   itself when its standard input closes.
//! - Nothing that a worker or a plugin sends can end the runner.
//!
//! Deliberately absent: any knowledge of the database (orders and results travel over the bus only), of the
//! engine that compiles plugins (`framehook_compiled` has it done), and of codecs and models.

mod admission;
pub mod alone;
mod change;
mod config;
mod cores;
mod ending;
mod failure;
mod fetch;
mod heartbeat;
mod hooks;
mod metrics;
mod plugin_metrics;
mod prepare;
mod prewarmed;
mod process;
mod providers;
mod publisher;
mod recorder;
mod records;
mod restart;
mod runner;
mod scenario_log;
mod session;
mod shadow;
mod status;
mod supervisor;
mod tally;

pub use config::{RunnerConfig, RunnerError};
pub use restart::RestartSchedule;
pub use runner::{LastWord, run};
