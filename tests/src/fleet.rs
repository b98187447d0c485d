//! A fleet of simulated runners on a real Kafka: they take orders at once as a runner must
//! (`framehook_core::fences`), tell of themselves twice a second, run nothing, and never fail. So
//! whatever an orchestrator does to their workers is its own fault.
//!
//! One thread plays all of them. It counts every order, so that superfluous ones show.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use framehook_core::{
    fences::{Fences, Verdict},
    ids::{Generation, Incarnation, RunnerId, ScenarioId},
    message::{Envelope, Message, RunnerStatus, WorkerPhase, WorkerStatus},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use uuid::Uuid;

use crate::servers::topics;

/// As a runner's.
const BEAT: Duration = Duration::from_millis(500);

/// What a runner of the fleet has, for scenarios that shall run there and nowhere else.
pub const LABEL: (&str, &str) = ("fleet", "simulated");

/// Dropping it ends the fleet without a word.
pub struct Fleet {
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the fleet was told.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Orders to deploy, of each generation of a scenario.
    pub deploys: BTreeMap<(ScenarioId, Generation), u32>,
    pub stops: u32,
    /// What runs now.
    pub running: BTreeSet<(ScenarioId, Generation)>,
}

impl Fleet {
    /// So many runners with this many places each, on the topics of this prefix.
    ///
    /// # Panics
    /// When the broker does not answer.
    #[must_use]
    pub fn start(brokers: &str, prefix: &str, runners: usize, capacity: u32) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let end = Arc::new(AtomicBool::new(false));
        let mut stage = Stage::new(brokers, prefix, runners, capacity, seen.clone());
        let stop = end.clone();
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                stage.step();
            }
        });
        Self { seen, end, thread: Some(thread) }
    }

    /// What it was told so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Runner {
    status: RunnerStatus,
    fences: Fences,
    workers: BTreeMap<ScenarioId, WorkerStatus>,
    beat_at: Instant,
}

/// A client of librdkafka may forget a broker that was frozen for good, so one that gets nothing for
/// so long is replaced, as the platform's are. Longer than a fetch waits for records.
const SILENCE: Duration = Duration::from_secs(5);

/// Sends heartbeats. As a runner, each waits for the answer before it says more, and has its turn
/// whatever the others do.
struct Heartbeats {
    config: ClientConfig,
    topic: String,
    producer: BaseProducer<UnderWay>,
    sent: Instant,
}

/// Whose heartbeat is on its way, and whether one arrived.
#[derive(Clone)]
struct UnderWay(Arc<(Vec<AtomicBool>, AtomicBool)>);

impl ClientContext for UnderWay {}

impl ProducerContext for UnderWay {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, runner: usize) {
        self.0.0[runner].store(false, Ordering::Relaxed);
        self.0.1.fetch_or(result.is_ok(), Ordering::Relaxed);
    }
}

impl Heartbeats {
    fn new(config: ClientConfig, topic: String, runners: usize) -> Self {
        let producer = producer(&config, runners);
        Self { config, topic, producer, sent: Instant::now() }
    }

    fn poll(&mut self) {
        self.producer.poll(Duration::ZERO);
        let (under_way, has_arrived) = &*self.producer.context().0;
        if has_arrived.swap(false, Ordering::Relaxed) {
            self.sent = Instant::now();
        } else if self.sent.elapsed() > SILENCE {
            self.producer = producer(&self.config, under_way.len());
            self.sent = Instant::now();
        }
    }

    /// `false` while the last one is on its way.
    fn send(&self, runner: usize, key: &str, payload: impl FnOnce() -> Vec<u8>) -> bool {
        let is_under_way = &self.producer.context().0.0[runner];
        if is_under_way.swap(true, Ordering::Relaxed) {
            return false;
        }
        let payload = payload();
        let record = BaseRecord::with_opaque_to(&self.topic, runner).key(key).payload(&payload);
        if self.producer.send(record).is_err() {
            is_under_way.store(false, Ordering::Relaxed);
        }
        true
    }
}

fn producer(config: &ClientConfig, runners: usize) -> BaseProducer<UnderWay> {
    let under_way = (0..runners).map(|_| AtomicBool::default()).collect();
    config.create_with_context(UnderWay(Arc::new((under_way, AtomicBool::default())))).expect("a producer")
}

/// Reads orders, each once.
struct Orders {
    config: ClientConfig,
    places: TopicPartitionList,
    consumer: BaseConsumer,
    heard: Instant,
    /// What was read.
    ids: BTreeSet<Uuid>,
}

impl Orders {
    fn new(config: ClientConfig, places: TopicPartitionList) -> Self {
        let consumer = consumer(&config, &places);
        Self { config, places, consumer, heard: Instant::now(), ids: BTreeSet::new() }
    }

    /// The next one, if it comes in time.
    fn next(&mut self, wait: Duration) -> Option<Message> {
        if self.heard.elapsed() > SILENCE {
            self.consumer = consumer(&self.config, &self.places);
            self.heard = Instant::now();
        }
        loop {
            let Ok(record) = self.consumer.poll(wait)? else { continue };
            self.heard = Instant::now();
            let next = Offset::Offset(record.offset() + 1);
            let place = self.places.set_partition_offset(record.topic(), record.partition(), next);
            place.expect("only what was assigned comes");
            // A relay that does not know whether it got through publishes the same order again.
            if let Ok(envelope) = Envelope::parse(record.payload().unwrap_or_default())
                && self.ids.insert(envelope.id)
            {
                return Some(envelope.message);
            }
        }
    }
}

fn consumer(config: &ClientConfig, places: &TopicPartitionList) -> BaseConsumer {
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.assign(places).expect("partitions that exist");
    consumer
}

struct Stage {
    orders: Orders,
    heartbeats: Heartbeats,
    runners: Vec<Runner>,
    by_incarnation: HashMap<Incarnation, usize>,
    seen: Arc<Mutex<Seen>>,
}

impl Stage {
    fn new(brokers: &str, prefix: &str, runners: usize, capacity: u32, seen: Arc<Mutex<Seen>>) -> Self {
        let mut config = ClientConfig::new();
        // As those of the platform: librdkafka's own are longer than anything here waits.
        config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "1000");
        config.set("socket.timeout.ms", "10000").set("metadata.recovery.rebootstrap.trigger.ms", "3000");
        // As a runner's: who is not answered for this long says something newer.
        let mut sending = config.clone();
        sending.set("message.timeout.ms", "10000");
        let heartbeats = Heartbeats::new(sending, format!("{prefix}runner_status"), runners);
        config.set("group.id", "framehook-fleet").set("enable.auto.commit", "false");
        let orders = format!("{prefix}to_deploy");
        let mut places = TopicPartitionList::new();
        for (partition, end) in topics::ends(brokers, &orders) {
            places.add_partition_offset(&orders, partition, Offset::Offset(end)).expect("a partition");
        }
        let orders = Orders::new(config, places);
        let now = Instant::now();
        let runner = |n: usize| Runner {
            status: RunnerStatus {
                runner_id: RunnerId(format!("simulated-{n:04}")),
                incarnation: Incarnation::generate(),
                sequence: 0,
                capacity,
                memory_mib: None,
                draining: false,
                version: "0.0.0".into(),
                labels: BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]),
                confinement: vec![],
                providers: Vec::new(),
                workers: vec![],
            },
            fences: Fences::default(),
            workers: BTreeMap::new(),
            // Spread over the time between two.
            beat_at: now + BEAT * u32::try_from(n).unwrap_or(0) / u32::try_from(runners).unwrap_or(1),
        };
        let runners: Vec<_> = (0..runners).map(runner).collect();
        let by_incarnation = runners.iter().enumerate().map(|(n, r)| (r.status.incarnation, n)).collect();
        Self { orders, heartbeats, runners, by_incarnation, seen }
    }

    /// Some milliseconds in the life of all of them.
    fn step(&mut self) {
        let mut wait = Duration::from_millis(5);
        while let Some(message) = self.orders.next(wait) {
            wait = Duration::ZERO;
            if let Some(n) = self.take(message) {
                self.runners[n].beat_at = Instant::now();
            }
        }
        self.heartbeats.poll();
        let now = Instant::now();
        for (n, runner) in self.runners.iter_mut().enumerate().filter(|(_, runner)| runner.beat_at <= now) {
            let id = runner.status.runner_id.clone();
            if self.heartbeats.send(n, &id.0, || heartbeat(runner)) {
                // Late beats are not made up for.
                runner.beat_at = now + BEAT;
            }
        }
    }

    /// Gives the runner that took the order.
    fn take(&mut self, message: Message) -> Option<usize> {
        let (incarnation, scenario, generation, is_stop) = match message {
            Message::Deploy(order) => (order.incarnation, order.scenario_id, order.generation, false),
            Message::Stop(order) => (order.incarnation, order.scenario_id, order.generation, true),
            _ => return None,
        };
        let n = *self.by_incarnation.get(&incarnation)?;
        let runner = &mut self.runners[n];
        let mut seen = self.seen.lock();
        let (verdict, phase) = if is_stop {
            seen.stops += 1;
            (runner.fences.stop(scenario, generation), WorkerPhase::Stopped)
        } else {
            *seen.deploys.entry((scenario, generation)).or_default() += 1;
            (runner.fences.deploy(scenario, generation), WorkerPhase::Running)
        };
        if !matches!(verdict, Verdict::Start | Verdict::Stop | Verdict::StopUnknown) {
            return None;
        }
        let status = WorkerStatus::new(scenario, generation, phase);
        if let Some(older) = runner.workers.insert(scenario, status) {
            seen.running.remove(&(scenario, older.generation));
        }
        if !is_stop {
            seen.running.insert((scenario, generation));
        }
        Some(n)
    }
}

fn heartbeat(runner: &mut Runner) -> Vec<u8> {
    runner.status.sequence += 1;
    let status = RunnerStatus { workers: runner.workers.values().cloned().collect(), ..runner.status.clone() };
    let envelope = Envelope::new(Message::RunnerStatus(status), Timestamp::now());
    serde_json::to_vec(&envelope).expect("a heartbeat has no keys but strings")
}
