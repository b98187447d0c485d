//! How the rows of a batch of results are stored.

use std::collections::BTreeMap;

use framehook_core::{prediction::Position, prediction_record::PredictionRecord};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use crate::{
    row::RowExt as _,
    sql::{furthest, signed},
    store::{Result, ResultBatch},
};

/// One statement for this many rows: beyond it the time goes into the rows, not the statements.
const ROWS_PER_STATEMENT: usize = 64;

const ACCEPTS_RESULTS: &str = "SELECT EXISTS (SELECT 1 FROM scenarios WHERE id = ? AND desired <> 'deleted')";
const INSERT: &str = "INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped, left_out) ";
const NEVER_BACK: &str = "
    ON CONFLICT (scenario_id, pts_us) DO UPDATE SET generation = excluded.generation, frame = excluded.frame,
        captured_at = excluded.captured_at, prediction = excluded.prediction, skipped = excluded.skipped,
        left_out = excluded.left_out, skipped_before = scenario_results.skipped
    WHERE excluded.generation >= scenario_results.generation
    RETURNING scenario_id, skipped, skipped_before, left_out";
/// Frames are numbered in the order of their times.
const PROGRESS: &str = "
    INSERT INTO scenario_progress AS p (scenario_id, pts_us, frame, stored, skipped, left_out)
    VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = max(p.pts_us, excluded.pts_us),
        frame = max(p.frame, excluded.frame), stored = p.stored + excluded.stored,
        skipped = p.skipped + excluded.skipped, left_out = p.left_out + excluded.left_out";

/// What a batch adds to the progress of one scenario.
struct Advance {
    position: Position,
    /// New rows with an inference, less those that became one without.
    stored: i64,
    skipped: i64,
    /// Before new rows: it is the same whenever a row is computed.
    left_out: i64,
}

/// Stores the rows, and how far each scenario has come by them.
pub(super) async fn store(conn: &mut SqliteConnection, batch: &ResultBatch) -> Result<()> {
    let mut accepted = BTreeMap::new();
    for (scenario, position) in furthest(batch) {
        let query = sqlx::query_scalar(ACCEPTS_RESULTS).bind(scenario.to_string());
        if query.fetch_one(&mut *conn).await? {
            accepted.insert(scenario, Advance { position, stored: 0, skipped: 0, left_out: 0 });
        }
    }
    let rows: Vec<_> = batch.rows.iter().filter(|row| accepted.contains_key(&row.scenario_id)).collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        for written in upsert(conn, chunk).await? {
            if let Some(advance) = accepted.get_mut(&written.parsed("scenario_id")?) {
                // What changes is counted with the change: a row that is delivered again counts once.
                let (now, before): (bool, Option<bool>) = (written.col("skipped")?, written.col("skipped_before")?);
                advance.stored += i64::from(!now) - i64::from(before == Some(false));
                advance.left_out += if before.is_none() { written.col("left_out")? } else { 0 };
                advance.skipped += i64::from(now) - i64::from(before == Some(true));
            }
        }
    }
    for (scenario, Advance { position, stored, skipped, left_out }) in accepted {
        let update = sqlx::query(PROGRESS).bind(scenario.to_string()).bind(position.pts_us);
        let update = update.bind(signed(position.frame)).bind(stored).bind(skipped).bind(left_out);
        update.execute(&mut *conn).await?;
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
            .push_bind(row.is_skipped)
            .push_bind(signed(row.left_out));
    });
    Ok(insert.push(NEVER_BACK).build().fetch_all(conn).await?)
}
