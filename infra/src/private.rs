//! Files and folders that only their owner reads.
//!
//! What an earlier release or an administrator left open to others is closed, and the log says so; where that
//! is not allowed, it stays as it is and the log says that.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

const FOLDER: u32 = 0o700;
const FILE: u32 = 0o600;
/// Everything that others may do.
const OTHERS: u32 = 0o077;

/// Makes a folder, or closes the one that is there.
///
/// # Errors
/// When there can be no such folder.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)?;
    close_as(path, FOLDER)
}

/// Makes an empty file, or closes the one that is there.
pub(crate) fn file(path: &Path) -> io::Result<()> {
    File::options().append(true).create(true).mode(FILE).open(path)?;
    close(path)
}

/// Opens a file and locks it for this process; `None` if another one has it. The kernel lets it go with the
/// process, however that ends.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Closes a file if it is there.
pub(crate) fn close(path: &Path) -> io::Result<()> {
    close_as(path, FILE)
}

fn close_as(path: &Path, mode: u32) -> io::Result<()> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if metadata.permissions().mode() & OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Ok(()) => tracing::info!(path = %path.display(), "was open to other users, and is closed to them now"),
        Err(error) => tracing::warn!(path = %path.display(), %error, "is open to other users; close it to them"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_and_what_is_found_are_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (made, found) = (dir.path().join("a/made"), dir.path().join("found"));
        fs::create_dir(&found).unwrap();
        fs::set_permissions(&found, Permissions::from_mode(0o755)).unwrap();
        for folder in [&made, &found] {
            super::folder(folder).unwrap();
            assert_eq!(mode(folder), 0o700);
            let path = folder.join("file");
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            file(&path).unwrap();
            assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"x".to_vec()));
            file(&folder.join("new")).unwrap();
            assert_eq!(mode(&folder.join("new")), 0o600);
        }
        close(&dir.path().join("missing")).unwrap();
    }
}
