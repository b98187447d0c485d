//! Removes what there is of a deleted scenario, in steps, and remembers for a while that there was one.

use framehook_core::{ids::ScenarioId, writes::may_purge};
use uuid::Uuid;

use super::{Conn, Database, actions::HAS_LIVE_WORKER, identity, key, now_us};
use crate::{row::RowExt as _, store::Result};

/// Rows of one table that one step removes. A long scenario takes several, so that nobody else's write waits
/// long behind one, and that a full disk has room for its log.
const STEP: u32 = 2_000;

const STATE: &str = concat!("SELECT desired, state FROM scenarios WHERE id = $1 AND purged_at IS NULL", lock!(update));
/// A scenario may have any number of rows of these.
const PURGE_MANY: [&str; 9] = [
    "DELETE FROM scenario_results WHERE scenario_id = $1 AND (pts_us, captured_at) IN
        (SELECT pts_us, captured_at FROM scenario_results WHERE scenario_id = $1 LIMIT $2)",
    "DELETE FROM scenario_history WHERE sequence IN
        (SELECT sequence FROM scenario_history WHERE scenario_id = $1 LIMIT $2)",
    "DELETE FROM workers WHERE scenario_id = $1 AND generation IN
        (SELECT generation FROM workers WHERE scenario_id = $1 LIMIT $2)",
    "DELETE FROM outbox_scenario WHERE sequence IN
        (SELECT sequence FROM outbox_scenario WHERE scenario_id = $1 AND published_at IS NOT NULL LIMIT $2)",
    "DELETE FROM hook_state WHERE scenario_id = $1 AND (hook, key) IN
        (SELECT hook, key FROM hook_state WHERE scenario_id = $1 LIMIT $2)",
    "DELETE FROM scenario_logs WHERE scenario_id = $1 AND sequence IN
        (SELECT sequence FROM scenario_logs WHERE scenario_id = $1 LIMIT $2)",
    "DELETE FROM shadow_differences WHERE scenario_id = $1 AND sequence IN
        (SELECT sequence FROM shadow_differences WHERE scenario_id = $1 LIMIT $2)",
    "DELETE FROM scenario_revisions WHERE scenario_id = $1 AND revision IN
        (SELECT revision FROM scenario_revisions WHERE scenario_id = $1 LIMIT $2)",
    "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE key = CAST($1 AS text) LIMIT $2)",
];
/// The scenario itself last.
const PURGE_REST: [&str; 4] = [
    "DELETE FROM shadows WHERE scenario_id = $1",
    "DELETE FROM scenario_progress WHERE scenario_id = $1",
    "DELETE FROM scenario_artifacts WHERE scenario_id = $1",
    "DELETE FROM scenarios WHERE id = $1",
];
const REMEMBER: &str = "
    INSERT INTO deleted_scenarios (id, idempotency_key, idempotency_request, deleted_at)
    SELECT id, idempotency_key, idempotency_request, $2 FROM scenarios WHERE id = $1";
/// As earlier releases left them.
const PURGED: &str = concat!("SELECT id FROM scenarios WHERE purged_at IS NOT NULL LIMIT 1", lock!(update, or skip));

/// `false`: the scenario must stay, or is gone.
pub(super) async fn purge(conn: &mut Conn, now: i64, id: ScenarioId) -> Result<bool> {
    let state = sqlx::query(STATE).bind(key(id.0)).fetch_optional(&mut *conn).await?;
    let has_worker = sqlx::query_scalar(HAS_LIVE_WORKER).bind(key(id.0)).fetch_one(&mut *conn).await?;
    match state {
        Some(row) if may_purge(row.parsed("desired")?, row.parsed("state")?, has_worker) => {
            remove(conn, id.0, now).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Removes what earlier releases left of purged scenarios.
pub(super) async fn remove_left_over(db: &Database) -> Result<()> {
    loop {
        let mut tx = db.write().await?;
        let Some(row) = sqlx::query(PURGED).fetch_optional(&mut *tx).await? else { return Ok(()) };
        let now = now_us(&mut tx).await?;
        remove(&mut tx, identity(&row, "id")?, now).await?;
        tx.commit().await?;
    }
}

/// Some of what there is of a scenario; or the rest, and what is remembered of it.
async fn remove(conn: &mut Conn, id: Uuid, now: i64) -> Result<()> {
    for statement in PURGE_MANY {
        let removed = sqlx::query(statement).bind(key(id)).bind(i64::from(STEP)).execute(&mut *conn).await?;
        if removed.rows_affected() == u64::from(STEP) {
            return Ok(());
        }
    }
    sqlx::query(REMEMBER).bind(key(id)).bind(now).execute(&mut *conn).await?;
    for statement in PURGE_REST {
        sqlx::query(statement).bind(key(id)).execute(&mut *conn).await?;
    }
    Ok(())
}
