//! Which files of this machine a scenario may read, in words for whoever posts it; `infra::source_file`
//! judges.

use std::path::{Path, PathBuf};

use framehook_core::error_code::ErrorCode;
use framehook_infra::source_file::{self, Refusal};

use crate::http::{
    misread::{MISPLACED_URL, looks_like_url},
    problem::FieldError,
};

/// Path of the field in a scenario.
const FIELD: &str = "source.file";

/// The canonical form of a file inside one of `allowed`.
///
/// # Errors
/// What is wrong with the path.
pub(crate) async fn resolve(path: &str, allowed: &[PathBuf]) -> Result<PathBuf, FieldError> {
    let wanted = Path::new(path);
    let invalid = |message: String| FieldError::new(ErrorCode::InvalidScenario, FIELD, message);
    if looks_like_url(path) {
        return Err(invalid(MISPLACED_URL.into()));
    }
    if !wanted.is_absolute() {
        return Err(invalid(format!("`{}` is not an absolute path", path.escape_debug())));
    }
    let (to_judge, folders) = (wanted.to_owned(), allowed.to_owned());
    // On a thread of its own: a network folder that is away blocks whoever asks for it.
    let judged = tokio::task::spawn_blocking(move || source_file::resolve(&to_judge, &folders)).await;
    judged.unwrap_or(Err(Refusal::Outside)).map_err(|refusal| match refusal {
        Refusal::Outside => not_allowed(path, allowed),
        Refusal::Missing => invalid(format!("there is no file `{}`", path.escape_debug())),
        Refusal::NotAFile => invalid(format!("`{}` is not a regular file", path.escape_debug())),
    })
}

fn not_allowed(path: &str, allowed: &[PathBuf]) -> FieldError {
    let folders: Vec<_> = allowed.iter().map(|f| format!("`{}`", f.display())).collect();
    let advice = if folders.is_empty() {
        "no folder is allowed: upload the video instead, or allow its folder in the API's `source_dirs`".into()
    } else {
        format!("the allowed folders (`source_dirs`) are {}", folders.join(", "))
    };
    let message = format!("`{}` is outside of the allowed folders; {advice}", path.escape_debug());
    FieldError::new(ErrorCode::SourceNotAllowed, FIELD, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn only_regular_files_inside_the_allowed_folders() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        let outside = dir.path().join("out");
        std::fs::create_dir_all(inside.join("deep")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("deep/a.mp4"), "x").unwrap();
        std::fs::write(outside.join("b.mp4"), "x").unwrap();
        symlink(outside.join("b.mp4"), inside.join("link.mp4")).unwrap();
        symlink(&outside, inside.join("linked")).unwrap();
        symlink(&inside, dir.path().join("alias")).unwrap();
        let allowed = vec![dir.path().join("alias")];
        let check = async |path: &str| resolve(&format!("{}/{path}", dir.path().display()), &allowed).await;

        let good = inside.join("deep/a.mp4").canonicalize().unwrap();
        assert_eq!(check("in/deep/a.mp4").await, Ok(good.clone()));
        assert_eq!(check("alias/deep/a.mp4").await, Ok(good));
        for escape in
            ["in/link.mp4", "in/linked/b.mp4", "in/../out/b.mp4", "out/b.mp4", "out/missing", "in/../out/none"]
        {
            let error = check(escape).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::SourceNotAllowed, "{escape}");
            assert!(error.message.contains("alias") && error.message.contains("`source_dirs`"), "{}", error.message);
        }
        for (wrong, words) in [("in/none.mp4", "no file"), ("in/deep", "regular file")] {
            let error = check(wrong).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidScenario, "{wrong}");
            assert!(error.message.contains(words), "{}", error.message);
        }
        let misplaced = resolve("https://me:s3cret@cameras.example/a.mp4", &allowed).await.unwrap_err().message;
        assert!(misplaced.contains("`source.url`") && !misplaced.contains("s3cret"), "{misplaced}");
        assert!(resolve("a.mp4", &allowed).await.unwrap_err().message.contains("absolute"));
        let nowhere = resolve("/etc/hostname", &[]).await.unwrap_err().message;
        assert!(nowhere.contains("no folder is allowed") && nowhere.contains("`source_dirs`"), "{nowhere}");
    }
}
