//! Predicates that must hold whatever fails: used by the planner's simulation, the store's conformance
//! suite and the fault tests. Each takes plain facts, so that any of them can gather them.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    ids::{Generation, ScenarioId},
    prediction::Prediction,
    state::WorkerState,
};

/// I3: the generations of a scenario strictly increase in the order of their creation, and at most one
/// of them is live.
///
/// # Errors
/// Names the scenario and the generation that broke it.
pub fn one_live_generation(workers: &[(ScenarioId, Generation, WorkerState)]) -> Result<(), String> {
    let mut newest: HashMap<ScenarioId, Generation> = HashMap::new();
    let mut live = HashSet::new();
    for (scenario, generation, state) in workers {
        if newest.insert(*scenario, *generation).is_some_and(|before| before >= *generation) {
            return Err(format!("generation {generation} of scenario {scenario} is not greater than the one before"));
        }
        if state.is_live() && !live.insert(scenario) {
            return Err(format!("scenario {scenario} has a second live worker, generation {generation}"));
        }
    }
    Ok(())
}

/// I6 and I9 for a file: one row a frame, none twice, none missing, in the order of the source.
///
/// # Errors
/// Names the first row that broke it.
pub fn every_frame_once(rows: &[Prediction], frames: u64) -> Result<(), String> {
    if rows.len() as u64 != frames {
        return Err(format!("{} rows for {frames} frames", rows.len()));
    }
    for (index, row) in rows.iter().enumerate() {
        if row.frame != index as u64 {
            return Err(format!("row {index} is frame {}", row.frame));
        }
        if index > 0 && row.pts_us <= rows[index - 1].pts_us {
            return Err(format!("frame {index} at {} us does not follow {} us", row.pts_us, rows[index - 1].pts_us));
        }
    }
    Ok(())
}

/// The generation of each row, by what identifies it.
pub type Generations = BTreeMap<(ScenarioId, i64), Generation>;

#[must_use]
pub fn generations(rows: &[Prediction]) -> Generations {
    rows.iter().map(|row| ((row.scenario_id, row.pts_us), row.generation)).collect()
}

/// I5: between two readings of the same rows, no generation decreased and no row vanished.
///
/// # Errors
/// Names the row.
pub fn no_row_goes_back(before: &Generations, after: &Generations) -> Result<(), String> {
    for ((scenario, pts_us), generation) in before {
        match after.get(&(*scenario, *pts_us)) {
            None => return Err(format!("the row at {pts_us} us of scenario {scenario} vanished")),
            Some(later) if later < generation => {
                return Err(format!(
                    "the row at {pts_us} us of scenario {scenario} went from generation {generation} to {later}"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
