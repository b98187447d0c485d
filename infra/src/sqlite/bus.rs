//! The embedded bus: a durable log in the store's database, one partition a topic.
//!
//! Invariants: offsets of a topic grow without end, also over [`Bus::forget`] and a restart; a
//! reader is woken when there is something to read, and nobody polls; what is stored ([`Topic::is_stored`])
//! is kept until its reader forgets it, and the rest, whose readers begin at the end, for a short while
//! (`window`). Results that their reader stores at once are never written here (`handoff`). Which member of a
//! group reads, and which offset is next, are matters of this process alone, because one process
//! alone has the folder open.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use framehook_core::topic::Topic;
use parking_lot::Mutex;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{
    Database, clock_us,
    handoff::{Handoff, Reading, Unstored},
    room::Room,
    window::Window,
};
use crate::{
    bus::{Bus, BusError, Delivered, Ends, Fetched, Record, Result, Subscription, Tail},
    space::Shortage,
    store::StoreError,
};

/// The only one.
pub(super) const PARTITION: i32 = 0;

/// Publications that share one commit, and so one wait for the disk. Far more than there are publishers.
const PUBLICATIONS_PER_COMMIT: usize = 64;

/// One statement for this many records, like the store's rows.
const RECORDS_PER_STATEMENT: usize = 64;

const ADD_TOPIC: &str = "INSERT OR IGNORE INTO bus_topics (topic, next_offset) VALUES (?, 0)";
/// What a reader has stored may never have been written here.
const END: &str = "
    SELECT max(next_offset, (SELECT coalesce(max(next_offset), 0) FROM consumer_offsets WHERE topic = ?1))
    FROM bus_topics WHERE topic = ?1";
const SET_END: &str = "UPDATE bus_topics SET next_offset = ? WHERE topic = ?";
const APPEND: &str = r#"INSERT INTO bus_log (topic, "offset", key, payload, published_at) "#;
/// The sizes first, which are known without the records: those that fit, and at least one.
const READ: &str = r#"
    WITH sizes AS MATERIALIZED (
        SELECT "offset", length(payload) AS bytes FROM bus_log
        WHERE topic = ?1 AND "offset" >= ?2 ORDER BY "offset" LIMIT ?3),
    sums AS (SELECT "offset", bytes, sum(bytes) OVER (ORDER BY "offset") AS total FROM sizes)
    SELECT "offset", key, payload FROM bus_log
    WHERE topic = ?1 AND "offset" >= ?2
        AND "offset" <= (SELECT max("offset") FROM sums WHERE total <= ?4 OR total = bytes)
    ORDER BY "offset""#;
/// Bytes of one read, whatever its records hold; five hundred frames of twenty detections are 2 MB.
pub(super) const READ_BYTES: i64 = 16 << 20;
const FORGET: &str = r#"DELETE FROM bus_log WHERE topic = ? AND "offset" < ?"#;

impl From<Shortage> for BusError {
    fn from(shortage: Shortage) -> Self {
        Self::Unavailable(shortage.to_string())
    }
}

impl From<sqlx::Error> for BusError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

pub(super) struct EmbeddedBus {
    log: Arc<Log>,
    publications: mpsc::Sender<Publication>,
    /// Who may read a topic for a group: one at a time, in the order of asking.
    groups: Mutex<HashMap<(String, Topic), Arc<Semaphore>>>,
}

/// What readers need.
struct Log {
    database: Arc<Database>,
    ends: Arc<Grown>,
    handoff: Arc<Handoff>,
}

/// The offset the next record of each topic gets.
pub(super) type Grown = BTreeMap<Topic, watch::Sender<i64>>;

/// What is kept of each topic that readers begin at the end of.
pub(super) type Windows = BTreeMap<Topic, Window>;

pub(super) struct Publication {
    pub(super) topic: Topic,
    pub(super) records: Vec<Record>,
    pub(super) done: oneshot::Sender<Result<()>>,
}

impl EmbeddedBus {
    pub(super) async fn open(database: Arc<Database>) -> sqlx::Result<Self> {
        let mut ends = Grown::new();
        for topic in Topic::ALL {
            sqlx::query(ADD_TOPIC).bind(topic.name()).execute(&database.writer).await?;
            let end = sqlx::query_scalar(END).bind(topic.name()).fetch_one(&database.writer).await?;
            if !topic.is_stored() {
                // Nobody will read what was there before.
                sqlx::query(FORGET).bind(topic.name()).bind(end).execute(&database.writer).await?;
            }
            ends.insert(topic, watch::Sender::new(end));
        }
        let handoff = Arc::new(Handoff::new(*ends[&Topic::Results].borrow()));
        let ends = Arc::new(ends);
        let (publications, requests) = mpsc::channel(PUBLICATIONS_PER_COMMIT);
        let committer = Committer {
            writer: database.writer.clone(),
            room: Arc::clone(&database.room),
            ends: Arc::clone(&ends),
            handoff: Arc::clone(&handoff),
            windows: Mutex::default(),
        };
        // It ends when the last bus is dropped, after what was asked of it by then.
        tokio::spawn(committer.run(requests));
        Ok(Self { log: Arc::new(Log { database, ends, handoff }), publications, groups: Mutex::default() })
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn publish(&self, topic: Topic, records: Vec<Record>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if topic.is_stored() {
            // The publisher keeps them and tries again. The other topics carry what gives space back.
            let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
            self.log.database.room.disk.admit(bytes as u64)?;
        }
        let (done, outcome) = oneshot::channel();
        self.publications.send(Publication { topic, records, done }).await.map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }

    async fn tail(&self, topic: Topic) -> Result<Box<dyn Tail>> {
        Ok(Box::new(Cursor { log: Arc::clone(&self.log), topic, position: self.log.end(topic) }))
    }

    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Subscription>> {
        let mut groups = self.groups.lock();
        let turn = groups.entry((group.to_owned(), topic)).or_insert_with(|| Arc::new(Semaphore::new(1)));
        let (log, turn) = (Arc::clone(&self.log), Arc::clone(turn));
        Ok(Box::new(Member { log, topic, turn, permit: None, cursor: None, reading: None }))
    }

    async fn end_offset(&self, topic: Topic, partition: i32) -> Result<i64> {
        check(partition)?;
        Ok(self.log.end(topic))
    }

    async fn ends(&self, topic: Topic) -> Result<Ends> {
        Ok(Ends::from([(PARTITION, self.log.end(topic))]))
    }

    async fn forget(&self, topic: Topic, partition: i32, offset: i64) -> Result<()> {
        check(partition)?;
        if topic == Topic::Results && !self.log.handoff.stored(offset) {
            return Ok(());
        }
        sqlx::query(FORGET).bind(topic.name()).bind(offset).execute(&self.log.database.writer).await?;
        if topic == Topic::Results {
            self.log.handoff.forgotten(offset);
        }
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        if self.publications.is_closed() {
            return Err(closed());
        }
        Ok(self.log.database.check().await?)
    }
}

fn check(partition: i32) -> Result<()> {
    let message =
        || BusError::Unavailable(format!("partition {partition} does not exist; the only one is {PARTITION}"));
    (partition == PARTITION).then_some(()).ok_or_else(message)
}

fn closed() -> BusError {
    BusError::Unavailable("the process is stopping".into())
}

/// Takes what publishers ask for.
struct Committer {
    writer: SqlitePool,
    room: Arc<Room>,
    ends: Arc<Grown>,
    handoff: Arc<Handoff>,
    windows: Mutex<Windows>,
}

impl Committer {
    /// Commits what its reader does not store at once. What arrives during one commit shares the
    /// next: the more there is to do, the fewer waits for the disk a record costs.
    async fn run(self, mut requests: mpsc::Receiver<Publication>) {
        let mut batch = Vec::with_capacity(PUBLICATIONS_PER_COMMIT);
        loop {
            tokio::select! {
                received = requests.recv_many(&mut batch, PUBLICATIONS_PER_COMMIT) => if received == 0 { break },
                () = self.handoff.late() => {}
            }
            let has_reader = self.handoff.has_reader();
            // What is committed below lies behind all that is offered.
            self.write(if has_reader { self.handoff.overdue() } else { self.handoff.all() }).await;
            if has_reader {
                let (results, others) = batch.drain(..).partition(|asked| asked.topic == Topic::Results);
                batch = others;
                self.offer(results);
            }
            if !batch.is_empty() {
                self.commit(&mut batch).await;
            }
        }
        self.write(self.handoff.all()).await;
    }

    fn offer(&self, results: Vec<Publication>) {
        for Publication { records, done, .. } in results {
            let end = &self.ends[&Topic::Results];
            let records = Unstored { begin: *end.borrow(), records: records.into() };
            let next = records.end();
            self.handoff.offer(records, done);
            end.send_replace(next);
        }
    }

    /// Writes what a reader has not stored.
    async fn write(&self, unstored: Vec<Unstored>) {
        let Some(end) = unstored.last().map(Unstored::end) else { return };
        match self.write_all(&unstored, end).await {
            Ok(()) => self.handoff.logged(end),
            Err(error) => self.handoff.refused(end, || Err(BusError::Unavailable(error.to_string()))),
        }
    }

    async fn write_all(&self, unstored: &[Unstored], end: i64) -> sqlx::Result<()> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for Unstored { begin, records } in unstored {
            let records: Vec<_> = records.iter().collect();
            append_to(&mut tx, Topic::Results, *begin, &records, clock_us()).await?;
        }
        sqlx::query(SET_END).bind(end).bind(Topic::Results.name()).execute(&mut *tx).await?;
        tx.commit().await
    }

    async fn commit(&self, batch: &mut Vec<Publication>) {
        let append = || append(&self.writer, batch, &self.ends, &self.windows);
        // What is stored can wait for room.
        let is_pressing = batch.iter().any(|publication| !publication.topic.is_stored());
        let outcome = if is_pressing { self.room.despite_full(append).await } else { append().await };
        for (topic, end) in outcome.iter().flatten() {
            if *topic == Topic::Results {
                self.handoff.logged(*end);
            }
            self.ends[topic].send_replace(*end);
        }
        let failure = outcome.err().map(|error| error.to_string());
        for publication in batch.drain(..) {
            let answer = failure.clone().map_or(Ok(()), |message| Err(BusError::Unavailable(message)));
            // A publisher that has gone away needs no answer.
            publication.done.send(answer).ok();
        }
    }
}

/// One transaction for all publications, and for what the windows have passed; the new end of each topic that
/// grew.
pub(super) async fn append(
    writer: &SqlitePool,
    batch: &[Publication],
    ends: &Grown,
    windows: &Mutex<Windows>,
) -> Result<Vec<(Topic, i64)>, StoreError> {
    let mut topics = BTreeMap::<_, Vec<&Record>>::new();
    for publication in batch {
        topics.entry(publication.topic).or_default().extend(&publication.records);
    }
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    let (now, at) = (clock_us(), Instant::now());
    let passed: Vec<_> =
        windows.lock().iter().filter_map(|(topic, window)| Some((*topic, window.passed(at)?))).collect();
    for (topic, offset) in &passed {
        sqlx::query(FORGET).bind(topic.name()).bind(offset).execute(&mut *tx).await?;
    }
    let mut grown = Vec::with_capacity(topics.len());
    let mut appended = Vec::with_capacity(topics.len());
    for (topic, records) in topics {
        let begin = *ends[&topic].borrow();
        let end = begin + i64::try_from(records.len()).unwrap_or(i64::MAX);
        append_to(&mut tx, topic, begin, &records, now).await?;
        sqlx::query(SET_END).bind(end).bind(topic.name()).execute(&mut *tx).await?;
        grown.push((topic, end));
        if !topic.is_stored() {
            appended.push((topic, end, records.iter().map(|record| record.payload.len()).sum()));
        }
    }
    tx.commit().await?;
    let mut windows = windows.lock();
    for (topic, offset) in passed {
        windows.entry(topic).or_default().dropped(offset);
    }
    for (topic, end, bytes) in appended {
        windows.entry(topic).or_default().appended(end, bytes, at);
    }
    Ok(grown)
}

async fn append_to(
    conn: &mut SqliteConnection,
    topic: Topic,
    begin: i64,
    records: &[&Record],
    now: i64,
) -> sqlx::Result<()> {
    let numbered: Vec<_> = (begin..).zip(records).collect();
    for chunk in numbered.chunks(RECORDS_PER_STATEMENT) {
        let mut insert = QueryBuilder::<Sqlite>::new(APPEND);
        insert.push_values(chunk, |mut values, (offset, record)| {
            values
                .push_bind(topic.name())
                .push_bind(offset)
                .push_bind(record.key.as_str())
                .push_bind(record.payload.as_slice())
                .push_bind(now);
        });
        insert.build().execute(&mut *conn).await?;
    }
    Ok(())
}

impl Log {
    fn end(&self, topic: Topic) -> i64 {
        *self.ends[&topic].borrow()
    }

    /// What lies in the log.
    async fn read(&self, topic: Topic, from: i64, limit: usize) -> Result<Vec<Delivered>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = sqlx::query(READ).bind(topic.name()).bind(from).bind(limit).bind(READ_BYTES);
        let rows = query.fetch_all(&self.database.reader).await?;
        let delivered = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Delivered {
                partition: PARTITION,
                offset: row.try_get("offset")?,
                key: row.try_get("key")?,
                payload: row.try_get("payload")?,
            })
        };
        rows.iter().map(delivered).collect()
    }
}

/// A place in a topic.
struct Cursor {
    log: Arc<Log>,
    topic: Topic,
    position: i64,
}

#[async_trait]
impl Tail for Cursor {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivered>> {
        let mut end = self.log.ends[&self.topic].subscribe();
        loop {
            let end = *end.wait_for(|end| *end > self.position).await.map_err(|_| closed())?;
            let (offered, first) = match self.topic {
                Topic::Results => self.log.handoff.read(self.position, limit.max(1)),
                _ => (Vec::new(), None),
            };
            let records = if offered.is_empty() {
                self.log.read(self.topic, self.position, limit.max(1)).await?
            } else {
                offered
            };
            // Nothing is awaited from here on, so that a dropped future loses nothing.
            match records.last() {
                Some(last) => {
                    self.position = last.offset + 1;
                    return Ok(records);
                }
                // All of it was forgotten meanwhile, up to what is not in the log.
                None => self.position = first.map_or(end, |first| first.min(end)),
            }
        }
    }

    fn has_given(&self, ends: &Ends) -> bool {
        ends.values().all(|end| self.position >= *end)
    }
}

/// A member of a group. It has the partition from its turn until it is dropped; the next in the queue
/// follows.
struct Member {
    log: Arc<Log>,
    topic: Topic,
    turn: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    cursor: Option<Cursor>,
    reading: Option<Reading>,
}

#[async_trait]
impl Subscription for Member {
    async fn next(&mut self, limit: usize) -> Result<Fetched> {
        if self.permit.is_none() {
            self.permit = Some(Arc::clone(&self.turn).acquire_owned().await.map_err(|_| closed())?);
            return Ok(Fetched::Assigned(vec![PARTITION]));
        }
        match &mut self.cursor {
            Some(cursor) => Ok(Fetched::Records { partition: PARTITION, records: cursor.next(limit).await? }),
            // Nothing is delivered before the first seek.
            None => std::future::pending().await,
        }
    }

    async fn seek(&mut self, partition: i32, offset: i64) -> Result<()> {
        check(partition)?;
        if self.permit.is_none() {
            return Err(BusError::Unavailable(format!("partition {partition} is not assigned to this member")));
        }
        if self.topic == Topic::Results {
            self.reading.get_or_insert_with(|| Reading::begin(&self.log.handoff));
        }
        self.cursor = Some(Cursor { log: Arc::clone(&self.log), topic: self.topic, position: offset });
        Ok(())
    }
}
