//! One worker process: its start, its pipes, its end.
//!
//! It is killed when its [`Worker`] is dropped, and ends by itself when its standard input closes, so it
//! cannot outlive the runner either way. What it can reach is `framehook_confine`'s business.

use std::{
    collections::VecDeque, io, os::unix::process::ExitStatusExt as _, process::Stdio, sync::Arc, time::Duration,
};

use bytes::BytesMut;
use parking_lot::Mutex;

use framehook_confine::Limits;
use framehook_core::{
    execution::Provider,
    job::{Control, Job, MAX_RECORD, Report, write_record},
    memory::GPU_MIB,
    recorded::Sent,
    spec::Decoder,
    text::{LAST_LINES, MAX_LINE, short_line},
};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::{config::RunnerConfig, ending::Exit, records::RecordReader, scenario_log::ScenarioLog};

/// What a report has around a prediction. The others are smaller than the smallest limit of a prediction, but
/// for what hooks keep.
const REPORT: usize = 64;

/// A process that has said its last word may take this long to go.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// After the process is gone its last lines are in the pipe; only a descendant that holds it open makes us
/// wait.
const STDERR_GRACE: Duration = Duration::from_millis(200);

/// What is decided before a worker starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) decoder: Decoder,
    pub(crate) provider: Provider,
}

impl Kind {
    pub(crate) const fn of(job: &Job) -> Self {
        Self { decoder: job.decoder, provider: job.execution.provider }
    }
}

/// Memory of a worker besides that of its order.
pub(crate) const fn extra_mib(provider: Provider) -> u32 {
    if provider.has_gpu() { GPU_MIB } else { 0 }
}

/// Lets the libraries around that of a provider be found: theirs do not all say where the others are.
pub(crate) fn with_library(command: &mut std::process::Command, config: &RunnerConfig, provider: Provider) {
    const PATHS: &str = "LD_LIBRARY_PATH";
    let Some(folder) = config.providers.get(&provider).and_then(|library| library.parent()) else { return };
    let ours = std::env::var_os(PATHS).unwrap_or_default();
    let all = [folder.to_owned()].into_iter().chain(std::env::split_paths(&ours));
    // A folder with a colon in its name cannot be named so.
    if let Ok(all) = std::env::join_paths(all) {
        command.env(PATHS, all);
    }
}

/// A worker that waits for its job.
///
/// # Errors
/// When the process cannot be started.
pub(crate) fn start(config: &RunnerConfig, kind: Kind) -> io::Result<Child> {
    let Kind { decoder, provider } = kind;
    // Its job tells it a lower one. It runs as long as its video does, and writes into its pipes alone.
    let memory = u64::from(config.worker_memory_mib + extra_mib(provider)) << 20;
    let limits = Limits { memory, cpu_seconds: None, file_size: 0 };
    let mut command = config.sandbox.command(&config.worker_with(decoder), limits);
    with_library(&mut command, config, provider);
    command.arg("run").args(provider.has_gpu().then_some("--gpu"));
    command.arg("--onnxruntime").arg(config.library(provider));
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// What a worker says.
pub(crate) enum Heard {
    Report(Report),
    /// Outputs to be recorded, which are a [`Sent`].
    Outputs(BytesMut),
}

pub(crate) struct Worker {
    child: Child,
    reports: RecordReader<ChildStdout, Report>,
    /// Dropping it closes the worker's standard input.
    records: mpsc::UnboundedSender<Vec<u8>>,
    last_lines: LastLines,
    stderr: AbortOnDropHandle<()>,
}

impl Worker {
    /// Gives a process that was started with [`start`] its job.
    ///
    /// # Errors
    /// When the job is too long to be sent.
    pub(crate) fn new(mut child: Child, job: &Job, log: ScenarioLog) -> io::Result<Self> {
        let first = record(job)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the worker has no pipes"));
        };
        let (records, to_write) = mpsc::unbounded_channel();
        tokio::spawn(write_records(stdin, first, to_write));
        let has_hooks = !(job.pre.is_empty() && job.post.is_empty() && job.shadow.is_empty());
        let is_long = has_hooks || job.record;
        let longest = if is_long { MAX_RECORD } else { job.limits.prediction_bytes + REPORT };
        let last_lines = LastLines::default();
        let stderr = tokio::spawn(read_lines(stderr, last_lines.clone(), log).in_current_span());
        let stderr = AbortOnDropHandle::new(stderr);
        Ok(Self { child, reports: RecordReader::new(stdout, longest), records, last_lines, stderr })
    }

    /// What it says next; see [`RecordReader::next`]. Cancel-safe.
    pub(crate) async fn heard(&mut self) -> io::Result<Option<Heard>> {
        let Some(record) = self.reports.next_bytes().await? else { return Ok(None) };
        if Sent::is(&record) {
            return Ok(Some(Heard::Outputs(record)));
        }
        RecordReader::<ChildStdout, Report>::read(&record).map(|report| Some(Heard::Report(report)))
    }

    /// The next report of a worker that records nothing. Cancel-safe.
    pub(crate) async fn report(&mut self) -> io::Result<Option<Report>> {
        self.reports.next().await
    }

    /// Tells it something. If it is gone already, its end will be read.
    pub(crate) fn tell(&self, control: Control) {
        if let Ok(record) = record(&control) {
            self.records.send(record).ok();
        }
    }

    /// Ends it at once. Its reports can still be read up to their end.
    pub(crate) fn kill(&mut self) {
        // Fails only for a process that is gone.
        self.child.start_kill().ok();
    }

    /// Waits for its end, which is forced if it takes long, and tells how it ended.
    pub(crate) async fn end(self) -> Exit {
        let Self { mut child, reports, records, last_lines, mut stderr } = self;
        // Whatever it still waits for, reading or writing, is over.
        drop((reports, records));
        let status = match timeout(EXIT_GRACE, child.wait()).await {
            Ok(status) => status,
            // Fails only for a process that is gone.
            Err(_) => child.kill().await.and(child.wait().await),
        };
        timeout(STDERR_GRACE, &mut stderr).await.ok();
        let signal = status.as_ref().ok().and_then(|status| status.signal());
        let how = status.map_or_else(|e| format!("unknown status ({e})"), |s| s.to_string());
        Exit { how, signal, last_lines: last_lines.text() }
    }
}

fn record(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut record = Vec::new();
    write_record(&mut record, value)?;
    Ok(record)
}

/// A task of its own, because a worker that does not read must not keep its supervisor from killing it.
async fn write_records(mut stdin: ChildStdin, first: Vec<u8>, mut more: mpsc::UnboundedReceiver<Vec<u8>>) {
    let mut next = Some(first);
    while let Some(record) = next {
        // A worker that closed its input is about to end, which its supervisor sees.
        if stdin.write_all(&record).await.is_err() {
            return;
        }
        next = more.recv().await;
    }
}

#[derive(Clone, Default)]
struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn text(&self) -> String {
        self.0.lock().make_contiguous().join(" | ")
    }
}

/// Turns standard error into log lines until it closes.
async fn read_lines(stderr: impl AsyncRead + Unpin, last: LastLines, log: ScenarioLog) {
    let mut input = BufReader::new(stderr);
    let mut line = Vec::new();
    // A process that writes without a line end must not fill the memory.
    while let Ok(byte) = input.read_u8().await {
        if byte != b'\n' {
            if line.len() < MAX_LINE {
                line.push(byte);
            }
            continue;
        }
        log_line(&line, &last, &log);
        line.clear();
    }
    log_line(&line, &last, &log);
}

fn log_line(line: &[u8], last: &LastLines, log: &ScenarioLog) {
    let line = String::from_utf8_lossy(line);
    if line.trim().is_empty() {
        return;
    }
    let text = short_line(line.trim_end(), MAX_LINE);
    if ["ERROR", "WARN", "panicked"].iter().any(|word| text.contains(word)) {
        if log.admits(text.len()) {
            tracing::warn!("worker: {text}");
        }
    } else if tracing::enabled!(tracing::Level::DEBUG) && log.admits(text.len()) {
        tracing::debug!("worker: {text}");
    }
    last.push(text);
}
