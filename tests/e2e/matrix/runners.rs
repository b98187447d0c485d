//! Rows about runners and workers: what they had goes on where its rows end, on whoever is left.

use framehook_tests::{
    client::slow_scenario,
    cluster::{CLUSTER_DEADLINE, Cluster, RUNNERS},
    process::signal,
    wait_for,
};
use rustix::process::Signal;

use super::{FRAME_MS, row, running};

/// Waits until a scenario runs elsewhere, in a later generation.
fn moved(cluster: &Cluster, id: &str, from: &str) {
    cluster.wait_for_scenario(id, &format!("moved from {from}"), |s| {
        s["runner"] != from && s["generation"].as_i64() > Some(1) && s["state"] != "recovering"
    });
}

#[test]
fn runners_come_and_go() {
    let mut cluster = Cluster::start(&[("FRAMEHOOK_FRAME_TIMEOUT_S", "3")]);

    row("a runner is killed: its scenarios go on with the other");
    let ids = running(&cluster, 2);
    cluster.kill(cluster.runner_of(&ids[0]));
    cluster.settle(&ids);
    cluster.all_up();

    row("a runner is killed and is back at once: a new incarnation, which gets its scenarios in the next generation");
    let ids = running(&cluster, 2);
    let runner = cluster.runner_of(&ids[0]);
    cluster.kill(runner);
    cluster.up(runner);
    cluster.settle(&ids);
    cluster.all_up();

    row(
        "a runner is stopped in its tracks beyond its lease: when it goes on, a zombie, it changes nothing and ends its workers",
    );
    let ids = running(&cluster, 2);
    let runner = cluster.runner_of(&ids[0]);
    cluster.signal(runner, Signal::STOP);
    moved(&cluster, &ids[0], runner);
    cluster.signal(runner, Signal::CONT);
    cluster.settle(&ids);
    wait_for("the zombie's workers to be gone", CLUSTER_DEADLINE, || cluster.workers(runner).is_empty().then_some(()));
    cluster.all_up();

    row("every worker is killed, and every worker is stopped in its tracks");
    for how in [Signal::KILL, Signal::STOP] {
        let ids = running(&cluster, 2);
        let workers = RUNNERS.map(|runner| cluster.workers(runner)).concat();
        assert_eq!(workers.len(), 2);
        workers.into_iter().for_each(|worker| signal(worker, how));
        cluster.settle(&ids);
        for id in &ids {
            assert_eq!(cluster.scenario(id)["generation"], 1, "its own runner starts it again");
        }
    }

    row("both runners are killed: scenarios wait until one is there, and none is placed on the dead");
    let mut ids = running(&cluster, 2);
    RUNNERS.into_iter().for_each(|runner| cluster.kill(runner));
    ids.push(cluster.post_scenario(&slow_scenario(FRAME_MS)));
    cluster.up("runner-1");
    cluster.settle(&ids);
    for id in &ids {
        assert_eq!(cluster.runner_of(id), "runner-1");
    }
}
