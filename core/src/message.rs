//! What travels over the bus. Every message is a hint or an idempotent record: losing, repeating
//! or reordering one changes nothing that the next heartbeat or the next scan does not mend.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    execution::{Execution, Measured, ProviderStatus},
    hook_state::HookState,
    hook_stats::HookStats,
    ids::{Generation, Incarnation, RunnerId, ScenarioId},
    placement::{Labels, provided},
    prediction::{FrameTimings, Position},
    prediction_record::PredictionRecord,
    reason::Reason,
    recorded::RecordedPart,
    revision::RevisionStatus,
    scenario_log::LoggedLines,
    shadow::ShadowFindings,
    spec::{Decoder, ResolvedScenario},
    topic::Topic,
};

/// The only version there is; another major version goes to the dead-letter topic.
pub const VERSION: u32 = 1;

/// What every message carries. Unknown fields are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Envelope {
    /// UUIDv7; the same in every copy of one message.
    pub id: Uuid,
    /// Version of the form of the messages; another one is not read.
    pub version: u32,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// W3C trace context of the request this goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Its `type`, and its `data`.
    #[serde(flatten)]
    pub message: Message,
    /// In a `frame.result`: what hooks changed of their state on that frame.
    #[serde(default, skip_serializing_if = "HookState::is_empty")]
    pub state: HookState,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", content = "data")]
pub enum Message {
    #[serde(rename = "scenario.changed")]
    ScenarioChanged { scenario_id: ScenarioId },
    #[serde(rename = "worker.deploy")]
    Deploy(Box<DeployOrder>),
    #[serde(rename = "worker.stop")]
    Stop(StopOrder),
    #[serde(rename = "worker.noted")]
    Noted(NotedWorkers),
    #[serde(rename = "frame.result")]
    #[schema(value_type = crate::prediction::Prediction)]
    Result(PredictionRecord),
    #[serde(rename = "runner.status")]
    RunnerStatus(RunnerStatus),
    #[serde(rename = "scenario.logged")]
    Logged(LoggedLines),
    #[serde(rename = "scenario.shadow")]
    Shadow(ShadowFindings),
    #[serde(rename = "scenario.recorded")]
    Recorded(RecordedPart),
}

/// "Run this scenario": taken only by the incarnation it names, and only if it knows no higher
/// generation of the scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeployOrder {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
    pub runner_id: RunnerId,
    pub incarnation: Incarnation,
    /// Revision of the scenario's settings, from 1. The same order with a higher one changes the settings of
    /// the worker that runs.
    pub revision: i64,
    /// The hooks of that revision begin with nothing kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// Creation time of the scenario.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    pub scenario: ResolvedScenario,
    /// The last stored frame of the deployment before.
    pub resume_after: Option<Position>,
    /// What its hooks kept, as of that frame.
    #[serde(default, skip_serializing_if = "HookState::is_empty")]
    pub state: HookState,
    /// What ran the model on that frame, and shall go on doing so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
}

/// "Stop this generation of the scenario, and any older one."
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct StopOrder {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
    pub runner_id: RunnerId,
    pub incarnation: Incarnation,
}

/// "The ends of these workers are on record: tell of them no longer." Lost, it is said again as long as
/// heartbeats tell of them; a runner of an earlier release ignores it and tells of them for ten minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotedWorkers {
    pub runner_id: RunnerId,
    pub incarnation: Incarnation,
    pub workers: Vec<WorkerKey>,
}

/// One deployment of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct WorkerKey {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
}

/// A heartbeat: the whole state of a runner, so that the newest alone is enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunnerStatus {
    pub runner_id: RunnerId,
    pub incarnation: Incarnation,
    /// Grows by one with each heartbeat of an incarnation; an older one changes nothing.
    pub sequence: u64,
    /// Most workers it runs at a time.
    pub capacity: u32,
    /// Memory for all its workers together; absent: as much as they want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Takes no new work.
    pub draining: bool,
    pub version: String,
    /// What it has, for scenarios that ask for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What its workers are confined by, as it found out at its start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confinement: Vec<Confinement>,
    /// What can run models here; what an older release does not tell is the processor in f32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<ProviderStatus>,
    /// Ended ones too, until they are noted or a newer generation replaces them.
    pub workers: Vec<WorkerStatus>,
}

impl RunnerStatus {
    /// Without what became of the calls of its workers' hooks.
    #[must_use]
    pub fn without_hooks(&self) -> Self {
        let workers = self.workers.iter().map(WorkerStatus::without_hooks).collect();
        Self {
            workers,
            runner_id: self.runner_id.clone(),
            version: self.version.clone(),
            labels: self.labels.clone(),
            confinement: self.confinement.clone(),
            providers: self.providers.clone(),
            ..*self
        }
    }

    /// Its labels, and what its providers can.
    pub fn all_labels(&self) -> Labels {
        let executions = self.providers.iter().flat_map(ProviderStatus::executions);
        let can = executions.filter_map(Execution::label).map(provided);
        self.labels.clone().into_iter().chain(can).collect()
    }
}

/// One thing that child processes are confined by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Confinement {
    /// Such as `files` or `system_calls`.
    pub name: String,
    pub on: bool,
    /// What it does; if it is off, what is missing.
    pub why: String,
}

/// One worker as its runner sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
    pub phase: WorkerPhase,
    /// Why it is in this phase, or why a running one is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::reason::wire")]
    pub reason: Option<Reason>,
    /// Restarts in a row without a new frame.
    pub attempt: u32,
    /// When a recovering worker is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<Timestamp>,
    pub progress: Progress,
    /// What became of its hooks' calls, pre hooks first. Empty: nothing is told of them this time, because a
    /// worker has not begun, or because others are told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookStats>,
    /// Which settings it runs; absent until its first worker is ready, and in what older releases wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionStatus>,
}

impl WorkerStatus {
    /// A worker of which no more is known yet.
    #[must_use]
    pub fn new(scenario_id: ScenarioId, generation: Generation, phase: WorkerPhase) -> Self {
        Self {
            scenario_id,
            generation,
            phase,
            reason: None,
            attempt: 0,
            retry_at: None,
            progress: Progress::default(),
            hooks: Vec::new(),
            revision: None,
        }
    }

    /// Without what became of its hooks' calls, which is kept beside it.
    #[must_use]
    pub fn without_hooks(&self) -> Self {
        let (reason, revision, hooks) = (self.reason.clone(), self.revision.clone(), Vec::new());
        let Self { scenario_id, generation, phase, attempt, retry_at, progress, .. } = *self;
        Self { scenario_id, generation, phase, reason, attempt, retry_at, progress, hooks, revision }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPhase {
    Starting,
    Running,
    /// Running, with a hook that fails.
    Degraded,
    /// The process is gone and will be started again at `retry_at`.
    Recovering,
    Stopping,
    Finished,
    Stopped,
    Failed,
}

impl WorkerPhase {
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Stopped | Self::Failed)
    }
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// The last frame given to the bus.
    pub published: Option<Position>,
    /// Frames given to the bus by this generation.
    pub frames: u64,
    /// Those of them that a hook skipped.
    pub skipped: u64,
    /// Those of them with a failed hook.
    pub hook_failures: u64,
    /// Frames of the source that were damaged: lost, or with a picture that is not what was recorded.
    #[serde(default)]
    pub damaged: u64,
    /// Frames of the source behind the last one published that the scenario did not ask for, once
    /// all have been passed.
    #[serde(default)]
    pub left_out: u64,
    /// What decodes the source, once a worker has opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Decoder>,
    /// What runs the model, once a worker has loaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// What the fastest of the providers that were measured for it gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Frames that are in the model at a time; absent in what older releases wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<u32>,
    /// As the container declares it; where it declares no count, an estimate: duration times rate.
    pub frames_total: Option<u64>,
    /// How much is here of a recording that is being fetched: no worker runs meanwhile, and no slot is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetching: Option<Fetching>,
    /// Frames a second, from the first to the last frame of this generation.
    pub fps: f64,
    /// Mean of the frames of this generation.
    pub mean: FrameTimings,
}

/// How much of a recording is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fetching {
    pub bytes: u64,
    /// If its server says so.
    pub total: Option<u64>,
}

impl Message {
    pub const fn topic(&self) -> Topic {
        match self {
            Message::ScenarioChanged { .. } => Topic::InitScenario,
            Message::Deploy(_) | Message::Stop(_) | Message::Noted(_) => Topic::ToDeploy,
            Message::Result(_) => Topic::Results,
            Message::RunnerStatus(_) => Topic::RunnerStatus,
            Message::Logged(_) | Message::Shadow(_) | Message::Recorded(_) => Topic::ScenarioLogs,
        }
    }
}

impl Envelope {
    pub fn new(message: Message, time: Timestamp) -> Self {
        Self { id: Uuid::now_v7(), version: VERSION, time, traceparent: None, message, state: HookState::default() }
    }

    /// The partition key, so that what belongs together stays in order.
    pub fn key(&self) -> String {
        match &self.message {
            Message::ScenarioChanged { scenario_id } => scenario_id.to_string(),
            Message::Deploy(order) => order.runner_id.to_string(),
            Message::Stop(order) => order.runner_id.to_string(),
            Message::Noted(noted) => noted.runner_id.to_string(),
            Message::Result(prediction) => prediction.scenario_id.to_string(),
            Message::RunnerStatus(status) => status.runner_id.to_string(),
            Message::Logged(logged) => logged.scenario_id.to_string(),
            Message::Shadow(findings) => findings.scenario_id.to_string(),
            Message::Recorded(recorded) => recorded.scenario_id.to_string(),
        }
    }

    pub const fn topic(&self) -> Topic {
        self.message.topic()
    }

    /// The scenario it is about, and of which generation of it, for logs and traces.
    pub const fn subject(&self) -> Option<(ScenarioId, Option<Generation>)> {
        match &self.message {
            Message::ScenarioChanged { scenario_id } => Some((*scenario_id, None)),
            Message::Deploy(order) => Some((order.scenario_id, Some(order.generation))),
            Message::Stop(order) => Some((order.scenario_id, Some(order.generation))),
            Message::Result(prediction) => Some((prediction.scenario_id, Some(prediction.generation))),
            Message::Logged(logged) => Some((logged.scenario_id, Some(logged.generation))),
            Message::Shadow(findings) => Some((findings.scenario_id, Some(findings.generation))),
            Message::Recorded(recorded) => Some((recorded.scenario_id, Some(recorded.part.generation))),
            Message::Noted(_) | Message::RunnerStatus(_) => None,
        }
    }

    /// # Errors
    /// A sentence for the dead-letter topic.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawEnvelope<'_> = serde_json::from_slice(bytes).map_err(|e| format!("not an envelope: {e}"))?;
        if raw.version != VERSION {
            return Err(format!("version {} is not {VERSION}, the only one this release reads", raw.version));
        }
        let data = raw.data.get();
        let message = match raw.kind {
            "scenario.changed" => {
                read(data).map(|about: Changed| Message::ScenarioChanged { scenario_id: about.scenario_id })
            }
            "worker.deploy" => read(data).map(Message::Deploy),
            "worker.stop" => read(data).map(Message::Stop),
            "worker.noted" => read(data).map(Message::Noted),
            // Its text is not walked a second time.
            "frame.result" => {
                PredictionRecord::read(raw.data.to_owned()).map(Message::Result).map_err(|e| e.to_string())
            }
            "runner.status" => read(data).map(Message::RunnerStatus),
            "scenario.logged" => read(data).map(Message::Logged),
            "scenario.shadow" => read(data).map(Message::Shadow),
            "scenario.recorded" => read(data).map(Message::Recorded),
            other => Err(format!("unknown type `{}`", other.escape_debug())),
        };
        let message = message.and_then(|message| raw.state.check().map(|()| message));
        let message = message.map_err(|e| format!("not a message of version {VERSION}: {e}"))?;
        Ok(Self {
            id: raw.id,
            version: raw.version,
            time: raw.time,
            traceparent: raw.traceparent,
            message,
            state: raw.state,
        })
    }
}

/// Which frame a record is about that cannot be read as a whole: another release wrote it, or it has a number
/// that JSON does not have. `None` if it does not say so.
pub fn frame_of(bytes: &[u8]) -> Option<(ScenarioId, Position)> {
    #[derive(Deserialize)]
    struct Outline {
        data: Frame,
    }
    #[derive(Deserialize)]
    struct Frame {
        scenario_id: ScenarioId,
        pts_us: i64,
        frame: u64,
    }
    let Outline { data: Frame { scenario_id, pts_us, frame } } = serde_json::from_slice(bytes).ok()?;
    Some((scenario_id, Position { pts_us, frame }))
}

impl std::str::FromStr for Envelope {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::parse(s.as_bytes())
    }
}

/// An envelope whose data is not looked at yet: a derived reader of [`Envelope`] would hold every number of a
/// frame in a tree first, because the type may stand behind the data.
#[derive(Deserialize)]
struct RawEnvelope<'a> {
    id: Uuid,
    version: u32,
    time: Timestamp,
    traceparent: Option<String>,
    #[serde(rename = "type", borrow)]
    kind: &'a str,
    #[serde(borrow)]
    data: &'a serde_json::value::RawValue,
    #[serde(default)]
    state: HookState,
}

#[derive(Deserialize)]
struct Changed {
    scenario_id: ScenarioId,
}

fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::ReasonCode;

    #[test]
    fn a_new_reason_reaches_readers_of_any_release() {
        let status = |reason| WorkerStatus {
            reason: Some(reason),
            ..WorkerStatus::new(ScenarioId::generate(), 1, WorkerPhase::Failed)
        };
        for (code, first, exact) in [
            (ReasonCode::OutOfMemory, "worker_crash", Some("out_of_memory")),
            (ReasonCode::ModelStalled, "source_stalled", Some("model_stalled")),
            (ReasonCode::HooksFailed, "end_of_stream", Some("hooks_failed")),
            (ReasonCode::DecodeError, "decode_error", None),
        ] {
            let status = status(Reason::new(code, "why"));
            let mut json = serde_json::to_value(&status).unwrap();
            assert_eq!((json["reason"]["code"].as_str(), json["reason"]["exact"].as_str()), (Some(first), exact));
            assert_eq!(serde_json::from_value::<WorkerStatus>(json.clone()).unwrap(), status);
            json["reason"]["exact"] = "from_the_future".into();
            let read: WorkerStatus = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(read.reason.unwrap().code).unwrap(), first);
            json.as_object_mut().unwrap().remove("reason");
            assert_eq!(serde_json::from_value::<WorkerStatus>(json).unwrap().reason, None);
        }
    }

    #[test]
    fn envelopes_round_trip_and_unknown_fields_are_ignored() {
        let message = Message::ScenarioChanged { scenario_id: ScenarioId::generate() };
        let envelope = Envelope::new(message, Timestamp::UNIX_EPOCH);
        let mut json = serde_json::to_value(&envelope).unwrap();
        assert_eq!(json["type"], "scenario.changed");
        json["from_the_future"] = 1.into();
        assert_eq!(Envelope::parse(json.to_string().as_bytes()).unwrap(), envelope);
        assert_eq!(envelope.topic(), Topic::InitScenario);
        json["version"] = 2.into();
        assert!(Envelope::parse(json.to_string().as_bytes()).unwrap_err().contains("version 2"));
        assert!(Envelope::parse(b"{").unwrap_err().contains("not an envelope"));
        json["version"] = 1.into();
        json["type"] = "scenario.sung".into();
        assert!(Envelope::parse(json.to_string().as_bytes()).unwrap_err().contains("unknown type `scenario.sung`"));
    }
}
