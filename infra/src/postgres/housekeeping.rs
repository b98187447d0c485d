//! Removes what nobody needs any more, and makes the partitions of the next days.

use super::{Database, now_us, partitions, sql_store::purge};
use crate::{
    sql::later,
    store::{KEEP_DELETED, Keep, Result},
};

pub(super) use super::partitions::drop_older as drop_results;

const OUTBOX: &str = "DELETE FROM outbox_scenario WHERE published_at < $1";
const RUNNERS: &str = "
    DELETE FROM runners r WHERE seen_at < $1 AND EXISTS
        (SELECT 1 FROM runners n WHERE n.runner_id = r.runner_id AND n.incarnation > r.incarnation)";
const DEAD_LETTERS: &str = "DELETE FROM dead_letters WHERE at < $1";
const DELETED: &str = "DELETE FROM deleted_scenarios WHERE deleted_at < $1";

pub(super) async fn trim(db: &Database, keep: Keep) -> Result<()> {
    let mut tx = db.write().await?;
    let now = now_us(&mut tx).await?;
    for (statement, age) in [
        (OUTBOX, keep.published),
        (RUNNERS, keep.published),
        (DEAD_LETTERS, keep.dead_letters),
        (DELETED, KEEP_DELETED),
    ] {
        sqlx::query(statement).bind(now.saturating_sub(later(0, age))).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    purge::remove_left_over(db).await?;
    partitions::ahead(db).await
}
