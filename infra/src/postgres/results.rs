//! Predictions: the inbox's write and the API's read.

use std::collections::{BTreeMap, BTreeSet};

use framehook_core::{
    ids::ScenarioId,
    prediction::{Position, Prediction},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Database, now_us, row::RowExt as _};
use crate::{
    sql::{signed, to_json},
    store::{DeadLetter, PredictionQuery, Result, ResultBatch, StoreOutcome},
};

const OFFSET: &str = "SELECT next_offset FROM consumer_offsets WHERE consumer = $1 AND topic = $2 AND partition = $3";
const MOVE_OFFSET: &str = "
    UPDATE consumer_offsets SET next_offset = $4
    WHERE consumer = $1 AND topic = $2 AND partition = $3 AND next_offset = $5";
/// From 0, where there may be no row yet. Who loses against another finds its row.
const FIRST_OFFSET: &str = "
    INSERT INTO consumer_offsets (consumer, topic, partition, next_offset) VALUES ($1, $2, $3, $4)
    ON CONFLICT (consumer, topic, partition) DO UPDATE SET next_offset = excluded.next_offset
    WHERE consumer_offsets.next_offset = $5";
/// The lock keeps a scenario from being deleted and purged until these rows are there to be purged with it.
const ACCEPT_RESULTS: &str =
    "SELECT id FROM scenarios WHERE id = ANY($1) AND desired <> 'deleted' ORDER BY id FOR SHARE";
pub(super) const UPSERT: &str = "
    INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[])
    ON CONFLICT (scenario_id, pts_us, captured_at) DO UPDATE SET generation = excluded.generation,
        frame = excluded.frame, prediction = excluded.prediction
    WHERE excluded.generation >= scenario_results.generation";
const PROGRESS: &str = "
    INSERT INTO scenario_progress (scenario_id, pts_us, frame)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[])
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = excluded.pts_us, frame = excluded.frame
    WHERE (excluded.pts_us, excluded.frame) > (scenario_progress.pts_us, scenario_progress.frame)";
const DEAD_LETTER: &str = r#"
    INSERT INTO dead_letters (consumer, topic, partition, "offset", key, payload, reason, at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"#;
pub(super) const RANGE: &str = "
    SELECT prediction FROM scenario_results WHERE scenario_id = $1 AND pts_us >= $2 AND pts_us <= $3
    ORDER BY pts_us LIMIT $4";

pub(super) async fn consumer_offset(db: &Database, consumer: &str, topic: &str, partition: i32) -> Result<i64> {
    let query = sqlx::query_scalar(OFFSET).bind(consumer).bind(topic).bind(partition);
    Ok(query.fetch_optional(&db.pool).await?.unwrap_or_default())
}

pub(super) async fn store(db: &Database, batch: &ResultBatch) -> Result<StoreOutcome> {
    let mut tx = db.write().await?;
    let statement = if batch.expected == 0 { FIRST_OFFSET } else { MOVE_OFFSET };
    let moved = sqlx::query(statement).bind(&batch.consumer).bind(&batch.topic).bind(batch.partition);
    if moved.bind(batch.next).bind(batch.expected).execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(StoreOutcome::OffsetMoved);
    }
    upsert(&mut tx, &batch.predictions).await?;
    for letter in &batch.dead_letters {
        keep(&mut tx, batch, letter).await?;
    }
    tx.commit().await?;
    Ok(StoreOutcome::Stored)
}

async fn upsert(conn: &mut PgConnection, predictions: &[Prediction]) -> Result<()> {
    let scenarios: BTreeSet<Uuid> = predictions.iter().map(|p| p.scenario_id.0).collect();
    let scenarios: Vec<Uuid> = scenarios.into_iter().collect();
    let accepted: Vec<Uuid> = sqlx::query_scalar(ACCEPT_RESULTS).bind(scenarios).fetch_all(&mut *conn).await?;
    let accepted = predictions.iter().filter(|p| accepted.contains(&p.scenario_id.0));
    let rows = newest(accepted);
    if rows.is_empty() {
        return Ok(());
    }
    let payloads = rows.iter().map(to_json).collect::<Result<Vec<_>>>()?;
    sqlx::query(UPSERT)
        .bind(rows.iter().map(|p| p.scenario_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| p.pts_us).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| p.generation).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| signed(p.frame)).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| p.captured_at.as_microsecond()).collect::<Vec<_>>())
        .bind(payloads)
        .execute(&mut *conn)
        .await?;
    let mut reached = BTreeMap::new();
    for row in rows {
        let position = Position { pts_us: row.pts_us, frame: row.frame };
        let furthest = reached.entry(row.scenario_id.0).or_insert(position);
        *furthest = position.max(*furthest);
    }
    sqlx::query(PROGRESS)
        .bind(reached.keys().copied().collect::<Vec<_>>())
        .bind(reached.values().map(|p| p.pts_us).collect::<Vec<_>>())
        .bind(reached.values().map(|p| signed(p.frame)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// One row a key, the last of the highest generation: a statement cannot touch a row twice. In the order of the key, so that
/// two inboxes lock rows in the same order.
fn newest<'a>(predictions: impl Iterator<Item = &'a Prediction>) -> Vec<&'a Prediction> {
    let mut newest = BTreeMap::new();
    for prediction in predictions {
        let key = (prediction.scenario_id, prediction.pts_us, prediction.captured_at);
        let kept = newest.entry(key).or_insert(prediction);
        if prediction.generation >= kept.generation {
            *kept = prediction;
        }
    }
    newest.into_values().collect()
}

async fn keep(conn: &mut PgConnection, batch: &ResultBatch, letter: &DeadLetter) -> Result<()> {
    let now = now_us(conn).await?;
    sqlx::query(DEAD_LETTER)
        .bind(&batch.consumer)
        .bind(&batch.topic)
        .bind(batch.partition)
        .bind(letter.offset)
        // Neither may hold what PostgreSQL's text cannot.
        .bind(letter.key.replace('\0', "\u{fffd}"))
        .bind(&letter.payload)
        .bind(letter.reason.replace('\0', "\u{fffd}"))
        .bind(now)
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn range(db: &Database, id: ScenarioId, query: PredictionQuery) -> Result<Vec<Prediction>> {
    let behind = match query.after_pts_us {
        // Nothing lies behind the last number there is.
        Some(i64::MAX) => return Ok(Vec::new()),
        Some(after) => after + 1,
        None => i64::MIN,
    };
    let from = query.from_pts_us.unwrap_or(i64::MIN).max(behind);
    let last = match query.until_pts_us {
        Some(i64::MIN) => return Ok(Vec::new()),
        Some(until) => until - 1,
        None => i64::MAX,
    };
    let rows = sqlx::query(RANGE).bind(id.0).bind(from).bind(last).bind(i64::from(query.limit));
    rows.fetch_all(&db.pool).await?.iter().map(|row| row.json("prediction")).collect()
}
