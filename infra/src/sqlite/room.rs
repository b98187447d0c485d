//! Room for the writes that must work on a full disk: deletions, purges, heartbeats, the leader's lease.
//!
//! The reserve (`crate::space`) keeps intake from filling the disk; somebody else may fill it all the
//! same. A write that finds no room gets some in two steps. First the write-ahead log is written back, so
//! that it begins anew in the room it has. Then a file that only takes room is given up, at that moment
//! and not before: whatever fills the disk would take that room, too. It is made again once there is room
//! for it.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FallocateFlags, fallocate};
use sqlx::{Row as _, SqlitePool};
use tokio::time::interval;

use crate::{
    space::{self, Disk},
    store::{Result, StoreError},
};

/// Bytes of the file that only takes room, which is no larger than the reserve: several purges, each with
/// its log. To write the log back, which has 4 MiB, the database may have to grow by as much, and the log
/// begins anew behind it: the least reserve suffices for that.
const BALLAST: u64 = 16 << 20;

/// Between two looks whether the file can be made again.
const LOOK: Duration = Duration::from_secs(5);

pub(super) struct Room {
    pub(super) disk: Disk,
    writer: SqlitePool,
    data: PathBuf,
}

impl Room {
    pub(super) fn new(disk: Disk, writer: SqlitePool, data: &Path) -> Self {
        Self { disk, writer, data: data.to_owned() }
    }

    /// Runs a write that must work on a full disk.
    pub(super) async fn despite_full<T, F: Future<Output = Result<T>>>(&self, write: impl Fn() -> F) -> Result<T> {
        let is_full = |outcome: &Result<T>| matches!(outcome, Err(StoreError::Full(_)));
        let mut outcome = write().await;
        if is_full(&outcome) && self.write_back().await {
            outcome = write().await;
        }
        if is_full(&outcome) && self.give_up_ballast().await {
            outcome = write().await;
        }
        outcome
    }

    async fn give_up_ballast(&self) -> bool {
        let is_given_up = fs::remove_file(self.ballast()).is_ok();
        if is_given_up {
            tracing::warn!("the disk is full: the room that was kept for deletions is given up");
            self.write_back().await;
        }
        is_given_up
    }

    async fn write_back(&self) -> bool {
        let row = sqlx::query("PRAGMA wal_checkpoint(RESTART)").fetch_one(&self.writer).await;
        row.is_ok_and(|row| row.try_get("busy").is_ok_and(|busy: i64| busy == 0))
    }

    fn ballast(&self) -> PathBuf {
        self.data.join("ballast")
    }

    /// Makes the file that only takes room whenever it is missing and fits, for ever.
    pub(super) async fn keep_ballast(&self) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            if let Err(error) = self.make_ballast() {
                tracing::debug!("no room is kept for deletions: {error}");
            }
        }
    }

    fn make_ballast(&self) -> std::io::Result<()> {
        let (path, reserve) = (self.ballast(), self.disk.reserve()?);
        let bytes = reserve.min(BALLAST);
        if reserve == 0 {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if path.exists() || space::free(&self.data)? < reserve.saturating_add(bytes) {
            return Ok(());
        }
        let made = File::create(&path).and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?));
        if made.is_err() {
            // A part of it is of no use.
            fs::remove_file(path).ok();
        }
        made
    }
}
