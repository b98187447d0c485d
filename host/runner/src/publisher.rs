//! Gives frames to the bus in order, in batches, and keeps them until the bus has acknowledged them.
//!
//! One batch is in flight at a time; what arrives meanwhile forms the next one. While a publisher is full
//! ([`Publisher::is_full`]), its owner does not read from the worker. A scenario that publishes more bytes a
//! second than it may is slowed down in this way, and nothing is lost.

use std::{future::Future, pin::Pin, time::Duration};

use framehook_core::{
    hook_state::HookState,
    message::{Envelope, Message},
    prediction_record::PredictionRecord,
    topic::Topic,
};
use framehook_infra::{
    backoff::Backoff,
    bus::{Record, SharedBus},
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use crate::tally::Sample;

/// Frames in one batch, at most.
const MAX_BATCH: usize = 64;

/// Bytes in one batch, at most, whatever the number of frames: bounds the memory of one worker here to twice
/// this.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// Batches of one worker begin at least this far apart: each is a disk flush somewhere, and nobody sees 20
/// ms.
const PACE: Duration = Duration::from_millis(50);

pub(crate) struct Publisher {
    bus: SharedBus,
    /// The trace of the frames.
    traceparent: Option<String>,
    pending: Batch,
    in_flight: Option<InFlight>,
    next_start: Instant,
    rate: Rate,
}

/// Bytes a second, over a while of [`Rate::SLACK`].
struct Rate {
    bytes_per_s: u64,
    /// When everything that began so far has taken its time.
    paid: Instant,
}

impl Rate {
    /// A burst, such as many objects for a moment, is not slowed down; what lasts is.
    const SLACK: Duration = Duration::from_secs(2);

    fn new(bytes_per_s: u64, now: Instant) -> Self {
        Self { bytes_per_s, paid: now }
    }

    /// When more may begin.
    fn open_at(&self) -> Instant {
        self.paid.checked_sub(Self::SLACK).unwrap_or(self.paid)
    }

    fn begin(&mut self, bytes: usize, now: Instant) {
        let us = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_s.max(1);
        self.paid = self.paid.max(now) + Duration::from_micros(us);
    }
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    samples: Vec<Sample>,
    bytes: usize,
}

struct InFlight {
    samples: Vec<Sample>,
    acknowledged: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Publisher {
    pub(crate) fn new(bus: SharedBus, traceparent: Option<String>, bytes_per_s: u64) -> Self {
        let now = Instant::now();
        let (pending, rate) = (Batch::default(), Rate::new(bytes_per_s, now));
        Self { bus, traceparent, pending, in_flight: None, next_start: now, rate }
    }

    /// Takes a frame, with what hooks changed on it, which the bus will get.
    ///
    /// # Errors
    /// When the frame cannot be written as JSON.
    pub(crate) fn push(
        &mut self,
        frame: PredictionRecord,
        state: HookState,
        at: Instant,
    ) -> Result<(), serde_json::Error> {
        let sample = Sample::of(&frame, at);
        let traceparent = self.traceparent.clone();
        let envelope = Envelope { traceparent, state, ..Envelope::new(Message::Result(frame), Timestamp::now()) };
        let record = Record::try_from(&envelope)?;
        self.pending.bytes += record.payload.len();
        self.pending.records.push(record);
        self.pending.samples.push(sample);
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pending.records.len() >= MAX_BATCH || self.pending.bytes >= MAX_BATCH_BYTES
    }

    pub(crate) fn has_work(&self) -> bool {
        self.in_flight.is_some() || !self.pending.records.is_empty()
    }

    /// Waits until the bus has acknowledged a batch, and gives its frames; for ever if the bus stays away.
    /// Without work it gives none. Cancel-safe.
    pub(crate) async fn acknowledged(&mut self) -> Vec<Sample> {
        if self.in_flight.is_none() {
            if !self.is_full() {
                sleep_until(self.next_start).await;
            }
            sleep_until(self.rate.open_at()).await;
            let now = Instant::now();
            self.next_start = now + PACE;
            let batch = std::mem::take(&mut self.pending);
            self.rate.begin(batch.bytes, now);
            let acknowledged = Box::pin(publish(self.bus.clone(), batch.records));
            self.in_flight = Some(InFlight { samples: batch.samples, acknowledged });
        }
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.acknowledged.as_mut().await;
        }
        self.in_flight.take().map(|done| done.samples).unwrap_or_default()
    }
}

async fn publish(bus: SharedBus, records: Vec<Record>) {
    if records.is_empty() {
        return;
    }
    let mut backoff = Backoff::default();
    while let Err(error) = bus.publish(Topic::Results, records.clone()).await {
        if backoff.is_new() {
            tracing::warn!(%error, frames = records.len(), "frames could not be published; they are kept and tried again");
        }
        sleep(backoff.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_slowed_down_to_the_rate_and_a_burst_is_not() {
        let start = Instant::now();
        let mut rate = Rate::new(1000, start);
        let mut now = start;
        let mut begun_at = Vec::new();
        for _ in 0..10 {
            now = now.max(rate.open_at());
            rate.begin(1000, now);
            begun_at.push(now - start);
        }
        let seconds: Vec<_> = begun_at.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]);
        now += Duration::from_secs(60);
        assert!((0..3).all(|_| {
            let is_open = rate.open_at() <= now;
            rate.begin(1000, now);
            is_open
        }));
        assert!(rate.open_at() > now, "what was not used is not saved up for longer than the slack");
    }
}
