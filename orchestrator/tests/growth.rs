//! Nothing grows by itself: after a thousand short scenarios, each deleted, a data folder is as large as
//! after a hundred.
//!
//! Everything but the API's HTTP and the workers is real: SQLite, relay, inbox, orchestrator. The runner is
//! one of this test's own, whose workers publish their frames at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use framehook_core::{
    ids::{Digest, Incarnation, RunnerId, ScenarioId},
    input::{InputOptions, TensorInfo},
    message::{DeployOrder, Envelope, Message, Progress, RunnerStatus, WorkerPhase, WorkerStatus},
    prediction::{FrameTimings, Position, Prediction, Provenance},
    spec::{OnPluginFailure, ResolvedArtifact, ResolvedScenario, ResolvedSource},
    state::{Desired, ScenarioState},
    topic::Topic,
};
use framehook_infra::{
    bus::{Record, SharedBus},
    sqlite::Sqlite,
    store::{Created, Idempotency, NewScenario, SharedStore},
};
use framehook_orchestrator::OrchestratorConfig;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Frames of a scenario.
const FRAMES: u64 = 50;
/// Scenarios at a time.
const AT_A_TIME: usize = 50;
/// For a condition. A thousand scenarios take a fifth of it on two busy cores.
const DEADLINE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_deleted_scenarios_leave_no_more_than_a_hundred() {
    let data = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(data.path()).await.unwrap();
    let (store, bus) = (sqlite.store(), sqlite.bus());
    let cancel = CancellationToken::new();
    tokio::spawn(framehook_api::relay::run(store.clone(), bus.clone(), cancel.clone()));
    tokio::spawn(framehook_api::inbox::run(
        store.clone(),
        bus.clone(),
        framehook_core::size::MAX_PREDICTION,
        cancel.clone(),
    ));
    let config = OrchestratorConfig::default();
    tokio::spawn(framehook_orchestrator::run(config, store.clone(), bus.clone(), cancel.clone()));
    let runner = tokio::spawn(Runner::new(bus.clone()).run(cancel.clone()));

    run_and_delete(&store, 100).await;
    let mut after_a_hundred = u64::MAX;
    // It becomes smaller for as long as something is given back; three looks without that are its end.
    let mut same = 0;
    eventually("the folder to come to rest", async || {
        let now = size(data.path());
        same = if now < after_a_hundred { 0 } else { same + 1 };
        after_a_hundred = after_a_hundred.min(now);
        is_quiet(&store).await && same >= LOOKS_AT_REST
    })
    .await;

    run_and_delete(&store, 900).await;
    eventually("the folder to be no larger than after a hundred scenarios", async || {
        let now = size(data.path());
        println!("{after_a_hundred} bytes after a hundred, {now} now");
        is_quiet(&store).await && now <= after_a_hundred
    })
    .await;
    cancel.cancel();
    let most_told = runner.await.unwrap();
    assert!(most_told <= 5 * AT_A_TIME, "a heartbeat told of {most_told} ended workers");
}

/// Longer than the bus keeps what has been read.
const LOOKS_AT_REST: u32 = 150;

/// Asks ten times a second until it is so.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let mut looks = interval(Duration::from_millis(100));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let waiting = async {
        while !condition().await {
            looks.tick().await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// The runner tells of no worker any more.
async fn is_quiet(store: &SharedStore) -> bool {
    store.runners().await.unwrap().iter().all(|runner| runner.status.workers.is_empty())
}

/// Bytes of all files.
fn size(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

async fn run_and_delete(store: &SharedStore, scenarios: usize) {
    let mut left: Vec<_> = (0..scenarios).map(|_| scenario()).collect();
    while !left.is_empty() {
        let wave: Vec<_> = left.drain(left.len().saturating_sub(AT_A_TIME)..).collect();
        let mut ids = BTreeSet::new();
        for new in wave {
            let Created::New(record) = store.create_scenario(new).await.unwrap() else { panic!("it is new") };
            ids.insert(record.id);
        }
        eventually("scenarios to complete and to be gone", async || {
            for id in ids.clone() {
                match store.scenario(id).await.unwrap() {
                    Some(record) if record.state == ScenarioState::Completed => {
                        store.set_desired(id, Desired::Deleted).await.unwrap();
                    }
                    Some(_) => {}
                    None if store.is_purged(id).await.unwrap() => drop(ids.remove(&id)),
                    None => {}
                }
            }
            ids.is_empty()
        })
        .await;
    }
}

fn scenario() -> NewScenario {
    let artifact =
        |byte| ResolvedArtifact { name: "a".into(), version: "1".into(), digest: Digest::from_bytes(&[byte; 32]) };
    let shape = [1, 3, 64, 64].map(Some).to_vec();
    let tensor = TensorInfo { name: "images".into(), element: "float32".into(), shape };
    let spec = serde_json::json!({"name": "short", "source": {"video": "a@1"}, "model": "a@1"});
    let id = ScenarioId::generate();
    NewScenario {
        id,
        spec: serde_json::from_value(spec).unwrap(),
        resolved: ResolvedScenario {
            source: ResolvedSource::Video(artifact(1)),
            model: artifact(2),
            input: InputOptions::default().resolve(&[tensor]).unwrap(),
            models: Default::default(),
            limits: Default::default(),
            pre: vec![],
            post: vec![],
            shadow: vec![],
            on_plugin_failure: OnPluginFailure::SkipFrame,
            memory_mib: None,
            decoder: None,
            provider: None,
            precision: None,
            provider_fallback: false,
            lanes: None,
            frames: None,
            range: None,
            max_speed: None,
            record: Default::default(),
            replay: None,
        },
        idempotency: Some(Idempotency { key: format!("key of {id}"), request: Digest::from_bytes(&[3; 32]) }),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

struct Runner {
    bus: SharedBus,
    status: RunnerStatus,
    workers: BTreeMap<ScenarioId, WorkerStatus>,
    most_told: usize,
}

impl Runner {
    fn new(bus: SharedBus) -> Self {
        let status = RunnerStatus {
            runner_id: RunnerId("quick".into()),
            incarnation: Incarnation::generate(),
            sequence: 0,
            capacity: AT_A_TIME as u32 / 2,
            memory_mib: None,
            draining: false,
            version: "0.1.0".into(),
            labels: BTreeMap::new(),
            confinement: Vec::new(),
            providers: Vec::new(),
            workers: vec![],
        };
        Self { bus, status, workers: BTreeMap::new(), most_told: 0 }
    }

    /// Gives the most ended workers that a heartbeat told of.
    async fn run(mut self, cancel: CancellationToken) -> usize {
        let mut orders = self.bus.tail(Topic::ToDeploy).await.unwrap();
        let mut beats = interval(Duration::from_millis(500));
        while !cancel.is_cancelled() {
            tokio::select! {
                () = cancel.cancelled() => {}
                _ = beats.tick() => {}
                delivered = orders.next(64) => for order in delivered.unwrap() {
                    self.take(Envelope::parse(&order.payload).unwrap().message).await;
                },
            }
            self.beat().await;
        }
        self.most_told
    }

    async fn take(&mut self, order: Message) {
        match order {
            Message::Deploy(order) if order.incarnation == self.status.incarnation => self.work(&order).await,
            Message::Noted(noted) if noted.incarnation == self.status.incarnation => {
                noted.workers.iter().for_each(|worker| drop(self.workers.remove(&worker.scenario_id)));
            }
            _ => {}
        }
    }

    async fn work(&mut self, order: &DeployOrder) {
        let frames: Vec<_> = (0..FRAMES).map(|frame| prediction(order, frame)).collect();
        let last = frames.last().map(|last| Position { pts_us: last.pts_us, frame: last.frame });
        let envelopes =
            frames.into_iter().map(|frame| Envelope::new(Message::Result((&frame).into()), Timestamp::now()));
        let records = envelopes.map(|envelope| Record::try_from(&envelope).unwrap()).collect();
        self.bus.publish(Topic::Results, records).await.unwrap();
        let status = WorkerStatus {
            progress: Progress { published: last, frames: FRAMES, ..Progress::default() },
            ..WorkerStatus::new(order.scenario_id, order.generation, WorkerPhase::Finished)
        };
        self.workers.insert(order.scenario_id, status);
    }

    async fn beat(&mut self) {
        self.status.sequence += 1;
        self.most_told = self.most_told.max(self.workers.len());
        let status = RunnerStatus { workers: self.workers.values().cloned().collect(), ..self.status.clone() };
        let envelope = Envelope::new(Message::RunnerStatus(status), Timestamp::now());
        self.bus.publish(Topic::RunnerStatus, vec![Record::try_from(&envelope).unwrap()]).await.unwrap();
    }
}

fn prediction(order: &DeployOrder, frame: u64) -> Prediction {
    Prediction {
        scenario_id: order.scenario_id,
        generation: order.generation,
        pts_us: i64::try_from(frame).unwrap() * 40_000,
        frame,
        left_out: 0,
        size: None,
        captured_at: Timestamp::now(),
        detections: vec![],
        events: vec![],
        skipped: None,
        hook_failures: vec![],
        timings: FrameTimings::default(),
        provenance: Provenance {
            model: Digest::from_bytes(&[2; 32]),
            models: Default::default(),
            plugins: vec![],
            revision: 1,
            decoder: None,
            execution: None,
        },
    }
}
