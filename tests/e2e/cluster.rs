//! Two of each role on real servers: they share the work, and hand it on without losing any.

use std::collections::BTreeSet;

use framehook_tests::{
    client::{Client, slow_scenario},
    cluster::{APIS, CLUSTER_DEADLINE, Cluster, ORCHESTRATORS, RUNNERS},
    servers::redis_url,
    wait_for,
};

use crate::deploy::metrics_in_use;

/// More than five seconds a run, so that all of them run at once.
const FRAME_MS: u64 = 10;

#[test]
fn eight_scenarios_on_two_of_each_role_are_what_one_alone_is() {
    let mut cluster = Cluster::start(&[("REDIS_URL", &redis_url())]);
    let ids: Vec<_> = (0..8).map(|_| cluster.post_scenario(&slow_scenario(FRAME_MS))).collect();
    for id in &ids {
        cluster.wait_for_row(id, 10);
    }
    // Spread: each runner has four slots, and the eighth scenario runs before the first has ended.
    for runner in RUNNERS {
        assert!(cluster.workers(runner).len() >= 3, "{runner} has {:?}", cluster.workers(runner));
    }
    cluster.settle(&ids);
    let mut exported = BTreeSet::new();
    for name in [APIS, ORCHESTRATORS, RUNNERS].into_iter().flatten() {
        let client = Client::of(&cluster.url_of(name));
        assert_eq!(client.get("/healthz").status, 200, "{name}");
        let metrics = client.get("/metrics").body;
        // A line is a name, its labels in braces, and its value.
        let lines = metrics.as_str().expect("metrics are text").lines().filter(|line| !line.starts_with('#'));
        let names: Vec<_> = lines.map(|line| line.split(['{', ' ']).next().unwrap_or_default().to_owned()).collect();
        assert!(!names.is_empty(), "{name} exports nothing");
        exported.extend(names);
        let log = cluster.log(name);
        assert!(log.contains("connected to Kafka at "), "{name} does not say where it is connected:\n{log}");
        assert_eq!(log.contains("connected to PostgreSQL at "), !name.starts_with("runner"), "{log}");
    }
    let missing: Vec<_> = metrics_in_use().difference(&exported).cloned().collect();
    assert!(missing.is_empty(), "board or alerts use {missing:?}, which nothing exports; there is {exported:?}");
}

#[test]
fn a_drained_runner_hands_on_what_it_has_and_a_new_one_is_used() {
    let mut cluster = Cluster::start(&[]);
    // Only one runner, so that everything is on it.
    assert_eq!(cluster.stop("runner-2"), Some(0));
    let ids: Vec<_> = (0..3).map(|_| cluster.post_scenario(&slow_scenario(FRAME_MS))).collect();
    for id in &ids {
        cluster.wait_for_row(id, 20);
        assert_eq!(cluster.runner_of(id), "runner-1");
    }
    cluster.up("runner-2");
    cluster.all_up();
    let drained = cluster.drain("runner-1");
    assert!(drained.status.success(), "{drained:?}");
    assert_eq!(cluster.ended("runner-1"), Some(0));
    cluster.settle(&ids);
    for id in &ids {
        assert_eq!(cluster.runner_of(id), "runner-2", "scenario {id}");
    }
    // Nobody restarted anything else, and the drained one may come back.
    cluster.up("runner-1");
    cluster.all_up();
    let ids: Vec<_> = (0..8).map(|_| cluster.post_scenario(&slow_scenario(FRAME_MS))).collect();
    wait_for("both runners to have work", CLUSTER_DEADLINE, || {
        RUNNERS.iter().all(|runner| cluster.workers(runner).len() >= 3).then_some(())
    });
    cluster.settle(&ids);
}

#[test]
fn each_role_leaves_in_order_and_the_others_go_on() {
    let mut cluster = Cluster::start(&[]);
    let ids: Vec<_> = (0..2).map(|_| cluster.post_scenario(&slow_scenario(FRAME_MS))).collect();
    for id in &ids {
        cluster.wait_for_row(id, 20);
    }
    let (leader, epoch) = cluster.leader();
    for name in [leader, "api-1", cluster.runner_of(&ids[0])] {
        assert_eq!(cluster.stop(name), Some(0), "{name}: {}", cluster.log(name));
    }
    let (successor, later) = cluster.leader();
    assert_ne!(leader, successor);
    assert!(later > epoch);
    cluster.settle(&ids);
    cluster.all_up();
}
