//! What a model wants as its input, and how a frame becomes it.
//!
//! Three places may say so. From weakest to strongest: the default below, the plugin that reads
//! the model's outputs (it knows the family of models), the scenario. Each names only what it
//! wants to change ([`InputOptions`]); the result is complete ([`InputSpec`]).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::probe::printable;

/// The complete recipe from a frame to a model's input tensor (`[1, 3, height, width]`).
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
    pub field: &'static str,
    pub message: String,
}

fn refused<T>(field: &'static str, message: impl Into<String>) -> Result<T, InputError> {
    Err(InputError { field, message: message.into() })
}

impl InputOptions {
    /// `self` where it says something, else `weaker`.
    #[must_use]
    pub fn or(self, weaker: Self) -> Self {
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
        }
    }

    /// Completes the options for a model with these `inputs`.
    ///
    /// # Errors
    /// When the model has no usable image input, or the options do not fit it.
    pub fn resolve(self, inputs: &[TensorInfo]) -> Result<InputSpec, InputError> {
        let input = self.choose_tensor(inputs)?;
        let [height, width] = image_shape(input)?;
        let name = &input.name;
        let side = |model: Option<u32>, wanted: Option<u32>, axis: &str| match (model, wanted) {
            (Some(model), Some(wanted)) if model != wanted => refused(
                "input.size",
                format!(
                    "the {axis} of input `{name}` is fixed to {model}, but {wanted} was asked for; leave `input.size` out"
                ),
            ),
            (Some(side), _) | (None, Some(side)) if (1..=MAX_SIDE).contains(&side) => Ok(side),
            (None, None) => refused(
                "input.size",
                format!("input `{name}` leaves its {axis} open; give `input.size` as [width, height] in pixels"),
            ),
            (_, _) => refused("input.size", format!("the {axis} must be 1 to {MAX_SIDE} pixels")),
        };
        let spec = InputSpec {
            tensor: input.name.clone(),
            width: side(width, self.size.map(|s| s[0]), "width")?,
            height: side(height, self.size.map(|s| s[1]), "height")?,
            resize: self.resize.unwrap_or_default(),
            anchor: self.anchor.unwrap_or_default(),
            channels: self.channels.unwrap_or_default(),
            // 114 is the grey that the YOLO family is trained with.
            pad: self.pad.unwrap_or(114),
            scale: self.scale.unwrap_or(1.0 / 255.0),
            mean: self.mean.unwrap_or([0.0; 3]),
            std: self.std.unwrap_or([1.0; 3]),
        };
        let pixels = u64::from(spec.width) * u64::from(spec.height);
        if pixels > MAX_PIXELS {
            return refused("input.size", format!("the input has {pixels} pixels; at most {MAX_PIXELS} are filled"));
        }
        let numbers = [spec.scale].into_iter().chain(spec.mean).chain(spec.std);
        if numbers.clone().any(|n| !n.is_finite()) || spec.std.contains(&0.0) || spec.scale == 0.0 {
            return refused("input", "`scale` and `std` must be finite and not 0, `mean` must be finite");
        }
        Ok(spec)
    }

    fn choose_tensor<'a>(&self, inputs: &'a [TensorInfo]) -> Result<&'a TensorInfo, InputError> {
        let names = || printable(&inputs.iter().map(|i| format!("`{}`", i.name)).collect::<Vec<_>>().join(", "));
        let tensor = "input.tensor";
        match (&self.tensor, inputs) {
            (_, []) => refused(tensor, "the model has no inputs"),
            (Some(name), _) if inputs.len() == 1 && inputs[0].name == *name => Ok(&inputs[0]),
            (None, [only]) => Ok(only),
            (Some(name), _) if !inputs.iter().any(|i| i.name == *name) => {
                refused(tensor, format!("the model has no input `{name}`; its inputs are {}", names()))
            }
            // Nothing could fill the others.
            (_, _) => refused(
                tensor,
                format!(
                    "the model needs {} inputs ({}); Framehook feeds one image, so export it with the others as constants",
                    inputs.len(),
                    names()
                ),
            ),
        }
    }
}

/// No picture that is decoded has a longer side.
const MAX_SIDE: u32 = 8_192;
/// A tensor of 4,096 x 4,096 pixels has 192 MiB, and a worker keeps several.
const MAX_PIXELS: u64 = 1 << 24;

/// `[height, width]` of an image input `[1, 3, height, width]` of `float32`.
///
/// # Errors
/// When `input` is something else; the message says what was found and what to do.
pub fn image_shape(input: &TensorInfo) -> Result<[Option<u32>; 2], InputError> {
    let error = |advice: &str| InputError {
        field: "model",
        message: format!(
            "input `{}` is {} {}, but Framehook feeds one RGB frame as float32 [1, 3, height, width]: {advice}",
            input.name,
            input.element,
            shape_text(&input.shape)
        ),
    };
    let [batch, channels, height, width] = input.shape[..] else {
        return Err(error("export the model with one 4-dimensional image input"));
    };
    if input.element != "float32" {
        return Err(error("export the model with a float32 input"));
    }
    if batch.is_some_and(|n| n != 1) {
        return Err(error("export the model with batch size 1 or a dynamic batch"));
    }
    if channels.is_some_and(|n| n != 3) {
        return Err(error("export the model with its three channels second (NCHW)"));
    }
    Ok([height, width])
}

fn shape_text(shape: &[Option<u32>]) -> String {
    let dims: Vec<_> = shape.iter().map(|d| d.map_or("?".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[i64]) -> TensorInfo {
        TensorInfo {
            name: "images".into(),
            element: "float32".into(),
            shape: shape.iter().map(|&d| u32::try_from(d).ok()).collect(),
        }
    }

    #[test]
    fn the_models_own_shape_is_enough() {
        let spec = InputOptions::default().resolve(&[tensor(&[1, 3, 192, 320])]).unwrap();
        assert_eq!((spec.width, spec.height, spec.pad), (320, 192, 114));
        assert_eq!((spec.tensor.as_str(), spec.scale), ("images", 1.0 / 255.0));
    }

    #[test]
    fn what_says_the_same_as_the_model_fits() {
        let named = InputOptions { tensor: Some("images".into()), size: Some([320, 192]), ..Default::default() };
        let spec = named.resolve(&[tensor(&[1, 3, 192, 320])]).unwrap();
        assert_eq!((spec.width, spec.height), (320, 192));
        let largest = InputOptions { size: Some([4096, 4096]), ..Default::default() };
        assert!(largest.resolve(&[tensor(&[1, 3, -1, -1])]).is_ok());
    }

    #[test]
    fn a_scenario_overrides_a_plugin_which_overrides_the_default() {
        let scenario = InputOptions { pad: Some(0), ..Default::default() };
        let plugin =
            InputOptions { pad: Some(7), scale: Some(1.0), anchor: Some(Anchor::TopLeft), ..Default::default() };
        let spec = scenario.or(plugin).resolve(&[tensor(&[-1, 3, 480, 640])]).unwrap();
        assert_eq!((spec.pad, spec.scale, spec.anchor), (0, 1.0, Anchor::TopLeft));
        assert_eq!(spec.channels, Channels::Rgb);
    }

    #[test]
    fn the_first_releases_word_for_an_anchor_is_still_read() {
        for word in ["top_left", "top-left"] {
            let options: InputOptions = serde_json::from_value(serde_json::json!({"anchor": word})).unwrap();
            assert_eq!(serde_json::to_value(options).unwrap(), serde_json::json!({"anchor": "top_left"}));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let size = |w, h| InputOptions { size: Some([w, h]), ..Default::default() };
        let none = InputOptions::default;
        for (options, inputs, field, words) in [
            (none(), vec![], "input.tensor", "no inputs"),
            (none(), vec![tensor(&[10, 3, 32, 32])], "model", "batch size 1"),
            (none(), vec![tensor(&[10, -1, 32, 32])], "model", "is float32 [10, ?, 32, 32]"),
            (none(), vec![tensor(&[1, 192, 320, 3])], "model", "NCHW"),
            (none(), vec![tensor(&[1, 1000])], "model", "4-dimensional"),
            (none(), vec![tensor(&[1, 3, -1, -1])], "input.size", "leaves its width open"),
            (none(), vec![tensor(&[1, 3, 8, 8]), tensor(&[1])], "input.tensor", "needs 2 inputs"),
            (size(640, 640), vec![tensor(&[1, 3, 192, 320])], "input.size", "fixed to 320"),
            (size(0, 9), vec![tensor(&[1, 3, -1, -1])], "input.size", "1 to 8192"),
            (size(8193, 9), vec![tensor(&[1, 3, -1, -1])], "input.size", "1 to 8192"),
            (size(8192, 2049), vec![tensor(&[1, 3, -1, -1])], "input.size", "at most 16777216"),
            (none(), vec![tensor(&[1, 3, 5000, 5000])], "input.size", "has 25000000 pixels"),
            (
                InputOptions { tensor: Some("x".into()), ..none() },
                vec![tensor(&[1, 3, 8, 8])],
                "input.tensor",
                "no input `x`",
            ),
            (
                InputOptions { tensor: Some("images".into()), ..none() },
                vec![tensor(&[1, 3, 8, 8]), tensor(&[1])],
                "input.tensor",
                "needs 2 inputs",
            ),
            (InputOptions { std: Some([1.0, 0.0, 1.0]), ..none() }, vec![tensor(&[1, 3, 8, 8])], "input", "not 0"),
        ] {
            let error = options.resolve(&inputs).unwrap_err();
            assert_eq!(error.field, field, "{error}");
            assert!(error.message.contains(words), "{error}");
        }
    }
}
