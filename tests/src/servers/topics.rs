//! What is on a Kafka cluster, for tests that repeat, reorder and spoil messages.

use std::time::Duration;

use futures::executor::block_on;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};

use crate::{DEADLINE, wait_for};

/// As it lies in a partition.
#[derive(Clone, Debug)]
pub struct Record {
    pub partition: i32,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A broker that answers does so within this.
const ANSWER: Duration = Duration::from_secs(10);

fn consumer(brokers: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "framehook-tests").set("enable.auto.commit", "false");
    config.create().expect("a consumer")
}

/// Makes a topic that is not there.
///
/// # Panics
/// When the broker does not.
pub fn create(brokers: &str, topic: &str, partitions: i32) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let made = block_on(admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(ANSWER))));
    assert!(made.as_ref().is_ok_and(|made| made.iter().all(Result::is_ok)), "{made:?}");
}

/// Next offset of each partition. One that was made just now may have no leader for a moment.
///
/// # Panics
/// When the broker does not answer.
#[must_use]
pub fn ends(brokers: &str, topic: &str) -> Vec<(i32, i64)> {
    let consumer = consumer(brokers);
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).expect("the topic's partitions");
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let end = |id| wait_for("a partition's end", DEADLINE, || consumer.fetch_watermarks(topic, id, ANSWER).ok()).1;
    partitions.map(|partition| (partition.id(), end(partition.id()))).collect()
}

/// Everything that is in a topic now, each partition in its order.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn read(brokers: &str, topic: &str) -> Vec<Record> {
    let consumer = consumer(brokers);
    let mut left: usize = 0;
    let mut all = TopicPartitionList::new();
    for (partition, end) in ends(brokers, topic) {
        let (start, _) = consumer.fetch_watermarks(topic, partition, ANSWER).expect("a partition's begin");
        left += usize::try_from(end - start).expect("an end is not before a begin");
        all.add_partition_offset(topic, partition, Offset::Offset(start)).expect("a partition");
    }
    consumer.assign(&all).expect("partitions that exist");
    let mut records = Vec::with_capacity(left);
    while records.len() < left {
        let message = consumer.poll(DEADLINE).expect("more records").expect("a record");
        let bytes = |part: Option<&[u8]>| part.unwrap_or_default().to_vec();
        let (key, payload) = (bytes(message.key()), bytes(message.payload()));
        records.push(Record { partition: message.partition(), key, payload });
    }
    records
}

/// Puts records into a topic, in this order.
///
/// # Panics
/// When the broker does not take them.
pub fn write(brokers: &str, topic: &str, records: &[Record]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("enable.idempotence", "true");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().expect("a producer");
    for Record { partition, key, payload } in records {
        let record = BaseRecord::to(topic).partition(*partition).key(key).payload(payload);
        producer.send(record).map_err(|(error, _)| error).expect("room in the producer's queue");
    }
    producer.flush(DEADLINE).expect("the broker takes them");
}
