//! How the rows of a batch of results are stored.

use std::collections::BTreeMap;

use framehook_core::{hook_state::HookState, ids::ScenarioId, prediction_record::PredictionRecord};
use sqlx::{PgConnection, postgres::PgRow};

use crate::{
    row::RowExt as _,
    sql::{Standing, Step, furthest, signed},
    store::{Result, ResultBatch},
};

/// The lock keeps a scenario from being deleted and purged until these rows are there to be purged with it,
/// and from being deployed anew between them and what its hooks keep.
const STANDING: &str = "
    SELECT s.id, s.generation, p.resume_pts_us AS stored_pts_us, p.resume_frame AS stored_frame
    FROM scenarios s LEFT JOIN scenario_progress p ON p.scenario_id = s.id
    WHERE s.id = ANY($1) AND s.desired <> 'deleted' ORDER BY s.id FOR SHARE OF s";
/// The rows, and how far each scenario has come by them; one statement, because each further one costs as
/// much time as tens of rows. What changes is counted with the change: a row that is delivered again counts
/// once. Frames are numbered in the order of their times.
const STORE: &str = "
    WITH written AS (
        INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped, left_out)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::boolean[],
                $8::bigint[])
            AS row (scenario_id)
        WHERE scenario_id = ANY($9)
        ON CONFLICT (scenario_id, pts_us, captured_at) DO UPDATE SET generation = excluded.generation,
            frame = excluded.frame, prediction = excluded.prediction, skipped = excluded.skipped,
            left_out = excluded.left_out, skipped_before = scenario_results.skipped
        WHERE excluded.generation >= scenario_results.generation
        RETURNING scenario_id, skipped, skipped_before, left_out),
    counted AS (
        SELECT scenario_id, count(*) FILTER (WHERE NOT skipped) - count(*) FILTER (WHERE NOT skipped_before) AS stored,
            count(*) FILTER (WHERE skipped) - count(*) FILTER (WHERE skipped_before) AS skipped,
            sum(left_out) FILTER (WHERE skipped_before IS NULL) AS left_out
        FROM written GROUP BY scenario_id)
    INSERT INTO scenario_progress AS p (scenario_id, pts_us, frame, stored, skipped, left_out, resume_pts_us, resume_frame)
    SELECT id, pts_us, frame, coalesce(stored, 0), coalesce(skipped, 0), coalesce(left_out, 0), resume_pts_us, resume_frame
    FROM unnest($9::uuid[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
        AS step (id, pts_us, frame, resume_pts_us, resume_frame) LEFT JOIN counted ON scenario_id = id
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = greatest(p.pts_us, excluded.pts_us),
        frame = greatest(p.frame, excluded.frame), stored = p.stored + excluded.stored,
        skipped = p.skipped + excluded.skipped, left_out = p.left_out + excluded.left_out,
        resume_pts_us = excluded.resume_pts_us, resume_frame = excluded.resume_frame";
const KEEP: &str = "
    INSERT INTO hook_state (scenario_id, hook, key, value)
    SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::bytea[])
    ON CONFLICT (scenario_id, hook, key) DO UPDATE SET value = excluded.value";
const REMOVE: &str = "
    DELETE FROM hook_state k USING unnest($2::text[], $3::bytea[]) AS gone (hook, key)
    WHERE k.scenario_id = $1 AND k.hook = gone.hook AND k.key = gone.key";

/// Where those scenarios of the batch stand that take results.
pub(super) async fn standing(conn: &mut PgConnection, batch: &ResultBatch) -> Result<BTreeMap<ScenarioId, Standing>> {
    let ids: Vec<_> = furthest(batch).into_keys().map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = sqlx::query(STANDING).bind(ids).fetch_all(conn).await?;
    let read = |row: &PgRow| {
        let standing = Standing { generation: row.col("generation")?, resume_after: row.stored()? };
        Ok((ScenarioId(row.col("id")?), standing))
    };
    found.iter().map(read).collect()
}

/// Stores the rows, and how far each scenario has come by them.
pub(super) async fn store(
    conn: &mut PgConnection,
    batch: &ResultBatch,
    steps: &BTreeMap<ScenarioId, Step>,
) -> Result<()> {
    if steps.is_empty() {
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
        .bind(rows.iter().map(|row| signed(row.left_out)).collect::<Vec<_>>())
        .bind(steps.keys().map(|id| id.0).collect::<Vec<_>>())
        .bind(steps.values().map(|step| step.position.pts_us).collect::<Vec<_>>())
        .bind(steps.values().map(|step| signed(step.position.frame)).collect::<Vec<_>>())
        .bind(steps.values().map(|step| Some(step.resume_after?.pts_us)).collect::<Vec<_>>())
        .bind(steps.values().map(|step| Some(signed(step.resume_after?.frame))).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    for (scenario, step) in steps.iter().filter(|(_, step)| !step.changes.is_empty()) {
        keep(conn, *scenario, &step.changes).await?;
    }
    Ok(())
}

async fn keep(conn: &mut PgConnection, scenario: ScenarioId, changes: &HookState) -> Result<()> {
    let (mut kept, mut removed) = ((vec![], vec![], vec![]), (vec![], vec![]));
    for (hook, key, value) in changes.iter() {
        match value {
            Some(value) => {
                kept.0.push(hook);
                kept.1.push(key.as_bytes());
                kept.2.push(value.bytes());
            }
            None => {
                removed.0.push(hook);
                removed.1.push(key.as_bytes());
            }
        }
    }
    if !kept.0.is_empty() {
        sqlx::query(KEEP).bind(scenario.0).bind(kept.0).bind(kept.1).bind(kept.2).execute(&mut *conn).await?;
    }
    if !removed.0.is_empty() {
        sqlx::query(REMOVE).bind(scenario.0).bind(removed.0).bind(removed.1).execute(conn).await?;
    }
    Ok(())
}

/// One row a key, the last of the highest generation: a statement cannot touch a row twice. In the order of
/// the key, so that two inboxes lock rows in the same order.
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
