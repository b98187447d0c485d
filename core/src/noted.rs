//! Which ended workers a runner may stop telling of: a pure function of a snapshot, like the plan.
//!
//! Invariants: only an end that the store has is noted, so that no end is forgotten before it took effect; an
//! end that is told of again is noted again, so that losing the answer costs one more heartbeat.
//!
//! The answer needs no epoch and no transaction. A snapshot is one consistent read, so a report in it is
//! younger than the row of its worker: a worker without a live row has ended for good, whoever says so and
//! however late.

use std::collections::HashSet;

use crate::{
    message::{NotedWorkers, WorkerKey},
    planner::Snapshot,
};

/// For each runner that tells of ended workers those that the store has no live row of.
pub fn noted(snapshot: &Snapshot) -> Vec<NotedWorkers> {
    let live: HashSet<_> = snapshot.workers.iter().map(|w| (w.incarnation, w.scenario_id, w.generation)).collect();
    let of_runner = snapshot.runners.iter().map(|runner| {
        let ended = runner.workers.iter().filter(|report| report.phase.is_ended());
        let noted = ended.filter(|r| !live.contains(&(runner.incarnation, r.scenario_id, r.generation)));
        let workers = noted.map(|r| WorkerKey { scenario_id: r.scenario_id, generation: r.generation }).collect();
        NotedWorkers { runner_id: runner.id.clone(), incarnation: runner.incarnation, workers }
    });
    of_runner.filter(|noted| !noted.workers.is_empty()).collect()
}
