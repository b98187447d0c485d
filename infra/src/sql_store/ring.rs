//! Rings of scenarios: tables of numbered items of which the newest are kept. `framehook_core::ring` says
//! which are new and which go.

use framehook_core::{
    ids::ScenarioId,
    ring::{self, Batch, Place, behind},
};
use serde::Serialize;
use serde_json::json;

use super::{Conn, Database, Row, key};
use crate::{
    row::RowExt as _,
    sql::{signed, to_json, unsigned},
    store::Result,
};

/// The lock keeps it from being purged until what is added is there to be purged with it.
const TAKES_ITEMS: &str = concat!("SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted'", lock!(share));
const EXISTS: &str = "SELECT EXISTS (SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted')";

/// A table, by its statements.
pub(super) struct Ring {
    pub(super) newest: &'static str,
    pub(super) add: &'static str,
    pub(super) trim: &'static str,
    pub(super) behind: &'static str,
    pub(super) size: ring::Ring,
}

/// The table with this name, whose items are in the column with that name.
macro_rules! ring_in {
    ($table:literal, $item:literal, $size:expr) => {
        Ring {
            newest: concat!(
                "SELECT sequence, bytes, generation, number FROM ",
                $table,
                " WHERE scenario_id = $1 ORDER BY sequence DESC LIMIT 1"
            ),
            // `$2`: an array of arrays, of the columns in their order. An item is a text in it, so that the
            // database looks at none of its escapes.
            add: concat!(
                "INSERT INTO ",
                $table,
                " (scenario_id, sequence, bytes, generation, number, ",
                $item,
                ") SELECT $1, CAST(value ->> 0 AS bigint), CAST(value ->> 1 AS bigint), CAST(value ->> 2 AS bigint),
                CAST(value ->> 3 AS bigint), value ->> 4 FROM ",
                elements!("$2")
            ),
            trim: concat!("DELETE FROM ", $table, " WHERE scenario_id = $1 AND (sequence <= $2 OR bytes <= $3)"),
            behind: concat!(
                "SELECT sequence, generation, ",
                $item,
                " AS item FROM ",
                $table,
                " WHERE scenario_id = $1 AND sequence > $2
                    AND EXISTS (SELECT 1 FROM scenarios WHERE id = $1 AND desired <> 'deleted')
                ORDER BY sequence"
            ),
            size: $size,
        }
    };
}
pub(super) use ring_in;

/// Whether the scenario is there and stays until this transaction ends.
pub(super) async fn takes_items(conn: &mut Conn, id: ScenarioId) -> Result<bool> {
    Ok(sqlx::query(TAKES_ITEMS).bind(key(id.0)).fetch_optional(conn).await?.is_some())
}

/// Stores what is new of these, and lets the oldest go.
pub(super) async fn append<'a, T: Serialize + 'a>(
    conn: &mut Conn,
    ring: &Ring,
    id: ScenarioId,
    batches: impl IntoIterator<Item = impl Into<Batch<'a, T>>>,
) -> Result<()> {
    let newest = sqlx::query(ring.newest).bind(key(id.0)).fetch_optional(&mut *conn).await?;
    let new = behind(newest.as_ref().map(place).transpose()?, batches);
    let Some((sequence, bytes)) = new.last().map(|(newest, _)| newest.gone(ring.size)) else { return Ok(()) };
    // The end of a batch that is longer than the ring.
    let kept = new.iter().filter(|(place, _)| place.sequence > sequence && place.bytes > bytes);
    let rows = kept.map(|(place, item)| row(*place, *item)).collect::<Result<Vec<_>>>()?;
    sqlx::query(ring.add).bind(key(id.0)).bind(to_json(&rows)?).execute(&mut *conn).await?;
    sqlx::query(ring.trim).bind(key(id.0)).bind(sequence).bind(bytes).execute(conn).await?;
    Ok(())
}

fn row(place: Place, item: &impl Serialize) -> Result<serde_json::Value> {
    let Place { sequence, bytes, generation, number } = place;
    Ok(json!([sequence, bytes, generation, signed(number), to_json(item)?]))
}

fn place(row: &Row) -> Result<Place> {
    Ok(Place {
        sequence: row.col("sequence")?,
        bytes: row.col("bytes")?,
        generation: row.col("generation")?,
        number: unsigned(row.col("number")?),
    })
}

/// What is kept behind `after`, each in its `item`; `None`: there is no such scenario.
pub(super) async fn read<T>(
    db: &Database,
    ring: &Ring,
    id: ScenarioId,
    after: i64,
    entry: impl Fn(&Row) -> Result<T>,
) -> Result<Option<Vec<T>>> {
    let rows = sqlx::query(ring.behind).bind(key(id.0)).bind(after).fetch_all(db.reader()).await?;
    if rows.is_empty() && !sqlx::query_scalar(EXISTS).bind(key(id.0)).fetch_one(db.reader()).await? {
        return Ok(None);
    }
    rows.iter().map(entry).collect::<Result<_>>().map(Some)
}
