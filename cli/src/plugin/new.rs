//! `framehook plugin new`: a folder that builds, tests and runs as it is.
//!
//! Everything is in this executable: the example, the SDK with the contract that it is generated from, and
//! the lock file that the release's own plugins were built with, so that an author gets what was tried. Cargo
//! fetches the few crates that the SDK needs, unless it has them.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use framehook_core::artifact::check_name;

#[derive(Args)]
pub(crate) struct New {
    /// Its name, and the folder that is made
    name: PathBuf,
    /// When it is called: after the inference, before it, or both
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[default]
    Post,
    Pre,
    Both,
}

impl Kind {
    const fn source(self) -> &'static str {
        match self {
            Self::Post => include_str!("../../template/post.rs"),
            Self::Pre => include_str!("../../template/pre.rs"),
            Self::Both => include_str!("../../template/both.rs"),
        }
    }
}

/// What the templates have where the name of the plugin comes.
const NAME: &str = "plugin-name";

macro_rules! files {
    ($($to:literal <- $from:literal),+ $(,)?) => { [$(($to, include_str!(concat!("../../../", $from)))),+] };
}

/// The SDK, as it lies in the repository: the WIT folder is beside it there, and here.
const VENDORED: [(&str, &str); 24] = files!(
    "framehook-sdk/Cargo.toml" <- "sdk/Cargo.toml",
    "framehook-sdk/src/bindings.rs" <- "sdk/src/bindings.rs",
    "framehook-sdk/src/geometry.rs" <- "sdk/src/geometry.rs",
    "framehook-sdk/src/glue.rs" <- "sdk/src/glue.rs",
    "framehook-sdk/src/hook.rs" <- "sdk/src/hook.rs",
    "framehook-sdk/src/lib.rs" <- "sdk/src/lib.rs",
    "framehook-sdk/src/log.rs" <- "sdk/src/log.rs",
    "framehook-sdk/src/made.rs" <- "sdk/src/made.rs",
    "framehook-sdk/src/metrics.rs" <- "sdk/src/metrics.rs",
    "framehook-sdk/src/model.rs" <- "sdk/src/model.rs",
    "framehook-sdk/src/native.rs" <- "sdk/src/native.rs",
    "framehook-sdk/src/pixels.rs" <- "sdk/src/pixels.rs",
    "framehook-sdk/src/state.rs" <- "sdk/src/state.rs",
    "framehook-sdk/src/testing.rs" <- "sdk/src/testing.rs",
    "framehook-sdk/helpers/Cargo.toml" <- "sdk/helpers/Cargo.toml",
    "framehook-sdk/helpers/src/lib.rs" <- "sdk/helpers/src/lib.rs",
    "framehook-sdk/helpers/src/masks.rs" <- "sdk/helpers/src/masks.rs",
    "framehook-sdk/helpers/src/npy.rs" <- "sdk/helpers/src/npy.rs",
    "framehook-sdk/helpers/src/place.rs" <- "sdk/helpers/src/place.rs",
    "framehook-sdk/helpers/src/scan.rs" <- "sdk/helpers/src/scan.rs",
    "framehook-sdk/helpers/src/suppress.rs" <- "sdk/helpers/src/suppress.rs",
    "framehook-sdk/LICENSE" <- "LICENSE",
    "wit/framehook-plugin-0.2.0/plugin.wit" <- "wit/framehook-plugin-0.2.0/plugin.wit",
    "wit/README.md" <- "wit/README.md",
);

impl New {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let folder = &self.name;
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        check(name)?;
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{} is there already; choose another name, or remove it", folder.display())
            }
            made => made.with_context(|| format!("cannot make the folder {}", folder.display()))?,
        }
        for (path, text) in files(name, self.kind) {
            write(&folder.join(&path), &text).with_context(|| format!("cannot write {path} into the new folder"))?;
        }
        println!(
            "made {folder}: its code is in src/lib.rs\n  cd {folder}\n  cargo test              # natively\n  \
             framehook plugin build  # as a component, checked as an upload is",
            folder = folder.display()
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// A name that cargo takes as well.
fn check(name: &str) -> anyhow::Result<()> {
    check_name(name).map_err(anyhow::Error::msg)?;
    let is_cargos = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !is_cargos || name.starts_with(|first: char| first.is_ascii_digit()) {
        bail!("name `{name}` must begin with a letter and have letters, digits, `-` and `_` only, as cargo asks");
    }
    if name == "framehook-sdk" {
        bail!("name `{name}` is that of the SDK; choose another one");
    }
    Ok(())
}

/// Paths and texts of the files of a new plugin.
fn files(name: &str, kind: Kind) -> Vec<(String, String)> {
    let own = [
        ("Cargo.toml", include_str!("../../template/manifest.toml")),
        ("Cargo.lock", include_str!("../../../plugins/Cargo.lock")),
        (".cargo/config.toml", include_str!("../../template/config.toml")),
        (".gitignore", include_str!("../../template/gitignore")),
        ("README.md", include_str!("../../template/README.md")),
        ("src/lib.rs", kind.source()),
    ];
    let named = |text: &str| text.replace(NAME, name).replace(&NAME.replace('-', "_"), &name.replace('-', "_"));
    let own = own.map(|(path, text)| (path.to_owned(), named(text)));
    let vendored = VENDORED.map(|(path, text)| (format!("vendor/{path}"), text.to_owned()));
    own.into_iter().chain(vendored).collect()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create_new(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_whole_sdk_is_in_it() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let sources = [
            ("sdk/src", "framehook-sdk/src"),
            ("sdk/helpers/src", "framehook-sdk/helpers/src"),
            ("wit/framehook-plugin-0.2.0", "wit/framehook-plugin-0.2.0"),
        ];
        for (from, to) in sources {
            let there = fs::read_dir(repository.join(from)).unwrap();
            let there: BTreeSet<_> =
                there.map(|entry| format!("{to}/{}", entry.unwrap().file_name().display())).collect();
            let listed = VENDORED.iter().map(|(path, _)| (*path).to_owned());
            assert_eq!(listed.filter(|path| path.starts_with(&format!("{to}/"))).collect::<BTreeSet<_>>(), there);
        }
        // Its manifest can stand anywhere, and its bindings are made of the folder that is beside it.
        let of = |wanted: &str| VENDORED.iter().find(|(path, _)| *path == wanted).unwrap().1;
        assert!(VENDORED.iter().all(|(path, text)| !path.ends_with("Cargo.toml") || !text.contains("workspace =")));
        let wit = VENDORED.iter().find_map(|(path, _)| path.strip_suffix("/plugin.wit")).unwrap();
        assert!(of("framehook-sdk/src/bindings.rs").contains(&format!("\"../{wit}\"")));
        let version = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(of("framehook-sdk/Cargo.toml").contains(&version), "the SDK is of another release");
    }

    #[test]
    fn no_name_is_left_open_and_bad_ones_are_refused() {
        for kind in [Kind::Post, Kind::Pre, Kind::Both] {
            let files = files("a-b", kind);
            assert!(files.iter().all(|(_, text)| !text.contains(NAME) && !text.contains("plugin_name")));
            assert!(files.iter().any(|(path, text)| path == "README.md" && text.contains("release/a_b.wasm")));
        }
        for bad in ["", "A", "a.b", "1a", "a b", "framehook-sdk", &"a".repeat(64)] {
            assert!(check(bad).is_err(), "{bad}");
        }
        check("sure-people_2").unwrap();
    }
}
