//! Inputs of a model beside the image: numbers that follow from a frame, or constants.

use std::{collections::BTreeMap, ptr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{InputError, TensorInfo, names, refused, shape_text};
use crate::{probe::printable, schemas::Numbers};

/// What feeds an input: a word for what is known of the frame, or its values in row-major order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "it is a list of numbers, or `frame_size`, `frame_size_hw`, `input_size`, `input_size_wh`, `scale` or `scale_xy`"
)]
pub enum Feed {
    Frame(FrameValue),
    #[schema(value_type = Numbers)]
    Constant(Vec<f64>),
}

/// Two numbers that follow from the size of a frame and of the model's image. The order is that of
/// the exports which have such inputs: RT-DETR asks for the size of the frame with its width first,
/// PaddleDetection for the others with the height first. A word with the order at its end is for
/// models that want the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrameValue {
    /// Width and height of the frame, in pixels.
    FrameSize,
    /// Height and width of the frame.
    FrameSizeHw,
    /// Height and width of the model's image, in pixels.
    InputSize,
    /// Width and height of the model's image.
    InputSizeWh,
    /// By what the frame's height and width were multiplied.
    Scale,
    /// By what the frame's width and height were multiplied.
    ScaleXy,
}

/// An input beside the image, complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExtraInput {
    #[schema(max_length = 512)]
    pub tensor: String,
    /// Element type as ONNX names it, such as `int64`.
    #[schema(max_length = 32)]
    pub element: String,
    #[schema(max_items = 32)]
    pub shape: Vec<u32>,
    pub from: Feed,
}

/// Element types that can be filled.
const ELEMENTS: [&str; 8] = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"];
/// Values of a constant: what is larger belongs into the model.
const MAX_CONSTANT: usize = 4096;
/// What may feed an input, in messages.
const FEEDS: &str = "a list of numbers, \"frame_size\", \"frame_size_hw\", \"input_size\", \"input_size_wh\", \"scale\" or \
                     \"scale_xy\"";

/// The field that says what feeds this input.
fn field(name: &str) -> String {
    format!("input.inputs.{}", printable(name))
}

/// Completes what feeds the inputs other than `image`.
///
/// # Errors
/// When one is not fed, or cannot be by what is declared.
pub(super) fn resolve(
    feeds: &BTreeMap<String, Feed>,
    image: &TensorInfo,
    inputs: &[TensorInfo],
    batch: u32,
) -> Result<Vec<ExtraInput>, InputError> {
    let others: Vec<_> = inputs.iter().filter(|input| !ptr::eq(*input, image)).collect();
    if let Some(input) = others.iter().find(|input| !ELEMENTS.contains(&input.element.as_str())) {
        let TensorInfo { name, element, .. } = input;
        return refused(
            "model",
            format!("input `{name}` is {element}, which nothing can fill; export the model without it"),
        );
    }
    if let Some(name) = feeds.keys().find(|name| !others.iter().any(|input| input.name == **name)) {
        let there = if others.is_empty() { "none".into() } else { names(others.iter().copied()) };
        let (image, name) = (&image.name, printable(name));
        let message = format!("the model has no input `{name}` beside its image `{image}`; of others it has {there}");
        return refused(field(&name), message);
    }
    let missing: Vec<_> = others.iter().filter(|input| !feeds.contains_key(&input.name)).collect();
    if !missing.is_empty() {
        let missing: Vec<_> =
            missing.iter().map(|i| format!("`{}` ({} {})", i.name, i.element, shape_text(&i.shape))).collect();
        return refused(
            "input.inputs",
            format!(
                "the model needs {} inputs; say in `input.inputs` what feeds {}: {FEEDS}",
                inputs.len(),
                missing.join(", ")
            ),
        );
    }
    others.into_iter().map(|input| complete(input, &feeds[&input.name], batch)).collect()
}

fn complete(input: &TensorInfo, feed: &Feed, batch: u32) -> Result<ExtraInput, InputError> {
    let is_float = input.element.starts_with("float");
    let found = || format!("input `{}` is {} {}", input.name, input.element, shape_text(&input.shape));
    let (shape, is_whole) = match feed {
        Feed::Frame(value) => (pair(&input.shape, batch), !matches!(value, FrameValue::Scale | FrameValue::ScaleXy)),
        Feed::Constant(values) => {
            if values.len() > MAX_CONSTANT || values.iter().any(|value| !value.is_finite()) {
                let limit = format!("a constant has at most {MAX_CONSTANT} numbers, all of them finite");
                return refused(field(&input.name), format!("{}: {limit}; put what is larger into the model", found()));
            }
            (filled_by(&input.shape, values.len()), values.iter().all(|value| value.fract() == 0.0))
        }
    };
    if !is_float && !is_whole {
        return refused(field(&input.name), format!("{}, which has no fractions; give whole numbers", found()));
    }
    let Some(shape) = shape else {
        let wanted = match feed {
            Feed::Frame(_) => "two numbers of the frame do not fill it; give a list of numbers that does".to_owned(),
            Feed::Constant(values) => format!("{} numbers do not fill it; give as many as its shape has", values.len()),
        };
        return refused(field(&input.name), format!("{}: {wanted}", found()));
    };
    Ok(ExtraInput { tensor: input.name.clone(), element: input.element.clone(), shape, from: feed.clone() })
}

/// `[2]`, or the same for each row of the batch.
fn pair(shape: &[Option<u32>], batch: u32) -> Option<Vec<u32>> {
    let fits = |side: Option<u32>, wanted: u32| side.is_none_or(|side| side == wanted);
    match *shape {
        [numbers] if fits(numbers, 2) => Some(vec![2]),
        [rows, numbers] if fits(rows, batch) && fits(numbers, 2) => Some(vec![batch, 2]),
        _ => None,
    }
}

/// The shape with `count` elements; of open dimensions, all but the last are 1.
fn filled_by(shape: &[Option<u32>], count: usize) -> Option<Vec<u32>> {
    let known = shape.iter().flatten().try_fold(1_u32, |n, side| n.checked_mul(*side))?;
    let count = u32::try_from(count).ok()?;
    let last = shape.iter().rposition(Option::is_none);
    let rest = if last.is_some() { count.checked_div(known)? } else { 1 };
    let filled = shape.iter().enumerate().map(|(at, side)| side.unwrap_or(if Some(at) == last { rest } else { 1 }));
    let filled: Vec<_> = filled.collect();
    (filled.iter().try_fold(1_u32, |n, side| n.checked_mul(*side))? == count).then_some(filled)
}
