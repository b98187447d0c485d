//! What scenarios log: the inbox's write and the API's read.

use std::collections::BTreeMap;

use framehook_core::{
    ids::ScenarioId,
    scenario_log::{self, LoggedLines},
};

use super::{
    Conn, Database, Row,
    ring::{self, Ring, ring_in},
};
use crate::{
    row::RowExt as _,
    store::{LogEntry, Result},
};

const LINES: Ring = ring_in!("scenario_logs", "line", scenario_log::RING);

/// Stores what is new of these lines, in the order of the scenarios, so that two inboxes lock them in the
/// same order.
pub(super) async fn store(conn: &mut Conn, logged: &[LoggedLines]) -> Result<()> {
    let mut of_scenarios = BTreeMap::<_, Vec<_>>::new();
    for lines in logged {
        of_scenarios.entry(lines.scenario_id).or_default().push(lines);
    }
    for (id, logged) in of_scenarios {
        if ring::takes_items(conn, id).await? {
            ring::append(conn, &LINES, id, logged).await?;
        }
    }
    Ok(())
}

pub(super) async fn read(db: &Database, id: ScenarioId, after: i64) -> Result<Option<Vec<LogEntry>>> {
    ring::read(db, &LINES, id, after, entry).await
}

fn entry(row: &Row) -> Result<LogEntry> {
    Ok(LogEntry { sequence: row.col("sequence")?, generation: row.col("generation")?, line: row.json("item")? })
}
