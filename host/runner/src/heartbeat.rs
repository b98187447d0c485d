//! Publishes the runner's state: every half second, and at once when a worker's phase or reason changes.
//!
//! A heartbeat that cannot be published is not repeated: the next one says more.

use std::{sync::Arc, time::Duration};

use framehook_core::message::{Envelope, Message};
use framehook_infra::bus::{Record, SharedBus};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::status::Board;

/// Changes within this time share one heartbeat: a start is several phases in a row.
const COALESCE: Duration = Duration::from_millis(20);

/// Publishes heartbeats for ever.
pub(crate) async fn beat(board: Arc<Board>, bus: SharedBus, period: Duration) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut not_before = Instant::now();
    let mut is_lost = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = board.changed() => sleep_until(not_before).await,
        }
        not_before = Instant::now() + COALESCE;
        let result = publish(&board, &bus).await;
        match &result {
            Ok(()) if is_lost => tracing::info!("heartbeats are published again"),
            Err(error) if !is_lost => tracing::warn!(%error, "a heartbeat could not be published; trying on"),
            _ => {}
        }
        is_lost = result.is_err();
    }
}

/// Publishes one heartbeat.
pub(crate) async fn publish(board: &Board, bus: &SharedBus) -> Result<(), String> {
    let envelope = Envelope::new(Message::RunnerStatus(board.heartbeat()), Timestamp::now());
    let record = Record::try_from(&envelope).map_err(|e| e.to_string())?;
    bus.publish(envelope.topic(), vec![record]).await.map_err(|e| e.to_string())
}
