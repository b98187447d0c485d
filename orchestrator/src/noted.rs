//! Answers heartbeats that tell of ended workers: their ends are on record and need not be told again.
//!
//! Without an answer every heartbeat carries the ends of the last ten minutes. `core::noted` decides what to
//! answer, from the snapshot of the plan. The outbox is not used, because its rows would cost more than they
//! save: an answer that is lost is given again to the next heartbeat.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use framehook_core::{
    ids::Incarnation,
    message::{Envelope, Message},
    noted::noted,
    planner::Snapshot,
    topic::Topic,
};
use framehook_infra::bus::{Record, SharedBus};
use jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

/// A runner is answered once in this time: two heartbeats, of which the first may have been under way.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Answers {
    given: HashMap<Incarnation, Instant>,
    /// Publishing may take as long as the bus is away, and the leader has a lease to renew.
    under_way: Option<AbortOnDropHandle<()>>,
}

impl Answers {
    /// Answers whoever tells of ended workers and was not answered just now.
    pub(crate) fn give(&mut self, bus: &SharedBus, snapshot: &Snapshot) {
        if self.under_way.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let now = Instant::now();
        self.given.retain(|_, at| now.duration_since(*at) < AGAIN);
        let due: Vec<_> = noted(snapshot).into_iter().filter(|n| !self.given.contains_key(&n.incarnation)).collect();
        if due.is_empty() {
            return;
        }
        self.given.extend(due.iter().map(|noted| (noted.incarnation, now)));
        let time = Timestamp::from_microsecond(snapshot.now_us).unwrap_or_default();
        let envelopes = due.into_iter().map(|noted| Envelope::new(Message::Noted(noted), time));
        let records: Vec<_> = envelopes.filter_map(|envelope| Record::try_from(&envelope).ok()).collect();
        let bus = bus.clone();
        self.under_way = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = bus.publish(Topic::ToDeploy, records).await {
                debug!("runners tell of ended workers again: {error}");
            }
        })));
    }
}
