//! What a model is fed with for one frame: the image in the model's own type and layout, and its
//! other inputs.
//!
//! The image comes as planes of floats, in the model's order of channels: from a frame or from a
//! hook alike. For a model that takes just that they are passed on as they lie.

use std::array;

use framehook_core::input::{Element, ExtraInput, Feed, FrameValue, InputSpec, Layout};
use framehook_engine::media::{Geometry, Size};
use half::{f16, slice::HalfFloatSliceExt};
use ort::{
    session::SessionInputValue,
    value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorRef},
};

/// What is known of a frame when the model runs on it.
#[derive(Clone, Copy)]
pub struct FrameInput<'a> {
    /// `[planes, height, width]`.
    pub image: &'a [f32],
    /// The size of the original frame.
    pub size: Size,
    pub geometry: Geometry,
}

impl<'a> FrameInput<'a> {
    /// A frame that has the size of the model's input.
    #[must_use]
    pub fn of_input_size(spec: &InputSpec, image: &'a [f32]) -> Self {
        let geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };
        Self { image, size: Size { width: spec.width, height: spec.height }, geometry }
    }
}

/// Makes the inputs of a model; its buffers are kept.
pub(crate) struct Feeder {
    spec: InputSpec,
    shape: [usize; 4],
    /// The channels of each pixel side by side.
    interleaved: Vec<f32>,
    packed: Packed,
}

/// All rows of the batch.
enum Packed {
    F32(Vec<f32>),
    F16(Vec<f16>),
    U8(Vec<u8>),
    I8(Vec<i8>),
}

impl Feeder {
    pub(crate) fn new(spec: &InputSpec) -> Self {
        let [batch, planes, width, height] = [spec.batch, spec.planes, spec.width, spec.height].map(|n| n as usize);
        let rows = spec.frame_len() * batch;
        Self {
            spec: spec.clone(),
            shape: match spec.layout {
                Layout::Nchw => [batch, planes, height, width],
                Layout::Nhwc => [batch, height, width, planes],
            },
            interleaved: Vec::new(),
            packed: match spec.element {
                // A single row is passed on without a copy.
                Element::Float32 => Packed::F32(if batch == 1 { Vec::new() } else { vec![0.0; rows] }),
                Element::Float16 => Packed::F16(vec![f16::ZERO; rows]),
                Element::Uint8 => Packed::U8(vec![0; rows]),
                Element::Int8 => Packed::I8(vec![0; rows]),
            },
        }
    }

    pub(crate) const fn spec(&self) -> &InputSpec {
        &self.spec
    }

    /// For an input of this size, and so many rows where the model leaves them open.
    pub(crate) fn resize(&mut self, rows: Option<u32>, [width, height]: [u32; 2]) {
        let batch = rows.unwrap_or(self.spec.batch);
        if (self.spec.batch, self.spec.width, self.spec.height) != (batch, width, height) {
            *self = Self::new(&InputSpec { batch, width, height, ..self.spec.clone() });
        }
    }

    /// Whether each frame of a batch has inputs of its own.
    pub(crate) fn takes_batches(&self) -> bool {
        // One pair of numbers for all rows is that of a single frame.
        let is_shared = |extra: &ExtraInput| matches!(extra.from, Feed::Frame(_)) && extra.shape.len() < 2;
        !self.spec.inputs.iter().any(is_shared)
    }

    /// All inputs by their names, for at least one frame and as many as the batch has rows; rows
    /// without one are zeros.
    pub(crate) fn feed<'a>(
        &'a mut self,
        frames: &[FrameInput<'a>],
    ) -> ort::Result<Vec<(&'a str, SessionInputValue<'a>)>> {
        let Self { spec, shape, interleaved, packed } = self;
        for (number, frame) in frames.iter().enumerate() {
            let row = match spec.layout {
                Layout::Nchw => frame.image,
                Layout::Nhwc => interleave(frame.image, spec.planes, interleaved),
            };
            packed.fill(number, row);
        }
        packed.clear(frames.len() * spec.frame_len());
        let last = frames.last().map_or(&[][..], |frame| frame.image);
        let image = packed.tensor(if interleaved.is_empty() { last } else { interleaved }, *shape)?;
        let mut inputs = Vec::with_capacity(1 + spec.inputs.len());
        inputs.push((spec.tensor.as_str(), image));
        for extra in &spec.inputs {
            inputs.push((extra.tensor.as_str(), make(extra, spec, frames)?.into()));
        }
        Ok(inputs)
    }
}

impl Packed {
    /// Writes one row.
    fn fill(&mut self, number: usize, row: &[f32]) {
        let at = number * row.len()..(number + 1) * row.len();
        match self {
            // Passed on as it lies.
            Self::F32(rows) if rows.is_empty() => {}
            Self::F32(rows) => rows[at].copy_from_slice(row),
            Self::F16(rows) => rows[at].convert_from_f32_slice(row),
            Self::U8(rows) => rows[at].iter_mut().zip(row).for_each(|(to, value)| *to = byte(*value)),
            Self::I8(rows) => rows[at].iter_mut().zip(row).for_each(|(to, value)| *to = signed_byte(*value)),
        }
    }

    /// Makes zeros of what an earlier batch left behind the first `values`.
    fn clear(&mut self, values: usize) {
        match self {
            Self::F32(rows) if rows.is_empty() => {}
            Self::F32(rows) => rows[values..].fill(0.0),
            Self::F16(rows) => rows[values..].fill(f16::ZERO),
            Self::U8(rows) => rows[values..].fill(0),
            Self::I8(rows) => rows[values..].fill(0),
        }
    }

    fn tensor<'a>(&'a self, row: &'a [f32], shape: [usize; 4]) -> ort::Result<SessionInputValue<'a>> {
        Ok(match self {
            Self::F32(rows) if rows.is_empty() => TensorRef::from_array_view((shape, row))?.into(),
            Self::F32(rows) => TensorRef::from_array_view((shape, rows.as_slice()))?.into(),
            Self::F16(rows) => TensorRef::from_array_view((shape, rows.as_slice()))?.into(),
            Self::U8(rows) => TensorRef::from_array_view((shape, rows.as_slice()))?.into(),
            Self::I8(rows) => TensorRef::from_array_view((shape, rows.as_slice()))?.into(),
        })
    }
}

/// A value as a model of this type gets it.
pub(crate) fn rounded(element: Element, value: f32) -> f32 {
    match element {
        Element::Float32 => value,
        Element::Float16 => f16::from_f32(value).to_f32(),
        Element::Uint8 => f32::from(byte(value)),
        Element::Int8 => f32::from(signed_byte(value)),
    }
}

/// The nearest of -128 to 127: the same bits as of a byte that is 128 more, but for the sign.
fn signed_byte(value: f32) -> i8 {
    (byte(value + 128.0) ^ 0x80).cast_signed()
}

/// The nearest of 0 to 255. Where a float has no bits left for fractions, adding
/// rounds, and the processor does several at once.
fn byte(value: f32) -> u8 {
    const NO_FRACTIONS: f32 = (1 << (f32::MANTISSA_DIGITS - 1)) as f32;
    (value.clamp(0.0, 255.0) + NO_FRACTIONS).to_bits() as u8
}

fn interleave<'a>(image: &'a [f32], planes: u32, pixels: &'a mut Vec<f32>) -> &'a [f32] {
    match planes {
        3 => side_by_side::<3>(image, pixels),
        4 => side_by_side::<4>(image, pixels),
        _ => image,
    }
}

fn side_by_side<'a, const PLANES: usize>(image: &[f32], pixels: &'a mut Vec<f32>) -> &'a [f32] {
    let plane = image.len() / PLANES;
    let planes: [_; PLANES] = array::from_fn(|at| &image[at * plane..][..plane]);
    pixels.resize(image.len(), 0.0);
    for (at, pixel) in pixels.as_chunks_mut::<PLANES>().0.iter_mut().enumerate() {
        *pixel = planes.map(|plane| plane[at]);
    }
    pixels
}

/// An input beside the image, in its type.
fn make(extra: &ExtraInput, spec: &InputSpec, frames: &[FrameInput<'_>]) -> ort::Result<DynTensor> {
    let numbers = numbers(extra, spec, frames);
    match extra.element.as_str() {
        "float16" => tensor(extra, &numbers, f16::from_f64),
        "float64" => tensor(extra, &numbers, |n| n),
        "int8" => tensor(extra, &numbers, |n| n as i8),
        "uint8" => tensor(extra, &numbers, |n| n as u8),
        "int32" => tensor(extra, &numbers, |n| n as i32),
        "int64" => tensor(extra, &numbers, |n| n as i64),
        "bool" => tensor(extra, &numbers, |n| n != 0.0),
        // Nothing else is accepted where a scenario is resolved.
        _ => tensor(extra, &numbers, |n| n as f32),
    }
}

fn numbers(extra: &ExtraInput, spec: &InputSpec, frames: &[FrameInput<'_>]) -> Vec<f64> {
    let count = extra.shape.iter().map(|side| *side as usize).product();
    match &extra.from {
        Feed::Constant(numbers) => numbers.clone(),
        // Rows without a frame get numbers that are possible.
        Feed::Frame(value) => frames.iter().cycle().flat_map(|frame| known(*value, spec, frame)).take(count).collect(),
    }
}

fn tensor<T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static>(
    extra: &ExtraInput,
    numbers: &[f64],
    convert: impl Fn(f64) -> T,
) -> ort::Result<DynTensor> {
    let shape: Vec<i64> = extra.shape.iter().copied().map(i64::from).collect();
    let numbers: Vec<T> = numbers.iter().copied().map(convert).collect();
    Ok(Tensor::from_array((shape, numbers))?.upcast())
}

fn known(value: FrameValue, spec: &InputSpec, frame: &FrameInput<'_>) -> [f64; 2] {
    let frame_size = [frame.size.width, frame.size.height].map(f64::from);
    let input_size = [spec.width, spec.height].map(f64::from);
    let scale = [frame.geometry.scale_x, frame.geometry.scale_y].map(f64::from);
    let turned = |[x, y]: [f64; 2]| [y, x];
    match value {
        FrameValue::FrameSize => frame_size,
        FrameValue::FrameSizeHw => turned(frame_size),
        FrameValue::InputSize => turned(input_size),
        FrameValue::InputSizeWh => input_size,
        FrameValue::Scale => turned(scale),
        FrameValue::ScaleXy => scale,
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::input::{InputOptions, TensorInfo};

    use super::*;

    fn spec(element: &str, shape: [u32; 4]) -> InputSpec {
        let image = TensorInfo { name: "x".into(), element: element.into(), shape: shape.map(Some).to_vec() };
        InputOptions::default().resolve(&[image]).unwrap()
    }

    #[test]
    fn words_for_a_frame_have_the_order_of_the_exports_that_ask_for_them() {
        let spec = spec("float32", [1, 3, 192, 320]);
        let geometry = Geometry { scale_x: 0.5, scale_y: 0.25, pad_x: 0.0, pad_y: 6.0 };
        let frame = FrameInput { image: &[], size: Size { width: 640, height: 768 }, geometry };
        for (value, expected) in [
            (FrameValue::FrameSize, [640.0, 768.0]),
            (FrameValue::FrameSizeHw, [768.0, 640.0]),
            (FrameValue::InputSize, [192.0, 320.0]),
            (FrameValue::InputSizeWh, [320.0, 192.0]),
            (FrameValue::Scale, [0.25, 0.5]),
            (FrameValue::ScaleXy, [0.5, 0.25]),
        ] {
            assert_eq!(known(value, &spec, &frame), expected, "{value:?}");
        }
    }

    #[test]
    fn integers_are_rounded_and_kept_in_their_range() {
        let packed = |element, values: &[f32]| {
            let mut feeder = Feeder::new(&spec(element, [1, 1, 1, values.len() as u32 + 4]));
            let mut row = values.to_vec();
            row.resize(values.len() + 4, 0.0);
            feeder.packed.fill(0, &row);
            match feeder.packed {
                Packed::U8(bytes) => bytes[..values.len()].iter().map(|byte| i32::from(*byte)).collect::<Vec<_>>(),
                Packed::I8(bytes) => bytes[..values.len()].iter().map(|byte| i32::from(*byte)).collect(),
                Packed::F32(_) | Packed::F16(_) => panic!("{element}"),
            }
        };
        let values = [-300.0, -128.4, -1.2, -0.4, 0.0, 0.6, 126.7, 127.4, 254.6, 300.0, f32::NAN, f32::INFINITY];
        assert_eq!(packed("uint8", &values), [0, 0, 0, 0, 0, 1, 127, 127, 255, 255, 0, 255]);
        assert_eq!(packed("int8", &values), [-128, -128, -1, 0, 0, 1, 127, 127, 127, 127, -128, 127]);
    }

    #[test]
    fn each_row_is_a_frame_and_rows_without_one_are_zeros() {
        for element in ["float32", "float16", "uint8", "int8"] {
            let mut feeder = Feeder::new(&spec(element, [3, 1, 1, 5]));
            for (number, value) in [7.0, 8.0, 9.0].into_iter().enumerate() {
                feeder.packed.fill(number, &[value; 5]);
            }
            feeder.packed.fill(0, &[6.0; 5]);
            feeder.packed.clear(10);
            let rows: Vec<f32> = match feeder.packed {
                Packed::F32(rows) => rows,
                Packed::F16(rows) => rows.into_iter().map(f16::to_f32).collect(),
                Packed::U8(rows) => rows.into_iter().map(f32::from).collect(),
                Packed::I8(rows) => rows.into_iter().map(f32::from).collect(),
            };
            assert_eq!(rows, [[6.0; 5], [8.0; 5], [0.0; 5]].concat(), "{element}");
        }
    }

    #[test]
    fn each_row_has_the_numbers_of_its_frame() {
        let image = TensorInfo { name: "x".into(), element: "float32".into(), shape: [3, 3, 8, 8].map(Some).to_vec() };
        let sizes = |shape: &[u32]| TensorInfo {
            name: "sizes".into(),
            element: "int64".into(),
            shape: shape.iter().copied().map(Some).collect(),
        };
        let options: InputOptions = serde_json::from_str(r#"{"inputs": {"sizes": "frame_size"}}"#).unwrap();
        let spec = options.clone().resolve(&[image.clone(), sizes(&[3, 2])]).unwrap();
        let frame = |width| FrameInput { size: Size { width, height: 9 }, ..FrameInput::of_input_size(&spec, &[]) };
        assert_eq!(numbers(&spec.inputs[0], &spec, &[frame(5), frame(7)]), [5.0, 9.0, 7.0, 9.0, 5.0, 9.0]);
        assert!(Feeder::new(&spec).takes_batches());
        let shared = options.resolve(&[image, sizes(&[2])]).unwrap();
        assert!(!Feeder::new(&shared).takes_batches(), "one pair cannot be that of several frames");
    }

    #[test]
    fn a_pixel_has_its_channels_side_by_side() {
        let planes = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 100.0, 200.0, 300.0];
        let mut pixels = vec![9.0; 2];
        assert_eq!(interleave(&planes, 3, &mut pixels), [1.0, 10.0, 100.0, 2.0, 20.0, 200.0, 3.0, 30.0, 300.0]);
        assert_eq!(interleave(&planes[..3], 1, &mut pixels), [1.0, 2.0, 3.0]);
    }
}
