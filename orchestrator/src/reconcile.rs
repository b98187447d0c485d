//! Executes the planner's actions until the world needs no more of them, or others have waited long
//! enough.

use std::time::Duration;

use framehook_core::{
    evidence::Hearing,
    ids::Epoch,
    planner::{Action, Snapshot, Timing, plan},
};
use framehook_infra::{
    store::{Fenced, SharedStore, StoreError},
    telemetry,
};
use tokio::time::Instant;
use tracing::{Instrument as _, Span, debug, debug_span, error, field::Empty, info, info_span, warn};

use crate::{TermEnd, metrics};

/// More rounds than the longest way of a scenario through its states. Reaching it is a defect of the planner, which the
/// next scan works off.
const MAX_ROUNDS: usize = 50;

/// A plan may have thousands of actions. After this the rest is left to the next one, which knows
/// what was heard meanwhile.
const BUDGET: Duration = Duration::from_millis(500);

/// Plans and executes until a plan moves nothing any more, or its time is over; gives what the last
/// plan was made from, if that is all.
pub(crate) async fn reconcile(
    store: &SharedStore,
    epoch: Epoch,
    hearing: &mut Hearing,
    timing: Timing,
) -> Result<Option<Snapshot>, TermEnd> {
    let end = Instant::now() + BUDGET;
    let mut snapshot = Snapshot::default();
    for _ in 0..MAX_ROUNDS {
        snapshot = store.snapshot().await?;
        metrics::global().scanned();
        let mut moved = false;
        for action in plan(&snapshot, hearing, timing) {
            if Instant::now() > end {
                return Ok(None);
            }
            let span = span(&action, &snapshot);
            let outcome = store.apply(epoch, &action).instrument(span.clone()).await;
            let _entered = span.entered();
            match outcome {
                Ok(Fenced::Done(())) => {
                    log(&action);
                    if let Action::Stop { scenario_id, generation, incarnation, .. } = action {
                        hearing.told((scenario_id, generation, incarnation), snapshot.now_us, timing.resend_after);
                    }
                    moved |= moves_state(&action);
                }
                // A user or a heartbeat was faster.
                Ok(Fenced::Stale) => {
                    debug!(?action, "out of date, planning again");
                    moved = true;
                    break;
                }
                Ok(Fenced::NotLeader) => return Err(TermEnd::Deposed),
                // One scenario whose rows are broken must not keep the others from being looked after.
                Err(StoreError::Corrupt(why)) => error!(?action, why, "skipped"),
                Err(error) => return Err(error.into()),
            }
        }
        if !moved {
            return Ok(Some(snapshot));
        }
    }
    warn!("the plan did not come to rest in {MAX_ROUNDS} rounds");
    Ok(Some(snapshot))
}

/// Orders change nothing until a runner answers them.
fn moves_state(action: &Action) -> bool {
    !matches!(action, Action::Stop { .. } | Action::RepeatDeploy { .. })
}

/// Says of every line below it which scenario it is about. Only a deployment is a step of the scenario's trace.
fn span(action: &Action, snapshot: &Snapshot) -> Span {
    let Some((scenario_id, generation)) = action.subject() else { return Span::none() };
    let facts = snapshot.scenarios.iter().find(|scenario| scenario.id == scenario_id);
    let generation = generation.or(facts.map(|facts| facts.generation));
    let span = match action {
        Action::Deploy { runner_id, .. } => {
            info_span!("deploy", %scenario_id, generation, runner = %runner_id, trace_id = Empty)
        }
        _ => debug_span!("action", %scenario_id, generation, trace_id = Empty),
    };
    telemetry::follow(&span, facts.and_then(|facts| facts.traceparent.as_deref()));
    span
}

fn log(action: &Action) {
    match action {
        Action::Deploy { runner_id, .. } => info!(runner = %runner_id, "deployed"),
        Action::MoveScenario { from, to, reason, .. } => {
            let why = reason.as_ref().map_or("", |r| r.message.as_str());
            info!(%from, %to, why, "scenario");
        }
        Action::LoseRunner { runner_id, incarnation } => {
            warn!(runner = %runner_id, %incarnation, "runner written off");
        }
        Action::Stop { runner_id, .. } => info!(runner = %runner_id, "stop ordered"),
        Action::RepeatDeploy { .. } | Action::MoveWorker { .. } | Action::Explain { .. } | Action::Purge { .. } => {
            debug!(?action, "done");
        }
    }
}
