//! The relays' side of the outbox: several share it, each claims what it publishes.

use std::time::Duration;

use framehook_core::message::Envelope;
use uuid::Uuid;

use super::{Database, now_us};
use crate::{row::RowExt as _, sql::later, store::Result};

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
