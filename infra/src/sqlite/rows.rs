//! How the rows of a batch of results are stored.

use std::collections::BTreeMap;

use framehook_core::{hook_state::HookState, ids::ScenarioId, prediction_record::PredictionRecord};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, sqlite::SqliteRow};

use crate::{
    row::RowExt as _,
    sql::{Standing, Step, furthest, signed},
    store::{Result, ResultBatch},
};

/// One statement for this many rows: beyond it the time goes into the rows, not the statements.
const ROWS_PER_STATEMENT: usize = 64;

const STANDING: &str = "
    SELECT s.generation, p.resume_pts_us AS stored_pts_us, p.resume_frame AS stored_frame
    FROM scenarios s LEFT JOIN scenario_progress p ON p.scenario_id = s.id WHERE s.id = ? AND s.desired <> 'deleted'";
const INSERT: &str = "INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped, left_out) ";
const NEVER_BACK: &str = "
    ON CONFLICT (scenario_id, pts_us) DO UPDATE SET generation = excluded.generation, frame = excluded.frame,
        captured_at = excluded.captured_at, prediction = excluded.prediction, skipped = excluded.skipped,
        left_out = excluded.left_out, skipped_before = scenario_results.skipped
    WHERE excluded.generation >= scenario_results.generation
    RETURNING scenario_id, skipped, skipped_before, left_out";
/// Frames are numbered in the order of their times.
const PROGRESS: &str = "
    INSERT INTO scenario_progress AS p (scenario_id, pts_us, frame, stored, skipped, left_out, resume_pts_us, resume_frame)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = max(p.pts_us, excluded.pts_us),
        frame = max(p.frame, excluded.frame), stored = p.stored + excluded.stored,
        skipped = p.skipped + excluded.skipped, left_out = p.left_out + excluded.left_out,
        resume_pts_us = excluded.resume_pts_us, resume_frame = excluded.resume_frame";
const KEEP: &str = "INSERT OR REPLACE INTO hook_state (scenario_id, hook, key, value) VALUES (?, ?, ?, ?)";
const REMOVE: &str = "DELETE FROM hook_state WHERE scenario_id = ? AND hook = ? AND key = ?";

/// What a batch adds to the counts of one scenario.
#[derive(Default)]
struct Counted {
    /// New rows with an inference, less those that became one without.
    stored: i64,
    skipped: i64,
    /// Before new rows: it is the same whenever a row is computed.
    left_out: i64,
}

/// Where those scenarios of the batch stand that take results.
pub(super) async fn standing(
    conn: &mut SqliteConnection,
    batch: &ResultBatch,
) -> Result<BTreeMap<ScenarioId, Standing>> {
    let mut standing = BTreeMap::new();
    for scenario in furthest(batch).into_keys() {
        let found = sqlx::query(STANDING).bind(scenario.to_string()).fetch_optional(&mut *conn).await?;
        if let Some(row) = found {
            standing.insert(scenario, Standing { generation: row.col("generation")?, resume_after: row.stored()? });
        }
    }
    Ok(standing)
}

/// Stores the rows, and how far each scenario has come by them.
pub(super) async fn store(
    conn: &mut SqliteConnection,
    batch: &ResultBatch,
    steps: &BTreeMap<ScenarioId, Step>,
) -> Result<()> {
    let mut counts: BTreeMap<_, _> = steps.keys().map(|scenario| (*scenario, Counted::default())).collect();
    let rows: Vec<_> = batch.rows.iter().filter(|row| steps.contains_key(&row.scenario_id)).collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        for written in upsert(conn, chunk).await? {
            if let Some(counted) = counts.get_mut(&written.parsed("scenario_id")?) {
                // What changes is counted with the change: a row that is delivered again counts once.
                let (now, before): (bool, Option<bool>) = (written.col("skipped")?, written.col("skipped_before")?);
                counted.stored += i64::from(!now) - i64::from(before == Some(false));
                counted.left_out += if before.is_none() { written.col("left_out")? } else { 0 };
                counted.skipped += i64::from(now) - i64::from(before == Some(true));
            }
        }
    }
    for (scenario, step) in steps {
        let Counted { stored, skipped, left_out } = counts.remove(scenario).unwrap_or_default();
        let update = sqlx::query(PROGRESS).bind(scenario.to_string()).bind(step.position.pts_us);
        let update = update.bind(signed(step.position.frame)).bind(stored).bind(skipped).bind(left_out);
        let update = update.bind(step.resume_after.map(|after| after.pts_us));
        update.bind(step.resume_after.map(|after| signed(after.frame))).execute(&mut *conn).await?;
        keep(conn, *scenario, &step.changes).await?;
    }
    Ok(())
}

async fn keep(conn: &mut SqliteConnection, scenario: ScenarioId, changes: &HookState) -> Result<()> {
    for (hook, key, value) in changes.iter() {
        let change = sqlx::query(if value.is_some() { KEEP } else { REMOVE });
        let change = change.bind(scenario.to_string()).bind(hook).bind(key.as_bytes());
        match value {
            Some(value) => change.bind(value.bytes()).execute(&mut *conn).await?,
            None => change.execute(&mut *conn).await?,
        };
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
