//! A worker process under test, and where its files are.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel},
    thread,
    time::{Duration, Instant},
};

use framehook_core::{
    execution::Execution,
    hook_state::HookState,
    ids::{Digest, ScenarioId},
    input::{InputOptions, TensorInfo},
    job::{DEFAULT_PICTURE_SIDE, HookJob, HookLimits, Job, Outcome, Patience, Report, read_record, write_record},
    prediction::{PluginIdentity, Prediction, Provenance},
    reason::Reason,
    spec::{Decoder, OnPluginFailure},
};
use sha2::{Digest as _, Sha256};

/// Far beyond what anything here takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn asset(name: &str) -> PathBuf {
    root().join("assets").join(name)
}

pub(crate) fn onnxruntime() -> PathBuf {
    let path = std::env::var_os("FRAMEHOOK_ONNXRUNTIME")
        .map_or_else(|| root().join(".cache/onnxruntime/libonnxruntime.so"), PathBuf::from);
    assert!(path.exists(), "no ONNX Runtime at {}: run scripts/onnxruntime.sh", path.display());
    path
}

pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_framehook-worker"))
}

/// Runs a command that prints one line of JSON.
pub(crate) fn probe(arguments: &[&OsStr]) -> serde_json::Value {
    let output = command().args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text:?} {errors}"))
}

/// The demo model on a clip, without hooks.
pub(crate) fn job(clip: &str) -> Job {
    let shape = [1, 3, 192, 320].map(Some).to_vec();
    let input = TensorInfo { name: "images".into(), element: "float32".into(), shape };
    Job {
        scenario_id: ScenarioId::generate(),
        generation: 1,
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        source: asset(clip),
        decoder: Decoder::Libav,
        frames: None,
        range: None,
        max_speed: None,
        max_picture_side: DEFAULT_PICTURE_SIDE,
        model: asset("street.onnx"),
        input: InputOptions::default().resolve(&[input]).unwrap(),
        models: BTreeMap::new(),
        record: false,
        replay: Vec::new(),
        pre: Vec::new(),
        post: Vec::new(),
        shadow: Vec::new(),
        on_plugin_failure: OnPluginFailure::SkipFrame,
        // Deadlines are wall time, and tests share few cores with one another.
        limits: HookLimits { call_ms: 2000, init_ms: 20_000, ..HookLimits::default() },
        memory_mib: None,
        patience: Patience { load_ms: 60_000, first_ms: 30_000, frame_ms: 30_000 },
        resume_after: None,
        state: HookState::default(),
        provenance: Provenance {
            model: Digest::from_bytes(&[7; 32]),
            models: Default::default(),
            plugins: Vec::new(),
            revision: 1,
            decoder: None,
            execution: None,
        },
        intra_threads: 1,
        lanes: 1,
        execution: Execution::default(),
        provider_options: BTreeMap::new(),
        onnxruntime: onnxruntime(),
        later_plugins: None,
    }
}

/// A plugin, compiled to `compiled`.
pub(crate) fn hook(name: &str, compiled: &Path, config: serde_json::Value) -> HookJob {
    let identity = PluginIdentity { name: name.into(), version: "1".into(), digest: Digest::from_bytes(&[9; 32]) };
    let digest = Digest::from_bytes(&Sha256::digest(std::fs::read(compiled).unwrap_or_default()).into());
    HookJob { identity, compiled: compiled.into(), digest, config }
}

/// `framehook-worker run`, with its pipes; ended when dropped.
pub(crate) struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    reports: Receiver<Report<Prediction>>,
}

impl Worker {
    /// The executable that has the job's decoder.
    pub(crate) fn start(job: &Job) -> Self {
        let executable = match job.decoder {
            Decoder::Libav => env!("CARGO_BIN_EXE_framehook-worker"),
            Decoder::Opencv => env!("CARGO_BIN_EXE_framehook-worker-opencv"),
        };
        Self::start_by(Command::new(executable), job)
    }

    pub(crate) fn start_by(command: Command, job: &Job) -> Self {
        let mut worker = Self::spawn(command, job);
        let mut stdout = worker.child.stdout.take().unwrap();
        // As a runner that is slow: what the worker reports does not pile up here before a test has looked at
        // it.
        let (sender, reports) = sync_channel(1);
        thread::spawn(move || {
            while let Ok(Some(report)) = read_record(&mut stdout) {
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        worker.reports = reports;
        worker
    }

    /// A worker whose reports nobody reads: the pipe is closed from the start.
    pub(crate) fn start_deaf(job: &Job) -> Self {
        let mut worker = Self::spawn(command(), job);
        drop(worker.child.stdout.take());
        worker
    }

    fn spawn(mut command: Command, job: &Job) -> Self {
        let mut child = command.arg("run").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        write_record(&mut stdin, job).unwrap();
        stdin.flush().unwrap();
        Self { child, stdin: Some(stdin), reports: channel().1 }
    }

    pub(crate) fn next(&mut self) -> Report<Prediction> {
        match self.reports.recv_timeout(DEADLINE) {
            Ok(report) => report,
            Err(RecvTimeoutError::Timeout) => panic!("no report within {DEADLINE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the worker ended without a word: {:?}", self.wait()),
        }
    }

    /// Shows all reports but the last, which says how it ended.
    pub(crate) fn until_end(&mut self, mut see: impl FnMut(Report<Prediction>)) -> (Outcome, Reason) {
        loop {
            match self.next() {
                Report::Ended { outcome, reason } => return (outcome, reason),
                report => see(report),
            }
        }
    }

    pub(crate) fn until_first_frame(&mut self) {
        while !matches!(self.next(), Report::Frame(_)) {}
    }

    pub(crate) fn send<T: serde::Serialize>(&mut self, record: &T) {
        write_record(self.stdin.as_mut().unwrap(), record).unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "the worker did not end within {DEADLINE:?}");
            thread::yield_now();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
