//! The runner itself: takes orders, starts and stops deployments, and goes down without leaving anything
//! behind.

use std::{collections::HashMap, sync::Arc, time::Duration};

use framehook_compiled::CompiledPlugins;
use framehook_core::{
    fences::{Fences, Verdict},
    ids::{Generation, Incarnation, ScenarioId},
    message::{DeployOrder, Envelope, Message, NotedWorkers, StopOrder, WorkerPhase},
    reason::{Reason, ReasonCode},
    topic::Topic,
};
use framehook_infra::{
    blobs::Blobs,
    bus::{Delivered, SharedBus, Tail},
    telemetry,
};
use tokio::{
    sync::watch,
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Instrument as _, field::Empty};

use crate::{
    admission::{Admission, memory_of_machine},
    config::{RunnerConfig, RunnerError},
    cores::Cores,
    heartbeat, metrics,
    prepare::JobBuilder,
    prewarmed::Prewarmed,
    providers::Providers,
    session::until,
    status::{Board, Roster},
    supervisor::{Deployment, Shared, StopCause},
};

/// Orders taken at a time.
const ORDERS: usize = 64;

/// After the bus refused to be read.
const BUS_RETRY: Duration = Duration::from_millis(500);

/// Past the drain deadline of the workers: time for a killed one to go, and for its last frames to be
/// published.
const DRAIN_MARGIN: Duration = Duration::from_secs(4);

/// Runs a runner until `cancel`: then it stops its workers within the drain deadline, publishes what they
/// reported, and says so in a last heartbeat. Dropping the future kills the workers at once.
///
/// # Errors
/// When the configuration can never work. What goes wrong later is retried, or becomes the status of one
/// worker.
pub async fn run(
    config: RunnerConfig,
    compiled: CompiledPlugins,
    bus: SharedBus,
    blobs: Blobs,
    cancel: CancellationToken,
) -> Result<LastWord, RunnerError> {
    config.check()?;
    let config = Arc::new(config);
    let providers = Providers::find(config.clone(), compiled.engine()).await?;
    let incarnation = Incarnation::generate();
    let Some(orders) = open_orders(&bus, &cancel).await else { return Ok(LastWord::Heard) };
    tracing::info!(runner = %config.runner_id, %incarnation, max_workers = config.max_workers, "runner started");

    let memory_mib = config.memory_mib.or_else(memory_of_machine);
    let board = Arc::new(Board::new(Roster::new(&config, incarnation, memory_mib, providers.found().to_vec())));
    metrics::global().slots.set(config.max_workers.into());
    // The first beat announces us: from now on orders may come, and they are being listened to.
    let beats = tokio::spawn(heartbeat::beat(board.clone(), bus.clone(), config.heartbeat));
    let beats = AbortOnDropHandle::new(beats);
    let drain_deadline = config.drain_deadline;
    let shared = Arc::new(Shared {
        admission: Admission::new(config.max_workers, memory_mib),
        cores: Cores::new(config.cores, config.intra_threads),
        prewarmed: Prewarmed::new(config.clone()),
        job_builder: JobBuilder { config, blobs, compiled, providers },
        bus: bus.clone(),
        board: board.clone(),
    });
    let runner = Runner {
        shared: shared.clone(),
        incarnation,
        fences: Fences::default(),
        running: HashMap::new(),
        tasks: JoinSet::new(),
        names: HashMap::new(),
        draining: false,
    };
    tokio::select! {
        () = runner.serve(orders, &cancel) => {}
        () = shared.prewarmed.keep() => {}
    }

    beats.abort();
    match timeout(drain_deadline, heartbeat::publish(&board, &bus)).await {
        Ok(Ok(())) => {
            tracing::info!("runner stopped");
            Ok(LastWord::Heard)
        }
        _ => {
            tracing::warn!("runner stopped; its last heartbeat could not be published, its lease will expire");
            Ok(LastWord::Lost)
        }
    }
}

/// Whether others know that a runner has ended, and may go on with its scenarios at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWord {
    Heard,
    /// They find out when its lease ends.
    Lost,
}

/// Listens for orders; `None` when cancelled first.
async fn open_orders(bus: &SharedBus, cancel: &CancellationToken) -> Option<Box<dyn Tail>> {
    let open = async {
        loop {
            match bus.tail(Topic::ToDeploy).await {
                Ok(tail) => return tail,
                Err(error) => tracing::warn!(%error, "orders cannot be read; trying on"),
            }
            sleep(BUS_RETRY).await;
        }
    };
    cancel.run_until_cancelled(open).await
}

struct Runner {
    shared: Arc<Shared>,
    incarnation: Incarnation,
    fences: Fences,
    /// The newest deployment of each scenario, for as long as its task runs.
    running: HashMap<ScenarioId, Running>,
    tasks: JoinSet<()>,
    names: HashMap<task::Id, (ScenarioId, Generation)>,
    draining: bool,
}

struct Running {
    generation: Generation,
    stop: watch::Sender<Option<StopCause>>,
    orders: watch::Sender<Option<Box<DeployOrder>>>,
    /// Cancelled when its task ended, however it did.
    done: CancellationToken,
}

impl Running {
    fn stop(&self, cause: StopCause) {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert(cause);
            is_first
        });
    }
}

impl Runner {
    async fn serve(mut self, mut orders: Box<dyn Tail>, cancel: &CancellationToken) {
        let mut listen_at = Instant::now();
        let mut give_up_at = None;
        while !(self.draining && self.tasks.is_empty()) {
            let next = async {
                sleep_until(listen_at).await;
                orders.next(ORDERS).await
            };
            tokio::select! {
                delivered = next => match delivered {
                    Ok(delivered) => delivered.iter().for_each(|d| self.take(d)),
                    Err(error) => {
                        tracing::warn!(%error, "orders cannot be read; trying on");
                        listen_at = Instant::now() + BUS_RETRY;
                    }
                },
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.on_end(ended),
                () = cancel.cancelled(), if !self.draining => give_up_at = Some(self.drain()),
                () = until(give_up_at) => break,
            }
        }
        // Whatever is left is killed with its task.
        self.tasks.shutdown().await;
    }

    /// Takes no more work and asks every worker to stop. Gives the time to wait no longer.
    fn drain(&mut self) -> Instant {
        tracing::info!(workers = self.running.len(), "runner drains");
        self.draining = true;
        self.shared.board.drain();
        self.running.values().for_each(|running| running.stop(StopCause::Draining));
        Instant::now() + self.shared.job_builder.config.drain_deadline + DRAIN_MARGIN
    }

    fn take(&mut self, delivered: &Delivered) {
        let Envelope { message, traceparent, .. } = match Envelope::parse(&delivered.payload) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::warn!(partition = delivered.partition, offset = delivered.offset, error, "order ignored");
                return;
            }
        };
        match message {
            Message::Deploy(order) if order.incarnation == self.incarnation => self.deploy(*order, traceparent),
            Message::Stop(order) if order.incarnation == self.incarnation => self.stop(&order),
            Message::Noted(noted) if noted.incarnation == self.incarnation => self.forget(&noted),
            // For another runner, or for an earlier life of this one.
            _ => {}
        }
    }

    fn deploy(&mut self, order: DeployOrder, traceparent: Option<String>) {
        let (scenario, generation) = (order.scenario_id, order.generation);
        let verdict = self.fences.deploy(scenario, generation);
        tracing::debug!(scenario_id = %scenario, generation, ?verdict, "deploy order");
        match verdict {
            Verdict::Start if self.draining => self.report_stopped(scenario, generation, StopCause::Draining),
            Verdict::Start => self.start(order, traceparent),
            Verdict::Repeated => {
                self.remind(scenario, generation);
                // It may be of another revision.
                if let Some(running) = self.running.get(&scenario).filter(|r| r.generation == generation) {
                    running.orders.send_replace(Some(Box::new(order)));
                }
            }
            _ => {}
        }
    }

    fn stop(&mut self, order: &StopOrder) {
        let (scenario, generation) = (order.scenario_id, order.generation);
        let verdict = self.fences.stop(scenario, generation);
        tracing::debug!(scenario_id = %scenario, generation, ?verdict, "stop order");
        match verdict {
            Verdict::Stop => {
                if let Some(running) = self.running.get(&scenario).filter(|r| r.generation == generation) {
                    running.stop(StopCause::User);
                }
                self.remind(scenario, generation);
            }
            Verdict::StopUnknown => {
                if let Some(older) = self.running.get(&scenario) {
                    older.stop(StopCause::Superseded);
                }
                self.report_stopped(scenario, generation, StopCause::User);
            }
            _ => {}
        }
    }

    fn forget(&self, noted: &NotedWorkers) {
        tracing::debug!(workers = noted.workers.len(), "ends noted");
        self.shared.board.forget(&noted.workers);
    }

    /// The heartbeat answers a repeated order; where it has forgotten the answer, it must not stay silent for
    /// ever.
    fn remind(&self, scenario: ScenarioId, generation: Generation) {
        if !self.shared.board.knows(scenario, generation) {
            self.report_stopped(scenario, generation, StopCause::User);
        }
    }

    fn report_stopped(&self, scenario: ScenarioId, generation: Generation, cause: StopCause) {
        self.shared.board.insert(scenario, generation, WorkerPhase::Stopped, Some(cause.reason()));
    }

    fn start(&mut self, order: DeployOrder, traceparent: Option<String>) {
        let (scenario, generation) = (order.scenario_id, order.generation);
        let done = CancellationToken::new();
        let (stop, stopped) = watch::channel(None);
        let (orders, later_orders) = watch::channel(None);
        let predecessor = self.running.insert(scenario, Running { generation, stop, orders, done: done.clone() });
        let predecessor = predecessor.map(|older| {
            older.stop(StopCause::Superseded);
            older.done
        });
        let predecessor = predecessor.unwrap_or_else(|| {
            let nobody = CancellationToken::new();
            nobody.cancel();
            nobody
        });
        let reason = self.shared.waiting_reason(&order);
        self.shared.board.insert(scenario, generation, WorkerPhase::Starting, reason);
        // Not a step of the trace, because it ends when the stream does: it says of every line below it what
        // it is about.
        let span = tracing::debug_span!("deployment", scenario_id = %scenario, generation, trace_id = Empty);
        telemetry::follow(&span, traceparent.as_deref());
        let deployment = Deployment::new(self.shared.clone(), order, traceparent, stopped, later_orders);
        let run = async move {
            let _done = done.drop_guard();
            deployment.run(predecessor).await;
        };
        let task = self.tasks.spawn(run.instrument(span));
        self.names.insert(task.id(), (scenario, generation));
    }

    fn on_end(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some((scenario, generation)) = self.names.remove(&id) else { return };
        if self.running.get(&scenario).is_some_and(|r| r.generation == generation) {
            self.running.remove(&scenario);
        }
        if let Err(error) = ended {
            tracing::error!(scenario_id = %scenario, generation, %error, "a supervisor panicked; its worker was killed");
            self.shared.board.update(scenario, generation, |status| {
                status.phase = WorkerPhase::Failed;
                status.reason = Some(Reason::new(ReasonCode::WorkerCrash, "internal error of the runner; see its log"));
            });
        }
    }
}
