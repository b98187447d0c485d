//! What a runner is told at its start, and what can be wrong with it.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use framehook_confine::Sandbox;
use framehook_core::{
    execution::{Execution, Precision, Provider, ProviderChoice},
    ids::RunnerId,
    job::{DEFAULT_PICTURE_SIDE, HookLimits, Job, Patience},
    limits::{HookCeilings, ScenarioLimits},
    memory::MemoryCaps,
    message::Confinement,
    placement::Labels,
    spec::{Decoder, Lanes},
};
use framehook_infra::{seal::Key, space::Reserve};
use ipnet::IpNet;

use crate::restart::RestartSchedule;

/// Settings of a runner.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    pub runner_id: RunnerId,
    /// Most worker processes at a time (`MAX_WORKERS`); further deployments wait for one to end.
    pub max_workers: u32,
    /// Memory for all workers together, in MiB; `None`: three quarters of what this machine or container has.
    pub memory_mib: Option<u32>,
    /// Most memory of one worker.
    pub worker_memory_mib: u32,
    /// What this runner has, for scenarios whose placement asks for it.
    pub labels: Labels,
    /// The `framehook-worker` executable. That for OpenCV's decoder is beside it, with `-opencv` behind the
    /// name.
    pub worker: PathBuf,
    /// The ONNX Runtime shared library.
    pub onnxruntime: PathBuf,
    /// Libraries with other execution providers, each with what lies around it.
    pub providers: BTreeMap<Provider, PathBuf>,
    /// Their options, in ONNX Runtime's own words.
    pub provider_options: BTreeMap<Provider, BTreeMap<String, String>>,
    /// What runs the model of a scenario that does not say so.
    pub provider: ProviderChoice,
    pub precision: Precision,
    /// How children are started.
    pub sandbox: Sandbox,
    /// What confines them on this machine, as its heartbeat shows it.
    pub confinement: Vec<Confinement>,
    /// Folders in which a scenario's `file` source may lie; empty allows none.
    pub source_dirs: Vec<PathBuf>,
    /// Recordings that are being worked on; emptied at the start, so it belongs to this runner alone.
    pub recordings_dir: PathBuf,
    /// How fast models are, as measured here.
    pub measured_dir: PathBuf,
    /// Most bytes of a recording.
    pub max_recording_bytes: u64,
    /// A recording that is not here after this is given up.
    pub fetch_timeout: Duration,
    /// Bytes a second that a server must deliver of a recording, on average over each `rate_window`; it may
    /// take as long for its first answer.
    pub least_rate: u64,
    pub rate_window: Duration,
    /// What fetching them leaves free of the disk.
    pub disk_reserve: Reserve,
    /// Networks in which a scenario's `url` source may lie besides the public one.
    pub source_networks: Vec<IpNet>,
    /// Bytes of recorded outputs that are kept of a scenario.
    pub max_outputs_bytes: u64,
    /// Opens the credentials of sources; without one, sources that have some fail.
    pub key: Option<Key>,
    /// Bytes of predictions that a scenario may publish in a second; a worker that is faster waits.
    pub prediction_bytes_per_s: u64,
    /// Threads of one inference.
    pub intra_threads: usize,
    /// Those of this machine or container, which its workers share.
    pub cores: usize,
    /// What decodes the video of a scenario that does not say so.
    pub decoder: Decoder,
    /// Frames that are in the model at a time, for a scenario that does not say so.
    pub lanes: Lanes,
    /// Pixels of a side of a video's pictures, at most.
    pub max_picture_side: u32,
    /// For scenarios that ask for nothing else.
    pub hook_limits: HookLimits,
    pub hook_ceilings: HookCeilings,
    /// A worker that is ready and reports nothing for this long is killed and started again; a server that
    /// delivers nothing of a recording for this long is asked again.
    pub frame_timeout: Duration,
    /// The same before it is ready: opening the source and loading the model take longer than a frame.
    pub start_timeout: Duration,
    /// A model that takes longer to load, before its first inference, is stalled.
    pub load_timeout: Duration,
    /// A model whose first inference takes longer is stalled.
    pub first_inference: Duration,
    pub restarts: RestartSchedule,
    /// A worker that was told to stop is killed after this.
    pub drain_deadline: Duration,
    /// Time between two heartbeats when nothing changes.
    pub heartbeat: Duration,
    /// How long an ended worker stays in the heartbeat, unless a newer generation replaces it.
    pub keep_ended: Duration,
}

impl RunnerConfig {
    /// The defaults, with the paths that have none.
    #[must_use]
    pub fn new(
        runner_id: RunnerId,
        worker: PathBuf,
        onnxruntime: PathBuf,
        recordings_dir: PathBuf,
        measured_dir: PathBuf,
    ) -> Self {
        Self {
            runner_id,
            max_workers: 4,
            memory_mib: None,
            worker_memory_mib: MemoryCaps::default().worker_mib,
            labels: Labels::new(),
            worker,
            onnxruntime,
            providers: BTreeMap::new(),
            provider_options: BTreeMap::new(),
            provider: ProviderChoice::default(),
            precision: Precision::default(),
            sandbox: Sandbox::default(),
            confinement: Vec::new(),
            source_dirs: Vec::new(),
            recordings_dir,
            measured_dir,
            // As of an uploaded video.
            max_recording_bytes: 64 << 30,
            // An hour's recording of a camera (8 Mbit/s) over a line of 16 Mbit/s takes half of it.
            fetch_timeout: Duration::from_secs(3600),
            // A line that is slower takes all day for a minute of video.
            least_rate: 16 << 10,
            // Longer than any pause of a line that is worth waiting for.
            rate_window: Duration::from_secs(30),
            disk_reserve: Reserve::NONE,
            source_networks: Vec::new(),
            // Outputs of fifty thousand frames of a small detector (21 KiB each, see bench/README.md): half
            // an hour of video.
            max_outputs_bytes: 1 << 30,
            key: None,
            // A thousand frames a second of twenty detections; the disk of a small machine takes
            // ten such.
            prediction_bytes_per_s: 4 << 20,
            // Fastest for several streams: more threads on one inference cost more than they give.
            intra_threads: 1,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            decoder: Decoder::default(),
            lanes: Lanes::default(),
            max_picture_side: DEFAULT_PICTURE_SIDE,
            hook_limits: HookLimits::default(),
            hook_ceilings: HookCeilings::default(),
            // Ten times the longest pause between key frames one meets.
            frame_timeout: Duration::from_secs(10),
            // Twice what an upload may take to be judged, which loads a model and a video in the same way.
            start_timeout: Duration::from_secs(120),
            // As much as an upload may take to be judged.
            load_timeout: Duration::from_secs(60),
            // A hundred times what the largest models in use take for a frame on one core.
            first_inference: Duration::from_secs(30),
            restarts: RestartSchedule::default(),
            drain_deadline: Duration::from_secs(5),
            heartbeat: Duration::from_millis(500),
            // Long enough for an orchestrator to be started again by hand.
            keep_ended: Duration::from_secs(600),
        }
    }

    /// A little less than the frame timeout for a frame, so that the worker can say that it is the model
    /// which is silent.
    pub(crate) fn patience(&self) -> Patience {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Patience {
            load_ms: millis(self.load_timeout),
            first_ms: millis(self.first_inference),
            frame_ms: millis(self.frame_timeout * 9 / 10),
        }
    }

    /// Those of a scenario. Further models may take half of the time that a frame has.
    pub(crate) fn limits_of(&self, scenario: &ScenarioLimits) -> HookLimits {
        let limits = HookLimits { model_ms: self.patience().frame_ms / 2, ..self.hook_limits };
        scenario.apply(limits, self.hook_ceilings)
    }

    /// The worker executable that has this decoder.
    pub(crate) fn worker_with(&self, decoder: Decoder) -> PathBuf {
        let mut path = self.worker.clone().into_os_string();
        if decoder == Decoder::Opencv {
            path.push("-opencv");
        }
        path.into()
    }

    /// The library that has this provider.
    pub(crate) fn library(&self, provider: Provider) -> &Path {
        self.providers.get(&provider).unwrap_or(&self.onnxruntime)
    }

    pub(crate) fn options_of(&self, provider: Provider) -> BTreeMap<String, String> {
        self.provider_options.get(&provider).cloned().unwrap_or_default()
    }

    /// Lets a job run with this.
    pub(crate) fn execute(&self, job: &mut Job, execution: Execution) {
        job.execution = execution;
        job.provenance.execution = Some(execution);
        job.onnxruntime = self.library(execution.provider).to_owned();
        job.provider_options = self.options_of(execution.provider);
    }

    /// Refuses what can never work, before anything is announced; makes the folders.
    pub(crate) fn check(&self) -> Result<(), RunnerError> {
        if self.max_workers == 0 {
            return Err(RunnerError::NoWorkers);
        }
        must_be_file("framehook-worker executable", &self.worker)?;
        must_be_file("framehook-worker-opencv executable", &self.worker_with(Decoder::Opencv))?;
        must_be_file("ONNX Runtime library", &self.onnxruntime)?;
        self.providers.values().try_for_each(|library| must_be_file("ONNX Runtime library of a provider", library))?;
        std::fs::create_dir_all(&self.measured_dir)
            .map_err(|source| RunnerError::MeasuredDir { path: self.measured_dir.clone(), source })?;
        empty_folder(&self.recordings_dir)
            .map_err(|source| RunnerError::RecordingsDir { path: self.recordings_dir.clone(), source })
    }
}

fn must_be_file(what: &'static str, path: &Path) -> Result<(), RunnerError> {
    if path.is_file() { Ok(()) } else { Err(RunnerError::NotFound { what, path: path.to_owned() }) }
}

/// What a runner that was killed left behind belongs to nobody.
fn empty_folder(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(path)
}

/// Why a runner cannot run at all. What goes wrong with one scenario is in that worker's status instead.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    #[error("`max_workers` is 0; a runner needs room for at least one worker")]
    NoWorkers,
    #[error("the {what} is not at {}; build or install it, or correct the setting", path.display())]
    NotFound { what: &'static str, path: PathBuf },
    #[error("the runner is set to the provider `{provider}` in {precision}, and {why}")]
    Provider { provider: &'static str, precision: &'static str, why: String },
    #[error("the folder for measurements, {}, cannot be made: {source}", path.display())]
    MeasuredDir { path: PathBuf, source: io::Error },
    #[error("the folder for recordings, {}, cannot be emptied: {source}", path.display())]
    RecordingsDir { path: PathBuf, source: io::Error },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_work_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let opencv = dir.path().join("file-opencv");
        std::fs::write(&file, "").unwrap();
        std::fs::write(&opencv, "").unwrap();
        let (recordings, measured) = (dir.path().join("recordings"), dir.path().join("measured"));
        let good = RunnerConfig::new(RunnerId("r".into()), file.clone(), file, recordings, measured);
        good.check().unwrap();
        assert!(good.measured_dir.is_dir());
        let left = good.recordings_dir.join("left");
        std::fs::write(&left, "").unwrap();
        good.check().unwrap();
        assert!(good.recordings_dir.is_dir() && !left.exists());

        let missing = dir.path().join("missing");
        for (bad, words) in [
            (RunnerConfig { max_workers: 0, ..good.clone() }, "max_workers"),
            (RunnerConfig { worker: missing.clone(), ..good.clone() }, "framehook-worker executable is not at"),
            (RunnerConfig { worker: opencv, ..good.clone() }, "framehook-worker-opencv executable is not at"),
            (RunnerConfig { onnxruntime: missing, ..good.clone() }, "ONNX Runtime library is not at"),
            (RunnerConfig { measured_dir: good.worker.join("below-a-file"), ..good.clone() }, "cannot be made"),
            (RunnerConfig { recordings_dir: good.worker.clone(), ..good.clone() }, "cannot be emptied"),
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
