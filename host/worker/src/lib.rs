//! The worker: decodes a video, runs a model on its frames and hooks around it, and says what it
//! found. One process runs one scenario.
//!
//! Invariants: a worker holds no credentials and opens no network connection; everything it may
//! touch is named in its job. It never compiles a plugin. Its real standard output carries records
//! and nothing else. Whatever goes wrong with the input becomes a [`framehook_core::reason::Reason`],
//! not a panic.
//!
//! [`run`] is the way in: it reads the job and starts the [`pipeline`], which connects a
//! [`source`], the [`preprocess`]ing, the [`model`] and the [`report`]s by bounded channels. The
//! probes judge uploads by the same code that would later run them.

pub mod annotate;
pub mod bench;
pub mod change;
pub mod cli;
pub mod feed;
mod further;
mod hide;
pub mod image;
pub mod lanes;
pub mod loader;
pub mod measure;
mod metadata;
pub mod model;
pub mod outputs;
pub mod pace;
pub mod pipeline;
pub mod pixels;
pub mod planar;
pub mod preprocess;
pub mod preview;
pub mod probe;
pub mod process;
mod recorded;
pub mod report;
pub mod resize;
pub mod run;
pub mod runtime;
pub mod selection;
pub mod source;
mod video_writer;
pub mod watch;
