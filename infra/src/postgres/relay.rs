//! The relays' side of the outbox: several share it, each claims what it publishes.

use std::time::Duration;

use framehook_core::message::Envelope;
use uuid::Uuid;

use super::Database;
use crate::{row::RowExt as _, sql::later, store::Result};

/// What another relay is claiming at this moment is passed over, not waited for.
pub(super) const CLAIM: &str = concat!(
    "WITH free AS (
        SELECT sequence FROM outbox_scenario WHERE published_at IS NULL AND claimed_until <= ",
    now!(),
    " ORDER BY sequence LIMIT $2 FOR UPDATE SKIP LOCKED),
    claimed AS (
        UPDATE outbox_scenario o SET claimed_until = $1 + ",
    now!(),
    " FROM free WHERE o.sequence = free.sequence RETURNING o.sequence, o.envelope)
    SELECT envelope FROM claimed ORDER BY sequence"
);
const MARK: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT ",
    now!(),
    " AS now),
    published AS (
        UPDATE outbox_scenario SET published_at = now FROM clock WHERE id = ANY($1) AND published_at IS NULL
        RETURNING deploys_scenario, deploys_generation, now)
    UPDATE workers w SET state = 'deployed', ordered_at = now, updated_at = now FROM published p
    WHERE w.scenario_id = p.deploys_scenario AND w.generation = p.deploys_generation AND w.state = 'pending'"
);

pub(super) async fn claim(db: &Database, limit: u32, lease: Duration) -> Result<Vec<Envelope>> {
    let claim = sqlx::query(CLAIM).bind(later(0, lease)).bind(i64::from(limit));
    claim.fetch_all(&db.pool).await?.iter().map(|row| row.parsed("envelope")).collect()
}

pub(super) async fn mark_published(db: &Database, ids: &[Uuid]) -> Result<()> {
    sqlx::query(MARK).bind(ids).execute(&db.pool).await?;
    Ok(())
}
