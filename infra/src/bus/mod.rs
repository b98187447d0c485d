//! The bus: topics of records, kept until everybody who needs them has read them.
//!
//! One trait, one adapter a broker, one conformance suite that each adapter passes. Within a partition the
//! order is that of publishing; records with the same key share a partition. Delivery is at least once.

use std::collections::BTreeMap;

use async_trait::async_trait;
use framehook_core::{message::Envelope, topic::Topic};

pub type SharedBus = std::sync::Arc<dyn Bus>;

#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The broker cannot be reached, or its disk is full; the same call may succeed later.
    #[error("the message bus is not available: {0}")]
    Unavailable(String),
}

pub type Result<T, E = BusError> = std::result::Result<T, E>;

/// A record to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: String,
    pub payload: Vec<u8>,
    /// The trace of the message inside, again, for brokers and tools that do not look inside.
    pub traceparent: Option<String>,
}

impl TryFrom<&Envelope> for Record {
    type Error = serde_json::Error;

    fn try_from(envelope: &Envelope) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_vec(envelope)?;
        Ok(Self { key: envelope.key(), payload, traceparent: envelope.traceparent.clone() })
    }
}

/// The next offset of each partition.
pub type Ends = BTreeMap<i32, i64>;

/// A record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub payload: Vec<u8>,
}

#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Returns once all records are durable, in this order within each partition: here, or where
    /// their reader has stored them. On an error any part of them may have been published.
    async fn publish(&self, topic: Topic, records: Vec<Record>) -> Result<()>;

    /// Everything published after this call returned, on all partitions, without a group: for wake-ups,
    /// orders and heartbeats, whose readers are level-triggered.
    async fn tail(&self, topic: Topic) -> Result<Box<dyn Tail>>;

    /// A share of the partitions, handed out among the members of `group`. The reader says where to begin: on
    /// each [`Fetched::Assigned`] it must [`Subscription::seek`] to the offset it has stored.
    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Subscription>>;

    /// The offset the next record of this partition will get: with a stored offset it gives a lag.
    async fn end_offset(&self, topic: Topic, partition: i32) -> Result<i64>;

    /// The same of all partitions: a tail that has given everything before them has given all that
    /// was published before this call. An error where a partition cannot be asked: an answer is
    /// never of before the call.
    async fn ends(&self, topic: Topic) -> Result<Ends>;

    /// Readers have stored what they need of the records before `offset`, and will not ask for them
    /// any more; a bus that keeps records for a time instead does nothing.
    async fn forget(&self, topic: Topic, partition: i32, offset: i64) -> Result<()>;

    /// Shows a record that cannot be read to whoever looks at the broker. The store's dead letters are what
    /// counts, so by default nothing more is kept of it.
    async fn dead_letter(&self, _topic: Topic, _record: &Delivered, _reason: &str) -> Result<()> {
        Ok(())
    }

    /// Whether records can be published.
    async fn ping(&self) -> Result<()>;
}

#[async_trait]
pub trait Tail: Send {
    /// Waits for at least one record, gives at most `limit`. Cancel-safe: dropping the future loses nothing.
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>>;

    /// Whether everything before these ends was given.
    fn has_given(&self, ends: &Ends) -> bool;
}

#[async_trait]
pub trait Subscription: Send {
    /// Waits for something to happen. Cancel-safe.
    async fn next(&mut self, limit: usize) -> Result<Fetched>;

    /// The next record of `partition` to deliver. Nothing of a partition is delivered before its first seek.
    async fn seek(&mut self, partition: i32, offset: i64) -> Result<()>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// These partitions are ours from now on: seek each.
    Assigned(Vec<i32>),
    /// These are not any more.
    Revoked(Vec<i32>),
    /// Records of one partition, in order. Offsets may have gaps.
    Records { partition: i32, records: Vec<Delivered> },
    /// The log of this partition is another one, which ends before where it was read: the broker has lost
    /// what it had. It begins at `begin`; seek, until then nothing of it is delivered.
    LogReset { partition: i32, begin: i64 },
}
