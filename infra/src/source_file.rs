//! Which files of this machine a scenario may read: one judgement for those who accept scenarios and for
//! those who run them.
//!
//! Invariants: a path is judged after all its links are followed, so none leads out of the allowed folders.
//! What is said about a path outside of them does not depend on what is there.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Why a file may not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is outside of the allowed folders, if it exists at all.
    Outside,
    /// It would be inside, and is not there.
    Missing,
    /// It is inside, and a folder, a pipe or a device.
    NotAFile,
}

/// The canonical form of a file inside one of `allowed`. Blocks for as long as the file system does.
///
/// # Errors
/// Why it may not be read.
pub fn resolve(path: &Path, allowed: &[PathBuf]) -> Result<PathBuf, Refusal> {
    let folders: Vec<_> = allowed.iter().filter_map(|folder| canonical_folder(folder)).collect();
    let is_inside = |path: &Path| folders.iter().any(|folder| path.starts_with(folder));
    let Ok(canonical) = path.canonicalize() else {
        let there = deepest_there(path);
        return Err(if there.is_some_and(|there| is_inside(&there)) { Refusal::Missing } else { Refusal::Outside });
    };
    if !is_inside(&canonical) {
        return Err(Refusal::Outside);
    }
    let is_file = fs::metadata(&canonical).is_ok_and(|metadata| metadata.is_file());
    if is_file { Ok(canonical) } else { Err(Refusal::NotAFile) }
}

fn canonical_folder(folder: &Path) -> Option<PathBuf> {
    folder.canonicalize().inspect_err(|error| tracing::warn!("source folder {}: {error}", folder.display())).ok()
}

/// For a path that cannot be resolved: the real path of the deepest folder that can, if what is looked for in
/// it is not there. `None` where that is something else: a link that leads nowhere, or a way that goes up.
fn deepest_there(path: &Path) -> Option<PathBuf> {
    if path.components().any(|part| matches!(part, Component::ParentDir)) {
        return None;
    }
    let (missing, there) = path
        .ancestors()
        .zip(path.ancestors().skip(1))
        .find_map(|(child, parent)| parent.canonicalize().ok().map(|there| (child, there)))?;
    let is_missing = matches!(fs::symlink_metadata(missing), Err(error) if error.kind() == io::ErrorKind::NotFound);
    is_missing.then_some(there)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_that_really_lie_inside() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("in/deep")).unwrap();
        fs::create_dir_all(at("out")).unwrap();
        fs::write(at("in/deep/a.mp4"), "x").unwrap();
        fs::write(at("out/b.mp4"), "x").unwrap();
        symlink(at("out/b.mp4"), at("in/link.mp4")).unwrap();
        symlink(at("out/none.mp4"), at("in/dangling.mp4")).unwrap();
        symlink(at("out"), at("in/linked")).unwrap();
        symlink(at("in"), at("alias")).unwrap();
        let allowed = [at("alias"), at("not-there")];
        let good = at("in/deep/a.mp4").canonicalize().unwrap();
        for (path, expected) in [
            ("in/deep/a.mp4", Ok(good.clone())),
            ("alias/deep/a.mp4", Ok(good.clone())),
            ("in/../in/deep/a.mp4", Ok(good)),
            ("in/none.mp4", Err(Refusal::Missing)),
            ("alias/none/none.mp4", Err(Refusal::Missing)),
            ("in/deep", Err(Refusal::NotAFile)),
            // Each with something there and with nothing: no difference may be seen.
            ("in/link.mp4", Err(Refusal::Outside)),
            ("in/dangling.mp4", Err(Refusal::Outside)),
            ("in/linked/b.mp4", Err(Refusal::Outside)),
            ("in/linked/none.mp4", Err(Refusal::Outside)),
            ("in/../out/b.mp4", Err(Refusal::Outside)),
            ("in/../out/none.mp4", Err(Refusal::Outside)),
            ("out/b.mp4", Err(Refusal::Outside)),
            ("out/none.mp4", Err(Refusal::Outside)),
            ("out/b.mp4/none", Err(Refusal::Outside)),
        ] {
            assert_eq!(resolve(&at(path), &allowed), expected, "{path}");
        }
        assert_eq!(resolve(&at("in/deep/a.mp4"), &[]), Err(Refusal::Outside));
    }
}
