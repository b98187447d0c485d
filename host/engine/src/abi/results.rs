//! What a guest returned, checked, in the engine's own types: each version converts and calls this.

use framehook_core::{artifact::PluginManifest, input::InputOptions, prediction::Skipped, reason::ReasonCode};
use wasmtime::component::Resource;

use crate::{
    media::{Decision, Frame, Geometry, Tensor},
    returned::{Unusable, sentence},
    sandbox::{Ctx, Failure},
    schema,
};

/// The largest public data sets have some 20,000 classes.
const MAX_LABELS: usize = 100_000;
const MAX_LABEL: usize = 256;
/// What a plugin says of itself that it cannot do.
pub(super) enum PluginError {
    InvalidConfig(String),
    BadInput(String),
    Transient(String),
    Fatal(String),
}

impl From<Unusable> for Failure {
    fn from(Unusable(words): Unusable) -> Self {
        Self::unusable_result(words)
    }
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
