//! What stays in the folder of compiled plugins: what was used lately, and no more than a bound.
//!
//! Which plugins still exist is not known here. So a file goes by its last use, which is its modification
//! time; one that is missed is compiled again, which takes seconds. Whoever shares the folder sweeps by the
//! same rules, and nothing that is no file of ours is touched.

use std::{
    fs::{self, DirEntry, File},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

/// How the names of compiled plugins end.
pub(crate) const COMPILED: &str = ".cwasm";

/// How those of unfinished files end, which are left when a process is killed while it compiles.
pub(crate) const UNFINISHED: &str = ".unfinished";

/// Nobody compiles for this long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A plugin that was not used for a day may be compiled once more.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// Some hundred plugins; as many are in use as there are scenarios that name them.
const BYTES: u64 = 1 << 30;

/// Says that a compiled plugin is being used.
pub(crate) fn used(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

/// Removes what is abandoned, unused for long, or used longest ago while there is too much. A worker that has
/// a file open keeps its bytes.
pub(crate) fn sweep(dir: &Path) {
    sweep_to(dir, BYTES);
}

fn sweep_to(dir: &Path, bytes: u64) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut files: Vec<_> = entries.flatten().filter(is_ours).filter_map(age).collect();
    files.sort_by_key(|(age, ..)| *age);
    let mut kept = 0;
    for (age, length, entry) in files {
        let is_unfinished = entry.file_name().to_string_lossy().ends_with(UNFINISHED);
        kept += length;
        let is_garbage = if is_unfinished { age > ABANDONED } else { age > UNUSED || kept > bytes };
        if is_garbage && fs::remove_file(entry.path()).is_ok() {
            kept -= length;
        }
    }
}

fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    [COMPILED, UNFINISHED].iter().any(|end| name.to_string_lossy().ends_with(end))
}

/// How long a file was not used, and its length.
fn age(entry: DirEntry) -> Option<(Duration, u64, DirEntry)> {
    let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
    // A time in the future is not old.
    Some((metadata.modified().ok()?.elapsed().unwrap_or_default(), metadata.len(), entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unused_go_and_of_too_many_those_used_longest_ago() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        for (name, age, length) in [
            ("new.cwasm", Duration::ZERO, 60),
            ("used.cwasm", 2 * hour, 30),
            ("large.cwasm", 3 * hour, 30),
            ("small.cwasm", 4 * hour, 5),
            ("old.cwasm", 25 * hour, 1),
            ("a.unfinished", hour / 2, 1),
            ("b.unfinished", 2 * hour, 1),
            ("another's", 25 * hour, 100),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, vec![0; length]).unwrap();
            File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        sweep_to(dir.path(), 100);
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["a.unfinished", "another's", "new.cwasm", "small.cwasm", "used.cwasm"]);

        used(&dir.path().join("small.cwasm")).unwrap();
        sweep_to(dir.path(), 70);
        assert!(dir.path().join("small.cwasm").exists() && !dir.path().join("used.cwasm").exists());
    }
}
