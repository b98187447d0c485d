//! What a guest returned, checked and converted.

use framehook_core::{
    artifact::PluginManifest,
    input::{Anchor, Channels, InputOptions, Resize},
    prediction::{Detection, Event, Severity, Skipped},
    probe::{ConfigProblem, MAX_FINDINGS},
    reason::ReasonCode,
};

use super::bindings::framehook::plugin::{media, types};
use crate::{
    abi,
    media::{Decision, Frame, Outcome},
    sandbox::{Ctx, Failure},
};

/// Per frame; far over what a person or a query can use, and it keeps a record below its limit.
const MAX_DETECTIONS: usize = 10_000;
/// Per frame, over all its detections.
const MAX_KEYPOINTS: usize = 100_000;
/// Per frame.
const MAX_EVENTS: usize = 1_000;
/// Per frame, all texts of its events together.
const MAX_EVENT_TEXT: usize = 1 << 20;
/// Per frame, over all its events: each about everything that is there would be a mistake.
const MAX_SUBJECTS: usize = 100_000;
/// A sentence.
const MAX_REASON: usize = 1 << 10;
/// The largest public data sets have some 20,000 classes.
const MAX_LABELS: usize = 100_000;
const MAX_LABEL: usize = 256;

pub(super) fn plugin_error(error: types::PluginError) -> Failure {
    use types::PluginError as E;
    let (code, text, store_is_lost) = match error {
        E::InvalidConfig(text) => (ReasonCode::PluginIncompatible, text, true),
        E::BadInput(text) | E::Transient(text) => (ReasonCode::PluginError, text, false),
        E::Fatal(text) => (ReasonCode::PluginError, text, true),
    };
    Failure { code, message: sentence(text), store_is_lost }
}

pub(super) fn manifest(d: types::Descriptor, pre: bool, post: bool) -> Result<PluginManifest, Failure> {
    let config_schema = serde_json::from_str(&d.config_schema)
        .map_err(|e| Failure::unusable_result(format!("`config-schema` is not JSON: {e}")))?;
    let i = d.input;
    let triple = |(a, b, c): (f32, f32, f32)| [a, b, c];
    let input = InputOptions {
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
    };
    let numbers =
        input.scale.into_iter().chain(input.mean.into_iter().flatten()).chain(input.std.into_iter().flatten());
    if numbers.into_iter().any(|n| !n.is_finite()) {
        return Err(Failure::unusable_result("`input` has a number that is not finite"));
    }
    Ok(PluginManifest { name: d.name, version: d.version, abi: abi::NEWEST.into(), pre, post, config_schema, input })
}

pub(super) fn problems(verdict: Result<(), Vec<types::ConfigProblem>>) -> Vec<ConfigProblem> {
    let Err(problems) = verdict else { return Vec::new() };
    if problems.is_empty() {
        return vec![ConfigProblem::new("", "the plugin refused it and did not say why")];
    }
    problems.iter().take(MAX_FINDINGS).map(|p| ConfigProblem::new(&p.path, &p.message)).collect()
}

pub(super) fn labels(ready: types::Ready) -> Result<Vec<String>, Failure> {
    if ready.labels.len() > MAX_LABELS || ready.labels.iter().any(|l| l.len() > MAX_LABEL) {
        return Err(Failure::unusable_result(format!(
            "`init` gave {} labels; at most {MAX_LABELS} of {MAX_LABEL} bytes are allowed",
            ready.labels.len()
        )));
    }
    Ok(ready.labels)
}

pub(super) fn decision(d: media::Decision, ctx: &mut Ctx, frame: &Frame<'_>) -> Result<Decision, Failure> {
    match d {
        media::Decision::Pass => Ok(Decision::Pass),
        media::Decision::Skip(reason) => {
            Ok(Decision::Skip(Skipped { by: ctx.logger.plugin.clone(), reason: sentence(reason) }))
        }
        media::Decision::Infer(prepared) => {
            let tensor = ctx.table.delete(prepared.tensor).map_err(|e| Failure::unusable_result(e.to_string()))?;
            ctx.tensor_bytes -= size_of_val(tensor.data.as_slice());
            let wanted = [1, frame.input_planes, frame.input_size.height, frame.input_size.width];
            if tensor.shape != wanted {
                return Err(Failure::unusable_result(format!(
                    "prepared a tensor of shape {:?}, but the model's input is {wanted:?}",
                    tensor.shape
                )));
            }
            let g = prepared.geometry;
            if ![g.scale_x, g.scale_y].iter().all(|s| s.is_normal()) || !g.pad_x.is_finite() || !g.pad_y.is_finite() {
                return Err(Failure::unusable_result("prepared a geometry that maps nothing"));
            }
            Ok(Decision::Infer(tensor, g))
        }
    }
}

pub(super) fn outcome(o: types::Outcome) -> Result<Outcome, Failure> {
    let keypoints: usize = o.detections.iter().map(|d| d.keypoints.len()).sum();
    if o.detections.len() > MAX_DETECTIONS || keypoints > MAX_KEYPOINTS {
        return Err(Failure::unusable_result(format!(
            "returned {} detections with {keypoints} keypoints; at most {MAX_DETECTIONS} and {MAX_KEYPOINTS} are allowed",
            o.detections.len()
        )));
    }
    let detections: Vec<_> = o.detections.into_iter().map(from_guest).collect();
    let events = events(o.events, detections.len())?;
    Ok(Outcome { detections, events })
}

/// `detections` is how many there are that an event can be about.
pub(super) fn events(events: Vec<types::Event>, detections: usize) -> Result<Vec<Event>, Failure> {
    let text = |e: &types::Event| e.kind.len() + e.attributes.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    let (count, total) = (events.len(), events.iter().map(text).sum::<usize>());
    let subjects: usize = events.iter().map(|e| e.subjects.len()).sum();
    if count > MAX_EVENTS || total > MAX_EVENT_TEXT || subjects > MAX_SUBJECTS {
        return Err(Failure::unusable_result(format!(
            "returned {count} events with {total} bytes of text and {subjects} subjects; at most {MAX_EVENTS}, \
             {MAX_EVENT_TEXT} and {MAX_SUBJECTS} are allowed"
        )));
    }
    let convert = |e: types::Event| {
        if let Some(bad) = e.subjects.iter().find(|s| **s as usize >= detections) {
            return Err(Failure::unusable_result(format!(
                "event `{}` is about detection {bad}, but there are {detections}",
                sentence(e.kind)
            )));
        }
        let severity = match e.severity {
            types::Severity::Info => Severity::Info,
            types::Severity::Warning => Severity::Warning,
            types::Severity::Critical => Severity::Critical,
        };
        Ok(Event { kind: e.kind, severity, subjects: e.subjects, attributes: e.attributes.into_iter().collect() })
    };
    events.into_iter().map(convert).collect()
}

pub(super) fn to_guest(d: &Detection) -> types::Detection {
    let [x, y, width, height] = d.bbox;
    types::Detection {
        class_id: d.class_id,
        score: d.score,
        bbox: types::Bbox { x, y, width, height },
        track_id: d.track_id,
        keypoints: d.keypoints.iter().map(|&[x, y]| types::Point { x, y }).collect(),
    }
}

/// Without its label, which does not cross the boundary.
fn from_guest(d: types::Detection) -> Detection {
    Detection {
        class_id: d.class_id,
        label: None,
        score: d.score,
        bbox: [d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height],
        track_id: d.track_id,
        keypoints: d.keypoints.into_iter().map(|p| [p.x, p.y]).collect(),
    }
}

/// A guest's text, short enough for a row and a log.
fn sentence(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_REASON));
    text
}
