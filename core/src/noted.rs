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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::Order,
        ids::{Incarnation, RunnerId, ScenarioId},
        message::{WorkerPhase, WorkerStatus},
        placement::Labels,
        planner::{RunnerFacts, WorkerFacts},
        state::WorkerState,
    };

    fn report(scenario_id: ScenarioId, phase: WorkerPhase) -> WorkerStatus {
        WorkerStatus::new(scenario_id, 1, phase)
    }

    fn runner(incarnation: Incarnation, workers: Vec<WorkerStatus>) -> RunnerFacts {
        let (id, labels) = (RunnerId("r".into()), Labels::new());
        let (expires_at_us, arrived_after_us, capacity, memory_mib, draining) = (0, 0, 4, None, false);
        RunnerFacts {
            id,
            incarnation,
            expires_at_us,
            capacity,
            memory_mib,
            draining,
            labels,
            arrived_after_us,
            workers,
        }
    }

    #[test]
    fn an_end_is_noted_once_its_worker_has_no_live_row() {
        let [ended, live, runs] = [(); 3].map(|()| ScenarioId::generate());
        let [incarnation, other] = [Incarnation::generate(), Incarnation::generate()];
        let workers = vec![
            report(ended, WorkerPhase::Finished),
            report(live, WorkerPhase::Failed),
            report(runs, WorkerPhase::Running),
        ];
        let row = WorkerFacts {
            scenario_id: live,
            generation: 1,
            runner_id: RunnerId("r".into()),
            incarnation,
            state: WorkerState::Running,
            memory_mib: 64,
            order: Order { at_us: 0, repeats: 0 },
            stop_ordered: false,
        };
        let runners = vec![runner(incarnation, workers), runner(other, vec![])];
        let snapshot = Snapshot { runners, workers: vec![row], ..Snapshot::default() };
        let workers = vec![WorkerKey { scenario_id: ended, generation: 1 }];
        assert_eq!(noted(&snapshot), [NotedWorkers { runner_id: RunnerId("r".into()), incarnation, workers }]);
    }
}
