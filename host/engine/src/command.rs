//! The child process that handles plugins from outside: `framehook plugin-host`.
//!
//! Compiling and trying a stranger's code happens only here. The child limits its own memory and
//! CPU time before it looks at the file; its parent limits the wall time. A verdict, good or bad, is
//! JSON on stdout and success; an error is something that says nothing about the plugin.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use framehook_core::probe::{ConfigProblem, ConfigVerdict};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::Serialize;

use crate::compile::Compiler;

/// Compiling an 18 MB component takes 1.5 GB.
const MEMORY_BYTES: u64 = 4 << 30;
/// Four times what the largest component known takes.
const CPU_SECONDS: u64 = 60;
/// A configuration is written by a person.
const MAX_CONFIG: u64 = 1 << 20;

/// What the child is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `inspect FILE`: prints a [`framehook_core::probe::Verdict`].
    Inspect { wasm: PathBuf },
    /// `compile FILE OUT`: writes OUT at once or not at all; prints nothing.
    Compile { wasm: PathBuf, out: PathBuf },
    /// `validate-config FILE`, the configuration on stdin: prints a [`ConfigVerdict`].
    ValidateConfig { wasm: PathBuf },
}

/// Why the child could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("stdin or stdout: {0}")]
    Pipe(#[from] io::Error),
    #[error("this process could not be limited: {0}")]
    Limits(#[from] rustix::io::Errno),
    #[error(transparent)]
    Plugin(#[from] crate::LoadError),
}

/// Runs a command. It limits the memory and CPU time of this process for good, so call it only in
/// a process of its own.
///
/// # Errors
/// When a file cannot be read or written, or a plugin that was inspected before does not compile.
pub fn run(command: &Command) -> Result<(), CommandError> {
    limit_this_process()?;
    match command {
        Command::Inspect { wasm } => {
            let wasm = read(wasm)?;
            print(&Compiler::new()?.inspect(&wasm))
        }
        Command::Compile { wasm, out } => {
            let code = Compiler::new()?.compile(&read(wasm)?)?;
            write_at_once(out, &code).map_err(|source| CommandError::File { path: out.clone(), source })
        }
        Command::ValidateConfig { wasm } => {
            let wasm = read(wasm)?;
            let mut config = String::new();
            io::stdin().take(MAX_CONFIG).read_to_string(&mut config)?;
            let verdict = Compiler::new()?.validate_config(&wasm, &config);
            // A plugin that cannot say what is wrong is what is wrong.
            let problems = verdict.unwrap_or_else(|error| vec![ConfigProblem::new("", &error.to_string())]);
            print(&ConfigVerdict { problems }.bounded())
        }
    }
}

/// Not the address space: the engine reserves more of it than there is memory, and never touches it.
fn limit_this_process() -> rustix::io::Result<()> {
    let both = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::Data, both(MEMORY_BYTES))?;
    setrlimit(Resource::Cpu, both(CPU_SECONDS))
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    fs::read(path).map_err(|source| CommandError::File { path: path.to_owned(), source })
}

fn print(verdict: &impl Serialize) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, verdict).map_err(io::Error::from)?;
    Ok(out.flush()?)
}

/// So that nobody ever loads half a file.
fn write_at_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // The first error is the one to report.
        fs::remove_file(&partial).ok();
    }
    written
}
