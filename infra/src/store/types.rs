//! What goes into the store and comes out of it.

use std::collections::BTreeMap;

use framehook_core::{
    artifact::{ArtifactKind, Manifest},
    delivery::OutboxLag,
    hook_state::HookState,
    hook_stats::HookStats,
    ids::{Digest, Generation, Incarnation, RunnerId, ScenarioId},
    message::{RunnerStatus, WorkerStatus},
    prediction::{Position, Prediction},
    prediction_record::PredictionRecord,
    reason::Reason,
    recorded::RecordedPart,
    revision::{Begin, RevisionState},
    scenario_log::{LogLine, LoggedLines},
    schemas::{ArtifactName, Version},
    shadow::{ShadowDifference, ShadowFindings, ShadowSummary},
    signature::SignedBy,
    spec::{ResolvedScenario, ScenarioSpec},
    state::{Desired, ScenarioState, WorkerState},
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Result;
use crate::sql::from_json;

/// A scenario to be created. The caller chose its id.
#[derive(Clone, Debug)]
pub struct NewScenario {
    pub id: ScenarioId,
    pub spec: ScenarioSpec,
    pub resolved: ResolvedScenario,
    pub idempotency: Option<Idempotency>,
    pub traceparent: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Digest of the request, to tell a repetition from a reuse.
    pub request: Digest,
}

#[derive(Clone, Debug)]
pub enum Created {
    New(ScenarioRecord),
    /// The same key and the same request: the scenario made then.
    Repeated(ScenarioRecord),
    /// The same, and it was deleted since.
    Deleted(ScenarioId),
    /// The same key with another request.
    KeyReused,
}

/// A scenario as stored, with what its newest worker last reported.
#[derive(Clone, Debug)]
pub struct ScenarioRecord {
    pub id: ScenarioId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub spec: ScenarioSpec,
    pub resolved: ResolvedScenario,
    pub revision: i64,
    pub desired: Desired,
    pub state: ScenarioState,
    pub reason: Option<Reason>,
    pub generation: Generation,
    /// The last frame that arrived, as a row or as a dead letter.
    pub stored: Option<Position>,
    pub worker: Option<WorkerRecord>,
}

/// A change of a scenario's settings.
#[derive(Clone, Debug)]
pub struct NewRevision {
    /// The revision that it starts from.
    pub based_on: i64,
    pub spec: ScenarioSpec,
    pub resolved: ResolvedScenario,
    pub begin: Begin,
    /// What is changed, for the history.
    pub what: String,
    /// Why it cannot be used: then it is on record, and nothing else changes.
    pub refused: Option<Reason>,
}

#[derive(Clone, Debug)]
pub enum Revised {
    Done(Box<ScenarioRecord>),
    /// The scenario has another revision by now.
    Conflict {
        current: i64,
    },
    /// It has completed.
    Ended,
    NotFound,
}

/// A revision as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionEntry {
    pub revision: i64,
    pub at: Timestamp,
    pub spec: ScenarioSpec,
    pub resolved: ResolvedScenario,
    pub begin: Begin,
    pub state: RevisionState,
    pub reason: Option<Reason>,
    pub from_frame: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct WorkerRecord {
    pub generation: Generation,
    pub runner_id: RunnerId,
    pub incarnation: Incarnation,
    pub state: WorkerState,
    /// As of the runner's last heartbeat.
    pub status: Option<WorkerStatus>,
    /// What became of the calls of its hooks, as it was told last. Empty: it was not; and in lists.
    pub hooks: Vec<HookStats>,
}

#[derive(Clone, Debug, Default)]
pub struct ScenarioFilter {
    pub state: Option<ScenarioState>,
    /// Exact name.
    pub name: Option<String>,
}

/// One change of a scenario's state or of what is wanted from it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = HistoryView)]
pub struct HistoryEntry {
    pub sequence: i64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// Null: the scenario was created.
    pub from: Option<ScenarioState>,
    pub to: ScenarioState,
    pub desired: Desired,
    pub reason: Option<Reason>,
    /// Lines before this one that are not kept: the same changes as on both sides of the gap, or what was in
    /// the middle of a history that had become too long; absent: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub folded: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A line of a scenario's log, as stored.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = LogView)]
pub struct LogEntry {
    /// Place among all lines of the scenario, from 1; one more than that of the line before.
    pub sequence: i64,
    /// The deployment that logged it.
    #[schema(value_type = i64)]
    pub generation: Generation,
    #[serde(flatten)]
    pub line: LogLine,
}

/// What is kept of what a scenario's shadow found.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowRecord {
    /// `None`: nothing was told of a shadow.
    pub summary: Option<StoredSummary>,
    pub differences: Vec<DifferenceEntry>,
}

/// The newest summary of a scenario's shadow.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSummary {
    pub generation: Generation,
    /// Differences of that deployment that are kept.
    pub kept: u64,
    pub summary: ShadowSummary,
}

/// A frame on which a scenario's shadow differs from its own hooks, as stored.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ShadowDifferenceView)]
pub struct DifferenceEntry {
    /// Place among all differences of the scenario, from 1; one more than that of the one before.
    pub sequence: i64,
    /// The deployment that found it.
    #[schema(value_type = i64)]
    pub generation: Generation,
    #[serde(flatten)]
    pub difference: ShadowDifference,
}

/// How much of a list to read at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rows: u32,
    /// In what the rows hold as JSON, together. The first row comes whatever it holds, so that
    /// every list has an end.
    pub bytes: u64,
}

/// A part of a list, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows<T> {
    pub rows: Vec<T>,
    /// There are more behind these.
    pub has_more: bool,
}

/// A prediction as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPrediction {
    pub pts_us: i64,
    /// A whole [`Prediction`]: the inbox stores nothing else.
    pub json: String,
}

impl StoredPrediction {
    /// # Errors
    /// [`StoreError::Corrupt`](super::StoreError::Corrupt) when another release wrote it in another form.
    pub fn read(&self) -> Result<Prediction> {
        from_json("prediction", &self.json)
    }
}

/// Which predictions to read.
#[derive(Clone, Debug)]
pub struct PredictionQuery {
    /// Only behind this one: the cursor.
    pub after_pts_us: Option<i64>,
    /// Inclusive.
    pub from_pts_us: Option<i64>,
    /// Exclusive.
    pub until_pts_us: Option<i64>,
    pub limit: Limit,
}

impl PredictionQuery {
    /// The first and the last `pts_us` to look for; the first is behind the last where there is none.
    pub(crate) fn span(&self) -> (i64, i64) {
        let (Some(behind), Some(last)) = (
            self.after_pts_us.map_or(Some(i64::MIN), |after| after.checked_add(1)),
            self.until_pts_us.map_or(Some(i64::MAX), |until| until.checked_sub(1)),
        ) else {
            return (i64::MAX, i64::MIN);
        };
        (self.from_pts_us.unwrap_or(i64::MIN).max(behind), last)
    }
}

/// A model, a plugin or a video.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ArtifactView)]
pub struct Artifact {
    pub kind: ArtifactKind,
    #[schema(value_type = ArtifactName)]
    pub name: String,
    #[schema(value_type = Version)]
    pub version: String,
    pub digest: Digest,
    pub size_bytes: u64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who vouches for a plugin: the last signature that was given with it. Absent: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub signed_by: Option<SignedBy>,
    pub manifest: Manifest,
}

// A thousand manifests would be a hundred megabytes.
/// The same in a list: its manifest, which may be long, is at `GET /{kind}/{name}/{version}`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ArtifactItem)]
pub struct ArtifactSummary {
    /// Grows with each upload.
    #[serde(skip)]
    pub sequence: i64,
    pub kind: ArtifactKind,
    #[schema(value_type = ArtifactName)]
    pub name: String,
    #[schema(value_type = Version)]
    pub version: String,
    pub digest: Digest,
    pub size_bytes: u64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Which artifacts to list.
#[derive(Clone, Debug, Default)]
pub struct ArtifactQuery {
    /// Only artifacts of this name.
    pub name: Option<String>,
    /// Name and sequence of the last one of the page before.
    pub after: Option<(String, i64)>,
    pub limit: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PutArtifact {
    Created,
    /// The same content under the same name and version was there before; it has the new signature, if that
    /// has one.
    Unchanged(Artifact),
    /// In the place of other content, of a plugin in development.
    Replaced,
    /// Other content is there.
    Conflict(Artifact),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteArtifact {
    /// No artifact names its digest any more if `orphaned`: the blob can go.
    Deleted {
        digest: Digest,
        orphaned: bool,
    },
    NotFound,
    InUse {
        by: ScenarioId,
        state: ScenarioState,
    },
}

/// What an inbox read from one partition.
#[derive(Clone, Debug, Default)]
pub struct ResultBatch {
    pub consumer: String,
    pub topic: String,
    pub partition: i32,
    /// The stored offset must be this one.
    pub expected: i64,
    /// And becomes this one.
    pub next: i64,
    pub rows: Vec<PredictionRecord>,
    /// What hooks changed of their state on a row, by its place in `rows`.
    pub state: BTreeMap<usize, HookState>,
    /// Lines of scenarios' logs; rows and lines travel on topics of their own.
    pub logged: Vec<LoggedLines>,
    /// What shadows found, on the topic of those lines.
    pub found: Vec<ShadowFindings>,
    /// Recorded outputs, which travel with the lines.
    pub recorded: Vec<RecordedPart>,
    pub dead_letters: Vec<DeadLetter>,
}

#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub offset: i64,
    pub key: String,
    pub payload: Vec<u8>,
    pub reason: String,
    /// Its frame, if it says so: a frame of the scenario that `key` names, which is dropped unless a readable
    /// record of it comes, too.
    pub position: Option<Position>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    Stored,
    /// Another consumer moved the offset: seek to the stored one.
    OffsetMoved,
}

/// The outcome of a write that checks its right to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    Done,
    /// Another epoch is in force: this process does not lead any more.
    NotLeader,
    /// The state the write starts from is gone.
    Stale,
}

/// What metrics show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Scenarios that are not at rest. A state that none is in is missing.
    pub unsettled: Vec<(ScenarioState, i64)>,
    /// Messages about all scenarios.
    pub outbox: OutboxLag,
}

#[derive(Clone, Debug)]
pub struct RunnerRecord {
    pub id: RunnerId,
    pub incarnation: Incarnation,
    pub lost: bool,
    pub expires_at: Timestamp,
    pub seen_at: Timestamp,
    pub status: RunnerStatus,
}

impl RunnerRecord {
    /// Not written off, and heard of within its lease.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.lost && self.expires_at > Timestamp::now()
    }
}
