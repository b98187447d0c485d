//! The orchestrator's lease, the runners' leases, and the snapshot that is planned from.

use std::time::Duration;

use async_trait::async_trait;
use framehook_core::{
    evidence::Order,
    execution::Execution,
    ids::{Epoch, Incarnation, RunnerId, ScenarioId},
    message::RunnerStatus,
    planner::{Action, RunnerFacts, ScenarioFacts, Snapshot, WorkerFacts},
    prediction::Provenance,
    revision::{RevisionFacts, RevisionState},
    writes::Lease,
};
use serde::Deserialize;
use uuid::Uuid;

use super::{Conn, Database, Row, actions, drop_results, heartbeats, housekeeping, identity, key, now_us, outbox};
use crate::{
    row::RowExt as _,
    sql::{later, newest},
    store::{Counts, Fenced, Keep, Operation, Orchestration, Result, RunnerRecord},
};

const LEASE: &str =
    concat!("SELECT epoch, holder, expires_at FROM leader_lease WHERE name = 'orchestrator'", lock!(update));
const EPOCH: &str = concat!("SELECT epoch FROM leader_lease WHERE name = 'orchestrator'", lock!(share));
const TAKE_LEASE: &str = "
    INSERT INTO leader_lease (name, epoch, holder, expires_at) VALUES ('orchestrator', $1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder, expires_at = excluded.expires_at";
const RESIGN: &str = "UPDATE leader_lease SET expires_at = 0 WHERE name = 'orchestrator' AND holder = $1";
const EXTEND_RUNNERS: &str = "UPDATE runners SET expires_at = $1 WHERE NOT lost AND expires_at < $1";

/// The condition of the index `scenarios_not_at_rest`, word for word: only so is it used.
macro_rules! not_at_rest {
    () => {
        " WHERE purged_at IS NULL
            AND (state NOT IN ('stopped', 'completed', 'failed') OR desired = 'deleted'
                OR (state = 'stopped' AND desired = 'running'))"
    };
}
/// `source` is the first that is written of a resolved scenario. The last prediction is read of those that
/// are to be placed.
pub(in super::super) const UNSETTLED: &str = concat!(
    "SELECT s.id, s.desired, s.state, s.reason, s.generation, s.revision, s.placement, s.memory_mib, s.traceparent,
            s.resolved LIKE '{\"source\":{\"url\":%' AS is_fetched,
            CASE WHEN s.state IN ('pending', 'recovering') AND p.pts_us IS NOT NULL THEN (
                SELECT r.prediction FROM scenario_results r WHERE r.scenario_id = s.id AND r.pts_us = p.pts_us
            ) END AS last_prediction,
            p.pts_us AS stored_pts_us, p.frame AS stored_frame,
            (SELECT v.state FROM scenario_revisions v
             WHERE v.scenario_id = s.id AND v.revision = s.revision) AS revision_state,
            (SELECT max(f.revision) FROM scenario_revisions f
             WHERE f.scenario_id = s.id AND f.state = 'rolled_back') AS rolled_back
     FROM scenarios s LEFT JOIN scenario_progress p ON p.scenario_id = s.id",
    not_at_rest!(),
    " ORDER BY s.id"
);
pub(in super::super) const UNSETTLED_BY_STATE: &str =
    concat!("SELECT state, count(*) AS scenarios FROM scenarios", not_at_rest!(), " GROUP BY state");
pub(in super::super) const LIVE_WORKERS: &str = "
    SELECT w.scenario_id, w.generation, w.runner_id, w.incarnation, w.state, w.ordered_at, w.repeats, w.stop_ordered,
           s.memory_mib
    FROM workers w JOIN scenarios s ON s.id = w.scenario_id
    WHERE w.state IN ('pending', 'deployed', 'running') ORDER BY w.scenario_id";
const PRESENT_RUNNERS: &str = "
    SELECT incarnation, runner_id, status, expires_at, arrived_after FROM runners WHERE NOT lost ORDER BY incarnation";

/// The newest incarnation of each runner.
macro_rules! select_runner {
    ($condition:literal) => {
        concat!(
            "SELECT r.incarnation, r.runner_id, r.status, r.lost, r.expires_at, r.seen_at FROM runners r
             WHERE r.incarnation = (SELECT n.incarnation FROM runners n WHERE n.runner_id = r.runner_id
                                   ORDER BY n.incarnation DESC LIMIT 1) ",
            $condition
        )
    };
}
const RUNNERS: &str = select_runner!("ORDER BY r.runner_id");
const RUNNER: &str = select_runner!("AND r.runner_id = $1");

#[async_trait]
impl Orchestration for Database {
    async fn lead(
        &self,
        holder: Uuid,
        fresh: bool,
        lease_time: Duration,
        runner_lease_time: Duration,
    ) -> Result<Option<Epoch>> {
        self.transact_despite_full(|| lead(self, holder, fresh, lease_time, runner_lease_time)).await
    }

    async fn resign(&self, holder: Uuid) -> Result<()> {
        let mut tx = self.write().await?;
        sqlx::query(RESIGN).bind(key(holder)).execute(&mut *tx).await?;
        Ok(tx.commit().await?)
    }

    async fn record_heartbeats(
        &self,
        epoch: Epoch,
        heartbeats: &[RunnerStatus],
        arrived_after_us: i64,
        lease_time: Duration,
    ) -> Result<Fenced> {
        let record = || record_heartbeats(self, epoch, heartbeats, arrived_after_us, lease_time);
        self.transact_despite_full(record).await
    }

    async fn now_us(&self) -> Result<i64> {
        Ok(now_us(&mut *self.reader().acquire().await?).await?)
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        // One read transaction: all three see the same commit.
        let mut tx = self.read().await?;
        let scenarios = sqlx::query(UNSETTLED).fetch_all(&mut *tx).await?;
        let workers = sqlx::query(LIVE_WORKERS).fetch_all(&mut *tx).await?;
        let runners = sqlx::query(PRESENT_RUNNERS).fetch_all(&mut *tx).await?;
        let now_us = now_us(&mut tx).await?;
        tx.commit().await?;
        Ok(Snapshot {
            now_us,
            scenarios: scenarios.iter().map(scenario).collect::<Result<_>>()?,
            workers: workers.iter().map(worker).collect::<Result<_>>()?,
            runners: runners.iter().map(runner_facts).collect::<Result<_>>()?,
        })
    }

    async fn apply(&self, epoch: Epoch, action: &Action) -> Result<Fenced> {
        self.transact_despite_full(|| actions::apply(self, epoch, action)).await
    }

    async fn trim(&self, keep: Keep) -> Result<()> {
        self.transact_despite_full(|| housekeeping::trim(self, keep)).await
    }

    async fn drop_results(&self, age: Duration) -> Result<()> {
        self.transact_despite_full(|| drop_results(self, age)).await
    }
}

#[async_trait]
impl Operation for Database {
    async fn runners(&self) -> Result<Vec<RunnerRecord>> {
        sqlx::query(RUNNERS).fetch_all(self.reader()).await?.iter().map(runner_record).collect()
    }

    async fn runner(&self, id: &RunnerId) -> Result<Option<RunnerRecord>> {
        sqlx::query(RUNNER).bind(&id.0).fetch_optional(self.reader()).await?.as_ref().map(runner_record).transpose()
    }

    async fn ping(&self) -> Result<()> {
        self.probe().await
    }

    async fn counts(&self) -> Result<Counts> {
        let mut tx = self.read().await?;
        let by_state = sqlx::query(UNSETTLED_BY_STATE).fetch_all(&mut *tx).await?;
        let outbox = outbox::lag(&mut tx, None).await?;
        tx.commit().await?;
        let count = |row: &Row| Ok((row.parsed("state")?, row.col("scenarios")?));
        Ok(Counts { unsettled: by_state.iter().map(count).collect::<Result<_>>()?, outbox })
    }
}

async fn lead(
    db: &Database,
    holder: Uuid,
    fresh: bool,
    lease_time: Duration,
    runner_lease_time: Duration,
) -> Result<Option<Epoch>> {
    let mut tx = db.write().await?;
    let lease = lease(&mut tx).await?;
    let now = now_us(&mut tx).await?;
    let Some(granted) = lease.grant(holder, fresh, now) else { return Ok(None) };
    let take = sqlx::query(TAKE_LEASE).bind(granted.epoch).bind(key(holder)).bind(later(now, lease_time));
    take.execute(&mut *tx).await?;
    if granted.is_new {
        sqlx::query(EXTEND_RUNNERS).bind(later(now, runner_lease_time)).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(Some(granted.epoch))
}

/// As last granted. Nobody else changes it until the commit.
async fn lease(conn: &mut Conn) -> Result<Lease> {
    let Some(row) = sqlx::query(LEASE).fetch_optional(conn).await? else { return Ok(Lease::default()) };
    Ok(Lease { epoch: row.col("epoch")?, holder: identity(&row, "holder")?, expires_at_us: row.col("expires_at")? })
}

/// Whether `epoch` is in force. It stays so until the commit.
pub(super) async fn leads(conn: &mut Conn, epoch: Epoch) -> Result<bool> {
    let current: Option<Epoch> = sqlx::query_scalar(EPOCH).fetch_optional(conn).await?;
    Ok(current == Some(epoch))
}

async fn record_heartbeats(
    db: &Database,
    epoch: Epoch,
    heartbeats: &[RunnerStatus],
    arrived_after_us: i64,
    lease_time: Duration,
) -> Result<Fenced> {
    let mut tx = db.write().await?;
    if !leads(&mut tx, epoch).await? {
        return Ok(Fenced::NotLeader);
    }
    heartbeats::record(&mut tx, newest(heartbeats), arrived_after_us, lease_time).await?;
    tx.commit().await?;
    Ok(Fenced::Done)
}

fn scenario(row: &Row) -> Result<ScenarioFacts> {
    Ok(ScenarioFacts {
        id: ScenarioId(identity(row, "id")?),
        desired: row.parsed("desired")?,
        state: row.parsed("state")?,
        reason: row.json_opt("reason")?,
        generation: row.col("generation")?,
        revision: RevisionFacts {
            number: row.col("revision")?,
            is_pending: row.parsed_opt("revision_state")? == Some(RevisionState::Pending),
            rolled_back: row.col::<Option<i64>>("rolled_back")?.unwrap_or_default(),
        },
        stored: row.stored()?,
        placement: row.json_opt("placement")?.unwrap_or_default(),
        memory_mib: row.memory_mib()?,
        execution: ran(row.col("last_prediction")?),
        is_fetched: row.col("is_fetched")?,
        traceparent: row.col("traceparent")?,
    })
}

/// What ran the model for a prediction: releases that did not write it had the processor in f32. Nothing is
/// known of a prediction that a later release wrote in another form.
fn ran(prediction: Option<&str>) -> Option<Execution> {
    #[derive(Deserialize)]
    struct Outline {
        provenance: Provenance,
    }
    let Outline { provenance } = serde_json::from_str(prediction?).ok()?;
    Some(provenance.execution.unwrap_or_default())
}

fn worker(row: &Row) -> Result<WorkerFacts> {
    Ok(WorkerFacts {
        scenario_id: ScenarioId(identity(row, "scenario_id")?),
        generation: row.col("generation")?,
        runner_id: RunnerId(row.col("runner_id")?),
        incarnation: Incarnation(identity(row, "incarnation")?),
        state: row.parsed("state")?,
        memory_mib: row.memory_mib()?,
        order: Order { at_us: row.col("ordered_at")?, repeats: row.col::<i32>("repeats")?.unsigned_abs() },
        stop_ordered: row.col("stop_ordered")?,
    })
}

fn runner_facts(row: &Row) -> Result<RunnerFacts> {
    let status: RunnerStatus = row.json("status")?;
    let labels = status.all_labels();
    Ok(RunnerFacts {
        id: RunnerId(row.col("runner_id")?),
        incarnation: Incarnation(identity(row, "incarnation")?),
        expires_at_us: row.col("expires_at")?,
        capacity: status.capacity,
        memory_mib: status.memory_mib,
        draining: status.draining,
        labels,
        arrived_after_us: row.col("arrived_after")?,
        workers: status.workers,
    })
}

fn runner_record(row: &Row) -> Result<RunnerRecord> {
    Ok(RunnerRecord {
        id: RunnerId(row.col("runner_id")?),
        incarnation: Incarnation(identity(row, "incarnation")?),
        lost: row.col("lost")?,
        expires_at: row.time("expires_at")?,
        seen_at: row.time("seen_at")?,
        status: row.json("status")?,
    })
}
