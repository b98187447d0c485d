//! The results inbox: predictions from the bus into the store.
//!
//! Invariants: the offset of a partition moves in the transaction that stores its rows, by compare and set, so a
//! consumer that lost its partition changes nothing, and one that dies anywhere goes on where the rows end. What
//! cannot be read becomes a dead letter in the same transaction. The bus's group only hands out partitions.

use std::collections::HashMap;

use framehook_core::message::{Envelope, Message, Topic};
use framehook_infra::{
    bus::{BusError, Delivered, Fetched, SharedBus, Subscription},
    store::{DeadLetter, ResultBatch, SharedStore, StoreOutcome},
};
use tokio_util::sync::CancellationToken;

use crate::{backoff::Backoff, metrics};

/// Group on the bus and consumer in the store.
pub const CONSUMER: &str = "results-inbox";
/// Records of one transaction. While one commits the next gathers, so batches grow with the load by themselves.
const BATCH: usize = 500;

/// Runs until `cancel`. Errors are logged and retried.
pub async fn run(store: SharedStore, bus: SharedBus, cancel: CancellationToken) {
    let mut backoff = Backoff::default();
    while !cancel.is_cancelled() {
        if let Err(error) = consume(&store, &bus, &cancel, &mut backoff).await {
            tracing::warn!("results inbox: {error}");
            backoff.wait(&cancel).await;
        }
    }
}

/// One membership of the group; ends with `cancel` or an error of the bus.
async fn consume(
    store: &SharedStore,
    bus: &SharedBus,
    cancel: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<(), BusError> {
    let subscription = bus.subscribe(CONSUMER, Topic::Results).await?;
    let mut inbox = Inbox { store, bus, cancel, subscription, next: HashMap::new() };
    loop {
        let Some(fetched) = cancel.run_until_cancelled(inbox.subscription.next(BATCH)).await else { return Ok(()) };
        match fetched? {
            Fetched::Assigned(partitions) => {
                for partition in partitions {
                    inbox.position(partition).await?;
                }
            }
            Fetched::Revoked(partitions) => {
                for partition in partitions {
                    inbox.next.remove(&partition);
                    metrics::global().inbox_left(partition);
                }
            }
            Fetched::Records { partition, records } => inbox.take(partition, records).await?,
        }
        backoff.reset();
    }
}

struct Inbox<'a> {
    store: &'a SharedStore,
    bus: &'a SharedBus,
    cancel: &'a CancellationToken,
    subscription: Box<dyn Subscription>,
    /// A partition's stored offset.
    next: HashMap<i32, i64>,
}

impl Inbox<'_> {
    /// Begins, or begins again, at the stored offset.
    async fn position(&mut self, partition: i32) -> Result<(), BusError> {
        let store = self.store;
        let offset =
            until_stored(self.cancel, || store.consumer_offset(CONSUMER, Topic::Results.name(), partition)).await;
        let Some(offset) = offset else { return Ok(()) };
        self.next.insert(partition, offset);
        metrics::global().inbox_at(partition, offset);
        self.subscription.seek(partition, offset).await
    }

    async fn take(&mut self, partition: i32, mut records: Vec<Delivered>) -> Result<(), BusError> {
        let Some(&expected) = self.next.get(&partition) else { return Ok(()) };
        records.retain(|r| r.offset >= expected);
        let Some(last) = records.last() else { return Ok(()) };
        let next = last.offset + 1;
        let batch = batch(partition, expected, next, records);
        show_dead_letters(self.bus, &batch).await;
        let store = self.store;
        match until_stored(self.cancel, || store.store_results(batch.clone())).await {
            None => Ok(()),
            Some(StoreOutcome::OffsetMoved) => {
                tracing::info!(partition, "another consumer moved the offset: reading it again");
                self.position(partition).await
            }
            Some(StoreOutcome::Stored) => {
                self.next.insert(partition, next);
                metrics::global().inbox_at(partition, next);
                metrics::global().stored.inc_by(batch.predictions.len() as u64);
                metrics::global().dead_letters.inc_by(batch.dead_letters.len() as u64);
                if let Err(error) = self.bus.forget(Topic::Results, partition, next).await {
                    // The next batch asks for more than this one did.
                    tracing::debug!(partition, "records are kept longer than needed: {error}");
                }
                Ok(())
            }
        }
    }
}

/// The dead letters of a batch to the bus. Before the commit, because after it nobody would know what is still to be
/// shown; tried only once, because the store keeps them anyway.
async fn show_dead_letters(bus: &SharedBus, batch: &ResultBatch) {
    let partition = batch.partition;
    for DeadLetter { offset, key, payload, reason } in &batch.dead_letters {
        let record = Delivered { partition, offset: *offset, key: key.clone(), payload: payload.clone() };
        if let Err(error) = bus.dead_letter(Topic::Results, &record, reason).await {
            tracing::warn!(partition, offset, "a dead letter is in the store only: {error}");
        }
    }
}

/// Repeats until the store answers; `None` if cancelled first. What was read meanwhile stays in hand.
async fn until_stored<T, F>(cancel: &CancellationToken, call: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = framehook_infra::store::Result<T>>,
{
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Ok(value) => return Some(value),
            Err(error) => tracing::warn!("results inbox waits for the store: {error}"),
        }
        if !backoff.wait(cancel).await {
            return None;
        }
    }
}

fn batch(partition: i32, expected: i64, next: i64, records: Vec<Delivered>) -> ResultBatch {
    let mut predictions = Vec::with_capacity(records.len());
    let mut dead_letters = Vec::new();
    for record in records {
        match read(&record.payload) {
            Ok(prediction) => predictions.push(prediction),
            Err(reason) => {
                tracing::warn!(partition, offset = record.offset, "dead letter: {reason}");
                let Delivered { offset, key, payload, .. } = record;
                dead_letters.push(DeadLetter { offset, key, payload, reason });
            }
        }
    }
    let (consumer, topic) = (CONSUMER.to_owned(), Topic::Results.name().to_owned());
    ResultBatch { consumer, topic, partition, expected, next, predictions, dead_letters }
}

fn read(payload: &[u8]) -> Result<framehook_core::prediction::Prediction, String> {
    match Envelope::parse(payload)?.message {
        Message::Result(prediction) => Ok(*prediction),
        other => Err(format!(
            "a message for topic `{}`, not a result",
            Envelope::new(other, jiff::Timestamp::now()).topic().name()
        )),
    }
}
