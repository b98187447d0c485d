//! Predictions: the inbox's write and the API's read.

use std::collections::BTreeMap;

use framehook_core::{ids::ScenarioId, prediction_record::PredictionRecord};
use sqlx::PgConnection;

use super::{Database, now_us};
use crate::{
    sql::{furthest, one_more, predictions, signed},
    store::{DeadLetter, PredictionQuery, Result, ResultBatch, Rows, StoreOutcome, StoredPrediction},
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
/// The rows, and how far each scenario has come by them; one statement, because each further one costs as much time as
/// tens of rows. The lock keeps a scenario from being deleted and purged until these rows are there to be purged with it.
/// What changes is counted with the change: a row that is delivered again counts once. Frames are numbered in the order
/// of their times.
const STORE: &str = "
    WITH accepted AS (
        SELECT id FROM scenarios WHERE id = ANY($8) AND desired <> 'deleted' ORDER BY id FOR SHARE),
    written AS (
        INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::boolean[])
            AS row (scenario_id)
        WHERE scenario_id IN (SELECT id FROM accepted)
        ON CONFLICT (scenario_id, pts_us, captured_at) DO UPDATE SET generation = excluded.generation,
            frame = excluded.frame, prediction = excluded.prediction, skipped = excluded.skipped,
            skipped_before = scenario_results.skipped
        WHERE excluded.generation >= scenario_results.generation
        RETURNING scenario_id, skipped, skipped_before),
    counted AS (
        SELECT scenario_id, count(*) FILTER (WHERE NOT skipped) - count(*) FILTER (WHERE NOT skipped_before) AS stored,
            count(*) FILTER (WHERE skipped) - count(*) FILTER (WHERE skipped_before) AS skipped
        FROM written GROUP BY scenario_id)
    INSERT INTO scenario_progress AS p (scenario_id, pts_us, frame, stored, skipped)
    SELECT id, pts_us, frame, coalesce(stored, 0), coalesce(skipped, 0)
    FROM unnest($8::uuid[], $9::bigint[], $10::bigint[]) AS furthest (id, pts_us, frame)
        JOIN accepted USING (id) LEFT JOIN counted ON scenario_id = id
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = greatest(p.pts_us, excluded.pts_us),
        frame = greatest(p.frame, excluded.frame), stored = p.stored + excluded.stored,
        skipped = p.skipped + excluded.skipped";
const DEAD_LETTER: &str = r#"
    INSERT INTO dead_letters (consumer, topic, partition, "offset", key, payload, reason, at, pts_us)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"#;
/// The sizes first, which are known without the rows: those that fit, and how many there are.
pub(super) const RANGE: &str = "
    WITH sizes AS MATERIALIZED (
        SELECT pts_us, octet_length(prediction)::bigint AS bytes FROM scenario_results
        WHERE scenario_id = $1 AND pts_us >= $2 AND pts_us <= $3 ORDER BY pts_us LIMIT $4),
    sums AS (SELECT pts_us, bytes, sum(bytes) OVER (ORDER BY pts_us) AS total FROM sizes)
    SELECT r.pts_us, r.prediction, (SELECT count(*) FROM sizes) AS found
    FROM scenarios s LEFT JOIN scenario_results r ON r.scenario_id = $1 AND r.pts_us >= $2
        AND r.pts_us <= (SELECT max(pts_us) FROM sums WHERE total <= $5 OR total = bytes)
    WHERE s.id = $1 AND s.desired <> 'deleted' ORDER BY r.pts_us";

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
    let furthest = furthest(batch);
    if furthest.is_empty() {
        return Ok(());
    }
    let rows = newest(&batch.rows);
    sqlx::query(STORE)
        .bind(rows.iter().map(|row| row.scenario_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.position.pts_us).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.generation).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| signed(row.position.frame)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.captured_at.as_microsecond()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.json()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.is_skipped).collect::<Vec<_>>())
        .bind(furthest.keys().map(|id| id.0).collect::<Vec<_>>())
        .bind(furthest.values().map(|position| position.pts_us).collect::<Vec<_>>())
        .bind(furthest.values().map(|position| signed(position.frame)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// One row a key, the last of the highest generation: a statement cannot touch a row twice. In the order of the key, so that
/// two inboxes lock rows in the same order.
fn newest(rows: &[PredictionRecord]) -> Vec<&PredictionRecord> {
    let mut newest = BTreeMap::new();
    for row in rows {
        let key = (row.scenario_id, row.position.pts_us, row.captured_at);
        let kept = newest.entry(key).or_insert(row);
        if row.generation >= kept.generation {
            *kept = row;
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

pub(super) async fn range(
    db: &Database,
    id: ScenarioId,
    query: PredictionQuery,
) -> Result<Option<Rows<StoredPrediction>>> {
    let (first, last) = query.span();
    let rows = sqlx::query(RANGE).bind(id.0).bind(first).bind(last);
    let rows = rows.bind(one_more(query.limit)).bind(signed(query.limit.bytes)).fetch_all(&db.pool).await?;
    predictions(&rows, query.limit)
}
