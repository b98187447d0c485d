//! Keeps one deployment alive from its order to its end: fetches its recording, waits for a slot, prepares,
//! runs workers one after the other, and decides what each end means.
//!
//! Invariant: while a recording is fetched no slot is taken, so a slow server keeps nobody else waiting.

use std::{path::PathBuf, sync::Arc, time::Duration};

use framehook_core::{
    job::{Job, Outcome},
    memory::UNKNOWN_MIB,
    message::{DeployOrder, Fetching, WorkerPhase, WorkerStatus},
    prediction::Position,
    reason::{Reason, ReasonCode},
    spec::ResolvedSource,
};
use framehook_infra::{bus::SharedBus, telemetry};
use jiff::Timestamp;
use tempfile::TempPath;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, info_span};

use crate::{
    admission::Admission,
    config::RunnerConfig,
    ending,
    failure::Failure,
    fetch, metrics,
    prepare::JobBuilder,
    prewarmed::Prewarmed,
    process::Worker,
    publisher::Publisher,
    scenario_log::ScenarioLog,
    session::{End, Session},
    status::Board,
    tally::Tally,
};

/// What all supervisors of a runner share.
pub(crate) struct Shared {
    pub(crate) job_builder: JobBuilder,
    pub(crate) prewarmed: Prewarmed,
    pub(crate) bus: SharedBus,
    pub(crate) board: Arc<Board>,
    pub(crate) admission: Admission,
}

impl Shared {
    /// Memory that the worker of an order may have, in MiB.
    fn limit_mib(&self, order: &DeployOrder) -> u32 {
        let cap = self.job_builder.config.worker_memory_mib;
        order.scenario.memory_mib.unwrap_or(cap).min(cap)
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
}

/// What one try came to.
enum Tried {
    Ended(WorkerPhase, Reason),
    Failed(Failure),
}

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
    /// The step that is under way of those that lead to the first frame.
    step: Span,
    pub(crate) stop: watch::Receiver<Option<StopCause>>,
    pub(crate) publisher: Publisher,
    pub(crate) tally: Tally,
    pub(crate) log: ScenarioLog,
    /// The source, if it had to be fetched; removed with this.
    recording: Option<TempPath>,
    /// The last frame read from a worker.
    pub(crate) last_read: Option<Position>,
    /// Restarts in a row without a new frame.
    pub(crate) attempt: u32,
}

impl Deployment {
    pub(crate) fn new(
        shared: Arc<Shared>,
        order: DeployOrder,
        traceparent: Option<String>,
        stop: watch::Receiver<Option<StopCause>>,
    ) -> Self {
        let config = &shared.job_builder.config;
        let publisher = Publisher::new(shared.bus.clone(), traceparent.clone(), config.prediction_bytes_per_s);
        let log = ScenarioLog::new(config.hook_limits.log);
        let (last_read, tally, step) = (order.resume_after, Tally::default(), Span::none());
        Self { shared, order, traceparent, step, stop, publisher, tally, log, recording: None, last_read, attempt: 0 }
    }

    /// Runs it to its end. `predecessor` (cancelled once it ended) ends first, so that a scenario never has
    /// two workers here.
    pub(crate) async fn run(mut self, predecessor: CancellationToken) {
        let (phase, reason) = match self.fetch().await {
            Some(end) => end,
            None => self.work(&predecessor).await,
        };
        tracing::info!(?phase, reason = reason.message, frames = self.tally.progress().frames, "deployment ended");
        // The disk is free before anybody hears of it, as the slot is.
        self.recording = None;
        self.update(|status| {
            status.phase = phase;
            status.reason = Some(reason);
            status.retry_at = None;
            status.progress.fetching = None;
        });
        // Whoever waits for this one waits for those before it too.
        predecessor.cancelled().await;
    }

    /// Has the recording here, if the source is one. `None`: it is; else how the deployment ended.
    async fn fetch(&mut self) -> Option<(WorkerPhase, Reason)> {
        let ResolvedSource::Url(url) = &self.order.scenario.source else { return None };
        let (url, shared) = (url.clone(), self.shared.clone());
        let (scenario, generation) = (self.order.scenario_id, self.order.generation);
        let tell = |fetching| shared.board.update(scenario, generation, |s| s.progress.fetching = fetching);
        loop {
            tell(Some(Fetching::default()));
            let fetched = tokio::select! {
                cause = stop_asked(&mut self.stop) => return Some((WorkerPhase::Stopped, cause.reason())),
                fetched = fetch::fetch(&shared.job_builder.config, scenario, &url, |so_far| tell(Some(so_far))) => fetched,
            };
            let failure = match fetched {
                Ok(recording) => {
                    self.recording = Some(recording);
                    tell(None);
                    return None;
                }
                Err(failure) => failure,
            };
            if let Some(end) = self.recover(failure).await {
                return Some(end);
            }
        }
    }

    /// Waits for a place and runs workers there.
    async fn work(&mut self, predecessor: &CancellationToken) -> (WorkerPhase, Reason) {
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
            cause = stop_asked(&mut stop) => return (WorkerPhase::Stopped, cause.reason()),
            place = enter => place,
        };
        self.keep_alive().await
    }

    /// Starts workers until one ends for good, or a stop is asked for.
    async fn keep_alive(&mut self) -> (WorkerPhase, Reason) {
        loop {
            let failure = match self.try_once().await {
                Tried::Ended(phase, reason) => {
                    self.flush().await;
                    return (phase, reason);
                }
                Tried::Failed(failure) => failure,
            };
            if let Some(end) = self.recover(failure).await {
                return end;
            }
        }
    }

    /// Waits until it is time for another try; gives the end of the deployment if there is none.
    async fn recover(&mut self, failure: Failure) -> Option<(WorkerPhase, Reason)> {
        let (reason, counts) = match failure {
            Failure::Retry(reason) => (reason, true),
            Failure::Wait(reason) => (reason, false),
            Failure::Fatal(reason) => return Some((WorkerPhase::Failed, reason)),
        };
        tracing::warn!(attempt = self.attempt, reason = reason.message, "worker down");
        self.update(|status| {
            status.phase = WorkerPhase::Recovering;
            status.reason = Some(reason.clone());
        });
        // What was read is published before the next worker is told where to go on.
        self.flush().await;
        let schedule = &self.shared.job_builder.config.restarts;
        if !counts {
            // Often enough for what others give back at any time, and seldom enough for a log.
            let cause = self.wait(schedule.base).await?;
            return Some((WorkerPhase::Stopped, cause.reason()));
        }
        metrics::global().restarts.inc();
        self.attempt += 1;
        let worth = ending::restarts(reason.code, self.last_read.is_some(), schedule.max_attempts);
        if self.attempt > worth {
            return Some((WorkerPhase::Failed, given_up(reason, worth)));
        }
        let delay = schedule.delay(self.attempt, fastrand::f64());
        let cause = self.wait(delay).await?;
        Some((WorkerPhase::Stopped, cause.reason()))
    }

    /// Waits for the time of the next start; gives the cause of a stop that came first.
    async fn wait(&mut self, delay: Duration) -> Option<StopCause> {
        let retry_at = Timestamp::now().checked_add(delay).ok();
        let attempt = self.attempt;
        self.update(|status| {
            status.attempt = attempt;
            status.retry_at = retry_at;
        });
        tokio::select! {
            cause = stop_asked(&mut self.stop) => return Some(cause),
            () = sleep(delay) => {}
        }
        self.update(|status| status.retry_at = None);
        None
    }

    /// Prepares and runs one worker.
    async fn try_once(&mut self) -> Tried {
        let resume_after = self.tally.progress().published.or(self.order.resume_after);
        let shared = self.shared.clone();
        let prepare = step!(self, "prepare");
        let prepared = tokio::select! {
            cause = stop_asked(&mut self.stop) => return Tried::Ended(WorkerPhase::Stopped, cause.reason()),
            prepared = shared.job_builder.job(&self.order, resume_after, self.recording.as_deref()).instrument(prepare) => prepared,
        };
        let job = match prepared {
            Ok(job) => job,
            Err(Failure::Retry(reason)) => return Tried::Failed(Failure::Retry(self.presentable(reason, None))),
            Err(Failure::Fatal(reason)) => {
                return Tried::Ended(WorkerPhase::Failed, self.presentable(reason, None));
            }
            Err(wait) => return Tried::Failed(wait),
        };
        self.step = step!(self, "start worker");
        let memory_mib = shared.limit_mib(&self.order);
        let job = Job { memory_mib: Some(memory_mib), ..job };
        let worker = match shared.prewarmed.take().and_then(|process| Worker::new(process, &job, self.log.clone())) {
            Ok(worker) => worker,
            Err(error) => {
                let message = format!("the worker process could not be started: {error}");
                return Tried::Failed(Failure::of(&error, Reason::new(ReasonCode::WorkerCrash, message)));
            }
        };
        let end = Session::new(self, worker).run().await;
        self.step = Span::none();
        tracing::debug!(?end, "worker ended");
        let cap = shared.job_builder.config.worker_memory_mib;
        let tell = |reason| ending::with_limit(self.presentable(reason, Some(&job)), memory_mib, cap);
        self.classify_end(end.map(tell))
    }

    /// Without the paths of this machine that somebody may have put into it.
    fn presentable(&self, reason: Reason, job: Option<&Job>) -> Reason {
        let RunnerConfig { cache_dir, recordings_dir, .. } = &self.shared.job_builder.config;
        let of_job = job.into_iter().flat_map(|job| {
            let compiled = job.pre.iter().chain(&job.post).map(|hook| &hook.compiled);
            [&job.source, &job.model, &job.onnxruntime].into_iter().chain(compiled)
        });
        ending::presentable(reason, of_job.chain([cache_dir, recordings_dir]).map(PathBuf::as_path))
    }

    fn classify_end(&self, end: End) -> Tried {
        let stop = *self.stop.borrow();
        match (end, stop) {
            (End::Reported(Outcome::Finished, reason), _) => Tried::Ended(WorkerPhase::Finished, reason),
            (End::Reported(Outcome::Failed, reason), _) => Tried::Ended(WorkerPhase::Failed, reason),
            // However it went down: it shall not come back.
            (_, Some(cause)) => Tried::Ended(WorkerPhase::Stopped, cause.reason()),
            (End::Reported(Outcome::Retry, reason) | End::Lost(reason), None) => Tried::Failed(Failure::Retry(reason)),
            (End::Reported(Outcome::Stopped, reason), None) => {
                let message = format!("the worker stopped without being asked to: {}", reason.message);
                Tried::Failed(Failure::Retry(Reason::new(ReasonCode::WorkerCrash, message)))
            }
        }
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
        let progress = self.tally.progress();
        self.update(|status| status.progress = progress);
    }

    /// It ends when the bus has that frame.
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
