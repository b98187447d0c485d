//! What a hook is shown: frames, model outputs, and how the two relate.
//!
//! The engine knows no codec and no image library. The worker implements [`FramePixels`] and lends
//! its buffers for the duration of one call; nothing is copied unless the plugin asks for bytes.

use std::{borrow::Cow, ops::Range};

use framehook_core::prediction::{Detection, Event, Position, Skipped};

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

/// From the original frame to the model's input, in pixels: `input = original * scale + pad`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    pub scale_x: f32,
    pub scale_y: f32,
    pub pad_x: f32,
    pub pad_y: f32,
}

impl Geometry {
    /// That of the whole frame, where this is that of a part: `input = (frame - corner) * scale + pad`.
    #[must_use]
    pub fn of_part(self, part: Region) -> Self {
        Self {
            pad_x: self.pad_x - part.x as f32 * self.scale_x,
            pad_y: self.pad_y - part.y as f32 * self.scale_y,
            ..self
        }
    }
}

/// Eight bits a channel, rows without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    Rgb,
    Bgr,
    Gray,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorDesc {
    pub name: String,
    pub shape: Vec<u32>,
    pub element: Element,
}

/// What the elements of a tensor are, however the host keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    #[default]
    Float,
    /// Whole numbers and booleans.
    Integer,
    Text,
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

/// Where frames come from, as far as the source says so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Source {
    pub is_live: bool,
    pub size: Option<Size>,
    pub frames_per_second: Option<f64>,
    pub frames: Option<u64>,
}

/// What a plugin is started for.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Tells streams apart for a plugin: the scenario's id.
    pub stream_id: String,
    /// The frame that was worked on last, if there was one.
    pub after: Option<Position>,
    /// The version of the plugin that this one takes the place of, while the stream goes on.
    pub from_version: Option<String>,
    pub source: Source,
    /// Names of the classes as the model's file has them.
    pub model_labels: Vec<String>,
}

/// A frame on its way to the inference.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub position: Position,
    /// The size of the original frame.
    pub size: Size,
    /// The size of the model's input.
    pub input_size: Size,
    /// Its channels.
    pub input_planes: u32,
    pub pixels: &'a dyn FramePixels,
}

/// One output of one run of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    pub desc: TensorDesc,
    pub data: Elements,
}

/// The owner of [`Values`].
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    Text(Vec<String>),
}

impl Elements {
    #[must_use]
    pub fn values(&self) -> Values<'_> {
        match self {
            Self::F32(all) => Values::F32(all),
            Self::F64(all) => Values::F64(all),
            Self::I64(all) => Values::I64(all),
            Self::U64(all) => Values::U64(all),
            Self::Text(all) => Values::Text(all),
        }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(all) => size_of_val(&all[..]),
            Self::F64(all) => size_of_val(&all[..]),
            Self::I64(all) => size_of_val(&all[..]),
            Self::U64(all) => size_of_val(&all[..]),
            Self::Text(all) => all.iter().map(|text| text.len() + size_of::<String>()).sum(),
        }
    }
}

/// Elements of a tensor, each exactly as the model gave it: types of up to 16 bits fit into `f32`,
/// the others into the widest of their kind. Reading them as `f32` may round what has more than 24
/// bits.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I64(&'a [i64]),
    U64(&'a [u64]),
    Text(&'a [String]),
}

impl<'a> Values<'a> {
    /// The elements in `range`, if they are all there and numbers.
    #[must_use]
    pub fn read(self, range: Range<usize>) -> Option<Cow<'a, [f32]>> {
        Some(match self {
            Self::F32(all) => Cow::Borrowed(all.get(range)?),
            Self::F64(all) => all.get(range)?.iter().map(|value| *value as f32).collect(),
            Self::I64(all) => all.get(range)?.iter().map(|value| *value as f32).collect(),
            Self::U64(all) => all.get(range)?.iter().map(|value| *value as f32).collect(),
            Self::Text(_) => return None,
        })
    }

    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::F32(all) => all.len(),
            Self::F64(all) => all.len(),
            Self::I64(all) => all.len(),
            Self::U64(all) => all.len(),
            Self::Text(all) => all.len(),
        }
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
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
    pub outputs: &'a [Output],
    /// `None` if the frame was not kept; a hook that asks is told so.
    pub pixels: Option<&'a dyn FramePixels>,
}

/// What a pre hook, or all of a chain, decided about a frame.
#[derive(Clone, Debug, PartialEq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_rounded_only_where_they_are_read_as_floats() {
        let all = [20_000_001, -3, i64::MAX];
        let values = Values::I64(&all);
        assert_eq!(values.read(0..2).unwrap()[..], [20_000_000.0, -3.0]);
        assert!(matches!(values, Values::I64([20_000_001, ..])));
        assert_eq!((values.len(), values.read(2..4)), (3, None));
        assert_eq!(Values::U64(&[u64::MAX]).read(0..1).unwrap()[..], [18_446_744_073_709_551_615.0]);
        assert_eq!(Values::F64(&[0.1, f64::INFINITY]).read(0..2).unwrap()[..], [0.1, f32::INFINITY]);
        assert!(matches!(Values::F32(&[0.5]).read(0..1), Some(Cow::Borrowed([0.5]))));
    }
}
