//! What a hook is shown: frames, model outputs, and how the two relate.
//!
//! The engine knows no codec and no image library. The worker implements [`FramePixels`] and lends
//! its buffers for the duration of one call; nothing is copied unless the plugin asks for bytes.

use framehook_core::prediction::{Detection, Event, Position, Skipped};

pub use crate::abi::v0_1::{Geometry, PixelFormat, Rect as Region, Size, TensorDesc};

impl PixelFormat {
    /// Bytes of one pixel.
    #[must_use]
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// Row-major; `data.len()` is the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<u32>,
    pub data: Vec<f32>,
}

/// Pixels that could not be given; the message goes to the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PixelsUnavailable(pub String);

/// One decoded frame, as the worker holds it.
pub trait FramePixels {
    /// `region`, scaled to `target` and converted. The engine has checked that the region lies
    /// inside the frame and that neither is empty; the result has
    /// `target.width * target.height * format.channels()` bytes.
    ///
    /// # Errors
    /// When the pixels are gone or the conversion failed.
    fn read(&self, region: Region, target: Size, format: PixelFormat) -> Result<Vec<u8>, PixelsUnavailable>;

    /// `region` made into the model's input, as the job's input spec says. The geometry maps
    /// pixels of the whole frame, not of the region.
    ///
    /// # Errors
    /// When the pixels are gone or the conversion failed.
    fn to_tensor(&self, region: Region) -> Result<(Tensor, Geometry), PixelsUnavailable>;
}

/// A frame on its way to the inference.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub position: Position,
    /// The size of the original frame.
    pub size: Size,
    /// The size of the model's input.
    pub input_size: Size,
    pub pixels: &'a dyn FramePixels,
}

/// One output of the model. Other element types are converted to `f32` before.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    pub desc: &'a TensorDesc,
    pub data: &'a [f32],
}

/// What the model said about one frame.
#[derive(Clone, Copy)]
pub struct Inference<'a> {
    pub position: Position,
    /// The size of the original frame.
    pub size: Size,
    /// The size of the model's input.
    pub input_size: Size,
    pub geometry: Geometry,
    pub outputs: &'a [Output<'a>],
    /// `None` if the frame was not kept; a hook that asks is told so.
    pub pixels: Option<&'a dyn FramePixels>,
}

/// What a pre hook, or all of a chain, decided about a frame.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Go on: the next hook, then the native preprocessing.
    Pass,
    /// No inference.
    Skip(Skipped),
    /// This is the model's input; it has the shape that the model takes.
    Infer(Tensor, Geometry),
}

/// What a post hook made of a frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub detections: Vec<Detection>,
    pub events: Vec<Event>,
}
