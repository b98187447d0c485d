//! Heartbeats: the runners' leases and the status of their workers.

use std::time::Duration;

use framehook_core::message::RunnerStatus;
use sqlx::SqliteConnection;

use super::clock_us;
use crate::{
    sql::{hooks, later, signed, to_json},
    store::Result,
};

/// An incarnation that has a newer one, or has sent this or a later heartbeat already.
const IS_PAST: &str = "
    SELECT EXISTS (SELECT 1 FROM runners WHERE incarnation = ?1 AND sequence >= ?3)
        OR EXISTS (SELECT 1 FROM runners WHERE runner_id = ?2 AND incarnation > ?1)";
const HEARTBEAT: &str = "
    INSERT INTO runners (incarnation, runner_id, sequence, status, expires_at, seen_at, arrived_after)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (incarnation) DO UPDATE SET sequence = excluded.sequence, status = excluded.status,
        expires_at = excluded.expires_at, seen_at = excluded.seen_at, arrived_after = excluded.arrived_after, lost = 0";
/// Most repeat what they said before: those are compared and not written. What is not told of hooks stays.
const WORKER_STATUS: &str = "
    UPDATE workers SET status = ?1, updated_at = ?2, hooks = coalesce(?6, hooks)
    WHERE scenario_id = ?3 AND generation = ?4 AND incarnation = ?5
      AND (status IS NOT ?1 OR hooks IS NOT coalesce(?6, hooks))";

/// Expects one heartbeat of each incarnation, an older incarnation of a runner before a newer one.
pub(super) async fn record(
    conn: &mut SqliteConnection,
    told: Vec<&RunnerStatus>,
    arrived_after_us: i64,
    lease_time: Duration,
) -> Result<()> {
    let now = clock_us();
    for status in told {
        let (incarnation, sequence) = (status.incarnation.to_string(), signed(status.sequence));
        let is_past = sqlx::query_scalar(IS_PAST).bind(&incarnation).bind(&status.runner_id.0).bind(sequence);
        if is_past.fetch_one(&mut *conn).await? {
            continue;
        }
        let record = sqlx::query(HEARTBEAT).bind(&incarnation).bind(&status.runner_id.0).bind(sequence);
        let record = record
            .bind(to_json(&status.without_hooks())?)
            .bind(later(now, lease_time))
            .bind(now)
            .bind(arrived_after_us);
        record.execute(&mut *conn).await?;
        for worker in &status.workers {
            let update = sqlx::query(WORKER_STATUS).bind(to_json(&worker.without_hooks())?).bind(now);
            let update = update.bind(worker.scenario_id.to_string()).bind(worker.generation).bind(&incarnation);
            update.bind(hooks(worker)?).execute(&mut *conn).await?;
        }
    }
    Ok(())
}
