//! How the rows of a batch of results are stored.

use std::collections::BTreeMap;

use framehook_core::prediction_record::PredictionRecord;
use sqlx::PgConnection;

use crate::{
    sql::{furthest, signed},
    store::{Result, ResultBatch},
};

/// The rows, and how far each scenario has come by them; one statement, because each further one costs as
/// much time as tens of rows. The lock keeps a scenario from being deleted and purged until these rows are
/// there to be purged with it. What changes is counted with the change: a row that is delivered again counts
/// once. Frames are numbered in the order of their times.
const STORE: &str = "
    WITH accepted AS (
        SELECT id FROM scenarios WHERE id = ANY($9) AND desired <> 'deleted' ORDER BY id FOR SHARE),
    written AS (
        INSERT INTO scenario_results (scenario_id, pts_us, generation, frame, captured_at, prediction, skipped, left_out)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::boolean[],
                $8::bigint[])
            AS row (scenario_id)
        WHERE scenario_id IN (SELECT id FROM accepted)
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
    INSERT INTO scenario_progress AS p (scenario_id, pts_us, frame, stored, skipped, left_out)
    SELECT id, pts_us, frame, coalesce(stored, 0), coalesce(skipped, 0), coalesce(left_out, 0)
    FROM unnest($9::uuid[], $10::bigint[], $11::bigint[]) AS furthest (id, pts_us, frame)
        JOIN accepted USING (id) LEFT JOIN counted ON scenario_id = id
    ON CONFLICT (scenario_id) DO UPDATE SET pts_us = greatest(p.pts_us, excluded.pts_us),
        frame = greatest(p.frame, excluded.frame), stored = p.stored + excluded.stored,
        skipped = p.skipped + excluded.skipped, left_out = p.left_out + excluded.left_out";

/// Stores the rows, and how far each scenario has come by them.
pub(super) async fn store(conn: &mut PgConnection, batch: &ResultBatch) -> Result<()> {
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
        .bind(rows.iter().map(|row| signed(row.left_out)).collect::<Vec<_>>())
        .bind(furthest.keys().map(|id| id.0).collect::<Vec<_>>())
        .bind(furthest.values().map(|position| position.pts_us).collect::<Vec<_>>())
        .bind(furthest.values().map(|position| signed(position.frame)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
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
