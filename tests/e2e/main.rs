//! End to end, over HTTP, against real processes. One binary, because linking is what costs.
//!
//! Each test has a platform or a cluster of its own. They run side by side, but for those of `alone`.

#![allow(clippy::unwrap_used)]

mod alone;
mod author;
mod bad_input;
mod bytes;
mod chaos;
mod cluster;
mod compiled;
mod contract;
mod demo;
mod deploy;
mod docs;
mod examples;
mod faults;
mod further;
mod generators;
mod heads;
mod hooks;
mod lacking;
mod lanes;
mod late;
mod lifecycle;
mod live;
mod logs;
mod matrix;
mod media;
mod models;
mod owners;
mod preview;
mod providers;
mod registry;
mod replay;
mod secrets;
mod shadow;
mod space;
mod state;
mod structure;
mod traces;
mod upgrade;
