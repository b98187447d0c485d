//! The child that compiles and does nothing else.
//!
//! Its standard output is the file that will hold the code: so it needs no folder that it could write to, and
//! no code is in the memory of its parent. If something is wrong with the plugin, findings are in that file
//! instead, and its exit code says so.

use std::{
    io::{self, Read as _, Seek as _},
    path::Path,
    process::{ExitStatus, Output, Stdio},
};

use framehook_confine::Limits;
use framehook_core::{
    probe::{EXIT_FINDINGS, Finding, MAX_ANSWER, Verdict},
    text::last_lines,
};
use tempfile::NamedTempFile;
use tokio::{process::Command, time::timeout};

use crate::{CompileError, Settings, sweep::UNFINISHED};

/// Compiling an 18 MB component takes 1.5 GB.
const MEMORY: u64 = 4 << 30;

/// Machine code is some three times as long as its component, and the longest of those has 32 MiB.
const MAX_COMPILED: u64 = 1 << 30;

/// The machine code of the plugin in `wasm`, in a file without a signature.
///
/// # Errors
/// What is wrong with the plugin, or why the child could not do its work.
pub(crate) async fn compile(settings: &Settings, wasm: &Path) -> Result<NamedTempFile, CompileError> {
    let Settings { folder, sandbox, plugin_host, timeout: longest, .. } = settings;
    let no_file = CompileError::folder("no file in the cache folder");
    let unfinished = tempfile::Builder::new().suffix(UNFINISHED).tempfile_in(folder).map_err(&no_file)?;
    let out = unfinished.as_file().try_clone().map_err(&no_file)?;
    let limits = Limits { memory: MEMORY, cpu_seconds: Some(2 * longest.as_secs()), file_size: MAX_COMPILED };
    let mut child = Command::from(sandbox.command(plugin_host, limits));
    child.args(["plugin-host", "compile"]).arg(wasm).kill_on_drop(true);
    child.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let child = child.spawn().map_err(CompileError::Start)?;
    // When the time is over the future is dropped, and the child killed with it.
    let output = timeout(*longest, child.wait_with_output()).await.map_err(|_| CompileError::TooLong(*longest))?;
    let Output { status, stderr, .. } = output.map_err(CompileError::folder("the compiler was lost"))?;
    match status.code() {
        Some(0) => Ok(unfinished),
        Some(code) if code == i32::from(EXIT_FINDINGS) => Err(refused(unfinished, status)),
        // The child knows the plugin by a path of this machine, which says nothing to anybody else.
        Some(_) => {
            let said = last_lines(&stderr).replace(&*wasm.to_string_lossy(), "its file");
            Err(CompileError::Failed { status, said })
        }
        None => Err(CompileError::Died(status)),
    }
}

fn refused(unfinished: NamedTempFile, status: ExitStatus) -> CompileError {
    match findings(unfinished) {
        Ok(findings) => CompileError::Refused(findings),
        Err(error) => CompileError::Failed { status, said: format!("the compiler's findings cannot be read: {error}") },
    }
}

fn findings(mut file: NamedTempFile) -> io::Result<Vec<Finding>> {
    let mut text = Vec::new();
    // The child wrote through the same descriptor.
    file.rewind()?;
    file.take(MAX_ANSWER).read_to_end(&mut text)?;
    match serde_json::from_slice::<Verdict<()>>(&text)?.bounded() {
        Verdict::Findings(findings) => Ok(findings),
        Verdict::Ok(()) => Err(io::Error::other("there are none")),
    }
}
