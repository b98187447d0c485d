//! The orchestrator: leads or stands by, and brings what runs to what is desired.
//!
//! It makes no choices of its own: core's planner decides from a snapshot, and every write carries
//! the epoch under which it was decided, so a leader that lost its lease changes nothing. Hints and
//! heartbeats only wake it early; a periodic scan finds what a lost message would have told.
//!
//! Three things go on at once while it leads: the lease is renewed, whatever the rest waits for;
//! heartbeats are recorded as they come; and what runs is compared with what is desired, at once
//! when there is news, and at most for half of the time. It may fall behind its heartbeats by any
//! time and harms nobody: how far it has heard is part of every plan (`listen`).
//!
//! On an error of the store or the bus it waits and tries again; it never ends by itself. On
//! cancellation it resigns, so that a standby takes over at once.

mod listen;
mod metrics;
mod noted;
mod pace;
mod reconcile;

use std::{convert::Infallible, sync::Arc, time::Duration};

use framehook_core::{ids::Epoch, planner::Timing, topic::Topic};
use framehook_infra::{
    bus::{BusError, SharedBus},
    store::{Keep, Orchestration, StoreError},
};
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use listen::Listener;
use pace::Pace;

#[derive(Clone, Debug)]
pub struct OrchestratorConfig {
    /// Who holds the lease: a new one for each process.
    pub holder: Uuid,
    /// How long a leader that is not heard of keeps the lease. Two terms are the longest take-over.
    pub lease_time: Duration,
    /// How long a runner that is not heard of keeps its workers: ten missed heartbeats and more, so
    /// that a busy machine is not taken for a dead one.
    pub runner_lease_time: Duration,
    /// How often the world is looked at when nothing is heard.
    pub scan: Duration,
    /// How often what nobody needs any more is removed, and how old it is by then.
    pub trim: Duration,
    pub keep: Keep,
    /// How long predictions are kept; `None`: until their scenario is deleted.
    pub keep_results: Option<Duration>,
    pub timing: Timing,
}

impl Default for OrchestratorConfig {
    fn default() -> Self {
        Self {
            holder: Uuid::now_v7(),
            lease_time: Duration::from_secs(5),
            runner_lease_time: Duration::from_secs(10),
            scan: Duration::from_secs(1),
            trim: Duration::from_secs(3600),
            keep: Keep::default(),
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
pub async fn run(config: OrchestratorConfig, store: Arc<dyn Orchestration>, bus: SharedBus, cancel: CancellationToken) {
    let orchestrator = Orchestrator { config, store, bus };
    metrics::global().stands_by();
    // A third of a term leaves two more tries before the lease ends.
    let retry = orchestrator.config.lease_time / 3;
    while !cancel.is_cancelled() {
        match orchestrator.lead().await {
            Ok(Some((epoch, since_us))) => {
                info!(epoch, "leading");
                metrics::global().leads();
                let end = tokio::select! {
                    end = orchestrator.serve_term(epoch, since_us) => end,
                    () = cancel.cancelled() => break,
                };
                metrics::global().stands_by();
                match end {
                    TermEnd::Deposed => info!(epoch, "standing by: {end}"),
                    _ => warn!(epoch, "interrupted: {end}"),
                }
            }
            Ok(None) => debug!("standing by"),
            Err(error) => warn!("cannot reach the store: {error}"),
        }
        cancel.run_until_cancelled(sleep(retry)).await;
    }
    if let Err(error) = orchestrator.store.resign(orchestrator.config.holder).await {
        debug!("could not resign, the lease will run out: {error}");
    }
}

struct Orchestrator {
    config: OrchestratorConfig,
    store: Arc<dyn Orchestration>,
    bus: SharedBus,
}

impl Orchestrator {
    /// Takes or renews the lease; `None`: another leads. With `fresh`, every runner gets a whole lease.
    async fn lease(&self, fresh: bool) -> Result<Option<Epoch>, StoreError> {
        let OrchestratorConfig { holder, lease_time, runner_lease_time, .. } = self.config;
        self.store.lead(holder, fresh, lease_time, runner_lease_time).await
    }

    /// Begins a term, and gives a time before which no lease was extended for it. Every term is a fresh one:
    /// heartbeats were missed since the last.
    async fn lead(&self) -> Result<Option<(Epoch, i64)>, StoreError> {
        let since_us = self.store.now_us().await?;
        Ok(self.lease(true).await?.map(|epoch| (epoch, since_us)))
    }

    /// Leads until something ends it; returns only then.
    async fn serve_term(&self, epoch: Epoch, since_us: i64) -> TermEnd {
        let lease = Lease { orchestrator: self, epoch: Mutex::new(epoch) };
        let Err(end) = tokio::select! {
            end = lease.renew() => end,
            end = self.follow(&lease, since_us) => end,
        };
        end
    }

    async fn follow(&self, lease: &Lease<'_>, since_us: i64) -> Result<Infallible, TermEnd> {
        let mut answers = noted::Answers::default();
        let mut listener = Listener::open(&self.store, &self.bus, since_us, self.config.runner_lease_time).await?;
        let mut hints = self.bus.tail(Topic::InitScenario).await?;
        let mut scan = interval(self.config.scan);
        let mut trim = interval(self.config.trim);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::default();
        loop {
            tokio::select! {
                // What is due first: a flood of heartbeats must not keep it waiting.
                biased;
                () = pace.due() => {
                    let begin = Instant::now();
                    let (epoch, hearing) = (lease.epoch().await, &mut listener.hearing);
                    let settled = reconcile::reconcile(&*self.store, epoch, hearing, self.config.timing).await?;
                    pace.ran(begin, settled.is_some());
                    settled.iter().for_each(|settled| answers.give(&self.bus, settled));
                }
                records = listener.next() => {
                    let records = records?;
                    listener.record(lease, &records).await?;
                    pace.on_heartbeats();
                }
                records = hints.next(HINTS) => {
                    records?;
                    pace.on_hint();
                }
                _ = trim.tick() => self.trim().await,
                _ = scan.tick() => {
                    listener.ask();
                    pace.on_heartbeats();
                }
            }
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
}

/// The lease of one term. Its epoch changes while it is held: an answer to a renewal is compared
/// under the lock.
struct Lease<'a> {
    orchestrator: &'a Orchestrator,
    epoch: Mutex<Epoch>,
}

impl Lease<'_> {
    async fn epoch(&self) -> Epoch {
        *self.epoch.lock().await
    }

    /// Returns only when the lease is lost.
    async fn renew(&self) -> Result<Infallible, TermEnd> {
        let mut ticks = interval(self.orchestrator.config.lease_time / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let epoch = self.epoch.lock().await;
            if self.orchestrator.lease(false).await? != Some(*epoch) {
                return Err(TermEnd::Deposed);
            }
        }
    }

    /// Every runner gets a whole lease, under a new epoch.
    async fn extend_runners(&self) -> Result<Epoch, TermEnd> {
        let mut epoch = self.epoch.lock().await;
        *epoch = self.orchestrator.lease(true).await?.ok_or(TermEnd::Deposed)?;
        Ok(*epoch)
    }
}

/// Hints of one read: they only wake us, however many there are.
const HINTS: usize = 1024;
