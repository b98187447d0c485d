//! The orchestrator's lease, the runners' leases, and the snapshot that is planned from.

use std::time::Duration;

use framehook_core::{
    evidence::Order,
    ids::{Epoch, Generation, RunnerId, ScenarioId},
    message::RunnerStatus,
    planner::{RunnerFacts, ScenarioFacts, Snapshot, WorkerFacts},
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{Database, now_us};
use crate::{
    row::RowExt as _,
    sql::{later, newest, signed, to_json},
    store::{Fenced, Result, RunnerRecord, StoreError},
};

const LEASE: &str = "SELECT epoch, holder, expires_at FROM leader_lease WHERE name = 'orchestrator'";
const EPOCH: &str = "SELECT epoch FROM leader_lease WHERE name = 'orchestrator'";
const TAKE_LEASE: &str = "
    INSERT INTO leader_lease (name, epoch, holder, expires_at) VALUES ('orchestrator', ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder, expires_at = excluded.expires_at";
const RESIGN: &str = "UPDATE leader_lease SET expires_at = 0 WHERE name = 'orchestrator' AND holder = ?";
const EXTEND_RUNNERS: &str = "UPDATE runners SET expires_at = max(expires_at, ?) WHERE lost = 0";

/// An incarnation that has a newer one, or has sent this or a later heartbeat already.
const IS_PAST: &str = "
    SELECT EXISTS (SELECT 1 FROM runners WHERE incarnation = ?1 AND sequence >= ?3)
        OR EXISTS (SELECT 1 FROM runners WHERE runner_id = ?2 AND incarnation > ?1)";
const HEARTBEAT: &str = "
    INSERT INTO runners (incarnation, runner_id, sequence, status, expires_at, seen_at, arrived_after)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (incarnation) DO UPDATE SET sequence = excluded.sequence, status = excluded.status,
        expires_at = excluded.expires_at, seen_at = excluded.seen_at, arrived_after = excluded.arrived_after, lost = 0";
/// Most of them say what they said before: those cost a look.
const WORKER_STATUS: &str = "
    UPDATE workers SET status = ?1, updated_at = ?2
    WHERE scenario_id = ?3 AND generation = ?4 AND incarnation = ?5 AND status IS NOT ?1";

/// The condition is that of the index `scenarios_not_at_rest`, word for word: only so is it used. `source` is the
/// first that is written of a resolved scenario.
pub(super) const UNSETTLED: &str = "
    SELECT s.id, s.desired, s.state, s.reason, s.generation, s.placement, s.memory_mib, s.traceparent,
           s.resolved LIKE '{\"source\":{\"url\":%' AS is_fetched,
           p.pts_us AS stored_pts_us, p.frame AS stored_frame
    FROM scenarios s LEFT JOIN scenario_progress p ON p.scenario_id = s.id
    WHERE purged_at IS NULL
      AND (state NOT IN ('stopped', 'completed', 'failed') OR desired = 'deleted'
           OR (state = 'stopped' AND desired = 'running'))
    ORDER BY s.id";
const LIVE_WORKERS: &str = "
    SELECT w.scenario_id, w.generation, w.runner_id, w.incarnation, w.state, w.ordered_at, w.repeats, w.stop_ordered,
           s.memory_mib
    FROM workers w JOIN scenarios s ON s.id = w.scenario_id
    WHERE w.state IN ('pending', 'deployed', 'running') ORDER BY w.scenario_id";
const PRESENT_RUNNERS: &str = "
    SELECT incarnation, runner_id, status, expires_at, arrived_after FROM runners WHERE lost = 0 ORDER BY incarnation";

/// Of each runner its newest life.
macro_rules! select_runner {
    ($condition:literal) => {
        concat!(
            "SELECT r.incarnation, r.runner_id, r.status, r.lost, r.expires_at, r.seen_at FROM runners r
             WHERE r.incarnation = (SELECT max(n.incarnation) FROM runners n WHERE n.runner_id = r.runner_id) ",
            $condition
        )
    };
}
const RUNNERS: &str = select_runner!("ORDER BY r.runner_id");
const RUNNER: &str = select_runner!("AND r.runner_id = ?");

pub(super) async fn lead(
    db: &Database,
    holder: Uuid,
    fresh: bool,
    term: Duration,
    runner_term: Duration,
) -> Result<Option<Epoch>> {
    let mut tx = db.write().await?;
    let now = now_us();
    let lease = sqlx::query(LEASE).fetch_optional(&mut *tx).await?;
    let (epoch, is_new) = match &lease {
        None => (1, true),
        Some(row) => {
            let is_mine = row.parsed::<Uuid>("holder")? == holder;
            let is_expired = row.col::<i64>("expires_at")? <= now;
            if !is_mine && !is_expired {
                return Ok(None);
            }
            let is_new = !is_mine || is_expired || fresh;
            (row.col::<Epoch>("epoch")? + Epoch::from(is_new), is_new)
        }
    };
    let take = sqlx::query(TAKE_LEASE).bind(epoch).bind(holder.to_string()).bind(later(now, term));
    take.execute(&mut *tx).await?;
    if is_new {
        sqlx::query(EXTEND_RUNNERS).bind(later(now, runner_term)).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(Some(epoch))
}

pub(super) async fn resign(db: &Database, holder: Uuid) -> Result<()> {
    sqlx::query(RESIGN).bind(holder.to_string()).execute(&db.writer).await?;
    Ok(())
}

/// Whether `epoch` is in force; the write lock is held, so it stays so until the commit.
pub(super) async fn leads(conn: &mut SqliteConnection, epoch: Epoch) -> Result<bool> {
    let current: Option<Epoch> = sqlx::query_scalar(EPOCH).fetch_optional(conn).await?;
    Ok(current == Some(epoch))
}

pub(super) async fn heartbeats(
    db: &Database,
    epoch: Epoch,
    heartbeats: &[RunnerStatus],
    arrived_after_us: i64,
    term: Duration,
) -> Result<Fenced<()>> {
    let mut tx = db.write().await?;
    if !leads(&mut tx, epoch).await? {
        return Ok(Fenced::NotLeader);
    }
    let now = now_us();
    for status in newest(heartbeats) {
        let (incarnation, sequence) = (status.incarnation.to_string(), signed(status.sequence));
        let is_past = sqlx::query_scalar(IS_PAST).bind(&incarnation).bind(&status.runner_id.0).bind(sequence);
        if is_past.fetch_one(&mut *tx).await? {
            continue;
        }
        let record = sqlx::query(HEARTBEAT).bind(&incarnation).bind(&status.runner_id.0).bind(sequence);
        let record = record.bind(to_json(status)?).bind(later(now, term)).bind(now).bind(arrived_after_us);
        record.execute(&mut *tx).await?;
        for worker in &status.workers {
            let update = sqlx::query(WORKER_STATUS).bind(to_json(worker)?).bind(now);
            let update = update.bind(worker.scenario_id.to_string()).bind(worker.generation).bind(&incarnation);
            update.execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    Ok(Fenced::Done(()))
}

pub(super) async fn snapshot(db: &Database) -> Result<Snapshot> {
    // One read transaction: all three see the same commit.
    let mut tx = db.reader.begin().await?;
    let scenarios = sqlx::query(UNSETTLED).fetch_all(&mut *tx).await?;
    let workers = sqlx::query(LIVE_WORKERS).fetch_all(&mut *tx).await?;
    let runners = sqlx::query(PRESENT_RUNNERS).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    Ok(Snapshot {
        now_us: now_us(),
        scenarios: scenarios.iter().map(scenario).collect::<Result<_>>()?,
        workers: workers.iter().map(worker).collect::<Result<_>>()?,
        runners: runners.iter().map(runner_facts).collect::<Result<_>>()?,
    })
}

fn scenario(row: &SqliteRow) -> Result<ScenarioFacts> {
    Ok(ScenarioFacts {
        id: row.parsed::<ScenarioId>("id")?,
        desired: row.parsed("desired")?,
        state: row.parsed("state")?,
        reason: row.json_opt("reason")?,
        generation: row.col("generation")?,
        stored: row.stored()?,
        placement: row.json_opt("placement")?.unwrap_or_default(),
        memory_mib: row.memory_mib()?,
        is_fetched: row.col("is_fetched")?,
        traceparent: row.col("traceparent")?,
    })
}

fn worker(row: &SqliteRow) -> Result<WorkerFacts> {
    Ok(WorkerFacts {
        scenario_id: row.parsed("scenario_id")?,
        generation: row.col::<Generation>("generation")?,
        runner_id: RunnerId(row.col("runner_id")?),
        incarnation: row.parsed("incarnation")?,
        state: row.parsed("state")?,
        memory_mib: row.memory_mib()?,
        order: Order { at_us: row.col("ordered_at")?, repeats: row.col("repeats")? },
        stop_ordered: row.col("stop_ordered")?,
    })
}

fn runner_facts(row: &SqliteRow) -> Result<RunnerFacts> {
    let status: RunnerStatus = row.json("status")?;
    Ok(RunnerFacts {
        id: RunnerId(row.col("runner_id")?),
        incarnation: row.parsed("incarnation")?,
        expires_at_us: row.col("expires_at")?,
        capacity: status.capacity,
        memory_mib: status.memory_mib,
        draining: status.draining,
        labels: status.labels,
        arrived_after_us: row.col("arrived_after")?,
        workers: status.workers,
    })
}

pub(super) async fn runners(db: &Database) -> Result<Vec<RunnerRecord>> {
    sqlx::query(RUNNERS).fetch_all(&db.reader).await?.iter().map(runner_record).collect()
}

pub(super) async fn runner(db: &Database, id: &RunnerId) -> Result<Option<RunnerRecord>> {
    sqlx::query(RUNNER).bind(&id.0).fetch_optional(&db.reader).await?.as_ref().map(runner_record).transpose()
}

fn runner_record(row: &SqliteRow) -> Result<RunnerRecord, StoreError> {
    Ok(RunnerRecord {
        id: RunnerId(row.col("runner_id")?),
        incarnation: row.parsed("incarnation")?,
        lost: row.col("lost")?,
        expires_at: row.time("expires_at")?,
        seen_at: row.time("seen_at")?,
        status: row.json("status")?,
    })
}
