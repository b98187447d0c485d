//! Blobs: immutable files addressed by the sha256 of their content, under `<data>/blobs`.
//!
//! Invariants: a file under `sha256/` was complete, verified and on the disk before it got its name, and is never
//! written again; what is not committed lies in `tmp/`, goes when its owner is dropped, and at the latest when the
//! folder is opened again. Who may refer to a blob is the store's business.
//!
//! Several processes share their blobs through a remote store: then the folder is the cache of one process. A blob is in the
//! remote before anybody can name it, and is fetched and verified where it lacks. Two that lack the same blob at once both
//! fetch it, and both are right.

mod remote;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use framehook_core::ids::Digest;
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncWriteExt as _, task::spawn_blocking};
use uuid::Uuid;

use self::remote::Remote;

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
    /// The remote store cannot be reached; the same call may succeed later.
    #[error("the shared blob store is not available: {0}")]
    Unavailable(String),
    #[error("the blob store `{0}` is not one; expected file:///FOLDER")]
    Url(String),
    #[error("the blob folder {} is in use by another process; give each process a data folder of its own", path.display())]
    InUse { path: PathBuf },
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
    remote: Option<Remote>,
    cache_bytes: u64,
    /// Held, not read: the kernel lets it go with the process.
    _lock: fs::File,
    /// What each blob looked like when this process last read all of it.
    verified: Mutex<HashMap<Digest, Stamp>>,
    /// When each blob was asked for last.
    used: Mutex<HashMap<Digest, SystemTime>>,
}

/// Where blobs lie besides the data folder.
#[derive(Clone, Debug)]
pub struct Shared {
    /// `file:///FOLDER`, the same for all processes.
    pub url: String,
    /// Bytes of the local cache; more only while all of it is in use.
    pub cache_bytes: u64,
}

/// A file that was handed out this recently may not be open yet: whoever asked starts a process that opens it.
const IN_USE: Duration = Duration::from_secs(600);

/// A blob without a name that is younger than this may belong to an upload that is not complete.
const YOUNG: Duration = Duration::from_secs(3600);

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
        Self::open_shared(data, None).await
    }

    /// The same as the cache of a store that other processes share.
    pub async fn open_shared(data: &Path, shared: Option<Shared>) -> Result<Self> {
        let root = data.join("blobs");
        blocking(move || {
            let lock = lock(&root)?;
            let remote = shared.as_ref().map(|shared| Remote::open(&shared.url)).transpose()?;
            let cache_bytes = shared.map_or(u64::MAX, |shared| shared.cache_bytes);
            let temporary = root.join("tmp");
            for folder in [&temporary, &root.join("sha256")] {
                fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
            }
            for entry in fs::read_dir(&temporary).map_err(BlobError::at(&temporary))? {
                let path = entry.map_err(BlobError::at(&temporary))?.path();
                fs::remove_file(&path).map_err(BlobError::at(&path))?;
            }
            let (verified, used) = (Mutex::default(), Mutex::default());
            Ok(Self { inner: Arc::new(Inner { root, remote, cache_bytes, _lock: lock, verified, used }) })
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
        if let Some(remote) = &self.inner.remote {
            remote.put(&staged.digest, &staged.path).await?;
        }
        self.keep(staged).await
    }

    async fn keep(&self, staged: Staged) -> Result<Digest> {
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

    /// The path of a blob whose bytes were checked by this process, and not changed since. It stays for some minutes: open it soon.
    pub async fn verified(&self, digest: &Digest) -> Result<PathBuf> {
        self.inner.used.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), SystemTime::now());
        match (self.verified_here(digest).await, &self.inner.remote) {
            (Err(BlobError::Missing(_) | BlobError::Damaged(_)), Some(remote)) => {
                self.fetch(remote, digest).await?;
                self.verified_here(digest).await
            }
            (here, _) => here,
        }
    }

    async fn fetch(&self, remote: &Remote, digest: &Digest) -> Result<()> {
        let mut upload = self.begin(u64::MAX).await?;
        remote.get(digest, &mut upload).await?;
        let staged = upload.finish().await?;
        if staged.digest != *digest {
            return Err(BlobError::Damaged(digest.clone()));
        }
        tracing::info!(%digest, bytes = staged.size, "fetched");
        self.keep(staged).await?;
        self.evict().await
    }

    /// Removes what was used longest ago, until the cache is within its bound.
    async fn evict(&self) -> Result<()> {
        let blobs = self.clone();
        blocking(move || {
            let used = blobs.inner.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut all = blobs.list()?;
            let mut bytes: u64 = all.iter().map(|(_, stamp)| stamp.length).sum();
            // What this process never asked for was used when it came, at the latest.
            let last_use = |(digest, stamp): &(Digest, Stamp)| used.get(digest).copied().unwrap_or(stamp.modified);
            all.sort_by_key(last_use);
            for blob in &all {
                if bytes <= blobs.inner.cache_bytes || age(last_use(blob)) < IN_USE {
                    break;
                }
                blobs.delete(&blob.0)?;
                bytes -= blob.1.length;
            }
            Ok(())
        })
        .await
    }

    /// Removes blobs that nothing names: what an upload or a deletion left when its process died. `live` are those that are
    /// named.
    pub async fn sweep(&self, live: &[Digest]) -> Result<()> {
        let live: HashSet<_> = live.iter().cloned().collect();
        if let Some(remote) = &self.inner.remote {
            for (digest, stored) in remote.list().await? {
                if !live.contains(&digest) && age(stored) >= YOUNG {
                    remote.delete(&digest).await?;
                }
            }
        }
        let blobs = self.clone();
        blocking(move || {
            for (digest, stamp) in blobs.list()? {
                if !live.contains(&digest) && age(stamp.modified) >= YOUNG {
                    blobs.delete(&digest)?;
                }
            }
            Ok(())
        })
        .await
    }

    fn list(&self) -> Result<Vec<(Digest, Stamp)>> {
        let mut all = Vec::new();
        let top = self.inner.root.join("sha256");
        for folder in fs::read_dir(&top).map_err(BlobError::at(&top))? {
            let folder = folder.map_err(BlobError::at(&top))?.path();
            for file in fs::read_dir(&folder).map_err(BlobError::at(&folder))? {
                let path = file.map_err(BlobError::at(&folder))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if let Ok(digest) = format!("sha256:{name}").parse() {
                    all.push((digest, stamp(&path)?));
                }
            }
        }
        Ok(all)
    }

    fn delete(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::at(&path)(error)),
            _ => Ok(()),
        }
    }

    async fn verified_here(&self, digest: &Digest) -> Result<PathBuf> {
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

    /// Removes a blob; one that is not there is no error. Of a shared one only the copy here: at this moment another process
    /// may be giving it a name, and [`Blobs::sweep`] removes it once that is out of the question.
    pub async fn remove(&self, digest: &Digest) -> Result<()> {
        let (blobs, digest) = (self.clone(), digest.clone());
        blocking(move || blobs.delete(&digest)).await
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

fn lock(root: &Path) -> Result<fs::File> {
    fs::create_dir_all(root).map_err(BlobError::at(root))?;
    // Beside the folder, which holds nothing but blobs.
    let path = root.with_extension("lock");
    let file =
        fs::File::options().write(true).create(true).truncate(false).open(&path).map_err(BlobError::at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(BlobError::InUse { path: root.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(BlobError::at(&path)(source)),
    }
}

/// None, for a time in the future.
fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
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
        assert!(matches!(Blobs::open(data.path()).await, Err(BlobError::InUse { .. })));
        drop(blobs);

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
        drop(blobs);
        let other = Blobs::open(data.path()).await.unwrap();
        assert!(matches!(other.verified(&digest).await, Err(BlobError::Damaged(_))));
        other.commit(stage(&other, b"whole").await).await.unwrap();
        other.verified(&digest).await.unwrap();
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
        drop(blobs);
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

    /// A process of its own, as far as its folder goes.
    async fn process(shared: &Path, cache_bytes: u64) -> (tempfile::TempDir, Blobs) {
        let data = tempfile::tempdir().unwrap();
        let url = format!("file://{}", shared.display());
        let blobs = Blobs::open_shared(data.path(), Some(Shared { url, cache_bytes })).await.unwrap();
        (data, blobs)
    }

    fn make_older(path: &Path, by: Duration) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - by).unwrap();
    }

    #[tokio::test]
    async fn what_one_process_stores_another_fetches_and_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("made/if/missing");
        let ((_one, one), (_two, two)) = (process(&shared, CAP).await, process(&shared, CAP).await);
        // More than one part.
        let bytes: Vec<u8> = (0..2_500_000u32).flat_map(u32::to_le_bytes).collect();
        let mut upload = one.begin(64 << 20).await.unwrap();
        upload.write(&bytes).await.unwrap();
        let digest = one.commit(upload.finish().await.unwrap()).await.unwrap();
        let (first, second) = tokio::join!(two.verified(&digest), two.verified(&digest));
        assert_eq!(fs::read(first.unwrap()).unwrap(), bytes);
        second.unwrap();
        assert_eq!(leftovers(&two), 0);

        // A damaged copy is fetched again, a damaged original is noticed.
        fs::write(two.path(&digest), "damaged").unwrap();
        assert_eq!(fs::read(two.verified(&digest).await.unwrap()).unwrap(), bytes);
        let original = shared.join("sha256").join(&digest.hex()[..2]).join(digest.hex());
        fs::write(&original, "damaged").unwrap();
        two.remove(&digest).await.unwrap();
        assert!(matches!(two.verified(&digest).await, Err(BlobError::Damaged(d)) if d == digest));
        one.commit(stage(&one, b"another").await).await.unwrap();
        fs::remove_file(&original).unwrap();
        assert!(matches!(two.verified(&digest).await, Err(BlobError::Missing(d)) if d == digest));
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_reached_is_unavailable_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, away) = (folder.path().join("shared"), folder.path().join("away"));
        let ((_one, one), (_two, two)) = (process(&shared, CAP).await, process(&shared, CAP).await);
        let digest = one.commit(stage(&one, b"here").await).await.unwrap();
        fs::rename(&shared, &away).unwrap();
        // As a file system that is not mounted any more.
        fs::write(&shared, "").unwrap();
        for error in
            [two.verified(&digest).await.unwrap_err(), one.commit(stage(&one, b"new").await).await.unwrap_err()]
        {
            assert!(matches!(error, BlobError::Unavailable(_)), "{error:?}");
        }
        one.verified(&digest).await.unwrap();
        fs::remove_file(&shared).unwrap();
        fs::rename(&away, &shared).unwrap();
        two.verified(&digest).await.unwrap();
    }

    #[tokio::test]
    async fn the_cache_loses_what_was_used_longest_ago_and_nothing_in_use() {
        let shared = tempfile::tempdir().unwrap();
        let ((_one, one), (_two, two)) = (process(shared.path(), u64::MAX).await, process(shared.path(), 2500).await);
        let mut digests = Vec::new();
        for n in 0..4 {
            digests.push(one.commit(stage(&one, &[n; 1000]).await).await.unwrap());
        }
        for digest in &digests[..3] {
            two.verified(digest).await.unwrap();
        }
        let kept = |two: &Blobs| digests.iter().map(|d| two.path(d).exists()).collect::<Vec<_>>();
        assert_eq!(kept(&two), [true, true, true, false], "all of it is in use");
        {
            let mut used = two.inner.used.lock().unwrap();
            *used.get_mut(&digests[0]).unwrap() -= IN_USE * 2;
            *used.get_mut(&digests[1]).unwrap() -= IN_USE * 3;
        }
        two.verified(&digests[3]).await.unwrap();
        assert_eq!(kept(&two), [false, false, true, true]);
        two.verified(&digests[1]).await.unwrap();
    }

    #[tokio::test]
    async fn what_nothing_names_is_swept_once_it_is_old() {
        let shared = tempfile::tempdir().unwrap();
        let (_one, one) = process(shared.path(), CAP).await;
        let mut digests = Vec::new();
        for n in 0..3 {
            digests.push(one.commit(stage(&one, &[n; 10]).await).await.unwrap());
        }
        let original = |d: &Digest| shared.path().join("sha256").join(&d.hex()[..2]).join(d.hex());
        for digest in &digests[..2] {
            make_older(&one.path(digest), YOUNG * 2);
            make_older(&original(digest), YOUNG * 2);
        }
        one.sweep(&digests[..1]).await.unwrap();
        let there = |d: &Digest| (one.path(d).exists(), original(d).exists());
        assert_eq!(digests.iter().map(there).collect::<Vec<_>>(), [(true, true), (false, false), (true, true)]);
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_named() {
        let data = tempfile::tempdir().unwrap();
        for url in ["s3://bucket", "/folder", "file://relative"] {
            let shared = Shared { url: url.into(), cache_bytes: CAP };
            let error = Blobs::open_shared(data.path(), Some(shared)).await.unwrap_err().to_string();
            assert!(error.contains(url) && error.contains("file:///FOLDER"), "{error}");
        }
    }
}
