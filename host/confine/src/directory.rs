//! A child's working directory: empty, and removed already, so that it stays empty. A relative name in an
//! upload leads nowhere.

use std::{fs::File, io, sync::LazyLock};

use rustix::process::fchdir;

static EMPTY: LazyLock<io::Result<File>> = LazyLock::new(|| {
    let folder = tempfile::tempdir()?;
    let opened = File::open(folder.path())?;
    folder.close()?;
    Ok(opened)
});

/// The directory, for as long as this process lives; `None` where no temporary folder can be made.
pub(crate) fn empty() -> Option<&'static File> {
    EMPTY.as_ref().ok()
}

pub(crate) fn enter(directory: &File) -> io::Result<()> {
    Ok(fchdir(directory)?)
}
