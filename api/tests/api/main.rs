//! The API over HTTP on a real store, bus and blob folder. Probes are a script whose verdict is the uploaded
//! file itself; the real ones are tested with the executables they are in, and end to end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod app;
mod artifacts;
mod browser;
mod compiled;
mod connections;
mod documentation;
mod logs;
mod operation;
mod predictions;
mod response_cache;
mod scenarios;
mod services;
mod shadow;
mod sources;
