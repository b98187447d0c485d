//! Results on their way to the reader that stores them: it gets them from memory, and they are
//! written to the log only if it has not stored them in time. The store is in the same file as the
//! log, so most results are written once.
//!
//! Invariants: a publication is acknowledged once its records are durable, in the reader's store or
//! in the log; what is in memory lies behind all that is in the log. A crash loses only what was
//! not acknowledged, which is computed again, and no offset is given twice for what was stored.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::sleep_until};

use super::bus::{PARTITION, READ_BYTES};
use crate::bus::{Delivered, Record, Result};

/// Far longer than a reader takes that is up to date, even on a busy machine. Once it is late,
/// everything goes to the log until it has caught up.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Handoff(Mutex<State>);

#[derive(Default)]
struct State {
    /// Members of a group that have begun to read.
    readers: usize,
    /// The offset behind what is in the log and was not forgotten.
    logged: Option<i64>,
    offered: VecDeque<Offered>,
}

struct Offered {
    records: Unstored,
    since: Instant,
    done: oneshot::Sender<Result<()>>,
}

/// Records of one publication, which the log does not have.
#[derive(Clone)]
pub(super) struct Unstored {
    pub(super) begin: i64,
    pub(super) records: Arc<[Record]>,
}

impl Unstored {
    pub(super) fn end(&self) -> i64 {
        self.begin + self.records.len() as i64
    }
}

/// Counts as a reader until it is dropped.
pub(super) struct Reading(Arc<Handoff>);

impl Reading {
    pub(super) fn begin(handoff: &Arc<Handoff>) -> Self {
        handoff.0.lock().readers += 1;
        Self(Arc::clone(handoff))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.0.lock().readers -= 1;
    }
}

impl Handoff {
    /// With a log that ends here, of which something may be left.
    pub(super) fn new(end: i64) -> Self {
        Self(Mutex::new(State { logged: Some(end), ..State::default() }))
    }

    /// Whether a reader is there that needs nothing from the log: one that is behind would be late.
    pub(super) fn has_reader(&self) -> bool {
        let state = self.0.lock();
        state.readers > 0 && state.logged.is_none()
    }

    pub(super) fn offer(&self, records: Unstored, done: oneshot::Sender<Result<()>>) {
        self.0.lock().offered.push_back(Offered { records, since: Instant::now(), done });
    }

    /// Up to `limit` records from `from` on, if that is where they are; with the offset of the
    /// first one here.
    pub(super) fn read(&self, from: i64, limit: usize) -> (Vec<Delivered>, Option<i64>) {
        let state = self.0.lock();
        let begin = state.offered.front().map(|offered| offered.records.begin);
        if begin.is_none_or(|begin| from < begin) {
            return (Vec::new(), begin);
        }
        let mut left = READ_BYTES;
        let numbered =
            state.offered.iter().flat_map(|offered| (offered.records.begin..).zip(&*offered.records.records));
        let wanted = numbered.skip_while(|(offset, _)| *offset < from).take(limit);
        let fitting = wanted.enumerate().take_while(|(at, (_, record))| {
            left -= record.payload.len() as i64;
            *at == 0 || left >= 0
        });
        let delivered = |(_, (offset, Record { key, payload, .. })): (usize, (i64, &Record))| Delivered {
            partition: PARTITION,
            offset,
            key: key.clone(),
            payload: payload.clone(),
        };
        (fitting.map(delivered).collect(), begin)
    }

    /// The reader has stored everything before `offset`; whether the log may have some of it.
    pub(super) fn stored(&self, offset: i64) -> bool {
        let mut state = self.0.lock();
        acknowledge(&mut state, offset, || Ok(()));
        state.logged.is_some()
    }

    /// Nothing before `offset` is in the log any more.
    pub(super) fn forgotten(&self, offset: i64) {
        let mut state = self.0.lock();
        state.logged = state.logged.filter(|end| *end > offset);
    }

    /// Waits until the reader is late with something; for ever if nothing is offered.
    pub(super) async fn late(&self) {
        let since = self.0.lock().offered.front().map(|offered| offered.since);
        match since {
            Some(since) => sleep_until((since + PATIENCE).into()).await,
            None => std::future::pending().await,
        }
    }

    /// All that is offered, if the reader is late with some of it.
    pub(super) fn overdue(&self) -> Vec<Unstored> {
        let is_late = self.0.lock().offered.front().is_some_and(|offered| offered.since.elapsed() >= PATIENCE);
        if is_late { self.all() } else { Vec::new() }
    }

    pub(super) fn all(&self) -> Vec<Unstored> {
        self.0.lock().offered.iter().map(|offered| offered.records.clone()).collect()
    }

    /// Records up to `end` are in the log.
    pub(super) fn logged(&self, end: i64) {
        let mut state = self.0.lock();
        state.logged = Some(end);
        acknowledge(&mut state, end, || Ok(()));
    }

    /// Records up to `end` could not be written to the log: their publishers keep them.
    pub(super) fn refused(&self, end: i64, error: impl Fn() -> Result<()>) {
        acknowledge(&mut self.0.lock(), end, error);
    }
}

/// Answers the publishers of all records before `end`. One that has gone away needs no answer.
fn acknowledge(state: &mut State, end: i64, answer: impl Fn() -> Result<()>) {
    while state.offered.front().is_some_and(|offered| offered.records.end() <= end) {
        if let Some(offered) = state.offered.pop_front() {
            offered.done.send(answer()).ok();
        }
    }
}

#[cfg(test)]
mod tests {

    use framehook_core::topic::Topic;
    use framehook_tests::DEADLINE;
    use tokio::time::timeout;

    use super::super::{Sqlite, tests::logged};
    use crate::{
        bus::{Fetched, Record, SharedBus, Subscription},
        store::{ResultBatch, Results as _, StoreOutcome},
    };

    const TOPIC: Topic = Topic::Results;

    fn record(number: u8) -> Record {
        Record { key: "k".into(), payload: vec![number], ..Record::default() }
    }

    /// A reader that has everything from `offset` on.
    async fn reader(bus: &SharedBus, offset: i64) -> Box<dyn Subscription> {
        let mut member = bus.subscribe("inbox", TOPIC).await.unwrap();
        assert_eq!(member.next(1).await.unwrap(), Fetched::Assigned(vec![0]));
        member.seek(0, offset).await.unwrap();
        bus.forget(TOPIC, 0, offset).await.unwrap();
        member
    }

    async fn next(member: &mut dyn Subscription, limit: usize) -> Vec<(i64, u8)> {
        let fetched = timeout(DEADLINE, member.next(limit)).await.expect("records come").unwrap();
        let Fetched::Records { records, .. } = fetched else { panic!("{fetched:?}") };
        records.iter().map(|record| (record.offset, record.payload[0])).collect()
    }

    async fn store(sqlite: &Sqlite, expected: i64, next: i64) {
        let (consumer, topic) = ("inbox".to_owned(), TOPIC.name().to_owned());
        let batch = ResultBatch { consumer, topic, expected, next, ..ResultBatch::default() };
        assert_eq!(sqlite.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
        sqlite.bus().forget(TOPIC, 0, next).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_stored_at_once_is_not_written_to_the_log() {
        let data = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(data.path()).await.unwrap();
        let bus = sqlite.bus();
        let mut member = reader(&bus, 0).await;
        for round in 0..3 {
            let begin = round * 3;
            let mut publish = Box::pin(bus.publish(TOPIC, vec![record(0), record(1), record(2)]));
            tokio::select! {
                biased;
                outcome = &mut publish => panic!("nothing is durable yet: {outcome:?}"),
                read = next(&mut *member, 2) => assert_eq!(read, [(begin, 0), (begin + 1, 1)]),
            }
            assert_eq!(next(&mut *member, 2).await, [(begin + 2, 2)]);
            store(&sqlite, begin, begin + 3).await;
            timeout(DEADLINE, publish).await.expect("it is durable").unwrap();
            assert_eq!(logged(&sqlite, TOPIC).await, 0);
        }
        // A crash: nobody waits for what is under way.
        drop((member, bus, sqlite));
        let sqlite = Sqlite::open(data.path()).await.unwrap();
        assert_eq!(sqlite.bus().end_offset(TOPIC, 0).await.unwrap(), 9, "no stored offset is given again");
    }

    #[tokio::test]
    async fn what_is_not_stored_in_time_is_in_the_log() {
        let data = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(data.path()).await.unwrap();
        let bus = sqlite.bus();
        let mut member = reader(&bus, 0).await;
        let publish =
            async |number| timeout(DEADLINE, bus.publish(TOPIC, vec![record(number)])).await.unwrap().unwrap();
        publish(0).await;
        assert_eq!(logged(&sqlite, TOPIC).await, 1, "nobody has read it");
        publish(1).await;
        assert_eq!(next(&mut *member, 9).await, [(0, 0), (1, 1)]);
        bus.forget(TOPIC, 0, 2).await.unwrap();
        assert_eq!(logged(&sqlite, TOPIC).await, 0);

        // Taken, and then its reader is gone.
        let late = publish(2);
        let taken = async {
            assert_eq!(next(&mut *member, 9).await, [(2, 2)]);
            drop(member);
        };
        tokio::join!(late, taken);
        publish(3).await;
        assert_eq!(logged(&sqlite, TOPIC).await, 2);
        let mut member = bus.subscribe("inbox", TOPIC).await.unwrap();
        assert_eq!(member.next(1).await.unwrap(), Fetched::Assigned(vec![0]));
        member.seek(0, 2).await.unwrap();
        assert_eq!(next(&mut *member, 9).await, [(2, 2), (3, 3)]);
    }
}
