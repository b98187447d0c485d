//! Topics, tails, groups.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use framehook_core::topic::Topic;
use framehook_infra::bus::{BusError, Delivered, Fetched, Record, SharedBus, Subscription, Tail};
use futures::FutureExt as _;
use tokio::{sync::watch, task::JoinSet};

use crate::fixtures::BusBackend;

/// All records here have one key, so that they are in one partition, however many a bus has.
const KEY: &str = "key";

pub(crate) fn records(numbers: std::ops::Range<u32>) -> Vec<Record> {
    numbers.map(|n| Record { key: KEY.into(), payload: n.to_le_bytes().to_vec(), ..Record::default() }).collect()
}

pub(crate) fn number(record: &Delivered) -> u32 {
    u32::from_le_bytes(record.payload[..].try_into().unwrap())
}

/// Reads until `count` records are there.
async fn read(tail: &mut dyn Tail, count: usize, limit: usize) -> Vec<Delivered> {
    let mut all = vec![];
    while all.len() < count {
        let some = tail.next(limit).await.unwrap();
        assert!((1..=limit).contains(&some.len()));
        all.extend(some);
    }
    all
}

async fn assigned(member: &mut dyn Subscription) -> Vec<i32> {
    match member.next(10).await.unwrap() {
        Fetched::Assigned(partitions) => partitions,
        other => panic!("expected partitions, got {other:?}"),
    }
}

/// A member of the group, each of its partitions sought to `offset`.
pub(crate) async fn reading(bus: &SharedBus, group: &str, offset: i64) -> Box<dyn Subscription> {
    let mut member = bus.subscribe(group, Topic::Results).await.unwrap();
    for partition in assigned(member.as_mut()).await {
        member.seek(partition, offset).await.unwrap();
    }
    member
}

pub(crate) async fn fetch(member: &mut dyn Subscription, count: usize) -> Vec<Delivered> {
    let mut all = vec![];
    while all.len() < count {
        match member.next(7).await.unwrap() {
            Fetched::Records { partition, records } => {
                assert!(records.len() <= 7 && records.iter().all(|r| r.partition == partition));
                all.extend(records);
            }
            other => panic!("expected records, got {other:?}"),
        }
    }
    all
}

pub(crate) async fn records_keep_their_order_and_offsets_grow(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    bus.ping().await.unwrap();
    let mut tail = bus.tail(Topic::Results).await.unwrap();
    bus.publish(Topic::Results, vec![]).await.unwrap();
    for numbers in [0..1, 1..200, 200..203] {
        bus.publish(Topic::Results, records(numbers)).await.unwrap();
    }
    let all = read(tail.as_mut(), 203, 64).await;
    assert!(all.iter().map(number).eq(0..203));
    assert!(all.iter().all(|record| record.key == KEY && record.partition == all[0].partition));
    assert!(all.is_sorted_by(|a, b| a.offset < b.offset));
    let end = bus.end_offset(Topic::Results, all[0].partition).await.unwrap();
    assert!(end > all[202].offset);
    bus.publish(Topic::Results, records(203..204)).await.unwrap();
    assert_eq!(read(tail.as_mut(), 1, 1).await[0].offset, end);
}

pub(crate) async fn a_tail_begins_at_the_end(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    bus.publish(Topic::RunnerStatus, records(0..10)).await.unwrap();
    let mut first = bus.tail(Topic::RunnerStatus).await.unwrap();
    bus.publish(Topic::RunnerStatus, records(10..12)).await.unwrap();
    let mut second = bus.tail(Topic::RunnerStatus).await.unwrap();
    bus.publish(Topic::RunnerStatus, records(12..13)).await.unwrap();
    assert!(read(first.as_mut(), 3, 10).await.iter().map(number).eq(10..13));
    assert!(read(second.as_mut(), 1, 10).await.iter().map(number).eq(12..13));
}

pub(crate) async fn a_tail_knows_when_it_has_given_everything(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    bus.publish(Topic::RunnerStatus, records(0..5)).await.unwrap();
    let mut tail = bus.tail(Topic::RunnerStatus).await.unwrap();
    let at_first = bus.ends(Topic::RunnerStatus).await.unwrap();
    assert!(tail.has_given(&at_first), "it begins there");
    bus.publish(Topic::RunnerStatus, records(5..15)).await.unwrap();
    let ends = bus.ends(Topic::RunnerStatus).await.unwrap();
    assert!(tail.has_given(&at_first) && !tail.has_given(&ends));
    let given = read(tail.as_mut(), 10, 4).await;
    assert!(tail.has_given(&ends));
    assert_eq!(ends[&given[9].partition], given[9].offset + 1);
    bus.publish(Topic::RunnerStatus, records(15..16)).await.unwrap();
    assert!(tail.has_given(&ends), "what came later was not asked for");
    assert!(!tail.has_given(&bus.ends(Topic::RunnerStatus).await.unwrap()));
}

pub(crate) async fn a_waiting_tail_is_woken(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    let mut tails = JoinSet::new();
    for _ in 0..4 {
        let mut tail = bus.tail(Topic::ToDeploy).await.unwrap();
        tails.spawn(async move { read(tail.as_mut(), 5, 2).await });
    }
    for n in 0..5 {
        bus.publish(Topic::ToDeploy, records(n..n + 1)).await.unwrap();
    }
    for all in tails.join_all().await {
        assert!(all.iter().map(number).eq(0..5));
    }
}

pub(crate) async fn dropping_a_waiting_reader_loses_nothing(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    let mut tail = bus.tail(Topic::Results).await.unwrap();
    let mut member = reading(&bus, "inbox", 0).await;
    // Polled once, and dropped: while nothing is there, and while something is on its way.
    assert!(tail.next(10).now_or_never().is_none());
    assert!(member.next(10).now_or_never().is_none());
    bus.publish(Topic::Results, records(0..20)).await.unwrap();
    let (mut from_tail, mut from_group) = (vec![], vec![]);
    for _ in 0..5 {
        from_tail.extend(tail.next(3).now_or_never().map(Result::unwrap).unwrap_or_default());
        if let Some(Ok(Fetched::Records { records, .. })) = member.next(3).now_or_never() {
            from_group.extend(records);
        }
    }
    let left = 20 - from_tail.len();
    from_tail.extend(read(tail.as_mut(), left, 3).await);
    assert!(from_tail.iter().map(number).eq(0..20));
    let left = 20 - from_group.len();
    from_group.extend(fetch(member.as_mut(), left).await);
    assert!(from_group.iter().map(number).eq(0..20));
}

pub(crate) async fn a_subscription_reads_from_where_it_seeks(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    // Published before anybody subscribed: kept until it is forgotten.
    bus.publish(Topic::Results, records(0..50)).await.unwrap();
    let mut member = reading(&bus, "inbox", 0).await;
    let all = fetch(member.as_mut(), 50).await;
    assert!(all.iter().map(number).eq(0..50));
    let Delivered { partition, offset, .. } = all[30];
    for _ in 0..2 {
        member.seek(partition, offset).await.unwrap();
        assert!(fetch(member.as_mut(), 20).await.iter().map(number).eq(30..50));
    }
    bus.publish(Topic::Results, records(50..51)).await.unwrap();
    assert!(fetch(member.as_mut(), 1).await.iter().map(number).eq(50..51));
    // Another group reads for itself.
    assert!(fetch(reading(&bus, "other", offset).await.as_mut(), 21).await.iter().map(number).eq(30..51));
    assert!(member.seek(partition + 1000, 0).await.is_err());
}

pub(crate) async fn nothing_is_delivered_before_the_first_seek(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    bus.publish(Topic::Results, records(0..3)).await.unwrap();
    let mut member = bus.subscribe("inbox", Topic::Results).await.unwrap();
    assert!(member.seek(0, 0).await.is_err(), "not assigned yet");
    let partitions = assigned(member.as_mut()).await;
    assert!(member.next(10).now_or_never().is_none());
    for partition in partitions {
        member.seek(partition, 0).await.unwrap();
    }
    assert_eq!(fetch(member.as_mut(), 3).await.len(), 3);
}

/// What a store does for an inbox: the next offset of each partition, and the numbers of the records before.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Partitions>>);

type Partitions = HashMap<i32, (i64, Vec<u32>)>;

impl Ledger {
    pub(crate) fn next(&self, partition: i32) -> i64 {
        self.0.lock().unwrap().get(&partition).map_or(0, |(next, _)| *next)
    }

    pub(crate) fn numbers(&self) -> Vec<u32> {
        let mut all: Vec<_> = self.0.lock().unwrap().values().flat_map(|(_, numbers)| numbers.clone()).collect();
        all.sort_unstable();
        all
    }

    /// Compare and set.
    fn store(&self, partition: i32, expected: i64, records: &[Delivered]) -> bool {
        let mut all = self.0.lock().unwrap();
        let (next, numbers) = all.entry(partition).or_default();
        let is_current = *next == expected;
        if is_current {
            *next = records.last().unwrap().offset + 1;
            numbers.extend(records.iter().map(number));
        }
        is_current
    }
}

/// A member of the group that stores what it reads, until it is aborted or fails. `owned` counts its
/// partitions.
pub(crate) async fn store_all(
    mut member: Box<dyn Subscription>,
    ledger: Ledger,
    owned: watch::Sender<usize>,
) -> Result<Infallible, BusError> {
    let mut next = HashMap::new();
    loop {
        match member.next(10).await? {
            Fetched::Assigned(partitions) => {
                for partition in partitions {
                    assert!(next.insert(partition, ledger.next(partition)).is_none(), "assigned twice: {partition}");
                    member.seek(partition, next[&partition]).await?;
                }
            }
            Fetched::Revoked(partitions) => {
                partitions
                    .iter()
                    .for_each(|partition| assert!(next.remove(partition).is_some(), "not ours: {partition}"));
            }
            Fetched::Records { partition, records } => {
                let expected = next.get_mut(&partition).expect("records only of what is ours");
                assert!(records[0].offset >= *expected, "records from before the seek");
                if ledger.store(partition, *expected, &records) {
                    *expected = records.last().unwrap().offset + 1;
                } else {
                    *expected = ledger.next(partition);
                    let to = *expected;
                    member.seek(partition, to).await?;
                }
            }
            Fetched::LogReset { partition, .. } => panic!("nobody lost the log of {partition}"),
        }
        owned.send_replace(next.len());
    }
}

pub(crate) async fn a_partition_is_read_by_one_member_at_a_time(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    let ledger = Ledger::default();
    let stored = async |count: u32| {
        while !ledger.numbers().into_iter().eq(0..count) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (first, second) = (watch::Sender::new(0), watch::Sender::new(0));
    let member = bus.subscribe("inbox", Topic::Results).await.unwrap();
    let reading = tokio::spawn(store_all(member, ledger.clone(), first.clone()));
    bus.publish(Topic::Results, records(0..10)).await.unwrap();
    stored(10).await;
    let all = *first.borrow();

    let member = bus.subscribe("inbox", Topic::Results).await.unwrap();
    let successor = tokio::spawn(store_all(member, ledger.clone(), second.clone()));
    bus.publish(Topic::Results, records(10..15)).await.unwrap();
    stored(15).await;
    assert!(!reading.is_finished() && !successor.is_finished());
    reading.abort();
    second.subscribe().wait_for(|&owned| owned == all).await.unwrap();
    bus.publish(Topic::Results, records(15..20)).await.unwrap();
    stored(20).await;
}

pub(crate) async fn what_is_forgotten_is_not_read_again(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    bus.publish(Topic::Results, records(0..10)).await.unwrap();
    let mut member = reading(&bus, "inbox", 0).await;
    let all = fetch(member.as_mut(), 10).await;
    let (partition, end) = (all[0].partition, all[9].offset + 1);
    for _ in 0..2 {
        bus.forget(Topic::Results, partition, all[6].offset).await.unwrap();
    }
    member.seek(partition, all[6].offset).await.unwrap();
    assert_eq!(fetch(member.as_mut(), 4).await, all[6..]);
    // Offsets go on from where they were, also when nothing is left.
    bus.forget(Topic::Results, partition, end).await.unwrap();
    member.seek(partition, end).await.unwrap();
    bus.publish(Topic::Results, records(10..11)).await.unwrap();
    let new = fetch(member.as_mut(), 1).await;
    assert!(new[0].offset >= end && number(&new[0]) == 10);
}

pub(crate) async fn many_publishers_lose_and_reorder_nothing(backend: &impl BusBackend) {
    /// Publishers, and the batches each one publishes.
    const PUBLISHERS: u32 = 12;
    const BATCHES: u32 = 20;
    let bus = backend.bus().await;
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let bus = bus.clone();
        publishers.spawn(async move {
            for batch in 0..BATCHES {
                let payload = |n: u32| (batch * 3 + n).to_le_bytes().to_vec();
                let records =
                    (0..3).map(|n| Record { key: publisher.to_string(), payload: payload(n), ..Record::default() });
                bus.publish(Topic::Results, records.collect()).await.unwrap();
            }
        });
    }
    let mut member = reading(&bus, "inbox", 0).await;
    let all = fetch(member.as_mut(), (PUBLISHERS * BATCHES * 3) as usize).await;
    publishers.join_all().await;
    let mut last = HashMap::new();
    assert!(all.iter().all(|r| last.insert(r.partition, r.offset).is_none_or(|last| last < r.offset)));
    let mut next = HashMap::<_, u32>::new();
    for record in &all {
        let next = next.entry(record.key.clone()).or_default();
        assert_eq!(number(record), *next, "publisher {}", record.key);
        *next += 1;
    }
    assert_eq!(next.len(), PUBLISHERS as usize);
}

pub(crate) async fn topics_are_apart(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    let mut tails = vec![];
    for topic in Topic::ALL {
        tails.push(bus.tail(topic).await.unwrap());
    }
    for (n, topic) in (0..).zip(Topic::ALL) {
        bus.publish(topic, records(n..n + 1)).await.unwrap();
    }
    for (n, tail) in (0..).zip(&mut tails) {
        let [record] = &tail.next(10).await.unwrap()[..] else { panic!("one record") };
        assert_eq!(number(record), n);
    }
}

pub(crate) async fn the_log_survives_reopening(backend: &impl BusBackend) {
    let bus = backend.bus().await;
    bus.publish(Topic::Results, records(0..10)).await.unwrap();
    let all = fetch(reading(&bus, "inbox", 0).await.as_mut(), 10).await;
    let partition = all[0].partition;
    bus.forget(Topic::Results, partition, all[3].offset).await.unwrap();
    let end = bus.end_offset(Topic::Results, partition).await.unwrap();
    drop(bus);

    let bus = backend.bus().await;
    assert_eq!(bus.end_offset(Topic::Results, partition).await.unwrap(), end);
    assert_eq!(fetch(reading(&bus, "inbox", all[3].offset).await.as_mut(), 7).await, all[3..]);
    bus.forget(Topic::Results, partition, end).await.unwrap();
    drop(bus);

    // Nothing is left, and still no offset is given twice.
    let bus = backend.bus().await;
    assert_eq!(bus.end_offset(Topic::Results, partition).await.unwrap(), end);
    bus.publish(Topic::Results, records(10..11)).await.unwrap();
    assert_eq!(fetch(reading(&bus, "inbox", end).await.as_mut(), 1).await[0].offset, end);
}
