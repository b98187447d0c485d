//! Rows about the servers: Kafka and PostgreSQL away, for all and for one.

use framehook_tests::{
    client::slow_scenario,
    cluster::{CLUSTER_DEADLINE, Cluster},
    wait_for,
};
use rustix::process::Signal;
use serde_json::Value;

use super::{FRAME_MS, row, running, undisturbed};

#[test]
fn servers_come_and_go() {
    let mut cluster = Cluster::start_with_servers(&[]);

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
}
