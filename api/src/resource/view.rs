//! What the API shows of scenarios and runners, in the shape that clients see. Other records of the store go
//! out as they are.
//!
//! Invariant: nothing is computed from anything but one record, so that a view is as consistent as the read
//! behind it.

use std::collections::BTreeMap;

use framehook_core::{
    execution::{Execution, Measured, ProviderStatus},
    hints::{self, Hint},
    hook_metrics::{BOUNDS, Metric},
    hook_stats::HookStats,
    ids::{Generation, Incarnation, RunnerId, ScenarioId},
    message::{Confinement, Fetching, Progress, RunnerStatus, WorkerStatus},
    prediction::FrameTimings,
    reason::Reason,
    spec::{Decoder, ResolvedScenario, ScenarioSpec},
    state::{Desired, ScenarioState},
};
use framehook_infra::store::{RunnerRecord, ScenarioRecord};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// A scenario: what was asked for, what it does, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScenarioView {
    pub id: ScenarioId,
    pub name: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// As it was posted, without the user info and the query of a source's URL.
    pub spec: ScenarioSpec,
    /// The same with names resolved and settings complete.
    pub resolved: ResolvedScenario,
    /// The scenario whose frames it runs again; absent: it is no replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<ScenarioId>,
    /// The number of the settings that it shall run with.
    pub revision: i64,
    /// The one that its worker runs. Null: no worker does, or it did not say.
    pub running_revision: Option<i64>,
    pub desired: Desired,
    pub state: ScenarioState,
    /// Why it is in this state.
    pub reason: Option<Reason>,
    /// What is likely not meant, although it runs; absent: nothing. In lists, only what its specification
    /// alone shows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<Hint>,
    /// Restarts in a row without a new frame.
    pub attempt: u32,
    /// When a recovering worker is started again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub retry_at: Option<Timestamp>,
    /// Counts its deployments.
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// Where it runs, or ran last.
    pub runner: Option<RunnerId>,
    pub progress: ProgressView,
    /// Frames a second of the current deployment.
    pub fps: Option<f64>,
    /// Mean microseconds a frame of the current deployment.
    pub timings: Option<FrameTimings>,
    /// Frames of the current deployment that a hook skipped.
    pub skipped: u64,
    /// Frames of the current deployment on which a hook failed.
    pub hook_failures: u64,
    /// What decodes its video in the current deployment.
    pub decoder: Option<Decoder>,
    /// What runs its model in the current deployment.
    pub execution: Option<Execution>,
    /// The fastest of the other providers of its runner, as measured there for this model; absent if there is
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Frames that are in the model at a time: fewer than its runner's cores would allow where the worker's
    /// memory does not reach for more.
    pub lanes: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProgressView {
    /// Frames of the source up to the last one whose prediction can be read, with those that were left out.
    pub frames: u64,
    /// As the container declares it; where it declares no count, an estimate: duration times rate.
    pub frames_total: Option<u64>,
    /// 0 to 100.
    pub percent: Option<f64>,
    /// How much of its recording is here, while that is still being fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetching: Option<Fetching>,
    /// The same up to the last frame that the worker has given to the bus: its predictions become readable
    /// next.
    pub published: u64,
}

impl From<ScenarioRecord> for ScenarioView {
    fn from(record: ScenarioRecord) -> Self {
        let status = record.worker.as_ref().and_then(|w| w.status.as_ref());
        let current = status.filter(|s| s.generation == record.generation);
        let hooks = record.worker.as_ref().map_or(&[][..], |worker| &worker.hooks);
        let hints = hints::hints(&record.resolved, hooks, record.state == ScenarioState::Completed);
        let running = current.filter(|s| !s.phase.is_ended()).and_then(|s| s.revision.as_ref());
        let measured = current.map(|s| s.progress).filter(|p| p.frames > 0);
        Self {
            id: record.id,
            name: record.spec.name.clone(),
            created_at: record.created_at,
            updated_at: record.updated_at,
            revision: record.revision,
            running_revision: running.map(|revision| revision.running),
            desired: record.desired,
            state: record.state,
            attempt: current.map_or(0, |s| s.attempt),
            retry_at: current.filter(|_| !record.state.is_ended()).and_then(|s| s.retry_at),
            generation: record.generation,
            runner: record.worker.as_ref().map(|w| w.runner_id.clone()),
            progress: progress(&record, current),
            fps: measured.map(|p| p.fps),
            timings: measured.map(|p| p.mean),
            skipped: measured.map_or(0, |p| p.skipped),
            hook_failures: measured.map_or(0, |p| p.hook_failures),
            decoder: current.and_then(|s| s.progress.decoder),
            execution: current.and_then(|s| s.progress.execution),
            measured: current.and_then(|s| s.progress.measured),
            lanes: current.and_then(|s| s.progress.lanes),
            reason: record.reason,
            hints,
            replay_of: record.resolved.replay.as_ref().map(|replay| replay.of),
            spec: record.spec,
            resolved: record.resolved,
        }
    }
}

fn progress(record: &ScenarioRecord, status: Option<&WorkerStatus>) -> ProgressView {
    let Progress { published, left_out, frames_total, fetching, .. } = status.map(|s| s.progress).unwrap_or_default();
    let fetching = fetching.filter(|_| !record.state.is_ended());
    // Those behind the last prediction were passed by whoever came to the end.
    let behind = if record.stored >= published { left_out } else { 0 };
    let frames = record.stored.map_or(0, |p| p.frame + 1) + behind;
    let percent = match (record.state, frames_total) {
        // A container may declare more frames than it holds.
        (ScenarioState::Completed, _) => Some(100.0),
        (_, Some(total)) if total > 0 => Some((frames as f64 / total as f64 * 1000.0).round().min(1000.0) / 10.0),
        _ => None,
    };
    let published = published.map_or(0, |p| p.frame + 1 + left_out).max(frames);
    ProgressView { frames, frames_total, percent, fetching, published }
}

/// What became of the calls of a scenario's hooks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PluginsView {
    /// The deployment that this is about: the current one, or the last.
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// Pre hooks, then post hooks, in the order they are called. All zero until the deployment's worker is
    /// up.
    pub hooks: Vec<HookStats>,
    /// Where the buckets of histograms end, if there is a histogram: a bucket has the values up to its bound
    /// and above the bound before, and the last bucket those above the last bound.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bucket_bounds: Vec<f64>,
}

impl From<ScenarioRecord> for PluginsView {
    fn from(record: ScenarioRecord) -> Self {
        let told = record.worker.map(|worker| worker.hooks).filter(|hooks| !hooks.is_empty());
        let hooks = told.unwrap_or_else(|| HookStats::of(&record.resolved));
        let is_histogram = |metric: &Metric| matches!(metric, Metric::Histogram(_));
        let has_histogram = hooks.iter().any(|hook| hook.metrics.values().any(is_histogram));
        let bucket_bounds = if has_histogram { BOUNDS.to_vec() } else { Vec::new() };
        Self { generation: record.generation, hooks, bucket_bounds }
    }
}

/// A host of workers, as of its last heartbeat.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunnerView {
    pub id: RunnerId,
    pub incarnation: Incarnation,
    /// Not written off, and heard of within its lease.
    pub alive: bool,
    #[schema(value_type = String, format = DateTime)]
    pub seen_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    pub version: String,
    /// Most workers at a time.
    pub capacity: u32,
    /// Workers it could start now: none while it drains, or is not alive.
    pub free: u32,
    /// Memory for all its workers together; absent: as much as they want.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Takes no new work.
    pub draining: bool,
    /// What a scenario's `placement` can ask for.
    pub labels: BTreeMap<String, String>,
    /// What its workers are confined by. Empty for a runner that does not tell.
    pub confinement: Vec<Confinement>,
    /// What can run models there. Empty for a runner that does not tell: it has the processor in f32.
    pub providers: Vec<ProviderStatus>,
    /// Ended ones too, until their end is noted or something newer replaces them.
    pub workers: Vec<WorkerStatus>,
}

impl From<RunnerRecord> for RunnerView {
    fn from(record: RunnerRecord) -> Self {
        let alive = record.is_alive();
        let RunnerRecord { id, incarnation, expires_at, seen_at, status, .. } = record;
        let RunnerStatus { version, capacity, memory_mib, draining, labels, confinement, providers, workers, .. } =
            status;
        // A worker that is still fetching its recording takes no slot.
        let takes_slot = |w: &&WorkerStatus| !w.phase.is_ended() && w.progress.fetching.is_none();
        let taken = workers.iter().filter(takes_slot).count();
        let free = capacity.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
        let free = if alive && !draining { free } else { 0 };
        Self {
            id,
            incarnation,
            alive,
            seen_at,
            expires_at,
            version,
            capacity,
            free,
            memory_mib,
            draining,
            labels,
            confinement,
            providers,
            workers,
        }
    }
}
