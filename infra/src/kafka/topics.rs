//! The topics, and how they are made where they are missing.
//!
//! Topics that exist stay as they are: partitions and retention are the operator's from then on.

use std::{
    collections::BTreeMap,
    net::ToSocketAddrs as _,
    time::{Duration, Instant},
};

use framehook_core::{
    job::MAX_RECORD,
    topic::{DEAD_LETTERS, Layout, Topic},
};
use futures::executor::block_on;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
    metadata::Metadata,
};

use super::{ConnectError, KafkaConfig, Reporter};

/// The largest message of a worker, and room for its envelope.
pub(super) const MAX_MESSAGE: usize = MAX_RECORD + (1 << 20);

/// With three copies of each partition one broker may be away, and what was acknowledged is still on two.
const REPLICATION: i32 = 3;

/// Until a broker answers, and again until every new partition has a leader; a cluster of three takes 2 s for
/// both.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks at the leaders.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

type Admin = AdminClient<Reporter>;

/// Makes what is missing; gives the number of partitions of each topic. Waits for brokers.
pub(super) fn ensure(config: &KafkaConfig) -> Result<BTreeMap<Topic, i32>, ConnectError> {
    check(&config.brokers)?;
    let admin: Admin = config.client().create_with_context(Reporter)?;
    let all = Topic::ALL.map(|topic| (config.topic(topic), topic.layout()));
    let found = make(&admin, config, &all)?;
    for ((topic, Layout { partitions, .. }), found) in all.iter().zip(&found) {
        if found < partitions {
            tracing::warn!(topic, "{found} partitions where {partitions} are usual: fewer readers can share the work");
        }
    }
    Ok(Topic::ALL.into_iter().zip(found).collect())
}

/// Most installations never need it.
pub(super) fn ensure_dead_letters(config: &KafkaConfig, name: &str) -> Result<(), ConnectError> {
    let admin: Admin = config.client().create_with_context(Reporter)?;
    make(&admin, config, &[(name.to_owned(), DEAD_LETTERS)]).map(drop)
}

/// Makes what is missing; gives the number of partitions of each.
fn make(admin: &Admin, config: &KafkaConfig, topics: &[(String, Layout)]) -> Result<Vec<i32>, ConnectError> {
    let metadata = metadata(admin, config)?;
    let missing: Vec<_> = topics.iter().filter(|(name, _)| partitions(&metadata, name).is_none()).collect();
    if !missing.is_empty() {
        let brokers = i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX);
        create(admin, &missing, config.replication.unwrap_or(brokers.min(REPLICATION)))?;
    }
    when_led(admin, config, topics)
}

fn metadata(admin: &Admin, config: &KafkaConfig) -> Result<Metadata, ConnectError> {
    admin.inner().fetch_metadata(None, TIMEOUT).map_err(|error| {
        // librdkafka says the same of a host that nobody knows as of one where nobody listens.
        let unknown = addresses(&config.brokers).filter_map(|broker| broker.to_socket_addrs().err());
        let reason = unknown.map(|error| error.to_string()).next().unwrap_or_else(|| error.to_string());
        ConnectError::Unreachable { brokers: config.brokers.clone(), reason }
    })
}

/// Each must have a port; librdkafka would add one of its own.
fn check(brokers: &str) -> Result<(), ConnectError> {
    let has_port = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    match addresses(brokers).find(|broker| !has_port(broker)) {
        Some(broker) => Err(ConnectError::Address { broker: broker.to_owned() }),
        None => Ok(()),
    }
}

/// Without the protocol that one may have in front.
fn addresses(brokers: &str) -> impl Iterator<Item = &str> {
    brokers.split(',').map(|broker| broker.rsplit_once("://").map_or(broker, |(_, address)| address).trim())
}

/// `None` while there is no such topic, or a partition of it has no leader.
fn partitions(metadata: &Metadata, name: &str) -> Option<i32> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name)?;
    let is_led = !topic.partitions().is_empty() && topic.partitions().iter().all(|p| p.leader() >= 0);
    is_led.then(|| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
}

fn create(admin: &Admin, topics: &[&(String, Layout)], replication: i32) -> Result<(), ConnectError> {
    let max_message = MAX_MESSAGE.to_string();
    let retentions: Vec<_> = topics.iter().map(|(_, layout)| layout.retention.as_millis().to_string()).collect();
    let new: Vec<_> = topics
        .iter()
        .zip(&retentions)
        .map(|((name, Layout { partitions, compression, .. }), retention)| {
            let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(replication))
                .set("cleanup.policy", "delete")
                .set("retention.ms", retention)
                // A log goes by whole segments: one must not stay open for longer than its records are to be
                // kept.
                .set("segment.ms", retention)
                .set("compression.type", compression)
                .set("max.message.bytes", &max_message);
            if replication >= REPLICATION { topic.set("min.insync.replicas", "2") } else { topic }
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    for outcome in block_on(admin.create_topics(&new, &options))? {
        match outcome {
            Ok(topic) => tracing::info!(topic, replication, "topic made"),
            // Another process was quicker.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => return Err(ConnectError::Topic { topic, reason: error.to_string() }),
        }
    }
    Ok(())
}

/// Waits until all partitions have a leader; gives the number of partitions of each topic.
fn when_led(admin: &Admin, config: &KafkaConfig, topics: &[(String, Layout)]) -> Result<Vec<i32>, ConnectError> {
    let start = Instant::now();
    loop {
        let metadata = metadata(admin, config)?;
        let counts: Option<Vec<_>> = topics.iter().map(|(name, _)| partitions(&metadata, name)).collect();
        if let Some(counts) = counts {
            return Ok(counts);
        }
        if start.elapsed() > TIMEOUT {
            let missing = topics.iter().find(|(name, _)| partitions(&metadata, name).is_none());
            let topic = missing.map(|(name, _)| name.clone()).unwrap_or_default();
            let reason = format!("it has no leader after {} s", TIMEOUT.as_secs());
            return Err(ConnectError::Topic { topic, reason });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_has_a_host_and_a_port() {
        for brokers in ["kafka:9092", "a:1,b:2", "SASL_SSL://a:1, b:2", "[::1]:9092"] {
            assert!(check(brokers).is_ok(), "{brokers}");
        }
        for (brokers, wrong) in [("kafka", "kafka"), ("a:1,b", "b"), ("a:port", "a:port"), ("", ""), (":1", ":1")] {
            let error = check(brokers).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}` is not")) && error.contains("HOST:PORT"), "{error}");
        }
    }
}
