//! Executes the planner's actions until the world needs no more of them, or others have waited long enough.

use std::{collections::HashMap, time::Duration};

use framehook_core::{
    evidence::{Hearing, Stray},
    ids::{Epoch, ScenarioId},
    planner::{Action, Snapshot, Timing, plan},
    reason::ReasonCode,
    state::ScenarioState,
};
use framehook_infra::{
    store::{Fenced, Orchestration, StoreError},
    telemetry,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, debug, debug_span, error, field::Empty, info, info_span, warn};

use crate::{TermEnd, metrics};

/// More rounds than the longest way of a scenario through its states. Reaching it is a defect of the planner,
/// which the next scan works off.
const MAX_ROUNDS: usize = 50;

/// A plan may have thousands of actions. After this the rest is left to the next one, which knows
/// what was heard meanwhile.
const BUDGET: Duration = Duration::from_millis(500);

/// Scenarios that are looked after at the same time: an action waits for the database a dozen times,
/// and half of the connections stay free for heartbeats, the lease and the relay.
const AT_ONCE: usize = 8;

/// Plans and executes until a plan moves nothing any more, or its time is over; gives what the last
/// plan was made from, if that is all.
pub(crate) async fn reconcile(
    store: &dyn Orchestration,
    epoch: Epoch,
    hearing: &mut Hearing,
    timing: Timing,
) -> Result<Option<Snapshot>, TermEnd> {
    let end = Instant::now() + BUDGET;
    let mut snapshot = Snapshot::default();
    for _ in 0..MAX_ROUNDS {
        snapshot = store.snapshot().await?;
        metrics::global().scanned();
        let round = Round { store, epoch, snapshot: &snapshot, end };
        let lanes = stream::iter(lanes(plan(&snapshot, hearing, timing)));
        let done: Vec<Done> = lanes.map(|lane| round.execute(lane)).buffer_unordered(AT_ONCE).try_collect().await?;
        for &stop in done.iter().flat_map(|done| &done.stops) {
            hearing.told(stop, snapshot.now_us, timing.resend_after);
        }
        if done.iter().any(|done| done.is_late) {
            return Ok(None);
        }
        if !done.iter().any(|done| done.has_moved) {
            return Ok(Some(snapshot));
        }
    }
    warn!("the plan did not come to rest in {MAX_ROUNDS} rounds");
    Ok(Some(snapshot))
}

/// The actions of each scenario, in their order: a lane. Those of different scenarios do not depend on
/// each other, nor on what is written about a runner, which is a lane of its own.
fn lanes(actions: Vec<Action>) -> Vec<Vec<Action>> {
    let mut lanes: Vec<Vec<Action>> = vec![];
    let mut of: HashMap<Option<ScenarioId>, usize> = HashMap::new();
    for action in actions {
        let lane = *of.entry(action.subject().map(|(id, _)| id)).or_insert_with(|| {
            lanes.push(vec![]);
            lanes.len() - 1
        });
        lanes[lane].push(action);
    }
    lanes
}

/// One plan, being executed.
struct Round<'a> {
    store: &'a dyn Orchestration,
    epoch: Epoch,
    snapshot: &'a Snapshot,
    end: Instant,
}

/// What the actions of a lane did.
#[derive(Default)]
struct Done {
    has_moved: bool,
    stops: Vec<Stray>,
    /// Some were left to the next plan.
    is_late: bool,
}

impl Round<'_> {
    /// Executes a lane, as far as it is up to date and there is time.
    async fn execute(&self, lane: Vec<Action>) -> Result<Done, TermEnd> {
        let mut done = Done::default();
        for action in lane {
            if Instant::now() > self.end {
                done.is_late = true;
                break;
            }
            let span = span(&action, self.snapshot);
            let outcome = self.store.apply(self.epoch, &action).instrument(span.clone()).await;
            let _entered = span.entered();
            match outcome {
                Ok(Fenced::Done) => {
                    log(&action, self.snapshot);
                    done.has_moved |= moves_state(&action);
                    if let Action::Stop(order) = action {
                        done.stops.push((order.scenario_id, order.generation, order.incarnation));
                    }
                }
                // A user or a heartbeat was faster.
                Ok(Fenced::Stale) => {
                    debug!(?action, "out of date, planning again");
                    done.has_moved = true;
                    break;
                }
                Ok(Fenced::NotLeader) => return Err(TermEnd::Deposed),
                // One scenario whose rows are broken must not keep the others from being looked after.
                Err(StoreError::Corrupt(why)) => error!(?action, why, "skipped"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }
}

/// Orders change nothing until a runner answers them, and nothing follows from a note of a revision.
fn moves_state(action: &Action) -> bool {
    use Action as A;
    !matches!(action, A::Stop(_) | A::RepeatDeploy { .. } | A::NoteRevision { .. } | A::RollBack { .. })
}

/// Says of every line below it which scenario it is about. Only a deployment is a step of the scenario's
/// trace.
fn span(action: &Action, snapshot: &Snapshot) -> Span {
    let Some((scenario_id, generation)) = action.subject() else { return Span::none() };
    let facts = snapshot.scenarios.iter().find(|scenario| scenario.id == scenario_id);
    let generation = generation.or(facts.map(|facts| facts.generation));
    let span = match action {
        Action::Deploy(deploy) => {
            info_span!("deploy", %scenario_id, generation, runner = %deploy.runner_id, trace_id = Empty)
        }
        _ => debug_span!("action", %scenario_id, generation, trace_id = Empty),
    };
    telemetry::follow(&span, facts.and_then(|facts| facts.traceparent.as_deref()));
    span
}

/// Whether somebody should look at it: a scenario that failed, or whose hooks did, or a runner that was not
/// heard of. One that has a newer incarnation was only started again.
fn is_trouble(action: &Action, snapshot: &Snapshot) -> bool {
    match action {
        Action::MoveScenario { to, reason, .. } => {
            *to == ScenarioState::Failed || reason.as_ref().is_some_and(|r| r.code == ReasonCode::HooksFailed)
        }
        // UUIDv7: a later start has a greater incarnation.
        Action::LoseRunner { runner_id, incarnation } => {
            !snapshot.runners.iter().any(|other| other.id == *runner_id && other.incarnation > *incarnation)
        }
        _ => false,
    }
}

fn log(action: &Action, snapshot: &Snapshot) {
    let is_trouble = is_trouble(action, snapshot);
    match action {
        Action::Deploy(deploy) => info!(runner = %deploy.runner_id, "deployed"),
        Action::MoveScenario { from, to, reason, .. } => {
            let why = reason.as_ref().map_or("", |r| r.message.as_str());
            if is_trouble {
                warn!(%from, %to, why, "scenario");
            } else {
                info!(%from, %to, why, "scenario");
            }
        }
        Action::LoseRunner { runner_id, incarnation } if is_trouble => {
            warn!(runner = %runner_id, %incarnation, "runner written off");
        }
        Action::LoseRunner { runner_id, incarnation } => {
            info!(runner = %runner_id, %incarnation, "runner was started again; this incarnation is over");
        }
        Action::Stop(order) => info!(runner = %order.runner_id, "stop ordered"),
        Action::RollBack { revision, reason, .. } => warn!(revision, why = reason.message, "revision rolled back"),
        Action::NoteRevision { revision, .. } => info!(revision, "revision runs"),
        Action::RepeatDeploy { .. } | Action::MoveWorker { .. } | Action::Explain { .. } | Action::Purge { .. } => {
            debug!(?action, "done");
        }
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::{
        ids::{Incarnation, RunnerId},
        placement::Labels,
        planner::RunnerFacts,
    };

    use super::*;

    #[test]
    fn a_failed_scenario_is_trouble_and_a_runner_that_was_started_again_is_none() {
        let [old, new] = [Incarnation::generate(), Incarnation::generate()];
        let runner = |incarnation| RunnerFacts {
            id: RunnerId("r".into()),
            incarnation,
            expires_at_us: 0,
            capacity: 1,
            memory_mib: None,
            draining: false,
            labels: Labels::new(),
            arrived_after_us: 0,
            workers: vec![],
        };
        let snapshot = Snapshot { runners: vec![runner(old), runner(new)], ..Snapshot::default() };
        let lose = |incarnation| Action::LoseRunner { runner_id: RunnerId("r".into()), incarnation };
        let to = |to| {
            let (scenario_id, from) = (ScenarioId::generate(), ScenarioState::Running);
            Action::MoveScenario { scenario_id, from, to, reason: None }
        };
        let is_trouble = |action| is_trouble(&action, &snapshot);
        assert!(is_trouble(lose(new)) && is_trouble(to(ScenarioState::Failed)));
        assert!(!is_trouble(lose(old)) && !is_trouble(to(ScenarioState::Completed)));
    }

    #[test]
    fn each_scenario_has_a_lane_and_its_actions_keep_their_order() {
        let [one, other] = [ScenarioId::generate(), ScenarioId::generate()];
        let repeat = |scenario_id, generation| Action::RepeatDeploy { scenario_id, generation };
        let purge = |scenario_id| Action::Purge { scenario_id };
        let incarnation = Incarnation::generate();
        let lose = || Action::LoseRunner { runner_id: RunnerId("r".into()), incarnation };
        let planned = vec![lose(), repeat(one, 1), repeat(other, 1), purge(one), lose(), purge(other)];
        let expected = [vec![lose(), lose()], vec![repeat(one, 1), purge(one)], vec![repeat(other, 1), purge(other)]];
        assert_eq!(lanes(planned), expected);
    }
}
