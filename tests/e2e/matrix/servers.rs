//! Rows about the servers and the disk: Kafka, PostgreSQL and Redis away, for all and for one; no room for
//! anything.

use framehook_tests::{
    asset,
    client::{Client, slow_scenario},
    cluster::{APIS, CLUSTER_DEADLINE, Cluster},
    disk::SmallDisk,
    servers::{Redis, kafka_brokers, postgres_url},
    wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

use super::{FRAME_MS, row, running, undisturbed};

#[test]
fn servers_come_and_go() {
    let mut redis = Redis::start();
    let mut cluster = Cluster::start_with_servers(&[("REDIS_URL", &redis.url())]);

    row("Kafka is killed and started again: create still answers, files wait, no stream is stopped for it");
    let mut ids = running(&cluster, 2);
    cluster.kafka().kill();
    ids.push(cluster.post_scenario(&slow_scenario(FRAME_MS)));
    cluster.kafka().start_again();
    cluster.settle(&ids);
    ids.iter().for_each(|id| undisturbed(&cluster, id));

    row("PostgreSQL is killed and started again: streams go on, and results wait in Kafka");
    let ids = running(&cluster, 2);
    cluster.postgres().kill();
    cluster.postgres().start_again();
    cluster.settle(&ids);
    ids.iter().for_each(|id| undisturbed(&cluster, id));

    row("Redis is stopped in its tracks, killed, and started again: streams and readers go on, and it is used again");
    let ids = running(&cluster, 1);
    assert!(hits(&cluster) > 0, "who polls a scenario is answered from the cache");
    redis.hang();
    cluster.settle(&ids);
    redis.resume();
    let ids = running(&cluster, 1);
    redis.kill();
    cluster.settle(&ids);
    undisturbed(&cluster, &ids[0]);
    redis.start_again();
    let before = hits(&cluster);
    wait_for("the cache to be used again", CLUSTER_DEADLINE, || {
        let read = cluster.scenario(&ids[0]);
        (read["state"] == "completed" && hits(&cluster) > before).then_some(())
    });

    row("an API dies between commit and publish: another's relay publishes, and the same key is the same scenario");
    cluster.kafka().signal(Signal::STOP);
    let key = "a-key-of-the-client";
    let post = |cluster: &Cluster| {
        let answer = cluster.post_with_key("/scenario/init", key, &slow_scenario(FRAME_MS));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["id"].as_str().expect("an id").to_owned()
    };
    let id = post(&cluster);
    cluster.kill("api-1");
    cluster.kill("api-2");
    cluster.kafka().signal(Signal::CONT);
    cluster.all_up();
    assert_eq!(post(&cluster), id);
    cluster.settle(std::slice::from_ref(&id));
    undisturbed(&cluster, &id);

    row(
        "a runner is cut off from Kafka beyond its lease: its scenarios go on elsewhere; when it is back it changes nothing",
    );
    let ids = running(&cluster, 4);
    let cut_off: Vec<_> = ids.iter().filter(|id| cluster.runner_of(id) == "runner-2").cloned().collect();
    assert!(!cut_off.is_empty(), "scenarios are spread");
    cluster.kafka().proxy().cut();
    for id in &cut_off {
        cluster.wait_for_scenario(id, "moved to runner-1", |s| s["runner"] == "runner-1");
    }
    cluster.kafka().proxy().mend();
    cluster.settle(&ids);
    wait_for("the workers of the one that was cut off to be gone", CLUSTER_DEADLINE, || {
        cluster.workers("runner-2").is_empty().then_some(())
    });
    let is_back = |runners: Value| {
        let runners = runners["items"].as_array().cloned().unwrap_or_default();
        runners.iter().any(|runner| runner["id"] == "runner-2" && runner["alive"] == true)
    };
    wait_for("it to be heard of again", CLUSTER_DEADLINE, || is_back(cluster.read("/runner")).then_some(()));

    row("Kafka loses all it had: what is stored stays, and the results of the new log are stored from its beginning");
    cluster.lose_the_log();
    let ids = running(&cluster, 2);
    cluster.settle(&ids);
    assert!(APIS.iter().any(|api| cluster.log(api).contains("the log is another one")));
}

/// Answers that the APIs took from the cache.
fn hits(cluster: &Cluster) -> u64 {
    let of = |api: &str| {
        let metrics = Client::of(&cluster.url_of(api)).get("/metrics").body;
        let lines = metrics.as_str().expect("metrics are text").lines();
        let is_hit = |line: &&str| line.starts_with("framehook_cache_requests_total") && line.contains("\"hit\"");
        let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        lines.filter(is_hit).filter_map(count).sum::<u64>()
    };
    APIS.into_iter().map(of).sum()
}

#[test]
fn a_full_disk_refuses_what_is_new_and_loses_nothing() {
    /// Everything that the processes keep, several times.
    const DISK: u64 = 256 << 20;
    let name = "matrix::servers::a_full_disk_refuses_what_is_new_and_loses_nothing";
    let servers = [("DATABASE_URL", &*postgres_url()), ("KAFKA_BROKERS", &*kafka_brokers())];
    let Some(disk) = SmallDisk::of(name, DISK, &servers) else { return };
    let mut cluster = Cluster::start_in(&disk.folder, &[]);

    row(
        "the disk of blobs, caches and logs is full: uploads are refused with the reason, streams go on, and what is there already runs",
    );
    let mut ids = running(&cluster, 2);
    disk.fill_but(0);
    let clip = std::fs::read(asset("demo1.mp4")).unwrap();
    let upload =
        |cluster: &Cluster| cluster.post("/video?name=late", "application/octet-stream", &[&clip[..], b"!"].concat());
    let refused = upload(&cluster);
    assert_eq!((refused.status, &refused.body["code"]), (507, &"storage_full".into()), "{}", refused.body);
    ids.push(cluster.post_scenario(&slow_scenario(FRAME_MS)));
    cluster.settle(&ids);
    ids.iter().for_each(|id| undisturbed(&cluster, id));

    row("there is room again: what was refused is taken");
    disk.empty();
    let taken = upload(&cluster);
    assert!(matches!(taken.status, 200 | 201), "{}", taken.body);
}
