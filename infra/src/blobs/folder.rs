//! `<data>/blobs`: the blobs of one process.
//!
//! Invariants: a file under `sha256/` was complete, verified and on the disk before it got its name, and is
//! never written again; what is not committed lies in `tmp/`, goes when its owner is dropped, and at the
//! latest when the folder is opened again. A file that was asked for is not removed to save space for a
//! while: both look at its last use under one lock.
//!
//! All of it blocks.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use framehook_core::ids::Digest;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::{BlobError, Result, Staged, digest_of, is_older, place};
use crate::private;

/// One read while hashing: large enough that system calls do not count, small enough for the cache.
const HASH_CHUNK: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// The folder of files that are not blobs yet.
    pub(super) temporary: PathBuf,
    _lock: fs::File,
    known: Mutex<HashMap<Digest, Known>>,
}

/// What this process knows of a blob.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// How it looked when all of it was read last.
    verified: Option<Stamp>,
    used: SystemTime,
}

/// Any change of a file's content changes its length or its modification time, short of bit rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

impl Folder {
    pub(super) fn open(data: &Path) -> Result<Self> {
        let root = data.join("blobs");
        let temporary = root.join("tmp");
        for folder in [&temporary, &root.join("sha256")] {
            fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
        }
        // Beside the folder, which holds nothing but blobs.
        let lock = root.with_extension("lock");
        let lock = private::lock(&lock).map_err(BlobError::at(&lock))?;
        let lock = lock.ok_or_else(|| BlobError::InUse { path: root.clone() })?;
        for entry in fs::read_dir(&temporary).map_err(BlobError::at(&temporary))? {
            let path = entry.map_err(BlobError::at(&temporary))?.path();
            fs::remove_file(&path).map_err(BlobError::at(&path))?;
        }
        Ok(Self { root, temporary, _lock: lock, known: Mutex::default() })
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(PathBuf::from_iter(place(digest)))
    }

    /// The path of a blob whose bytes are what they should be.
    pub(super) fn verified(&self, digest: &Digest) -> Result<PathBuf> {
        let path = self.path(digest);
        let missing = |error| match error {
            BlobError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                BlobError::Missing(digest.clone())
            }
            other => other,
        };
        // Before the first look at the file: from here on nobody removes it to save space.
        let verified = self.use_now(digest);
        let found = stamp(&path).map_err(missing)?;
        if verified != Some(found) {
            if hash(&path).map_err(missing)? != *digest {
                return Err(BlobError::Damaged(digest.clone()));
            }
            self.known.lock().insert(digest.clone(), Known { verified: Some(found), used: SystemTime::now() });
        }
        Ok(path)
    }

    fn use_now(&self, digest: &Digest) -> Option<Stamp> {
        let used = SystemTime::now();
        let mut known = self.known.lock();
        let known = known.entry(digest.clone()).or_insert(Known { verified: None, used });
        known.used = used;
        known.verified
    }

    /// Gives a complete file its place.
    pub(super) fn keep(&self, staged: Staged) -> Result<PathBuf> {
        let target = self.path(&staged.digest);
        // Every path of a blob has the two folders above it.
        let folder = target.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
        {
            let mut known = self.known.lock();
            fs::rename(&staged.path, &target).map_err(BlobError::at(&target))?;
            // The bytes were hashed while they were written.
            let verified = Some(stamp(&target)?);
            known.insert(staged.digest.clone(), Known { verified, used: SystemTime::now() });
        }
        for folder in [folder, &self.root.join("sha256")] {
            fs::File::open(folder).and_then(|f| f.sync_all()).map_err(BlobError::at(folder))?;
        }
        Ok(target)
    }

    /// Removes what was used longest ago, until at most `bytes` are left, or only what was used within
    /// `in_use`.
    pub(super) fn shrink(&self, bytes: u64, in_use: Duration) -> Result<()> {
        let mut all = self.list()?;
        let mut total: u64 = all.iter().map(|(_, stamp)| stamp.length).sum();
        if total > bytes {
            let known = self.known.lock().clone();
            all.sort_by_key(|(digest, stamp)| last_use(known.get(digest), *stamp));
        }
        for (digest, stamp) in all {
            if total <= bytes {
                break;
            }
            if self.remove_unused(&digest, in_use)? {
                total -= stamp.length;
            }
        }
        Ok(())
    }

    /// Removes what is not `live` and was used last more than `age` ago.
    pub(super) fn sweep(&self, live: &HashSet<Digest>, age: Duration) -> Result<()> {
        for (digest, _) in self.list()? {
            if !live.contains(&digest) {
                self.remove_unused(&digest, age)?;
            }
        }
        Ok(())
    }

    /// Whether it is gone. Under the lock, so that nobody is told of a file that is about to go.
    fn remove_unused(&self, digest: &Digest, age: Duration) -> Result<bool> {
        let path = self.path(digest);
        let mut known = self.known.lock();
        let Some(stamp) = if_there(stamp(&path))? else { return Ok(true) };
        let is_unused = is_older(last_use(known.get(digest), stamp), age);
        if is_unused {
            if_there(fs::remove_file(&path).map_err(BlobError::at(&path)))?;
            known.remove(digest);
        }
        Ok(is_unused)
    }

    /// Removes a blob; one that is not there is no error.
    pub(super) fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let mut known = self.known.lock();
        if_there(fs::remove_file(&path).map_err(BlobError::at(&path)))?;
        known.remove(digest);
        Ok(())
    }

    fn list(&self) -> Result<Vec<(Digest, Stamp)>> {
        let mut all = Vec::new();
        for path in files(&self.root.join("sha256"))? {
            if let Some(digest) = digest_of(&path.file_name().unwrap_or_default().to_string_lossy())
                && let Some(stamp) = if_there(stamp(&path))?
            {
                all.push((digest, stamp));
            }
        }
        Ok(all)
    }

    /// As if a blob had not been asked for since.
    #[cfg(test)]
    pub(super) fn last_used(&self, digest: &Digest, ago: Duration) {
        self.known.lock().get_mut(digest).expect("it was used").used = SystemTime::now() - ago;
    }
}

/// What this process never asked for was used when it came, at the latest.
fn last_use(known: Option<&Known>, stamp: Stamp) -> SystemTime {
    known.map_or(stamp.modified, |known| known.used)
}

/// What lies two levels below `top`.
pub(super) fn files(top: &Path) -> Result<Vec<PathBuf>> {
    let entries = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = if_there(fs::read_dir(folder).map_err(BlobError::at(folder)))?;
        entries.into_iter().flatten().map(|e| e.map(|e| e.path()).map_err(BlobError::at(folder))).collect()
    };
    let mut all = Vec::new();
    for folder in entries(top)?.iter().filter(|entry| entry.is_dir()) {
        all.extend(entries(folder)?);
    }
    Ok(all)
}

pub(super) fn if_there<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(BlobError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn stamp(path: &Path) -> Result<Stamp> {
    let metadata = fs::metadata(path).map_err(BlobError::at(path))?;
    Ok(Stamp { modified: metadata.modified().map_err(BlobError::at(path))?, length: metadata.len() })
}

fn hash(path: &Path) -> Result<Digest> {
    let file = fs::File::open(path).map_err(BlobError::at(path))?;
    let mut hash = Sha256::new();
    io::copy(&mut BufReader::with_capacity(HASH_CHUNK, file), &mut hash).map_err(BlobError::at(path))?;
    Ok(Digest::from_bytes(&hash.finalize().into()))
}
