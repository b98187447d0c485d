//! What a broker of Kafka that was frozen does to its clients, and that they get over it.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use framehook_core::topic::Topic;
use framehook_infra::{
    bus::{BusError, Fetched, SharedBus, Subscription},
    kafka::Kafka,
};
use framehook_tests::servers;
use rustix::process::Signal;
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use crate::{
    DEADLINE,
    bus::{number, reading, records},
    fixtures::BusBackend as _,
    kafka::Database,
};

/// For longer than a record is given: then its publisher hears of it, and goes on with another producer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_frozen_is_used_again() {
    let broker = spawn_blocking(servers::Kafka::start).await.unwrap();
    let bus = Database::on(broker.brokers()).bus().await;
    bus.publish(Topic::Results, records(0..10)).await.unwrap();
    broker.signal(Signal::STOP);
    assert!(bus.publish(Topic::Results, records(10..20)).await.is_err());
    broker.signal(Signal::CONT);
    goes_on(&bus).await;
    bus.ping().await.unwrap();
}

/// As every publisher does it: until it is there.
async fn goes_on(bus: &SharedBus) {
    let publish = async { while bus.publish(Topic::InitScenario, records(0..1)).await.is_err() {} };
    timeout(DEADLINE, publish).await.expect("a publisher goes on");
}

/// A broker that was frozen may tell its clients that there are no brokers, and librdkafka believes it for
/// good (confluentinc/librdkafka#5301): no client of these about every second time, and else all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_forgot_a_frozen_broker_find_it_again() {
    const CLIENTS: u32 = 6;
    /// Longer than a reader is quiet before it asks, and what it asks is answered first.
    const FREEZE: Duration = Duration::from_secs(8);
    let broker = spawn_blocking(servers::Kafka::start).await.unwrap();
    let database = Database::on(broker.brokers());
    let mut buses = vec![];
    let mut heard = vec![];
    for client in 0..CLIENTS {
        let bus = database.bus().await;
        heard.push(tailing(bus.clone()).await);
        heard.push(in_group(bus.clone(), format!("group-{client}")).await);
        // As an orchestrator does.
        let asking = bus.clone();
        tokio::spawn(async move {
            loop {
                asking.ends(Topic::Results).await.ok();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        buses.push(bus);
    }
    for round in 0..2_u32 {
        broker.signal(Signal::STOP);
        tokio::time::sleep(FREEZE).await;
        broker.signal(Signal::CONT);
        let begin = Instant::now();
        // By a client that knows nothing of it.
        let publish = async {
            loop {
                let Ok(bus) = Kafka::connect(database.0.clone()).await else { continue };
                if bus.publish(Topic::Results, records(round..round + 1)).await.is_ok() {
                    break;
                }
            }
        };
        timeout(DEADLINE, publish).await.expect("the broker answers new clients");
        for (n, heard) in heard.iter_mut().enumerate() {
            let heard = timeout(DEADLINE, heard.wait_for(|&last| last == Some(round))).await;
            assert!(heard.is_ok_and(|heard| heard.is_ok()), "reader {n} hears nothing after {:?}", begin.elapsed());
        }
        println!("every reader goes on after {:?}", begin.elapsed());
        for bus in &buses {
            goes_on(bus).await;
        }
    }
}

/// The number of the last record that a tail gave.
async fn tailing(bus: SharedBus) -> watch::Receiver<Option<u32>> {
    let mut tail = bus.tail(Topic::Results).await.unwrap();
    let (last, seen) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            // Dropped now and then, as by whoever has something else to do meanwhile.
            if let Ok(Ok(records)) = timeout(Duration::from_millis(700), tail.next(10)).await {
                last.send_replace(records.last().map(number));
            }
        }
    });
    seen
}

/// The same of the only member of a group, which joins again after an error.
async fn in_group(bus: SharedBus, group: String) -> watch::Receiver<Option<u32>> {
    let mut member = reading(&bus, &group, 0).await;
    let (last, seen) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let Err(_) = follow(member.as_mut(), &last).await;
            if let Ok(again) = bus.subscribe(&group, Topic::Results).await {
                member = again;
            }
        }
    });
    seen
}

async fn follow(member: &mut dyn Subscription, last: &watch::Sender<Option<u32>>) -> Result<Infallible, BusError> {
    loop {
        match member.next(10).await? {
            Fetched::Assigned(partitions) => {
                for partition in partitions {
                    member.seek(partition, 0).await?;
                }
            }
            Fetched::Records { records, .. } => {
                last.send_replace(records.last().map(number));
            }
            Fetched::Revoked(_) | Fetched::LogReset { .. } => {}
        }
    }
}
