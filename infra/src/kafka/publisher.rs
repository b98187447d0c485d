//! Publishing: all records of a call at once, then waiting for all of them.
//!
//! Invariants: the records of one call are queued in their order and idempotently, so that librdkafka's own
//! retries neither repeat nor reorder them. A producer that cannot go on (its broker lost what it had
//! acknowledged), or whose records or questions fail, is replaced by a new one: what the old one may still
//! deliver comes twice or late, which readers are made for.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _},
};
use tokio::time::{Instant, sleep};

use super::{Client, ConnectError, REQUEST_TIMEOUT, Reporter, topics::MAX_MESSAGE};
use crate::bus::{BusError, Record, Result};

pub(super) type Producer = Arc<Client<FutureProducer<Reporter>>>;

/// After this a publisher is told; it decides what to do meanwhile and tries again. A broker comes back in 4
/// s.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Memory for what is on its way: a second of two hundred streams, and some of the largest messages.
const QUEUE_KILOBYTES: &str = "65536";

/// How long a record waits for others to share its request: callers give their batches whole, and what
/// arrives while requests are on their way shares the next. Measured with batches of 64: 46,000 records a
/// second and 0.4 ms for one record, against 28,000 and 1.6 ms with half a millisecond here, and 10,000 and
/// 5.7 ms with librdkafka's 5 ms.
const LINGER_MS: &str = "0";

/// Until the queue may have room again.
const QUEUE_RETRY: Duration = Duration::from_millis(10);

/// A record on its way out.
pub(super) struct Outgoing<'a> {
    pub(super) key: &'a str,
    pub(super) payload: &'a [u8],
    /// For the tools of brokers; our own readers do not look at it.
    pub(super) header: Option<(&'static str, &'a str)>,
}

impl<'a> From<&'a Record> for Outgoing<'a> {
    fn from(record: &'a Record) -> Self {
        let header = record.traceparent.as_deref().map(|value| ("traceparent", value));
        Self { key: &record.key, payload: &record.payload, header }
    }
}

pub(super) struct Publisher {
    config: ClientConfig,
    current: Mutex<Current>,
}

struct Current {
    producer: Producer,
    /// One that is new has to find its brokers first.
    made_at: Instant,
}

impl Current {
    fn new(producer: FutureProducer<Reporter>) -> Self {
        Self { producer: Client::new(producer), made_at: Instant::now() }
    }
}

impl Publisher {
    pub(super) fn new(mut config: ClientConfig) -> Result<Self, ConnectError> {
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KILOBYTES)
            .set("linger.ms", LINGER_MS)
            .set("message.max.bytes", MAX_MESSAGE.to_string())
            .set("compression.codec", "lz4")
            // The hash that every other client has by default, so that a key is in one partition, whoever
            // writes.
            .set("partitioner", "murmur2_random");
        let producer = config.create_with_context(Reporter)?;
        Ok(Self { config, current: Mutex::new(Current::new(producer)) })
    }

    pub(super) fn producer(&self) -> Producer {
        self.current.lock().producer.clone()
    }

    pub(super) async fn publish(&self, topic: &str, records: &[Outgoing<'_>]) -> Result<()> {
        let producer = self.producer();
        let mut deliveries = Vec::with_capacity(records.len());
        let mut outcome = Ok(());
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        for record in records {
            match enqueue(&producer, topic, record, deadline).await {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // Waits for all, also after a failure: a late one must not come after the caller's next try.
        for delivery in deliveries {
            match delivery.await {
                Ok(Ok(_)) => {}
                Ok(Err((error, _))) => outcome = outcome.and(Err(error)),
                Err(_) => outcome = outcome.and(Err(KafkaError::Canceled)),
            }
        }
        outcome.map_err(|error| {
            self.replace_if_stuck(&producer, &error);
            BusError::from(error)
        })
    }

    /// `error` is what a record or a question of `failed` ended with. A client that finds no broker, or
    /// not the topic, may have forgotten all brokers for good (`reader::Health::Lost`); a new one has not.
    pub(super) fn replace_if_stuck(&self, failed: &Producer, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let fatal = failed.client().fatal_error();
        let is_records_own = matches!(error.rdkafka_error_code(), Some(Code::MessageSizeTooLarge | Code::QueueFull));
        let mut current = self.current.lock();
        let is_new = current.made_at.elapsed() < REQUEST_TIMEOUT;
        if !Arc::ptr_eq(&current.producer, failed) || fatal.is_none() && (is_records_own || is_new) {
            return;
        }
        let reason = fatal.map_or_else(|| error.to_string(), |(_, reason)| reason);
        match self.config.create_with_context(Reporter) {
            Ok(new) => {
                tracing::warn!("the Kafka producer does not get on and is replaced: {reason}");
                *current = Current::new(new);
            }
            Err(error) => tracing::error!("the Kafka producer cannot be replaced: {}", ConnectError::from(error)),
        }
    }
}

/// Waits while the queue is full.
async fn enqueue(
    producer: &Producer,
    topic: &str,
    record: &Outgoing<'_>,
    deadline: Instant,
) -> Result<DeliveryFuture, KafkaError> {
    loop {
        let mut queued = FutureRecord::to(topic).key(record.key).payload(record.payload);
        if let Some((key, value)) = record.header {
            queued = queued.headers(OwnedHeaders::new().insert(Header { key, value: Some(value) }));
        }
        match producer.send_result(queued) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                sleep(QUEUE_RETRY).await;
            }
            Err((error, _)) => return Err(error),
        }
    }
}
