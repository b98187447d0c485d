//! Room on a disk: what intake leaves free, so that deletions, purges and heartbeats always find some.
//!
//! Invariants: intake is refused as long as it would leave less than the reserve, and goes on by itself once
//! there is room; what is asked for between two looks at the file system is counted, so that a fast writer
//! does not run past the reserve.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::fs::statvfs;

/// A look at a local file system takes a microsecond, at a shared one perhaps a round trip.
const LOOK: Duration = Duration::from_secs(1);

/// This share (a twentieth) of a small disk is kept free, [`MOST`] of a large one.
const SHARE: u64 = 20;

/// Far more than heartbeats and deletions ever take, and less than anybody would miss.
const MOST: u64 = 2 << 30;

/// On a small disk: what is kept for deletions on a full one (`sqlite::room`) is no more than what stays
/// free, so intake never lives on it after it was given up.
pub const LEAST: u64 = 8 << 20;

/// How much of a file system stays free: 8 MiB at least, unless it is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reserve {
    /// 5 %, and 2 GiB at most.
    #[default]
    Share,
    Bytes(u64),
}

impl Reserve {
    /// None: a disk is used until it is full.
    pub const NONE: Self = Self::Bytes(0);

    fn of(self, total: u64) -> u64 {
        match self {
            Self::Share => (total / SHARE).clamp(LEAST, MOST),
            Self::NONE => 0,
            Self::Bytes(bytes) => bytes.max(LEAST),
        }
    }
}

/// Why something is not taken in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} MiB of the disk are free, and {} MiB stay free (`disk_reserve_mib`): delete scenarios, models, videos or plugins, or free \
     space otherwise; it goes on by itself",
    free >> 20, reserve.div_ceil(1 << 20)
)]
pub struct Shortage {
    pub free: u64,
    pub reserve: u64,
}

/// The file system that a folder lies on.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    reserve: Reserve,
    look: Mutex<Look>,
}

#[derive(Debug)]
struct Look {
    at: Option<Instant>,
    /// Less what was taken in since.
    free: u64,
    reserve: u64,
    is_short: bool,
}

impl Disk {
    pub fn new(folder: &Path, reserve: Reserve) -> Self {
        let look = Look { at: None, free: 0, reserve: 0, is_short: false };
        Self { folder: folder.to_owned(), reserve, look: Mutex::new(look) }
    }

    /// Bytes that stay free.
    pub(crate) fn reserve(&self) -> io::Result<u64> {
        Ok(self.reserve.of(room(&self.folder)?.1))
    }

    /// Lets `bytes` in.
    ///
    /// # Errors
    /// When less than the reserve would be left.
    pub fn admit(&self, bytes: u64) -> Result<(), Shortage> {
        if self.reserve == Reserve::NONE {
            return Ok(());
        }
        let mut look = self.look.lock();
        let is_fresh = look.at.is_some_and(|at| at.elapsed() < LOOK);
        let has_room = |look: &Look| look.free >= look.reserve.saturating_add(bytes);
        if !is_fresh || !has_room(&look) {
            // The writer reports a file system that does not answer.
            let Ok((free, total)) = room(&self.folder) else { return Ok(()) };
            (look.at, look.free, look.reserve) = (Some(Instant::now()), free, self.reserve.of(total));
        }
        let Look { free, reserve, .. } = *look;
        let is_short = !has_room(&look);
        if is_short != look.is_short {
            look.is_short = is_short;
            self.tell(is_short, Shortage { free, reserve });
        }
        if is_short {
            return Err(Shortage { free, reserve });
        }
        look.free -= bytes;
        Ok(())
    }

    fn tell(&self, is_short: bool, shortage: Shortage) {
        let folder = self.folder.display();
        if is_short {
            tracing::warn!(%folder, "nothing is taken in: {shortage}");
        } else {
            tracing::info!(%folder, "there is room again");
        }
    }
}

/// Bytes that may still be written.
pub(crate) fn free(folder: &Path) -> io::Result<u64> {
    Ok(room(folder)?.0)
}

/// Bytes that may still be written, and bytes in all.
fn room(folder: &Path) -> io::Result<(u64, u64)> {
    let seen = statvfs(folder)?;
    Ok((seen.f_bavail.saturating_mul(seen.f_frsize), seen.f_blocks.saturating_mul(seen.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_keeps_a_share_within_bounds() {
        for (reserve, total, expected) in [
            (Reserve::Share, 64 << 20, LEAST),
            (Reserve::Share, 1 << 30, (1 << 30) / 20),
            (Reserve::Share, 1 << 40, 2 << 30),
            (Reserve::Bytes(7), 1 << 40, LEAST),
            (Reserve::Bytes(9 << 20), 64 << 20, 9 << 20),
            (Reserve::NONE, 1 << 40, 0),
        ] {
            assert_eq!(reserve.of(total), expected, "{reserve:?} of {total}");
        }
    }

    #[test]
    fn what_would_not_leave_the_reserve_is_refused_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let plenty = Disk::new(folder.path(), Reserve::Bytes(1));
        plenty.admit(1).unwrap();
        let shortage = plenty.admit(u64::MAX).unwrap_err();
        assert!(shortage.free > 0 && shortage.reserve == LEAST);
        plenty.admit(1).unwrap();

        let none = Disk::new(folder.path(), Reserve::Bytes(u64::MAX));
        let said = none.admit(0).unwrap_err().to_string();
        assert!(said.contains("are free") && said.contains("disk_reserve_mib"), "{said}");
        Disk::new(folder.path(), Reserve::NONE).admit(u64::MAX).unwrap();
    }
}
