//! The inbox: predictions, and the lines that scenarios log with what their shadows found, from the bus into
//! the store. Each of the two topics is read by a membership of its own.
//!
//! Invariants: the offset of a partition moves in the transaction that stores its rows, by compare and set,
//! so a consumer that lost its partition changes nothing, and one that dies anywhere goes on where the rows
//! end. What cannot be read becomes a dead letter in the same transaction. The bus's group only hands out
//! partitions.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use framehook_core::{
    hook_state::HookState,
    ids::{Generation, ScenarioId},
    message::{Envelope, Message, frame_of},
    prediction::Position,
    prediction_record::PredictionRecord,
    recorded::RecordedPart,
    scenario_log::LoggedLines,
    shadow::ShadowFindings,
    size::MAX_REASON,
    text::short_line,
    topic::Topic,
};
use framehook_infra::{
    backoff::Backoff,
    bus::{BusError, Delivered, Fetched, SharedBus, Subscription},
    store::{DeadLetter, ResultBatch, Results, StoreOutcome},
    telemetry,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{Span, info_span};

use crate::metrics;

/// Group on the bus and consumer in the store, of results.
pub const CONSUMER: &str = "results-inbox";
/// Records of one transaction. While one commits the next is read, so batches grow with the load by
/// themselves.
const BATCH: usize = 500;
/// Deployments whose first result was seen. Far more than run at a time; then it begins anew, and some get a
/// second span.
const MAX_BEGUN: usize = 10_000;

/// Far more than a runner puts into one message of a scenario's log.
const MAX_LOGGED: usize = 1 << 20;
/// What an envelope has around a prediction and what hooks keep, generously: ids, times and a trace.
const ENVELOPE: usize = 1 << 10;
/// Bytes of a dead letter: enough to see what it is.
const MAX_DEAD_LETTER: usize = 64 << 10;

/// Runs until `cancel`. Errors are logged and retried. A prediction of more than `max_prediction`
/// bytes is a dead letter.
pub async fn run(store: Arc<dyn Results>, bus: SharedBus, max_prediction: usize, cancel: CancellationToken) {
    let results = read_all(Topic::Results, &store, &bus, max_prediction, &cancel);
    let logs = read_all(Topic::ScenarioLogs, &store, &bus, MAX_LOGGED, &cancel);
    tokio::join!(results, logs);
}

/// Messages of more than `most` bytes and an envelope are dead letters.
async fn read_all(topic: Topic, store: &Arc<dyn Results>, bus: &SharedBus, most: usize, cancel: &CancellationToken) {
    let mut backoff = Backoff::default();
    while !cancel.is_cancelled() {
        if let Err(error) = consume(topic, store, bus, most, cancel, &mut backoff).await {
            tracing::warn!(topic = topic.name(), "inbox: {error}");
            backoff.wait(cancel).await;
        }
    }
}

/// One membership of the group; ends with `cancel` or an error of the bus.
async fn consume(
    topic: Topic,
    store: &Arc<dyn Results>,
    bus: &SharedBus,
    most: usize,
    cancel: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<(), BusError> {
    let subscription = bus.subscribe(consumer(topic), topic).await?;
    let mut inbox = Inbox {
        topic,
        store,
        bus,
        most,
        cancel,
        subscription,
        next: HashMap::new(),
        begun: HashSet::new(),
        in_flight: None,
    };
    let end = inbox.serve(backoff).await;
    // What is on its way arrives before another membership asks for the offsets.
    inbox.finish().await.and(end)
}

struct Inbox<'a> {
    topic: Topic,
    store: &'a Arc<dyn Results>,
    bus: &'a SharedBus,
    /// Bytes of a message without its envelope.
    most: usize,
    cancel: &'a CancellationToken,
    subscription: Box<dyn Subscription>,
    /// The next record to read of each partition of ours: the stored offset, or what it becomes by the batch
    /// in flight.
    next: HashMap<i32, i64>,
    begun: HashSet<(ScenarioId, Generation)>,
    in_flight: Option<InFlight>,
}

/// A batch on its way into the store. One at a time; the next is fetched and read meanwhile.
struct InFlight {
    partition: i32,
    next: i64,
    predictions: usize,
    dead_letters: usize,
    /// Spans of the first results in it, open until it is stored.
    _first_results: Vec<Span>,
    task: AbortOnDropHandle<Option<StoreOutcome>>,
}

impl Inbox<'_> {
    async fn serve(&mut self, backoff: &mut Backoff) -> Result<(), BusError> {
        loop {
            let fetched = tokio::select! {
                () = self.cancel.cancelled() => return Ok(()),
                outcome = outcome(&mut self.in_flight) => {
                    self.settle(outcome).await?;
                    continue;
                }
                fetched = self.subscription.next(BATCH) => fetched?,
            };
            match fetched {
                Fetched::Assigned(partitions) => {
                    for partition in partitions {
                        self.position(partition).await?;
                    }
                }
                Fetched::Revoked(partitions) => {
                    self.next.retain(|partition, _| !partitions.contains(partition));
                    self.finish().await?;
                    partitions.into_iter().for_each(|partition| self.show(partition, None));
                }
                Fetched::Records { partition, records } => self.take(partition, records).await?,
                Fetched::LogReset { partition, begin } => self.begin_anew(partition, begin).await?,
            }
            backoff.reset();
        }
    }

    /// Begins, or begins again, at the stored offset.
    async fn position(&mut self, partition: i32) -> Result<(), BusError> {
        let store = self.store;
        let (consumer, topic) = (consumer(self.topic), self.topic.name());
        let offset = until_stored(self.cancel, || store.consumer_offset(consumer, topic, partition)).await;
        let Some(offset) = offset else { return Ok(()) };
        self.next.insert(partition, offset);
        self.show(partition, Some(offset));
        self.subscription.seek(partition, offset).await
    }

    /// Goes back to where the new log begins. What is read twice by that changes nothing.
    async fn begin_anew(&mut self, partition: i32, begin: i64) -> Result<(), BusError> {
        self.finish().await?;
        let Some(&expected) = self.next.get(&partition) else { return Ok(()) };
        if begin >= expected {
            // The database went back, too, and what is between was never stored.
            return self.position(partition).await;
        }
        tracing::error!(
            topic = self.topic.name(),
            partition,
            stored = expected,
            begin,
            "the log is another one, and what the old one had and was not stored is lost: reading from its beginning"
        );
        let store = self.store;
        let (back, _) = self.read(partition, expected, begin, Vec::new());
        until_stored(self.cancel, || store.store_results(&back)).await;
        self.position(partition).await
    }

    async fn take(&mut self, partition: i32, mut records: Vec<Delivered>) -> Result<(), BusError> {
        let Some(&expected) = self.next.get(&partition) else { return Ok(()) };
        records.retain(|r| r.offset >= expected);
        let Some(last) = records.last() else { return Ok(()) };
        let next = last.offset + 1;
        let (batch, first_results) = self.read(partition, expected, next, records);
        self.finish().await?;
        if self.next.get(&partition) != Some(&expected) {
            // The batch before was not stored: these records come again behind it.
            return Ok(());
        }
        show_dead_letters(self.topic, self.bus, &batch).await;
        self.next.insert(partition, next);
        let (predictions, dead_letters) = (batch.rows.len(), batch.dead_letters.len());
        let (store, cancel) = (self.store.clone(), self.cancel.clone());
        let task = tokio::spawn(async move {
            let store = &store;
            until_stored(&cancel, || store.store_results(&batch)).await
        });
        self.in_flight = Some(InFlight {
            partition,
            next,
            predictions,
            dead_letters,
            _first_results: first_results,
            task: AbortOnDropHandle::new(task),
        });
        // The runtime would begin it on this thread, after the next batch is read.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// What is to be stored, and the spans of the first results in it.
    fn read(&mut self, partition: i32, expected: i64, next: i64, records: Vec<Delivered>) -> (ResultBatch, Vec<Span>) {
        let (mut rows, mut state) = (Vec::with_capacity(records.len()), BTreeMap::new());
        let (mut logged, mut found, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
        let (mut dead_letters, mut first_results) = (Vec::new(), Vec::new());
        for record in records {
            match read(self.topic, &record.payload, self.most) {
                Ok(Content::Logged(lines)) => logged.push(lines),
                Ok(Content::Shadow(findings)) => found.push(findings),
                Ok(Content::Recorded(part)) => recorded.push(part),
                Ok(Content::Frame { row, state: changes, traceparent }) => {
                    first_results.extend(self.first_result(&row, traceparent.as_deref()));
                    if !changes.is_empty() {
                        state.insert(rows.len(), changes);
                    }
                    rows.push(row);
                }
                Err(reason) => {
                    let Delivered { offset, key, mut payload, .. } = record;
                    let reason = short_line(&reason, MAX_REASON);
                    let topic = self.topic.name();
                    tracing::warn!(topic, partition, offset, scenario_id = key, "dead letter: {reason}");
                    // The key says the same, or it is not this scenario's frame.
                    let frame = frame_of(&payload).filter(|(scenario, _)| scenario.to_string() == key);
                    let position = frame.map(|(_, position)| position);
                    payload.truncate(MAX_DEAD_LETTER);
                    dead_letters.push(DeadLetter { offset, key, payload, reason, position });
                }
            }
        }
        let (consumer, topic) = (consumer(self.topic).to_owned(), self.topic.name().to_owned());
        let batch = ResultBatch {
            consumer,
            topic,
            partition,
            expected,
            next,
            rows,
            state,
            logged,
            found,
            recorded,
            dead_letters,
        };
        (batch, first_results)
    }

    /// The last step of the trace of a deployment: its first result becomes readable. The others are counted,
    /// not traced.
    fn first_result(&mut self, row: &PredictionRecord, traceparent: Option<&str>) -> Option<Span> {
        let &PredictionRecord { scenario_id, generation, position: Position { frame, .. }, .. } = row;
        if self.begun.len() >= MAX_BEGUN {
            self.begun.clear();
        }
        if !self.begun.insert((scenario_id, generation)) {
            return None;
        }
        let span = info_span!("store first result", otel.kind = "consumer", %scenario_id, generation, frame);
        telemetry::follow(&span, traceparent);
        Some(span)
    }

    /// The lag that is shown is that of results.
    fn show(&self, partition: i32, next: Option<i64>) {
        match next {
            _ if self.topic != Topic::Results => {}
            Some(next) => metrics::global().inbox_at(partition, next),
            None => metrics::global().inbox_left(partition),
        }
    }

    /// Waits for the batch in flight, if there is one.
    async fn finish(&mut self) -> Result<(), BusError> {
        if self.in_flight.is_none() {
            return Ok(());
        }
        let outcome = outcome(&mut self.in_flight).await;
        self.settle(outcome).await
    }

    async fn settle(&mut self, outcome: Option<StoreOutcome>) -> Result<(), BusError> {
        let Some(InFlight { partition, next, predictions, dead_letters, .. }) = self.in_flight.take() else {
            return Ok(());
        };
        let is_ours = self.next.contains_key(&partition);
        if outcome == Some(StoreOutcome::Stored) {
            metrics::global().stored.inc_by(predictions as u64);
            metrics::global().dead_letters.inc_by(dead_letters as u64);
            if is_ours {
                self.show(partition, Some(next));
            }
            if let Err(error) = self.bus.forget(self.topic, partition, next).await {
                // The next batch asks for more than this one did.
                tracing::debug!(partition, "records are kept longer than needed: {error}");
            }
        } else if is_ours {
            tracing::info!(partition, "the offset is not where this consumer left it: reading from there");
            self.position(partition).await?;
        }
        Ok(())
    }
}

/// What became of the batch in flight; for ever if there is none. Cancel-safe.
async fn outcome(in_flight: &mut Option<InFlight>) -> Option<StoreOutcome> {
    let Some(batch) = in_flight else { return std::future::pending().await };
    (&mut batch.task).await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The process ends.
        Err(_) => None,
    })
}

/// The dead letters of a batch to the bus. Before the commit, because after it nobody would know what is
/// still to be shown; tried only once, because the store keeps them anyway.
async fn show_dead_letters(topic: Topic, bus: &SharedBus, batch: &ResultBatch) {
    let partition = batch.partition;
    for DeadLetter { offset, key, payload, reason, .. } in &batch.dead_letters {
        let record = Delivered { partition, offset: *offset, key: key.clone(), payload: payload.clone() };
        if let Err(error) = bus.dead_letter(topic, &record, reason).await {
            tracing::warn!(topic = topic.name(), partition, offset, "a dead letter is in the store only: {error}");
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
            Err(error) => tracing::warn!("the inbox waits for the store: {error}"),
        }
        if !backoff.wait(cancel).await {
            return None;
        }
    }
}

/// What a message of the topic says.
enum Content {
    Frame {
        row: PredictionRecord,
        /// What hooks changed of their state on it.
        state: HookState,
        traceparent: Option<String>,
    },
    Logged(LoggedLines),
    Shadow(ShadowFindings),
    Recorded(RecordedPart),
}

fn read(topic: Topic, payload: &[u8], most: usize) -> Result<Content, String> {
    let Envelope { message, state, traceparent, .. } = Envelope::parse(payload)?;
    let of = message.topic();
    if of != topic {
        return Err(format!("a message for topic `{}`, not for `{}`", of.name(), topic.name()));
    }
    let kept = if state.is_empty() { 0 } else { state.json_bytes() };
    let (size, most) = (payload.len(), most.saturating_add(ENVELOPE + kept));
    if size > most {
        let setting = if topic == Topic::Results { " (max_prediction_kib)" } else { "" };
        return Err(format!("the message has {size} bytes; at most {most} are stored{setting}"));
    }
    match message {
        Message::Result(row) => Ok(Content::Frame { row, state, traceparent }),
        Message::Logged(logged) => Ok(Content::Logged(logged)),
        Message::Shadow(findings) => Ok(Content::Shadow(findings)),
        Message::Recorded(recorded) => Ok(Content::Recorded(recorded)),
        _ => Err(format!("a message of topic `{}`, which is not stored", of.name())),
    }
}

/// Group on the bus and consumer in the store.
const fn consumer(topic: Topic) -> &'static str {
    match topic {
        Topic::ScenarioLogs => "logs-inbox",
        _ => CONSUMER,
    }
}
