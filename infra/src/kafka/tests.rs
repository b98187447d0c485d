//! What a test can only do from inside.

use framehook_tests::servers::kafka_brokers;
use uuid::Uuid;

use super::*;

/// A reader whose partitions are paused behind its back gets nothing and does not know why: a stall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_tail_is_noticed_and_goes_on_where_it_was() {
    let brokers = tokio::task::spawn_blocking(kafka_brokers).await.unwrap();
    let config = KafkaConfig { prefix: format!("{}-", Uuid::now_v7()), ..KafkaConfig::new(brokers) };
    let cluster = tokio::task::spawn_blocking(|| Cluster::connect(config)).await.unwrap().unwrap();
    let bus = Kafka(Arc::new(cluster));
    let mut tail = tail::KafkaTail::open(&bus.0, Topic::ToDeploy).await.unwrap();
    let record = |n: u8| Record { key: "k".into(), payload: vec![n], ..Record::default() };
    bus.publish(Topic::ToDeploy, vec![record(1)]).await.unwrap();
    assert_eq!(tail.next(10).await.unwrap()[0].payload, [1]);

    tail.stall(Duration::from_millis(200));
    assert!(tokio::time::timeout(Duration::from_secs(1), tail.next(10)).await.is_err(), "nothing is to come: no stall");
    bus.publish(Topic::ToDeploy, vec![record(2), record(3)]).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(30), tail.next(10)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("stalled"), "{error}");
    let mut all = vec![];
    while all.len() < 2 {
        all.extend(tail.next(10).await.unwrap().into_iter().map(|record| record.payload[0]));
    }
    assert_eq!(all, [2, 3]);
}

/// `cargo test --release -p framehook-infra --lib -- --ignored --nocapture kafka`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; run it on a machine that does nothing else"]
async fn how_fast_it_is() {
    let brokers = tokio::task::spawn_blocking(kafka_brokers).await.unwrap();
    let config = KafkaConfig { prefix: format!("{}-", Uuid::now_v7()), ..KafkaConfig::new(brokers) };
    let bus = Kafka::connect(config).await.unwrap();
    // A kilobyte of digits each, as the JSON of boxes mostly is.
    let mut random = fastrand::Rng::with_seed(7);
    let mut payload = || std::iter::repeat_with(|| random.digit(10) as u8).take(1024).collect::<Vec<_>>();
    let payloads: Vec<_> = (0..500).map(|_| payload()).collect();
    let batch = |key: u32, size: usize| {
        let record = |payload: &Vec<u8>| Record { key: key.to_string(), payload: payload.clone(), ..Record::default() };
        payloads[..size].iter().map(record).collect::<Vec<_>>()
    };
    // The connections, and the broker's compiler.
    for _ in 0..200 {
        bus.publish(Topic::Results, batch(0, 64)).await.unwrap();
    }
    for size in [64, 500] {
        for publishers in [1, 4] {
            let begin = Instant::now();
            let each = (0..publishers).map(|key| {
                let (bus, batch) = (&bus, &batch);
                async move {
                    for _ in 0..20_000 / size {
                        bus.publish(Topic::Results, batch(key, size)).await.unwrap();
                    }
                }
            });
            futures::future::join_all(each).await;
            let records = f64::from(publishers) * (20_000 / size * size) as f64;
            println!(
                "{publishers} publishers, {size} a batch: {:.0} records/s",
                records / begin.elapsed().as_secs_f64()
            );
        }
    }
    let mut tail = bus.tail(Topic::ToDeploy).await.unwrap();
    let (mut acknowledged, mut read) = (vec![], vec![]);
    for _ in 0..1000 {
        let begin = Instant::now();
        let publish = async { (bus.publish(Topic::ToDeploy, batch(0, 1)).await.unwrap(), begin.elapsed()).1 };
        let next = async { (tail.next(1).await.unwrap(), begin.elapsed()).1 };
        let (publish, next) = tokio::join!(publish, next);
        acknowledged.push(publish);
        read.push(next);
    }
    for (what, mut times) in [("acknowledged", acknowledged), ("read by a tail", read)] {
        times.sort_unstable();
        println!("one record {what}: p50 {:?}, p99 {:?}", times[500], times[990]);
    }
}
