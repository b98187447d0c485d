//! A scenario's history: its lines, and the folding of those that are not kept (`crate::history` says which).

use framehook_core::{
    ids::{Generation, ScenarioId},
    reason::Reason,
    state::{Desired, ScenarioState},
};

use super::{Conn, Database, Row, key};
use crate::{
    history::{self, Moment},
    row::RowExt as _,
    sql::{to_json, unsigned},
    store::{HistoryEntry, Result},
};

/// With the number of lines there are; whether this one is counted makes no difference.
const ADD: &str = "
    INSERT INTO scenario_history (scenario_id, at, generation, from_state, to_state, desired, reason)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    RETURNING (SELECT count(*) FROM scenario_history h WHERE h.scenario_id = $1)";
const RECENT: &str = "
    SELECT sequence, at, generation, from_state, to_state, desired, reason, folded
    FROM scenario_history WHERE scenario_id = $1 ORDER BY sequence DESC LIMIT $2";
/// The first and the last of `$3` lines behind the first `$2`.
const SPAN: &str = "
    SELECT min(sequence) AS first, max(sequence) AS last FROM (
        SELECT sequence FROM scenario_history WHERE scenario_id = $1 ORDER BY sequence LIMIT $3 OFFSET $2) span";
/// The line behind those that go says how many went. `$2`, `$3`: the first and the last that go.
const FOLD_INTO_NEXT: &str = "
    UPDATE scenario_history SET folded = folded + (
        SELECT count(*) + sum(gone.folded) FROM scenario_history gone
        WHERE gone.scenario_id = $1 AND gone.sequence BETWEEN $2 AND $3)
    WHERE sequence = (SELECT min(sequence) FROM scenario_history WHERE scenario_id = $1 AND sequence > $3)";
const FOLD_AWAY: &str = "DELETE FROM scenario_history WHERE scenario_id = $1 AND sequence BETWEEN $2 AND $3";
const PAGE: &str = "
    SELECT sequence, at, generation, from_state, to_state, desired, reason, folded
    FROM scenario_history WHERE scenario_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";

/// A line of history to be written.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) from: ScenarioState,
    pub(super) to: ScenarioState,
    pub(super) desired: Desired,
    pub(super) generation: Generation,
    pub(super) reason: Option<&'a Reason>,
}

pub(super) async fn add(conn: &mut Conn, id: ScenarioId, at: Moment, line: Line<'_>) -> Result<()> {
    let lines: i64 = sqlx::query_scalar(ADD)
        .bind(key(id.0))
        .bind(at.now)
        .bind(line.generation)
        .bind(line.from.as_str())
        .bind(line.to.as_str())
        .bind(line.desired.as_str())
        .bind(line.reason.map(to_json).transpose()?)
        .fetch_one(&mut *conn)
        .await?;
    let Some((first, last)) = to_fold(conn, id, at.most, lines).await? else { return Ok(()) };
    for statement in [FOLD_INTO_NEXT, FOLD_AWAY] {
        sqlx::query(statement).bind(key(id.0)).bind(first).bind(last).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The first and the last line of those that are not kept, of a history of `lines` that may have `most`.
async fn to_fold(conn: &mut Conn, id: ScenarioId, most: u32, lines: i64) -> Result<Option<(i64, i64)>> {
    if lines <= history::WHOLE {
        return Ok(None);
    }
    let recent = sqlx::query(RECENT).bind(key(id.0)).bind(i64::from(history::RECENT)).fetch_all(&mut *conn).await?;
    // A line that nobody can read is none that anything repeats, and keeps no scenario from going on.
    let recent: Vec<_> = recent.iter().map_while(|row| entry(row).ok()).collect();
    if let Some(repeated) = history::repeated(&recent) {
        return Ok(Some(repeated));
    }
    let Some((behind, count)) = history::too_many(lines, most) else { return Ok(None) };
    let span = sqlx::query(SPAN).bind(key(id.0)).bind(behind).bind(count).fetch_one(conn).await?;
    Ok(Some((span.col("first")?, span.col("last")?)))
}

pub(super) async fn page(db: &Database, id: ScenarioId, after: Option<i64>, limit: u32) -> Result<Vec<HistoryEntry>> {
    let query = sqlx::query(PAGE).bind(key(id.0)).bind(after.unwrap_or_default()).bind(i64::from(limit));
    query.fetch_all(db.reader()).await?.iter().map(entry).collect()
}

fn entry(row: &Row) -> Result<HistoryEntry> {
    Ok(HistoryEntry {
        sequence: row.col("sequence")?,
        at: row.time("at")?,
        generation: row.col("generation")?,
        from: row.parsed_opt("from_state")?,
        to: row.parsed("to_state")?,
        desired: row.parsed("desired")?,
        reason: row.json_opt("reason")?,
        folded: unsigned(row.col("folded")?),
    })
}
