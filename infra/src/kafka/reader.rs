//! Reading partitions from given places: what tails and members of groups have in common.
//!
//! Invariants: a record is given only if it is the next of a partition that was positioned, or a later one
//! where those between are gone; an earlier one says that the log is another one; polling and positioning
//! exclude each other (`&mut self`), and librdkafka drops what it had queued before a seek, so nothing from
//! before one is given after it. Between taking a record out of librdkafka and returning it nothing is
//! awaited.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use framehook_core::topic::Topic;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Client, Cluster, REQUEST_TIMEOUT, blocking, report, when_led};
use crate::bus::{BusError, Delivered, Fetched, Result};

pub(super) type Consumer = Arc<Client<BaseConsumer<Changes>>>;

/// librdkafka wakes a reader once, when its queue is no longer empty; and a poll may end at a line of its log
/// with records behind it. So nobody waits for longer than this.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A reader that gets nothing for this long is checked.
const PATIENCE: Duration = Duration::from_secs(5);

/// By then all that was available has come, unless reading has stalled.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Until a partition that was just assigned can be positioned.
const SEEK_RETRY: Duration = Duration::from_millis(10);

/// Memory of one reader for what it has not asked for yet: some seconds of two hundred streams.
const QUEUE_KILOBYTES: &str = "16384";

/// What every consumer of ours has in common; `group` is a name on the broker, nothing is stored under it.
pub(super) fn config(cluster: &Cluster, group: &str) -> ClientConfig {
    let mut config = cluster.config.client();
    config
        .set("group.id", format!("{}{group}", cluster.config.prefix))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What is wanted and gone (retention): from the oldest there is.
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", QUEUE_KILOBYTES)
        // Asks for more as soon as the queue has room, instead of a second later.
        .set("fetch.queue.backoff.ms", "10");
    config
}

/// Changes by the group's protocol that were not reported yet.
#[derive(Default)]
pub(super) struct Changes(pub(super) Mutex<VecDeque<Result<Fetched>>>);

impl ClientContext for Changes {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for Changes {
    /// Called by polling. Both protocols are incremental.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, change: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let numbers: Vec<_> = partitions.elements().iter().map(|p| p.partition()).collect();
        let (outcome, change) = if change == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Paused, and at a place that needs no question to the broker: a seek does not cancel such a
            // question, and its late answer would move the partition again.
            let outcome = partitions
                .set_all_offsets(Offset::Offset(0))
                .and_then(|()| consumer.incremental_assign(partitions))
                .and_then(|()| consumer.pause(partitions));
            (outcome, Fetched::Assigned(numbers))
        } else {
            (consumer.incremental_unassign(partitions), Fetched::Revoked(numbers))
        };
        self.0.lock().push_back(outcome.map(|()| change).map_err(BusError::from));
    }
}

pub(super) struct Reader {
    cluster: Arc<Cluster>,
    topic: Topic,
    name: String,
    pub(super) consumer: Consumer,
    filled: Arc<Notify>,
    /// The next record of each partition to give.
    positions: HashMap<i32, i64>,
    patience: Duration,
    quiet: Quiet,
}

/// Since when nothing came, and what was done about it. Begins anew with each record.
struct Quiet {
    since: Instant,
    /// It was behind at the last look.
    is_suspect: bool,
    /// A look under way. It takes long where brokers do not answer, and whoever reads has other things to do
    /// meanwhile.
    look: Option<AbortOnDropHandle<Health>>,
}

impl Quiet {
    fn new() -> Self {
        Self { since: Instant::now(), is_suspect: false, look: None }
    }
}

/// What a look at a quiet reader finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// There is nothing to get, or no broker answers anybody.
    Well,
    /// There is a record that it did not get by now.
    Behind,
    /// Brokers answer others and not its client. librdkafka (2.12) forgets its brokers for good when one that
    /// was just frozen answers that there are none (confluentinc/librdkafka#5301).
    Lost,
}

impl Reader {
    pub(super) async fn open(cluster: &Arc<Cluster>, config: ClientConfig, topic: Topic) -> Result<Self> {
        let filled = Arc::new(Notify::new());
        let wake = Arc::clone(&filled);
        let consumer = blocking(move || {
            let mut consumer: BaseConsumer<Changes> = config.create_with_context(Changes::default())?;
            consumer.set_nonempty_callback(move || wake.notify_one());
            Ok(Client::new(consumer))
        });
        Ok(Self {
            consumer: consumer.await?,
            filled,
            cluster: Arc::clone(cluster),
            topic,
            name: cluster.config.topic(topic),
            positions: HashMap::new(),
            patience: PATIENCE,
            quiet: Quiet::new(),
        })
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        self.positions.iter().map(|(&partition, &next)| (partition, next))
    }

    /// From now on records of this partition are given, from `next` on.
    pub(super) fn place(&mut self, partition: i32, next: i64) {
        self.positions.insert(partition, next);
        self.quiet = Quiet::new();
    }

    pub(super) fn clear_position(&mut self, partition: i32) {
        self.positions.remove(&partition);
    }

    /// Moves a partition that the consumer has. When this fails or is dropped, nothing of it is given until
    /// the next seek.
    pub(super) async fn seek(&mut self, partition: i32, offset: i64) -> Result<()> {
        self.clear_position(partition);
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        loop {
            let (consumer, topic) = (Arc::clone(&self.consumer), self.name.clone());
            // Negative numbers have meanings of their own.
            let to = Offset::Offset(offset.max(0));
            let seek = move || {
                consumer.seek(&topic, partition, to, REQUEST_TIMEOUT)?;
                let mut list = TopicPartitionList::new();
                list.add_partition(&topic, partition);
                Ok(consumer.resume(&list)?)
            };
            match blocking(seek).await {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                // It is still being started.
                Err(_) => sleep(SEEK_RETRY).await,
            }
        }
        self.place(partition, offset);
        Ok(())
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.consumer.context().0.lock().is_empty()
    }

    /// Whether this partition will be taken away by a change that is still to be told.
    pub(super) fn is_leaving(&self, partition: i32) -> bool {
        let changes = self.consumer.context().0.lock();
        changes.iter().any(|change| matches!(change, Ok(Fetched::Revoked(gone)) if gone.contains(&partition)))
    }

    pub(super) fn take_change(&mut self) -> Option<Result<Fetched>> {
        self.consumer.context().0.lock().pop_front()
    }

    /// The next record that is here already; none once there is a change to be told, which comes first.
    pub(super) fn take(&mut self) -> Result<Option<Delivered>> {
        while !self.has_changes() {
            let record = match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Err(error)) => {
                    check(error)?;
                    continue;
                }
                Some(Ok(record)) => record,
            };
            let (partition, offset) = (record.partition(), record.offset());
            let Some(next) = self.positions.get_mut(&partition) else { continue };
            if offset < *next {
                // The broker said that the log ends before that, so librdkafka began at its beginning.
                self.consumer.context().0.lock().push_back(Ok(Fetched::LogReset { partition, begin: offset }));
                drop(record);
                self.clear_position(partition);
                break;
            }
            if offset > *next {
                tracing::warn!(topic = self.name, partition, offset, next, "records are gone: read too late");
            }
            *next = offset + 1;
            self.quiet = Quiet::new();
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            let payload = record.payload().unwrap_or_default().to_vec();
            return Ok(Some(Delivered { partition, offset, key, payload }));
        }
        Ok(None)
    }

    /// Waits until there may be something to take. An error if nothing will come any more. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Result<()> {
        if timeout(LOOK_AGAIN, self.filled.notified()).await.is_ok() {
            return Ok(());
        }
        let quiet = &mut self.quiet;
        let patience = if quiet.is_suspect { SECOND_LOOK.min(self.patience) } else { self.patience };
        match quiet.look.take_if(|look| look.is_finished()) {
            Some(look) => self.conclude(look.await.unwrap_or(Health::Well))?,
            None if quiet.look.is_none() && quiet.since.elapsed() >= patience => {
                let positions = self.positions.clone();
                let look = look(Arc::clone(&self.cluster), Arc::clone(&self.consumer), self.topic, positions);
                quiet.look = Some(AbortOnDropHandle::new(tokio::spawn(look)));
            }
            None => {}
        }
        Ok(())
    }

    fn conclude(&mut self, health: Health) -> Result<()> {
        let stalled = match health {
            Health::Lost => Some("its client has lost the brokers"),
            // The first time the record may have been on its way.
            Health::Behind if self.quiet.is_suspect => Some("there are records that do not come"),
            Health::Behind | Health::Well => None,
        };
        self.quiet = Quiet { is_suspect: health == Health::Behind, ..Quiet::new() };
        match stalled {
            Some(why) => Err(BusError::Unavailable(format!("reading of {} has stalled: {why}", self.name))),
            None => Ok(()),
        }
    }
}

/// Asks its own client, and the publisher's, which is another one and is replaced when it is lost.
async fn look(cluster: Arc<Cluster>, consumer: Consumer, topic: Topic, positions: HashMap<i32, i64>) -> Health {
    let name = cluster.config.topic(topic);
    let own = blocking(move || Ok(when_led(|| consumer.fetch_watermarks(&name, 0, REQUEST_TIMEOUT))?));
    let (own, other) = tokio::join!(own, cluster.end_offset(topic, 0));
    if own.is_err() {
        let is_answered = other.is_ok() || cluster.end_offset(topic, 0).await.is_ok();
        return if is_answered { Health::Lost } else { Health::Well };
    }
    for (partition, next) in positions {
        match cluster.end_offset(topic, partition).await {
            Ok(end) if end > next => return Health::Behind,
            Ok(_) => {}
            Err(_) => return Health::Well,
        }
    }
    Health::Well
}

#[cfg(test)]
impl Reader {
    pub(super) fn be_patient_for(&mut self, patience: Duration) {
        self.patience = patience;
    }
}

/// What librdkafka mends by itself is no error.
fn check(error: KafkaError) -> Result<()> {
    use RDKafkaErrorCode as Code;
    match error {
        KafkaError::MessageConsumptionFatal(Code::UnsupportedVersion | Code::UnsupportedFeature) => {
            let hint = "the brokers do not know this group protocol; they need the setting `classic`";
            Err(BusError::Unavailable(hint.into()))
        }
        KafkaError::MessageConsumptionFatal(_)
        | KafkaError::MessageConsumption(
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed,
        ) => Err(error.into()),
        other => {
            tracing::debug!("kafka: {other}");
            Ok(())
        }
    }
}
