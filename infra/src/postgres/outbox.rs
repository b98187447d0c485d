//! The transactional outbox: messages written with the change they tell of, published by the relays.

use std::time::Duration;

use framehook_core::{
    ids::ScenarioId,
    message::{Envelope, Message},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Database, actions, now_us, partitions};
use crate::{
    row::RowExt as _,
    sql::{later, to_json},
    store::{KEEP_DELETED, Keep, Result},
};

const PUT: &str = "
    INSERT INTO outbox_scenario (id, envelope, scenario_id, deploys_scenario, deploys_generation, created_at)
    VALUES ($1, $2, $3, $4, $5, $6)";
pub(super) const UNPUBLISHED: &str =
    "SELECT envelope FROM outbox_scenario WHERE published_at IS NULL ORDER BY sequence LIMIT $1";
/// What another relay is claiming at this moment is passed over, not waited for.
pub(super) const CLAIM: &str = "
    WITH free AS (
        SELECT sequence FROM outbox_scenario WHERE published_at IS NULL AND claimed_until <= $1
        ORDER BY sequence LIMIT $3 FOR UPDATE SKIP LOCKED),
    claimed AS (
        UPDATE outbox_scenario o SET claimed_until = $2 FROM free WHERE o.sequence = free.sequence
        RETURNING o.sequence, o.envelope)
    SELECT envelope FROM claimed ORDER BY sequence";
const MARK: &str = "
    WITH published AS (
        UPDATE outbox_scenario SET published_at = $1 WHERE id = ANY($2) AND published_at IS NULL
        RETURNING deploys_scenario, deploys_generation)
    UPDATE workers w SET state = 'deployed', ordered_at = $1, updated_at = $1 FROM published p
    WHERE w.scenario_id = p.deploys_scenario AND w.generation = p.deploys_generation AND w.state = 'pending'";
const TRIM_OUTBOX: &str = "DELETE FROM outbox_scenario WHERE published_at < $1";
const TRIM_RUNNERS: &str = "
    DELETE FROM runners r WHERE seen_at < $1 AND EXISTS
        (SELECT 1 FROM runners n WHERE n.runner_id = r.runner_id AND n.incarnation > r.incarnation)";
const TRIM_DEAD_LETTERS: &str = "DELETE FROM dead_letters WHERE at < $1";
const TRIM_DELETED: &str = "DELETE FROM deleted_scenarios WHERE deleted_at < $1";
/// As earlier releases left them.
const PURGED: &str = "SELECT id FROM scenarios WHERE purged_at IS NOT NULL LIMIT 1 FOR UPDATE SKIP LOCKED";

/// Puts a message about a scenario in. The caller wakes the relay once its transaction is committed.
pub(super) async fn put(conn: &mut PgConnection, about: ScenarioId, envelope: &Envelope, now: i64) -> Result<()> {
    let deploys = match &envelope.message {
        Message::Deploy(order) => Some((order.scenario_id.0, order.generation)),
        _ => None,
    };
    let (scenario, generation) = deploys.unzip();
    let insert = sqlx::query(PUT).bind(envelope.id).bind(to_json(envelope)?).bind(about.0);
    insert.bind(scenario).bind(generation).bind(now).execute(conn).await?;
    Ok(())
}

pub(super) async fn unpublished(db: &Database, limit: u32) -> Result<Vec<Envelope>> {
    let rows = sqlx::query(UNPUBLISHED).bind(i64::from(limit)).fetch_all(&db.pool).await?;
    rows.iter().map(|row| row.parsed("envelope")).collect()
}

pub(super) async fn claim(db: &Database, limit: u32, lease: Duration) -> Result<Vec<Envelope>> {
    let mut tx = db.write().await?;
    let now = now_us(&mut tx).await?;
    let claim = sqlx::query(CLAIM).bind(now).bind(later(now, lease)).bind(i64::from(limit));
    let rows = claim.fetch_all(&mut *tx).await?;
    tx.commit().await?;
    rows.iter().map(|row| row.parsed("envelope")).collect()
}

pub(super) async fn mark_published(db: &Database, ids: &[Uuid]) -> Result<()> {
    let mut tx = db.write().await?;
    let now = now_us(&mut tx).await?;
    sqlx::query(MARK).bind(now).bind(ids).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

pub(super) async fn trim(db: &Database, keep: Keep) -> Result<()> {
    let mut tx = db.write().await?;
    let now = now_us(&mut tx).await?;
    for (statement, age) in [
        (TRIM_OUTBOX, keep.published),
        (TRIM_RUNNERS, keep.published),
        (TRIM_DEAD_LETTERS, keep.dead_letters),
        (TRIM_DELETED, KEEP_DELETED),
    ] {
        sqlx::query(statement).bind(now.saturating_sub(later(0, age))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    while remove_purged(db).await? {}
    partitions::ahead(db).await
}

/// False: there is none any more.
async fn remove_purged(db: &Database) -> Result<bool> {
    let mut tx = db.write().await?;
    let Some(id) = sqlx::query_scalar::<_, Uuid>(PURGED).fetch_optional(&mut *tx).await? else { return Ok(false) };
    let now = now_us(&mut tx).await?;
    actions::remove(&mut tx, id, now).await?;
    tx.commit().await?;
    Ok(true)
}
