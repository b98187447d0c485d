//! Hears the runners: reads their heartbeats, records them in batches, and knows how far it has heard.
//!
//! Once in a while the bus is asked where the heartbeats end, after a look at the database's clock. When
//! everything before that is recorded, it is heard until that time (`framehook_core::evidence`). The question
//! runs beside the reading: a bus that does not answer keeps nobody from anything else.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use framehook_core::{
    evidence::Hearing,
    ids::{Incarnation, RunnerId},
    message::{Envelope, Message, RunnerStatus},
    topic::Topic,
};
use framehook_infra::{
    bus::{Delivered, Ends, SharedBus, Tail},
    store::{Fenced, Orchestration},
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::{Lease, TermEnd, metrics};

/// Heartbeats of one read, which is one statement: a second of a large installation, and with a
/// hundred workers on each runner still some tens of megabytes.
const MAX_RECORDS: usize = 1024;

pub(crate) struct Listener {
    store: Arc<dyn Orchestration>,
    bus: SharedBus,
    runner_lease_time: Duration,
    tail: Box<dyn Tail>,
    pub(crate) hearing: Hearing,
    question: Option<AbortOnDropHandle<Option<Asked>>>,
    asked: Option<Asked>,
    duplicates: DuplicateRunners,
}

/// Where the heartbeats ended.
struct Asked {
    /// No later than the bus was asked.
    at: Instant,
    at_us: i64,
    /// No earlier than it answered.
    answered_us: i64,
    ends: Ends,
}

impl Listener {
    /// `since_us`: from when on every lease was extended.
    pub(crate) async fn open(
        store: &Arc<dyn Orchestration>,
        bus: &SharedBus,
        since_us: i64,
        runner_lease_time: Duration,
    ) -> Result<Self, TermEnd> {
        Ok(Self {
            store: store.clone(),
            bus: bus.clone(),
            runner_lease_time,
            tail: bus.tail(Topic::RunnerStatus).await?,
            hearing: Hearing::since(since_us),
            question: None,
            asked: None,
            duplicates: DuplicateRunners::default(),
        })
    }

    /// Asks where the heartbeats end, unless the last question is still open.
    pub(crate) fn ask(&mut self) {
        if self.question.is_none() && self.asked.is_none() {
            let (store, bus) = (self.store.clone(), self.bus.clone());
            self.question = Some(AbortOnDropHandle::new(tokio::spawn(ask(store, bus))));
        }
    }

    /// Waits for heartbeats, or for an answer. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Vec<Delivered>, TermEnd> {
        let answer = async {
            match &mut self.question {
                Some(question) => question.await.ok().flatten(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            asked = answer => {
                (self.question, self.asked) = (None, asked);
                Ok(vec![])
            }
            records = self.tail.next(MAX_RECORDS) => Ok(records?),
        }
    }

    /// Records what [`Self::next`] gave, and concludes how far it is heard.
    pub(crate) async fn record(&mut self, lease: &Lease<'_>, records: &[Delivered]) -> Result<(), TermEnd> {
        let heartbeats: Vec<_> = records.iter().filter_map(heartbeat).collect();
        heartbeats.iter().for_each(|heartbeat| self.duplicates.notice(heartbeat));
        if !heartbeats.is_empty() {
            let (epoch, after) = (lease.epoch().await, self.hearing.until_us());
            let recorded = self.store.record_heartbeats(epoch, &heartbeats, after, self.runner_lease_time).await?;
            if recorded == Fenced::NotLeader {
                return Err(TermEnd::Deposed);
            }
        }
        let Some(Asked { at, at_us, answered_us, .. }) = self.asked.take_if(|asked| self.tail.has_given(&asked.ends))
        else {
            return Ok(());
        };
        if self.hearing.is_gap(answered_us, self.runner_lease_time) {
            let epoch = lease.extend_runners().await?;
            let late = Duration::from_micros(answered_us.abs_diff(self.hearing.until_us()));
            info!("not every heartbeat could be heard for {late:?}: leading on from epoch={epoch}");
        }
        self.hearing.advance(at_us);
        metrics::global().heard(at);
        Ok(())
    }
}

/// The clock before and after: what the bus has by the first look is part of the answer, and by the
/// second it works.
async fn ask(store: Arc<dyn Orchestration>, bus: SharedBus) -> Option<Asked> {
    let at = Instant::now();
    let answer = async {
        let at_us = store.now_us().await?;
        let ends = bus.ends(Topic::RunnerStatus).await?;
        Ok::<_, TermEnd>(Asked { at, at_us, answered_us: store.now_us().await?, ends })
    };
    answer.await.inspect_err(|error| debug!("it is not known where the heartbeats end: {error}")).ok()
}

fn heartbeat(record: &Delivered) -> Option<RunnerStatus> {
    match Envelope::parse(&record.payload) {
        Ok(Envelope { message: Message::RunnerStatus(status), .. }) => return Some(status),
        Ok(other) => warn!(key = record.key, "ignored on runner_status: {:?}", other.topic()),
        // The next heartbeat carries the whole state again, so nothing is lost.
        Err(error) => warn!(key = record.key, "ignored on runner_status: {error}"),
    }
    None
}

/// Notices two runners of one name: of these only the newer gets work, and neither knows.
#[derive(Default)]
struct DuplicateRunners {
    newest: HashMap<RunnerId, Incarnation>,
    /// Told of.
    older: HashSet<Incarnation>,
}

impl DuplicateRunners {
    fn notice(&mut self, status: &RunnerStatus) {
        let RunnerStatus { runner_id, incarnation, .. } = status;
        let newest = self.newest.entry(runner_id.clone()).or_insert(*incarnation);
        *newest = (*newest).max(*incarnation);
        if incarnation < newest && self.older.insert(*incarnation) {
            warn!(
                runner = %runner_id,
                %incarnation,
                "a second process of this name began later and has its work; give each runner a name of its own"
            );
        }
    }
}
