//! Keeps one deployment alive from its order to its end: fetches its recording, waits for a slot, prepares,
//! runs workers one after the other, and decides what each end means.
//!
//! Invariant: while a recording is fetched no slot is taken, so a slow server keeps nobody else waiting.

use std::{path::PathBuf, sync::Arc, time::Duration};

use framehook_core::{
    execution::Provider,
    hook_state::HookState,
    job::{Job, LogLevel, Outcome},
    memory::UNKNOWN_MIB,
    message::{DeployOrder, Fetching, WorkerPhase, WorkerStatus},
    prediction::Position,
    reason::{Reason, ReasonCode},
    recorded::Record,
    revision::RolledBack,
    spec::{Lanes, ResolvedSource},
};
use framehook_infra::{bus::SharedBus, telemetry};
use jiff::Timestamp;
use tempfile::{TempDir, TempPath};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span};

use crate::{
    admission::Admission,
    change::{self, Before},
    cores::Cores,
    ending,
    failure::Failure,
    fetch,
    hooks::Hooks,
    metrics,
    prepare::{JobBuilder, no_folder},
    prewarmed::Prewarmed,
    process::{Kind, Worker, extra_mib},
    publisher::Publisher,
    recorder::{Destination, Recorder},
    scenario_log::{LogPublisher, ScenarioLog},
    session::Session,
    shadow::Shadow,
    status::Board,
    tally::Tally,
};

/// With `lanes: auto`, whatever the cores: one fills the card while the other copies. Seven were slower than
/// one (842 frames/s, 1,280 and 1,071 with one and two, on an H200).
const GPU_LANES: u32 = 2;

/// What all supervisors of a runner share.
pub(crate) struct Shared {
    pub(crate) job_builder: JobBuilder,
    pub(crate) prewarmed: Prewarmed,
    pub(crate) bus: SharedBus,
    pub(crate) board: Arc<Board>,
    pub(crate) admission: Admission,
    pub(crate) cores: Cores,
}

impl Shared {
    /// Memory that the worker of an order may have, in MiB.
    fn limit_mib(&self, order: &DeployOrder, provider: Provider) -> u32 {
        let cap = self.job_builder.config.worker_memory_mib;
        order.scenario.memory_mib.unwrap_or(cap).min(cap) + extra_mib(provider)
    }

    /// Memory that it counts as.
    fn place_mib(&self, order: &DeployOrder) -> u32 {
        order.scenario.memory_mib.unwrap_or(UNKNOWN_MIB).min(self.job_builder.config.worker_memory_mib)
    }

    /// Why an order is not started at once, if it has to wait.
    pub(crate) fn waiting_reason(&self, order: &DeployOrder) -> Option<Reason> {
        let message = "waits for one of the runner's workers to end";
        self.admission.is_full(self.place_mib(order)).then(|| Reason::new(ReasonCode::NoCapacity, message))
    }
}

/// Why a deployment shall stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopCause {
    User,
    /// A newer generation takes its place.
    Superseded,
    /// The runner goes down.
    Draining,
}

impl StopCause {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::User => Reason::new(ReasonCode::StoppedByUser, "stopped by a user"),
            Self::Superseded => Reason::new(ReasonCode::StoppedByUser, "replaced by a newer deployment"),
            Self::Draining => {
                Reason::new(ReasonCode::LeaseLost, "the runner is shutting down; it goes on with another")
            }
        }
    }

    fn end(self) -> Ended {
        (WorkerPhase::Stopped, self.reason())
    }
}

/// How a deployment ended.
type Ended = (WorkerPhase, Reason);

/// One of the steps that lead to a first frame, as part of the scenario's trace.
macro_rules! step {
    ($deployment:ident, $name:literal) => {{
        let DeployOrder { scenario_id, generation, .. } = &$deployment.order;
        let span = info_span!($name, %scenario_id, generation);
        telemetry::follow(&span, $deployment.traceparent.as_deref());
        span
    }};
}

/// One deployment: a generation of a scenario.
pub(crate) struct Deployment {
    pub(crate) shared: Arc<Shared>,
    pub(crate) order: DeployOrder,
    traceparent: Option<String>,
    /// The current step of those that lead to the first frame.
    step: Span,
    pub(crate) stop: watch::Receiver<Option<StopCause>>,
    /// The newest order about this deployment.
    pub(crate) orders: watch::Receiver<Option<Box<DeployOrder>>>,
    /// What the revision of its order took the place of.
    pub(crate) before: Option<Before>,
    /// The newest revision that failed.
    pub(crate) rolled_back: Option<RolledBack>,
    /// Where its worker finds the plugins of later changes.
    pub(crate) later_plugins: Option<TempDir>,
    pub(crate) publisher: Publisher,
    pub(crate) tally: Tally,
    /// What became of the calls of its hooks.
    pub(crate) hooks: Hooks,
    /// What its shadow found.
    pub(crate) shadow: Shadow,
    pub(crate) log: ScenarioLog,
    log_publisher: LogPublisher,
    /// Where the outputs of its model go, if they are recorded.
    pub(crate) recorder: Option<Recorder>,
    /// The source, if it had to be fetched; removed with this.
    recording: Option<TempPath>,
    /// The last frame read from a worker.
    pub(crate) last_read: Option<Position>,
    /// What the hooks keep, as of that frame.
    pub(crate) state: HookState,
    /// Restarts in a row without a new frame.
    pub(crate) attempt: u32,
    /// Memory did not reach for more lanes.
    one_lane: bool,
}

impl Deployment {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mut order: DeployOrder,
        traceparent: Option<String>,
        stop: watch::Receiver<Option<StopCause>>,
        orders: watch::Receiver<Option<Box<DeployOrder>>>,
    ) -> Self {
        let config = &shared.job_builder.config;
        let publisher = Publisher::new(shared.bus.clone(), traceparent.clone(), config.prediction_bytes_per_s);
        let log = ScenarioLog::new(config.hook_limits.log);
        let log_publisher = LogPublisher::new(log.clone(), shared.bus.clone(), order.scenario_id, order.generation);
        let (last_read, tally, step) = (order.resume_after, Tally::default(), Span::none());
        let (hooks, shadow) = (Hooks::new(&order.scenario), Shadow::new(&order));
        let recorder = (order.scenario.record == Record::Outputs && order.scenario.replay.is_none()).then(|| {
            let (blobs, bus, log) = (shared.job_builder.blobs.clone(), shared.bus.clone(), log.clone());
            let (scenario_id, keep_bytes) = (order.scenario_id, config.max_outputs_bytes);
            let destination = Destination { scenario_id, blobs, bus, log, keep_bytes };
            Recorder::new(order.generation, order.resume_after, destination)
        });
        let (recording, state, attempt, one_lane) = (None, std::mem::take(&mut order.state), 0, false);
        Self {
            shared,
            order,
            traceparent,
            step,
            stop,
            orders,
            before: None,
            rolled_back: None,
            later_plugins: None,
            publisher,
            tally,
            hooks,
            shadow,
            log,
            log_publisher,
            recorder,
            recording,
            last_read,
            state,
            attempt,
            one_lane,
        }
    }

    /// Runs it to its end. `predecessor` (cancelled once it ended) ends first, so that a scenario never has
    /// two workers here.
    pub(crate) async fn run(mut self, predecessor: CancellationToken) {
        let (Ok((phase, reason)) | Err((phase, reason))) = match self.fetch().await {
            Ok(()) => self.work(&predecessor).await,
            Err(ended) => Err(ended),
        };
        self.hooks.log();
        tracing::info!(?phase, reason = reason.message, predictions = self.tally.progress().frames, "deployment ended");
        if phase == WorkerPhase::Failed {
            self.log.tell(LogLevel::Error, "worker", &reason.message);
        }
        if let Some(recorder) = self.recorder.take() {
            recorder.close().await;
        }
        // Who follows the log until the end has all of it by then.
        self.log_publisher.close().await;
        // The recording's space is free, as the slot is, before anybody hears of the end.
        (self.recording, self.later_plugins) = (None, None);
        self.update(|status| {
            status.phase = phase;
            status.reason = Some(reason);
            status.retry_at = None;
            status.progress.fetching = None;
        });
        // Whoever waits for this one waits for those before it too.
        predecessor.cancelled().await;
    }

    /// Has the recording here, if the source is one.
    async fn fetch(&mut self) -> Result<(), Ended> {
        let ResolvedSource::Url(url) = &self.order.scenario.source else { return Ok(()) };
        if self.order.scenario.replay_of_outputs().is_some() {
            return Ok(());
        }
        let (url, shared) = (url.clone(), self.shared.clone());
        let (scenario, generation) = (self.order.scenario_id, self.order.generation);
        let tell = |fetching| shared.board.update(scenario, generation, |s| s.progress.fetching = fetching);
        loop {
            tell(Some(Fetching::default()));
            let fetched = tokio::select! {
                cause = stop_asked(&mut self.stop) => return Err(cause.end()),
                fetched = fetch::fetch(&shared.job_builder.config, scenario, &url, |so_far| tell(Some(so_far))) => fetched,
            };
            match fetched {
                Ok(recording) => {
                    self.recording = Some(recording);
                    tell(None);
                    return Ok(());
                }
                Err(failure) => self.recover(failure).await?,
            }
        }
    }

    /// Waits for a place and starts workers there, until one ends for good or a stop is asked for.
    async fn work(&mut self, predecessor: &CancellationToken) -> Result<Ended, Ended> {
        let shared = self.shared.clone();
        if self.recording.is_some() {
            let reason = shared.waiting_reason(&self.order);
            self.update(|status| status.reason = reason);
        }
        let enter = async {
            predecessor.cancelled().await;
            shared.admission.enter(shared.place_mib(&self.order)).await
        };
        let mut stop = self.stop.clone();
        let _place = tokio::select! {
            cause = stop_asked(&mut stop) => return Err(cause.end()),
            place = enter => place,
        };
        loop {
            match self.try_once().await {
                Ok((WorkerPhase::Failed, reason)) if self.blames_revision(true, &reason) => self.flush().await,
                Ok((phase, reason)) => {
                    self.flush().await;
                    // Every frame is counted now.
                    let failed = self.tally.failed_hooks().filter(|_| phase == WorkerPhase::Finished);
                    return Ok((phase, ending::with_hooks(reason, failed)));
                }
                // Its revision is given up, and the one before gets its turn.
                Err(Failure::Fatal(reason)) if self.blames_revision(true, &reason) => {}
                Err(failure) => {
                    if let Failure::Retry(reason) = &failure {
                        self.blames_revision(false, reason);
                    }
                    self.recover(failure).await?;
                }
            }
        }
    }

    /// Waits until it is time for another try.
    ///
    /// # Errors
    /// With the end of the deployment if there is none.
    async fn recover(&mut self, failure: Failure) -> Result<(), Ended> {
        let (reason, counts) = match failure {
            Failure::Retry(reason) => (reason, true),
            Failure::Wait(reason) => (reason, false),
            Failure::Fatal(reason) => return Err((WorkerPhase::Failed, reason)),
        };
        tracing::warn!(attempt = self.attempt, reason = reason.message, "worker down");
        self.log.tell(LogLevel::Warn, "worker", &reason.message);
        let schedule = self.shared.job_builder.config.restarts;
        let worth = ending::restarts(reason.code, self.last_read.is_some(), schedule.max_attempts);
        let is_given_up = counts && self.attempt >= worth;
        // One that is given up is never seen to recover.
        if !is_given_up {
            self.update(|status| {
                status.phase = WorkerPhase::Recovering;
                status.reason = Some(reason.clone());
            });
        }
        // What was read is published before the next worker is told where to go on.
        self.flush().await;
        if !counts {
            // Often enough for what others give back at any time, and seldom enough for a log.
            return self.wait(schedule.base).await;
        }
        metrics::global().restarts.inc();
        self.attempt += 1;
        if is_given_up {
            return Err((WorkerPhase::Failed, given_up(reason, worth)));
        }
        self.wait(schedule.delay(self.attempt, fastrand::f64())).await
    }

    /// Waits for the time of the next start, unless a stop comes first.
    async fn wait(&mut self, delay: Duration) -> Result<(), Ended> {
        let retry_at = Timestamp::now().checked_add(delay).ok();
        let attempt = self.attempt;
        self.update(|status| {
            status.attempt = attempt;
            status.retry_at = retry_at;
        });
        tokio::select! {
            cause = stop_asked(&mut self.stop) => return Err(cause.end()),
            () = sleep(delay) => {}
        }
        self.update(|status| status.retry_at = None);
        Ok(())
    }

    /// Prepares and runs one worker.
    async fn try_once(&mut self) -> Result<Ended, Failure> {
        if let Some(order) = self.other_revision() {
            self.take_on_at_rest(&order);
        }
        let resume_after = self.tally.progress().published.or(self.order.resume_after);
        let shared = self.shared.clone();
        let prepare = step!(self, "prepare");
        let prepared = tokio::select! {
            cause = stop_asked(&mut self.stop) => return Ok(cause.end()),
            prepared = shared.job_builder.job(&self.order, resume_after, self.recording.as_deref()).instrument(prepare) => prepared,
        };
        let (job, chosen) = prepared.map_err(|failure| failure.map(|reason| self.presentable(reason, None)))?;
        self.step = step!(self, "start worker");
        let memory_mib = shared.limit_mib(&self.order, job.execution.provider);
        let share = shared.cores.enter(self.lanes(job.execution.provider));
        if self.later_plugins.is_none() {
            let folder = change::folder(&shared.job_builder.config.recordings_dir);
            self.later_plugins = Some(folder.map_err(|error| no_folder(&error))?);
        }
        let job = Job {
            memory_mib: Some(memory_mib),
            lanes: share.lanes(),
            state: self.state.clone(),
            later_plugins: self.later_plugins.as_ref().map(|folder| folder.path().to_owned()),
            ..job
        };
        let worker =
            shared.prewarmed.take(Kind::of(&job)).and_then(|process| Worker::new(process, &job, self.log.clone()));
        self.tally.begin(job.decoder, chosen);
        self.hooks.begin();
        self.shadow.begin(&self.order);
        // A worker that dies goes on with what ran the frames before.
        self.order.execution = Some(job.execution);
        let worker = worker.map_err(|error| {
            let message = format!("the worker process could not be started: {error}");
            Failure::of(&error, Reason::new(ReasonCode::WorkerCrash, message))
        })?;
        let (outcome, reason) = Session::new(self, worker, share).run().await;
        self.step = Span::none();
        tracing::debug!(?outcome, ?reason, "worker ended");
        let reason = self.presentable(reason, Some(&job));
        let cap = shared.job_builder.config.worker_memory_mib;
        self.classify_end(outcome, ending::with_limit(reason, memory_mib, cap))
    }

    fn lanes(&self, provider: Provider) -> Lanes {
        match self.order.scenario.lanes.unwrap_or(self.shared.job_builder.config.lanes) {
            _ if self.one_lane => Lanes::Fixed(1),
            Lanes::Auto if provider.has_gpu() => Lanes::Fixed(GPU_LANES),
            lanes => lanes,
        }
    }

    /// Without the paths of this machine that somebody may have put into it.
    fn presentable(&self, reason: Reason, job: Option<&Job>) -> Reason {
        let JobBuilder { config, compiled, .. } = &self.shared.job_builder;
        let of_job = job.into_iter().flat_map(|job| {
            let compiled = job.pre.iter().chain(&job.post).chain(&job.shadow).map(|hook| &hook.compiled);
            let parts = job.replay.iter().map(|part| &part.path);
            [&job.source, &job.model, &job.onnxruntime].into_iter().chain(compiled).chain(parts)
        });
        let folders = [compiled.folder(), &config.recordings_dir];
        ending::presentable(reason, of_job.map(PathBuf::as_path).chain(folders))
    }

    fn classify_end(&mut self, outcome: Outcome, reason: Reason) -> Result<Ended, Failure> {
        match (outcome, *self.stop.borrow()) {
            (Outcome::Finished, _) => Ok((WorkerPhase::Finished, reason)),
            // What one lane had done without is not the scenario's fault.
            (_, None) if reason.code == ReasonCode::OutOfMemory && self.tally.progress().lanes > Some(1) => {
                self.one_lane = true;
                Err(Failure::Wait(reason))
            }
            (Outcome::Failed, _) => Ok((WorkerPhase::Failed, reason)),
            // A stop was asked for, so it is not started again.
            (_, Some(cause)) => Ok(cause.end()),
            (Outcome::Retry, None) => Err(Failure::Retry(reason)),
            (Outcome::Stopped, None) => {
                let message = format!("the worker stopped without being asked to: {}", reason.message);
                Err(Failure::Retry(Reason::new(ReasonCode::WorkerCrash, message)))
            }
        }
    }

    /// Notes what hooks changed, for the next worker.
    ///
    /// # Errors
    /// When they keep more than they may: their worker does not hold itself to its limits.
    pub(crate) fn keep(&mut self, changes: &HookState) -> Result<(), String> {
        if changes.is_empty() {
            return Ok(());
        }
        self.state.apply(changes.clone());
        self.state.check()
    }

    /// Waits until everything read is published.
    async fn flush(&mut self) {
        while self.publisher.has_work() {
            self.acknowledge().await;
        }
    }

    /// Waits for one batch and counts it. Cancel-safe.
    pub(crate) async fn acknowledge(&mut self) {
        for sample in self.publisher.acknowledged().await {
            self.tally.add(&sample);
            metrics::global().frames.inc();
            self.step = Span::none();
        }
        self.show_progress();
    }

    pub(crate) fn show_progress(&self) {
        let progress = self.tally.progress();
        self.update(|status| status.progress = progress);
    }

    /// This step ends when the bus has that frame.
    pub(crate) fn expect_first_frame(&mut self) {
        self.step = step!(self, "publish first frame");
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut WorkerStatus)) {
        self.shared.board.update(self.order.scenario_id, self.order.generation, change);
    }
}

fn given_up(reason: Reason, restarts: u32) -> Reason {
    let Reason { code, message } = reason;
    let message = match restarts {
        0 => format!("{message}; it had given no frame, so it is not started again"),
        _ => format!("{message}; gave up after {restarts} restarts without a new frame"),
    };
    Reason::new(code, message)
}

/// Waits for a stop; for ever if nobody can ask any more, because then the runner drops this task.
pub(crate) async fn stop_asked(stop: &mut watch::Receiver<Option<StopCause>>) -> StopCause {
    match stop.wait_for(Option::is_some).await.map(|cause| *cause) {
        Ok(Some(cause)) => cause,
        _ => std::future::pending().await,
    }
}
