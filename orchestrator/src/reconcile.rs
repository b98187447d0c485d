//! Executes the planner's actions until the world needs no more of them.

use framehook_core::{
    ids::Epoch,
    planner::{Action, Timing, plan},
};
use framehook_infra::store::{Fenced, SharedStore, StoreError};
use tracing::{debug, error, info, warn};

use crate::TermEnd;

/// More rounds than the longest way of a scenario through its states. Reaching it is a defect of the planner, which the
/// next scan works off.
const MAX_ROUNDS: usize = 50;

/// Plans and executes until a plan moves nothing any more.
pub(crate) async fn reconcile(store: &SharedStore, epoch: Epoch, timing: Timing) -> Result<(), TermEnd> {
    for _ in 0..MAX_ROUNDS {
        let snapshot = store.snapshot().await?;
        let mut moved = false;
        for action in plan(&snapshot, timing) {
            match store.apply(epoch, &action).await {
                Ok(Fenced::Done(())) => {
                    log(&action);
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
            return Ok(());
        }
    }
    warn!("the plan did not come to rest in {MAX_ROUNDS} rounds");
    Ok(())
}

/// Orders change nothing until a runner answers them.
fn moves_state(action: &Action) -> bool {
    !matches!(action, Action::Stop { .. } | Action::RepeatDeploy { .. })
}

fn log(action: &Action) {
    match action {
        Action::Deploy { scenario_id, generation, runner_id, .. } => {
            info!(scenario = %scenario_id, generation, runner = %runner_id, "deployed");
        }
        Action::MoveScenario { scenario_id, from, to, reason, .. } => {
            let why = reason.as_ref().map_or("", |r| r.message.as_str());
            info!(scenario = %scenario_id, %from, %to, why, "scenario");
        }
        Action::LoseRunner { runner_id, incarnation } => {
            warn!(runner = %runner_id, %incarnation, "runner written off");
        }
        Action::Stop { scenario_id, generation, runner_id, .. } => {
            info!(scenario = %scenario_id, generation, runner = %runner_id, "stop ordered");
        }
        Action::RepeatDeploy { .. } | Action::MoveWorker { .. } | Action::Explain { .. } | Action::Purge { .. } => {
            debug!(?action, "done");
        }
    }
}
