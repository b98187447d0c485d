//! The store in SQL: the statements, and the code that binds and reads them, for every database.
//!
//! This folder is compiled once in each adapter, as a module of it, and names no database. Its statements
//! keep to what both databases take: parameters are numbered (`$1`), and a parameter is compared with a
//! column before it is compared with NULL, so that PostgreSQL knows its type. What differs, an adapter gives:
//! - `Db`: the database as sqlx calls it.
//! - `Database`, which gets the traits of the store here. `reader` is a pool for single statements, `read`
//!   and `write` begin a transaction, `transact` and `transact_despite_full` run one that may have to run
//!   again (the second is for what gives space back, and for what nobody could give space back without),
//!   `admit` refuses what the disk has no room for, `probe` is a read and a commit.
//! - `key` and `identity`: how an identity is bound and read.
//! - `now_us`: the database's clock, to be read behind the locks.
//! - `one_artifact_at_a_time`, `drop_results`, `make_partitions`.
//! - The macros `lock`, `together` and `elements`, which must be defined above the `mod` line of this
//!   folder.
//! - `heartbeats`, `relay`, `rows`: writes that each database does in its own way.

mod actions;
mod artifacts;
pub(super) mod delivery;
mod history;
pub(super) mod housekeeping;
mod logs;
pub(super) mod orchestrator;
pub(super) mod outbox;
mod purge;
mod recorded;
pub(super) mod results;
mod revisions;
mod ring;
pub(super) mod scenarios;
mod shadow;

use super::{
    Database, Db, drop_results, heartbeats, identity, key, make_partitions, now_us, one_artifact_at_a_time, relay, rows,
};

use crate::{
    row::RowExt as _,
    store::{Limit, Result, Rows},
};

type Conn = <Db as sqlx::Database>::Connection;
type Row = <Db as sqlx::Database>::Row;

/// Rows to look for: with one behind those that are wanted, there are more.
fn one_more(limit: Limit) -> i64 {
    i64::from(limit.rows) + 1
}

/// The rows of a statement that looked for [`one_more`] and has the number it found in each row, as `found`.
fn part<T>(rows: &[Row], limit: Limit, read: impl Fn(&Row) -> Result<T>) -> Result<Rows<T>> {
    let found = rows.first().map_or(Ok(0), |row| row.col("found"))?;
    let rows = rows.iter().take(limit.rows as usize).map(read).collect::<Result<Vec<_>>>()?;
    Ok(Rows { has_more: found > i64::try_from(rows.len()).unwrap_or(i64::MAX), rows })
}
