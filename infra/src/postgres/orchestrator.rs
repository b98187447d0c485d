//! The orchestrator's lease, the runners' leases, and the snapshot that is planned from.

use std::{collections::HashSet, time::Duration};

use framehook_core::{
    evidence::Order,
    ids::{Epoch, Generation, Incarnation, RunnerId, ScenarioId},
    message::RunnerStatus,
    planner::{RunnerFacts, ScenarioFacts, Snapshot, WorkerFacts},
};
use sqlx::{PgConnection, postgres::PgRow};
use uuid::Uuid;

use super::{Database, now_us};
use crate::{
    row::RowExt as _,
    sql::{later, newest, signed, to_json},
    store::{Fenced, Result, RunnerRecord, StoreError},
};

const LEASE: &str = "SELECT epoch, holder, expires_at FROM leader_lease WHERE name = 'orchestrator' FOR UPDATE";
const EPOCH: &str = "SELECT epoch FROM leader_lease WHERE name = 'orchestrator' FOR SHARE";
const TAKE_LEASE: &str = "UPDATE leader_lease SET epoch = $1, holder = $2, expires_at = $3 WHERE name = 'orchestrator'";
const RESIGN: &str = "UPDATE leader_lease SET expires_at = 0 WHERE name = 'orchestrator' AND holder = $1";
const EXTEND_RUNNERS: &str = "UPDATE runners SET expires_at = greatest(expires_at, $1) WHERE NOT lost";

const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtextextended('heartbeats', 0))";
/// Without those of an incarnation that has a newer one, or has sent this or a later heartbeat
/// already.
const HEARTBEATS: &str = "
    INSERT INTO runners (incarnation, runner_id, sequence, status, expires_at, seen_at, arrived_after)
    SELECT t.incarnation, t.runner_id, t.sequence, t.status, $5, $6, $7
    FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) AS t (incarnation, runner_id, sequence, status)
    WHERE NOT EXISTS (SELECT 1 FROM runners r WHERE r.incarnation = t.incarnation AND r.sequence >= t.sequence)
      AND NOT EXISTS (SELECT 1 FROM runners r WHERE r.runner_id = t.runner_id AND r.incarnation > t.incarnation)
    ON CONFLICT (incarnation) DO UPDATE SET sequence = excluded.sequence, status = excluded.status,
        expires_at = excluded.expires_at, seen_at = excluded.seen_at, arrived_after = excluded.arrived_after,
        lost = false
    RETURNING incarnation";
/// Most of them say what they said before: those cost a look.
const WORKER_STATUSES: &str = "
    UPDATE workers w SET status = t.status, updated_at = $5
    FROM (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[])
              AS t (scenario_id, generation, incarnation, status) ORDER BY scenario_id, generation) t
    WHERE w.scenario_id = t.scenario_id AND w.generation = t.generation AND w.incarnation = t.incarnation
      AND w.status IS DISTINCT FROM t.status";

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
pub(super) const LIVE_WORKERS: &str = "
    SELECT w.scenario_id, w.generation, w.runner_id, w.incarnation, w.state, w.ordered_at, w.repeats, w.stop_ordered,
           s.memory_mib
    FROM workers w JOIN scenarios s ON s.id = w.scenario_id
    WHERE w.state IN ('pending', 'deployed', 'running') ORDER BY w.scenario_id";
const PRESENT_RUNNERS: &str = "
    SELECT incarnation, runner_id, status, expires_at, arrived_after FROM runners WHERE NOT lost ORDER BY incarnation";

/// Of each runner its newest life.
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

pub(super) async fn lead(
    db: &Database,
    holder: Uuid,
    fresh: bool,
    term: Duration,
    runner_term: Duration,
) -> Result<Option<Epoch>> {
    let mut tx = db.write().await?;
    let lease = sqlx::query(LEASE).fetch_one(&mut *tx).await?;
    let now = now_us(&mut tx).await?;
    let is_mine = lease.col::<Uuid>("holder")? == holder;
    let is_expired = lease.col::<i64>("expires_at")? <= now;
    if !is_mine && !is_expired {
        return Ok(None);
    }
    let is_new = !is_mine || is_expired || fresh;
    let epoch = lease.col::<Epoch>("epoch")? + Epoch::from(is_new);
    let take = sqlx::query(TAKE_LEASE).bind(epoch).bind(holder).bind(later(now, term));
    take.execute(&mut *tx).await?;
    if is_new {
        sqlx::query(EXTEND_RUNNERS).bind(later(now, runner_term)).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(Some(epoch))
}

pub(super) async fn resign(db: &Database, holder: Uuid) -> Result<()> {
    sqlx::query(RESIGN).bind(holder).execute(&db.pool).await?;
    Ok(())
}

/// Whether `epoch` is in force; the row is locked, so it stays so until the commit.
pub(super) async fn leads(conn: &mut PgConnection, epoch: Epoch) -> Result<bool> {
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
    let mut told = newest(heartbeats);
    let mut tx = db.write().await?;
    if !leads(&mut tx, epoch).await? {
        return Ok(Fenced::NotLeader);
    }
    // Two lives of one runner, or two heartbeats of one life, are judged one after the other.
    sqlx::query(ONE_AT_A_TIME).execute(&mut *tx).await?;
    let now = now_us(&mut tx).await?;
    let incarnations: Vec<_> = told.iter().map(|t| t.incarnation.0).collect();
    let runners: Vec<_> = told.iter().map(|t| t.runner_id.0.as_str()).collect();
    let sequences: Vec<_> = told.iter().map(|t| signed(t.sequence)).collect();
    let statuses = told.iter().map(to_json).collect::<Result<Vec<_>>>()?;
    let record = sqlx::query_scalar(HEARTBEATS).bind(incarnations).bind(runners).bind(sequences).bind(statuses);
    let record = record.bind(later(now, term)).bind(now).bind(arrived_after_us);
    let news: HashSet<Uuid> = record.fetch_all(&mut *tx).await?.into_iter().collect();
    told.retain(|t| news.contains(&t.incarnation.0));
    worker_statuses(&mut tx, now, &told).await?;
    tx.commit().await?;
    Ok(Fenced::Done(()))
}

async fn worker_statuses(conn: &mut PgConnection, now: i64, heartbeats: &[&RunnerStatus]) -> Result<()> {
    let workers: Vec<_> = heartbeats.iter().flat_map(|h| h.workers.iter().map(|w| (h.incarnation.0, w))).collect();
    let scenarios: Vec<_> = workers.iter().map(|(_, w)| w.scenario_id.0).collect();
    let generations: Vec<_> = workers.iter().map(|(_, w)| w.generation).collect();
    let incarnations: Vec<_> = workers.iter().map(|(incarnation, _)| *incarnation).collect();
    let statuses = workers.iter().map(|(_, w)| to_json(w)).collect::<Result<Vec<_>>>()?;
    let update = sqlx::query(WORKER_STATUSES).bind(scenarios).bind(generations).bind(incarnations).bind(statuses);
    update.bind(now).execute(conn).await?;
    Ok(())
}

pub(super) async fn snapshot(db: &Database) -> Result<Snapshot> {
    // One read transaction: all three see the same commit.
    let mut tx = db.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
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

fn scenario(row: &PgRow) -> Result<ScenarioFacts> {
    Ok(ScenarioFacts {
        id: ScenarioId(row.col("id")?),
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

fn worker(row: &PgRow) -> Result<WorkerFacts> {
    Ok(WorkerFacts {
        scenario_id: ScenarioId(row.col("scenario_id")?),
        generation: row.col::<Generation>("generation")?,
        runner_id: RunnerId(row.col("runner_id")?),
        incarnation: Incarnation(row.col("incarnation")?),
        state: row.parsed("state")?,
        memory_mib: row.memory_mib()?,
        order: Order { at_us: row.col("ordered_at")?, repeats: row.col::<i32>("repeats")?.unsigned_abs() },
        stop_ordered: row.col("stop_ordered")?,
    })
}

fn runner_facts(row: &PgRow) -> Result<RunnerFacts> {
    let status: RunnerStatus = row.json("status")?;
    Ok(RunnerFacts {
        id: RunnerId(row.col("runner_id")?),
        incarnation: Incarnation(row.col("incarnation")?),
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
    sqlx::query(RUNNERS).fetch_all(&db.pool).await?.iter().map(runner_record).collect()
}

pub(super) async fn runner(db: &Database, id: &RunnerId) -> Result<Option<RunnerRecord>> {
    sqlx::query(RUNNER).bind(&id.0).fetch_optional(&db.pool).await?.as_ref().map(runner_record).transpose()
}

fn runner_record(row: &PgRow) -> Result<RunnerRecord, StoreError> {
    Ok(RunnerRecord {
        id: RunnerId(row.col("runner_id")?),
        incarnation: Incarnation(row.col("incarnation")?),
        lost: row.col("lost")?,
        expires_at: row.time("expires_at")?,
        seen_at: row.time("seen_at")?,
        status: row.json("status")?,
    })
}
