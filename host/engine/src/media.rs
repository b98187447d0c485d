//! What a hook is shown: frames, model outputs, and how the two relate.
//!
//! The engine knows no codec and no image library. The worker implements [`FramePixels`] and lends
//! its buffers for the duration of one call; nothing is copied unless the plugin asks for bytes.

/// Eight bits a channel, rows without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    Rgb,
    Bgr,
    Gray,
}

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

/// Pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

/// Pixels, inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Number of the frame in its source, from 0.
    pub sequence: u64,
    pub pts_us: i64,
    /// The size of the original frame.
    pub size: Size,
}

/// From the original frame to the model's input, in pixels: `input = original * scale + pad`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    pub scale_x: f32,
    pub scale_y: f32,
    pub pad_x: f32,
    pub pad_y: f32,
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
    pub meta: FrameMeta,
    /// The size of the model's input.
    pub input_size: Size,
    pub pixels: &'a dyn FramePixels,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorDesc {
    pub name: String,
    pub shape: Vec<u32>,
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
    pub meta: FrameMeta,
    /// The size of the model's input.
    pub input_size: Size,
    pub geometry: Geometry,
    pub outputs: &'a [Output<'a>],
    /// `None` if the frame was not kept; a hook that asks is told so.
    pub pixels: Option<&'a dyn FramePixels>,
}

/// What a pre hook decided about a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Go on: the next hook, then the native preprocessing.
    Pass,
    /// No inference, and why.
    Skip(String),
    /// The plugin built the model's input.
    Infer(Tensor, Geometry),
}

/// What a post hook made of a frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub detections: Vec<framehook_core::prediction::Detection>,
    pub events: Vec<framehook_core::prediction::Event>,
}
