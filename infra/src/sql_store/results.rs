//! Results: the inbox's write and the API's read. How the rows themselves are stored is `rows`' business.

use framehook_core::ids::ScenarioId;

use super::{Conn, Database, Row, key, now_us, one_more, part, rows};
use crate::{
    row::RowExt as _,
    sql::signed,
    store::{DeadLetter, Limit, PredictionQuery, Result, ResultBatch, Rows, StoreOutcome, StoredPrediction},
};

const OFFSET: &str =
    r#"SELECT next_offset FROM consumer_offsets WHERE consumer = $1 AND topic = $2 AND "partition" = $3"#;
const MOVE_OFFSET: &str = r#"
    UPDATE consumer_offsets SET next_offset = $4
    WHERE consumer = $1 AND topic = $2 AND "partition" = $3 AND next_offset = $5"#;
/// From 0, where there may be no row yet. One that loses against another finds its row.
const FIRST_OFFSET: &str = r#"
    INSERT INTO consumer_offsets (consumer, topic, "partition", next_offset) VALUES ($1, $2, $3, $4)
    ON CONFLICT (consumer, topic, "partition") DO UPDATE SET next_offset = excluded.next_offset
    WHERE consumer_offsets.next_offset = $5"#;
const DEAD_LETTER: &str = r#"
    INSERT INTO dead_letters (consumer, topic, "partition", "offset", key, payload, reason, at, pts_us)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"#;
/// The sizes first, which are known without the rows: those that fit, and how many there are.
pub(in super::super) const RANGE: &str = "
    WITH sizes AS MATERIALIZED (
        SELECT pts_us, CAST(octet_length(prediction) AS bigint) AS bytes FROM scenario_results
        WHERE scenario_id = $1 AND pts_us >= $2 AND pts_us <= $3 ORDER BY pts_us LIMIT $4),
    sums AS (SELECT pts_us, bytes, sum(bytes) OVER (ORDER BY pts_us) AS total FROM sizes)
    SELECT r.pts_us, r.prediction, (SELECT count(*) FROM sizes) AS found
    FROM scenarios s LEFT JOIN scenario_results r ON r.scenario_id = $1 AND r.pts_us >= $2
        AND r.pts_us <= (SELECT max(pts_us) FROM sums WHERE total <= $5 OR total = bytes)
    WHERE s.id = $1 AND s.desired <> 'deleted' ORDER BY r.pts_us";

pub(super) async fn consumer_offset(db: &Database, consumer: &str, topic: &str, partition: i32) -> Result<i64> {
    let query = sqlx::query_scalar(OFFSET).bind(consumer).bind(topic).bind(partition);
    Ok(query.fetch_optional(db.reader()).await?.unwrap_or_default())
}

pub(super) async fn store(db: &Database, batch: &ResultBatch) -> Result<StoreOutcome> {
    let mut tx = db.write().await?;
    let statement = if batch.expected == 0 { FIRST_OFFSET } else { MOVE_OFFSET };
    let moved = sqlx::query(statement).bind(&batch.consumer).bind(&batch.topic).bind(batch.partition);
    if moved.bind(batch.next).bind(batch.expected).execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(StoreOutcome::OffsetMoved);
    }
    rows::store(&mut tx, batch).await?;
    for letter in &batch.dead_letters {
        keep(&mut tx, batch, letter).await?;
    }
    tx.commit().await?;
    Ok(StoreOutcome::Stored)
}

async fn keep(conn: &mut Conn, batch: &ResultBatch, letter: &DeadLetter) -> Result<()> {
    let now = now_us(conn).await?;
    sqlx::query(DEAD_LETTER)
        .bind(&batch.consumer)
        .bind(&batch.topic)
        .bind(batch.partition)
        .bind(letter.offset)
        // PostgreSQL's text holds no NUL.
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
    let rows = sqlx::query(RANGE).bind(key(id.0)).bind(first).bind(last);
    let rows = rows.bind(one_more(query.limit)).bind(signed(query.limit.bytes)).fetch_all(db.reader()).await?;
    predictions(&rows, query.limit)
}

/// A scenario without a prediction gives one row without one.
fn predictions(rows: &[Row], limit: Limit) -> Result<Option<Rows<StoredPrediction>>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let has_none = first.col::<Option<i64>>("pts_us")?.is_none();
    let read = |row: &Row| Ok(StoredPrediction { pts_us: row.col("pts_us")?, json: row.col("prediction")? });
    part(if has_none { &[] } else { rows }, limit, read).map(Some)
}
