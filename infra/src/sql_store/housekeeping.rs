//! Removes what nobody needs any more, in steps that nobody waits long behind.

use std::time::Duration;

use super::{Database, make_partitions, now_us, purge};
use crate::{
    sql::later,
    store::{KEEP_DELETED, Keep, Result},
};

/// Rows of one step: a few milliseconds.
const STEP: u32 = 1_000;

const PUBLISHED: &str = "
    DELETE FROM outbox_scenario WHERE sequence IN
        (SELECT sequence FROM outbox_scenario WHERE published_at < $1 ORDER BY sequence LIMIT $2)";
const FORMER_LIVES: &str = "
    DELETE FROM runners WHERE incarnation IN (SELECT r.incarnation FROM runners r WHERE r.seen_at < $1 AND EXISTS
        (SELECT 1 FROM runners n WHERE n.runner_id = r.runner_id AND n.incarnation > r.incarnation) LIMIT $2)";
const DEAD_LETTERS: &str =
    "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE at < $1 ORDER BY id LIMIT $2)";
const DELETED: &str = "
    DELETE FROM deleted_scenarios WHERE id IN (SELECT id FROM deleted_scenarios WHERE deleted_at < $1 ORDER BY id LIMIT $2)";

pub(super) async fn trim(db: &Database, keep: Keep) -> Result<()> {
    for (statement, age) in [
        (PUBLISHED, keep.published),
        (FORMER_LIVES, keep.published),
        (DEAD_LETTERS, keep.dead_letters),
        (DELETED, KEEP_DELETED),
    ] {
        drop_older(db, statement, age).await?;
    }
    purge::remove_left_over(db).await?;
    make_partitions(db).await
}

/// Repeats a statement that deletes at most `$2` rows from before `$1`, until none are left.
pub(in super::super) async fn drop_older(db: &Database, statement: &'static str, age: Duration) -> Result<()> {
    loop {
        let mut tx = db.write().await?;
        let before = now_us(&mut tx).await?.saturating_sub(later(0, age));
        let dropped = sqlx::query(statement).bind(before).bind(i64::from(STEP)).execute(&mut *tx).await?;
        tx.commit().await?;
        if dropped.rows_affected() < u64::from(STEP) {
            return Ok(());
        }
    }
}
