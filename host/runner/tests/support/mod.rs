//! A runner with a bus in memory, a worker and a plugin host that are scripts, and the orders a test gives
//! it.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use framehook_compiled::{COMPILE_TIMEOUT, CompiledPlugins, Settings};
use framehook_confine::{Piece, Sandbox};
use framehook_core::{
    hook_state::HookState,
    ids::{Digest, Generation, Incarnation, RunnerId, ScenarioId},
    input::{Anchor, Channels, Element, InputSpec, Layout, Resize},
    message::{
        DeployOrder, Envelope, Message, NotedWorkers, RunnerStatus, StopOrder, WorkerKey, WorkerPhase, WorkerStatus,
    },
    prediction::{PluginIdentity, Position, Prediction},
    scenario_log::LogLine,
    spec::{OnPluginFailure, ResolvedArtifact, ResolvedHook, ResolvedScenario, ResolvedSource},
    topic::Topic,
};
use framehook_infra::{
    blobs::Blobs,
    bus::{Bus, BusError, Delivered, Ends, Record, Result, Subscription, Tail},
    space::Reserve,
};
use framehook_runner::{LastWord, RestartSchedule, RunnerConfig, RunnerError};
use jiff::Timestamp;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; reached only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// A bus that keeps everything, and whose topics can be taken away.
pub(crate) struct TestBus {
    state: watch::Sender<Topics>,
}

#[derive(Default)]
struct Topics {
    log: HashMap<Topic, Vec<Record>>,
    down: HashSet<Topic>,
    refused: usize,
}

impl TestBus {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new(Topics::default()) })
    }

    pub(crate) fn set_down(&self, topic: Topic, down: bool) {
        self.state.send_modify(|s| {
            if down {
                s.down.insert(topic)
            } else {
                s.down.remove(&topic)
            };
        });
    }

    /// Publications refused so far.
    pub(crate) fn refused(&self) -> usize {
        self.state.borrow().refused
    }

    /// Every byte that was ever published.
    pub(crate) fn text(&self) -> String {
        let state = self.state.borrow();
        state.log.values().flatten().map(|r| String::from_utf8_lossy(&r.payload).into_owned()).collect()
    }

    fn messages(&self, topic: Topic) -> Vec<Message> {
        let state = self.state.borrow();
        let records = state.log.get(&topic).into_iter().flatten();
        records.map(|r| Envelope::parse(&r.payload).unwrap().message).collect()
    }

    /// Waits until something on the bus makes `found` give an answer.
    pub(crate) async fn wait<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let mut changes = self.state.subscribe();
        let waiting = async {
            loop {
                if let Some(answer) = found() {
                    return answer;
                }
                changes.changed().await.unwrap();
            }
        };
        timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}

#[async_trait]
impl Bus for TestBus {
    async fn publish(&self, topic: Topic, records: Vec<Record>) -> Result<()> {
        let mut result = Ok(());
        self.state.send_modify(|s| {
            if s.down.contains(&topic) {
                s.refused += 1;
                result = Err(BusError::Unavailable("taken away by the test".into()));
            } else {
                s.log.entry(topic).or_default().extend(records);
            }
        });
        result
    }

    async fn tail(&self, topic: Topic) -> Result<Box<dyn Tail>> {
        let changes = self.state.subscribe();
        let next = changes.borrow().log.get(&topic).map_or(0, Vec::len);
        Ok(Box::new(TestTail { topic, changes, next }))
    }

    async fn subscribe(&self, _group: &str, _topic: Topic) -> Result<Box<dyn Subscription>> {
        Err(BusError::Unavailable("a runner has no group".into()))
    }

    async fn end_offset(&self, topic: Topic, _partition: i32) -> Result<i64> {
        Ok(self.state.borrow().log.get(&topic).map_or(0, |log| i64::try_from(log.len()).unwrap()))
    }

    async fn ends(&self, topic: Topic) -> Result<Ends> {
        Ok(Ends::from([(0, self.end_offset(topic, 0).await?)]))
    }

    async fn forget(&self, _topic: Topic, _partition: i32, _offset: i64) -> Result<()> {
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

struct TestTail {
    topic: Topic,
    changes: watch::Receiver<Topics>,
    next: usize,
}

#[async_trait]
impl Tail for TestTail {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>> {
        let (topic, next) = (self.topic, self.next);
        let count = |s: &Topics| s.log.get(&topic).map_or(0, Vec::len);
        let state = self.changes.wait_for(|s| count(s) > next).await;
        let state = state.map_err(|e| BusError::Unavailable(e.to_string()))?;
        let records: Vec<_> = state.log[&topic][next..].iter().take(limit).cloned().collect();
        self.next += records.len();
        let delivered = |(r, offset): (Record, i64)| Delivered { partition: 0, offset, key: r.key, payload: r.payload };
        Ok(records.into_iter().zip(0..).map(delivered).collect())
    }

    fn has_given(&self, ends: &Ends) -> bool {
        ends.values().all(|end| i64::try_from(self.next).unwrap() >= *end)
    }
}

/// A scenario of a test, with the plan of its worker.
#[derive(Clone)]
pub(crate) struct Clip {
    pub(crate) id: ScenarioId,
    pub(crate) path: PathBuf,
}

impl Clip {
    fn journal(&self) -> Vec<String> {
        let text = std::fs::read_to_string(format!("{}.journal", self.path.display())).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What the journal says about `word`.
    pub(crate) fn notes(&self, word: &str) -> Vec<String> {
        let prefix = format!("{word} ");
        self.journal().iter().filter_map(|l| l.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.journal().iter().any(|l| l == "done")
    }

    /// The frame each of its workers began with.
    pub(crate) fn starts(&self) -> Vec<u64> {
        self.notes("start").iter().map(|l| l.split(' ').nth(1).unwrap().parse().unwrap()).collect()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.notes("start").iter().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect()
    }
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) bus: Arc<TestBus>,
    pub(crate) blobs: Blobs,
    pub(crate) config: RunnerConfig,
    pub(crate) compiled: CompiledPlugins,
    pub(crate) model: Digest,
    pub(crate) cancel: CancellationToken,
    pub(crate) runner: Mutex<Option<JoinHandle<std::result::Result<LastWord, RunnerError>>>>,
    incarnation: Incarnation,
}

impl World {
    /// A running runner that has announced itself.
    pub(crate) async fn start(change: impl FnOnce(&mut RunnerConfig)) -> Self {
        Self::start_compiling(COMPILE_TIMEOUT, change).await
    }

    /// The same with another time for a compilation.
    pub(crate) async fn start_compiling(timeout: Duration, change: impl FnOnce(&mut RunnerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let support = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support");
        let worker = support.join("fake_worker.py");
        let plugin_host = support.join("fake_plugin_host.py");
        let (recordings, measured) = (dir.path().join("recordings"), dir.path().join("measured"));
        let id = RunnerId("runner-1".into());
        let mut config = RunnerConfig::new(id, worker.clone(), worker, recordings, measured);
        config.source_dirs = vec![dir.path().to_owned()];
        // The scripts write a journal, and Python wants a working directory that exists.
        let taken_away = [Piece::Limits, Piece::User, Piece::WorkingDirectory];
        config.sandbox = taken_away.into_iter().fold(Sandbox::default(), Sandbox::without);
        config.heartbeat = Duration::from_millis(100);
        // A pre-warmed worker is ready at once: what shall be seen between two has to outlast a heartbeat's
        // coalescing.
        let (quick, base) = (Duration::from_millis(50), Duration::from_millis(2));
        config.restarts = RestartSchedule { quick, base, max_attempts: 3, ..RestartSchedule::default() };
        change(&mut config);
        let (folder, sandbox) = (dir.path().join("cache"), config.sandbox.clone());
        let settings = Settings { folder, engine: "test".into(), plugin_host, sandbox, timeout };
        let compiled = CompiledPlugins::open(settings).unwrap();
        let blobs = Blobs::open(dir.path(), None, Reserve::NONE).await.unwrap();
        let (bus, cancel) = (TestBus::new(), CancellationToken::new());
        let run = framehook_runner::run(config.clone(), compiled.clone(), bus.clone(), blobs.clone(), cancel.clone());
        let runner = Mutex::new(Some(tokio::spawn(run)));
        let first = bus.wait("a first heartbeat", || heartbeats(&bus).first().cloned()).await;
        let model = upload(&blobs, "model").await;
        Self { dir, bus, blobs, config, compiled, model, cancel, runner, incarnation: first.incarnation }
    }

    pub(crate) fn clip(&self, plan: serde_json::Value) -> Clip {
        let id = ScenarioId::generate();
        let path = self.dir.path().join(id.to_string());
        std::fs::write(&path, plan.to_string()).unwrap();
        Clip { id, path }
    }

    pub(crate) fn order(&self, clip: &Clip, generation: Generation) -> DeployOrder {
        let artifact = ResolvedArtifact { name: "m".into(), version: "1".into(), digest: self.model.clone() };
        let input = InputSpec {
            tensor: "images".into(),
            width: 32,
            height: 32,
            resize: Resize::Letterbox,
            anchor: Anchor::Center,
            channels: Channels::Rgb,
            pad: 114,
            scale: 1.0,
            mean: [0.0; 3],
            std: [1.0; 3],
            layout: Layout::Nchw,
            element: Element::Float32,
            planes: 3,
            batch: 1,
            inputs: Vec::new(),
        };
        DeployOrder {
            scenario_id: clip.id,
            generation,
            runner_id: self.config.runner_id.clone(),
            incarnation: self.incarnation,
            revision: 1,
            created_at: Timestamp::UNIX_EPOCH,
            scenario: ResolvedScenario {
                source: ResolvedSource::File(clip.path.display().to_string()),
                model: artifact,
                input,
                models: Default::default(),
                limits: Default::default(),
                pre: Vec::new(),
                post: Vec::new(),
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
            },
            resume_after: None,
            fresh: false,
            state: HookState::default(),
            execution: None,
        }
    }

    pub(crate) async fn send(&self, message: Message) {
        let envelope = Envelope::new(message, Timestamp::now());
        let record = Record::try_from(&envelope).unwrap();
        self.bus.publish(Topic::ToDeploy, vec![record]).await.unwrap();
    }

    pub(crate) async fn deploy(&self, clip: &Clip, generation: Generation) {
        self.send(Message::Deploy(Box::new(self.order(clip, generation)))).await;
    }

    /// Deploys a clip with post hooks of this text.
    pub(crate) async fn deploy_with_plugin(&self, clip: &Clip, text: &str) {
        let digest = upload(&self.blobs, text).await;
        let identity = PluginIdentity { name: text.into(), version: "1".into(), digest };
        let mut order = self.order(clip, 1);
        order.scenario.post = vec![ResolvedHook { identity, config: serde_json::json!({"answer": 42}) }];
        self.send(Message::Deploy(Box::new(order))).await;
    }

    pub(crate) async fn stop(&self, clip: &Clip, generation: Generation) {
        let runner_id = self.config.runner_id.clone();
        let incarnation = self.incarnation;
        self.send(Message::Stop(StopOrder { scenario_id: clip.id, generation, runner_id, incarnation })).await;
    }

    /// Tells the runner that the end of this generation is on record.
    pub(crate) async fn note(&self, clip: &Clip, generation: Generation) {
        let (runner_id, incarnation) = (self.config.runner_id.clone(), self.incarnation);
        let workers = vec![WorkerKey { scenario_id: clip.id, generation }];
        self.send(Message::Noted(NotedWorkers { runner_id, incarnation, workers })).await;
    }

    /// Waits for a status of this generation.
    pub(crate) async fn status(
        &self,
        clip: &Clip,
        generation: Generation,
        found: impl Fn(&WorkerStatus) -> bool,
    ) -> WorkerStatus {
        let what = format!("a status of {} generation {generation}", clip.id);
        self.bus.wait(&what, || self.history(clip, generation).into_iter().find(|s| found(s))).await
    }

    pub(crate) async fn phase(&self, clip: &Clip, generation: Generation, phase: WorkerPhase) -> WorkerStatus {
        self.status(clip, generation, |s| {
            assert!(s.phase == phase || !s.phase.is_ended(), "waiting for {phase:?}: {s:?}");
            s.phase == phase
        })
        .await
    }

    /// All statuses of a generation that heartbeats told so far.
    pub(crate) fn history(&self, clip: &Clip, generation: Generation) -> Vec<WorkerStatus> {
        let workers = heartbeats(&self.bus).into_iter().flat_map(|h| h.workers);
        workers.filter(|w| w.scenario_id == clip.id && w.generation == generation).collect()
    }

    pub(crate) fn last_heartbeat(&self) -> RunnerStatus {
        heartbeats(&self.bus).pop().unwrap()
    }

    pub(crate) fn results(&self, clip: &Clip) -> Vec<Prediction> {
        let results = self.bus.messages(Topic::Results).into_iter().map(|message| match message {
            Message::Result(frame) => serde_json::from_str::<Prediction>(frame.json()).unwrap(),
            other => panic!("{other:?} among the results"),
        });
        results.filter(|p| p.scenario_id == clip.id).collect()
    }

    /// The lines of a clip's log that were published, with their numbers.
    pub(crate) fn logged(&self, clip: &Clip) -> Vec<(u64, LogLine)> {
        let logged = self.bus.messages(Topic::ScenarioLogs).into_iter().map(|message| match message {
            Message::Logged(logged) => logged,
            other => panic!("{other:?} among the logs"),
        });
        logged.filter(|l| l.scenario_id == clip.id).flat_map(|l| (l.first..).zip(l.lines)).collect()
    }

    pub(crate) fn frames(&self, clip: &Clip) -> Vec<u64> {
        self.results(clip).iter().map(|p| p.frame).collect()
    }

    pub(crate) async fn published(&self, clip: &Clip, frames: u64) {
        self.bus.wait("published frames", || (self.results(clip).len() as u64 >= frames).then_some(())).await;
    }

    /// Cancels the runner and waits for its end.
    pub(crate) async fn shut_down(&self) -> LastWord {
        self.cancel.cancel();
        let runner = self.runner.lock().unwrap().take().unwrap();
        timeout(DEADLINE, runner).await.expect("the runner does not end").unwrap().unwrap()
    }

    /// The list of compilations is one of them.
    pub(crate) fn files_in_cache(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.compiled.folder()).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub(crate) fn compilations(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.compiled.folder().join("compilations")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn heartbeats(bus: &TestBus) -> Vec<RunnerStatus> {
    let status = |message| match message {
        Message::RunnerStatus(status) => status,
        other => panic!("{other:?} among the heartbeats"),
    };
    bus.messages(Topic::RunnerStatus).into_iter().map(status).collect()
}

pub(crate) async fn upload(blobs: &Blobs, text: &str) -> Digest {
    let mut upload = blobs.begin(1 << 20).await.unwrap();
    upload.write(text.as_bytes()).await.unwrap();
    blobs.commit(upload.finish().await.unwrap()).await.unwrap()
}

pub(crate) fn position(frame: u64) -> Option<Position> {
    Some(Position { pts_us: i64::try_from(frame).unwrap() * 40_000, frame })
}

/// A process that is gone, or about to be reaped.
pub(crate) fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name in parentheses.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// The processes that run this script.
pub(crate) fn processes_of(script: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let runs = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == script.as_os_str().as_encoded_bytes())
    };
    pids.filter(runs).collect()
}

/// Waits for what no message tells.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}
