//! What a guest returned, checked, in the engine's own types: each version converts and calls this.

use std::collections::BTreeMap;

use framehook_core::{
    artifact::PluginManifest,
    input::InputOptions,
    prediction::{Attribute, Detection, Event, Mask, Skipped},
    reason::ReasonCode,
};
use wasmtime::component::Resource;

use crate::{
    media::{Decision, Frame, Geometry, Outcome, Tensor},
    sandbox::{Ctx, Failure},
    schema,
};

/// Per frame; far over what a person or a query can use, and it keeps a record below its limit.
const MAX_DETECTIONS: usize = 10_000;
/// Per frame, over all its detections: points of landmarks and outlines, runs of masks.
const MAX_POINTS: usize = 100_000;
/// Per frame.
const MAX_EVENTS: usize = 1_000;
/// Per frame, all texts of its events together, or of its detections.
const MAX_TEXT: usize = 1 << 20;
/// Per frame, over all its events: each about everything that is there would be a mistake.
const MAX_SUBJECTS: usize = 100_000;
/// A sentence.
const MAX_REASON: usize = 1 << 10;
/// The largest public data sets have some 20,000 classes.
const MAX_LABELS: usize = 100_000;
const MAX_LABEL: usize = 256;
/// Cells of a side of a mask; those of segmentation models have some hundred.
const MAX_GRID: u32 = 4_096;

/// What a plugin says of itself that it cannot do.
pub(super) enum PluginError {
    InvalidConfig(String),
    BadInput(String),
    Transient(String),
    Fatal(String),
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        use PluginError as E;
        let (code, text, store_is_lost) = match error {
            E::InvalidConfig(text) => (ReasonCode::PluginIncompatible, text, true),
            E::BadInput(text) | E::Transient(text) => (ReasonCode::PluginError, text, false),
            E::Fatal(text) => (ReasonCode::PluginError, text, true),
        };
        Self { code, message: sentence(text), store_is_lost, is_its_word: true }
    }
}

/// `config_schema` is JSON, if it is what it should be.
pub(super) fn manifest(
    (name, version, abi): (String, String, &str),
    (pre, post): (bool, bool),
    config_schema: &str,
    input: InputOptions,
) -> Result<PluginManifest, Failure> {
    let config_schema = serde_json::from_str(config_schema)
        .map_err(|e| Failure::unusable_result(format!("`config-schema` is not JSON: {e}")))?;
    let numbers =
        input.scale.into_iter().chain(input.mean.into_iter().flatten()).chain(input.std.into_iter().flatten());
    if numbers.into_iter().any(|n| !n.is_finite()) {
        return Err(Failure::unusable_result("`input` has a number that is not finite"));
    }
    let defaults = schema::defaults(&config_schema);
    let (abi, capabilities) = (abi.into(), Vec::new());
    Ok(PluginManifest {
        name,
        version,
        abi,
        pre,
        post,
        config_schema,
        input,
        capabilities,
        defaults,
        instantiation_us: None,
    })
}

pub(super) fn labels(labels: Vec<String>) -> Result<Vec<String>, Failure> {
    if labels.len() > MAX_LABELS || labels.iter().any(|l| l.len() > MAX_LABEL) {
        return Err(Failure::unusable_result(format!(
            "`init` gave {} labels; at most {MAX_LABELS} of {MAX_LABEL} bytes are allowed",
            labels.len()
        )));
    }
    Ok(labels)
}

pub(super) fn skip(reason: String, ctx: &Ctx) -> Decision {
    Decision::Skip(Skipped { by: ctx.logger.plugin.clone(), reason: sentence(reason) })
}

/// The tensor of a handle that the guest gave, as the model's input.
pub(super) fn prepared(
    tensor: Resource<Tensor>,
    geometry: Geometry,
    ctx: &mut Ctx,
    frame: &Frame<'_>,
) -> Result<Decision, Failure> {
    let tensor = ctx.table.delete(tensor).map_err(|e| Failure::unusable_result(e.to_string()))?;
    ctx.tensor_bytes -= size_of_val(tensor.data.as_slice());
    let wanted = [1, frame.input_planes, frame.input_size.height, frame.input_size.width];
    if tensor.shape != wanted {
        return Err(Failure::unusable_result(format!(
            "prepared a tensor of shape {:?}, but the model's input is {wanted:?}",
            tensor.shape
        )));
    }
    let Geometry { scale_x, scale_y, pad_x, pad_y } = geometry;
    if ![scale_x, scale_y].iter().all(|s| s.is_normal()) || !pad_x.is_finite() || !pad_y.is_finite() {
        return Err(Failure::unusable_result("prepared a geometry that maps nothing"));
    }
    Ok(Decision::Infer(tensor, geometry))
}

pub(super) fn outcome(detections: Vec<Detection>, events: Vec<Event>) -> Result<Outcome, Failure> {
    let points: usize = detections.iter().map(points).sum();
    let text: usize = detections.iter().map(|d| text(&d.attributes) + d.label.as_ref().map_or(0, String::len)).sum();
    if detections.len() > MAX_DETECTIONS || points > MAX_POINTS || text > MAX_TEXT {
        return Err(Failure::unusable_result(format!(
            "returned {} detections with {points} points and {text} bytes of text; at most {MAX_DETECTIONS}, \
             {MAX_POINTS} and {MAX_TEXT} are allowed",
            detections.len()
        )));
    }
    let events = self::events(events, detections.len())?;
    Ok(Outcome { detections, events })
}

fn points(d: &Detection) -> usize {
    d.keypoints.len() + d.polygon.len() + d.mask.as_ref().map_or(0, |mask| mask.runs.len())
}

fn text(attributes: &BTreeMap<String, Attribute>) -> usize {
    let value = |value: &Attribute| match value {
        Attribute::Text(text) => text.len(),
        Attribute::Number(_) => size_of::<f64>(),
        Attribute::Numbers(numbers) => size_of_val(&numbers[..]),
    };
    attributes.iter().map(|(key, attribute)| key.len() + value(attribute)).sum()
}

/// `detections` is how many there are that an event can be about.
pub(super) fn events(events: Vec<Event>, detections: usize) -> Result<Vec<Event>, Failure> {
    let id = |e: &Event| e.episode.as_ref().map_or(0, |episode| episode.id.len());
    let total: usize = events.iter().map(|e| e.kind.len() + text(&e.attributes) + id(e)).sum();
    let (count, subjects) = (events.len(), events.iter().map(|e| e.subjects.len()).sum::<usize>());
    if count > MAX_EVENTS || total > MAX_TEXT || subjects > MAX_SUBJECTS {
        return Err(Failure::unusable_result(format!(
            "returned {count} events with {total} bytes of text and {subjects} subjects; at most {MAX_EVENTS}, \
             {MAX_TEXT} and {MAX_SUBJECTS} are allowed"
        )));
    }
    for event in &events {
        if let Some(bad) = event.subjects.iter().find(|s| **s as usize >= detections) {
            return Err(Failure::unusable_result(format!(
                "event `{}` is about detection {bad}, but there are {detections}",
                sentence(event.kind.clone())
            )));
        }
    }
    Ok(events)
}

/// # Errors
/// When a key occurs twice: nobody could tell which of the values is meant.
pub(super) fn attributes(
    what: &str,
    given: impl Iterator<Item = (String, Attribute)>,
) -> Result<BTreeMap<String, Attribute>, Failure> {
    let mut attributes = BTreeMap::new();
    for (key, value) in given {
        if attributes.contains_key(&key) {
            let message = format!("{what} has the attribute `{}` twice", sentence(key));
            return Err(Failure::unusable_result(message));
        }
        attributes.insert(key, value);
    }
    Ok(attributes)
}

/// # Errors
/// When the runs are not the grid.
pub(super) fn mask(grid: [u32; 2], runs: Vec<u32>) -> Result<Mask, Failure> {
    let (cells, [width, height]) = (runs.iter().map(|run| u64::from(*run)).sum::<u64>(), grid);
    if width.max(height) > MAX_GRID {
        return Err(Failure::unusable_result(format!(
            "a mask has a grid of {width}x{height}; at most {MAX_GRID} a side"
        )));
    }
    if cells != u64::from(width) * u64::from(height) {
        return Err(Failure::unusable_result(format!(
            "a mask has runs of {cells} cells together, but a grid of {width}x{height}"
        )));
    }
    Ok(Mask { grid, runs })
}

/// A guest's text, short enough for a row and a log.
pub(super) fn sentence(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_REASON));
    text
}

/// Conversions of what all versions have alike. To be called where `types` and `media` are that version's.
macro_rules! common_results {
    ($version:literal) => {
        fn failure(error: types::PluginError) -> Failure {
            use types::PluginError as E;
            match error {
                E::InvalidConfig(text) => PluginError::InvalidConfig(text),
                E::BadInput(text) => PluginError::BadInput(text),
                E::Transient(text) => PluginError::Transient(text),
                E::Fatal(text) => PluginError::Fatal(text),
            }
            .into()
        }

        fn input_options(i: types::InputOptions) -> InputOptions {
            let triple = |(a, b, c): (f32, f32, f32)| [a, b, c];
            InputOptions {
                tensor: i.tensor,
                size: i.size.map(|s| [s.width, s.height]),
                resize: i.resize.map(|r| match r {
                    types::Resize::Letterbox => Resize::Letterbox,
                    types::Resize::Stretch => Resize::Stretch,
                }),
                anchor: i.anchor.map(|a| match a {
                    types::Anchor::Center => Anchor::Center,
                    types::Anchor::TopLeft => Anchor::TopLeft,
                }),
                channels: i.channels.map(|c| match c {
                    types::Channels::Rgb => Channels::Rgb,
                    types::Channels::Bgr => Channels::Bgr,
                }),
                pad: i.pad,
                scale: i.scale,
                mean: i.mean.map(triple),
                std: i.std.map(triple),
                ..InputOptions::default()
            }
        }

        fn manifest(d: types::Descriptor, stages: (bool, bool)) -> Result<PluginManifest, Failure> {
            results::manifest((d.name, d.version, $version), stages, &d.config_schema, input_options(d.input))
        }

        fn problems(verdict: Result<(), Vec<types::ConfigProblem>>) -> Vec<ConfigProblem> {
            let Err(problems) = verdict else { return Vec::new() };
            if problems.is_empty() {
                return vec![ConfigProblem::new("", "the plugin refused it and did not say why")];
            }
            problems.iter().take(MAX_FINDINGS).map(|p| ConfigProblem::new(&p.path, &p.message)).collect()
        }

        fn decision(d: media::Decision, ctx: &mut Ctx, frame: &Frame<'_>) -> Result<Decision, Failure> {
            match d {
                media::Decision::Pass => Ok(Decision::Pass),
                media::Decision::Skip(reason) => Ok(results::skip(reason, ctx)),
                media::Decision::Infer(prepared) => {
                    results::prepared(prepared.tensor, prepared.geometry.into(), ctx, frame)
                }
            }
        }

        fn severity(severity: types::Severity) -> Severity {
            match severity {
                types::Severity::Info => Severity::Info,
                types::Severity::Warning => Severity::Warning,
                types::Severity::Critical => Severity::Critical,
            }
        }

        fn bbox(&[x, y, width, height]: &[f32; 4]) -> types::Bbox {
            types::Bbox { x, y, width, height }
        }

        fn points(points: &[[f32; 2]]) -> Vec<types::Point> {
            points.iter().map(|&[x, y]| types::Point { x, y }).collect()
        }

        fn from_points(points: Vec<types::Point>) -> Vec<[f32; 2]> {
            points.into_iter().map(|p| [p.x, p.y]).collect()
        }
    };
}
pub(super) use common_results;
