//! What the type and the shape of a model's input say about the image that it takes.
//!
//! Invariant: which dimension has the channels is certain, or somebody has said it: a guess would
//! feed a model with a picture of three columns.

use super::{Element, InputError, Layout, TensorInfo, refused, shape_text};

pub(super) struct Image {
    pub(super) layout: Layout,
    pub(super) element: Element,
    pub(super) planes: u32,
    pub(super) batch: u32,
    pub(super) height: Option<u32>,
    pub(super) width: Option<u32>,
}

/// Grey, colours, colours with transparency.
const CHANNELS: [u32; 3] = [1, 3, 4];
/// Where the model leaves the number of channels open.
const USUAL_CHANNELS: u32 = 3;

fn element(input: &TensorInfo) -> Option<Element> {
    Some(match input.element.as_str() {
        "float32" => Element::Float32,
        "float16" => Element::Float16,
        "uint8" => Element::Uint8,
        "int8" => Element::Int8,
        _ => return None,
    })
}

/// Whether an image could be fed to it.
pub(super) fn is_image(input: &TensorInfo) -> bool {
    element(input).is_some() && input.shape.len() == 4
}

/// What `input` takes; its `layout`, if somebody says it.
///
/// # Errors
/// When it takes no image, or its layout is not certain.
pub(super) fn image(input: &TensorInfo, layout: Option<Layout>) -> Result<Image, InputError> {
    let found = || format!("input `{}` is {} {}", input.name, input.element, shape_text(&input.shape));
    let unfit = |what: &str, advice: &str| refused("model", format!("{}: {what}; export the model {advice}", found()));
    let Some(element) = element(input) else {
        return unfit("no frame is fed in this type", "with an input of float32, float16, uint8 or int8");
    };
    let [batch, second, third, fourth] = input.shape[..] else {
        let what = format!("a frame is fed in 4 dimensions, and it has {}", input.shape.len());
        return unfit(&what, "with an image input of batch, channels, height and width");
    };
    let Some(batch @ 1..) = batch.or(Some(1)) else {
        return unfit("its batch has no room for a frame", "with batch size 1");
    };
    if !may_be_channels(second) && !may_be_channels(fourth) {
        let what = "neither its second nor its last dimension can be the channels";
        return unfit(what, "with 1, 3 or 4 channels, second (NCHW) or last (NHWC)");
    }
    let Some(layout) = layout.or_else(|| certain_layout(second, fourth)) else {
        let advice = "may be the channels; say which with `input.layout`: \"nchw\" or \"nhwc\"";
        return refused("input.layout", format!("{}: its second or its last dimension {advice}", found()));
    };
    let (channels, height, width) = match layout {
        Layout::Nchw => (second, third, fourth),
        Layout::Nhwc => (fourth, second, third),
    };
    if !may_be_channels(channels) {
        let advice = "leave `input.layout` out";
        return refused("input.layout", format!("{}, which has no 1, 3 or 4 channels there; {advice}", found()));
    }
    Ok(Image { layout, element, planes: channels.unwrap_or(USUAL_CHANNELS), batch, height, width })
}

fn may_be_channels(side: Option<u32>) -> bool {
    side.is_none_or(|side| CHANNELS.contains(&side))
}

/// The only one that the second and the last dimension allow.
fn certain_layout(second: Option<u32>, fourth: Option<u32>) -> Option<Layout> {
    let is_fixed = |side: Option<u32>| side.is_some() && may_be_channels(side);
    match (is_fixed(second), is_fixed(fourth)) {
        (true, true) => None,
        (true, false) => Some(Layout::Nchw),
        (false, true) => Some(Layout::Nhwc),
        (false, false) => match (second, fourth) {
            (None, Some(_)) => Some(Layout::Nchw),
            (Some(_), None) => Some(Layout::Nhwc),
            _ => None,
        },
    }
}
