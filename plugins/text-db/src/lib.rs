//! Lines of text out of the probability map of a DB text detector: Liao et al., "Real-time Scene Text
//! Detection with Differentiable Binarization", 2020, as in the detectors of PaddleOCR.
//!
//! Each region of the map above a threshold is a line. Its box is the smallest rectangle around it, turned as
//! the line is, and grown by what the model was taught to leave out.

mod rect;
mod regions;
#[cfg(test)]
mod tests;

use framehook_sdk::{
    Anchor, Bbox, Channels, ConfigProblem, Detection, Error, Geometry, Hook, Inference, InputOptions, Outcome,
    PostHook, Resize, Size, Stream, TensorDesc, default_input,
    geometry::{box_to_frame, to_frame},
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    rect::{Point, Rect, hull},
    regions::regions,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// A pixel of the map above this belongs to a text.
    #[schemars(range(min = 0.0, max = 1.0))]
    threshold: f64,
    /// Texts whose mean in the map is lower are dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// How much a box grows: by this share of its area over its perimeter, on each side.
    #[schemars(range(min = 0.0, max = 10.0))]
    unclip: f64,
    /// Name of the output with the map, if more than one could be it.
    output: Option<String>,
}

impl Default for Config {
    /// Those of PaddleOCR's detectors.
    fn default() -> Self {
        Self { threshold: 0.3, min_score: 0.6, unclip: 1.5, output: None }
    }
}

/// Regions that are looked at; a page of small print has fewer.
const MAX_REGIONS: usize = 1_000;
/// Pixels of the map; what is narrower is noise. As in PaddleOCR.
const MIN_SIDE: f32 = 3.0;
/// The same of the grown box.
const MIN_GROWN_SIDE: f32 = 5.0;
/// How far a probability may be from 0 to 1 for the rounding of a model's last step.
const ROUNDING: f32 = 1e-3;

struct TextDb(Config);

impl Hook for TextDb {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        Ok(Self(config))
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let checks = [
            ((0.0..=1.0).contains(&config.threshold), "/threshold", "must be 0 to 1"),
            ((0.0..=1.0).contains(&config.min_score), "/min_score", "must be 0 to 1"),
            ((0.0..=10.0).contains(&config.unclip), "/unclip", "must be 0 to 10"),
        ];
        let problem =
            |(_, path, message): (bool, &str, &str)| ConfigProblem { path: path.into(), message: message.into() };
        checks.into_iter().filter(|(good, ..)| !good).map(problem).collect()
    }

    /// As PaddleOCR's detectors want it: the means of ImageNet, in the order of OpenCV's channels.
    fn input() -> InputOptions {
        InputOptions {
            resize: Some(Resize::Letterbox),
            anchor: Some(Anchor::TopLeft),
            channels: Some(Channels::Bgr),
            pad: Some(0),
            scale: Some(1.0 / 255.0),
            mean: Some((0.485, 0.456, 0.406)),
            std: Some((0.229, 0.224, 0.225)),
            ..default_input()
        }
    }

    fn labels(&self) -> Vec<String> {
        vec!["text".into()]
    }
}

impl PostHook for TextDb {
    fn postprocess(&mut self, inference: &Inference, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        let (output, [height, width]) =
            find_map(&inference.outputs(), self.0.output.as_deref()).map_err(Error::InvalidConfig)?;
        let values = inference.read_f32(output, 0, height * width)?;
        let input = inference.input_size();
        let scale = [input.width as f32 / width as f32, input.height as f32 / height as f32];
        let (geometry, frame) = (inference.geometry(), inference.meta().size);
        let texts = find(&values, width as usize, &self.0).map_err(Error::InvalidConfig)?;
        let found = texts.into_iter().filter_map(|text| detection(&text, scale, &geometry, frame));
        detections.extend(found);
        Ok(Outcome { detections, events: Vec::new() })
    }
}

/// Number, height and width of the output with the map.
fn find_map(outputs: &[TensorDesc], name: Option<&str>) -> Result<(u32, [u32; 2]), String> {
    let is_map = |output: &TensorDesc| match output.shape[..] {
        [1, 1, height, width] if height > 0 && width > 0 => Some([height, width]),
        _ => None,
    };
    let candidates = (0..).zip(outputs).filter(|(_, output)| name.is_none_or(|name| output.name == name));
    let mut maps = candidates.filter_map(|(index, output)| is_map(output).map(|size| (index, size)));
    match (maps.next(), maps.next()) {
        (Some(map), None) => Ok(map),
        (first, _) => {
            let shapes: Vec<_> = outputs.iter().map(|o| format!("`{}` {:?}", o.name, o.shape)).collect();
            let problem = if first.is_some() { "several outputs have" } else { "no output has" };
            let which = name.map_or_else(String::new, |name| format!(" and the name `{name}`"));
            let remedy = if first.is_some() { "; `output` says which is meant" } else { "" };
            Err(format!(
                "{problem} the shape [1, 1, height, width] of a probability map{which}: {}{remedy}",
                shapes.join(", ")
            ))
        }
    }
}

/// A line of text: corners in pixels of the map, from its top left on, clockwise.
#[derive(Debug)]
struct Text {
    corners: [Point; 4],
    score: f32,
}

fn find(values: &[f32], width: usize, config: &Config) -> Result<Vec<Text>, String> {
    let is_logit = |value: &&f32| !(-ROUNDING..=1.0 + ROUNDING).contains(*value) && value.is_finite();
    if let Some(value) = values.iter().find(is_logit) {
        return Err(format!("the map has the value {value}, which is no probability; the model lacks its sigmoid"));
    }
    let text = |rows: Vec<Point>| {
        let rect = Rect::around(&hull(&rows)).filter(|rect| is_wide(rect, MIN_SIDE))?;
        let score = rect.mean(values, width);
        let grown = rect.unclipped(config.unclip as f32);
        let is_text = f64::from(score) >= config.min_score && is_wide(&grown, MIN_GROWN_SIDE);
        is_text.then(|| Text { corners: grown.corners(), score })
    };
    Ok(regions(values, width, config.threshold as f32, MAX_REGIONS).into_iter().filter_map(text).collect())
}

fn is_wide(rect: &Rect, least: f32) -> bool {
    rect.sides().iter().all(|side| *side >= least)
}

/// On the frame; `scale` is from the map to the model's input.
fn detection(text: &Text, scale: [f32; 2], geometry: &Geometry, frame: Size) -> Option<Detection> {
    // A pixel is where its middle is.
    let corners = text.corners.map(|[x, y]| [(x + 0.5) * scale[0], (y + 0.5) * scale[1]]);
    let bound =
        |axis: usize, better: fn(f32, f32) -> f32| corners.map(|corner| corner[axis]).into_iter().reduce(better);
    let upright = [bound(0, f32::min)?, bound(1, f32::min)?, bound(0, f32::max)?, bound(1, f32::max)?];
    let bbox: Bbox = box_to_frame(geometry, frame, upright)?;
    let polygon = corners.map(|[x, y]| to_frame(geometry, frame, x, y)).to_vec();
    Some(Detection { polygon, ..Detection::new(0, text.score.clamp(0.0, 1.0), bbox) })
}

framehook_sdk::export!(post: TextDb);
