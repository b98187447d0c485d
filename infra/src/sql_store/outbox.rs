//! The transactional outbox: messages written with the change they tell of. How they are published is
//! `relay`'s business.

use std::time::Duration;

use async_trait::async_trait;
use framehook_core::{
    delivery::OutboxLag,
    ids::ScenarioId,
    message::{Envelope, Message},
};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Conn, Database, key, now_us, relay};
use crate::{
    row::RowExt as _,
    sql::{to_json, unsigned},
    store::{Outbox, Result},
};

const PUT: &str = "
    INSERT INTO outbox_scenario (id, envelope, scenario_id, deploys_scenario, deploys_generation, created_at)
    VALUES ($1, $2, $3, $4, $5, $6)";
pub(in super::super) const UNPUBLISHED: &str =
    "SELECT envelope FROM outbox_scenario WHERE published_at IS NULL ORDER BY sequence LIMIT $1";
/// The unpublished ones of all scenarios are looked through: a relay leaves few.
pub(in super::super) const LAG: &str = "
    SELECT count(*) AS messages, min(created_at) AS oldest FROM outbox_scenario
    WHERE published_at IS NULL AND (scenario_id = $1 OR $1 IS NULL)";

#[async_trait]
impl Outbox for Database {
    async fn outbox(&self, limit: u32) -> Result<Vec<Envelope>> {
        let rows = sqlx::query(UNPUBLISHED).bind(i64::from(limit)).fetch_all(self.reader()).await?;
        rows.iter().map(|row| row.parsed("envelope")).collect()
    }

    async fn claim_outbox(&self, limit: u32, lease: Duration) -> Result<Vec<Envelope>> {
        relay::claim(self, limit, lease).await
    }

    async fn mark_published(&self, ids: &[Uuid]) -> Result<()> {
        self.transact_despite_full(|| relay::mark_published(self, ids)).await
    }

    async fn outbox_filled(&self) {
        self.outbox.notified().await;
    }
}

/// Puts a message about a scenario in. The caller wakes the relay once its transaction is committed.
pub(in super::super) async fn put(
    conn: &mut Conn,
    about: ScenarioId,
    message: Message,
    traceparent: Option<String>,
    now: i64,
) -> Result<()> {
    let deploys = match &message {
        Message::Deploy(order) => Some((key(order.scenario_id.0), order.generation)),
        _ => None,
    };
    let (scenario, generation) = deploys.unzip();
    let envelope = envelope(message, traceparent, now);
    let insert = sqlx::query(PUT).bind(key(envelope.id)).bind(to_json(&envelope)?).bind(key(about.0));
    insert.bind(scenario).bind(generation).bind(now).execute(conn).await?;
    Ok(())
}

/// The envelope of a message about something that happens now.
pub(super) fn envelope(message: Message, traceparent: Option<String>, now: i64) -> Envelope {
    let time = Timestamp::from_microsecond(now).unwrap_or_default();
    Envelope { traceparent, ..Envelope::new(message, time) }
}

/// What waits to be published: about one scenario, or all there is.
pub(super) async fn lag(conn: &mut Conn, about: Option<ScenarioId>) -> Result<OutboxLag> {
    let lag = sqlx::query(LAG).bind(about.map(|id| key(id.0))).fetch_one(&mut *conn).await?;
    let (now, oldest): (i64, Option<i64>) = (now_us(conn).await?, lag.col("oldest")?);
    let oldest_age_ms = oldest.map(|at| unsigned((now - at) / 1000));
    Ok(OutboxLag { messages: unsigned(lag.col("messages")?), oldest_age_ms })
}
