//! The child processes that handle plugins from outside: `framehook plugin-host`.
//!
//! A stranger's code is compiled and tried only here; the executable confines itself before it comes here,
//! and its parent limits its memory and time. Whoever compiles runs nothing of it, and whoever runs it has
//! only the compiled file to read: so no code that was run had a hand in what is loaded later. A verdict,
//! good or bad, is JSON on stdout; an error is something that says nothing about the plugin.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use framehook_core::{
    ids::Digest,
    probe::{ConfigProblem, ConfigVerdict, Verdict},
};
use serde::Serialize;

use crate::{
    compile::Compiler,
    conformance::{self, Subject},
    judge::Judge,
    trial::{self, Trial},
};

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

/// What [`compile`] printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    Code,
    /// A [`Verdict`] with what is wrong.
    Findings,
}

/// Prints the machine code of the plugin in this file, or what is wrong with it.
///
/// # Errors
/// When the file cannot be read or the result not be written.
pub fn compile(wasm: &Path) -> Result<Printed, CommandError> {
    let wasm = fs::read(wasm).map_err(|source| CommandError::File { path: wasm.to_owned(), source })?;
    match Compiler::new()?.compile(&wasm) {
        Ok(code) => {
            let mut out = io::stdout().lock();
            out.write_all(&code)?;
            out.flush()?;
            Ok(Printed::Code)
        }
        Err(findings) => print(&Verdict::<()>::Findings(findings).bounded()).map(|()| Printed::Findings),
    }
}

/// Prints a [`Verdict`] on the plugin in this compiled file, which has this digest.
///
/// # Errors
/// When the file is not that or the verdict cannot be written.
pub fn describe(compiled: &Path, digest: &Digest) -> Result<(), CommandError> {
    print(&Judge::load(compiled, digest)?.describe())
}

/// Prints a [`ConfigVerdict`] of the plugin in this compiled file on the configuration on stdin.
///
/// # Errors
/// As [`describe`], or when the configuration cannot be read.
pub fn validate_config(compiled: &Path, digest: &Digest) -> Result<(), CommandError> {
    let judge = Judge::load(compiled, digest)?;
    let mut config = String::new();
    io::stdin().take(MAX_CONFIG).read_to_string(&mut config)?;
    let verdict = judge.validate_config(&config);
    // A plugin that cannot say what is wrong is what is wrong.
    let failed = verdict.is_err();
    let problems = verdict.unwrap_or_else(|error| vec![ConfigProblem::new("", &error.to_string())]);
    print(&ConfigVerdict { problems, failed }.bounded())
}

/// Prints what came of a [`Trial`], as `Ok`, or as `Err` why there was none.
///
/// # Errors
/// When the outcome cannot be written.
pub fn run_trial(trial: &Trial) -> Result<(), CommandError> {
    print(&trial::run(trial).map_err(|reason| reason.message))
}

/// Prints the checks of [`conformance`].
///
/// # Errors
/// As [`describe`].
pub fn run_conformance(subject: &Subject) -> Result<(), CommandError> {
    print(&conformance::run(subject)?)
}

fn print(verdict: &impl Serialize) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, verdict).map_err(io::Error::from)?;
    Ok(out.flush()?)
}
