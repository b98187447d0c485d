//! Scenarios, predictions and heartbeats to test with, and a world to move them in.

use std::{collections::BTreeMap, time::Duration};

use framehook_core::{
    delivery::Delivery,
    evidence::Hearing,
    hook_state::HookState,
    ids::{Digest, Epoch, Generation, Incarnation, RunnerId, ScenarioId},
    input::{InputOptions, TensorInfo},
    message::{Envelope, Progress, RunnerStatus, StopOrder, WorkerPhase, WorkerStatus},
    planner::{Action, Deploy, Snapshot, Timing, plan},
    prediction::{Detection, FrameTimings, PluginIdentity, Position, Prediction, Provenance},
    prediction_record::PredictionRecord,
    reason::{Reason, ReasonCode},
    spec::{OnPluginFailure, ResolvedArtifact, ResolvedHook, ResolvedScenario, ResolvedSource},
    state::{ScenarioState, WorkerState},
};
use framehook_infra::{
    bus::SharedBus,
    store::{
        Created, DeadLetter, Fenced, HISTORY_LINES, Idempotency, Limit, NewScenario, PredictionQuery, ResultBatch,
        Rows, ScenarioRecord, SharedStore, StoreOutcome,
    },
};
use jiff::Timestamp;
use uuid::Uuid;

/// A store under test, on a database of its own.
pub(crate) trait StoreBackend {
    /// Opens the database, for the first time or again; what was opened before has been dropped.
    async fn store_with(&self, history_lines: u32) -> SharedStore;

    async fn store(&self) -> SharedStore {
        self.store_with(HISTORY_LINES).await
    }
}

/// A bus under test, on topics of its own.
pub(crate) trait BusBackend {
    /// For the first time or again; what was opened before has been dropped.
    async fn bus(&self) -> SharedBus;
}

/// A term that does not end within a test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Any time, that of all heartbeats here.
pub(crate) const ARRIVED_AFTER: i64 = 1_700_000_000_000_000;

pub(crate) const CONSUMER: &str = "inbox";
pub(crate) const TOPIC: &str = "results";

pub(crate) fn digest(byte: u8) -> Digest {
    Digest::from_bytes(&[byte; 32])
}

pub(crate) fn resolved() -> ResolvedScenario {
    let street = |byte| ResolvedArtifact { name: "street".into(), version: "1".into(), digest: digest(byte) };
    let shape = [1, 3, 64, 64].map(Some).to_vec();
    let tensor = TensorInfo { name: "images".into(), element: "float32".into(), shape };
    let yolo = PluginIdentity { name: "yolo".into(), version: "0.1.0".into(), digest: digest(3) };
    ResolvedScenario {
        source: ResolvedSource::Video(street(1)),
        model: street(2),
        input: InputOptions::default().resolve(&[tensor]).unwrap(),
        models: Default::default(),
        limits: Default::default(),
        pre: vec![],
        post: vec![ResolvedHook { identity: yolo, config: serde_json::json!({"min_score": 0.25}) }],
        shadow: Vec::new(),
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
    }
}

pub(crate) fn scenario(name: &str) -> NewScenario {
    let spec = serde_json::json!({"name": name, "source": {"video": "street@1"}, "model": "street@1"});
    NewScenario {
        id: ScenarioId::generate(),
        spec: serde_json::from_value(spec).unwrap(),
        resolved: resolved(),
        idempotency: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    }
}

pub(crate) fn with_key(name: &str, key: &str, request: u8) -> NewScenario {
    NewScenario { idempotency: Some(Idempotency { key: key.into(), request: digest(request) }), ..scenario(name) }
}

pub(crate) fn prediction(scenario_id: ScenarioId, generation: Generation, frame: u64) -> Prediction {
    let pts_us = i64::try_from(frame).unwrap() * 40_000;
    let score = 0.1 + frame as f32 / 7.0;
    let detection = Detection {
        class_id: 2,
        label: Some("car".into()),
        score,
        bbox: [0.1, 0.2, 0.3, 1.0 / 3.0],
        ..Detection::default()
    };
    Prediction {
        scenario_id,
        generation,
        pts_us,
        frame,
        left_out: 0,
        size: None,
        captured_at: Timestamp::from_microsecond(1_700_000_000_000_000 + pts_us).unwrap(),
        detections: vec![detection],
        events: vec![],
        skipped: None,
        hook_failures: vec![],
        timings: FrameTimings { decode_us: 1, pre_us: 2, inference_us: 3, post_us: 4 },
        provenance: Provenance {
            model: digest(2),
            models: Default::default(),
            plugins: vec![],
            revision: 1,
            decoder: None,
            execution: None,
        },
    }
}

pub(crate) fn predictions(id: ScenarioId, generation: Generation, frames: std::ops::Range<u64>) -> Vec<Prediction> {
    frames.map(|frame| prediction(id, generation, frame)).collect()
}

pub(crate) fn batch(expected: i64, next: i64, predictions: Vec<Prediction>) -> ResultBatch {
    let rows = predictions.iter().map(PredictionRecord::from).collect();
    let (consumer, topic) = (CONSUMER.into(), TOPIC.into());
    ResultBatch { consumer, topic, expected, next, rows, ..ResultBatch::default() }
}

/// An unreadable record, of this frame if it says so.
pub(crate) fn dead_letter(id: ScenarioId, frame: Option<u64>) -> DeadLetter {
    let position = frame.map(position);
    DeadLetter { offset: 0, key: id.to_string(), payload: vec![0], reason: "unreadable".into(), position }
}

pub(crate) fn position(frame: u64) -> Position {
    Position { pts_us: i64::try_from(frame).unwrap() * 40_000, frame }
}

/// Everything from `after` on.
pub(crate) fn all() -> PredictionQuery {
    PredictionQuery { after_pts_us: None, from_pts_us: None, until_pts_us: None, limit: rows(u32::MAX) }
}

/// This many, whatever they hold.
pub(crate) fn rows(rows: u32) -> Limit {
    Limit { rows, bytes: u64::MAX }
}

pub(crate) fn reason(code: ReasonCode) -> Option<Reason> {
    Some(Reason::new(code, "as a test wants it"))
}

/// A worker that has published up to this frame.
pub(crate) fn published(id: ScenarioId, generation: Generation, phase: WorkerPhase, last: u64) -> WorkerStatus {
    let progress = Progress { published: Some(position(last)), ..Progress::default() };
    WorkerStatus { progress, ..WorkerStatus::new(id, generation, phase) }
}

/// A store, led by one epoch, with one runner.
pub(crate) struct World {
    pub(crate) store: SharedStore,
    pub(crate) holder: Uuid,
    pub(crate) epoch: Epoch,
    pub(crate) heartbeat: RunnerStatus,
}

impl World {
    pub(crate) async fn new(backend: &impl StoreBackend) -> Self {
        Self::on(backend.store().await).await
    }

    pub(crate) async fn on(store: SharedStore) -> Self {
        let holder = Uuid::now_v7();
        let epoch = store.lead(holder, true, LONG, LONG).await.unwrap().expect("nobody else leads");
        let heartbeat = RunnerStatus {
            runner_id: RunnerId("here".into()),
            incarnation: Incarnation::generate(),
            sequence: 0,
            capacity: 100,
            memory_mib: None,
            draining: false,
            version: "0.1.0".into(),
            labels: BTreeMap::new(),
            confinement: Vec::new(),
            providers: Vec::new(),
            workers: vec![],
        };
        let mut world = Self { store, holder, epoch, heartbeat };
        world.report(vec![]).await;
        world
    }

    /// The runner's next heartbeat.
    pub(crate) async fn report(&mut self, workers: Vec<WorkerStatus>) {
        self.heartbeat.sequence += 1;
        self.heartbeat.workers = workers;
        let recorded = self.hear(std::slice::from_ref(&self.heartbeat)).await;
        assert_eq!(recorded, Fenced::Done);
    }

    pub(crate) async fn hear(&self, heartbeats: &[RunnerStatus]) -> Fenced {
        self.store.record_heartbeats(self.epoch, heartbeats, ARRIVED_AFTER, LONG).await.unwrap()
    }

    pub(crate) async fn create(&self, name: &str) -> ScenarioRecord {
        self.create_new(scenario(name)).await
    }

    pub(crate) async fn create_new(&self, new: NewScenario) -> ScenarioRecord {
        match self.store.create_scenario(new).await.unwrap() {
            Created::New(record) => record,
            other => panic!("expected a new scenario, got {other:?}"),
        }
    }

    pub(crate) async fn apply(&self, action: Action) -> Fenced {
        self.store.apply(self.epoch, &action).await.unwrap()
    }

    pub(crate) async fn done(&self, action: Action) {
        assert_eq!(self.apply(action.clone()).await, Fenced::Done, "{action:?}");
    }

    pub(crate) fn deploy(&self, scenario_id: ScenarioId, from: ScenarioState, generation: Generation) -> Action {
        let RunnerStatus { runner_id, incarnation, .. } = self.heartbeat.clone();
        Action::Deploy(Deploy { scenario_id, from, generation, runner_id, incarnation, execution: None })
    }

    pub(crate) fn stop(&self, scenario_id: ScenarioId, generation: Generation) -> Action {
        let RunnerStatus { runner_id, incarnation, .. } = self.heartbeat.clone();
        Action::Stop(StopOrder { scenario_id, generation, runner_id, incarnation })
    }

    /// A new scenario in this state, without a live worker where the state can have none.
    pub(crate) async fn in_state(&self, state: ScenarioState) -> ScenarioRecord {
        use ScenarioState as S;
        let ScenarioRecord { id, .. } = self.create("any").await;
        let path: &[S] = match state {
            S::Pending => &[],
            S::Deploying => &[S::Deploying],
            S::Running => &[S::Deploying, S::Running],
            S::Degraded => &[S::Deploying, S::Degraded],
            S::Recovering => &[S::Deploying, S::Recovering],
            S::Stopping => &[S::Deploying, S::Stopping],
            S::Stopped => &[S::Stopped],
            S::Completed => &[S::Deploying, S::Completed],
            S::Failed => &[S::Deploying, S::Failed],
        };
        let mut from = S::Pending;
        for to in path {
            match to {
                S::Deploying => self.done(self.deploy(id, from, 1)).await,
                to => self.done(move_scenario(id, from, *to)).await,
            }
            from = *to;
        }
        if state.is_ended() && path.len() > 1 {
            self.done(move_worker(id, 1, WorkerState::Pending, WorkerState::Stopped)).await;
        }
        self.record(id).await
    }

    pub(crate) async fn record(&self, id: ScenarioId) -> ScenarioRecord {
        self.store.scenario(id).await.unwrap().expect("the scenario is visible")
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        self.store.snapshot().await.unwrap()
    }

    /// The plan of a leader that has heard everything.
    pub(crate) async fn plan(&self) -> Vec<Action> {
        let snapshot = self.snapshot().await;
        plan(&snapshot, &Hearing::since(snapshot.now_us), Timing::default())
    }

    pub(crate) async fn outbox(&self) -> Vec<Envelope> {
        self.store.outbox(1000).await.unwrap()
    }

    pub(crate) async fn publish_outbox(&self) -> Vec<Envelope> {
        let envelopes = self.outbox().await;
        let ids: Vec<_> = envelopes.iter().map(|e| e.id).collect();
        self.store.mark_published(&ids).await.unwrap();
        envelopes
    }

    pub(crate) async fn stored(&self, id: ScenarioId) -> Vec<Prediction> {
        self.read(id, all()).await.rows
    }

    /// Nothing of a scenario that is not found.
    pub(crate) async fn read(&self, id: ScenarioId, query: PredictionQuery) -> Rows<Prediction> {
        let found = self.store.predictions(id, query).await.unwrap();
        let Rows { rows, has_more } = found.unwrap_or(Rows { rows: vec![], has_more: false });
        Rows { rows: rows.iter().map(|row| row.read().unwrap()).collect(), has_more }
    }

    /// Stores these behind everything before.
    pub(crate) async fn store(&self, predictions: Vec<Prediction>) {
        self.store_with(predictions, vec![]).await;
    }

    /// Rows, and what hooks changed on each.
    pub(crate) async fn store_state(&self, predictions: Vec<Prediction>, state: impl IntoIterator<Item = HookState>) {
        let offset = self.store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap();
        let state = state.into_iter().enumerate().collect();
        let batch = ResultBatch { state, ..batch(offset, offset + 1, predictions) };
        assert_eq!(self.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
    }

    pub(crate) async fn store_with(&self, predictions: Vec<Prediction>, dead_letters: Vec<DeadLetter>) {
        let offset = self.store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap();
        let batch = ResultBatch { dead_letters, ..batch(offset, offset + 1, predictions) };
        assert_eq!(self.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
    }

    pub(crate) async fn delivery(&self, id: ScenarioId) -> Delivery {
        self.store.delivery(id).await.unwrap().expect("the scenario is visible")
    }
}

pub(crate) fn move_scenario(scenario_id: ScenarioId, from: ScenarioState, to: ScenarioState) -> Action {
    Action::MoveScenario { scenario_id, from, to, reason: reason(ReasonCode::WorkerCrash) }
}

pub(crate) fn move_worker(id: ScenarioId, generation: Generation, from: WorkerState, to: WorkerState) -> Action {
    Action::MoveWorker { scenario_id: id, generation, from, to, reason: reason(ReasonCode::EndOfStream) }
}
