//! Judges files in child processes.
//!
//! Invariant: the API decodes no video, loads no model and runs no plugin itself; whatever a hostile file
//! does, it does to a child that has a time limit, no credentials in its environment, and a bounded output.

use std::{
    io::ErrorKind,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use framehook_confine::{Limits, Sandbox};
use framehook_core::{
    artifact::{ArtifactKind, Manifest},
    error_code::ErrorCode,
    input::InputSpec,
    memory::MODEL_COPIES,
    probe::{Finding, MAX_ANSWER, MAX_PREVIEW, NO_SUCH_FRAME, Verdict},
    reason::without_source_places,
};
use framehook_infra::blobs::Staged;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::{
    ApiConfig, App, HttpLimits,
    check::{
        plugin,
        queue::{Busy, Claim, Queue},
    },
    http::{
        observe,
        problem::{Problem, is_passing},
    },
};

/// A model of a gigabyte takes some ten seconds to load on a slow disk.
const UPLOAD_LIMIT: Duration = Duration::from_secs(60);
/// All threads of a child together; the limit above is of wall time.
const CPU_SECONDS: u64 = 120;
/// What a child may use besides the bytes of a model: decoding the largest picture with its references takes
/// 1.5 GB, and a compiled plugin with all that its instance may have takes less.
pub(super) const MEMORY: u64 = 4 << 30;

/// The code of a finding that says nothing about the file: the worker could not load ONNX Runtime.
const NO_LIBRARY: &str = "no_onnxruntime";

/// Uploads and configurations wait apart, so that a configuration does not wait behind two large uploads.
pub(crate) struct ProbeQueues {
    pub(super) uploads: Queue,
    pub(super) configs: Queue,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("`{program}` could not be started: {cause}")]
    Start { program: String, cause: std::io::Error },
    #[error("{what}: {cause}")]
    Folder { what: &'static str, cause: std::io::Error },
    #[error("it took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error("the process that looked at it ended with {0}; nothing else was harmed")]
    Crashed(ExitStatus),
    #[error("the process that looked at it gave no verdict: {0}")]
    NoVerdict(String),
}

impl ProbeQueues {
    pub(crate) fn new(limits: &HttpLimits) -> Self {
        Self { uploads: Queue::new(limits), configs: Queue::new(limits) }
    }
}

/// What an upload is, if it is a usable one.
///
/// # Errors
/// `invalid_plugin`, `invalid_model` or `invalid_video` with what is wrong.
pub(crate) async fn inspect(app: &App, kind: ArtifactKind, upload: &Staged) -> Result<Manifest, Problem> {
    let file = &upload.path;
    let (code, command) = match kind {
        ArtifactKind::Plugin => return plugin::inspect(app, &upload.digest, file).await,
        ArtifactKind::Video => (ErrorCode::InvalidVideo, video(&app.config, file)),
        ArtifactKind::Model => {
            let size = tokio::fs::metadata(file).await.map_err(Problem::internal)?.len();
            (ErrorCode::InvalidModel, model(&app.config, file, size))
        }
    };
    judge(app, kind, code, command, file).await
}

/// The same for a video that is no upload: it may lack its end, because a camera or a copy was interrupted.
///
/// # Errors
/// `invalid_video` with what is wrong.
pub(crate) async fn inspect_source(app: &App, file: &Path) -> Result<Manifest, Problem> {
    let command = source(&app.config, file);
    judge(app, ArtifactKind::Video, ErrorCode::InvalidVideo, command, file).await
}

/// Judges a model of `size` bytes.
pub(crate) fn model(config: &ApiConfig, file: &Path, size: u64) -> Command {
    let ApiConfig { worker, onnxruntime, sandbox, .. } = config;
    let memory = size.saturating_mul(MODEL_COPIES).saturating_add(MEMORY);
    let mut command = command(sandbox, worker, &["probe-model"], Some(file), memory);
    command.arg("--onnxruntime").arg(onnxruntime);
    command
}

/// Judges a video that may lack its end.
pub(crate) fn source(config: &ApiConfig, file: &Path) -> Command {
    let mut command = video(config, file);
    command.arg("--may-be-cut");
    command
}

fn video(config: &ApiConfig, file: &Path) -> Command {
    let ApiConfig { worker, max_picture_side, sandbox, .. } = config;
    let mut command = command(sandbox, worker, &["probe-video"], Some(file), MEMORY);
    command.arg("--max-picture-side").arg(max_picture_side.to_string());
    command
}

async fn judge(
    app: &App,
    kind: ArtifactKind,
    code: ErrorCode,
    command: Command,
    file: &Path,
) -> Result<Manifest, Problem> {
    let verdict = in_turn(&app.probe_queues.uploads, kind.as_str(), verdict(command)).await;
    conclude(kind, code, verdict, file)
}

/// What the child of this command says of a file.
pub(crate) async fn verdict(command: Command) -> Result<Verdict<Value>, ProbeError> {
    read(&child(command, &[], MAX_ANSWER, UPLOAD_LIMIT).await?)
}

/// What follows from a verdict on the upload in `file`.
pub(super) fn conclude(
    kind: ArtifactKind,
    code: ErrorCode,
    verdict: Result<Verdict<Value>, ProbeError>,
    file: &Path,
) -> Result<Manifest, Problem> {
    let verdict = verdict.map_err(|error| refusal(code, &format!("the {kind} could not be read"), &error))?;
    let findings = match verdict.bounded() {
        Verdict::Ok(manifest) => return read_manifest(kind, manifest).map_err(Problem::internal),
        Verdict::Findings(findings) => findings,
    };
    if let Some(ours) = findings.iter().find(|finding| finding.code == NO_LIBRARY) {
        return Err(Problem::internal(&ours.message));
    }
    let said = |finding: &Finding| format!("{}: {}", finding.code, without_source_places(&finding.message));
    let findings = findings.iter().map(said).collect::<Vec<_>>().join("; ");
    // The child knows the upload by the name of a temporary file, which says nothing to a client.
    Err(Problem::new(code, findings.replace(&*file.to_string_lossy(), "the file")))
}

/// A JPEG of the first frame of `video` at `at_us` or later, and of what `input` makes of it.
///
/// # Errors
/// When there is no such frame, or the video cannot be decoded up to there.
pub(crate) async fn preview(app: &App, video: &Path, at_us: i64, input: &InputSpec) -> Result<Vec<u8>, Problem> {
    /// What each JPEG begins with, and no verdict.
    const JPEG: [u8; 2] = [0xff, 0xd8];
    let ApiConfig { worker, max_picture_side, sandbox, .. } = &app.config;
    let mut command = command(sandbox, worker, &["preview"], Some(video), MEMORY);
    command.args(["--at-us", &at_us.to_string(), "--max-picture-side", &max_picture_side.to_string()]);
    let input = serde_json::to_vec(input).map_err(Problem::internal)?;
    let refused = |error| refusal(ErrorCode::InvalidVideo, "the frame could not be shown", &error).field("video");
    let child = child(command, &input, MAX_PREVIEW, UPLOAD_LIMIT);
    let answer = in_turn(&app.probe_queues.uploads, "preview", child).await.map_err(refused)?;
    if answer.starts_with(&JPEG) {
        return Ok(answer);
    }
    let verdict = read::<Verdict<()>>(&answer).map_err(refused)?;
    let findings = if let Verdict::Findings(findings) = verdict.bounded() { findings } else { Vec::new() };
    let Some(Finding { code, message }) = findings.into_iter().next() else {
        return Err(Problem::internal("a preview is neither a picture nor a finding"));
    };
    let message = without_source_places(&message);
    Err(if code == NO_SUCH_FRAME {
        Problem::parameter("at_us", message)
    } else {
        Problem::new(ErrorCode::InvalidVideo, format!("{code}: {message}")).field("video")
    })
}

pub(super) fn command(
    sandbox: &Sandbox,
    program: &Path,
    arguments: &[&str],
    file: Option<&Path>,
    memory: u64,
) -> Command {
    let limits = Limits { memory, cpu_seconds: Some(CPU_SECONDS), file_size: 0 };
    let mut command = Command::from(sandbox.command(program, limits));
    command.args(arguments).args(file);
    command
}

/// `code` and `what` are for a fault of the file; where nothing was looked at, it has none.
pub(super) fn refusal(code: ErrorCode, what: &str, error: &ProbeError) -> Problem {
    match error {
        ProbeError::Busy(busy) => Problem::new(ErrorCode::TooBusy, format!("{busy}; retry in some seconds")),
        ProbeError::Start { cause, .. } if is_passing(cause) => {
            tracing::warn!("{error}");
            Problem::new(ErrorCode::Unavailable, "no process could be started to look at it; retry in a moment")
        }
        ProbeError::Folder { cause, .. } if cause.kind() == ErrorKind::StorageFull => {
            Problem::new(ErrorCode::StorageFull, "free disk space in the folder of compiled plugins, then retry")
        }
        ProbeError::Folder { cause, .. } if is_passing(cause) => {
            tracing::warn!("{error}");
            Problem::new(ErrorCode::Unavailable, "no more files can be opened at this moment; retry in a moment")
        }
        // Our installation's fault.
        ProbeError::Start { .. } | ProbeError::Folder { .. } => Problem::internal(error),
        _ => Problem::new(code, format!("{what}: {error}")),
    }
}

fn read_manifest(kind: ArtifactKind, manifest: Value) -> Result<Manifest, serde_json::Error> {
    Ok(match kind {
        ArtifactKind::Plugin => Manifest::Plugin(serde_json::from_value(manifest)?),
        ArtifactKind::Model => Manifest::Model(serde_json::from_value(manifest)?),
        ArtifactKind::Video => Manifest::Video(serde_json::from_value(manifest)?),
    })
}

/// Does `work` when it is its turn.
pub(super) async fn in_turn<T>(
    queue: &Queue,
    subject: &str,
    work: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    queue.run(Claim { client: observe::client(), subject: subject.to_owned() }, work).await?
}

/// A child's verdict.
pub(super) fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ProbeError> {
    serde_json::from_slice(answer).map_err(|e| ProbeError::NoVerdict(e.to_string()))
}

/// Runs a child to its end: at most so many bytes of what it wrote.
pub(super) async fn child(command: Command, input: &[u8], most: u64, limit: Duration) -> Result<Vec<u8>, ProbeError> {
    tokio::time::timeout(limit, run(command, input, most)).await.map_err(|_| ProbeError::Timeout(limit))?
}

async fn run(mut command: Command, input: &[u8], most: u64) -> Result<Vec<u8>, ProbeError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|cause| ProbeError::Start { program, cause })?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(ProbeError::NoVerdict("it has no pipes".into()));
    };
    let write = async {
        // A child that ends without reading its input is judged by its exit status.
        stdin.write_all(input).await.ok();
        drop(stdin);
    };
    let ((), output, errors) = tokio::join!(write, read_to_end(stdout, most), read_to_end(stderr, MAX_ANSWER));
    let status = child.wait().await.map_err(|e| ProbeError::NoVerdict(e.to_string()))?;
    if !errors.is_empty() {
        tracing::debug!(%status, "probe: {}", String::from_utf8_lossy(&errors));
    }
    if status.success() { Ok(output) } else { Err(ProbeError::Crashed(status)) }
}

/// Keeps at most so much and drains the rest, so that a talkative child ends too.
async fn read_to_end(mut pipe: impl tokio::io::AsyncRead + Unpin, most: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let read = (&mut pipe).take(most).read_to_end(&mut kept).await;
    if read.is_ok() {
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await.ok();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, input: &[u8], limit: Duration) -> Result<Value, ProbeError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        read(&child(command, input, MAX_ANSWER, limit).await?)
    }

    /// Far more than any of these scripts takes.
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_child_has_a_time_limit() {
        let limit = Duration::from_millis(50);
        let answer = shell("exec tail -f /dev/null", &[], limit).await;
        assert!(matches!(answer, Err(ProbeError::Timeout(given)) if given == limit), "{answer:?}");
    }

    #[tokio::test]
    async fn a_child_that_talks_too_much_or_does_not_listen_ends_too() {
        let talk = shell("yes | head -c 9000000; yes | head -c 9000000 >&2", &[], LONG).await;
        assert!(matches!(talk, Err(ProbeError::NoVerdict(_))), "{talk:?}");
        // More than a pipe holds.
        let deaf = shell("echo 1", &vec![b'x'; 1 << 20], LONG).await;
        assert_eq!(deaf.unwrap(), 1);
        let echo = shell("cat", b"[1]", LONG).await;
        assert_eq!(echo.unwrap(), serde_json::json!([1]));
    }
}
