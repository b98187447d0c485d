//! Rows about APIs and orchestrators. None of them disturbs a stream (I10).

use framehook_tests::{
    client::slow_scenario,
    cluster::{APIS, CLUSTER_DEADLINE, Cluster, ORCHESTRATORS},
    wait_for,
};
use rustix::process::Signal;

use super::{FRAME_MS, row, running, undisturbed};

fn other(names: [&'static str; 2], name: &str) -> &'static str {
    if names[0] == name { names[1] } else { names[0] }
}

/// Waits for a leader other than `before`.
fn next_leader(cluster: &Cluster, before: &str) -> &'static str {
    wait_for("another to lead", CLUSTER_DEADLINE, || Some(cluster.leader().0).filter(|leader| *leader != before))
}

#[test]
fn orchestrators_come_and_go() {
    let mut cluster = Cluster::start(&[]);

    row("the leader is killed");
    let ids = running(&cluster, 2);
    let (leader, _) = cluster.leader();
    cluster.kill(leader);
    let successor = next_leader(&cluster, leader);
    assert_eq!(successor, other(ORCHESTRATORS, leader));
    cluster.settle(&ids);
    ids.iter().for_each(|id| undisturbed(&cluster, id));
    cluster.all_up();

    row("the leader is stopped in its tracks beyond its lease: when it goes on it leads no more, and changes nothing");
    let mut ids = running(&cluster, 2);
    cluster.signal(successor, Signal::STOP);
    let leader = next_leader(&cluster, successor);
    ids.push(cluster.post_scenario(&slow_scenario(FRAME_MS)));
    cluster.wait_for_row(&ids[2], 20);
    cluster.signal(successor, Signal::CONT);
    cluster.settle(&ids);
    ids.iter().for_each(|id| undisturbed(&cluster, id));
    // A leader that could not hear everything for a while goes on under a new epoch.
    assert_eq!(cluster.leader().0, leader, "the one that was stopped leads again");
    assert!(cluster.log(successor).contains("another orchestrator leads"), "{}", cluster.log(successor));

    row("the standby is killed, and stopped in its tracks: nothing happens at all");
    for kill in [true, false] {
        let ids = running(&cluster, 1);
        if kill {
            cluster.kill(successor);
        } else {
            cluster.signal(successor, Signal::STOP);
        }
        cluster.settle(&ids);
        ids.iter().for_each(|id| undisturbed(&cluster, id));
        assert_eq!(cluster.leader().0, leader);
        if kill {
            cluster.all_up();
        } else {
            cluster.signal(successor, Signal::CONT);
        }
    }
}

#[test]
fn apis_come_and_go() {
    let mut cluster = Cluster::start(&[]);

    for api in APIS {
        row("an API is killed, with the partitions of the inbox that it has");
        let ids = running(&cluster, 2);
        cluster.kill(api);
        cluster.settle(&ids);
        ids.iter().for_each(|id| undisturbed(&cluster, id));
        cluster.all_up();
    }

    row("an API is stopped in its tracks until the other has its partitions: when it goes on it stores nothing twice");
    let ids = running(&cluster, 2);
    cluster.signal("api-1", Signal::STOP);
    cluster.settle(&ids);
    cluster.signal("api-1", Signal::CONT);
    cluster.all_up();
    let ids = running(&cluster, 1);
    cluster.settle(&ids);
    ids.iter().for_each(|id| undisturbed(&cluster, id));

    row("an API dies between the insert of rows and the commit of the offset that says so");
    let ids = running(&cluster, 1);
    let progress = format!("SELECT 1 FROM scenario_progress WHERE scenario_id = '{}' FOR UPDATE", ids[0]);
    cluster.dies_at(&progress, |_| (), |_, ()| ());
    cluster.all_up();
    cluster.settle(&ids);
    ids.iter().for_each(|id| undisturbed(&cluster, id));

    row("a relay dies between publish and mark: the message goes out again, and nothing happens twice");
    // Orchestrators have relays too, and this one shall be the API's.
    ORCHESTRATORS.into_iter().for_each(|name| cluster.kill(name));
    let id = cluster.dies_at(
        "LOCK TABLE workers IN EXCLUSIVE MODE",
        |cluster| cluster.post_scenario(&slow_scenario(FRAME_MS)),
        |cluster, id| assert_eq!(cluster.times_published("init_scenario", id), 1, "it waits to mark what is published"),
    );
    cluster.all_up();
    cluster.settle(std::slice::from_ref(&id));
    assert_eq!(cluster.times_published("init_scenario", &id), 2);
    undisturbed(&cluster, &id);
}
