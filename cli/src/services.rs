//! The services of a process: started together, watched, and stopped in order.
//!
//! On Ctrl-C or SIGTERM intake stops first, then the work is drained, then the rest ends, so that the last
//! messages of what is drained are still received. A second signal ends the process at once and loses nothing
//! either: what is not done is done at the next start, or by another process.

use std::time::Duration;

use anyhow::{Context as _, bail};
use framehook_api::{HttpLimits, health::Needs};
use framehook_infra::{blobs::Blobs, bus::SharedBus, store::SharedStore};
use framehook_orchestrator::OrchestratorConfig;
use futures::FutureExt as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Longer than a runner takes: it drains for 5 s, waits 4 s for killed workers and 5 s for its last
/// heartbeat.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// What is swept has been garbage for an hour.
const SWEEP: Duration = Duration::from_secs(3600);

/// Recorded outputs that were given up stay for this long at most. A detector of 3 MB a frame fills a
/// gigabyte in that time.
const SWEEP_OUTPUTS: Duration = Duration::from_secs(5);

/// As a shell reports a process ended by Ctrl-C.
const HARD_STOP: i32 = 130;

/// When a service stops: all of a stage, before any of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Intake,
    Work,
    Rest,
}

async fn sweep_outputs(store: &SharedStore, blobs: &Blobs, age: Duration) -> anyhow::Result<()> {
    loop {
        let unnamed = store.drop_outputs(age).await?;
        if unnamed.is_empty() {
            return Ok(());
        }
        for digest in unnamed {
            // What stays by an error is swept with all that has no name.
            blobs.discard(&digest).await?;
        }
    }
}

#[derive(Default)]
pub(crate) struct Services {
    all: Vec<Service>,
    /// Cancelled when stopping begins: from then on this process is not ready.
    pub(crate) draining: CancellationToken,
}

struct Service {
    name: &'static str,
    stage: Stage,
    cancel: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Services {
    /// Starts a service, which ends when its token is cancelled and not before.
    pub(crate) fn start<F>(&mut self, name: &'static str, stage: Stage, service: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let task = tokio::spawn(service(cancel.clone()));
        self.all.push(Service { name, stage, cancel, task });
    }

    pub(crate) fn relay(&mut self, store: &SharedStore, bus: &SharedBus) {
        let (store, bus) = (store.clone(), bus.clone());
        self.start("relay", Stage::Rest, |cancel| framehook_api::relay::run(store, bus, cancel).map(Ok));
    }

    /// `max_prediction`: bytes of a row.
    pub(crate) fn inbox(&mut self, store: &SharedStore, bus: &SharedBus, max_prediction: usize) {
        let (store, bus) = (store.clone(), bus.clone());
        self.start("inbox", Stage::Rest, |cancel| {
            framehook_api::inbox::run(store, bus, max_prediction, cancel).map(Ok)
        });
    }

    pub(crate) fn orchestrator(&mut self, config: OrchestratorConfig, store: &SharedStore, bus: &SharedBus) {
        let (store, bus) = (store.clone(), bus.clone());
        self.start("orchestrator", Stage::Rest, |cancel| {
            framehook_orchestrator::run(config, store, bus, cancel).map(Ok)
        });
    }

    /// Removes, at the start and from time to time, what uploads and deletions of a dead process left behind.
    pub(crate) fn sweeper(&mut self, store: &SharedStore, blobs: &Blobs) {
        let (store, blobs) = (store.clone(), blobs.clone());
        self.start("sweeper", Stage::Rest, |cancel| async move {
            let mut times = interval(SWEEP);
            while cancel.run_until_cancelled(times.tick()).await.is_some() {
                let sweep = async { anyhow::Ok(blobs.sweep(&store.live_digests().await?).await?) };
                if let Some(Err(error)) = cancel.run_until_cancelled(sweep).await {
                    warn!("blobs without a name stay for now: {error:#}");
                }
            }
            Ok(())
        });
    }

    /// Removes recorded outputs that were given up, or are older than `age`.
    pub(crate) fn outputs_sweeper(&mut self, store: &SharedStore, blobs: &Blobs, age: Duration) {
        let (store, blobs) = (store.clone(), blobs.clone());
        self.start("sweeper of outputs", Stage::Rest, |cancel| async move {
            let mut times = interval(SWEEP_OUTPUTS);
            while cancel.run_until_cancelled(times.tick()).await.is_some() {
                if let Some(Err(error)) = cancel.run_until_cancelled(sweep_outputs(&store, &blobs, age)).await {
                    warn!("recorded outputs that were given up stay for now: {error:#}");
                }
            }
            Ok(())
        });
    }

    /// `/healthz`, `/readyz` and `/metrics`, for a process that does not serve the REST API.
    pub(crate) fn health(&mut self, listener: TcpListener, needs: Needs, limits: HttpLimits) {
        self.start("health", Stage::Rest, |cancel| {
            framehook_api::health::serve(listener, needs, limits, cancel).map(Ok)
        });
    }

    /// Runs until a signal, or until a service ends by itself; then stops what is left.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let outcome = tokio::select! {
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            ended = self.first_to_end() => ended,
        };
        println!("Stopping (again to stop at once)");
        tokio::select! {
            () = self.stop() => {}
            _ = interrupt.recv() => std::process::exit(HARD_STOP),
            _ = terminate.recv() => std::process::exit(HARD_STOP),
        }
        println!("Stopped");
        outcome
    }

    async fn first_to_end(&mut self) -> anyhow::Result<()> {
        let ends = self.all.iter_mut().map(|s| Box::pin(async move { (s.name, (&mut s.task).await) }));
        let ((name, result), index, _) = futures::future::select_all(ends).await;
        self.all.swap_remove(index);
        match result {
            Ok(Ok(())) => bail!("the {name} ended by itself"),
            Ok(Err(error)) => Err(error.context(format!("the {name} failed"))),
            Err(panic) => bail!("the {name} failed: {panic}"),
        }
    }

    async fn stop(&mut self) {
        self.draining.cancel();
        for stage in [Stage::Intake, Stage::Work, Stage::Rest] {
            let mut services: Vec<_> = self.all.iter_mut().filter(|s| s.stage == stage).collect();
            services.iter().for_each(|service| service.cancel.cancel());
            for Service { name, task, .. } in &mut services {
                match timeout(STOP_DEADLINE, task).await {
                    Ok(Ok(Ok(()))) => info!("{name} stopped"),
                    Ok(Ok(Err(error))) => error!("{name} stopped: {error:#}"),
                    Ok(Err(panic)) => error!("{name} stopped: {panic}"),
                    Err(_) => error!("{name} did not stop within {STOP_DEADLINE:?}"),
                }
            }
        }
    }
}
