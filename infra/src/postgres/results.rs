//! Predictions: the inbox's write and the API's read.

use std::collections::BTreeMap;

use framehook_core::{ids::ScenarioId, prediction::Prediction};
use sqlx::{PgConnection, postgres::PgRow};
use uuid::Uuid;

use super::{Database, now_us, row::RowExt as _};
use crate::{
    sql::{advances, signed, to_json},
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
/// What changes is counted with the change: a row that is delivered again counts once.
pub(super) const UPSERT: &str = "
    WITH written AS (
        INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::boolean[])
        ON CONFLICT (scenario_id, pts_us, captured_at) DO UPDATE SET generation = excluded.generation,
            frame = excluded.frame, prediction = excluded.prediction, skipped = excluded.skipped,
            skipped_before = scenario_results.skipped
        WHERE excluded.generation >= scenario_results.generation
        RETURNING scenario_id, skipped, skipped_before)
    SELECT scenario_id, count(*) FILTER (WHERE NOT skipped) - count(*) FILTER (WHERE NOT skipped_before) AS stored,
        count(*) FILTER (WHERE skipped) - count(*) FILTER (WHERE skipped_before) AS skipped
    FROM written GROUP BY scenario_id";
/// Frames are numbered in the order of their times.
const PROGRESS: &str = "
    INSERT INTO scenario_progress AS p (scenario_id, pts_us, frame, stored, skipped)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = greatest(p.pts_us, excluded.pts_us),
        frame = greatest(p.frame, excluded.frame), stored = p.stored + excluded.stored,
        skipped = p.skipped + excluded.skipped";
const DEAD_LETTER: &str = r#"
    INSERT INTO dead_letters (consumer, topic, partition, "offset", key, payload, reason, at, pts_us)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"#;
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
    advance(&mut tx, batch).await?;
    for letter in &batch.dead_letters {
        keep(&mut tx, batch, letter).await?;
    }
    tx.commit().await?;
    Ok(StoreOutcome::Stored)
}

/// Stores the rows, and how far each scenario has come by them.
async fn advance(conn: &mut PgConnection, batch: &ResultBatch) -> Result<()> {
    let mut advances = advances(batch);
    let scenarios: Vec<Uuid> = advances.keys().map(|id| id.0).collect();
    let accepted: Vec<Uuid> = sqlx::query_scalar(ACCEPT_RESULTS).bind(scenarios).fetch_all(&mut *conn).await?;
    advances.retain(|id, _| accepted.contains(&id.0));
    let rows = newest(batch.predictions.iter().filter(|p| advances.contains_key(&p.scenario_id)));
    for counted in upsert(conn, &rows).await? {
        if let Some(advance) = advances.get_mut(&ScenarioId(counted.col("scenario_id")?)) {
            (advance.stored, advance.skipped) = (counted.col("stored")?, counted.col("skipped")?);
        }
    }
    if advances.is_empty() {
        return Ok(());
    }
    sqlx::query(PROGRESS)
        .bind(advances.keys().map(|id| id.0).collect::<Vec<_>>())
        .bind(advances.values().map(|a| a.position.pts_us).collect::<Vec<_>>())
        .bind(advances.values().map(|a| signed(a.position.frame)).collect::<Vec<_>>())
        .bind(advances.values().map(|a| a.stored).collect::<Vec<_>>())
        .bind(advances.values().map(|a| a.skipped).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives for each scenario what its counts grow by.
async fn upsert(conn: &mut PgConnection, rows: &[&Prediction]) -> Result<Vec<PgRow>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let payloads = rows.iter().map(to_json).collect::<Result<Vec<_>>>()?;
    let upsert = sqlx::query(UPSERT)
        .bind(rows.iter().map(|p| p.scenario_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| p.pts_us).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| p.generation).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| signed(p.frame)).collect::<Vec<_>>())
        .bind(rows.iter().map(|p| p.captured_at.as_microsecond()).collect::<Vec<_>>())
        .bind(payloads)
        .bind(rows.iter().map(|p| p.skipped.is_some()).collect::<Vec<_>>());
    Ok(upsert.fetch_all(conn).await?)
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
        .bind(letter.position.map(|p| p.pts_us))
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
