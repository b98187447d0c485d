//! The orchestrator: leads or stands by, and brings what runs to what is desired.
//!
//! It makes no choices of its own: core's planner decides from a snapshot, and every write carries the
//! epoch under which it was decided, so a leader that lost its lease changes nothing. Hints and heartbeats only
//! wake it early; a periodic scan finds what a lost message would have told.
//!
//! On an error of the store or the bus it waits and tries again; it never ends by itself. On
//! cancellation it resigns, so that a standby takes over at once.

mod noted;
mod reconcile;

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
    time::Duration,
};

use framehook_core::{
    ids::{Epoch, Incarnation, RunnerId},
    message::{Envelope, Message, RunnerStatus, Topic},
    planner::Timing,
};
use framehook_infra::{
    bus::{BusError, Delivered, SharedBus},
    store::{Fenced, SharedStore, StoreError},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub struct OrchestratorConfig {
    /// Who holds the lease: a new one for each process.
    pub holder: Uuid,
    /// How long a leader that is not heard of keeps the lease. Two terms are the longest take-over.
    pub term: Duration,
    /// How long a runner that is not heard of keeps its workers: ten missed heartbeats and more, so
    /// that a busy machine is not taken for a dead one.
    pub runner_term: Duration,
    /// How often the world is looked at when nothing is heard.
    pub scan: Duration,
    /// How often what nobody needs any more is removed, and how old it is by then.
    pub trim: Duration,
    pub keep: Duration,
    /// How long predictions are kept; `None`: until their scenario is deleted.
    pub keep_results: Option<Duration>,
    pub timing: Timing,
}

impl Default for OrchestratorConfig {
    fn default() -> Self {
        Self {
            holder: Uuid::now_v7(),
            term: Duration::from_secs(5),
            runner_term: Duration::from_secs(10),
            scan: Duration::from_secs(1),
            trim: Duration::from_secs(3600),
            // A person who looks for what went wrong yesterday still finds its messages.
            keep: Duration::from_secs(48 * 3600),
            keep_results: None,
            timing: Timing::default(),
        }
    }
}

/// Why a term of leadership ended.
#[derive(Debug, thiserror::Error)]
enum TermEnd {
    #[error("another orchestrator leads")]
    Deposed,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Runs until `cancel`.
pub async fn run(config: OrchestratorConfig, store: SharedStore, bus: SharedBus, cancel: CancellationToken) {
    let orchestrator = Orchestrator { config, store, bus };
    leading().set(0);
    // A third of a term leaves two more tries before the lease ends.
    let retry = orchestrator.config.term / 3;
    let mut fresh = true;
    while !cancel.is_cancelled() {
        match orchestrator.lead(fresh).await {
            Ok(Some(epoch)) => {
                info!(epoch, "leading");
                leading().set(1);
                let end = tokio::select! {
                    end = orchestrator.serve_term(epoch) => end,
                    () = cancel.cancelled() => break,
                };
                leading().set(0);
                // Heartbeats were missed: as after a silence, every runner gets a whole lease.
                fresh = matches!(end, TermEnd::Bus(_));
                match end {
                    TermEnd::Deposed => info!(epoch, "standing by: {end}"),
                    _ => warn!(epoch, "interrupted: {end}"),
                }
            }
            Ok(None) => debug!("standing by"),
            Err(error) => warn!("cannot reach the store: {error}"),
        }
        tokio::select! {
            () = sleep_until(Instant::now() + retry) => {}
            () = cancel.cancelled() => {}
        }
    }
    if let Err(error) = orchestrator.store.resign(orchestrator.config.holder).await {
        debug!("could not resign, the lease will run out: {error}");
    }
}

/// 1 while this process leads, for Prometheus.
fn leading() -> &'static Gauge {
    static LEADING: LazyLock<Gauge> = LazyLock::new(|| {
        let gauge = Gauge::default();
        let help = "Whether this orchestrator leads";
        framehook_infra::metrics::register(|registry| registry.register("leading", help, gauge.clone()));
        gauge
    });
    &LEADING
}

struct Orchestrator {
    config: OrchestratorConfig,
    store: SharedStore,
    bus: SharedBus,
}

impl Orchestrator {
    async fn lead(&self, fresh: bool) -> Result<Option<Epoch>, StoreError> {
        self.store.lead(self.config.holder, fresh, self.config.term, self.config.runner_term).await
    }

    /// Leads until something ends it; returns only then.
    async fn serve_term(&self, epoch: Epoch) -> TermEnd {
        match self.try_serve_term(epoch).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn try_serve_term(&self, epoch: Epoch) -> Result<std::convert::Infallible, TermEnd> {
        let mut epoch = epoch;
        let (mut lives, mut heard) = (Lives::default(), Instant::now());
        let mut answers = noted::Answers::default();
        let mut heartbeats = self.bus.tail(Topic::RunnerStatus).await?;
        let mut hints = self.bus.tail(Topic::InitScenario).await?;
        let mut renewal = interval(self.config.term / 3);
        let mut scan = interval(self.config.scan);
        let mut trim = interval(self.config.trim);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Renewing first: a flood of heartbeats must not cost the lease.
                biased;
                _ = renewal.tick() => {
                    if self.lead(false).await? != Some(epoch) {
                        return Err(TermEnd::Deposed);
                    }
                    continue;
                }
                records = heartbeats.next(MAX_RECORDS) => {
                    let records = records?;
                    if heard.elapsed() > self.config.runner_term / 2 {
                        // Nobody was heard, so the bus was away, or this process: who is heard first must not make the
                        // others look dead. A term that begins gives every runner a whole lease.
                        epoch = self.lead(true).await?.ok_or(TermEnd::Deposed)?;
                        info!(silence = ?heard.elapsed(), "after a silence, leading on from epoch={epoch}");
                    }
                    heard = Instant::now();
                    self.record_heartbeats(epoch, records, &mut lives).await?;
                }
                records = hints.next(MAX_RECORDS) => drop(records?),
                _ = trim.tick() => self.trim().await,
                _ = scan.tick() => {}
            }
            let settled = reconcile::reconcile(&self.store, epoch, self.config.timing).await?;
            answers.give(&self.bus, &settled);
        }
    }

    /// Housekeeping: that it fails, on a full disk perhaps, is no reason not to lead.
    async fn trim(&self) {
        let trim = async {
            self.store.trim(self.config.keep).await?;
            match self.config.keep_results {
                Some(age) => self.store.drop_results(age).await,
                None => Ok(()),
            }
        };
        if let Err(error) = trim.await {
            warn!("what nobody needs any more stays for now: {error}");
        }
    }

    async fn record_heartbeats(&self, epoch: Epoch, records: Vec<Delivered>, lives: &mut Lives) -> Result<(), TermEnd> {
        for record in records {
            let status = match Envelope::parse(&record.payload) {
                Ok(Envelope { message: Message::RunnerStatus(status), .. }) => status,
                Ok(other) => {
                    warn!(key = record.key, "ignored on runner_status: {:?}", other.topic());
                    continue;
                }
                Err(error) => {
                    // The next heartbeat carries the whole state again, so nothing is lost.
                    warn!(key = record.key, "ignored on runner_status: {error}");
                    continue;
                }
            };
            lives.notice(&status);
            if self.store.record_heartbeat(epoch, &status, self.config.runner_term).await? == Fenced::NotLeader {
                return Err(TermEnd::Deposed);
            }
        }
        Ok(())
    }
}

/// Notices two runners of one name: of these only the newer gets work, and neither knows.
#[derive(Default)]
struct Lives {
    newest: HashMap<RunnerId, Incarnation>,
    /// Told of.
    older: HashSet<Incarnation>,
}

impl Lives {
    fn notice(&mut self, status: &RunnerStatus) {
        let RunnerStatus { runner_id, incarnation, .. } = status;
        let newest = self.newest.entry(runner_id.clone()).or_insert(*incarnation);
        *newest = (*newest).max(*incarnation);
        if incarnation < newest && self.older.insert(*incarnation) {
            warn!(
                runner = %runner_id,
                %incarnation,
                "a second process of this name began later and has its work; give each runner a name of its own"
            );
        }
    }
}

/// Of one read: enough for a heartbeat of every runner of a large installation.
const MAX_RECORDS: usize = 256;
