//! The conversation between a runner and one worker process, over the worker's stdin and stdout.
//!
//! Every record is a 4-byte little-endian length followed by that many bytes of JSON. The runner
//! sends one [`Job`] and later perhaps a [`Control`]; the worker answers with [`Report`]s. When
//! either end of the pipe closes, the worker ends. A worker holds no credentials: everything
//! it may touch is named in its job, as a path.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::PathBuf,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{
    execution::Execution,
    hook_state::{HookState, USUAL_HOOK},
    hook_stats::HookStats,
    ids::{Digest, Generation, ScenarioId},
    input::InputSpec,
    log_budget::LogLimits,
    prediction::{Attribute, PluginIdentity, Position, Provenance},
    prediction_record::PredictionRecord,
    reason::Reason,
    scenario_log::PLATFORM,
    shadow::ShadowReport,
    size::MAX_PREDICTION,
    spec::{Decoder, OnPluginFailure, Sampling, TimeRange, is_false},
};

/// A record longer than this is a broken stream, not a job: its configurations alone may have a MiB
/// where the operator wants it so. What a worker sends is bounded by its runner, more narrowly.
pub const MAX_RECORD: usize = 16 << 20;

/// Everything a worker needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub scenario_id: ScenarioId,
    pub generation: Generation,
    /// Creation time of the scenario: `captured_at` of a frame is this plus its `pts_us`.
    pub created_at: Timestamp,
    /// A video file; none if it is a replay of outputs.
    pub source: PathBuf,
    pub decoder: Decoder,
    /// Which of its frames are worked on.
    pub frames: Option<Sampling>,
    pub range: Option<TimeRange>,
    /// How many times as fast as its own times say the source may be read, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_speed: Option<f64>,
    /// Pixels of a side of its pictures, at most.
    #[serde(default = "default_picture_side")]
    pub max_picture_side: u32,
    /// An ONNX model, already verified; none if it is a replay of outputs.
    pub model: PathBuf,
    pub input: InputSpec,
    /// Whether the model's outputs are to be reported, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record: bool,
    /// Recorded outputs that take the place of source and model, in their order; empty if it is no replay of
    /// outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replay: Vec<PartFile>,
    /// Further models, which hooks run, by the names that the scenario gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelJob>,
    pub pre: Vec<HookJob>,
    pub post: Vec<HookJob>,
    /// Post hooks that are compared with those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<HookJob>,
    pub on_plugin_failure: OnPluginFailure,
    pub limits: HookLimits,
    /// What of memory it may have for its own: the worker holds itself to it before it opens anything,
    /// because by then nobody else may. `None`: what it was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    pub patience: Patience,
    /// Frames up to and including this one are stored already; go on behind it.
    pub resume_after: Option<Position>,
    /// What the hooks kept, as of that frame.
    #[serde(default)]
    pub state: HookState,
    pub provenance: Provenance,
    /// What runs the model.
    #[serde(default)]
    pub execution: Execution,
    /// Options of that provider, in ONNX Runtime's own words.
    #[serde(default)]
    pub provider_options: BTreeMap<String, String>,
    /// Threads of one inference. 1 is fastest for many streams; see `bench/README.md`.
    pub intra_threads: usize,
    /// Frames that may be in the model at a time, until [`Control::Lanes`] says otherwise.
    #[serde(default = "one")]
    pub lanes: u32,
    /// The ONNX Runtime shared library, with the provider in it or beside it.
    pub onnxruntime: PathBuf,
    /// A folder of its own, in which it finds the plugins of later changes; `None`: there will be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later_plugins: Option<PathBuf>,
}

const fn one() -> u32 {
    1
}

/// The largest video that the codecs in use define is 8K UHD, 7,680 x 4,320 pixels; a picture of this size
/// takes 192 MiB.
pub const DEFAULT_PICTURE_SIDE: u32 = 8_192;

const fn default_picture_side() -> u32 {
    DEFAULT_PICTURE_SIDE
}

/// A file of recorded outputs, already verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    pub path: PathBuf,
    /// Frames from this time on are not read from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
}

/// A further model of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelJob {
    /// An ONNX model, already verified.
    pub model: PathBuf,
    pub input: InputSpec,
}

/// One plugin of a job: code compiled by the runner, never by the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookJob {
    pub identity: PluginIdentity,
    /// A component compiled for exactly this machine and engine.
    pub compiled: PathBuf,
    /// The digest of that file, as it was when the runner recognised it as its own.
    pub digest: Digest,
    pub config: serde_json::Value,
}

/// What one plugin may use. Breaking a limit costs the plugin its instance, never the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookLimits {
    /// `init` may build tables; two seconds is long enough for any that start a stream.
    pub init_ms: u64,
    /// `describe` and `validate-config` only look at text.
    pub describe_ms: u64,
    /// A hook: half a frame at 25 frames a second.
    pub call_ms: u64,
    /// Further models that one call runs, together: half of the time that a frame has until its worker is
    /// given up.
    pub model_ms: u64,
    /// Linear memory of one instance, all its memories together.
    pub memory_bytes: usize,
    /// Keys and values that a hook keeps, as far as all hooks have room.
    #[serde(default = "usual_state")]
    pub state_bytes: usize,
    /// One prediction as JSON: a hook that makes it larger has failed on the frame.
    pub prediction_bytes: usize,
    /// The lines of all hooks of a scenario together.
    pub log: LogLimits,
}

const fn usual_state() -> usize {
    USUAL_HOOK
}

impl Default for HookLimits {
    fn default() -> Self {
        Self {
            init_ms: 2000,
            describe_ms: 250,
            call_ms: 20,
            model_ms: 5000,
            memory_bytes: 64 << 20,
            state_bytes: USUAL_HOOK,
            prediction_bytes: MAX_PREDICTION,
            log: LogLimits::default(),
        }
    }
}

/// How long the model may take. A library cannot be interrupted inside an operator, so a worker whose model
/// takes longer says so and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// Reading it and making a session of it.
    pub load_ms: u64,
    /// Its first inference, before any frame.
    pub first_ms: u64,
    /// Each inference of a frame.
    pub frame_ms: u64,
}

/// Another revision of a job's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub revision: i64,
    /// `None`: what hooks do is the same.
    pub hooks: Option<Box<NewHooks>>,
}

/// All hooks of a job in the place of others. `compiled` of each is the name of a file in the job's folder of
/// later plugins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewHooks {
    pub pre: Vec<HookJob>,
    pub post: Vec<HookJob>,
    pub on_plugin_failure: OnPluginFailure,
    pub limits: HookLimits,
    /// They begin with nothing kept.
    pub fresh: bool,
}

/// From the runner, after the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Control {
    /// Finish the frames in flight, report [`Report::Ended`], exit.
    Stop,
    /// So many frames may be in the model at a time from now on.
    Lanes { lanes: u32 },
    /// Go on with other settings from one of the next frames on; see [`Report::Changed`].
    Change(Change),
}

/// From the worker, which writes a frame as [`Prediction`](crate::prediction::Prediction); its runner passes
/// on the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report<Frame = PredictionRecord> {
    /// The source is open, the model and the plugins are loaded.
    Ready(Ready),
    /// So many frames of the source were damaged so far.
    Damaged { frames: u64 },
    /// So many frames are in the model at a time from now on: fewer than it may where memory does not reach.
    Lanes { lanes: u32 },
    /// Nothing new but life: sent while frames before the resume position are passed over.
    Alive,
    /// What hooks changed of their state on the frame that follows.
    State(HookState),
    /// One frame, in the order of the source.
    Frame(Frame),
    /// The health of the hooks changed. `None`: all are well again.
    Hooks { degraded: Option<Reason> },
    /// What became of the calls of each hook so far, in the order of the scenario, pre hooks first.
    HookStats(Vec<HookStats>),
    /// The next frame, and those behind it, are of this revision.
    Changed { revision: i64, from_frame: u64 },
    /// This revision works; what it took the place of is given up.
    Proven { revision: i64 },
    /// This revision failed, or cannot begin. The next frame, and those behind it, are of the one before.
    RolledBack { revision: i64, reason: Reason },
    /// A line that a plugin logged.
    Log(PluginLog),
    /// What the shadow found.
    Shadow(ShadowReport),
    /// Said once the source is at its end: so many of its frames lie behind the last one that was
    /// taken, and the scenario did not ask for them.
    LeftOut { frames: u64 },
    /// The last record. The reason is `end_of_stream`, `stopped_by_user` or what went wrong.
    Ended { outcome: Outcome, reason: Reason },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    pub width: u32,
    pub height: u32,
    /// Frames a second as the container declares them; 0 if it does not.
    pub declared_fps: f64,
    /// As the container declares it; damaged files lie.
    pub declared_frames: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The source came to its end and every frame was reported.
    Finished,
    Stopped,
    /// Another try may help.
    Retry,
    /// No other try will help.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginLog {
    /// The plugin, as `name@version`.
    pub plugin: String,
    pub level: LogLevel,
    pub target: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Attribute>,
    /// The frame that the hook was last called for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// The hook is one of the shadow.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
}

impl PluginLog {
    /// A line that no hook wrote.
    #[must_use]
    pub fn of_platform(level: LogLevel, target: &str, message: String) -> Self {
        let (plugin, target, fields) = (PLATFORM.to_owned(), target.to_owned(), BTreeMap::new());
        Self { plugin, level, target, message, fields, frame: None, shadow: false }
    }

    /// What it counts as in a budget.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(key, value)| key.len() + value.to_string().len());
        self.plugin.len() + self.target.len() + self.message.len() + fields.sum::<usize>()
    }
}

/// How much a line matters, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes one record.
///
/// # Errors
/// When the pipe is closed, or the record is longer than [`MAX_RECORD`].
pub fn write_record<T: Serialize>(out: &mut impl Write, record: &T) -> io::Result<()> {
    let body = serde_json::to_vec(record)?;
    out.write_all(&length_prefix(body.len())?)?;
    out.write_all(&body)
}

/// Reads one record; `None` at the end of the stream.
///
/// # Errors
/// When the stream ends inside a record, or holds something else.
pub fn read_record<T: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match input.read_exact(&mut prefix) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(prefix) as usize;
    length_prefix(length)?;
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// The 4 bytes before a record of `length` bytes, which may be [`MAX_RECORD`].
fn length_prefix(length: usize) -> io::Result<[u8; 4]> {
    match u32::try_from(length) {
        Ok(n) if length <= MAX_RECORD => Ok(n.to_le_bytes()),
        _ => Err(io::Error::other(format!("a record of {length} bytes is over the limit of {MAX_RECORD}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_broken_streams_are_errors() {
        let mut pipe = Vec::new();
        write_record(&mut pipe, &Control::Stop).unwrap();
        write_record(&mut pipe, &Report::<()>::Alive).unwrap();
        let mut input = pipe.as_slice();
        assert_eq!(read_record(&mut input).unwrap(), Some(Control::Stop));
        assert_eq!(read_record(&mut input).unwrap(), Some(Report::<()>::Alive));
        assert_eq!(read_record::<Report<()>>(&mut input).unwrap(), None);
        assert!(read_record::<Report>(&mut &pipe[..pipe.len() - 1][..7]).is_err());
        assert!(read_record::<Report>(&mut &[0xff; 8][..]).is_err());
        let length = u32::try_from(MAX_RECORD + 1).unwrap();
        let too_long = read_record::<Report>(&mut &length.to_le_bytes()[..]).unwrap_err();
        assert!(too_long.to_string().contains("over the limit"), "{too_long}");
    }

    #[test]
    fn a_pipe_that_fails_is_no_end() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        assert_eq!(read_record::<Control>(&mut Failing).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn runners_that_name_no_side_mean_the_default() {
        assert_eq!(default_picture_side(), DEFAULT_PICTURE_SIDE);
    }
}
