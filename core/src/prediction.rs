//! What Framehook says about one frame.
//!
//! A prediction is identified by `(scenario_id, pts_us)`: a frame that is delivered again or
//! computed again lands on its own row.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    artifact::ArtifactRef,
    execution::Execution,
    ids::{Digest, Generation, ScenarioId},
    reason::Reason,
    schemas::{ArtifactName, Point, Version},
    spec::Decoder,
};

/// Everything known about one frame: also the row stored for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Prediction {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// Presentation time in microseconds: from the start of a file, or since the Unix epoch for a
    /// live source.
    pub pts_us: i64,
    /// Number of the frame in its source, from 0.
    pub frame: u64,
    /// Frames of the source directly before this one that the scenario did not ask for.
    #[serde(default, skip_serializing_if = "is_none")]
    pub left_out: u64,
    /// Width and height of the frame in pixels, as it is shown; absent in what older releases wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 2, max_items = 2)]
    pub size: Option<[u32; 2]>,
    /// A pure function of the identity: for a file, the time at which the scenario was posted (not that at
    /// which the file was recorded) plus `pts_us`.
    #[schema(value_type = String, format = DateTime)]
    pub captured_at: Timestamp,
    pub detections: Vec<Detection>,
    pub events: Vec<Event>,
    /// Why this frame has no detections, if a hook skipped it or failed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
    /// Hooks that failed on this frame, in the order they were called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hook_failures: Vec<HookFailure>,
    pub timings: FrameTimings,
    pub provenance: Provenance,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_none(frames: &u64) -> bool {
    *frames == 0
}

/// One object found on a frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Detection {
    pub class_id: u32,
    /// Name of the class, where a plugin named its classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Confidence, 0 to 1; one outside of that is cut to it.
    pub score: f32,
    /// `[x, y, width, height]`, normalised to 0..1 of the original frame, and cut to it. A detection with a
    /// number that is not finite, or of whose box nothing lies in the frame, is dropped.
    #[serde(rename = "box")]
    #[schema(min_items = 4, max_items = 4)]
    pub bbox: [f32; 4],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_id: Option<u64>,
    /// Landmarks `[x, y]`, normalised like the box, in the order the plugin documents. They may lie outside
    /// of the frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Point>)]
    pub keypoints: Vec<[f32; 2]>,
    /// The object's outline, normalised like the box.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Point>)]
    pub polygon: Vec<[f32; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
    /// What else the plugins say of it, in their own words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Attribute>,
}

/// What a plugin says of a detection or an event: a text, a number or a list of numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Attribute {
    Text(String),
    Number(#[serde(serialize_with = "number")] f64),
    Numbers(#[serde(serialize_with = "numbers")] Vec<f64>),
}

/// As a person reads it.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Numbers(numbers) => write!(f, "{numbers:?}"),
        }
    }
}

/// The largest whole number up to which all are floats.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// A count is written as one: `3`, not `3.0`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() < WHOLE {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

fn numbers<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(numbers.iter().map(|number| Attribute::Number(*number)))
}

/// Which cells of a grid over a detection's box belong to the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mask {
    /// Columns and rows.
    #[schema(min_items = 2, max_items = 2)]
    pub grid: [u32; 2],
    /// Lengths of the runs of cells, row by row from the top left: first one outside of the object, which may
    /// be 0, then one inside, and so on. Together they are the whole grid.
    pub runs: Vec<u32>,
}

/// What several events tell of, such as a person's stay in a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Episode {
    /// The same in each event of it.
    pub id: String,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    New,
    Update,
    End,
}

/// Something that happened, as a post hook saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// What happened, in the plugin's own words, such as `line_crossed`.
    pub kind: String,
    pub severity: Severity,
    /// Indices into the frame's detections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Attribute>,
    /// Absent: the event stands for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<Episode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

/// A frame without an inference, and whose decision that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Skipped {
    /// The plugin, as `name@version`.
    pub by: String,
    pub reason: String,
}

/// A hook that failed on a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookFailure {
    /// The plugin, as `name@version`.
    pub plugin: String,
    #[serde(flatten)]
    pub reason: Reason,
}

/// Where the time of one frame went, in microseconds of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrameTimings {
    pub decode_us: u32,
    /// Pre hooks and the native preprocessing.
    pub pre_us: u32,
    pub inference_us: u32,
    pub post_us: u32,
}

/// Which bytes produced a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Provenance {
    pub model: Digest,
    /// Further models, by the names that hooks know them by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, Digest>,
    /// Pre hooks, then post hooks, in the order they were called.
    pub plugins: Vec<PluginIdentity>,
    /// Revision of the scenario's settings, from 1.
    pub revision: i64,
    /// What decoded the frame; absent in what older releases wrote, which had OpenCV.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Decoder>,
    /// What ran the model; absent in what older releases wrote, which had the processor in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginIdentity {
    #[schema(value_type = ArtifactName)]
    pub name: String,
    #[schema(value_type = Version)]
    pub version: String,
    pub digest: Digest,
}

impl PluginIdentity {
    /// How a scenario names it in exactly this version.
    #[must_use]
    pub fn reference(&self) -> ArtifactRef {
        ArtifactRef::Version { name: self.name.clone(), version: self.version.clone() }
    }
}

/// The last frame of a scenario that is safely stored: where a file resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct Position {
    pub pts_us: i64,
    pub frame: u64,
}
