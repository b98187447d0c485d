//! Blobs: immutable files addressed by the sha256 of their content, under `<data>/blobs`.
//!
//! Several processes share their blobs through a store of their own, a folder or a bucket: then
//! `<data>/blobs` is the cache of one process.
//!
//! Invariants: a blob is complete, verified and on the disk (in the shared store, if there is one) before
//! anybody can name it, and is never written again with other content. What comes from the shared store is
//! not trusted: its digest is verified before it gets its name here. Who may refer to a blob is the
//! database's business.

mod folder;
mod remote;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use framehook_core::ids::Digest;
use tokio::{sync::Mutex, task::spawn_blocking};

pub use self::upload::{Staged, Upload};
use self::{folder::Folder, remote::Remote};
use crate::space::{Disk, Reserve, Shortage};

/// Whoever was told where a blob lies has this long to open it, and longer if it asks again: a runner
/// prepares a job, which may mean fetching gigabytes, before it starts the process that opens all of it. From
/// then on the kernel keeps the bytes, whatever happens to the name. A lease until then would have to be
/// carried through runner and worker, for a case in which the job is prepared once more anyway.
const IN_USE: Duration = Duration::from_secs(600);

/// A blob without a name that is younger than this may belong to an upload that is not complete.
const YOUNG: Duration = Duration::from_secs(3600);

/// Digests that begin with the same byte are fetched one after the other: few enough to exist always, and
/// enough that different blobs rarely wait for each other.
const TURNS: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("larger than the limit of {cap} bytes")]
    TooLarge { cap: u64 },
    #[error("the disk is full")]
    Full,
    /// Less of the disk is free than stays free.
    #[error(transparent)]
    Short(#[from] Shortage),
    #[error("blob {0} is not there")]
    Missing(Digest),
    /// The bytes are not those that were stored.
    #[error("blob {0} is damaged; upload it again")]
    Damaged(Digest),
    /// The shared store cannot be used now; the same call may succeed later.
    #[error("the shared blob store is not available: {0}")]
    Unavailable(String),
    #[error(
        "the blob store `{0}` is not one; expected file:///FOLDER or s3://BUCKET/PREFIX, with the credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Url(String),
    #[error("the shared blob store cannot be used with the AWS_* environment variables that are set: {0}")]
    Settings(String),
    #[error("the blob folder {} is in use by another process; give each process a data folder of its own", path.display())]
    InUse { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl BlobError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| if is_full(&source) { Self::Full } else { Self::Io { path: path.to_owned(), source } }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub type Result<T, E = BlobError> = std::result::Result<T, E>;

/// The store that several processes share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// `file:///FOLDER` or `s3://BUCKET/PREFIX`, the same for all processes. What else an S3 store needs
    /// comes from the usual environment variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_REGION`, `AWS_ENDPOINT_URL`.
    pub url: String,
    /// Bytes of the local cache; more only while all of it is in use.
    pub cache_bytes: u64,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: Folder,
    disk: Arc<Disk>,
    remote: Option<Remote>,
    cache_bytes: u64,
    /// Held while fetching: another that lacks the same blob waits, and finds it.
    turns: [Mutex<()>; TURNS],
    #[cfg(test)]
    fetches: std::sync::atomic::AtomicUsize,
}

impl Blobs {
    /// Opens `<data>/blobs`, making it if need be, and removes what an earlier process left unfinished. One
    /// process at a time: uploads of another would be removed. With `shared` it is the cache of a store that
    /// other processes share, unless that lies in `data` itself. Nothing is taken in that would not leave
    /// `reserve` of the disk of `data`, and of that of a shared folder.
    pub async fn open(data: &Path, shared: Option<Shared>, reserve: Reserve) -> Result<Self> {
        // What is not UTF-8 is no setting of a store.
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self::open_in(data, shared, reserve, environment.collect()).await
    }

    async fn open_in(
        data: &Path,
        shared: Option<Shared>,
        reserve: Reserve,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        let data = data.to_owned();
        blocking(move || {
            let folder = Folder::open(&data)?;
            let remote = match &shared {
                Some(shared) => Remote::open(&shared.url, &data, reserve, environment)?,
                None => None,
            };
            let cache_bytes = shared.map_or(u64::MAX, |shared| shared.cache_bytes);
            let turns = std::array::from_fn(|_| Mutex::default());
            let inner = Inner {
                folder,
                disk: Arc::new(Disk::new(&data, reserve)),
                remote,
                cache_bytes,
                turns,
                #[cfg(test)]
                fetches: 0.into(),
            };
            Ok(Self { inner: Arc::new(inner) })
        })
        .await
    }

    /// Begins a blob of at most `cap_bytes`.
    pub async fn begin(&self, cap_bytes: u64) -> Result<Upload> {
        if let Some(remote) = &self.inner.remote {
            // Refuses before the bytes come rather than after them.
            remote.admit(0)?;
        }
        self.begin_here(cap_bytes).await
    }

    async fn begin_here(&self, cap_bytes: u64) -> Result<Upload> {
        Upload::begin(&self.inner.folder.temporary, Arc::clone(&self.inner.disk), cap_bytes).await
    }

    /// Gives a staged file its place, in the shared store first; it survives a power cut from here on. The
    /// same content twice is one blob.
    pub async fn commit(&self, staged: Staged) -> Result<Digest> {
        let digest = staged.digest.clone();
        if let Some(remote) = &self.inner.remote {
            remote.admit(staged.size)?;
            remote.put(&digest, &staged.path).await?;
        }
        self.keep(staged).await?;
        Ok(digest)
    }

    /// Where a blob lies, if it is here.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.folder.path(digest)
    }

    /// The path of a blob whose bytes this process has checked and nobody changed since; fetches it if it
    /// is not here. It stays for ten minutes at least: open it soon, and ask again rather than keep the
    /// path.
    pub async fn verified(&self, digest: &Digest) -> Result<PathBuf> {
        let here = self.verified_here(digest).await;
        let (true, Some(remote)) = (is_lacking(&here), &self.inner.remote) else { return here };
        let _turn = self.inner.turns[turn(digest)].lock().await;
        // Whoever had the turn before may have fetched it.
        let here = self.verified_here(digest).await;
        if is_lacking(&here) { self.fetch(remote, digest).await } else { here }
    }

    async fn verified_here(&self, digest: &Digest) -> Result<PathBuf> {
        let (inner, digest) = (self.inner.clone(), digest.clone());
        blocking(move || inner.folder.verified(&digest)).await
    }

    async fn fetch(&self, remote: &Remote, digest: &Digest) -> Result<PathBuf> {
        match self.fetch_once(remote, digest).await {
            // The disk has less room than the cache was given.
            Err(BlobError::Full | BlobError::Short(_)) => {
                let inner = self.inner.clone();
                blocking(move || inner.folder.shrink(0, IN_USE)).await?;
                self.fetch_once(remote, digest).await
            }
            outcome => outcome,
        }
    }

    async fn fetch_once(&self, remote: &Remote, digest: &Digest) -> Result<PathBuf> {
        #[cfg(test)]
        self.inner.fetches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Its size was capped when it was uploaded.
        let mut upload = self.begin_here(u64::MAX).await?;
        remote.get(digest, &mut upload).await?;
        let staged = upload.finish().await?;
        if staged.digest != *digest {
            return Err(BlobError::Damaged(digest.clone()));
        }
        tracing::info!(%digest, bytes = staged.size, "fetched a blob");
        self.keep(staged).await
    }

    /// A verified file gets its place here, and others lose theirs if that is too much.
    async fn keep(&self, staged: Staged) -> Result<PathBuf> {
        let inner = self.inner.clone();
        blocking(move || {
            let path = inner.folder.keep(staged)?;
            if inner.remote.is_some()
                && let Err(error) = inner.folder.shrink(inner.cache_bytes, IN_USE)
            {
                tracing::warn!(%error, "the cache of blobs stays larger than its bound");
            }
            Ok(path)
        })
        .await
    }

    /// Removes a blob; one that is not there is no error. Of a shared one only the copy here: at this moment
    /// another process may be giving it a name, and [`Blobs::sweep`] removes it once that is out of the
    /// question.
    pub async fn remove(&self, digest: &Digest) -> Result<()> {
        let (inner, digest) = (self.inner.clone(), digest.clone());
        blocking(move || inner.folder.remove(&digest)).await
    }

    /// Removes a blob that nobody else can give a name, here and from the shared store; one that is not there
    /// is no error.
    pub async fn discard(&self, digest: &Digest) -> Result<()> {
        if let Some(remote) = &self.inner.remote {
            remote.remove(digest).await?;
        }
        self.remove(digest).await
    }

    /// Removes blobs that nothing names: what an upload or a deletion left when its process died, and what
    /// [`Blobs::remove`] left in the shared store. `live` are those that are named.
    pub async fn sweep(&self, live: &[Digest]) -> Result<()> {
        let live: HashSet<_> = live.iter().cloned().collect();
        if let Some(remote) = &self.inner.remote {
            remote.sweep(&live, YOUNG).await?;
        }
        let inner = self.inner.clone();
        blocking(move || inner.folder.sweep(&live, YOUNG)).await
    }
}

fn is_lacking(here: &Result<PathBuf>) -> bool {
    matches!(here, Err(BlobError::Missing(_) | BlobError::Damaged(_)))
}

fn turn(digest: &Digest) -> usize {
    // A digest is written in hexadecimal digits; were it not, everybody would wait for everybody.
    usize::from_str_radix(&digest.hex()[..2], 16).unwrap_or_default()
}

/// A time in the future is not old.
fn is_older(time: SystemTime, age: Duration) -> bool {
    time.elapsed().unwrap_or_default() >= age
}

/// Where a blob lies below any root: no folder gets a million entries.
fn place(digest: &Digest) -> [&str; 3] {
    let hex = digest.hex();
    ["sha256", &hex[..2], hex]
}

/// The digest that a blob's file name stands for.
fn digest_of(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only a runtime that is shutting down cancels blocking work.
        Err(error) => Err(BlobError::Io { path: PathBuf::new(), source: io::Error::other(error) }),
    }
}
