//! Which recorded outputs are in the blob store: the inbox's write, the API's read, and what is given up.
//!
//! Invariant: a blob is given up by its last row, and a row by one statement, so two processes never remove
//! the same row twice, and a blob that a replay reads stays.

use std::time::Duration;

use framehook_core::{
    ids::{Digest, ScenarioId},
    recorded::{MAX_PARTS, Part, RecordedPart, Replay},
};
use serde_json::json;

use super::{Conn, Database, key, now_us};
use crate::{
    row::RowExt as _,
    sql::{later, signed, to_json},
    store::Result,
};

/// Rows that are given up in one transaction.
const STEP: u32 = 200;

/// The lock keeps it from being deleted until this part is there to be given up with it.
const TAKES_PARTS: &str = concat!("SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted'", lock!(share));
const ADD: &str = "
    INSERT INTO recorded_outputs (scenario_id, generation, number, digest, bytes, part, stored_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (scenario_id, generation, number) DO NOTHING";
/// The oldest are those of the lowest generation.
const GIVE_UP_OLDEST: &str = "
    UPDATE recorded_outputs SET dropped_at = $2
    WHERE scenario_id = $1 AND dropped_at IS NULL AND (generation, number) IN (
        SELECT generation, number FROM (
            SELECT generation, number, sum(bytes) OVER newest AS total, row_number() OVER newest AS parts
            FROM recorded_outputs WHERE scenario_id = $1 AND dropped_at IS NULL
            WINDOW newest AS (ORDER BY generation DESC, number DESC)
        ) AS sums WHERE total > $3 OR parts > $4)";
/// `$2`: an array of arrays, of a number, a digest and a part.
const REFER: &str = concat!(
    "INSERT INTO recorded_outputs (scenario_id, generation, number, digest, bytes, part, stored_at)
    SELECT $1, 0, CAST(value ->> 0 AS bigint), value ->> 1, 0, value ->> 2, $3 FROM ",
    elements!("$2")
);
const PARTS: &str = "
    SELECT part FROM recorded_outputs
    WHERE scenario_id = $1 AND dropped_at IS NULL AND generation > 0
        AND EXISTS (SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted')
    ORDER BY generation, number";
const GIVE_UP_ALL: &str = "UPDATE recorded_outputs SET dropped_at = $2 WHERE scenario_id = $1 AND dropped_at IS NULL";
/// Nothing is written where there is nothing to remove.
const HAS_SOME: &str = "
    SELECT EXISTS (SELECT 1 FROM recorded_outputs WHERE dropped_at IS NOT NULL)
        OR EXISTS (SELECT 1 FROM recorded_outputs WHERE stored_at < $1)";
const REMOVE_OLD: &str = "
    DELETE FROM recorded_outputs WHERE (scenario_id, generation, number) IN
        (SELECT scenario_id, generation, number FROM recorded_outputs WHERE stored_at < $1 LIMIT $2)
    RETURNING digest";
const REMOVE_DROPPED: &str = "
    DELETE FROM recorded_outputs WHERE (scenario_id, generation, number) IN
        (SELECT scenario_id, generation, number FROM recorded_outputs WHERE dropped_at IS NOT NULL LIMIT $1)
    RETURNING digest";
const IS_NAMED: &str = "
    SELECT EXISTS (SELECT 1 FROM recorded_outputs WHERE digest = $1) OR EXISTS (SELECT 1 FROM artifacts WHERE digest = $1)";

/// Stores what is new of these parts, and gives up what is too much.
pub(super) async fn store(conn: &mut Conn, recorded: &[RecordedPart]) -> Result<()> {
    let mut recorded: Vec<_> = recorded.iter().collect();
    // So that two inboxes lock scenarios in the same order.
    recorded.sort_by_key(|recorded| recorded.scenario_id);
    for RecordedPart { scenario_id, part, keep_bytes } in recorded {
        let taken = sqlx::query(TAKES_PARTS).bind(key(scenario_id.0)).fetch_optional(&mut *conn).await?;
        if taken.is_none() {
            // Its blob has no name; it is swept.
            continue;
        }
        let now = now_us(conn).await?;
        sqlx::query(ADD)
            .bind(key(scenario_id.0))
            .bind(part.generation)
            .bind(i64::from(part.number))
            .bind(part.digest.as_str())
            .bind(signed(part.bytes))
            .bind(to_json(part)?)
            .bind(now)
            .execute(&mut *conn)
            .await?;
        let too_much = sqlx::query(GIVE_UP_OLDEST).bind(key(scenario_id.0)).bind(now);
        too_much.bind(signed(*keep_bytes)).bind(i64::from(MAX_PARTS)).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Keeps the blobs that a new replay reads.
pub(super) async fn refer(conn: &mut Conn, id: ScenarioId, replay: &Replay, now: i64) -> Result<()> {
    if replay.parts.is_empty() {
        return Ok(());
    }
    let rows = replay.parts.iter().enumerate().map(|(number, part)| Ok(json!([number, part.digest, to_json(part)?])));
    let rows = to_json(&rows.collect::<Result<Vec<_>>>()?)?;
    sqlx::query(REFER).bind(key(id.0)).bind(rows).bind(now).execute(conn).await?;
    Ok(())
}

pub(super) async fn read(db: &Database, id: ScenarioId) -> Result<Vec<Part>> {
    sqlx::query(PARTS).bind(key(id.0)).fetch_all(db.reader()).await?.iter().map(|row| row.json("part")).collect()
}

/// Those of a scenario that is deleted.
pub(super) async fn give_up(conn: &mut Conn, id: ScenarioId, now: i64) -> Result<()> {
    sqlx::query(GIVE_UP_ALL).bind(key(id.0)).bind(now).execute(conn).await?;
    Ok(())
}

/// Removes some rows that were given up or are older than `age`, and gives the digests that nothing names any
/// more.
pub(super) async fn remove(db: &Database, age: Duration) -> Result<Vec<Digest>> {
    let mut conn = db.reader().acquire().await?;
    let before = now_us(&mut conn).await?.saturating_sub(later(0, age));
    let has_some: bool = sqlx::query_scalar(HAS_SOME).bind(before).fetch_one(&mut *conn).await?;
    if !has_some {
        return Ok(Vec::new());
    }
    drop(conn);
    let mut tx = db.write().await?;
    let mut rows = sqlx::query(REMOVE_DROPPED).bind(i64::from(STEP)).fetch_all(&mut *tx).await?;
    rows.extend(sqlx::query(REMOVE_OLD).bind(before).bind(i64::from(STEP)).fetch_all(&mut *tx).await?);
    let mut unnamed = Vec::new();
    for row in rows {
        let digest: Digest = row.parsed("digest")?;
        let is_named: bool = sqlx::query_scalar(IS_NAMED).bind(digest.as_str()).fetch_one(&mut *tx).await?;
        if !is_named && !unnamed.contains(&digest) {
            unnamed.push(digest);
        }
    }
    tx.commit().await?;
    Ok(unnamed)
}
