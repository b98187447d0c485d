//! Blobs: immutable files addressed by the sha256 of their content, under `<data>/blobs`.
//!
//! Invariants: a file under `sha256/` was complete, verified and on the disk before it got its name, and is never
//! written again; what is not committed lies in `tmp/`, goes when its owner is dropped, and at the latest when the
//! folder is opened again. Who may refer to a blob, and when it is garbage, is the store's business.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use framehook_core::ids::Digest;
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncWriteExt as _, task::spawn_blocking};
use uuid::Uuid;

/// One read while hashing: large enough that system calls do not count, small enough for the cache.
const HASH_CHUNK: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("larger than the limit of {cap} bytes")]
    TooLarge { cap: u64 },
    #[error("the disk is full")]
    Full,
    #[error("blob {0} is not there")]
    Missing(Digest),
    /// The bytes are not those that were stored.
    #[error("blob {0} is damaged; upload it again")]
    Damaged(Digest),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl BlobError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}

pub type Result<T, E = BlobError> = std::result::Result<T, E>;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// What each blob looked like when this process last read all of it.
    verified: Mutex<HashMap<Digest, Stamp>>,
}

/// Any change of a file's content changes its length or its modification time, short of bit rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

impl Blobs {
    /// Opens `<data>/blobs`, making it if need be, and removes what an earlier process left unfinished. One process at a
    /// time: uploads of another would be removed.
    pub async fn open(data: &Path) -> Result<Self> {
        let root = data.join("blobs");
        blocking(move || {
            let temporary = root.join("tmp");
            for folder in [&temporary, &root.join("sha256")] {
                fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
            }
            for entry in fs::read_dir(&temporary).map_err(BlobError::at(&temporary))? {
                let path = entry.map_err(BlobError::at(&temporary))?.path();
                fs::remove_file(&path).map_err(BlobError::at(&path))?;
            }
            Ok(Self { inner: Arc::new(Inner { root, verified: Mutex::default() }) })
        })
        .await
    }

    /// Begins a blob of at most `cap_bytes`.
    pub async fn begin(&self, cap_bytes: u64) -> Result<Upload> {
        let path = self.inner.root.join("tmp").join(Uuid::now_v7().to_string());
        let file = File::options().write(true).create_new(true).open(&path).await.map_err(BlobError::at(&path))?;
        Ok(Upload { temporary: Temporary(path), file, hash: Sha256::new(), size: 0, cap: cap_bytes })
    }

    /// Gives a staged file its place; it survives a power cut from here on. The same content twice is one blob.
    pub async fn commit(&self, staged: Staged) -> Result<Digest> {
        let blobs = self.clone();
        blocking(move || {
            let (digest, target) = (staged.digest.clone(), blobs.path(&staged.digest));
            // Every path of a blob has the two folders above it.
            let folder = target.parent().unwrap_or(&blobs.inner.root);
            fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
            fs::rename(&staged.path, &target).map_err(BlobError::at(&target))?;
            for folder in [folder, &blobs.inner.root.join("sha256")] {
                fs::File::open(folder).and_then(|f| f.sync_all()).map_err(BlobError::at(folder))?;
            }
            // The bytes were hashed while they were written.
            blobs.remember(&digest, stamp(&target)?);
            Ok(digest)
        })
        .await
    }

    /// Where a blob lies, if it exists.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.inner.root.join("sha256").join(&hex[..2]).join(hex)
    }

    /// The path of a blob whose bytes were checked by this process, and not changed since.
    pub async fn verified(&self, digest: &Digest) -> Result<PathBuf> {
        let (blobs, digest) = (self.clone(), digest.clone());
        blocking(move || {
            let path = blobs.path(&digest);
            let missing = |error| match error {
                BlobError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    BlobError::Missing(digest.clone())
                }
                other => other,
            };
            let found = stamp(&path).map_err(missing)?;
            let known = blobs.inner.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).copied();
            if known != Some(found) {
                if hash(&path).map_err(missing)? != digest {
                    return Err(BlobError::Damaged(digest));
                }
                blobs.remember(&digest, found);
            }
            Ok(path)
        })
        .await
    }

    /// Removes a blob; one that is not there is no error.
    pub async fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::at(&path)(error)),
            _ => Ok(()),
        }
    }

    fn remember(&self, digest: &Digest, stamp: Stamp) {
        self.inner.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), stamp);
    }
}

/// A blob being written. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    temporary: Temporary,
    file: File,
    hash: Sha256,
    size: u64,
    cap: u64,
}

impl Upload {
    /// Appends `bytes`. After an error the upload is of no use any more.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.cap {
            return Err(BlobError::TooLarge { cap: self.cap });
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).await.map_err(BlobError::at(&self.temporary.0))
    }

    /// Completes the file on the disk, still under its temporary name.
    pub async fn finish(mut self) -> Result<Staged> {
        let path = self.temporary.0.clone();
        self.file.flush().await.map_err(BlobError::at(&path))?;
        self.file.sync_all().await.map_err(BlobError::at(&path))?;
        let digest = Digest::from_bytes(&self.hash.finalize().into());
        Ok(Staged { path, digest, size: self.size, _temporary: self.temporary })
    }
}

/// A complete file that is not a blob yet: to be probed, then committed or dropped.
#[derive(Debug)]
pub struct Staged {
    pub path: PathBuf,
    pub digest: Digest,
    pub size: u64,
    _temporary: Temporary,
}

/// Removes its file when dropped, unless that has moved on.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a temporary file stays until the next start");
        }
    }
}

fn stamp(path: &Path) -> Result<Stamp> {
    let metadata = fs::metadata(path).map_err(BlobError::at(path))?;
    Ok(Stamp { modified: metadata.modified().map_err(BlobError::at(path))?, length: metadata.len() })
}

fn hash(path: &Path) -> Result<Digest> {
    use io::Read as _;
    let mut file = fs::File::open(path).map_err(BlobError::at(path))?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; HASH_CHUNK]);
    loop {
        match file.read(&mut chunk).map_err(BlobError::at(path))? {
            0 => return Ok(Digest::from_bytes(&hash.finalize().into())),
            read => hash.update(&chunk[..read]),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that is shutting down cancels blocking work.
        Err(error) => Err(BlobError::Io { path: PathBuf::new(), source: io::Error::other(error) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limit of the uploads in these tests.
    const CAP: u64 = 1 << 20;

    async fn stage(blobs: &Blobs, bytes: &[u8]) -> Staged {
        let mut upload = blobs.begin(CAP).await.unwrap();
        for chunk in bytes.chunks(1000) {
            upload.write(chunk).await.unwrap();
        }
        upload.finish().await.unwrap()
    }

    fn leftovers(blobs: &Blobs) -> usize {
        fs::read_dir(blobs.inner.root.join("tmp")).unwrap().count()
    }

    #[tokio::test]
    async fn a_blob_is_found_under_its_digest() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).await.unwrap();
        let staged = stage(&blobs, &[7; 12_345]).await;
        assert_eq!((staged.size, fs::read(&staged.path).unwrap().len()), (12_345, 12_345));
        let digest = blobs.commit(staged).await.unwrap();
        assert_eq!(digest, Digest::from_bytes(&Sha256::digest([7; 12_345]).into()));
        assert_eq!(blobs.verified(&digest).await.unwrap(), blobs.path(&digest));
        assert_eq!(blobs.commit(stage(&blobs, &[7; 12_345]).await).await.unwrap(), digest);
        assert_eq!(leftovers(&blobs), 0);

        let again = Blobs::open(data.path()).await.unwrap();
        assert_eq!(fs::read(again.verified(&digest).await.unwrap()).unwrap(), [7; 12_345]);
        for _ in 0..2 {
            again.remove(&digest).await.unwrap();
        }
        assert!(matches!(again.verified(&digest).await, Err(BlobError::Missing(d)) if d == digest));
    }

    #[tokio::test]
    async fn the_known_digest_of_nothing() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).await.unwrap();
        let digest = blobs.commit(stage(&blobs, b"").await).await.unwrap();
        assert_eq!(digest.hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[tokio::test]
    async fn damage_is_noticed_even_after_a_first_check() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).await.unwrap();
        let digest = blobs.commit(stage(&blobs, b"whole").await).await.unwrap();
        blobs.verified(&digest).await.unwrap();
        for damage in [&b"hol"[..], b"whole and more"] {
            fs::write(blobs.path(&digest), damage).unwrap();
            assert!(matches!(blobs.verified(&digest).await, Err(BlobError::Damaged(d)) if d == digest));
        }
        // The same length: the first look of another process reads the bytes.
        fs::write(blobs.path(&digest), b"holes").unwrap();
        let other = Blobs::open(data.path()).await.unwrap();
        assert!(matches!(other.verified(&digest).await, Err(BlobError::Damaged(_))));
        blobs.commit(stage(&blobs, b"whole").await).await.unwrap();
        blobs.verified(&digest).await.unwrap();
    }

    #[tokio::test]
    async fn the_cap_counts_every_byte_and_leaves_nothing() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).await.unwrap();
        let mut upload = blobs.begin(10).await.unwrap();
        upload.write(&[0; 10]).await.unwrap();
        assert!(matches!(upload.write(&[0]).await, Err(BlobError::TooLarge { cap: 10 })));
        drop(upload);
        drop(stage(&blobs, b"never committed").await);
        assert_eq!(leftovers(&blobs), 0);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).await.unwrap();
        std::mem::forget(stage(&blobs, b"killed here").await);
        assert_eq!(leftovers(&blobs), 1);
        assert_eq!(leftovers(&Blobs::open(data.path()).await.unwrap()), 0);
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_of_its_own() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(data.path()).await.unwrap();
        let mut upload = blobs.begin(CAP).await.unwrap();
        // Every write to this device fails as on a full disk.
        upload.file = File::options().write(true).open("/dev/full").await.unwrap();
        let written = upload.write(b"more").await;
        let outcome = if written.is_err() { written } else { upload.finish().await.map(drop) };
        assert!(matches!(outcome, Err(BlobError::Full)), "{outcome:?}");
    }
}
