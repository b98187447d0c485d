//! What the kit shows to a plugin: frames, outputs, detections and a further model, made of nothing.
//!
//! Invariant: a pure function of the frame's number, so that two runs are shown the same.

use std::time::Duration;

use framehook_core::prediction::{Detection, Position};

use super::ModelOutput;
use crate::{
    media::{
        Element, Elements, Frame, FramePixels, Geometry, Inference, Output, PixelFormat, PixelsUnavailable, Region,
        Size, Tensor, TensorDesc,
    },
    models::{ModelInfo, Models, NotRun, Run},
};

/// That of the demo's clip.
pub(super) const USUAL: Size = Size { width: 640, height: 360 };
/// From the smallest that there is to the largest that is decoded in practice (8K).
pub(super) const SIZES: [Size; 4] = [
    Size { width: 1, height: 1 },
    Size { width: 3, height: 7 },
    Size { width: 641, height: 361 },
    Size { width: 7680, height: 4320 },
];
/// Where neither plugin nor model says otherwise.
pub(super) const INPUT: Size = Size { width: 320, height: 192 };
/// Those of RGB.
const PLANES: u32 = 3;
/// The only further model that hooks are given.
pub(super) const FURTHER: &str = "synthetic";

/// A frame that a plugin is called for.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) number: u64,
    pub(super) size: Size,
    pub(super) input: Size,
    pub(super) outputs: Vec<Output>,
    pub(super) so_far: Vec<Detection>,
}

impl Scene {
    pub(super) fn position(&self) -> Position {
        // At 25 frames a second.
        Position { frame: self.number, pts_us: i64::try_from(self.number).unwrap_or(i64::MAX).saturating_mul(40_000) }
    }

    pub(super) fn pixels(&self) -> Pattern {
        Pattern { salt: self.number, input: self.input }
    }

    /// Letterboxed, the picture in the middle.
    fn geometry(&self) -> Geometry {
        let ratio = |of: u32, by: u32| of as f32 / by as f32;
        let scale = ratio(self.input.width, self.size.width).min(ratio(self.input.height, self.size.height));
        let pad = |input: u32, size: u32| (input as f32 - size as f32 * scale) / 2.0;
        Geometry {
            scale_x: scale,
            scale_y: scale,
            pad_x: pad(self.input.width, self.size.width),
            pad_y: pad(self.input.height, self.size.height),
        }
    }

    pub(super) fn frame<'a>(&self, pixels: &'a Pattern) -> Frame<'a> {
        Frame { position: self.position(), size: self.size, input_size: self.input, input_planes: PLANES, pixels }
    }

    pub(super) fn inference<'a>(&'a self, pixels: &'a Pattern) -> Inference<'a> {
        Inference {
            position: self.position(),
            size: self.size,
            input_size: self.input,
            geometry: self.geometry(),
            outputs: &self.outputs,
            pixels: Some(pixels),
        }
    }
}

/// Pixels that look like nothing and differ from frame to frame.
pub(super) struct Pattern {
    salt: u64,
    input: Size,
}

impl FramePixels for Pattern {
    fn read(&self, _: Region, target: Size, format: PixelFormat) -> Result<Vec<u8>, PixelsUnavailable> {
        let bytes = target.width as usize * target.height as usize * format.channels();
        Ok((0..bytes as u64).map(|at| noise(self.salt, at / 16) as u8).collect())
    }

    fn to_tensor(&self, _: Region) -> Result<(Tensor, Geometry), PixelsUnavailable> {
        let Size { width, height } = self.input;
        let elements = u64::from(PLANES) * u64::from(width) * u64::from(height);
        let data = (0..elements).map(|at| share(self.salt, at / 16)).collect();
        let geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };
        Ok((Tensor { shape: vec![1, PLANES, height, width], data }, geometry))
    }
}

/// A further model, whatever it is run on: a classifier of ten classes.
pub(super) struct Further(Vec<ModelInfo>);

impl Further {
    pub(super) fn new() -> Self {
        let input_size = Size { width: 32, height: 32 };
        Self(vec![ModelInfo { name: FURTHER.into(), input_size, labels: Vec::new() }])
    }

    fn one(&self, salt: u64) -> Run {
        let shape = ModelOutput { name: "scores".into(), shape: vec![1, 10], is_integer: false };
        let geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };
        Run { input_size: self.0[0].input_size, geometry, outputs: vec![output(&shape, INPUT, salt)] }
    }
}

impl Models for Further {
    fn list(&self) -> &[ModelInfo] {
        &self.0
    }

    fn run(&self, _: usize, _: &dyn FramePixels, regions: &[Region], _: Duration) -> Result<Vec<Run>, NotRun> {
        Ok((0..).zip(regions).map(|(salt, _)| self.one(salt)).collect())
    }

    fn run_tensor(&self, _: usize, _: &Tensor) -> Result<Run, NotRun> {
        Ok(self.one(0))
    }
}

/// What models give that plugins read, the usual kinds: the first that a plugin can read is shown to it.
pub(super) fn usual_models() -> Vec<(&'static str, Vec<ModelOutput>)> {
    let of = |outputs: &[(&str, &[u32])]| {
        let output = |(name, shape): &(&str, &[u32])| ModelOutput {
            name: (*name).to_owned(),
            shape: shape.to_vec(),
            is_integer: false,
        };
        outputs.iter().map(output).collect()
    };
    vec![
        ("a detector of 3 classes", of(&[("output0", &[1, 7, 1260])])),
        ("a classifier", of(&[("scores", &[1, 10])])),
        ("a detector with scores and boxes", of(&[("scores", &[1, 300, 3]), ("boxes", &[1, 300, 4])])),
        ("a detector with logits and boxes", of(&[("logits", &[1, 100, 91]), ("pred_boxes", &[1, 100, 4])])),
        ("a map", of(&[("map", &[1, 1, 192, 320])])),
        (
            "a heat map with boxes and landmarks",
            of(&[
                ("heat", &[1, 1, 48, 80]),
                ("size", &[1, 2, 48, 80]),
                ("offset", &[1, 2, 48, 80]),
                ("landmarks", &[1, 10, 48, 80]),
            ]),
        ),
        ("a model without outputs", Vec::new()),
    ]
}

/// An output with numbers that a model could give.
pub(super) fn output(of: &ModelOutput, input: Size, salt: u64) -> Output {
    let ModelOutput { name, shape, is_integer } = of;
    let values = match shape[..] {
        // Boxes with scores, in columns or rows.
        [1, numbers, boxes] if numbers > 4 && numbers < boxes => {
            (0..numbers * boxes).map(|at| of_head(at / boxes, at % boxes, input, salt)).collect()
        }
        [1, boxes, numbers] if numbers > 4 && numbers < boxes => {
            (0..numbers * boxes).map(|at| of_head(at % numbers, at / numbers, input, salt)).collect()
        }
        // Shares of classes.
        [1, classes] if classes > 1 => {
            let best = (salt % u64::from(classes)) as u32;
            (0..classes).map(|class| if class == best { 0.55 } else { 0.45 / (classes - 1) as f32 }).collect()
        }
        // Boxes alone, their numbers within the frame.
        [.., 4] => (0..count(shape)).map(|at| 0.2 + 0.1 * (at % 4) as f32 + 0.1 * share(salt, at)).collect(),
        _ => (0..count(shape)).map(|at| if noise(salt, at / 8).is_multiple_of(64) { 0.9 } else { 0.01 }).collect(),
    };
    filled(name, shape, *is_integer, values)
}

/// Number `number` of box `row`: eight objects that move, and nothing else.
fn of_head(number: u32, row: u32, input: Size, salt: u64) -> f32 {
    let (width, height) = (input.width as f32, input.height as f32);
    let object = row / 40;
    let is_object = row.is_multiple_of(40) && object < 8;
    match number {
        0 => width * (0.1 + 0.1 * object as f32 + 0.002 * (salt % 50) as f32),
        1 => height * (0.3 + 0.05 * object as f32),
        2 => width * 0.1,
        3 => height * 0.2,
        class if is_object && class - 4 == object % 3 => 0.9 - 0.05 * object as f32,
        _ => 0.01,
    }
}

/// The same output with one value all over.
pub(super) fn flat(of: &ModelOutput, value: f32) -> Output {
    filled(&of.name, &of.shape, of.is_integer, vec![value; count(&of.shape) as usize])
}

fn filled(name: &str, shape: &[u32], is_integer: bool, values: Vec<f32>) -> Output {
    let element = if is_integer { Element::Integer } else { Element::Float };
    let data =
        if is_integer { Elements::I64(values.iter().map(|v| *v as i64).collect()) } else { Elements::F32(values) };
    Output { desc: TensorDesc { name: name.to_owned(), shape: shape.to_vec(), element }, data }
}

fn count(shape: &[u32]) -> u64 {
    shape.iter().map(|side| u64::from(*side)).product()
}

/// What hooks before would have found: tracked objects that move to the right, listed in another order on
/// each frame, so that only one who remembers knows which is which; and on every fifth frame none.
pub(super) fn so_far(number: u64, objects: u32) -> Vec<Detection> {
    let one = |object: u32| Detection {
        class_id: object % 2,
        label: Some(if object.is_multiple_of(2) { "person" } else { "car" }.into()),
        score: 0.9 - 0.1 * (object % 4) as f32,
        bbox: [
            (0.05 * (object % 8) as f32 + 0.02 * (number % 50) as f32).min(0.9),
            0.1 + 0.2 * (object % 4) as f32,
            0.1,
            0.2,
        ],
        track_id: Some(u64::from(object) + 1),
        ..Detection::default()
    };
    let first = (number % u64::from(objects)) as u32;
    if number % 5 == 4 { Vec::new() } else { (first..objects).chain(0..first).map(one).collect() }
}

/// 0 to 1.
fn share(salt: u64, at: u64) -> f32 {
    (noise(salt, at) % 1024) as f32 / 1023.0
}

/// Numbers without a pattern (SplitMix64).
fn noise(salt: u64, at: u64) -> u64 {
    let mut mixed = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
