//! The life of one worker process: reads its reports, watches that they come, publishes its frames, stops it.
//!
//! Invariants: while the publisher is full nothing is read, and the watchdog does not count that time against
//! the worker; a worker that breaks the protocol is killed; when a session ends, its process is gone.

use std::io;

use framehook_core::{
    hook_state::HookState,
    hook_stats::HookStats,
    job::{Change, Control, Outcome, Report},
    message::{DeployOrder, WorkerPhase},
    prediction_record::PredictionRecord,
    reason::{Reason, ReasonCode},
    recorded::Sent,
    shadow::ShadowReport,
    text::short_line,
};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::{
    cores::Share,
    ending,
    failure::Failure,
    metrics,
    process::{Heard, Worker},
    recorder::Recorder,
    supervisor::{Deployment, stop_asked},
};

/// A killed process leaves at most a pipe full of reports; only a descendant that holds the pipe open makes
/// us wait.
const AFTER_KILL: Duration = Duration::from_secs(1);

/// Some sentences of a library about what it could not load.
const MAX_MESSAGE: usize = 2000;

pub(crate) struct Session<'a> {
    deployment: &'a mut Deployment,
    worker: Worker,
    share: Share,
    ready: bool,
    degraded: Option<Reason>,
    /// What hooks changed on the frame that comes next.
    state: HookState,
    stopping: bool,
    /// Another revision, while its plugins are made ready.
    preparing: Option<Preparing>,
    /// The revision that the worker began with.
    began_with: i64,
    /// The heartbeat has the first frame of the current one.
    has_first_frame: bool,
    /// Since when the worker owes a report.
    silent_since: Instant,
    /// When it is killed: set by a stop.
    kill_at: Option<Instant>,
    /// After it was killed: when we stop waiting for the end of its pipe.
    gone_at: Option<Instant>,
    /// What the worker said of its end, or why it was given up.
    end: Option<(Outcome, Reason)>,
}

struct Preparing {
    order: Box<DeployOrder>,
    task: AbortOnDropHandle<Result<Change, Failure>>,
}

/// What a session woke up for.
enum Woken {
    Heard(io::Result<Option<Heard>>),
    Acknowledged,
    /// There is room for outputs to be recorded.
    Room,
    Lanes(u32),
    Ordered,
    Prepared(Result<Change, Failure>),
    Stop,
    Silent,
    Overdue,
    Gone,
}

impl<'a> Session<'a> {
    pub(crate) fn new(deployment: &'a mut Deployment, worker: Worker, share: Share) -> Self {
        let began_with = deployment.order.revision;
        Self {
            began_with,
            has_first_frame: false,
            deployment,
            worker,
            share,
            ready: false,
            degraded: None,
            state: HookState::default(),
            stopping: false,
            preparing: None,
            silent_since: Instant::now(),
            kill_at: None,
            gone_at: None,
            end: None,
        }
    }

    /// Runs until the process is gone, and tells how it ended: one that died, fell silent or spoke nonsense
    /// is worth another try. Frames may still wait in the publisher.
    pub(crate) async fn run(mut self) -> (Outcome, Reason) {
        let killed_before = ending::oom_kills();
        while self.end.is_none() {
            match self.wake().await {
                Woken::Heard(Ok(Some(Heard::Report(report)))) => self.on_report(report),
                Woken::Heard(Ok(Some(Heard::Outputs(outputs)))) => self.on_outputs(&outputs),
                Woken::Heard(Err(e)) if e.kind() == io::ErrorKind::InvalidData => self.on_nonsense(&e.to_string()),
                Woken::Heard(Ok(None) | Err(_)) | Woken::Gone => break,
                Woken::Acknowledged | Woken::Room => {}
                Woken::Lanes(lanes) => self.worker.tell(Control::Lanes { lanes }),
                Woken::Ordered => self.prepare_change(),
                Woken::Prepared(change) => self.on_prepared(change),
                Woken::Stop => self.on_stop(),
                Woken::Silent => self.on_silence(),
                Woken::Overdue => self.kill(),
            }
        }
        let exit = self.worker.end().await;
        let crash = || (Outcome::Retry, ending::crash(&exit, ending::oom_kills() != killed_before));
        self.end.map_or_else(crash, |(outcome, reason)| (outcome, ending::said(reason, &exit)))
    }

    async fn wake(&mut self) -> Woken {
        let has_no_room = self.deployment.recorder.as_ref().is_some_and(Recorder::is_full);
        let is_full = self.deployment.publisher.is_full() || has_no_room;
        let has_work = self.deployment.publisher.has_work();
        let config = &self.deployment.shared.job_builder.config;
        let patience = if self.ready { config.frame_timeout } else { config.start_timeout };
        let silent_at = self.silent_since + patience;
        let mut stop = self.deployment.stop.clone();
        let room = self.deployment.recorder.as_ref().map(Recorder::waiter);
        let room = async {
            if let Some(room) = room {
                room.await;
            }
        };
        let mut orders = self.deployment.orders.clone();
        let is_open = self.ready && !self.stopping;
        let woken = tokio::select! {
            heard = self.worker.heard(), if !is_full => Woken::Heard(heard),
            () = self.deployment.acknowledge(), if has_work => Woken::Acknowledged,
            () = room, if has_no_room => Woken::Room,
            lanes = self.share.changed() => Woken::Lanes(lanes),
            Ok(()) = orders.changed(), if is_open => Woken::Ordered,
            change = prepared(&mut self.preparing) => Woken::Prepared(change),
            _ = stop_asked(&mut stop), if !self.stopping => Woken::Stop,
            () = sleep_until(silent_at), if !is_full && self.kill_at.is_none() && self.gone_at.is_none() => Woken::Silent,
            () = until(self.kill_at) => Woken::Overdue,
            () = until(self.gone_at), if !is_full => Woken::Gone,
        };
        if is_full || matches!(woken, Woken::Heard(_)) {
            self.silent_since = Instant::now();
        }
        woken
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Ready(ready) => {
                self.ready = true;
                self.deployment.tally.declare_frames(ready.declared_frames);
                self.deployment.expect_first_frame();
                self.deployment.show_revision(self.deployment.order.revision, None);
                self.show_health();
            }
            Report::Damaged { frames } => {
                self.deployment.tally.damage(frames);
                self.deployment.show_progress();
            }
            Report::LeftOut { frames } => {
                self.deployment.tally.leave_out(frames);
                self.deployment.show_progress();
            }
            Report::Lanes { lanes } => {
                self.deployment.tally.set_lanes(lanes);
                self.deployment.show_progress();
            }
            Report::Alive => {}
            Report::State(changes) => self.on_state(changes),
            Report::Frame(frame) => self.on_frame(frame),
            Report::Hooks { degraded } => {
                self.degraded = degraded.map(readable);
                self.show_health();
            }
            Report::HookStats(hooks) => self.on_hooks(hooks),
            Report::Changed { revision, from_frame } => self.deployment.on_changed(revision, from_frame),
            Report::Proven { revision } => self.deployment.on_proven(revision),
            Report::RolledBack { revision, reason } => {
                self.deployment.go_back(revision, readable(reason));
                self.has_first_frame = false;
            }
            Report::Log(line) => self.deployment.log.line(&line),
            Report::Shadow(report) => self.on_shadow(report),
            Report::Ended { outcome, reason } => self.end = Some((outcome, readable(reason))),
        }
    }

    /// Has the plugins of another revision made ready, if one was ordered. A later order takes the place of
    /// an earlier one.
    fn prepare_change(&mut self) {
        let Some(order) = self.deployment.other_revision() else { return };
        if self.preparing.as_ref().is_some_and(|under_way| under_way.order.revision == order.revision) {
            return;
        }
        let Some(folder) = &self.deployment.later_plugins else { return };
        let (shared, folder) = (self.deployment.shared.clone(), folder.path().to_owned());
        let (ordered, before) = (order.clone(), self.deployment.order.scenario.clone());
        let change = async move { shared.job_builder.change(&ordered, &before, &folder).await };
        let task = AbortOnDropHandle::new(tokio::spawn(change.in_current_span()));
        self.preparing = Some(Preparing { order, task });
    }

    fn on_prepared(&mut self, change: Result<Change, Failure>) {
        let Some(Preparing { order, .. }) = self.preparing.take() else { return };
        match change {
            Ok(change) => {
                self.deployment.take_on(&order);
                self.worker.tell(Control::Change(change));
            }
            Err(Failure::Fatal(reason)) => self.deployment.go_back(order.revision, reason),
            // The order is repeated as long as the heartbeat says that it was not followed.
            Err(Failure::Retry(reason) | Failure::Wait(reason)) => {
                tracing::warn!(revision = order.revision, why = reason.message, "a revision could not be prepared");
            }
        }
    }

    fn on_hooks(&mut self, told: Vec<HookStats>) {
        match self.deployment.hooks.hear(told) {
            Ok(new) => {
                metrics::global().plugins.count(new);
                let all = self.deployment.hooks.all();
                self.deployment.update(|status| status.hooks = all);
            }
            Err(what) => self.on_nonsense(&what),
        }
    }

    fn on_shadow(&mut self, report: ShadowReport) {
        match self.deployment.shadow.hear(report) {
            Ok((summary, differences)) => self.deployment.log.compared(summary, differences),
            Err(what) => self.on_nonsense(&what),
        }
    }

    fn on_state(&mut self, changes: HookState) {
        match changes.check() {
            Ok(()) => self.state = changes,
            Err(what) => self.on_nonsense(&what),
        }
    }

    fn on_outputs(&mut self, record: &[u8]) {
        let heard = match (&mut self.deployment.recorder, Sent::read(record)) {
            (Some(recorder), Some(sent)) => recorder.hear(sent),
            (None, Some(_)) => Err("outputs that nobody records".to_owned()),
            (_, None) => Err("outputs that are cut off".to_owned()),
        };
        if let Err(what) = heard {
            self.on_nonsense(&what);
        }
    }

    fn on_frame(&mut self, frame: PredictionRecord) {
        let changes = std::mem::take(&mut self.state);
        let most = self.deployment.shared.job_builder.config.hook_limits.prediction_bytes;
        if frame.json().len() > most {
            return self.on_nonsense(&format!("a prediction of more than {most} bytes"));
        }
        let deployment = &mut *self.deployment;
        let (scenario, generation) = (deployment.order.scenario_id, deployment.order.generation);
        if (frame.scenario_id, frame.generation) != (scenario, generation) {
            return self.on_nonsense("a frame of another scenario or generation");
        }
        let at = frame.position;
        // The last frame may come again, with what the hooks held back to the end.
        if let Some(last) = deployment.last_read.filter(|last| at < *last) {
            return self.on_nonsense(&format!("frame {} came after frame {}", at.frame, last.frame));
        }
        if let Err(what) = deployment.keep(&changes) {
            return self.on_nonsense(&what);
        }
        if let Err(error) = deployment.publisher.push(frame, changes, Instant::now()) {
            return self.on_nonsense(&error.to_string());
        }
        if !std::mem::replace(&mut self.has_first_frame, true) {
            deployment.note_first_frame(at.frame);
            // A worker that began with it has kept nothing to go back to.
            if deployment.order.revision == self.began_with {
                deployment.before = None;
            }
        }
        deployment.last_read = Some(at);
        if let Some(recorder) = &mut deployment.recorder {
            recorder.pass(at);
        }
        if deployment.attempt > 0 {
            deployment.attempt = 0;
            deployment.update(|status| status.attempt = 0);
        }
    }

    fn show_health(&self) {
        if !self.ready || self.stopping {
            return;
        }
        let phase = if self.degraded.is_some() { WorkerPhase::Degraded } else { WorkerPhase::Running };
        let frames_total = self.deployment.tally.progress().frames_total;
        self.deployment.update(|status| {
            status.phase = phase;
            status.reason.clone_from(&self.degraded);
            status.progress.frames_total = frames_total;
        });
    }

    fn on_stop(&mut self) {
        self.stopping = true;
        self.worker.tell(Control::Stop);
        self.kill_at = Some(Instant::now() + self.deployment.shared.job_builder.config.drain_deadline);
        self.deployment.update(|status| {
            status.phase = WorkerPhase::Stopping;
            status.reason = None;
            status.retry_at = None;
        });
    }

    fn on_silence(&mut self) {
        let seconds = self.silent_since.elapsed().as_secs_f64();
        let what = if self.ready { "no frame came" } else { "the worker was not ready" };
        let message = format!("{what} for {seconds:.1} s");
        self.lose(Reason::new(ReasonCode::SourceStalled, message));
    }

    fn on_nonsense(&mut self, what: &str) {
        let message = format!("the worker sent what no worker may send: {what}");
        self.lose(Reason::new(ReasonCode::WorkerCrash, message));
    }

    /// Gives the worker up: nothing it has to say counts any more.
    fn lose(&mut self, reason: Reason) {
        self.worker.kill();
        self.end = Some((Outcome::Retry, reason));
    }

    /// Ends a worker that did not stop in time; the frames it had reported still count.
    fn kill(&mut self) {
        self.worker.kill();
        self.kill_at = None;
        self.gone_at = Some(Instant::now() + AFTER_KILL);
    }
}

/// A worker's reason, as it may stand in a heartbeat, in the history and in a log.
fn readable(reason: Reason) -> Reason {
    Reason { message: short_line(&reason.message, MAX_MESSAGE), ..reason }
}

/// Waits for plugins that are being made ready; for ever if none are.
async fn prepared(preparing: &mut Option<Preparing>) -> Result<Change, Failure> {
    match preparing {
        Some(preparing) => (&mut preparing.task).await.unwrap_or_else(|error| {
            let message = format!("a change was not prepared: {error}");
            Err(Failure::Retry(Reason::new(ReasonCode::WorkerCrash, message)))
        }),
        None => std::future::pending().await,
    }
}

/// Waits for this time; for ever if there is none.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
