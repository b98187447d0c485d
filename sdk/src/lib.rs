//! Write Framehook hooks in Rust.
//!
//! A plugin is a type that implements [`Hook`] and one or both of [`PreHook`] and [`PostHook`], and
//! one line that exports it:
//!
//! ```
//! use framehook_sdk::{Detection, Error, Hook, Inference, Outcome, PostHook, Stream};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! /// Its JSON Schema is what users see, and what their configuration is checked against.
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     /// Detections with a lower score are dropped.
//!     #[serde(default)]
//!     min_score: f32,
//! }
//!
//! pub struct KeepSure(Config);
//!
//! impl Hook for KeepSure {
//!     type Config = Config;
//!
//!     fn new(_: &Stream, config: Config) -> Result<Self, Error> {
//!         Ok(Self(config))
//!     }
//! }
//!
//! impl PostHook for KeepSure {
//!     fn postprocess(&mut self, _: &Inference, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
//!         detections.retain(|d| d.score >= self.0.min_score);
//!         Ok(Outcome { detections, events: Vec::new() })
//!     }
//! }
//!
//! framehook_sdk::export!(post: KeepSure);
//! ```
//!
//! Build it with `framehook plugin build`, or `cargo build --release --target wasm32-wasip2`. Test it
//! natively, with `cargo test`: `testing` makes what the host would give a hook.

mod bindings;
pub mod geometry;
#[doc(hidden)]
pub mod glue;
mod hook;
pub mod log;
mod made;
pub mod metrics;
pub mod model;
#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(not(target_family = "wasm"))]
mod pixels;
pub mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

#[cfg(target_family = "wasm")]
pub use bindings::host::framehook::plugin::{
    clock,
    media::{Decision, Frame, Inference, Prepared, Tensor, suppress},
};
pub use bindings::host::framehook::plugin::{
    media::{AccessError, Candidate, ClassScores, Element, Geometry, MaskedBox, PixelFormat, ScoredBox, TensorDesc},
    types::{
        Anchor, Attribute, Bbox, Channels, ConfigProblem, Detection, Episode, Event, FrameMeta, InputOptions, Mask,
        Outcome, Phase, PluginError as Error, Point, Position, Rect, Resize, Severity, Size, Source, SourceKind, Start,
        StreamInfo as Stream, Swap, Value,
    },
};
#[doc(hidden)]
pub use bindings::{lifecycle, postprocess, preprocess};
pub use hook::{Hook, PostHook, PreHook, default_input};
#[cfg(not(target_family = "wasm"))]
pub use native::{Decision, Frame, Inference, Prepared, Tensor, clock, suppress};
