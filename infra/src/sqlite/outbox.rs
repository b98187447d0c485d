//! The transactional outbox: messages written with the change they tell of, published by the relay.

use framehook_core::{
    ids::ScenarioId,
    message::{Envelope, Message},
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Database, now_us};
use crate::{row::RowExt as _, sql::to_json, store::Result};

const PUT: &str = "
    INSERT INTO outbox_scenario (id, envelope, scenario_id, deploys_scenario, deploys_generation, created_at)
    VALUES (?, ?, ?, ?, ?, ?)";
const UNPUBLISHED: &str = "SELECT envelope FROM outbox_scenario WHERE published_at IS NULL ORDER BY sequence LIMIT ?";
const MARK: &str = "UPDATE outbox_scenario SET published_at = ? WHERE id = ? AND published_at IS NULL";
const DEPLOYED: &str = "
    UPDATE workers SET state = 'deployed', ordered_at = ?1, updated_at = ?1
    WHERE state = 'pending' AND (scenario_id, generation) IN
        (SELECT deploys_scenario, deploys_generation FROM outbox_scenario WHERE id = ?2)";
/// The scenario was quicker gone than its last message was out.
const FORGET: &str = "DELETE FROM outbox_scenario WHERE id = ? AND scenario_id IN (SELECT id FROM deleted_scenarios)";

/// Puts a message about a scenario in. The caller wakes the relay once its transaction is committed.
pub(super) async fn put(conn: &mut SqliteConnection, about: ScenarioId, envelope: &Envelope, now: i64) -> Result<()> {
    let deploys = match &envelope.message {
        Message::Deploy(order) => Some((order.scenario_id.to_string(), order.generation)),
        _ => None,
    };
    let (scenario, generation) = deploys.unzip();
    let insert = sqlx::query(PUT).bind(envelope.id.to_string()).bind(to_json(envelope)?).bind(about.to_string());
    insert.bind(scenario).bind(generation).bind(now).execute(conn).await?;
    Ok(())
}

pub(super) async fn unpublished(db: &Database, limit: u32) -> Result<Vec<Envelope>> {
    let rows = sqlx::query(UNPUBLISHED).bind(limit).fetch_all(&db.reader).await?;
    rows.iter().map(|row| row.parsed("envelope")).collect()
}

pub(super) async fn mark_published(db: &Database, ids: &[Uuid]) -> Result<()> {
    let mut tx = db.write().await?;
    let now = now_us();
    for id in ids.iter().map(Uuid::to_string) {
        sqlx::query(MARK).bind(now).bind(&id).execute(&mut *tx).await?;
        sqlx::query(DEPLOYED).bind(now).bind(&id).execute(&mut *tx).await?;
        sqlx::query(FORGET).bind(&id).execute(&mut *tx).await?;
    }
    Ok(tx.commit().await?)
}
