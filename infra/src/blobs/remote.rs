//! The store that all processes of a deployment share: a folder, or a bucket of an S3 server.
//!
//! Invariants: an object appears whole or not at all, and survives a power cut from then on. Objects that are
//! not blobs are left alone. No credential is shown, whatever goes wrong.
//!
//! Parts of an upload that was cut off are swept from a folder. In a bucket they stay until its owner removes
//! them: a lifecycle rule does that (`AbortIncompleteMultipartUpload`).

use std::{
    collections::HashSet,
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use framehook_core::ids::Digest;
use futures::TryStreamExt as _;
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    buffered::BufWriter,
    local::LocalFileSystem,
    path::Path as Key,
    prefix::PrefixStore,
};
use rustix::io::Errno;
use tokio::{fs::File, io::AsyncReadExt as _};

use super::{
    BlobError, Result, Upload, blocking, digest_of,
    folder::{files, if_there},
    is_full, is_older, place,
};
use crate::{
    descriptors,
    space::{Disk, Reserve},
};

/// One request carries a smaller blob as a whole. S3 allows 10,000 parts and wants 5 MiB in each: so the
/// largest blob is 80 GB.
const PART: usize = 8 << 20;
/// Enough to keep a connection busy; with [`PART`] it bounds what an upload keeps in memory.
const PARTS_AT_ONCE: usize = 4;
/// One read of the file that is uploaded.
const CHUNK: usize = 256 << 10;
/// A server that cannot be connected to, or says nothing, for this long is away.
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(30);
/// For what passes within a second or two, such as a server that is restarted. Callers try again themselves,
/// and say so meanwhile.
const RETRIES: usize = 3;

#[derive(Clone)]
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    /// The folder of `file://`.
    folder: Option<PathBuf>,
    /// The one that this folder lies on. Nobody can ask how much room a bucket has.
    disk: Option<Arc<Disk>>,
    /// Without credentials.
    shown: String,
}

impl Remote {
    /// None, if the folder of `url` is that of `data`: then nothing is remote.
    pub(super) fn open(
        url: &str,
        data: &Path,
        reserve: Reserve,
        environment: Vec<(String, String)>,
    ) -> Result<Option<Self>> {
        let shown = without_credentials(url);
        let unusable = || BlobError::Url(shown.clone());
        if let Some(folder) = url.strip_prefix("file://") {
            let folder = PathBuf::from(folder);
            if !folder.is_absolute() {
                return Err(unusable());
            }
            let Some(store) = local(&folder, data)? else { return Ok(None) };
            let disk = Some(Arc::new(Disk::new(&folder, reserve)));
            return Ok(Some(Self { store: Arc::new(store), folder: Some(folder), disk, shown }));
        }
        let (bucket, prefix) = bucket_and_prefix(url).ok_or_else(unusable)?;
        let store = s3(bucket, environment)?;
        let store: Arc<dyn ObjectStore> =
            if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) };
        Ok(Some(Self { store, folder: None, disk: None, shown }))
    }

    /// Lets `bytes` in, if that leaves the reserve.
    pub(super) fn admit(&self, bytes: u64) -> Result<()> {
        self.disk.as_ref().map_or(Ok(()), |disk| Ok(disk.admit(bytes)?))
    }

    /// Stores the file at `path`, again if it is there already: so a damaged one is replaced, and its time
    /// says when it was last wanted.
    pub(super) async fn put(&self, digest: &Digest, path: &Path) -> Result<()> {
        let mut writer = self.writer(digest);
        if let Err(error) = copy(path, &mut writer).await {
            if let Err(error) = writer.abort().await {
                tracing::warn!(%digest, "parts of an upload stay in {self:?}: {error}");
            }
            return Err(error);
        }
        use tokio::io::AsyncWriteExt as _;
        writer.shutdown().await.map_err(unavailable)
    }

    pub(super) fn writer(&self, digest: &Digest) -> BufWriter {
        let store = Arc::clone(&self.store);
        BufWriter::with_capacity(store, key(digest), PART).with_max_concurrency(PARTS_AT_ONCE)
    }

    /// Copies a blob into `upload`.
    pub(super) async fn get(&self, digest: &Digest, upload: &mut Upload) -> Result<()> {
        let missing = |error| match error {
            object_store::Error::NotFound { .. } => BlobError::Missing(digest.clone()),
            other => unavailable(other),
        };
        let mut chunks = self.store.get(&key(digest)).await.map_err(missing)?.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(unavailable)? {
            upload.write(&chunk).await?;
        }
        Ok(())
    }

    /// Removes a blob, if it is there.
    pub(super) async fn remove(&self, digest: &Digest) -> Result<()> {
        self.delete(&key(digest)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.store.delete(key).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Removes blobs that are not `live` and were stored last more than `age` ago.
    pub(super) async fn sweep(&self, live: &HashSet<Digest>, age: Duration) -> Result<()> {
        let is_old = |object: &ObjectMeta| is_older(object.last_modified.into(), age);
        let mut objects = self.store.list(None);
        while let Some(object) = objects.try_next().await.map_err(unavailable)? {
            let Some(digest) = object.location.filename().and_then(digest_of) else { continue };
            if object.location != key(&digest) || live.contains(&digest) || !is_old(&object) {
                continue;
            }
            // A list may be long, and somebody may have stored it again since.
            match self.store.head(&object.location).await {
                Ok(now) if !is_old(&now) => continue,
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(unavailable(error)),
            }
            self.delete(&object.location).await?;
        }
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        blocking(move || sweep_parts(&folder, age)).await.map_err(unavailable)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A folder, which is made if need be.
fn local(folder: &Path, data: &Path) -> Result<Option<LocalFileSystem>> {
    fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
    let real = |path: &Path| path.canonicalize().map_err(BlobError::at(path));
    let own: [PathBuf; 2] = [real(data)?, real(&data.join("blobs"))?];
    if own.contains(&real(folder)?) {
        return Ok(None);
    }
    let store = LocalFileSystem::new_with_prefix(folder).map_err(unavailable)?;
    Ok(Some(store.with_fsync(true)))
}

/// Until it is complete, an object lies beside its place under a name with a number: `<key>#1`. Whoever
/// writes one does not rest for `age`.
fn sweep_parts(folder: &Path, age: Duration) -> Result<()> {
    for path in files(&folder.join("sha256"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_part = name.split_once('#').is_some_and(|(object, _)| digest_of(object).is_some());
        if !is_part {
            continue;
        }
        let modified =
            if_there(fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(BlobError::at(&path)))?;
        if modified.is_some_and(|modified| is_older(modified, age)) {
            if_there(fs::remove_file(&path).map_err(BlobError::at(&path)))?;
        }
    }
    Ok(())
}

/// Credentials in a URL would end up in logs: there is no place for them.
fn bucket_and_prefix(url: &str) -> Option<(&str, &str)> {
    let place = url.strip_prefix("s3://")?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_bucket = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (!bucket.is_empty() && bucket.chars().all(is_bucket) && !prefix.contains(['?', '#', '@']))
        .then_some((bucket, prefix))
}

fn s3(bucket: &str, environment: Vec<(String, String)>) -> Result<object_store::aws::AmazonS3> {
    let options = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        // A whole request has no time limit: a large blob may take as long as it needs.
        .with_timeout_disabled();
    let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_client_options(options).with_retry(retry);
    for (name, value) in environment.into_iter().filter(|(name, _)| name.starts_with("AWS_")) {
        if let Ok(setting) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(setting, value);
        }
    }
    let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key)).unwrap_or_default();
    if endpoint.contains('@') {
        // Every error names the endpoint.
        return Err(BlobError::Settings("AWS_ENDPOINT_URL must hold no credentials".into()));
    }
    let is_plain = endpoint.starts_with("http://");
    let built = builder.with_allow_http(is_plain).with_bucket_name(bucket).build();
    built.map_err(|error| BlobError::Settings(error.to_string()))
}

fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        (None, Some((_, rest))) => format!("***@{rest}"),
        _ => url.to_owned(),
    }
}

async fn copy(path: &Path, writer: &mut BufWriter) -> Result<()> {
    let mut file = File::open(path).await.map_err(BlobError::at(path))?;
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if file.read_buf(&mut chunk).await.map_err(BlobError::at(path))? == 0 {
            return Ok(());
        }
        writer.put(chunk.freeze()).await.map_err(unavailable)?;
    }
}

fn key(digest: &Digest) -> Key {
    Key::from_iter(place(digest))
}

/// Also for what no retry mends, such as wrong credentials: the operator mends it without touching the blobs.
fn unavailable(error: impl Error + Send + Sync + 'static) -> BlobError {
    let first: &(dyn Error + 'static) = &error;
    let causes = || std::iter::successors(Some(first), |&error: &&(dyn Error + 'static)| error.source());
    if causes().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_full)) {
        return BlobError::Full;
    }
    if descriptors::ran_out(&error) {
        return BlobError::Io { path: PathBuf::new(), source: io::Error::from(Errno::MFILE) };
    }
    let (shown, root) = (error.to_string(), causes().last().map(ToString::to_string).unwrap_or_default());
    // An HTTP client says no more than that a request failed; why, only the last cause tells.
    BlobError::Unavailable(if shown.contains(&root) { shown } else { format!("{shown}: {root}") })
}
