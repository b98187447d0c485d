//! A member of a group: the broker hands out the partitions, the reader says where to begin.
//!
//! A member that does not ask for five minutes (`max.poll.interval.ms`, librdkafka's default) loses its
//! partitions, on purpose: it could not store anything for that long, and another may. When it asks again it
//! is a member again (classic), or gets an error and joins anew (KIP-848: librdkafka 2.12 takes the broker's
//! answer to the late member as fatal). Until then what it is sent waits in a bounded queue, and the rest on
//! the broker.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use framehook_core::topic::Topic;
use rdkafka::consumer::Consumer as _;

use super::{
    Cluster, GroupProtocol, blocking,
    reader::{self, Reader},
};
use crate::bus::{BusError, Delivered, Fetched, Result, Subscription};

/// How long a member of a classic group may be silent (with KIP-848 the broker's
/// `group.consumer.session.timeout.ms` says so). A third of librdkafka's default: a killed inbox must not
/// hold up its results for longer.
const SESSION_TIMEOUT_MS: &str = "15000";

pub(super) struct Member {
    reader: Reader,
    assigned: BTreeSet<i32>,
    /// A record of another partition than those before it.
    held: Option<Delivered>,
}

impl Member {
    pub(super) async fn join(cluster: &Arc<Cluster>, group: &str, topic: Topic) -> Result<Self> {
        let mut config = reader::config(cluster, group);
        match cluster.config.protocol {
            GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
            GroupProtocol::Classic => config
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", SESSION_TIMEOUT_MS),
        };
        let reader = Reader::open(cluster, config, topic).await?;
        let (consumer, topic) = (Arc::clone(&reader.consumer), cluster.config.topic(topic));
        blocking(move || Ok(consumer.subscribe(&[&topic])?)).await?;
        Ok(Self { reader, assigned: BTreeSet::new(), held: None })
    }

    /// What changed, if it concerns anything.
    fn apply(&mut self, change: Fetched) -> Option<Fetched> {
        let is_nothing = match &change {
            Fetched::Assigned(new) => {
                self.assigned.extend(new);
                new.is_empty()
            }
            Fetched::Revoked(gone) => {
                for partition in gone {
                    self.assigned.remove(partition);
                    self.reader.clear_position(*partition);
                }
                self.held.take_if(|record| gone.contains(&record.partition));
                gone.is_empty()
            }
            Fetched::LogReset { partition, .. } => {
                self.held.take_if(|record| record.partition == *partition);
                false
            }
            Fetched::Records { .. } => false,
        };
        (!is_nothing).then_some(change)
    }

    /// Records of one partition, as far as they are here.
    fn take(&mut self, limit: usize) -> Result<Option<Fetched>> {
        let mut records = Vec::from_iter(self.held.take());
        while records.len() < limit.max(1) {
            match self.reader.take()? {
                Some(next) if records.last().is_none_or(|last: &Delivered| last.partition == next.partition) => {
                    records.push(next);
                }
                other => {
                    self.held = other;
                    break;
                }
            }
        }
        Ok(records.first().map(|first| first.partition).map(|partition| Fetched::Records { partition, records }))
    }
}

#[async_trait]
impl Subscription for Member {
    async fn next(&mut self, limit: usize) -> Result<Fetched> {
        loop {
            if let Some(change) = self.reader.take_change() {
                if let Some(change) = self.apply(change?) {
                    return Ok(change);
                }
                continue;
            }
            if let Some(records) = self.take(limit)? {
                return Ok(records);
            }
            if !self.reader.has_changes() {
                self.reader.wait().await?;
            }
        }
    }

    async fn seek(&mut self, partition: i32, offset: i64) -> Result<()> {
        if !self.assigned.contains(&partition) {
            return Err(BusError::Unavailable(format!("partition {partition} is not assigned to this member")));
        }
        self.held.take_if(|record| record.partition == partition);
        if self.reader.is_leaving(partition) {
            // Told next; until then nothing of it is given.
            self.reader.clear_position(partition);
            return Ok(());
        }
        self.reader.seek(partition, offset).await
    }
}
