//! The bus on Apache Kafka.
//!
//! Invariants:
//! - A record is published once it is on all in-sync replicas; a publisher hears of a failure within seconds
//!   and tries again, in the same order.
//! - The broker's groups only hand out partitions. Where reading begins is what the reader says: nothing is
//!   committed to Kafka, ever.
//! - librdkafka's calls that wait for a broker run on threads that may block; readers poll without waiting
//!   and are woken.
//!
//! Deliberately absent: transactions (the store's compare-and-set does what they would), a schema registry
//! (the messages carry their version), following a growing number of partitions (a restart does).

mod group;
mod publisher;
mod reader;
mod tail;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use framehook_core::topic::Topic;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::Producer as _,
};

use self::publisher::{Outgoing, Publisher};
use crate::bus::{Bus, BusError, Delivered, Ends, Record, Result, SharedBus, Subscription, Tail};

/// For what a broker answers at once: some elections of a leader fit in.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// An election takes some of these.
const LEADER_RETRY: Duration = Duration::from_millis(25);

/// A health check has to answer before its caller gives up.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How to reach a cluster. Not `Debug`: some properties are passwords.
#[derive(Clone, Default)]
pub struct KafkaConfig {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// In front of the name of each topic and group, so that installations can share a cluster.
    pub prefix: String,
    /// Copies of each partition; by default three, or as many as there are brokers.
    pub replication: Option<i32>,
    pub protocol: GroupProtocol,
    /// librdkafka's own, such as `security.protocol`, `sasl.*`, `ssl.*`. What Framehook's promises rest on
    /// cannot be changed by them.
    pub properties: BTreeMap<String, String>,
}

impl KafkaConfig {
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), ..Self::default() }
    }

    fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// What every client of ours has in common.
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("client.id", "framehook")
            // The defaults are 10 s, longer than a broker takes to come back, and 60 s, longer than a
            // runner's lease.
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.timeout.ms", "10000")
            // A broker that was frozen may answer that the cluster has none: librdkafka (2.12) then forgets
            // the ones it knows. Where a question of its own is under way it asks `bootstrap.servers` again
            // after this, and its five minutes are longer than everything here waits; else it never does, and
            // is replaced (`reader::Health::Lost`).
            .set("metadata.recovery.rebootstrap.trigger.ms", "3000")
            // Brokers close idle connections: not worth a log line.
            .set("log.connection.close", "false");
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        client.set("bootstrap.servers", &self.brokers);
        client
    }
}

/// How the members of a group agree on who reads what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// KIP-848, from Kafka 4.0 on: the broker decides, and a hand-over takes a second.
    #[default]
    Consumer,
    /// For older brokers; a hand-over takes some seconds.
    Classic,
}

impl FromStr for GroupProtocol {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "consumer" => Ok(Self::Consumer),
            "classic" => Ok(Self::Classic),
            _ => Err(format!("unknown group protocol `{name}`; expected `consumer` or `classic`")),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Without the value, which may be a password.
    #[error("the Kafka property `{key}` cannot be used: {reason}")]
    Property { key: String, reason: String },
    #[error("`{broker}` is not the address of a Kafka broker; expected HOST:PORT,HOST:PORT")]
    Address { broker: String },
    #[error("no Kafka broker of `{brokers}` answers: {reason}; check the address, and that a broker runs there")]
    Unreachable { brokers: String, reason: String },
    #[error("the Kafka topic `{topic}` cannot be made: {reason}")]
    Topic { topic: String, reason: String },
    #[error("a Kafka client cannot be made: {0}")]
    Client(String),
}

impl From<KafkaError> for ConnectError {
    fn from(error: KafkaError) -> Self {
        match error {
            // Its own text has the value.
            KafkaError::ClientConfig(_, reason, key, _) => Self::Property { key, reason },
            other => Self::Client(other.to_string()),
        }
    }
}

impl From<KafkaError> for BusError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(..) => ConnectError::from(error).into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<ConnectError> for BusError {
    fn from(error: ConnectError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A cluster with our topics on it.
pub struct Kafka(Arc<Cluster>);

struct Cluster {
    config: KafkaConfig,
    /// How many each topic has.
    partitions: BTreeMap<Topic, i32>,
    publisher: Arc<Publisher>,
    /// Whose dead letters have a topic.
    dead_letters: tokio::sync::Mutex<BTreeSet<Topic>>,
}

impl Kafka {
    /// Makes the topics that are missing. Any number of processes may do so at once.
    pub async fn connect(config: KafkaConfig) -> Result<SharedBus, ConnectError> {
        let connected = tokio::task::spawn_blocking(|| Cluster::connect(config)).await;
        let cluster = connected.map_err(|error| ConnectError::Client(error.to_string()))??;
        Ok(Arc::new(Self(Arc::new(cluster))))
    }
}

#[async_trait]
impl Bus for Kafka {
    async fn publish(&self, topic: Topic, records: Vec<Record>) -> Result<()> {
        let outgoing: Vec<_> = records.iter().map(Outgoing::from).collect();
        self.0.publisher.publish(&self.0.config.topic(topic), &outgoing).await
    }

    async fn tail(&self, topic: Topic) -> Result<Box<dyn Tail>> {
        Ok(Box::new(tail::KafkaTail::open(&self.0, topic).await?))
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Subscription>> {
        Ok(Box::new(group::Member::join(&self.0, group, topic).await?))
    }

    async fn end_offset(&self, topic: Topic, partition: i32) -> Result<i64> {
        self.0.end_offset(topic, partition).await
    }

    async fn ends(&self, topic: Topic) -> Result<Ends> {
        let partitions = 0..self.0.partitions[&topic];
        let mut ends = Ends::new();
        for partition in partitions {
            ends.insert(partition, self.0.end_offset(topic, partition).await?);
        }
        Ok(ends)
    }

    /// Records go when they are old enough.
    async fn forget(&self, _topic: Topic, _partition: i32, _offset: i64) -> Result<()> {
        Ok(())
    }

    async fn dead_letter(&self, topic: Topic, record: &Delivered, reason: &str) -> Result<()> {
        let name = self.0.config.topic(topic) + ".dlq";
        let mut made = self.0.dead_letters.lock().await;
        if !made.contains(&topic) {
            let (config, name) = (self.0.config.clone(), name.clone());
            blocking(move || Ok(topics::ensure_dead_letters(&config, &name)?)).await?;
            made.insert(topic);
        }
        drop(made);
        let (key, payload, header) = (record.key.as_str(), record.payload.as_slice(), Some(("reason", reason)));
        self.0.publisher.publish(&name, &[Outgoing { key, payload, header }]).await
    }

    async fn ping(&self) -> Result<()> {
        let topic = self.0.config.topic(Topic::Results);
        let producer = self.0.publisher.producer();
        blocking(move || Ok(producer.client().fetch_metadata(Some(&topic), PING_TIMEOUT).map(drop)?)).await
    }
}

impl Cluster {
    /// Waits for brokers.
    fn connect(config: KafkaConfig) -> Result<Self, ConnectError> {
        let partitions = topics::ensure(&config)?;
        let publisher = Arc::new(Publisher::new(config.client())?);
        Ok(Self { config, partitions, publisher, dead_letters: tokio::sync::Mutex::default() })
    }

    async fn end_offset(&self, topic: Topic, partition: i32) -> Result<i64> {
        let name = self.config.topic(topic);
        let count = self.partitions[&topic];
        if !(0..count).contains(&partition) {
            return Err(BusError::Unavailable(format!("topic {name} has {count} partitions and no {partition}")));
        }
        let (publisher, producer) = (Arc::clone(&self.publisher), self.publisher.producer());
        // The caller may have given up by then: a stuck producer is replaced all the same.
        let ask = move || {
            let watermarks = || producer.client().fetch_watermarks(&name, partition, REQUEST_TIMEOUT);
            let answer = when_led(watermarks);
            Ok(answer.inspect_err(|error| publisher.replace_if_stuck(&producer, error))?)
        };
        let (_begin, end) = blocking(ask).await?;
        Ok(end)
    }
}

/// Repeats while a partition has no leader that all agree on, as one that was just made, or whose broker just
/// died.
fn when_led<T>(call: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    use RDKafkaErrorCode as Code;
    let start = Instant::now();
    loop {
        let outcome = call();
        let code = outcome.as_ref().err().and_then(KafkaError::rdkafka_error_code);
        let is_passing = matches!(
            code,
            Some(
                Code::NotLeaderForPartition
                    | Code::LeaderNotAvailable
                    | Code::UnknownLeaderEpoch
                    | Code::FencedLeaderEpoch
            )
        );
        if !is_passing || start.elapsed() > REQUEST_TIMEOUT {
            return outcome;
        }
        std::thread::sleep(LEADER_RETRY);
    }
}

/// On a thread that may wait.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call).await.map_err(|error| BusError::Unavailable(error.to_string()))?
}

/// A client of librdkafka. Closing one waits for its brokers, so it happens on a thread that may block,
/// whoever drops the last handle.
struct Client<T: Send + 'static>(Option<T>);

impl<T: Send> Client<T> {
    fn new(client: T) -> Arc<Self> {
        Arc::new(Self(Some(client)))
    }
}

impl<T: Send> Deref for Client<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only dropping takes it out")
    }
}

impl<T: Send> Drop for Client<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(client))),
            Err(_) => drop(client),
        }
    }
}

/// librdkafka reports what it is going to try again as an error.
struct Reporter;

impl ClientContext for Reporter {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

fn report(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) => tracing::info!("kafka: {reason}"),
        _ => tracing::warn!("kafka: {reason}"),
    }
}
