//! The child process that handles plugins from outside: `framehook plugin-host`.
//!
//! Compiling and trying a stranger's code happens only here; the executable confines itself before it
//! comes here, and its parent limits its memory and time. A verdict, good or bad, is JSON on stdout
//! and success; an error is something that says nothing about the plugin.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use framehook_core::probe::{ConfigProblem, ConfigVerdict};
use serde::Serialize;

use crate::compile::Compiler;

/// A configuration is written by a person.
const MAX_CONFIG: u64 = 1 << 20;

/// Why the child could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("stdin or stdout: {0}")]
    Pipe(#[from] io::Error),
    #[error(transparent)]
    Plugin(#[from] crate::LoadError),
}

/// Prints a [`framehook_core::probe::Verdict`] on the plugin in this file.
///
/// # Errors
/// When the file cannot be read or the verdict not be written.
pub fn inspect(wasm: &Path) -> Result<(), CommandError> {
    let wasm = read(wasm)?;
    print(&Compiler::new()?.inspect(&wasm))
}

/// Prints the machine code of the plugin in this file.
///
/// # Errors
/// As [`inspect`], or when a plugin that was inspected before does not compile.
pub fn compile(wasm: &Path) -> Result<(), CommandError> {
    let code = Compiler::new()?.compile(&read(wasm)?)?;
    let mut out = io::stdout().lock();
    out.write_all(&code)?;
    Ok(out.flush()?)
}

/// Prints a [`ConfigVerdict`] of the plugin in this file on the configuration on stdin.
///
/// # Errors
/// As [`inspect`], or when the configuration cannot be read.
pub fn validate_config(wasm: &Path) -> Result<(), CommandError> {
    let wasm = read(wasm)?;
    let mut config = String::new();
    io::stdin().take(MAX_CONFIG).read_to_string(&mut config)?;
    let verdict = Compiler::new()?.validate_config(&wasm, &config);
    // A plugin that cannot say what is wrong is what is wrong.
    let failed = verdict.is_err();
    let problems = verdict.unwrap_or_else(|error| vec![ConfigProblem::new("", &error.to_string())]);
    print(&ConfigVerdict { problems, failed }.bounded())
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    fs::read(path).map_err(|source| CommandError::File { path: path.to_owned(), source })
}

fn print(verdict: &impl Serialize) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, verdict).map_err(io::Error::from)?;
    Ok(out.flush()?)
}
