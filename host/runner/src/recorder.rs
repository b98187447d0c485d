//! The recorded outputs of one deployment on their way into the blob store.
//!
//! What a worker sends is gathered into parts of some MiB. A task of its own stores each, and then tells the
//! bus of it, so that a part that somebody can name is there. A worker is not trusted: here is looked at the
//! sizes and the order of what it sends, and at nothing else.
//!
//! Invariants: at most two parts wait for the blob store; the worker waits for more room. Workers that follow
//! one another in a deployment go on with the part of the one before. What cannot be stored is left out and
//! told: the scenario goes on. A runner that is killed loses the part that is not finished.

use std::time::Duration;

use framehook_core::{
    ids::{Digest, Generation, ScenarioId},
    job::LogLevel,
    message::{Envelope, Message},
    prediction::Position,
    recorded::{MAX_OPENING, PART_BYTES, Part, RecordedPart, Sent},
    topic::Topic,
};
use framehook_infra::{
    backoff::Backoff,
    blobs::{BlobError, Blobs},
    bus::{Record, SharedBus},
};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::scenario_log::ScenarioLog;

/// A part that has not grown large by then is finished all the same: so much is lost at most with its runner.
const PART_TIME: Duration = Duration::from_secs(30);

/// Parts that wait for the blob store, besides the one that is being stored.
const WAITING: usize = 1;

/// A part is on the disk within some hundred milliseconds. A store that is away does not keep a deployment
/// from ending.
const LAST_PART: Duration = Duration::from_secs(2);

/// A part that the blob store has not taken by then is left out, so that the scenario goes on.
const STORE: Duration = Duration::from_secs(20);

/// Gathers parts. Without a scenario that records there is none.
pub(crate) struct Recorder {
    generation: Generation,
    opening: Vec<u8>,
    growing: Option<Growing>,
    /// The last frame with outputs.
    last: Option<Position>,
    /// The last frame before the next one: with outputs or without.
    after: Option<Position>,
    number: u32,
    finished: mpsc::Sender<Finished>,
    task: AbortOnDropHandle<()>,
}

struct Growing {
    bytes: Vec<u8>,
    begun: Instant,
    frames: u64,
    first: Position,
    last: Position,
    after: Option<Position>,
}

struct Finished {
    bytes: Vec<u8>,
    part: Part,
}

/// Where parts go.
pub(crate) struct Destination {
    pub(crate) scenario_id: ScenarioId,
    pub(crate) blobs: Blobs,
    pub(crate) bus: SharedBus,
    pub(crate) log: ScenarioLog,
    /// Bytes of all parts of the scenario, at most.
    pub(crate) keep_bytes: u64,
}

impl Recorder {
    /// Begins for a deployment that goes on behind `after`.
    pub(crate) fn new(generation: Generation, after: Option<Position>, destination: Destination) -> Self {
        let (finished, parts) = mpsc::channel(WAITING);
        let task = AbortOnDropHandle::new(tokio::spawn(store_all(parts, destination)));
        Self { generation, opening: Vec::new(), growing: None, last: after, after, number: 0, finished, task }
    }

    /// Takes what a worker sent.
    ///
    /// # Errors
    /// With what no worker sends.
    pub(crate) fn hear(&mut self, sent: Sent<'_>) -> Result<(), String> {
        match sent {
            Sent::Opening(opening) if opening.len() > MAX_OPENING => {
                Err(format!("recorded outputs that begin with {} bytes", opening.len()))
            }
            Sent::Opening(opening) => {
                self.opening = opening.to_vec();
                Ok(())
            }
            Sent::Frame(..) if self.opening.is_empty() => Err("recorded outputs without their beginning".to_owned()),
            Sent::Frame(at, outputs) => {
                // A worker that takes the place of another may send some of its frames again.
                if Some(at) > self.last {
                    if outputs.is_empty() { self.pass(at) } else { self.add(at, outputs) }
                }
                Ok(())
            }
        }
    }

    fn add(&mut self, at: Position, outputs: &[u8]) {
        let growing = self.growing.get_or_insert_with(|| Growing {
            bytes: self.opening.clone(),
            begun: Instant::now(),
            frames: 0,
            first: at,
            last: at,
            after: self.after,
        });
        growing.bytes.extend(outputs);
        growing.frames += 1;
        growing.last = at;
        (self.last, self.after) = (Some(at), Some(at));
        if growing.bytes.len() >= PART_BYTES || growing.begun.elapsed() >= PART_TIME {
            self.finish();
        }
    }

    /// A frame was reported. Where its outputs were not, those behind it begin another part, which says so.
    pub(crate) fn pass(&mut self, at: Position) {
        if Some(at) > self.after {
            self.finish();
            self.after = Some(at);
        }
    }

    fn finish(&mut self) {
        let Some(Growing { bytes, frames, first, last, after, .. }) = self.growing.take() else { return };
        let digest = Digest::from_bytes(&[0; 32]);
        let (generation, number, size) = (self.generation, self.number, bytes.len() as u64);
        let part = Part { generation, number, digest, bytes: size, frames, first, last, after };
        self.number += 1;
        // Whoever is full is not given more; one part too many may be finished by a frame without outputs,
        // and is missing then.
        if self.finished.try_send(Finished { bytes, part }).is_err() {
            tracing::warn!("recorded outputs are left out: those before them are not stored yet");
        }
    }

    /// Nothing is to be read from the worker until there is room.
    pub(crate) fn is_full(&self) -> bool {
        self.finished.capacity() == 0
    }

    /// Waits until there is room.
    pub(crate) fn waiter(&self) -> impl Future<Output = ()> + use<> {
        let finished = self.finished.clone();
        async move {
            // Its task ends with it.
            finished.reserve().await.ok();
        }
    }

    /// Stores the rest, if the blob store takes it now.
    pub(crate) async fn close(mut self) {
        let store = async {
            self.waiter().await;
            self.finish();
            drop(self.finished);
            (&mut self.task).await.ok();
        };
        if timeout(LAST_PART, store).await.is_err() {
            tracing::warn!("the last of the recorded outputs were not stored: the blob store or the bus took too long");
        }
    }
}

async fn store_all(mut parts: mpsc::Receiver<Finished>, destination: Destination) {
    let mut failed = false;
    while let Some(Finished { bytes, part }) = parts.recv().await {
        let stored = timeout(STORE, store(&destination.blobs, &bytes)).await;
        let too_slow = |_| Err(BlobError::Unavailable(format!("it took longer than {} s", STORE.as_secs())));
        match stored.unwrap_or_else(too_slow) {
            Ok(digest) => {
                tell(&destination, Part { digest, ..part }).await;
                failed = false;
            }
            Err(error) => {
                let message = format!(
                    "outputs of {} frames from frame {} on could not be stored and are missing: {}",
                    part.frames,
                    part.first.frame,
                    presentable(&error)
                );
                tracing::warn!(%error, "recorded outputs could not be stored");
                // Each part may fail for the same cause.
                if !std::mem::replace(&mut failed, true) {
                    destination.log.tell(LogLevel::Warn, "recorded_outputs", &message);
                }
            }
        }
    }
}

/// Without paths and addresses.
fn presentable(error: &BlobError) -> String {
    match error {
        BlobError::Unavailable(_) => "the shared blob store is not available".to_owned(),
        BlobError::Io { source, .. } => source.kind().to_string(),
        told => told.to_string(),
    }
}

async fn store(blobs: &Blobs, bytes: &[u8]) -> Result<Digest, BlobError> {
    let mut upload = blobs.begin(u64::MAX).await?;
    upload.write(bytes).await?;
    blobs.commit(upload.finish().await?).await
}

/// Again and again, until the bus takes it: a part that is told of twice is stored once.
async fn tell(Destination { scenario_id, bus, keep_bytes, .. }: &Destination, part: Part) {
    let recorded = RecordedPart { scenario_id: *scenario_id, part, keep_bytes: *keep_bytes };
    let envelope = Envelope::new(Message::Recorded(recorded), Timestamp::now());
    let Ok(record) = Record::try_from(&envelope) else { return };
    let mut backoff = Backoff::default();
    while let Err(error) = bus.publish(Topic::ScenarioLogs, vec![record.clone()]).await {
        tracing::debug!(%error, "recorded outputs could not be told of; it is tried again");
        sleep(backoff.next_delay()).await;
    }
}
