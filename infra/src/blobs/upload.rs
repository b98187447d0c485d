//! A blob on its way in: hashed and capped while it is written to a temporary file.
//!
//! Invariant: dropped at any point, it leaves nothing behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use framehook_core::ids::Digest;
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncWriteExt as _};
use uuid::Uuid;

use super::{BlobError, Result};
use crate::space::Disk;

/// A blob being written.
#[derive(Debug)]
pub struct Upload {
    temporary: Temporary,
    pub(super) file: File,
    hash: Sha256,
    size: u64,
    cap: u64,
    disk: Arc<Disk>,
}

impl Upload {
    pub(super) async fn begin(folder: &Path, disk: Arc<Disk>, cap: u64) -> Result<Self> {
        disk.admit(0)?;
        let path = folder.join(Uuid::now_v7().to_string());
        let file = File::options().write(true).create_new(true).open(&path).await.map_err(BlobError::at(&path))?;
        Ok(Self { temporary: Temporary(path), file, hash: Sha256::new(), size: 0, cap, disk })
    }

    /// Appends `bytes`. After an error the upload is of no use any more.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.cap {
            return Err(BlobError::TooLarge { cap: self.cap });
        }
        self.disk.admit(bytes.len() as u64)?;
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
