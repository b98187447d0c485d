//! Gives the database's free pages back to the disk.
//!
//! Invariants: in small steps, between which everybody else writes; only pages that were free for a while,
//! because what a running scenario leaves free the next one takes; the file's size is a multiple of [`STEP`]
//! then, so that it does not change with every row.

use std::time::Duration;

use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};
use tokio::{task::yield_now, time::interval};

/// Between two looks. A page that is free at both is not needed.
const LOOK: Duration = Duration::from_secs(1);

/// Pages given back at a time, at most: a mebibyte, some milliseconds.
const STEP: i64 = 256;

/// Largest content for which a database of an earlier release is written anew at the start: ten seconds or
/// so.
const CONVERTED_BYTES: i64 = 1 << 30;

/// The copy lies beside the original for a moment, in the write-ahead log and in a temporary file.
const COPIES: i64 = 3;

/// `auto_vacuum`: free pages stay in the file until they are asked for.
const INCREMENTAL: i64 = 2;

/// Looks for free pages for ever.
pub(super) async fn keep_small(writer: SqlitePool) {
    let mut looks = interval(LOOK);
    let mut free_before = 0;
    loop {
        looks.tick().await;
        match shrink(&writer, free_before).await {
            Ok(free) => free_before = free,
            // A full or busy disk: the next look finds the same.
            Err(error) => tracing::debug!("free pages stay for now: {error}"),
        }
    }
}

/// Gives back what was free before and is; what is free now.
pub(super) async fn shrink(writer: &SqlitePool, free_before: i64) -> sqlx::Result<i64> {
    let mut has_shrunk = false;
    loop {
        let mut conn = writer.acquire().await?;
        let (pages, free) = size(&mut conn).await?;
        let surplus = surplus(pages, free.min(free_before));
        if surplus == 0 {
            if has_shrunk {
                // The file becomes shorter when the log is written back, and the log begins anew.
                sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(&mut *conn).await?;
            }
            return Ok(free);
        }
        // A pragma takes no parameters; this is a number.
        let vacuum = format!("PRAGMA incremental_vacuum({})", surplus.min(STEP));
        sqlx::query(AssertSqlSafe(vacuum)).execute(&mut *conn).await?;
        if size(&mut conn).await?.0 == pages {
            // A database of an earlier release, which gives nothing back.
            return Ok(free);
        }
        has_shrunk = true;
        drop(conn);
        yield_now().await;
    }
}

/// Pages by which the file is longer than the steps it needs.
fn surplus(pages: i64, free: i64) -> i64 {
    let needed = (pages - free).div_euclid(STEP) + 1;
    (pages - needed * STEP).max(0)
}

/// Pages of the file, and how many of them are free.
async fn size(conn: &mut SqliteConnection) -> sqlx::Result<(i64, i64)> {
    let pages = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *conn).await?;
    let free = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(conn).await?;
    Ok((pages, free))
}

/// Makes a database of an earlier release one that gives pages back, if that is quick and there is room for
/// it.
pub(super) async fn convert(writer: &SqlitePool, room: u64) -> sqlx::Result<()> {
    let mut conn = writer.acquire().await?;
    let mode: i64 = sqlx::query_scalar("PRAGMA auto_vacuum").fetch_one(&mut *conn).await?;
    if mode == INCREMENTAL {
        return Ok(());
    }
    let (pages, free) = size(&mut conn).await?;
    let page_size: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&mut *conn).await?;
    let content = (pages - free) * page_size;
    if content > CONVERTED_BYTES || i64::try_from(room).is_ok_and(|room| room < content * COPIES) {
        tracing::info!(
            bytes = content,
            "the database stays as an earlier release made it, because it is large or the disk is full: free pages are used \
             again, and not given back to the disk"
        );
        return Ok(());
    }
    tracing::info!(
        bytes = content,
        "writing the database anew, so that it gives free space back to the disk from now on"
    );
    for statement in ["PRAGMA auto_vacuum = INCREMENTAL", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::query(statement).execute(&mut *conn).await?;
    }
    tracing::info!("the database is written anew");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_what_it_needs_and_less_than_a_step_more() {
        for (pages, free, expected) in [
            (0, 0, 0),
            (256, 250, 0),
            (512, 256, 0),
            (512, 257, 256),
            (513, 257, 1),
            (1024, 0, 0),
            (1024, 512, 256),
            (10_000, 9_990, 9_744),
        ] {
            assert_eq!(surplus(pages, free), expected, "{pages} pages, {free} free");
        }
    }
}
