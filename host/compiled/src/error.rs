//! Why a plugin has no compiled form. Whoever asked for it decides what follows.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use framehook_core::probe::Finding;
use framehook_infra::seal::KeyError;

/// Why a folder of compiled plugins cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the name of the plugin engine, `{0}`, must be letters, digits, `.`, `_`, `-` or `+`, and not empty")]
    Engine(String),
    #[error("the framehook executable is not at {}; build or install it", .0.display())]
    NotFound(PathBuf),
    #[error("the folder for compiled plugins, {}, cannot be made: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("compiled plugins cannot be signed: {0}")]
    Key(#[from] KeyError),
}

/// Why one plugin could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// What is wrong with it, found before it was compiled or while it was.
    #[error("{}", messages(.0))]
    Refused(Vec<Finding>),
    #[error("it took longer than {0:?}")]
    TooLong(Duration),
    /// The child ended by itself, without a result.
    #[error("{said}")]
    Failed { status: ExitStatus, said: String },
    /// Something ended the child.
    #[error("the compiler died: {0}")]
    Died(ExitStatus),
    #[error("the compiler did not start: {0}")]
    Start(#[source] io::Error),
    #[error("{what}: {source}")]
    Folder { what: &'static str, source: io::Error },
}

impl CompileError {
    pub(crate) fn folder(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Folder { what, source }
    }
}

/// What findings say, in one line.
fn messages(findings: &[Finding]) -> String {
    findings.iter().map(|finding| finding.message.as_str()).collect::<Vec<_>>().join("; ")
}
