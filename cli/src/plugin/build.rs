//! `framehook plugin build`: cargo, asked for a component, and a check of what it made.

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::check::Check;

/// What plugins are compiled for.
const TARGET: &str = "wasm32-wasip2";

#[derive(Args)]
pub(crate) struct Build {
    /// The plugin's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
}

impl Build {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let wasm = build(&self.folder)?;
        let shown = env::current_dir().ok().and_then(|here| Some(wasm.strip_prefix(here).ok()?.to_owned()));
        Check::of(shown.unwrap_or(wasm)).run()
    }
}

/// Builds the plugin in `folder`; gives the component's path.
///
/// # Errors
/// When a tool is missing, what it says goes wrong, or there is not one component.
pub(super) fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    if !folder.join("Cargo.toml").is_file() {
        bail!(
            "{} has no Cargo.toml: name the folder of a plugin, such as `framehook plugin new` makes",
            folder.display()
        );
    }
    find_tools(folder)?;
    let mut command = tool("CARGO", "cargo", folder);
    command.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    let mut cargo = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let messages = cargo.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines);
    let components: Vec<_> = messages.map_while(Result::ok).flat_map(|line| components(&line)).collect();
    if !cargo.wait().context("cargo was lost")?.success() {
        bail!("cargo could not build it; what is wrong is above");
    }
    match &components[..] {
        [only] => Ok(only.clone()),
        [] => bail!("cargo made no component: `[lib]` of Cargo.toml needs `crate-type = [\"cdylib\"]`"),
        several => {
            bail!("cargo made {} components, and a plugin is one: name the folder of its package", several.len())
        }
    }
}

/// The components that a message of cargo tells of.
fn components(message: &str) -> Vec<PathBuf> {
    let Ok(message) = serde_json::from_str::<Value>(message) else { return Vec::new() };
    if message["reason"] != "compiler-artifact" {
        return Vec::new();
    }
    let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
    files.filter(|file| file.ends_with(".wasm")).map(PathBuf::from).collect()
}

/// A program of Rust's, as its environment names it, run in the plugin's folder: that may ask for a
/// toolchain.
fn tool(variable: &str, name: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::var_os(variable).unwrap_or_else(|| OsString::from(name)));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Says what to install before cargo says it in many words.
fn find_tools(folder: &Path) -> anyhow::Result<()> {
    match tool("CARGO", "cargo", folder).arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "cargo is not installed, and plugins in Rust are built with it; install Rust from https://rustup.rs, then run: \
             rustup target add {TARGET}"
        ),
        Err(error) => return Err(error).context("cannot start cargo"),
        Ok(_) => {}
    }
    let mut rustc = tool("RUSTC", "rustc", folder);
    let asked = rustc.args(["--print", "target-libdir", "--target", TARGET]).output();
    let libraries = asked.ok().filter(|output| output.status.success());
    let libraries = libraries.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    if !libraries.is_some_and(|libraries| libraries.is_dir()) {
        bail!("the target {TARGET}, which plugins are compiled for, is not installed; run: rustup target add {TARGET}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn components_are_found_among_what_cargo_says() {
        let artifact = r#"{"reason":"compiler-artifact","filenames":["/t/libserde.rlib","/t/a.wasm"]}"#;
        assert_eq!(components(artifact), [PathBuf::from("/t/a.wasm")]);
        for other in ["", "warning: x", r#"{"reason":"build-finished"}"#, r#"{"reason":"compiler-artifact"}"#] {
            assert!(components(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn a_folder_without_a_plugin_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let error = build(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no Cargo.toml"), "{error}");
        fs::write(folder.path().join("Cargo.toml"), "[package]").unwrap();
        let error = build(folder.path()).unwrap_err().to_string();
        assert!(error.contains("cargo could not build it"), "{error}");
    }
}
