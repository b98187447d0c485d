//! What a model wants as its input, and how a frame becomes it.
//!
//! Three places may say so. From weakest to strongest: the default below, the plugin that reads
//! the model's outputs (it knows the family of models), the scenario. Each names only what it
//! wants to change ([`InputOptions`]); the result is complete ([`InputSpec`]).

mod extra;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use extra::{ExtraInput, Feed, FrameValue};

use crate::probe::printable;

/// The complete recipe from a frame to the inputs of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InputSpec {
    /// Name of the model's input tensor.
    pub tensor: String,
    /// Pixels.
    pub width: u32,
    pub height: u32,
    pub resize: Resize,
    pub anchor: Anchor,
    pub channels: Channels,
    /// Value of the padding of a letterbox, 0 to 255, before scale, mean and std.
    #[schema(maximum = 255)]
    pub pad: u8,
    /// Each value becomes `(value * scale - mean) / std`; mean and std in the model's channel order.
    pub scale: f32,
    #[schema(min_items = 3, max_items = 3)]
    pub mean: [f32; 3],
    #[schema(min_items = 3, max_items = 3)]
    pub std: [f32; 3],
    /// Order of the tensor's dimensions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub layout: Layout,
    #[serde(default, skip_serializing_if = "is_default")]
    pub element: Element,
    /// 1: grey, by the weights of ITU-R BT.601, with the first of mean and std. 3: red, green and
    /// blue. 4: and one that is opaque, `255 * scale`.
    #[serde(default = "colours", skip_serializing_if = "are_colours")]
    #[schema(minimum = 1, maximum = 4, default = 3)]
    pub planes: u32,
    /// Rows of the model's fixed batch, which consecutive frames fill; where there are fewer, or
    /// where an output does not have a part for each, the others are zeros.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schema(minimum = 1, default = 1)]
    pub batch: u32,
    /// The model's other inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 255)]
    pub inputs: Vec<ExtraInput>,
}

const fn colours() -> u32 {
    3
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn are_colours(planes: &u32) -> bool {
    *planes == colours()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_one(batch: &u32) -> bool {
    *batch == one()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What somebody wants different from the default; absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InputOptions {
    /// Name of the model's input tensor. Needed only if the model has several image inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub tensor: Option<String>,
    /// `[width, height]` in pixels. Needed only if the model leaves them open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 2, max_items = 2)]
    pub size: Option<[u32; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Value of the padding of a letterbox, 0 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 255)]
    pub pad: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 3, max_items = 3)]
    pub mean: Option<[f32; 3]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 3, max_items = 3)]
    pub std: Option<[f32; 3]>,
    /// Needed only if the model's shape leaves open which dimension has the channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// What feeds the model's other inputs, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Feed>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Keep the aspect ratio and pad the rest.
    #[default]
    Letterbox,
    /// Fill the input, whatever the aspect ratio.
    Stretch,
}

/// Where a letterboxed frame lies on its canvas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    #[default]
    Center,
    /// The first release wrote `top-left`.
    #[serde(alias = "top-left")]
    TopLeft,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    #[default]
    Rgb,
    Bgr,
}

/// Order of the dimensions of an image: batch, channels, height, width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A plane of each channel, as PyTorch has it.
    #[default]
    Nchw,
    /// The channels of a pixel side by side, as TensorFlow has it.
    Nhwc,
}

/// Type of the values of an image, by ONNX's names. Integers are rounded, and kept in their range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    #[default]
    Float32,
    Float16,
    Uint8,
    Int8,
}

impl Element {
    /// What makes the most common recipe of models with this type: `scale` and `mean`.
    const fn usual(self) -> (f32, f32) {
        match self {
            Self::Float32 | Self::Float16 => (1.0 / 255.0, 0.0),
            Self::Uint8 => (1.0, 0.0),
            // A byte with its zero in the middle, as quantised models take it.
            Self::Int8 => (1.0, 128.0),
        }
    }
}

/// One input or output of a model. A dimension that the model leaves open is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TensorInfo {
    pub name: String,
    /// Element type as ONNX names it, such as `float32`.
    pub element: String,
    pub shape: Vec<Option<u32>>,
}

/// Why no [`InputSpec`] can be made for a model. `field` is the path inside the scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    pub field: String,
    pub message: String,
}

fn refused<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, InputError> {
    Err(InputError { field: field.into(), message: message.into() })
}

impl InputOptions {
    /// `self` where it says something, else `weaker`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
        let mut inputs = weaker.inputs;
        inputs.extend(self.inputs);
        Self {
            tensor: self.tensor.or(weaker.tensor),
            size: self.size.or(weaker.size),
            resize: self.resize.or(weaker.resize),
            anchor: self.anchor.or(weaker.anchor),
            channels: self.channels.or(weaker.channels),
            pad: self.pad.or(weaker.pad),
            scale: self.scale.or(weaker.scale),
            mean: self.mean.or(weaker.mean),
            std: self.std.or(weaker.std),
            layout: self.layout.or(weaker.layout),
            inputs,
        }
    }

    /// Completes the options for a model with these `inputs`.
    ///
    /// # Errors
    /// When the model has no usable image input, or the options do not fit it. If the field is
    /// `model`, no options would.
    pub fn resolve(self, inputs: &[TensorInfo]) -> Result<InputSpec, InputError> {
        let input = self.choose_tensor(inputs)?;
        let image = shape::image(input, self.layout)?;
        let (scale, mean) = image.element.usual();
        let [width, height] = sides(&input.name, [image.width, image.height], self.size)?;
        let spec = InputSpec {
            tensor: input.name.clone(),
            width,
            height,
            resize: self.resize.unwrap_or_default(),
            anchor: self.anchor.unwrap_or_default(),
            channels: self.channels.unwrap_or_default(),
            // 114 is the grey that the YOLO family is trained with.
            pad: self.pad.unwrap_or(114),
            scale: self.scale.unwrap_or(scale),
            mean: self.mean.unwrap_or([mean; 3]),
            std: self.std.unwrap_or([1.0; 3]),
            layout: image.layout,
            element: image.element,
            planes: image.planes,
            batch: image.batch,
            inputs: extra::resolve(&self.inputs, input, inputs, image.batch)?,
        };
        spec.check()?;
        Ok(spec)
    }

    /// The same for a model of which nobody wants more than its image: what feeds its other inputs
    /// is open.
    ///
    /// # Errors
    /// As [`InputOptions::resolve`].
    pub fn resolve_image(self, inputs: &[TensorInfo]) -> Result<InputSpec, InputError> {
        let image = self.choose_tensor(inputs)?;
        Self { inputs: BTreeMap::new(), ..self }.resolve(std::slice::from_ref(image))
    }

    /// The input that takes the image: the one that is named, else the only one that can.
    fn choose_tensor<'a>(&self, inputs: &'a [TensorInfo]) -> Result<&'a TensorInfo, InputError> {
        let tensor = "input.tensor";
        if inputs.is_empty() {
            return refused(tensor, "the model has no inputs");
        }
        if let Some(name) = &self.tensor {
            let missing = || format!("the model has no input `{name}`; its inputs are {}", names(inputs));
            return inputs.iter().find(|i| i.name == *name).map_or_else(|| refused(tensor, missing()), Ok);
        }
        let free: Vec<_> = inputs.iter().filter(|input| !self.inputs.contains_key(&input.name)).collect();
        let images: Vec<_> = free.iter().copied().filter(|input| shape::is_image(input)).collect();
        match (&images[..], &free[..]) {
            ([only], _) | ([], [only]) => Ok(only),
            (_, []) => refused(tensor, "`input.inputs` feeds every input of the model, and none is left for the image"),
            ([], _) => {
                let advice = "is an image of 4 dimensions; export it with one";
                refused("model", format!("none of the model's inputs ({}) {advice}", names(free)))
            }
            _ => {
                let advice = "name the one that does in `input.tensor`";
                refused(tensor, format!("several inputs could take the image ({}); {advice}", names(images)))
            }
        }
    }
}

fn names<'a>(inputs: impl IntoIterator<Item = &'a TensorInfo>) -> String {
    let names: Vec<_> = inputs.into_iter().map(|input| format!("`{}`", input.name)).collect();
    printable(&names.join(", "))
}

/// Width and height of the input, where the model and the options agree on them.
fn sides(name: &str, model: [Option<u32>; 2], wanted: Option<[u32; 2]>) -> Result<[u32; 2], InputError> {
    const AXES: [&str; 2] = ["width", "height"];
    let open: Vec<_> = AXES.into_iter().zip(model).filter(|(_, side)| side.is_none()).map(|(axis, _)| axis).collect();
    if wanted.is_none() && !open.is_empty() {
        let open = open.join(" and its ");
        let message = format!("input `{name}` leaves its {open} open; give `input.size` as [width, height] in pixels");
        return refused("input.size", message);
    }
    let side = |axis: usize| side(name, model[axis], wanted.map(|size| size[axis]), AXES[axis]);
    Ok([side(0)?, side(1)?])
}

/// One side of the input, which the model or the options say.
fn side(name: &str, model: Option<u32>, wanted: Option<u32>, axis: &str) -> Result<u32, InputError> {
    match (model, wanted) {
        (Some(model), Some(wanted)) if model != wanted => refused(
            "input.size",
            format!(
                "the {axis} of input `{name}` is fixed to {model}, but {wanted} was asked for; leave `input.size` out"
            ),
        ),
        (Some(side), _) | (None, Some(side)) if (1..=MAX_SIDE).contains(&side) => Ok(side),
        (_, _) => refused("input.size", format!("the {axis} must be 1 to {MAX_SIDE} pixels")),
    }
}

impl InputSpec {
    /// Values of one frame.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.planes as usize * self.width as usize * self.height as usize
    }

    fn check(&self) -> Result<(), InputError> {
        let pixels = [self.height, self.batch].into_iter().map(u64::from).fold(self.width.into(), u64::saturating_mul);
        if pixels > MAX_PIXELS {
            return refused("input.size", format!("the input has {pixels} pixels; at most {MAX_PIXELS} are filled"));
        }
        for (field, numbers, may_be_0) in [
            ("input.scale", &[self.scale][..], false),
            ("input.mean", &self.mean[..], true),
            ("input.std", &self.std[..], false),
        ] {
            if let Some(number) = numbers.iter().find(|n| !n.is_finite() || (**n == 0.0 && !may_be_0)) {
                let wanted = if may_be_0 { "be finite" } else { "be finite and not 0" };
                return refused(field, format!("`{field}` has {number}, but its numbers must {wanted}"));
            }
        }
        Ok(())
    }

    /// The smallest and the largest value that a frame can have in the tensor, before its type
    /// limits them: those of black and of white, over all channels.
    #[must_use]
    pub fn range(&self) -> [f32; 2] {
        // Grey has the first of mean and std only.
        let channels = if self.planes == 1 { 1 } else { 3 };
        let value = |at: usize, byte: f32| (byte * self.scale - self.mean[at]) / self.std[at];
        let ends = (0..channels).flat_map(|at| [value(at, 0.0), value(at, 255.0)]);
        ends.fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], end| [low.min(end), high.max(end)])
    }
}

/// No picture that is decoded has a longer side.
const MAX_SIDE: u32 = 8_192;
/// A tensor of 4,096 x 4,096 pixels has 192 MiB, and a worker keeps several.
const MAX_PIXELS: u64 = 1 << 24;

fn shape_text(shape: &[Option<u32>]) -> String {
    let dims: Vec<_> = shape.iter().map(|d| d.map_or("?".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", dims.join(", "))
}
