//! The life of a worker: read the job, load everything, run the pipeline, say how it ended.
//!
//! Invariants: the last record is [`Report::Ended`], whatever happened, unless the runner went away
//! first: then the process ends at once, even while a decoder hangs.

use std::{
    ffi::CStr,
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

use framehook_confine::{ConfineError, Reach, give_up_capabilities, lower_memory, restrict_files};
use framehook_core::{
    artifact::VideoManifest,
    execution::Measured,
    hook_metrics,
    hook_state::{HookState, StateQuota},
    job::{Change, Control, Job, Outcome, PluginLog, Ready, Report, read_record},
    reason::{Reason, ReasonCode},
    size::room_for_outputs,
    spec::{Decoder, OnPluginFailure},
};
use framehook_engine::{
    Engine, Log,
    chain::{Chain, ChainSettings, Stage},
    media::{Size, Source, Start},
    models::Models,
};

use crate::{
    change::{Changes, Maker},
    further::Further,
    lanes::Lanes,
    loader::Loader,
    measure,
    model::ModelError,
    pipeline::{self, Parts, ReplayParts, StopFlag},
    process,
    recorded::{Opening, Recording},
    report::{EXIT_ORPHANED, Reporter},
    runtime,
    source::{self, FrameSource, Open},
    watch::Watch,
};

/// The name of a process that has a job, for `ps` and `top`: a pre-warmed one still has that of its
/// executable.
const BUSY: &CStr = c"framehook-job";

/// The threads that load, and what they begin with.
const SPARE_MIB: u64 = 16;

/// Runs the job that comes in on standard input. It may be long in coming: what needs no job is loaded
/// meanwhile. `opencv` is the second decoder, if this executable has it.
///
/// # Errors
/// When standard input holds no job; nothing was reported then.
pub fn run(onnxruntime: Option<PathBuf>, opencv: Option<Open>) -> io::Result<()> {
    let reporter = Arc::new(Reporter::new(process::take_stdout()?));
    // An error is reported by the job, which loads the library as well.
    let preload = onnxruntime.map(|library| thread::spawn(move || runtime::preload(&library).ok()));
    let job: Job = read_record(&mut io::stdin().lock())?
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "standard input ended before a job came"))?;
    process::set_name(BUSY);
    if let Some(preload) = preload {
        // A thread that runs already would not be confined with this one; and the job needs what it loads.
        preload.join().ok();
    }
    let job = Arc::new(job);
    process::open_status();
    // While it still may go the way to it.
    let folder = job.later_plugins.as_ref().and_then(|folder| File::open(folder).ok());
    let confined = confine(&job);
    let stop = StopFlag::default();
    let lanes = Arc::new(Lanes::new(job.lanes, Arc::clone(&reporter)));
    // Before there may be no memory for a thread any more: whatever happens then, the runner can end this
    // process.
    let (orders, to_make) = mpsc::channel();
    listen(stop.clone(), Arc::clone(&lanes), orders);
    let watch = Watch::start(Arc::clone(&reporter));
    let limited = confined.and_then(|()| limit(&job));
    let ended = limited.and_then(|()| {
        if job.replay.is_empty() {
            let (parts, maker) = load(&job, opencv, &reporter, &watch)?;
            let log = maker.settings.log.clone();
            let maker = Maker { folder, ..maker };
            thread::spawn(move || maker.run(to_make));
            begin(&job, parts.source.info(), (&parts.pre, &parts.post), &reporter);
            let ended = pipeline::run(parts, &job, &reporter, &watch, &lanes, &stop);
            // What makes changes still holds it.
            log.finish();
            return Ok(ended);
        }
        let (parts, pre) = load_replay(&job, &reporter)?;
        begin(&job, &parts.recording.opening.video, (&pre, &parts.post), &reporter);
        Ok(pipeline::replay(parts, &job, &reporter, &watch, &lanes, &stop))
    });
    let (outcome, reason) = ended.unwrap_or_else(|reason| match reason.code {
        // That code is for what befell this process: another may have better luck.
        ReasonCode::WorkerCrash => (Outcome::Retry, reason),
        _ => (Outcome::Failed, reason),
    });
    reporter.send(&Report::Ended { outcome, reason });
    Ok(())
}

/// Tells that everything is loaded.
fn begin(job: &Job, video: &VideoManifest, (pre, post): (&Chain, &Chain), reporter: &Reporter) {
    reporter.send(&Report::Ready(ready(video)));
    // A hook may be failing from the start, without being hopeless.
    reporter.health(Stage::Pre, pre.degraded());
    reporter.health(Stage::Post, post.degraded());
    let revision = job.provenance.revision;
    reporter.hooks((Stage::Pre, revision), true, || pre.stats());
    reporter.hooks((Stage::Post, revision), true, || post.stats());
}

/// Measures the model of the job that comes in on standard input.
///
/// # Errors
/// With the reason, when there is no job, or its source or its model cannot be used.
pub fn measure(opencv: Option<Open>) -> Result<Measured, Reason> {
    let job: io::Result<Option<Job>> = read_record(&mut io::stdin().lock());
    let job = job.ok().flatten().ok_or_else(|| Reason::new(ReasonCode::WorkerCrash, "no job came"))?;
    confine(&job)?;
    measure::measure(&job, open_source(&job, opencv)?)
}

/// From here on this process opens what its job names and nothing else.
fn confine(job: &Job) -> Result<(), Reason> {
    let compiled = job.pre.iter().chain(&job.post).chain(&job.shadow).map(|hook| hook.compiled.clone());
    let provider = job.execution.provider;
    let further = job.models.values().map(|further| further.model.clone());
    if !job.replay.is_empty() {
        let files = job.replay.iter().map(|part| part.path.clone()).chain(compiled);
        return restrict_files(&Reach::reading(files)).map_err(unconfined);
    }
    let files = [job.source.clone(), job.model.clone()].into_iter().chain(further).chain(compiled);
    let files = files.chain(job.later_plugins.clone());
    let reach = Reach::reading(files.chain(runtime::files(provider, &job.onnxruntime)));
    restrict_files(&reach.with(runtime::devices(provider))).map_err(unconfined)
}

/// From here on it has no more memory than its job says.
fn limit(job: &Job) -> Result<(), Reason> {
    let Some(mib) = job.memory_mib else { return Ok(()) };
    // A process at its limit could not even report it.
    let needed = process::data_mib().unwrap_or_default() + SPARE_MIB;
    if u64::from(mib) < needed {
        let message = format!("a worker needs {needed} MiB here before it loads anything");
        return Err(Reason::new(ReasonCode::OutOfMemory, message));
    }
    lower_memory(u64::from(mib) << 20).map_err(unconfined)
}

fn unconfined(error: ConfineError) -> Reason {
    Reason::new(ReasonCode::WorkerCrash, error.to_string())
}

/// Obeys the runner from a thread of its own, which nothing can block.
fn listen(stop: StopFlag, lanes: Arc<Lanes>, changes: mpsc::Sender<Change>) {
    thread::spawn(move || {
        loop {
            match read_record(&mut io::stdin().lock()) {
                Ok(Some(Control::Stop)) => stop.raise(),
                Ok(Some(Control::Lanes { lanes: allowed })) => lanes.allow(allowed),
                // Where nothing runs any more, nothing changes.
                Ok(Some(Control::Change(change))) => drop(changes.send(change)),
                Ok(None) => process::exit_now(EXIT_ORPHANED),
                Err(error) => {
                    eprintln!("standard input holds something that is no control record: {error}");
                    process::exit_now(EXIT_ORPHANED);
                }
            }
        }
    });
}

/// Opens and loads everything; the model on a thread of its own, since it takes longest.
fn load(
    job: &Arc<Job>,
    opencv: Option<Open>,
    reporter: &Arc<Reporter>,
    watch: &Arc<Watch>,
) -> Result<(Parts, Maker), Reason> {
    thread::scope(|scope| {
        let models = scope.spawn(|| {
            let no_model = |error: ModelError| Reason::new(error.reason_code(), error.to_string());
            let model = Loader::new(job, watch).map_err(no_model)?;
            let of = |(name, error): (String, ModelError)| {
                Reason::new(error.reason_code(), format!("the model `{name}`: {error}"))
            };
            // A shadow that ran a session of the scenario's own hooks would hold those up.
            let of_shadow =
                if job.shadow.is_empty() { None } else { Further::load(job, watch, reporter).map_err(of)? };
            Ok((model, Further::load(job, watch, reporter).map_err(of)?, of_shadow))
        });
        let source = open_source(job, opencv);
        let panicked =
            |_| Reason::new(ReasonCode::ModelLoad, "loading the model panicked; the worker's log has the details");
        let models = models.join().map_err(panicked)?;
        let (source, ((loader, model), further, of_shadow)) = (source?, models?);
        let list = further.as_ref().map_or(&[][..], |further| further.list());
        let opening = job.record.then(|| Opening::new(job, source.info().clone(), model.labels(), list).written());
        // They are told what the source and the model say of themselves.
        let further = further.map(|further| further as Arc<dyn Models>);
        let told = Told { video: source.info(), model_labels: model.labels(), further };
        let settings = chain_settings(job, told, reporter);
        let engine = engine()?;
        let shadow = (!job.shadow.is_empty()).then(|| {
            let (engine, settings) = (engine.clone(), settings_of_shadow(job, &settings, of_shadow, reporter));
            // Beside the others, which do not wait for it one after the other.
            scope.spawn(move || Chain::start(&engine, Stage::Post, &job.shadow, &settings))
        });
        let start = |stage, hooks| Chain::start(&engine, stage, hooks, &settings);
        let (pre, post) = (start(Stage::Pre, &job.pre)?, start(Stage::Post, &job.post)?);
        let panicked = |_| Err(Reason::new(ReasonCode::WorkerCrash, "starting the shadow panicked"));
        let shadow = shadow.map(|shadow| shadow.join().unwrap_or_else(panicked));
        let (changes, reporter, folder) = (Arc::new(Changes::new(job)), Arc::clone(reporter), None);
        let maker = Maker { engine, settings, changes: Arc::clone(&changes), reporter, folder };
        // Everything is open; the threads of the pipeline start without.
        give_up_capabilities().map_err(unconfined)?;
        Ok((Parts { source, model, loader, pre, post, shadow, changes, opening }, maker))
    })
}

/// Opens recorded outputs, whose files stay to be opened one after the other, and loads the hooks. A replay
/// has no pre hooks; the chain is as empty as its order says.
fn load_replay(job: &Job, reporter: &Arc<Reporter>) -> Result<(ReplayParts, Chain), Reason> {
    let recording = Recording::open(&job.replay);
    let recording = recording.map_err(|error| Reason::new(ReasonCode::DecodeError, error.to_string()))?;
    let Opening { video, model_labels, .. } = &recording.opening;
    let further = recording.opening.models().map(|models| Arc::new(models) as Arc<dyn Models>);
    let told = Told { video, model_labels: model_labels.clone(), further };
    let (engine, settings) = (engine()?, chain_settings(job, told, reporter));
    let start = |stage, hooks| Chain::start(&engine, stage, hooks, &settings);
    let (pre, post) = (start(Stage::Pre, &job.pre)?, start(Stage::Post, &job.post)?);
    Ok((ReplayParts { recording, post }, pre))
}

fn engine() -> Result<Engine, Reason> {
    Engine::loader().map_err(|error| {
        Reason::new(ReasonCode::PluginIncompatible, format!("the plugin engine cannot start: {error}"))
    })
}

fn open_source(job: &Job, opencv: Option<Open>) -> Result<Box<dyn FrameSource>, Reason> {
    let open = match job.decoder {
        Decoder::Libav => source::open,
        Decoder::Opencv => opencv.ok_or_else(|| {
            Reason::new(ReasonCode::DecodeError, "this worker has no OpenCV decoder; framehook-worker-opencv has")
        })?,
    };
    open(&job.source, job.max_picture_side).map_err(|error| error.reason())
}

/// What hooks are told and given besides their job.
struct Told<'a> {
    video: &'a VideoManifest,
    model_labels: Vec<String>,
    further: Option<Arc<dyn Models>>,
}

fn chain_settings(
    job: &Job,
    Told { video, model_labels, further }: Told<'_>,
    reporter: &Arc<Reporter>,
) -> ChainSettings {
    let log = Arc::clone(reporter);
    ChainSettings {
        start: Start {
            stream_id: job.scenario_id.to_string(),
            after: job.resume_after,
            from_version: None,
            source: Source {
                is_live: false,
                size: Some(Size { width: video.width, height: video.height }),
                frames_per_second: (video.fps > 0.0).then_some(video.fps),
                frames: video.frames,
            },
            model_labels,
        },
        limits: job.limits,
        on_failure: job.on_plugin_failure,
        room: room_for_outputs(job.limits.prediction_bytes, job.pre.len() + job.post.len()),
        quota: StateQuota::of(job.pre.len() + job.post.len(), job.limits.state_bytes),
        metric_names: hook_metrics::names_of(job.pre.len() + job.post.len()),
        state: job.state.clone(),
        before: None,
        models: further,
        log: Log::new(Arc::new(move |line| log.send(&Report::Log(line))), job.limits.log),
    }
}

/// A shadow has limits, room and quotas of its own, and begins without state: nothing of what its hooks keep
/// is stored. It gives up a frame where the scenario would fail.
fn settings_of_shadow(
    job: &Job,
    of_scenario: &ChainSettings,
    further: Option<Arc<Further>>,
    reporter: &Arc<Reporter>,
) -> ChainSettings {
    let (hooks, log) = (job.shadow.len(), Arc::clone(reporter));
    let sink = move |line| log.send(&Report::Log(PluginLog { shadow: true, ..line }));
    ChainSettings {
        start: Start { after: None, ..of_scenario.start.clone() },
        on_failure: match job.on_plugin_failure {
            OnPluginFailure::FailScenario => OnPluginFailure::SkipFrame,
            policy => policy,
        },
        room: room_for_outputs(job.limits.prediction_bytes, hooks),
        quota: StateQuota::of(hooks, job.limits.state_bytes),
        metric_names: hook_metrics::names_of(hooks),
        state: HookState::default(),
        models: further.map(|further| further as Arc<dyn Models>),
        log: Log::new(Arc::new(sink), job.limits.log.of_shadow()),
        ..of_scenario.clone()
    }
}

fn ready(&VideoManifest { width, height, fps, frames }: &VideoManifest) -> Ready {
    Ready { width, height, declared_fps: fps, declared_frames: frames }
}
