//! The outbox relay: what a transaction put into the outbox goes to the bus.
//!
//! Invariants: a message is marked only after the bus has it, so dying anywhere loses nothing; what is
//! published a second time has the same id and no second effect. Any number of processes may run a relay at
//! once: each claims what it publishes. One relay keeps the order of a topic; between several there is none,
//! and none is needed (generations decide).

use std::{sync::Arc, time::Duration};

use framehook_core::{message::Envelope, topic::Topic};
use framehook_infra::{
    backoff::Backoff,
    bus::{Record, SharedBus},
    store::Outbox,
    telemetry,
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::display, info_span};

use crate::metrics;

/// Finds what other processes put into the outbox; our own wakes us.
const PERIOD: Duration = Duration::from_secs(1);
/// Rounds begin at least this far apart: what is put into the outbox meanwhile shares a round, which costs
/// two commits and a flush of the broker however little it holds. Nobody sees 5 ms.
const PACE: Duration = Duration::from_millis(5);
/// Messages of one round: a transaction of some milliseconds.
const BATCH: u32 = 500;

/// Several times what a round takes. What a relay that died had claimed goes out this much later.
const CLAIM: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    Store(#[from] framehook_infra::store::StoreError),
    #[error(transparent)]
    Bus(#[from] framehook_infra::bus::BusError),
    #[error("a message cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs until `cancel`. Errors are logged and retried.
pub async fn run(store: Arc<dyn Outbox>, bus: SharedBus, cancel: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !cancel.is_cancelled() {
        pace.tick().await;
        match forward(&*store, &bus).await {
            Ok(published) => {
                backoff.reset();
                // There may be more where a full batch came from.
                if published < BATCH as usize {
                    cancel.run_until_cancelled(timeout(PERIOD, store.outbox_filled())).await;
                }
            }
            Err(error) => {
                tracing::warn!("outbox relay: {error}");
                backoff.wait(&cancel).await;
            }
        }
    }
}

/// One round; gives how many messages it published.
async fn forward(store: &dyn Outbox, bus: &SharedBus) -> Result<usize, RelayError> {
    let messages = store.claim_outbox(BATCH, CLAIM).await?;
    for topic in Topic::ALL {
        let messages: Vec<_> = messages.iter().filter(|message| message.topic() == topic).collect();
        if messages.is_empty() {
            continue;
        }
        let records = messages.iter().map(|message| Record::try_from(*message)).collect::<Result<_, _>>()?;
        let spans: Vec<_> = messages.iter().map(|message| span(message)).collect();
        bus.publish(topic, records).await?;
        drop(spans);
        store.mark_published(&messages.iter().map(|message| message.id).collect::<Vec<_>>()).await?;
        metrics::global().relayed.inc_by(messages.len() as u64);
    }
    Ok(messages.len())
}

/// The step of a scenario's trace that takes one of its messages to the bus.
fn span(message: &Envelope) -> Span {
    let (scenario_id, generation) = message.subject().unzip();
    let (scenario_id, generation) = (scenario_id.map(display), generation.flatten());
    let span = info_span!("publish", otel.kind = "producer", topic = message.topic().name(), scenario_id, generation);
    telemetry::follow(&span, message.traceparent.as_deref());
    span
}
