//! The store: scenarios, artifacts, outbox, workers, runners, predictions, offsets, history.
//!
//! One trait a concern, one adapter a database, one conformance suite that each adapter passes.
//!
//! Invariants an adapter keeps, inside its writes and not by locks around them:
//! - what a method's description calls one transaction is one;
//! - the orchestrator's writes check the leader epoch in their own transaction;
//! - a state changes only along core's transition tables, and each change adds a line of history;
//! - a prediction never goes back to an older generation;
//! - a consumer's offset moves if and only if its rows (or its dead letters) commit.
//!
//! All times of leases are the database's.

mod types;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef},
    delivery::Delivery,
    ids::{Digest, Epoch, RunnerId, ScenarioId},
    message::{Envelope, RunnerStatus},
    planner::{Action, Snapshot},
    recorded::Part,
    state::Desired,
};
use uuid::Uuid;

pub use types::*;

use crate::space::Shortage;

/// Shared by the services of a process, each of which sees what it uses.
pub type SharedStore = Arc<dyn Store>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; reads still work.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Less of the disk is free than the reserve: nothing is taken in, and everything else works.
    #[error(transparent)]
    Short(#[from] Shortage),
    /// The database cannot be reached, or is too busy; the same call may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Concurrent writes conflicted again and again; the same call may succeed at once.
    #[error("the database is busy with conflicting writes: {0}")]
    Contended(String),
    /// A row that this release cannot read, or a defect of ours.
    #[error("the database holds something unexpected: {0}")]
    Corrupt(String),
}

/// How long a deleted scenario is remembered, and its idempotency key stays taken: a client does not
/// repeat a request after a day without an answer.
pub const KEEP_DELETED: Duration = Duration::from_secs(24 * 3600);

/// How old what nobody needs any more may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Published outbox messages, and former lives of runners.
    pub published: Duration,
    /// Records that could not be read.
    pub dead_letters: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            // A person who looks for what went wrong yesterday still finds its messages.
            published: Duration::from_secs(48 * 3600),
            // Somebody has to find the time to look at them.
            dead_letters: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

pub use crate::history::{HISTORY_LINES, LEAST_HISTORY_LINES};

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Scenarios, their history and their results, as a user sees them.
#[async_trait]
pub trait Scenarios: Send + Sync + 'static {
    /// One transaction: the scenario, its first line of history, a wake-up in the outbox. With an idempotency
    /// key that exists already nothing is written, and the answer tells whether the request was the same.
    async fn create_scenario(&self, new: NewScenario) -> Result<Created>;

    /// What [`Scenarios::create_scenario`] would answer to a repetition; `None` if the key is new.
    async fn created_before(&self, idempotency: &Idempotency) -> Result<Option<Created>>;

    /// Deleted scenarios are not found.
    async fn scenario(&self, id: ScenarioId) -> Result<Option<ScenarioRecord>>;

    /// Newest first; `after` is the last id of the page before. Deleted ones are left out.
    async fn scenarios(
        &self,
        filter: ScenarioFilter,
        after: Option<ScenarioId>,
        limit: Limit,
    ) -> Result<Rows<ScenarioRecord>>;

    /// One transaction: what the user desires, a line of history if it changes something, a wake-up in the
    /// outbox (`framehook_core::writes::set_desired`). `None`: no such scenario (a deleted one is found here
    /// until it is purged). Never waits for a worker.
    async fn set_desired(&self, id: ScenarioId, desired: Desired) -> Result<Option<ScenarioRecord>>;

    /// One transaction: the next revision of a scenario, which becomes the wanted one, a line of history, and
    /// the order of the worker that runs it, changed and put into the outbox; without such a worker, a
    /// wake-up. One that is refused is only on record.
    async fn revise(&self, id: ScenarioId, new: &NewRevision) -> Result<Revised>;

    /// Oldest first; `after` is the number of the last one of the page before. None, if it was never changed.
    async fn revisions(&self, id: ScenarioId, after: i64, limit: Limit) -> Result<Rows<RevisionEntry>>;

    /// Scenarios that name this plugin and may still run.
    async fn users_of(&self, plugin: &str, version: &str) -> Result<Vec<ScenarioId>>;

    /// Whether it was deleted and purged less than [`KEEP_DELETED`] ago, so that deleting twice is the same
    /// as once.
    async fn is_purged(&self, id: ScenarioId) -> Result<bool>;

    /// Oldest first; `after` is the last sequence number of the page before. A history has at most
    /// some hundred lines: its beginning and its end, with the number of those between.
    async fn history(&self, id: ScenarioId, after: Option<i64>, limit: u32) -> Result<Vec<HistoryEntry>>;

    /// In the order of `pts_us`. Deleted scenarios are not found.
    async fn predictions(&self, id: ScenarioId, query: PredictionQuery) -> Result<Option<Rows<StoredPrediction>>>;

    /// The lines of its log behind `after` that are kept, oldest first: all of them, which are bounded
    /// together (`framehook_core::scenario_log`). Deleted scenarios are not found.
    async fn log(&self, id: ScenarioId, after: i64) -> Result<Option<Vec<LogEntry>>>;

    /// Its recorded outputs, in the order of the deployments that recorded them. Of a deleted scenario, and
    /// of a replay, there are none.
    async fn outputs(&self, id: ScenarioId) -> Result<Vec<Part>>;

    /// What its shadow found: the newest summary, and the differences behind `after` that are kept, oldest
    /// first, which are bounded together (`framehook_core::shadow`). Deleted scenarios are not found.
    async fn shadow(&self, id: ScenarioId, after: i64) -> Result<Option<ShadowRecord>>;

    /// What became of every frame, in one consistent read that does not count rows. Deleted scenarios are not
    /// found.
    async fn delivery(&self, id: ScenarioId) -> Result<Option<Delivery>>;
}

/// Names and versions of models, videos and plugins.
#[async_trait]
pub trait Artifacts: Send + Sync + 'static {
    /// Names are never re-pointed: the same name and version with other content is a conflict. The version
    /// [`DEV`](framehook_core::artifact::DEV) of a plugin is, for whoever develops it.
    async fn put_artifact(&self, artifact: Artifact) -> Result<PutArtifact>;

    async fn artifact(&self, kind: ArtifactKind, reference: &ArtifactRef) -> Result<Option<Artifact>>;

    /// The artifact of each reference, in the order of the references.
    async fn artifacts_of(&self, wanted: &[(ArtifactKind, ArtifactRef)]) -> Result<Vec<Option<Artifact>>>;

    /// By name, newest upload of each first.
    async fn artifacts(&self, kind: ArtifactKind, query: ArtifactQuery) -> Result<Vec<ArtifactSummary>>;

    /// Refused while a scenario that is not at rest, or could be started again, names it.
    async fn delete_artifact(&self, kind: ArtifactKind, name: &str, version: &str) -> Result<DeleteArtifact>;

    /// Digests that some artifact or some recorded outputs still name, or a revision that may still run:
    /// everything else in the blob store is garbage.
    async fn live_digests(&self) -> Result<Vec<Digest>>;

    /// Gives up recorded outputs that are older than `age`, and removes some of those that were given up: a
    /// scenario had too many, or is deleted. Gives the digests that nothing names any more. None: there is
    /// nothing left to remove.
    async fn drop_outputs(&self, age: Duration) -> Result<Vec<Digest>>;
}

/// Messages that a transaction put in, on their way to the bus.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Messages not yet published, oldest first.
    async fn outbox(&self, limit: u32) -> Result<Vec<Envelope>>;

    /// The same for a relay, which has them for itself until it marks them or `lease` is over, whichever
    /// comes first: several relays share the work, and another publishes what was claimed by one that died.
    async fn claim_outbox(&self, limit: u32, lease: Duration) -> Result<Vec<Envelope>>;

    /// Marks messages as published; a worker whose deploy order is among them goes from `pending` to
    /// `deployed`.
    async fn mark_published(&self, ids: &[Uuid]) -> Result<()>;

    /// Resolves when something was put into the outbox by this process, at once if that happened since the
    /// last call; a period of the caller finds what other processes put there.
    async fn outbox_filled(&self);
}

/// Results from the bus, on their way to the rows.
#[async_trait]
pub trait Results: Send + Sync + 'static {
    /// The next offset to read, as last committed; 0 at first.
    async fn consumer_offset(&self, consumer: &str, topic: &str, partition: i32) -> Result<i64>;

    /// One transaction: moves the offset from `batch.expected` to `batch.next` (compare and set), upserts the
    /// rows (a lower generation than the stored one changes nothing; results of deleted scenarios are
    /// dropped), moves each scenario's stored position, to the frame of a dead letter too, counts its rows,
    /// appends what is new of the logged lines and of what shadows found and lets the oldest go, keeps the
    /// dead letters.
    async fn store_results(&self, batch: &ResultBatch) -> Result<StoreOutcome>;
}

/// What an orchestrator reads and writes.
#[async_trait]
pub trait Orchestration: Send + Sync + 'static {
    /// Takes or renews the lease called `orchestrator`. The epoch grows when the holder changes, when the
    /// lease had expired, and with `fresh` (the first call of a process); then all runner leases are extended
    /// by `runner_lease_time`, because nobody could have renewed them meanwhile. `None`: somebody else leads.
    async fn lead(
        &self,
        holder: Uuid,
        fresh: bool,
        lease_time: Duration,
        runner_lease_time: Duration,
    ) -> Result<Option<Epoch>>;

    /// Gives the lease up, so that another takes over at once.
    async fn resign(&self, holder: Uuid) -> Result<()>;

    /// Records heartbeats in one transaction: the runners' leases and the status of their workers. The
    /// newest of several of one incarnation counts. An older sequence number than the one recorded changes
    /// nothing, nor does an incarnation that a newer one of the same runner has replaced before. One that
    /// was only written off, because it was not heard of, is back: its old workers are strays by then,
    /// fenced by their generation, and are stopped. All of them reached the bus after `arrived_after_us`.
    async fn record_heartbeats(
        &self,
        epoch: Epoch,
        heartbeats: &[RunnerStatus],
        arrived_after_us: i64,
        lease_time: Duration,
    ) -> Result<Fenced>;

    /// The clock that all times of leases and orders are of.
    async fn now_us(&self) -> Result<i64>;

    /// One consistent read of what the planner needs, scenarios oldest first.
    async fn snapshot(&self) -> Result<Snapshot>;

    /// Executes one action in one transaction that checks the epoch and the state the action starts from.
    /// `Deploy` and `Stop` put their order into the outbox. [`Fenced::Stale`]: the world has moved on, plan
    /// again.
    async fn apply(&self, epoch: Epoch, action: &Action) -> Result<Fenced>;

    /// Removes published outbox messages, former lives of runners and dead letters that `keep` does not, what
    /// is left of deleted scenarios after [`KEEP_DELETED`], and what an earlier release left of purged ones;
    /// readies the store for the results of the next days where that takes something.
    async fn trim(&self, keep: Keep) -> Result<()>;

    /// Removes predictions captured longer than `age` ago, those of running scenarios too. Where results lie
    /// in partitions, whole ones go, a day late at most.
    async fn drop_results(&self, age: Duration) -> Result<()>;
}

/// What people and machines that operate the platform ask.
#[async_trait]
pub trait Operation: Send + Sync + 'static {
    async fn runners(&self) -> Result<Vec<RunnerRecord>>;

    async fn runner(&self, id: &RunnerId) -> Result<Option<RunnerRecord>>;

    /// A cheap read and a check that writes are possible. [`StoreError::Short`] and [`StoreError::Full`]:
    /// nothing is taken in, but what is there can be read and deleted.
    async fn ping(&self) -> Result<()>;

    /// How much there is of what metrics show.
    async fn counts(&self) -> Result<Counts>;
}

/// What the REST API uses.
pub trait ApiStore: Scenarios + Artifacts + Operation {}

impl<T: Scenarios + Artifacts + Operation> ApiStore for T {}

/// All of it, for whoever assembles a process: a role gets one of the above.
pub trait Store: ApiStore + Outbox + Results + Orchestration {}

impl<T: ApiStore + Outbox + Results + Orchestration> Store for T {}
