//! Everything from now on, on all partitions: assigned by hand, without a group.

use std::sync::Arc;

use async_trait::async_trait;
use framehook_core::topic::Topic;
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _};

use super::{
    Cluster, REQUEST_TIMEOUT, blocking,
    reader::{self, Reader},
    when_led,
};
use crate::bus::{BusError, Delivered, Ends, Fetched, Result, Tail};

/// librdkafka wants a name to assign partitions by hand. Brokers hear of it and store nothing.
const GROUP: &str = "framehook-tail";

pub(super) struct KafkaTail {
    cluster: Arc<Cluster>,
    topic: Topic,
    reader: Reader,
    /// Its client failed: whoever asks again goes on with another one.
    has_failed: bool,
}

impl KafkaTail {
    pub(super) async fn open(cluster: &Arc<Cluster>, topic: Topic) -> Result<Self> {
        let reader = Reader::open(cluster, reader::config(cluster, GROUP), topic).await?;
        // Asked for this "time", a broker answers the offset that the next record gets.
        let places: Vec<_> = (0..cluster.partitions[&topic]).map(|partition| (partition, Offset::End)).collect();
        let places = list(&cluster.config.topic(topic), &places)?;
        let consumer = Arc::clone(&reader.consumer);
        let ends = move || {
            let ends = consumer.offsets_for_times(places.clone(), REQUEST_TIMEOUT)?;
            ends.elements().iter().try_for_each(|end| end.error())?;
            Ok(ends)
        };
        let ends = blocking(move || Ok(when_led(ends)?)).await?;
        let mut at = Vec::new();
        for end in ends.elements() {
            let offset = end.offset().to_raw().filter(|&offset| offset >= 0);
            let unknown =
                || BusError::Unavailable(format!("the end of {}/{} is unknown", end.topic(), end.partition()));
            at.push((end.partition(), offset.ok_or_else(unknown)?));
        }
        let mut tail = Self { cluster: Arc::clone(cluster), topic, reader, has_failed: false };
        tail.assign(at).await?;
        Ok(tail)
    }

    async fn assign(&mut self, places: Vec<(i32, i64)>) -> Result<()> {
        let offsets: Vec<_> = places.iter().map(|&(partition, next)| (partition, Offset::Offset(next))).collect();
        let list = list(&self.cluster.config.topic(self.topic), &offsets)?;
        let consumer = Arc::clone(&self.reader.consumer);
        blocking(move || Ok(consumer.assign(&list)?)).await?;
        for (partition, next) in places {
            self.reader.place(partition, next);
        }
        Ok(())
    }

    async fn read(&mut self, limit: usize) -> Result<Vec<Delivered>> {
        loop {
            let mut records = Vec::new();
            while records.len() < limit.max(1) {
                match self.reader.take() {
                    Ok(Some(record)) => records.push(record),
                    Err(error) if records.is_empty() => return Err(error),
                    Ok(None) | Err(_) => break,
                }
            }
            if !records.is_empty() {
                return Ok(records);
            }
            match self.reader.take_change().transpose()? {
                // Everything in another log is from after it was opened; what it was told by is told again.
                Some(Fetched::LogReset { partition, begin }) => {
                    tracing::warn!(topic = self.topic.name(), partition, "the log is another one: following it");
                    self.reader.place(partition, begin + 1);
                }
                _ => self.reader.wait().await?,
            }
        }
    }

    /// The same with a new consumer, from where this one is.
    async fn reopen(&mut self) -> Result<()> {
        let places = self.reader.positions().collect();
        let reader = Reader::open(&self.cluster, reader::config(&self.cluster, GROUP), self.topic).await?;
        let mut tail = Self { cluster: Arc::clone(&self.cluster), topic: self.topic, reader, has_failed: false };
        tail.assign(places).await?;
        *self = tail;
        Ok(())
    }
}

#[async_trait]
impl Tail for KafkaTail {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>> {
        if self.has_failed {
            self.reopen().await?;
        }
        let records = self.read(limit).await;
        self.has_failed = records.is_err();
        records
    }

    fn has_given(&self, ends: &Ends) -> bool {
        let positions: Ends = self.reader.positions().collect();
        ends.iter().all(|(partition, end)| positions.get(partition).is_some_and(|next| next >= end))
    }
}

#[cfg(test)]
impl KafkaTail {
    /// Lets nothing arrive any more, and has less patience.
    pub(super) fn stall(&mut self, patience: std::time::Duration) {
        let consumer = &self.reader.consumer;
        consumer.pause(&consumer.assignment().unwrap()).unwrap();
        self.reader.be_patient_for(patience);
    }
}

fn list(topic: &str, places: &[(i32, Offset)]) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for &(partition, offset) in places {
        list.add_partition_offset(topic, partition, offset)?;
    }
    Ok(list)
}
