//! What scenarios log: the inbox's write and the API's read. `framehook_core::scenario_log` says which lines
//! are new and how many are kept.

use std::collections::BTreeMap;

use framehook_core::{
    ids::ScenarioId,
    scenario_log::{LogLine, LoggedLines, Place, behind},
};
use serde_json::json;

use super::{Conn, Database, Row, key};
use crate::{
    row::RowExt as _,
    sql::{signed, to_json, unsigned},
    store::{LogEntry, Result},
};

/// The lock keeps it from being purged until these lines are there to be purged with it.
const TAKES_LINES: &str = concat!("SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted'", lock!(share));
const NEWEST: &str = "
    SELECT sequence, bytes, generation, number FROM scenario_logs WHERE scenario_id = $1 ORDER BY sequence DESC LIMIT 1";
/// `$2`: an array of arrays, of the columns in their order. A line is a text in it, so that the database
/// looks at none of its escapes.
const ADD: &str = concat!(
    "INSERT INTO scenario_logs (scenario_id, sequence, bytes, generation, number, line)
    SELECT $1, CAST(value ->> 0 AS bigint), CAST(value ->> 1 AS bigint), CAST(value ->> 2 AS bigint),
        CAST(value ->> 3 AS bigint), value ->> 4 FROM ",
    elements!("$2")
);
const TRIM: &str = "DELETE FROM scenario_logs WHERE scenario_id = $1 AND (sequence <= $2 OR bytes <= $3)";
const BEHIND: &str = "
    SELECT sequence, generation, line FROM scenario_logs
    WHERE scenario_id = $1 AND sequence > $2
        AND EXISTS (SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted')
    ORDER BY sequence";
const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted')";

/// Stores what is new of these lines, in the order of the scenarios, so that two inboxes lock them in the
/// same order.
pub(super) async fn store(conn: &mut Conn, logged: &[LoggedLines]) -> Result<()> {
    let mut of_scenarios = BTreeMap::<_, Vec<_>>::new();
    for lines in logged {
        of_scenarios.entry(lines.scenario_id).or_default().push(lines);
    }
    for (id, logged) in of_scenarios {
        let is_there = sqlx::query(TAKES_LINES).bind(key(id.0)).fetch_optional(&mut *conn).await?.is_some();
        if is_there {
            append(conn, id, logged).await?;
        }
    }
    Ok(())
}

async fn append(conn: &mut Conn, id: ScenarioId, logged: Vec<&LoggedLines>) -> Result<()> {
    let newest = sqlx::query(NEWEST).bind(key(id.0)).fetch_optional(&mut *conn).await?;
    let new = behind(newest.as_ref().map(place).transpose()?, logged);
    let Some((sequence, bytes)) = new.last().map(|(newest, _)| newest.gone()) else { return Ok(()) };
    // The end of a batch that is longer than the ring.
    let kept = new.iter().filter(|(place, _)| place.sequence > sequence && place.bytes > bytes);
    let rows = kept.map(|(place, line)| row(*place, line)).collect::<Result<Vec<_>>>()?;
    sqlx::query(ADD).bind(key(id.0)).bind(to_json(&rows)?).execute(&mut *conn).await?;
    sqlx::query(TRIM).bind(key(id.0)).bind(sequence).bind(bytes).execute(conn).await?;
    Ok(())
}

fn row(place: Place, line: &LogLine) -> Result<serde_json::Value> {
    let Place { sequence, bytes, generation, number } = place;
    Ok(json!([sequence, bytes, generation, signed(number), to_json(line)?]))
}

fn place(row: &Row) -> Result<Place> {
    Ok(Place {
        sequence: row.col("sequence")?,
        bytes: row.col("bytes")?,
        generation: row.col("generation")?,
        number: unsigned(row.col("number")?),
    })
}

pub(super) async fn read(db: &Database, id: ScenarioId, after: i64) -> Result<Option<Vec<LogEntry>>> {
    let rows = sqlx::query(BEHIND).bind(key(id.0)).bind(after).fetch_all(db.reader()).await?;
    if rows.is_empty() && !sqlx::query_scalar(EXISTS).bind(key(id.0)).fetch_one(db.reader()).await? {
        return Ok(None);
    }
    rows.iter().map(entry).collect::<Result<_>>().map(Some)
}

fn entry(row: &Row) -> Result<LogEntry> {
    Ok(LogEntry { sequence: row.col("sequence")?, generation: row.col("generation")?, line: row.json("line")? })
}
