//! The failure matrix: whatever is killed, stopped in its tracks or cut off, each scenario completes with the
//! rows of an undisturbed run, and nothing that must never happen was ever seen.
//!
//! Each test goes through several rows on one cluster, because starting one takes longer than most rows.

mod control;
mod messages;
mod runners;
mod servers;

use framehook_tests::{client::slow_scenario, cluster::Cluster};

/// Ten seconds a run and more: a lease of five seconds ends meanwhile.
const FRAME_MS: u64 = 20;

/// Scenarios that are running: each has some rows, and most of its frames before it.
fn running(cluster: &Cluster, count: usize) -> Vec<String> {
    let ids: Vec<_> = (0..count).map(|_| cluster.post_scenario(&slow_scenario(FRAME_MS))).collect();
    for id in &ids {
        cluster.wait_for_row(id, 20);
    }
    ids
}

/// A scenario that went on as if nothing had happened.
fn undisturbed(cluster: &Cluster, id: &str) {
    let states: Vec<_> = cluster.transitions(id).into_iter().map(|(_, to)| to).collect();
    assert_eq!(states, ["pending", "deploying", "running", "completed"], "scenario {id}");
    assert_eq!(cluster.scenario(id)["generation"], 1);
}

/// Says which row of the matrix is on, so that a failed test tells.
fn row(what: &str) {
    println!("== {what}");
}
