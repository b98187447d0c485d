//! The blobs that all processes of a deployment share.
//!
//! Invariant: an object appears whole or not at all, and survives a power cut from then on. What it holds is not trusted:
//! who fetches it verifies the digest.

use std::{path::Path, sync::Arc, time::SystemTime};

use framehook_core::ids::Digest;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{ObjectStore, ObjectStoreExt as _, buffered::BufWriter, local::LocalFileSystem, path::Path as Key};
use tokio::{fs::File, io::AsyncWriteExt as _};

use super::{BlobError, Result, Upload};

/// Below this one request carries a whole blob; larger ones go in parts of this size, so that it is also what one upload keeps in
/// memory.
const PART: usize = 8 << 20;

#[derive(Clone, Debug)]
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
}

impl Remote {
    /// `file:///FOLDER`, which is made if need be.
    pub(super) fn open(url: &str) -> Result<Self> {
        let folder = url.strip_prefix("file://").filter(|folder| folder.starts_with('/'));
        let folder = Path::new(folder.ok_or_else(|| BlobError::Url(url.to_owned()))?);
        std::fs::create_dir_all(folder).map_err(BlobError::at(folder))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(unavailable)?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }

    /// Stores the file at `path`, again if it is there already: so its time says when it was last wanted.
    pub(super) async fn put(&self, digest: &Digest, path: &Path) -> Result<()> {
        let mut file = File::open(path).await.map_err(BlobError::at(path))?;
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.store), key(digest), PART);
        let written = async {
            tokio::io::copy(&mut file, &mut writer).await?;
            writer.shutdown().await
        };
        written.await.map_err(unavailable)
    }

    /// Copies a blob into `upload`.
    pub(super) async fn get(&self, digest: &Digest, upload: &mut Upload) -> Result<()> {
        let missing = |error| match error {
            object_store::Error::NotFound { .. } => BlobError::Missing(digest.clone()),
            other => unavailable(other),
        };
        let mut chunks = self.store.get(&key(digest)).await.map_err(missing)?.into_stream();
        while let Some(chunk) = chunks.next().await {
            upload.write(&chunk.map_err(unavailable)?).await?;
        }
        Ok(())
    }

    /// Every blob, and when it was stored last.
    pub(super) async fn list(&self) -> Result<Vec<(Digest, SystemTime)>> {
        let objects: Vec<_> = self.store.list(None).try_collect().await.map_err(unavailable)?;
        let blob = |object: &object_store::ObjectMeta| {
            let digest = format!("sha256:{}", object.location.filename()?).parse().ok()?;
            Some((digest, object.last_modified.into()))
        };
        Ok(objects.iter().filter_map(blob).collect())
    }

    pub(super) async fn delete(&self, digest: &Digest) -> Result<()> {
        match self.store.delete(&key(digest)).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }
}

/// As in the local folder: no folder of a file system gets a million entries.
fn key(digest: &Digest) -> Key {
    let hex = digest.hex();
    Key::from_iter(["sha256", &hex[..2], hex])
}

fn unavailable(error: impl std::fmt::Display) -> BlobError {
    BlobError::Unavailable(error.to_string())
}
