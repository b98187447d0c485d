//! Kafka under the bus's conformance suite, on topics of its own for each check; and what only Kafka
//! promises.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use framehook_core::topic::Topic;
use framehook_infra::{
    bus::{Delivered, Fetched, Record, SharedBus},
    kafka::{ConnectError, GroupProtocol, Kafka, KafkaConfig},
};
use framehook_tests::servers::{self, kafka_brokers};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::{Headers as _, OwnedMessage},
};
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use uuid::Uuid;

use crate::{
    DEADLINE,
    bus::{Ledger, fetch, number, reading, records, store_all},
    fixtures::BusBackend,
};

const PARTITIONS: usize = 24;

pub(crate) struct Database(pub(crate) KafkaConfig);

impl Database {
    pub(crate) async fn fresh() -> Self {
        Self::on(spawn_blocking(kafka_brokers).await.unwrap())
    }

    pub(crate) fn on(brokers: String) -> Self {
        Self(KafkaConfig { prefix: format!("{}-", Uuid::now_v7()), ..KafkaConfig::new(brokers) })
    }

    fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.0.prefix, topic.name())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.0.brokers).set("group.id", "test");
        client
    }

    /// What a partition begins with, as any other client reads it.
    async fn first(&self, topic: &str, partition: i32) -> OwnedMessage {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        spawn_blocking(move || consumer.poll(DEADLINE).unwrap().unwrap().detach()).await.unwrap()
    }
}

impl BusBackend for Database {
    async fn bus(&self) -> SharedBus {
        Kafka::connect(self.0.clone()).await.unwrap()
    }
}

/// One record for each number, with a key of its own, so that all partitions get some.
async fn publish(bus: &SharedBus, numbers: std::ops::Range<u32>) {
    let keyed = |record: Record| Record { key: number_of(&record.payload).to_string(), ..record };
    bus.publish(Topic::Results, records(numbers).into_iter().map(keyed).collect()).await.unwrap();
}

fn number_of(payload: &[u8]) -> u32 {
    u32::from_le_bytes(payload.try_into().unwrap())
}

/// Waits for what the members of a group do.
async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    start.elapsed()
}

async fn settings(admin: &AdminClient<DefaultClientContext>, topic: &str) -> BTreeMap<String, String> {
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap();
    let entries = described.into_iter().next().unwrap().unwrap().entries;
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_once_and_as_planned() {
    let database = Database::fresh().await;
    let mut connections = JoinSet::new();
    for _ in 0..3 {
        let config = database.0.clone();
        connections.spawn(async move { Kafka::connect(config).await.map(drop).unwrap() });
    }
    connections.join_all().await;
    let admin: AdminClient<DefaultClientContext> = database.client().create().unwrap();
    let metadata = admin.inner().fetch_metadata(None, DEADLINE).unwrap();
    // Minutes they are kept.
    let expected =
        [("init_scenario", 6, 60), ("to_deploy", 6, 60), ("results", 24, 7 * 24 * 60), ("runner_status", 6, 10)];
    for (topic, partitions, minutes) in expected {
        let name = format!("{}{topic}", database.0.prefix);
        let found = metadata.topics().iter().find(|t| t.name() == name).unwrap().partitions();
        assert_eq!(found.len(), partitions, "{topic}");
        assert!(found.iter().all(|p| p.replicas().len() == metadata.brokers().len().min(3)));
        let settings = settings(&admin, &name).await;
        assert_eq!(settings["retention.ms"], (minutes * 60_000).to_string(), "{topic}");
        assert_eq!(settings["compression.type"], if topic == "results" { "lz4" } else { "producer" });
        assert!(settings["max.message.bytes"].parse::<usize>().unwrap() > framehook_core::job::MAX_RECORD);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_record_and_its_trace_arrive() {
    let database = Database::fresh().await;
    let bus = database.bus().await;
    let mut tail = bus.tail(Topic::Results).await.unwrap();
    // As large as a worker may say it, and incompressible.
    let mut random = fastrand::Rng::with_seed(7);
    let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(framehook_core::job::MAX_RECORD).collect();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let record = Record { key: "k".into(), payload: payload.clone(), traceparent: Some(traceparent.into()) };
    bus.publish(Topic::Results, vec![record]).await.unwrap();
    let read = timeout(DEADLINE, tail.next(10)).await.unwrap().unwrap();
    assert!(read.len() == 1 && read[0].payload == payload);

    let message = database.first(&database.topic(Topic::Results), read[0].partition).await;
    assert_eq!(header(&message), ("traceparent", traceparent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_have_topics_that_are_made_when_needed() {
    let database = Database::fresh().await;
    let bus = database.bus().await;
    let letter = |offset| Delivered { partition: 7, offset, key: "key".into(), payload: vec![0, 159, 146, 150] };
    for offset in 0..2 {
        bus.dead_letter(Topic::Results, &letter(offset), "not JSON").await.unwrap();
    }
    let admin: AdminClient<DefaultClientContext> = database.client().create().unwrap();
    let metadata = admin.inner().fetch_metadata(None, DEADLINE).unwrap();
    let made: Vec<_> = metadata.topics().iter().filter(|t| t.name().starts_with(&database.0.prefix)).collect();
    assert_eq!(made.len(), Topic::ALL.len() + 1);
    let name = database.topic(Topic::Results) + ".dlq";
    let ends = servers::topics::ends(&database.0.brokers, &name);
    assert_eq!(ends.len(), 3);
    let (partition, end) = ends.into_iter().max_by_key(|(_, end)| *end).unwrap();
    assert_eq!(end, 2);
    let message = database.first(&name, partition).await;
    assert_eq!((message.key(), message.payload()), (Some(&b"key"[..]), Some(&letter(0).payload[..])));
    assert_eq!(header(&message), ("reason", "not JSON"));
}

fn header(message: &OwnedMessage) -> (&str, &str) {
    let header = message.headers().unwrap().get(0);
    (header.key, std::str::from_utf8(header.value.unwrap()).unwrap())
}

async fn members_share_and_hand_over(protocol: GroupProtocol) {
    let mut database = Database::fresh().await;
    database.0.protocol = protocol;
    // Each in a "process" of its own.
    let (bus, other) = (database.bus().await, database.bus().await);
    let (ledger, owned) = (Ledger::default(), [watch::Sender::new(0), watch::Sender::new(0)]);
    let own = |first: bool, second: bool| {
        let [a, b] = [*owned[0].borrow(), *owned[1].borrow()];
        a + b == PARTITIONS && (a > 0, b > 0) == (first, second)
    };
    let stored = |count: u32| ledger.numbers().into_iter().eq(0..count);

    let member = bus.subscribe("inbox", Topic::Results).await.unwrap();
    let first = tokio::spawn(store_all(member, ledger.clone(), owned[0].clone()));
    let alone = until("the first member", || own(true, false)).await;
    publish(&bus, 0..200).await;
    until("the first records", || stored(200)).await;

    let member = other.subscribe("inbox", Topic::Results).await.unwrap();
    let second = tokio::spawn(store_all(member, ledger.clone(), owned[1].clone()));
    publish(&bus, 200..400).await;
    let joined = until("both to share", || own(true, true)).await;
    publish(&bus, 400..600).await;
    until("records of both", || stored(600)).await;

    first.abort();
    assert!(first.await.unwrap_err().is_cancelled(), "the first member failed");
    owned[0].send_replace(0);
    publish(&bus, 600..800).await;
    let left = until("the second to have all", || own(false, true)).await;
    until("the last records", || stored(800)).await;
    assert!(!second.is_finished());
    println!("{protocol:?}: first member {alone:?}, second joined {joined:?}, first left {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_and_hand_over_by_the_new_protocol() {
    members_share_and_hand_over(GroupProtocol::Consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_and_hand_over_by_the_classic_protocol() {
    members_share_and_hand_over(GroupProtocol::Classic).await;
}

/// Each comes while records do, and every second time the oldest leaves; the rest go on, and nothing stalls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    const ROUNDS: u32 = 8;
    const SIZE: u32 = 100;
    let bus = Database::fresh().await.bus().await;
    let (ledger, owned) = (Ledger::default(), watch::Sender::new(0));
    let mut members = VecDeque::new();
    for round in 0..ROUNDS {
        let member = bus.subscribe("inbox", Topic::Results).await.unwrap();
        members.push_back(tokio::spawn(store_all(member, ledger.clone(), owned.clone())));
        let first = 2 * round * SIZE;
        publish(&bus, first..first + SIZE).await;
        if round % 2 == 1 {
            let oldest = members.pop_front().unwrap();
            oldest.abort();
            assert!(oldest.await.unwrap_err().is_cancelled());
        }
        publish(&bus, first + SIZE..first + 2 * SIZE).await;
        until("all records of the round", || ledger.numbers().into_iter().eq(0..first + 2 * SIZE)).await;
        assert!(members.iter().all(|member| !member.is_finished()));
    }
}

/// As while the database is away. librdkafka wants at least its session timeout here, so this takes a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn a_member_that_does_not_ask_for_long_loses_its_partitions_and_comes_back() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let mut database = Database::fresh().await;
        database.0.protocol = protocol;
        database.0.properties = [("max.poll.interval.ms".to_owned(), "45000".to_owned())].into();
        let (bus, other) = (database.bus().await, database.bus().await);
        let (ledger, owned) = (Ledger::default(), [watch::Sender::new(0), watch::Sender::new(0)]);
        let mut silent = reading(&bus, "inbox", 0).await;
        let member = other.subscribe("inbox", Topic::Results).await.unwrap();
        let second = tokio::spawn(store_all(member, ledger.clone(), owned[1].clone()));
        publish(&bus, 0..100).await;
        timeout(2 * DEADLINE, owned[1].subscribe().wait_for(|&all| all == PARTITIONS)).await.unwrap().unwrap();
        until("the other to store", || ledger.numbers().into_iter().eq(0..100)).await;

        // What is left in its queue may still come; then it hears what happened, or has to join again.
        let mut lost = 0;
        while lost < PARTITIONS {
            match timeout(DEADLINE, silent.next(1000)).await.unwrap() {
                Ok(Fetched::Revoked(partitions)) => lost += partitions.len(),
                Ok(_) => {}
                Err(error) => {
                    println!("{protocol:?}: {error}");
                    silent = bus.subscribe("inbox", Topic::Results).await.unwrap();
                    break;
                }
            }
        }
        let first = tokio::spawn(store_all(silent, ledger.clone(), owned[0].clone()));
        until("both to share", || *owned[0].borrow() > 0 && *owned[0].borrow() + *owned[1].borrow() == PARTITIONS)
            .await;
        publish(&bus, 100..200).await;
        until("the rest", || ledger.numbers().into_iter().eq(0..200)).await;
        assert!(!first.is_finished() && !second.is_finished());
    }
}

/// A stored offset of which the log knows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_begins_at_the_first_record_there_is_from_the_offset_on() {
    let database = Database::fresh().await;
    let bus = database.bus().await;
    bus.publish(Topic::Results, records(0..10)).await.unwrap();
    let mut member = reading(&bus, "inbox", 0).await;
    let partition = fetch(member.as_mut(), 10).await[0].partition;

    // Beyond the end, as after the broker has lost what it had: it says so, and the reader decides.
    member.seek(partition, 12).await.unwrap();
    let anew = timeout(DEADLINE, member.next(10)).await.unwrap().unwrap();
    assert_eq!(anew, Fetched::LogReset { partition, begin: 0 });
    member.seek(partition, 0).await.unwrap();
    bus.publish(Topic::Results, records(10..15)).await.unwrap();
    assert!(fetch(member.as_mut(), 15).await.iter().map(number).eq(0..15));

    // Before the beginning, as after the retention time.
    let admin: AdminClient<DefaultClientContext> = database.client().create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&database.topic(Topic::Results), partition, Offset::Offset(5)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    member.seek(partition, 2).await.unwrap();
    assert!(fetch(member.as_mut(), 10).await.iter().map(number).eq(5..15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_costs_nothing_that_was_acknowledged() {
    /// Published before, during and after.
    const BATCHES: u32 = 60;
    const SIZE: u32 = 10;
    let mut broker = spawn_blocking(servers::Kafka::start).await.unwrap();
    let database = Database::on(broker.brokers());
    let bus = database.bus().await;
    let mut tail = bus.tail(Topic::Results).await.unwrap();
    let (ledger, owned) = (Ledger::default(), watch::Sender::new(0));
    let (joining, stored_in, holds) = (bus.clone(), ledger.clone(), owned.clone());
    let reading = tokio::spawn(async move {
        loop {
            // As an inbox does, whose client may have lost its brokers: it joins again.
            if let Ok(member) = joining.subscribe("inbox", Topic::Results).await {
                let Err(error) = store_all(member, stored_in.clone(), holds.clone()).await;
                println!("joining again: {error}");
            }
        }
    });
    until("all partitions", || *owned.borrow() == PARTITIONS).await;

    let (publisher, published) = (bus.clone(), watch::Sender::new(0));
    let progress = published.subscribe();
    let publishing = tokio::spawn(async move {
        for batch in 0..BATCHES {
            // As every publisher does it: until it is there.
            while publisher.publish(Topic::Results, records(batch * SIZE..(batch + 1) * SIZE)).await.is_err() {}
            published.send_replace(batch + 1);
        }
    });
    until("a third of it", || *progress.borrow() >= BATCHES / 3).await;
    let mut broker = spawn_blocking(move || (broker.kill(), broker).1).await.unwrap();
    assert!(bus.ping().await.is_err());
    let killed = Instant::now();
    let _broker = spawn_blocking(move || (broker.start_again(), broker).1).await.unwrap();
    let back = killed.elapsed();
    timeout(DEADLINE, publishing).await.unwrap().unwrap();
    bus.ping().await.unwrap();

    // What timed out and was published again may be there twice: at least once.
    let all: BTreeSet<_> = (0..BATCHES * SIZE).collect();
    until("the group to read on", || ledger.numbers().into_iter().collect::<BTreeSet<_>>() == all).await;
    let mut tailed = BTreeSet::new();
    while tailed != all {
        tailed.extend(timeout(DEADLINE, tail.next(100)).await.unwrap().unwrap().iter().map(number));
    }
    assert!(!reading.is_finished());
    println!("the broker was back after {back:?}, all was read after {:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_what_to_do_and_no_secret() {
    let secret = "hunter2";
    let wrong = KafkaConfig {
        properties: [("sasl.pasword".to_owned(), secret.to_owned())].into(),
        ..KafkaConfig::new("127.0.0.1:1")
    };
    let Err(error) = Kafka::connect(wrong).await else { panic!("no such property") };
    assert!(matches!(&error, ConnectError::Property { key, .. } if key == "sasl.pasword"), "{error:?}");
    assert!(!format!("{error} {error:?}").contains(secret));

    let closed = format!("127.0.0.1:{}", servers::free_port());
    let Err(error) = Kafka::connect(KafkaConfig::new(closed.clone())).await else { panic!("nobody listens") };
    assert!(matches!(&error, ConnectError::Unreachable { brokers, .. } if *brokers == closed), "{error:?}");
}
