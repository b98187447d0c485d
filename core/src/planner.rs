//! What the orchestrator should do next: a pure, deterministic function of a snapshot.
//!
//! The orchestrator executes the actions, each in one transaction that checks the leader epoch and the state
//! the action starts from, takes a new snapshot and asks again until nothing is left to do. So a plan need
//! not be complete: it must only make progress, and never propose what a later snapshot would take back.
//! Nothing here depends on having seen a particular message, and nothing is concluded from a heartbeat that
//! may only be late (`evidence`).

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    evidence::{Hearing, Order, is_over, micros},
    execution::Execution,
    ids::{Generation, Incarnation, RunnerId, ScenarioId},
    message::{Progress, StopOrder, WorkerPhase, WorkerStatus},
    placement::{Labels, Room, provided},
    prediction::Position,
    reason::{Reason, ReasonCode},
    revision::{RevisionFacts, RevisionStatus},
    state::{Desired, ScenarioState, WorkerState},
};

/// Times the planner needs; all of the database's clock.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// An order that a heartbeat from this much later does not show is repeated; then after twice
    /// as long. Two heartbeats, and what an order takes to its runner on a busy machine.
    pub resend_after: Duration,
    /// While more than `MASS_EXPIRY_SHARE` of the runners expire at once, their leases are
    /// honoured this much longer: such an expiry is rather our outage than theirs.
    pub mass_expiry_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { resend_after: Duration::from_secs(2), mass_expiry_grace: Duration::from_secs(30) }
    }
}

/// Share of the runners; one alone may always expire.
const MASS_EXPIRY_SHARE: f64 = 0.3;

/// The state of the world, as one transaction saw it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Database time, microseconds since the Unix epoch.
    pub now_us: i64,
    /// Every scenario that is not at rest: `state` not ended, or not what is desired.
    pub scenarios: Vec<ScenarioFacts>,
    /// Every live worker.
    pub workers: Vec<WorkerFacts>,
    /// Every runner not yet written off.
    pub runners: Vec<RunnerFacts>,
}

#[derive(Clone, Debug)]
pub struct ScenarioFacts {
    pub id: ScenarioId,
    pub desired: Desired,
    pub state: ScenarioState,
    pub reason: Option<Reason>,
    pub generation: Generation,
    pub revision: RevisionFacts,
    /// The last frame that arrived in the store.
    pub stored: Option<Position>,
    /// Labels that its runner must have.
    pub placement: Labels,
    /// What ran its model on the last stored frame. Only asked of one that is to be placed.
    pub execution: Option<Execution>,
    /// Memory that its worker may have.
    pub memory_mib: u32,
    /// Its recording has to be fetched before a worker can read it. Only asked of one that is to be placed.
    pub is_fetched: bool,
    /// The trace of the request that made it; no plan depends on it.
    pub traceparent: Option<String>,
}

#[derive(Clone, Debug)]
pub struct WorkerFacts {
    pub scenario_id: ScenarioId,
    pub generation: Generation,
    pub runner_id: RunnerId,
    pub incarnation: Incarnation,
    pub state: WorkerState,
    /// Memory that it may have.
    pub memory_mib: u32,
    /// The last order about it.
    pub order: Order,
    /// A stop order was written.
    pub stop_ordered: bool,
}

#[derive(Clone, Debug)]
pub struct RunnerFacts {
    pub id: RunnerId,
    pub incarnation: Incarnation,
    pub expires_at_us: i64,
    pub capacity: u32,
    /// Memory for all its workers together; `None`: as much as they want.
    pub memory_mib: Option<u32>,
    pub draining: bool,
    pub labels: Labels,
    /// Its last heartbeat reached the bus after this.
    pub arrived_after_us: i64,
    /// As of that heartbeat.
    pub workers: Vec<WorkerStatus>,
}

/// One step. Each names the state it starts from, so that an executor can refuse a stale one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Create a generation and tell its runner.
    Deploy(Deploy),
    /// Tell the runner again to deploy what it was told to.
    RepeatDeploy {
        scenario_id: ScenarioId,
        generation: Generation,
    },
    /// A worker runs the revision that is wanted.
    NoteRevision {
        scenario_id: ScenarioId,
        generation: Generation,
        revision: i64,
        from_frame: Option<u64>,
    },
    /// A worker went back from a revision, to `running`: so does the scenario.
    RollBack {
        scenario_id: ScenarioId,
        generation: Generation,
        revision: i64,
        running: i64,
        reason: Reason,
    },
    /// Tell a runner to stop this generation. It need not be one the store knows.
    Stop(StopOrder),
    MoveWorker {
        scenario_id: ScenarioId,
        generation: Generation,
        from: WorkerState,
        to: WorkerState,
        reason: Option<Reason>,
    },
    MoveScenario {
        scenario_id: ScenarioId,
        from: ScenarioState,
        to: ScenarioState,
        reason: Option<Reason>,
    },
    /// The state stays, its reason changes.
    Explain {
        scenario_id: ScenarioId,
        state: ScenarioState,
        reason: Option<Reason>,
    },
    /// Write an incarnation off; its workers become lost.
    LoseRunner {
        runner_id: RunnerId,
        incarnation: Incarnation,
    },
    /// Remove the results of a deleted scenario.
    Purge {
        scenario_id: ScenarioId,
    },
}

/// A deployment to begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deploy {
    pub scenario_id: ScenarioId,
    pub from: ScenarioState,
    pub generation: Generation,
    pub runner_id: RunnerId,
    pub incarnation: Incarnation,
    pub execution: Option<Execution>,
}

impl Action {
    /// The scenario it is about, and of which generation of it, for logs and traces.
    pub const fn subject(&self) -> Option<(ScenarioId, Option<Generation>)> {
        match self {
            Self::Deploy(Deploy { scenario_id, generation, .. })
            | Self::RepeatDeploy { scenario_id, generation }
            | Self::NoteRevision { scenario_id, generation, .. }
            | Self::RollBack { scenario_id, generation, .. }
            | Self::Stop(StopOrder { scenario_id, generation, .. })
            | Self::MoveWorker { scenario_id, generation, .. } => Some((*scenario_id, Some(*generation))),
            Self::MoveScenario { scenario_id, .. }
            | Self::Explain { scenario_id, .. }
            | Self::Purge { scenario_id } => Some((*scenario_id, None)),
            Self::LoseRunner { .. } => None,
        }
    }
}

/// The next steps, in the order to take them. Empty: the world is as desired, or must be waited for.
#[must_use]
pub fn plan(snapshot: &Snapshot, hearing: &Hearing, timing: Timing) -> Vec<Action> {
    let lost = expired_runners(snapshot, hearing, timing);
    let alive: HashMap<_, _> =
        snapshot.runners.iter().filter(|r| !lost.contains(&r.incarnation)).map(|r| (r.incarnation, r)).collect();
    let workers: HashMap<_, _> = snapshot.workers.iter().map(|w| (w.scenario_id, w)).collect();
    let mut room = Room::of(snapshot, &alive);
    let mut actions: Vec<_> = snapshot
        .runners
        .iter()
        .filter(|r| lost.contains(&r.incarnation))
        .map(|r| Action::LoseRunner { runner_id: r.id.clone(), incarnation: r.incarnation })
        .collect();

    for scenario in &snapshot.scenarios {
        match workers.get(&scenario.id) {
            Some(worker) => match alive.get(&worker.incarnation) {
                Some(runner) => with_worker(scenario, worker, runner, timing, &mut actions),
                None => lose_worker(scenario, worker, &mut actions),
            },
            None => without_worker(scenario, &mut room, &mut actions),
        }
    }
    stop_strays(snapshot, &workers, &alive, (hearing, timing), &mut actions);
    actions
}

/// Incarnations to write off: expired, or followed by a newer one of the same runner.
fn expired_runners(snapshot: &Snapshot, hearing: &Hearing, timing: Timing) -> BTreeSet<Incarnation> {
    let newest = snapshot.runners.iter().fold(HashMap::new(), |mut newest, r| {
        // UUIDv7: a later start has a greater incarnation.
        let entry = newest.entry(&r.id).or_insert(r.incarnation);
        *entry = (*entry).max(r.incarnation);
        newest
    });
    let superseded = |r: &RunnerFacts| newest.get(&r.id) != Some(&r.incarnation);
    let current = snapshot.runners.iter().filter(|r| !superseded(r));
    let expired: Vec<_> = current.clone().filter(|r| is_over(r.expires_at_us, hearing.until_us())).collect();
    let is_mass = expired.len() > 1 && expired.len() as f64 > MASS_EXPIRY_SHARE * current.count() as f64;
    let grace = if is_mass { micros(timing.mass_expiry_grace) } else { 0 };
    let is_lost = |r: &&RunnerFacts| is_over(r.expires_at_us.saturating_add(grace), hearing.until_us());
    let written_off = expired.into_iter().filter(is_lost);
    snapshot.runners.iter().filter(|r| superseded(r)).chain(written_off).map(|r| r.incarnation).collect()
}

/// The worker's runner is gone: so is the worker.
fn lose_worker(scenario: &ScenarioFacts, worker: &WorkerFacts, actions: &mut Vec<Action>) {
    let message = format!("runner {} is gone: it ended, or was not heard of within its lease", worker.runner_id);
    let reason = Some(Reason::new(ReasonCode::LeaseLost, message));
    move_worker(worker, WorkerState::Lost, reason.clone(), actions);
    if scenario.state.may_become(ScenarioState::Recovering).is_ok() {
        move_scenario(scenario, ScenarioState::Recovering, reason, actions);
    }
}

/// A live worker on a live runner: follow what the runner reports.
fn with_worker(
    scenario: &ScenarioFacts,
    worker: &WorkerFacts,
    runner: &RunnerFacts,
    timing: Timing,
    actions: &mut Vec<Action>,
) {
    let report = runner.workers.iter().find(|w| w.scenario_id == scenario.id && w.generation == worker.generation);
    let is_overdue = worker.order.is_overdue(runner.arrived_after_us, timing.resend_after);
    let wanted = scenario.desired == Desired::Running && scenario.state != ScenarioState::Stopping;

    if let Some(report) = report {
        follow_revision(scenario, worker, report, is_overdue, actions);
    }
    if let Some(report) = report.filter(|r| r.phase.is_ended()) {
        return end_worker(scenario, worker, report, actions);
    }
    if !wanted {
        if scenario.state != ScenarioState::Stopping {
            move_scenario(scenario, ScenarioState::Stopping, stopped_by_user(), actions);
        }
        // A runner that never heard of it hears the stop too, and reports it as stopped.
        if !worker.stop_ordered || is_overdue {
            actions.push(stop(worker));
        }
        return;
    }
    let Some(report) = report else {
        // One that was not published yet still lies in the outbox.
        if is_overdue && worker.state != WorkerState::Pending {
            actions.push(Action::RepeatDeploy { scenario_id: scenario.id, generation: worker.generation });
        }
        return;
    };
    follow(scenario, worker, report, actions);
}

/// Notes which revision a worker runs and which it went back from; one that is behind is told again. A runner
/// of an earlier release says nothing of revisions: its next deployment has the new one.
fn follow_revision(
    scenario: &ScenarioFacts,
    worker: &WorkerFacts,
    report: &WorkerStatus,
    is_overdue: bool,
    actions: &mut Vec<Action>,
) {
    let Some(RevisionStatus { running, from_frame, rolled_back }) = &report.revision else { return };
    let (scenario_id, generation, wanted) = (scenario.id, worker.generation, scenario.revision);
    let failed = rolled_back.as_ref().filter(|failed| failed.revision > wanted.rolled_back);
    if let Some(failed) = failed {
        let (revision, running, reason) = (failed.revision, *running, failed.reason.clone());
        actions.push(Action::RollBack { scenario_id, generation, revision, running, reason });
    } else if *running == wanted.number && wanted.is_pending && from_frame.is_some() {
        let (revision, from_frame) = (*running, *from_frame);
        actions.push(Action::NoteRevision { scenario_id, generation, revision, from_frame });
    } else if *running < wanted.number && is_overdue && !report.phase.is_ended() && !worker.stop_ordered {
        actions.push(Action::RepeatDeploy { scenario_id, generation });
    }
}

/// Brings the scenario to the state its running worker reports.
fn follow(scenario: &ScenarioFacts, worker: &WorkerFacts, report: &WorkerStatus, actions: &mut Vec<Action>) {
    if worker.state != WorkerState::Running {
        move_worker(worker, WorkerState::Running, None, actions);
    }
    let state = match report.phase {
        WorkerPhase::Running => ScenarioState::Running,
        WorkerPhase::Degraded => ScenarioState::Degraded,
        WorkerPhase::Recovering => ScenarioState::Recovering,
        // Starting again after a failure is still recovering; stopping here is the runner's own
        // drain, whose end will be reported.
        _ => return,
    };
    if scenario.state != state {
        move_scenario(scenario, state, report.reason.clone(), actions);
    } else if scenario.reason != report.reason {
        actions.push(Action::Explain { scenario_id: scenario.id, state, reason: report.reason.clone() });
    }
}

/// The worker ended; the scenario follows once every frame it published has arrived in the store: as a row,
/// or as a dead letter.
fn end_worker(scenario: &ScenarioFacts, worker: &WorkerFacts, report: &WorkerStatus, actions: &mut Vec<Action>) {
    // Results of a deleted scenario are dropped: nothing to wait for.
    let is_stored = report.progress.published.is_none_or(|published| scenario.stored >= Some(published));
    if !is_stored && scenario.desired != Desired::Deleted {
        return;
    }
    let wanted = scenario.desired == Desired::Running && scenario.state != ScenarioState::Stopping;
    let (worker_state, scenario_state) = match report.phase {
        WorkerPhase::Finished => (WorkerState::Finished, ScenarioState::Completed),
        WorkerPhase::Failed => (WorkerState::Failed, ScenarioState::Failed),
        // Stopped by its runner, which drains: it goes on elsewhere.
        _ if wanted => (WorkerState::Stopped, ScenarioState::Recovering),
        _ => (WorkerState::Stopped, ScenarioState::Stopped),
    };
    let has_arrived = scenario.state == scenario_state;
    let can_arrive = scenario.state.may_become(scenario_state).is_ok();
    // From a state that cannot go there at once (running, but stopped by the user before
    // anybody noted it), stopping comes first.
    if !has_arrived && !can_arrive {
        return move_scenario(scenario, ScenarioState::Stopping, stopped_by_user(), actions);
    }
    // The worker first: should the second write fail, the scenario is still looked at, and mended. The other
    // way round it would be at rest, with a worker that takes a place for ever.
    move_worker(worker, worker_state, report.reason.clone(), actions);
    if !has_arrived {
        move_scenario(scenario, scenario_state, last_words(report), actions);
    }
}

/// Why it ended; a video that was read to its end may still be damaged, and lack what hooks failed on.
fn last_words(report: &WorkerStatus) -> Option<Reason> {
    let Progress { frames, hook_failures, damaged, .. } = report.progress;
    let mut reason = report.reason.clone()?;
    if report.phase == WorkerPhase::Finished && damaged > 0 {
        let frames = if damaged == 1 { "frame was" } else { "frames were" };
        reason.message += &format!("; {damaged} {frames} damaged");
    }
    // A reason of its own says it already.
    if report.phase == WorkerPhase::Finished && hook_failures > 0 && reason.code != ReasonCode::HooksFailed {
        reason.message += &format!("; hooks failed on {hook_failures} of {frames} frames");
    }
    Some(reason)
}

/// No worker: place the scenario, or bring it to rest.
fn without_worker(scenario: &ScenarioFacts, room: &mut Room<'_>, actions: &mut Vec<Action>) {
    use ScenarioState as S;
    match (scenario.desired, scenario.state) {
        (Desired::Deleted, S::Stopped | S::Completed | S::Failed) => {
            actions.push(Action::Purge { scenario_id: scenario.id });
        }
        (Desired::Running, S::Pending | S::Recovering) => place(scenario, room, actions),
        // Started again while it was stopping.
        (Desired::Running, S::Stopped) => move_scenario(scenario, S::Pending, None, actions),
        (_, S::Stopping | S::Pending | S::Recovering) => {
            move_scenario(scenario, S::Stopped, stopped_by_user(), actions)
        }
        (_, S::Deploying | S::Running | S::Degraded) => {
            let reason = Reason::new(ReasonCode::WorkerCrash, "the worker is gone");
            move_scenario(scenario, S::Recovering, Some(reason), actions);
        }
        (_, S::Stopped | S::Completed | S::Failed) => {}
    }
}

fn place(scenario: &ScenarioFacts, room: &mut Room<'_>, actions: &mut Vec<Action>) {
    let mut wanted = scenario.placement.clone();
    wanted.extend(scenario.execution.and_then(Execution::label).map(provided));
    let message = match room.take(&wanted, scenario.memory_mib, scenario.is_fetched) {
        Ok((runner_id, incarnation)) => {
            return actions.push(Action::Deploy(Deploy {
                scenario_id: scenario.id,
                from: scenario.state,
                generation: scenario.generation + 1,
                runner_id,
                incarnation,
                execution: scenario.execution,
            }));
        }
        Err(message) => message,
    };
    let reason = Some(Reason::new(ReasonCode::NoCapacity, message));
    if scenario.state != ScenarioState::Pending {
        move_scenario(scenario, ScenarioState::Pending, reason, actions);
    } else if scenario.reason != reason {
        actions.push(Action::Explain { scenario_id: scenario.id, state: scenario.state, reason });
    }
}

/// Workers that runners report but the store does not have live: left over from an older
/// generation, or stopped while their runner was cut off.
fn stop_strays(
    snapshot: &Snapshot,
    workers: &HashMap<ScenarioId, &WorkerFacts>,
    alive: &HashMap<Incarnation, &RunnerFacts>,
    (hearing, timing): (&Hearing, Timing),
    actions: &mut Vec<Action>,
) {
    for runner in snapshot.runners.iter().filter(|r| alive.contains_key(&r.incarnation)) {
        for report in runner.workers.iter().filter(|w| !w.phase.is_ended()) {
            let owner = workers.get(&report.scenario_id);
            let is_known =
                owner.is_some_and(|w| (w.incarnation, w.generation) == (runner.incarnation, report.generation));
            if is_known || report.phase == WorkerPhase::Stopping {
                continue;
            }
            // A heartbeat from before the last order may show what the order has ended since.
            let told = hearing.order_to((report.scenario_id, report.generation, runner.incarnation));
            let mut orders = owner.map(|w| w.order).into_iter().chain(told);
            if orders.all(|order| order.is_overdue(runner.arrived_after_us, timing.resend_after)) {
                actions.push(Action::Stop(StopOrder {
                    scenario_id: report.scenario_id,
                    generation: report.generation,
                    runner_id: runner.id.clone(),
                    incarnation: runner.incarnation,
                }));
            }
        }
    }
}

fn stop(worker: &WorkerFacts) -> Action {
    Action::Stop(StopOrder {
        scenario_id: worker.scenario_id,
        generation: worker.generation,
        runner_id: worker.runner_id.clone(),
        incarnation: worker.incarnation,
    })
}

fn move_worker(worker: &WorkerFacts, to: WorkerState, reason: Option<Reason>, actions: &mut Vec<Action>) {
    let &WorkerFacts { scenario_id, generation, state: from, .. } = worker;
    actions.push(Action::MoveWorker { scenario_id, generation, from, to, reason });
}

fn move_scenario(scenario: &ScenarioFacts, to: ScenarioState, reason: Option<Reason>, actions: &mut Vec<Action>) {
    actions.push(Action::MoveScenario { scenario_id: scenario.id, from: scenario.state, to, reason });
}

fn stopped_by_user() -> Option<Reason> {
    Some(Reason::new(ReasonCode::StoppedByUser, "stopped by a user"))
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
