//! Predictions: the inbox's write and the API's read.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use framehook_core::{
    ids::ScenarioId,
    prediction::{Position, Prediction},
};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::{Database, now_us, row::RowExt as _};
use crate::sql::{later, signed, to_json};

use crate::store::{DeadLetter, PredictionQuery, Result, ResultBatch, StoreOutcome};

/// One statement for this many rows: beyond it the time goes into the rows, not the statements.
const ROWS_PER_STATEMENT: usize = 64;

const OFFSET: &str = r#"SELECT next_offset FROM consumer_offsets WHERE consumer = ? AND topic = ? AND "partition" = ?"#;
const MOVE_OFFSET: &str = r#"
    INSERT INTO consumer_offsets (consumer, topic, "partition", next_offset) VALUES (?, ?, ?, ?)
    ON CONFLICT (consumer, topic, "partition") DO UPDATE SET next_offset = excluded.next_offset"#;
const ACCEPTS_RESULTS: &str = "SELECT EXISTS (SELECT 1 FROM scenarios WHERE id = ? AND desired <> 'deleted')";
const INSERT: &str = "INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction) ";
const NEVER_BACK: &str = "
    ON CONFLICT (scenario_id, pts_us) DO UPDATE SET generation = excluded.generation, frame = excluded.frame,
        captured_at = excluded.captured_at, prediction = excluded.prediction
    WHERE excluded.generation >= scenario_results.generation";
const PROGRESS: &str = "
    INSERT INTO scenario_progress (scenario_id, pts_us, frame) VALUES (?, ?, ?)
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = excluded.pts_us, frame = excluded.frame
    WHERE (excluded.pts_us, excluded.frame) > (scenario_progress.pts_us, scenario_progress.frame)";
const DEAD_LETTER: &str = r#"
    INSERT INTO dead_letters (consumer, topic, "partition", "offset", key, payload, reason, at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"#;
const RANGE: &str = "
    SELECT prediction FROM scenario_results WHERE scenario_id = ? AND pts_us >= ? AND pts_us <= ? ORDER BY pts_us LIMIT ?";

const DROP_OLDER: &str = "DELETE FROM scenario_results WHERE captured_at < ?";

pub(super) async fn consumer_offset(db: &Database, consumer: &str, topic: &str, partition: i32) -> Result<i64> {
    let query = sqlx::query_scalar(OFFSET).bind(consumer).bind(topic).bind(partition);
    Ok(query.fetch_optional(&db.reader).await?.unwrap_or_default())
}

pub(super) async fn store(db: &Database, batch: ResultBatch) -> Result<StoreOutcome> {
    let mut tx = db.write().await?;
    let offset = sqlx::query_scalar(OFFSET).bind(&batch.consumer).bind(&batch.topic).bind(batch.partition);
    let offset: Option<i64> = offset.fetch_optional(&mut *tx).await?;
    if offset.unwrap_or_default() != batch.expected {
        return Ok(StoreOutcome::OffsetMoved);
    }
    let move_offset = sqlx::query(MOVE_OFFSET).bind(&batch.consumer).bind(&batch.topic).bind(batch.partition);
    move_offset.bind(batch.next).execute(&mut *tx).await?;
    upsert(&mut tx, &batch.predictions).await?;
    for letter in &batch.dead_letters {
        keep(&mut tx, &batch, letter).await?;
    }
    tx.commit().await?;
    Ok(StoreOutcome::Stored)
}

async fn upsert(conn: &mut SqliteConnection, predictions: &[Prediction]) -> Result<()> {
    let mut accepted = BTreeSet::new();
    for scenario in predictions.iter().map(|p| p.scenario_id).collect::<BTreeSet<ScenarioId>>() {
        let query = sqlx::query_scalar(ACCEPTS_RESULTS).bind(scenario.to_string());
        if query.fetch_one(&mut *conn).await? {
            accepted.insert(scenario);
        }
    }
    let rows: Vec<_> = predictions.iter().filter(|p| accepted.contains(&p.scenario_id)).collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let payloads = chunk.iter().map(to_json).collect::<Result<Vec<_>>>()?;
        let mut insert = QueryBuilder::<Sqlite>::new(INSERT);
        insert.push_values(chunk.iter().zip(payloads), |mut values, (prediction, payload)| {
            values
                .push_bind(prediction.scenario_id.to_string())
                .push_bind(prediction.pts_us)
                .push_bind(prediction.generation)
                .push_bind(signed(prediction.frame))
                .push_bind(prediction.captured_at.as_microsecond())
                .push_bind(payload);
        });
        insert.push(NEVER_BACK).build().execute(&mut *conn).await?;
    }
    let mut reached = BTreeMap::new();
    for row in rows {
        let position = Position { pts_us: row.pts_us, frame: row.frame };
        let furthest = reached.entry(row.scenario_id).or_insert(position);
        *furthest = position.max(*furthest);
    }
    for (scenario, position) in reached {
        let update = sqlx::query(PROGRESS).bind(scenario.to_string()).bind(position.pts_us);
        update.bind(signed(position.frame)).execute(&mut *conn).await?;
    }
    Ok(())
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
        .bind(now_us())
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
    let rows = sqlx::query(RANGE).bind(id.to_string()).bind(from).bind(last).bind(query.limit);
    rows.fetch_all(&db.reader).await?.iter().map(|row| row.json("prediction")).collect()
}

pub(super) async fn drop_older(db: &Database, age: Duration) -> Result<()> {
    let before = now_us().saturating_sub(later(0, age));
    sqlx::query(DROP_OLDER).bind(before).execute(&db.writer).await?;
    Ok(())
}
