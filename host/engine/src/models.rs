//! Further models of a scenario, which its hooks run: what the worker has of them, as the engine needs it.

use std::time::Duration;

use framehook_core::prediction::Position;

use crate::media::{FramePixels, Geometry, Output, Region, Size, Tensor};

/// The models, by their numbers in [`Models::list`]. Hooks of both stages run them, each on its own thread.
pub trait Models: Send + Sync {
    fn list(&self) -> &[ModelInfo];

    /// Runs one on regions of a frame, which the engine has found to lie inside of it. No run begins after
    /// `time`.
    ///
    /// # Errors
    /// When the pixels cannot be had, the time is over, or the model fails.
    fn run(
        &self,
        model: usize,
        pixels: &dyn FramePixels,
        regions: &[Region],
        time: Duration,
    ) -> Result<Vec<Run>, NotRun>;

    /// Runs one on a tensor.
    ///
    /// # Errors
    /// When it is not what the model takes, or the model fails.
    fn run_tensor(&self, model: usize, tensor: &Tensor) -> Result<Run, NotRun>;
}

/// What hooks are told of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    pub name: String,
    pub input_size: Size,
    /// Names of the classes as the model's file has them.
    pub labels: Vec<String>,
}

/// What one run gave.
#[derive(Clone, Debug)]
pub struct Run {
    /// The size of the model's input.
    pub input_size: Size,
    pub geometry: Geometry,
    pub outputs: Vec<Output>,
}

/// Why there is no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// The scenario has no such model.
    Unknown,
    NoPixels,
    /// The tensor is not what the model takes, which is said.
    Unfit(String),
    /// More than a call may have.
    TooMuch,
    /// In the model's own words.
    Failed(String),
}

/// A run that belongs to a guest.
#[derive(Debug)]
pub struct Held {
    /// The frame of the call that it was made in.
    pub(crate) position: Position,
    pub(crate) size: Size,
    pub(crate) run: Run,
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.run.outputs.iter().map(|output| output.data.bytes()).sum()
    }
}
