//! Heartbeats: the runners' leases and the status of their workers, a statement for all of each.

use std::{collections::HashSet, time::Duration};

use framehook_core::message::RunnerStatus;
use sqlx::PgConnection;
use uuid::Uuid;

use super::now_us;
use crate::{
    sql::{hooks, later, signed, to_json},
    store::Result,
};

const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(hashtextextended('heartbeats', 0))";
/// Without those of an incarnation that has a newer one, or has sent this or a later heartbeat already.
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
/// Most repeat what they said before: those are compared and not written. What is not told of hooks stays.
const WORKER_STATUSES: &str = "
    UPDATE workers w SET status = t.status, updated_at = $5, hooks = coalesce(t.hooks, w.hooks)
    FROM (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $6::text[])
              AS t (scenario_id, generation, incarnation, status, hooks) ORDER BY scenario_id, generation) t
    WHERE w.scenario_id = t.scenario_id AND w.generation = t.generation AND w.incarnation = t.incarnation
      AND (w.status IS DISTINCT FROM t.status OR w.hooks IS DISTINCT FROM coalesce(t.hooks, w.hooks))";

/// Expects one heartbeat of each incarnation, an older incarnation of a runner before a newer one.
pub(super) async fn record(
    conn: &mut PgConnection,
    mut told: Vec<&RunnerStatus>,
    arrived_after_us: i64,
    lease_time: Duration,
) -> Result<()> {
    // Two lives of one runner, or two heartbeats of one life, are judged one after the other.
    sqlx::query(ONE_AT_A_TIME).execute(&mut *conn).await?;
    let now = now_us(&mut *conn).await?;
    let incarnations: Vec<_> = told.iter().map(|t| t.incarnation.0).collect();
    let runners: Vec<_> = told.iter().map(|t| t.runner_id.0.as_str()).collect();
    let sequences: Vec<_> = told.iter().map(|t| signed(t.sequence)).collect();
    let statuses = told.iter().map(|t| to_json(&t.without_hooks())).collect::<Result<Vec<_>>>()?;
    let record = sqlx::query_scalar(HEARTBEATS).bind(incarnations).bind(runners).bind(sequences).bind(statuses);
    let record = record.bind(later(now, lease_time)).bind(now).bind(arrived_after_us);
    let news: HashSet<Uuid> = record.fetch_all(&mut *conn).await?.into_iter().collect();
    told.retain(|t| news.contains(&t.incarnation.0));
    worker_statuses(conn, now, &told).await
}

async fn worker_statuses(conn: &mut PgConnection, now: i64, heartbeats: &[&RunnerStatus]) -> Result<()> {
    let workers: Vec<_> = heartbeats.iter().flat_map(|h| h.workers.iter().map(|w| (h.incarnation.0, w))).collect();
    let scenarios: Vec<_> = workers.iter().map(|(_, w)| w.scenario_id.0).collect();
    let generations: Vec<_> = workers.iter().map(|(_, w)| w.generation).collect();
    let incarnations: Vec<_> = workers.iter().map(|(incarnation, _)| *incarnation).collect();
    let statuses = workers.iter().map(|(_, w)| to_json(&w.without_hooks())).collect::<Result<Vec<_>>>()?;
    let hooks = workers.iter().map(|(_, w)| hooks(w)).collect::<Result<Vec<_>>>()?;
    let update = sqlx::query(WORKER_STATUSES).bind(scenarios).bind(generations).bind(incarnations).bind(statuses);
    update.bind(now).bind(hooks).execute(conn).await?;
    Ok(())
}
