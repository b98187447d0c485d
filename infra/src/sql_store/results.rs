//! The inbox's write, and the API's read of results. How the rows themselves are stored is `rows`' business.

use async_trait::async_trait;
use framehook_core::ids::ScenarioId;
use futures::TryStreamExt as _;

use super::{Conn, Database, key, logs, now_us, one_more, recorded, rows, shadow};
use crate::{
    row::RowExt as _,
    sql::steps,
    store::{DeadLetter, Limit, PredictionQuery, Result, ResultBatch, Results, Rows, StoreOutcome, StoredPrediction},
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
pub(in super::super) const RANGE: &str = "
    SELECT pts_us, prediction FROM scenario_results
    WHERE scenario_id = $1 AND pts_us >= $2 AND pts_us <= $3
        AND EXISTS (SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted')
    ORDER BY pts_us LIMIT $4";
const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted')";

#[async_trait]
impl Results for Database {
    async fn consumer_offset(&self, consumer: &str, topic: &str, partition: i32) -> Result<i64> {
        let query = sqlx::query_scalar(OFFSET).bind(consumer).bind(topic).bind(partition);
        Ok(query.fetch_optional(self.reader()).await?.unwrap_or_default())
    }

    async fn store_results(&self, batch: &ResultBatch) -> Result<StoreOutcome> {
        self.transact(|| store(self, batch)).await
    }
}

async fn store(db: &Database, batch: &ResultBatch) -> Result<StoreOutcome> {
    let mut tx = db.write().await?;
    let statement = if batch.expected == 0 { FIRST_OFFSET } else { MOVE_OFFSET };
    let moved = sqlx::query(statement).bind(&batch.consumer).bind(&batch.topic).bind(batch.partition);
    if moved.bind(batch.next).bind(batch.expected).execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(StoreOutcome::OffsetMoved);
    }
    let steps = steps(batch, &rows::standing(&mut tx, batch).await?);
    rows::store(&mut tx, batch, &steps).await?;
    logs::store(&mut tx, &batch.logged).await?;
    shadow::store(&mut tx, &batch.found).await?;
    recorded::store(&mut tx, &batch.recorded).await?;
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

/// Row by row, so that no more of them is held than was asked for.
pub(super) async fn range(
    db: &Database,
    id: ScenarioId,
    query: PredictionQuery,
) -> Result<Option<Rows<StoredPrediction>>> {
    let ((first, last), Limit { rows: most, bytes: mut left }) = (query.span(), query.limit);
    let mut conn = db.reader().acquire().await?;
    let range = sqlx::query(RANGE).bind(key(id.0)).bind(first).bind(last).bind(one_more(query.limit));
    let mut found = range.fetch(&mut *conn);
    let mut rows = Vec::new();
    while let Some(row) = found.try_next().await? {
        let row = StoredPrediction { pts_us: row.col("pts_us")?, json: row.col("prediction")? };
        let is_large = row.json.len() as u64 > left && !rows.is_empty();
        if is_large || rows.len() == most as usize {
            drop(found);
            if is_large {
                // What is still on its way would have to be read by whoever has the connection next.
                conn.close_on_drop();
            }
            return Ok(Some(Rows { rows, has_more: true }));
        }
        left = left.saturating_sub(row.json.len() as u64);
        rows.push(row);
    }
    drop(found);
    let exists = !rows.is_empty() || sqlx::query_scalar(EXISTS).bind(key(id.0)).fetch_one(&mut *conn).await?;
    Ok(exists.then_some(Rows { rows, has_more: false }))
}
