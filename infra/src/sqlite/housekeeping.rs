//! Removes what nobody needs any more, in steps that nobody waits long behind.

use std::time::Duration;

use super::{Database, clock_us, sql_store::purge};
use crate::{
    sql::later,
    store::{KEEP_DELETED, Keep, Result},
};

/// Rows of one step: a few milliseconds.
const STEP: u32 = 1_000;

const PUBLISHED: &str = "
    DELETE FROM outbox_scenario WHERE sequence IN
        (SELECT sequence FROM outbox_scenario WHERE published_at < ? ORDER BY sequence LIMIT ?)";
const FORMER_LIVES: &str = "
    DELETE FROM runners WHERE incarnation IN (SELECT r.incarnation FROM runners r WHERE r.seen_at < ? AND EXISTS
        (SELECT 1 FROM runners n WHERE n.runner_id = r.runner_id AND n.incarnation > r.incarnation) LIMIT ?)";
const DEAD_LETTERS: &str =
    "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE at < ? ORDER BY id LIMIT ?)";
const DELETED: &str = "
    DELETE FROM deleted_scenarios WHERE id IN (SELECT id FROM deleted_scenarios WHERE deleted_at < ? ORDER BY id LIMIT ?)";
/// They were written in the order of their times, nearly.
const RESULTS: &str = "
    DELETE FROM scenario_results WHERE rowid IN
        (SELECT rowid FROM scenario_results WHERE captured_at < ? ORDER BY rowid LIMIT ?)";

pub(super) async fn trim(db: &Database, keep: Keep) -> Result<()> {
    for (statement, age) in [
        (PUBLISHED, keep.published),
        (FORMER_LIVES, keep.published),
        (DEAD_LETTERS, keep.dead_letters),
        (DELETED, KEEP_DELETED),
    ] {
        drop_older(db, statement, age).await?;
    }
    purge::remove_left_over(db).await
}

pub(super) async fn drop_results(db: &Database, age: Duration) -> Result<()> {
    drop_older(db, RESULTS, age).await
}

async fn drop_older(db: &Database, statement: &'static str, age: Duration) -> Result<()> {
    let before = clock_us().saturating_sub(later(0, age));
    loop {
        let dropped = sqlx::query(statement).bind(before).bind(STEP).execute(&db.writer).await?;
        if dropped.rows_affected() < u64::from(STEP) {
            return Ok(());
        }
    }
}
