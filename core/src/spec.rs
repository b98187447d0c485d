//! What a user asks for: a scenario as written, and the same with its names resolved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    artifact::ArtifactRef,
    execution::{Execution, Precision, ProviderChoice},
    ids::Digest,
    input::{InputOptions, InputSpec},
    limits::ScenarioLimits,
    model_use::ModelUse,
    prediction::PluginIdentity,
    recorded::{Record, Replay, ReplayFrom},
    schemas::{AnyObject, ArtifactName, Labels, Models, Version},
    source_url::{SealedUrl, SourceUrl},
};

/// A scenario as a person writes it. Only `source` and `model` are needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"name": "counting", "source": {"video": "street@1"}, "model": "street@1",
    "plugins": {"post": [{"use": "yolo", "config": {"labels": ["person", "car", "truck"]}},
        {"use": "line-counter", "config": {"line": [[0.5, 0.0], [0.5, 1.0]]}}]}}))]
#[serde(deny_unknown_fields)]
pub struct ScenarioSpec {
    /// For people; need not be unique.
    #[serde(default)]
    #[schema(max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: String,
    pub source: SourceSpec,
    /// `name@version`, `name` (its newest upload) or `sha256:...`.
    pub model: ArtifactRef,
    /// Further models that its hooks run, by the names that the hooks know them by, such as
    /// `{"plate": "lpr@1"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Models)]
    pub models: BTreeMap<String, ModelUse>,
    #[serde(default)]
    pub plugins: PluginChain,
    /// A second chain of post hooks on the same frames, to be compared with the first: see
    /// `GET /scenario/{id}/shadow`. Nothing of it is in the scenario's results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSpec>,
    /// How a frame becomes the model's input; absent fields are what the plugins declare, else
    /// letterbox, centred, RGB, 0..1, padded with 114.
    #[serde(default)]
    pub input: InputOptions,
    #[serde(default)]
    pub on_plugin_failure: OnPluginFailure,
    /// What its hooks may use, within what the operator allows.
    #[serde(default, skip_serializing_if = "ScenarioLimits::is_empty")]
    pub limits: ScenarioLimits,
    /// For people and programs that read scenarios, such as `{"team": "traffic"}`: shown as given. Nothing
    /// compares them with the labels of runners; `placement` is for that.
    #[serde(default)]
    #[schema(value_type = Labels)]
    pub labels: BTreeMap<String, String>,
    /// Labels that its runner must have, each of them, such as `{"gpu": "true"}`; `GET /runner` lists those
    /// that runners have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Labels)]
    pub placement: BTreeMap<String, String>,
    /// Memory that its worker may have, in MiB; estimated from model, input, video and plugins if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 64)]
    pub memory_mib: Option<u32>,
    /// What decodes the video; if absent, what its runner is set to (`--decoder`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Decoder>,
    /// What runs its model; if absent, what its runner is set to (`--provider`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderChoice>,
    /// What its model is computed in; if absent, what its runner is set to (`--precision`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Where its provider cannot be used, its model runs on the processor in f32. If absent, it waits for a
    /// runner that has the provider.
    #[serde(default, skip_serializing_if = "is_false")]
    pub provider_fallback: bool,
    /// How many of its frames are in the model at a time; if absent, what its runner is set to (`--lanes`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Lanes>,
    /// Which frames are worked on; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<Sampling>,
    /// The part of the source that is worked on; all of it if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<TimeRange>,
    /// How many times as fast as its own times say the source may be read, at most: 1 reads it as if it were
    /// live. If absent, it is read as fast as it can be worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.01, maximum = 1000)]
    pub max_speed: Option<f64>,
    /// What is kept besides the predictions: nothing, or the outputs of the model, for `POST
    /// /scenario/{id}/replay`. They are bounded in bytes and age, and the oldest go first.
    #[serde(default, skip_serializing_if = "Record::is_none")]
    pub record: Record,
}

/// How many frames of a scenario are in the model at a time. What it finds does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "it is `auto` or a number from 1 to 64")]
pub enum Lanes {
    /// The runner's cores, shared evenly among its workers, as far as the worker's memory reaches.
    #[default]
    Auto,
    /// So many, as far as the worker's memory reaches.
    #[serde(untagged)]
    Fixed(u32),
}

/// More than one decoder can feed, even where the model takes a hundred times as long as decoding.
pub const MAX_LANES: u32 = 64;

/// A frame every four seconds, of a video with 25 a second; and faster than any decoder.
pub const SPEEDS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;

/// More than any camera gives.
pub const MAX_FPS: f64 = 1000.0;

/// Which of the frames of a source: one of these. Frames keep the number and the time that they have in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Those whose number is a multiple of this: 1 is all of them.
    Every(u32),
    /// At most so many a second: the first one of each span of 1/fps seconds, counted from time 0.
    Fps(f64),
}

/// A part of a source, by the times of its frames in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeRange {
    /// The first frame is that with this time, or the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_us: Option<i64>,
    /// This time and all later ones are no part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Where the frames come from: exactly one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceSpec {
    /// An uploaded video: `name@version`, `name` or `sha256:...`.
    Video(ArtifactRef),
    /// An absolute path on the runner, inside one of its allowed source folders.
    File(String),
    /// A recording that the runner fetches over `http` or `https`. User info and query are secret: they are
    /// sealed, and never shown again.
    Url(SourceUrl),
}

impl SourceSpec {
    /// Whether it holds what only a runner may read.
    pub fn has_secret(&self) -> bool {
        matches!(self, Self::Url(url) if url.has_secret())
    }
}

/// Hooks, each called in the order written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginChain {
    /// Before the inference: may skip a frame or build the model's input.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub pre: Vec<PluginUse>,
    /// After the inference: each sees the tensors and the detections so far.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub post: Vec<PluginUse>,
}

/// Hooks beside those of the scenario, with the limits of those. They see what those see: the frame as the
/// pre hooks left it, the model's outputs, the further models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowSpec {
    /// In place of the scenario's `plugins.post`.
    #[schema(min_items = 1, max_items = 16)]
    pub post: Vec<PluginUse>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginUse {
    /// `name@version`, `name` or `sha256:...`.
    #[serde(rename = "use")]
    pub plugin: ArtifactRef,
    /// The plugin's own settings; its JSON Schema is at `GET /plugin/{name}/{version}`.
    #[serde(default = "empty_object")]
    #[schema(value_type = AnyObject)]
    pub config: serde_json::Value,
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// What becomes of a frame on which a plugin failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnPluginFailure {
    /// The frame has no detections and says why.
    #[default]
    SkipFrame,
    /// Go on as if the plugin were not in the chain; the frame says which one failed.
    RawOutput,
    /// The scenario fails.
    FailScenario,
}

/// What decodes a video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decoder {
    /// FFmpeg's libraries: times, sizes and colours are those of the stream.
    #[default]
    Libav,
    /// OpenCV's `VideoCapture`, as in the first releases. It rounds times to milliseconds and invents those
    /// that it does not know, ends where the picture changes its size, and takes all colours for BT.601.
    Opencv,
}

/// A scenario whose names are digests and whose settings are complete: what a runner gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedScenario {
    pub source: ResolvedSource,
    pub model: ResolvedArtifact,
    pub input: InputSpec,
    /// Further models, by the names that the scenario gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ResolvedModel>,
    pub pre: Vec<ResolvedHook>,
    pub post: Vec<ResolvedHook>,
    /// Post hooks that are compared with those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<ResolvedHook>,
    pub on_plugin_failure: OnPluginFailure,
    #[serde(default, skip_serializing_if = "ScenarioLimits::is_empty")]
    pub limits: ScenarioLimits,
    /// Memory that its worker may have; absent in what older releases made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Null: what its runner is set to.
    #[serde(default = "decoder_of_older_releases")]
    pub decoder: Option<Decoder>,
    /// Absent: what its runner is set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderChoice>,
    /// Absent: what its runner is set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub provider_fallback: bool,
    /// Absent: what its runner is set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Lanes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<Sampling>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<TimeRange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_speed: Option<f64>,
    #[serde(default, skip_serializing_if = "Record::is_none")]
    pub record: Record,
    /// Absent: it is no replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// Releases that had no choice decoded by OpenCV. What they have begun goes on with the times that its rows
/// have.
const fn decoder_of_older_releases() -> Option<Decoder> {
    Some(Decoder::Opencv)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedSource {
    Video(ResolvedArtifact),
    File(String),
    Url(SealedUrl),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedArtifact {
    #[schema(value_type = ArtifactName)]
    pub name: String,
    #[schema(value_type = Version)]
    pub version: String,
    pub digest: Digest,
}

/// A further model of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedModel {
    #[serde(flatten)]
    pub artifact: ResolvedArtifact,
    pub input: InputSpec,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResolvedHook {
    #[serde(flatten)]
    pub identity: PluginIdentity,
    #[schema(value_type = AnyObject)]
    pub config: serde_json::Value,
}

impl ResolvedScenario {
    /// What must run its model, if it leaves nothing of that open.
    pub fn execution(&self) -> Option<Execution> {
        let provider = self.provider?.provider()?;
        (!self.provider_fallback).then(|| Execution { provider, precision: self.precision.unwrap_or_default() })
    }

    /// The replay of recorded outputs that it is: no source is read and no model runs.
    pub fn replay_of_outputs(&self) -> Option<&Replay> {
        self.replay.as_ref().filter(|replay| replay.from == ReplayFrom::Outputs)
    }

    /// Digests of everything a runner has to fetch before it can start.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        let video = match &self.source {
            ResolvedSource::Video(video) => Some(&video.digest),
            ResolvedSource::File(_) | ResolvedSource::Url(_) => None,
        };
        let hooks = self.pre.iter().chain(&self.post).chain(&self.shadow).map(|hook| &hook.identity.digest);
        let models = self.models.values().map(|model| &model.artifact.digest);
        video.into_iter().chain([&self.model.digest]).chain(models).chain(hooks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_scenario_is_a_source_and_a_model() {
        let spec: ScenarioSpec =
            serde_json::from_str(r#"{"source": {"video": "street@1"}, "model": "street@1"}"#).unwrap();
        assert_eq!(spec.on_plugin_failure, OnPluginFailure::SkipFrame);
        assert_eq!(spec.plugins, PluginChain::default());
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ScenarioSpec>(&text).unwrap(), spec);
    }

    /// What that release resolved: all that a later one may leave out is missing.
    fn of_release_0_1_0() -> serde_json::Value {
        let hex = "0".repeat(64);
        serde_json::json!({"source": {"file": "/v.mp4"}, "on_plugin_failure": "skip_frame", "pre": [], "post": [],
            "model": {"name": "m", "version": "1", "digest": format!("sha256:{hex}")},
            "input": {"tensor": "x", "width": 8, "height": 8, "resize": "letterbox", "anchor": "center", "channels": "rgb",
                "pad": 114, "scale": 1.0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}})
    }

    #[test]
    fn what_an_older_release_resolved_goes_on_with_its_decoder() {
        let mut resolved: ResolvedScenario = serde_json::from_value(of_release_0_1_0()).unwrap();
        assert_eq!(resolved.decoder, Some(Decoder::Opencv));
        resolved.decoder = None;
        let written = serde_json::to_value(&resolved).unwrap();
        assert_eq!(serde_json::from_value::<ResolvedScenario>(written).unwrap().decoder, None);
    }

    #[test]
    fn a_scenario_binds_its_runner_to_a_provider_only_where_it_leaves_nothing_open() {
        for (asked, expected) in [
            (serde_json::json!({}), None),
            (serde_json::json!({"provider": "auto", "precision": "bf16"}), None),
            (serde_json::json!({"provider": "openvino"}), Some("openvino in f32")),
            (serde_json::json!({"provider": "openvino", "precision": "bf16"}), Some("openvino in bf16")),
            (serde_json::json!({"provider": "openvino", "provider_fallback": true}), None),
        ] {
            let mut resolved = of_release_0_1_0();
            resolved.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
            let resolved: ResolvedScenario = serde_json::from_value(resolved).unwrap();
            assert_eq!(resolved.execution().map(|execution| execution.to_string()).as_deref(), expected, "{asked}");
            // What is not said is not written either.
            let written = serde_json::to_value(&resolved).unwrap();
            assert_eq!(written.get("provider_fallback").is_some(), asked.get("provider_fallback").is_some());
        }
    }

    #[test]
    fn lanes_are_a_number_or_a_word() {
        for (text, lanes) in [("3", Lanes::Fixed(3)), (r#""auto""#, Lanes::Auto)] {
            assert_eq!(serde_json::from_str::<Lanes>(text).unwrap(), lanes);
            assert_eq!(serde_json::to_string(&lanes).unwrap(), text);
        }
        for bad in ["-1", "1.5", r#""many""#, "null", "[]"] {
            assert!(serde_json::from_str::<Lanes>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scenario_is_written_without_what_its_url_hides() {
        let url = "https://me:s3cret@cameras.example/clip.mp4?token=s3cret";
        let spec: ScenarioSpec =
            serde_json::from_value(serde_json::json!({"source": {"url": url}, "model": "m"})).unwrap();
        assert!(spec.source.has_secret());
        let written = serde_json::to_string(&spec).unwrap();
        assert!(written.contains(r#""source":{"url":"https://cameras.example/clip.mp4"}"#), "{written}");
        assert!(!format!("{spec:?}{written}").contains("s3cret"));
        assert!(!serde_json::from_str::<ScenarioSpec>(&written).unwrap().source.has_secret());
    }

    #[test]
    fn a_misspelt_field_is_not_ignored() {
        for bad in [
            r#"{"source": {"video": "a"}, "model": "m", "plugin": {}}"#,
            r#"{"source": {"video": "a", "file": "/x"}, "model": "m"}"#,
            r#"{"source": {}, "model": "m"}"#,
            r#"{"source": {"video": "a"}, "model": "m", "plugins": {"post": [{"use": "y", "cfg": 1}]}}"#,
            r#"{"source": {"video": "a"}, "model": "m", "input": {"sizes": [1, 2]}}"#,
            r#"{"source": {"video": "a"}, "model": "M M"}"#,
        ] {
            assert!(serde_json::from_str::<ScenarioSpec>(bad).is_err(), "{bad}");
        }
    }
}
