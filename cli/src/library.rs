//! Whether the ONNX Runtime library is one: a child process tries it, because this one loads no library of
//! that kind.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use framehook_confine::{Limits, Sandbox};
use framehook_core::probe::Verdict;
use serde_json::Value;
use tracing::warn;

use crate::settings::Settings;

/// As much as a probe of an upload may have; what is tried takes a tenth of a second.
const LIMITS: Limits = Limits { memory: 4 << 30, cpu_seconds: Some(30), file_size: 0 };

/// The smallest model: `y` is `x`, eight by eight pixels of three channels. A library that loads it loads
/// others.
const IDENTITY: &[u8] =
    b"\x08\x08B\x02\x10\x0d:O\n\x10\n\x01x\x12\x01y\"\x08Identity\x12\x01gZ\x1b\n\x01x\x12\x16\n\x14\
    \x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08\x08\n\x02\x08\x08b\x1b\n\x01y\x12\x16\n\
    \x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08\x08\n\x02\x08\x08";

/// Loads a model with it, in a worker.
///
/// # Errors
/// When the worker or the library cannot be used; the message says what to do.
pub(crate) fn check(settings: &Settings, sandbox: &Sandbox) -> anyhow::Result<()> {
    let model = settings.data.join("identity.onnx");
    if let Err(error) = std::fs::write(&model, IDENTITY) {
        // A full disk must not keep the platform from starting: what is on it can only be deleted once it
        // runs.
        warn!("the ONNX Runtime library was not tried: {} cannot be written: {error}", model.display());
        return Ok(());
    }
    let mut command = sandbox.command(&settings.worker, LIMITS);
    command.arg("probe-model").arg(&model).arg("--onnxruntime").arg(&settings.onnxruntime);
    let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    std::fs::remove_file(&model).ok();
    let (worker, library) = (settings.worker.display(), settings.onnxruntime.display());
    let [worker_by, library_by] = ["worker", "onnxruntime"].map(|id| settings.origins.of(id));
    let output = output.with_context(|| {
        format!(
            "the worker executable {worker} cannot be started; run `make build`, or say where it is with {worker_by}"
        )
    })?;
    match serde_json::from_slice::<Verdict<Value>>(&output.stdout) {
        Ok(Verdict::Ok(_)) if output.status.success() => Ok(()),
        Ok(Verdict::Findings(findings)) => {
            let said: Vec<_> = findings.into_iter().map(|finding| finding.message).collect();
            bail!("ONNX Runtime at {library} cannot be used ({library_by}): {}", said.join("; "))
        }
        _ => bail!(
            "the worker executable {worker} could not load a model with ONNX Runtime at {library} and gave no verdict \
             ({}): {}; run `make build`, or say where they are with {worker_by} and {library_by}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}
