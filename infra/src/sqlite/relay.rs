//! The relay's side of the outbox. One process, one relay: nobody to keep a message from.

use std::time::Duration;

use framehook_core::message::Envelope;
use uuid::Uuid;

use super::{Database, clock_us};
use crate::store::{Outbox as _, Result};

const MARK: &str = "UPDATE outbox_scenario SET published_at = ? WHERE id = ? AND published_at IS NULL";
const DEPLOYED: &str = "
    UPDATE workers SET state = 'deployed', ordered_at = ?1, updated_at = ?1
    WHERE state = 'pending' AND (scenario_id, generation) IN
        (SELECT deploys_scenario, deploys_generation FROM outbox_scenario WHERE id = ?2)";
/// The scenario was quicker gone than its last message was out.
const FORGET: &str = "DELETE FROM outbox_scenario WHERE id = ? AND scenario_id IN (SELECT id FROM deleted_scenarios)";

pub(super) async fn claim(db: &Database, limit: u32, _lease: Duration) -> Result<Vec<Envelope>> {
    db.outbox(limit).await
}

pub(super) async fn mark_published(db: &Database, ids: &[Uuid]) -> Result<()> {
    let mut tx = db.write().await?;
    let now = clock_us();
    for id in ids.iter().map(Uuid::to_string) {
        sqlx::query(MARK).bind(now).bind(&id).execute(&mut *tx).await?;
        sqlx::query(DEPLOYED).bind(now).bind(&id).execute(&mut *tx).await?;
        sqlx::query(FORGET).bind(&id).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}
