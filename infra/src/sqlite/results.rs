//! Predictions: the inbox's write and the API's read.

use std::collections::BTreeMap;

use framehook_core::{ids::ScenarioId, prediction::Position, prediction_record::PredictionRecord};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{Database, clock_us};
use crate::{
    row::RowExt as _,
    sql::{furthest, one_more, predictions, signed},
    store::{DeadLetter, PredictionQuery, Result, ResultBatch, Rows, StoreOutcome, StoredPrediction},
};

/// One statement for this many rows: beyond it the time goes into the rows, not the statements.
const ROWS_PER_STATEMENT: usize = 64;

const OFFSET: &str = r#"SELECT next_offset FROM consumer_offsets WHERE consumer = ? AND topic = ? AND "partition" = ?"#;
const MOVE_OFFSET: &str = r#"
    INSERT INTO consumer_offsets (consumer, topic, "partition", next_offset) VALUES (?, ?, ?, ?)
    ON CONFLICT (consumer, topic, "partition") DO UPDATE SET next_offset = excluded.next_offset"#;
const ACCEPTS_RESULTS: &str = "SELECT EXISTS (SELECT 1 FROM scenarios WHERE id = ? AND desired <> 'deleted')";
const INSERT: &str =
    "INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped) ";
const NEVER_BACK: &str = "
    ON CONFLICT (scenario_id, pts_us) DO UPDATE SET generation = excluded.generation, frame = excluded.frame,
        captured_at = excluded.captured_at, prediction = excluded.prediction, skipped = excluded.skipped,
        skipped_before = scenario_results.skipped
    WHERE excluded.generation >= scenario_results.generation
    RETURNING scenario_id, skipped, skipped_before";
/// Frames are numbered in the order of their times.
const PROGRESS: &str = "
    INSERT INTO scenario_progress AS p (scenario_id, pts_us, frame, stored, skipped) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = max(p.pts_us, excluded.pts_us),
        frame = max(p.frame, excluded.frame), stored = p.stored + excluded.stored,
        skipped = p.skipped + excluded.skipped";
const DEAD_LETTER: &str = r#"
    INSERT INTO dead_letters (consumer, topic, "partition", "offset", key, payload, reason, at, pts_us)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"#;
/// The sizes first, which are read without the rows: those that fit, and how many there are.
const RANGE: &str = "
    WITH sizes AS MATERIALIZED (
        SELECT pts_us, octet_length(prediction) AS bytes FROM scenario_results
        WHERE scenario_id = ?1 AND pts_us >= ?2 AND pts_us <= ?3 ORDER BY pts_us LIMIT ?4),
    sums AS (SELECT pts_us, bytes, sum(bytes) OVER (ORDER BY pts_us) AS total FROM sizes)
    SELECT r.pts_us, r.prediction, (SELECT count(*) FROM sizes) AS found
    FROM scenarios s LEFT JOIN scenario_results r ON r.scenario_id = ?1 AND r.pts_us >= ?2
        AND r.pts_us <= (SELECT max(pts_us) FROM sums WHERE total <= ?5 OR total = bytes)
    WHERE s.id = ?1 AND s.desired <> 'deleted' ORDER BY r.pts_us";

pub(super) async fn consumer_offset(db: &Database, consumer: &str, topic: &str, partition: i32) -> Result<i64> {
    let query = sqlx::query_scalar(OFFSET).bind(consumer).bind(topic).bind(partition);
    Ok(query.fetch_optional(&db.reader).await?.unwrap_or_default())
}

pub(super) async fn store(db: &Database, batch: &ResultBatch) -> Result<StoreOutcome> {
    let mut tx = db.write().await?;
    let offset = sqlx::query_scalar(OFFSET).bind(&batch.consumer).bind(&batch.topic).bind(batch.partition);
    let offset: Option<i64> = offset.fetch_optional(&mut *tx).await?;
    if offset.unwrap_or_default() != batch.expected {
        return Ok(StoreOutcome::OffsetMoved);
    }
    let move_offset = sqlx::query(MOVE_OFFSET).bind(&batch.consumer).bind(&batch.topic).bind(batch.partition);
    move_offset.bind(batch.next).execute(&mut *tx).await?;
    advance(&mut tx, batch).await?;
    for letter in &batch.dead_letters {
        keep(&mut tx, batch, letter).await?;
    }
    tx.commit().await?;
    Ok(StoreOutcome::Stored)
}

/// What a batch adds to the progress of one scenario.
struct Advance {
    position: Position,
    /// New rows with an inference, less those that became one without.
    stored: i64,
    skipped: i64,
}

/// Stores the rows, and how far each scenario has come by them.
async fn advance(conn: &mut SqliteConnection, batch: &ResultBatch) -> Result<()> {
    let mut accepted = BTreeMap::new();
    for (scenario, position) in furthest(batch) {
        let query = sqlx::query_scalar(ACCEPTS_RESULTS).bind(scenario.to_string());
        if query.fetch_one(&mut *conn).await? {
            accepted.insert(scenario, Advance { position, stored: 0, skipped: 0 });
        }
    }
    let rows: Vec<_> = batch.rows.iter().filter(|row| accepted.contains_key(&row.scenario_id)).collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        for written in upsert(conn, chunk).await? {
            if let Some(advance) = accepted.get_mut(&written.parsed("scenario_id")?) {
                // What changes is counted with the change: a row that is delivered again counts once.
                let (now, before): (bool, Option<bool>) = (written.col("skipped")?, written.col("skipped_before")?);
                advance.stored += i64::from(!now) - i64::from(before == Some(false));
                advance.skipped += i64::from(now) - i64::from(before == Some(true));
            }
        }
    }
    for (scenario, Advance { position, stored, skipped }) in accepted {
        let update = sqlx::query(PROGRESS).bind(scenario.to_string()).bind(position.pts_us);
        update.bind(signed(position.frame)).bind(stored).bind(skipped).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Gives a row for each one that was written.
async fn upsert(conn: &mut SqliteConnection, rows: &[&PredictionRecord]) -> Result<Vec<SqliteRow>> {
    let mut insert = QueryBuilder::<Sqlite>::new(INSERT);
    insert.push_values(rows, |mut values, row| {
        values
            .push_bind(row.scenario_id.to_string())
            .push_bind(row.position.pts_us)
            .push_bind(row.generation)
            .push_bind(signed(row.position.frame))
            .push_bind(row.captured_at.as_microsecond())
            .push_bind(row.json())
            .push_bind(row.is_skipped);
    });
    Ok(insert.push(NEVER_BACK).build().fetch_all(conn).await?)
}

async fn keep(conn: &mut SqliteConnection, batch: &ResultBatch, letter: &DeadLetter) -> Result<()> {
    sqlx::query(DEAD_LETTER)
        .bind(&batch.consumer)
        .bind(&batch.topic)
        .bind(batch.partition)
        .bind(letter.offset)
        .bind(&letter.key)
        .bind(&letter.payload)
        .bind(&letter.reason)
        .bind(clock_us())
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
    let rows = sqlx::query(RANGE).bind(id.to_string()).bind(first).bind(last);
    let rows = rows.bind(one_more(query.limit)).bind(signed(query.limit.bytes)).fetch_all(&db.reader).await?;
    predictions(&rows, query.limit)
}
