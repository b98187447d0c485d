//! Values and errors of SQL, whatever the database. The statements are in `sql_store` and in the adapters.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use framehook_core::{
    artifact::ArtifactKind,
    hook_state::HookState,
    ids::{Generation, Incarnation, ScenarioId},
    message::{RunnerStatus, WorkerStatus},
    prediction::Position,
    spec::{ResolvedScenario, ResolvedSource},
    writes::goes_on_behind,
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::postgres::PgDatabaseError;

use crate::{
    postgres, sqlite,
    store::{DeadLetter, Result, ResultBatch, StoreError},
};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let message = error.to_string();
        match error {
            sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => postgres::from_code(error.code(), message),
                None => sqlite::from_code(database.as_ref(), message),
            },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(message),
            _ => Self::Corrupt(message),
        }
    }
}

pub(crate) fn unreadable(column: &str, why: impl Display) -> StoreError {
    StoreError::Corrupt(format!("column {column}: {why}"))
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(format!("cannot be written as JSON: {e}")))
}

pub(crate) fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| unreadable(column, e))
}

/// SQL has no unsigned integers. No source has 2^63 frames: a number above it is as good as that one.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back; nothing negative was ever written.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// Every artifact a scenario names.
pub(crate) fn artifacts(resolved: &ResolvedScenario) -> Vec<(ArtifactKind, &str, &str)> {
    let model = (ArtifactKind::Model, resolved.model.name.as_str(), resolved.model.version.as_str());
    let mut all = vec![model];
    if let ResolvedSource::Video(video) = &resolved.source {
        all.push((ArtifactKind::Video, &video.name, &video.version));
    }
    let hooks = resolved.pre.iter().chain(&resolved.post).chain(&resolved.shadow).map(|hook| &hook.identity);
    all.extend(hooks.map(|plugin| (ArtifactKind::Plugin, plugin.name.as_str(), plugin.version.as_str())));
    all
}

/// The end of a term that begins now.
pub(crate) fn later(now: i64, lease_time: Duration) -> i64 {
    now.saturating_add(i64::try_from(lease_time.as_micros()).unwrap_or(i64::MAX))
}

/// The furthest frame of each scenario in the batch, readable or not.
pub(crate) fn furthest(batch: &ResultBatch) -> BTreeMap<ScenarioId, Position> {
    let rows = batch.rows.iter().map(|row| (row.scenario_id, row.position));
    let unread = |letter: &DeadLetter| Some((letter.key.parse().ok()?, letter.position?));
    let mut furthest = BTreeMap::new();
    for (scenario, position) in rows.chain(batch.dead_letters.iter().filter_map(unread)) {
        let kept = furthest.entry(scenario).or_insert(position);
        *kept = position.max(*kept);
    }
    furthest
}

/// Where a scenario stands before a batch.
pub(crate) struct Standing {
    pub(crate) generation: Generation,
    pub(crate) resume_after: Option<Position>,
}

/// What a batch changes of where a scenario stands.
pub(crate) struct Step {
    /// Its furthest frame in the batch.
    pub(crate) position: Position,
    /// Behind which frame the next deployment goes on.
    pub(crate) resume_after: Option<Position>,
    /// What hooks changed up to that frame.
    pub(crate) changes: HookState,
}

/// The steps of those scenarios that take results.
pub(crate) fn steps(batch: &ResultBatch, standing: &BTreeMap<ScenarioId, Standing>) -> BTreeMap<ScenarioId, Step> {
    let begin = |(scenario, position)| {
        let resume_after = standing.get(&scenario)?.resume_after;
        Some((scenario, Step { position, resume_after, changes: HookState::default() }))
    };
    let mut steps: BTreeMap<_, _> = furthest(batch).into_iter().filter_map(begin).collect();
    for (at, row) in batch.rows.iter().enumerate() {
        let (Some(before), Some(step)) = (standing.get(&row.scenario_id), steps.get_mut(&row.scenario_id)) else {
            continue;
        };
        if goes_on_behind(step.resume_after, before.generation, row.generation, row.position) {
            step.resume_after = Some(row.position);
            step.changes.extend(batch.state.get(&at).cloned().unwrap_or_default());
        }
    }
    steps
}

/// What became of the calls of a worker's hooks, as it is stored; `None` if it is not told this time.
pub(crate) fn hooks(worker: &WorkerStatus) -> Result<Option<String>> {
    (!worker.hooks.is_empty()).then(|| to_json(&worker.hooks)).transpose()
}

/// The newest heartbeat of each incarnation, an older incarnation of a runner before a newer one.
pub(crate) fn newest(heartbeats: &[RunnerStatus]) -> Vec<&RunnerStatus> {
    let mut newest = BTreeMap::<Incarnation, &RunnerStatus>::new();
    for heartbeat in heartbeats {
        let kept = newest.entry(heartbeat.incarnation).or_insert(heartbeat);
        if kept.sequence < heartbeat.sequence {
            *kept = heartbeat;
        }
    }
    newest.into_values().collect()
}
