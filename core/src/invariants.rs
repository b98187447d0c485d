//! Predicates that must hold whatever fails: used by the planner's simulation, the store's conformance
//! suite and the fault tests. Each takes plain facts, so that any of them can gather them.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    delivery::Delivery,
    ids::{Generation, ScenarioId},
    prediction::Prediction,
    state::{ScenarioState, WorkerState},
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

/// I9: no frame disappears without a row or a counted drop, and none counts twice. Once the scenario is at
/// rest nothing is under way any more, as soon as the inbox has taken what a runner published before it was
/// lost.
///
/// # Errors
/// Says what is missing or too much.
pub fn delivery_balances(delivery: &Delivery, state: ScenarioState) -> Result<(), String> {
    let Delivery { decoded, stored, skipped, left_out, dropped, inbox, .. } = *delivery;
    let accounted = stored + skipped + left_out + dropped.total() + inbox.frames;
    if accounted != decoded {
        return Err(format!("{decoded} frames were decoded, but {accounted} are accounted for: {delivery:?}"));
    }
    if state.is_ended() && inbox.frames > 0 {
        return Err(format!("{} frames are still under way of a scenario that is {state}: {delivery:?}", inbox.frames));
    }
    Ok(())
}

/// The generation of each row, by what identifies it.
pub type Generations = BTreeMap<(ScenarioId, i64), Generation>;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::Drops,
        message::Progress,
        prediction::Position,
        state::ScenarioState::{Completed, Running},
    };

    #[test]
    fn a_delivery_balances_if_every_frame_is_somewhere_once() {
        let at = |frame| Position { pts_us: 0, frame };
        let published = |frame| Progress { published: Some(at(frame)), ..Progress::default() };
        let check = |(stored, skipped, unreadable), arrived: Option<u64>, reported: &[u64], running, completed| {
            let counted = Delivery { stored, skipped, dropped: Drops { unreadable }, ..Delivery::default() };
            let delivery = counted.witnessed(arrived.map(at), reported.iter().map(|frame| published(*frame)));
            assert_eq!(delivery_balances(&delivery, Running).is_ok(), running, "{delivery:?}");
            assert_eq!(delivery_balances(&delivery, Completed).is_ok(), completed, "{delivery:?}");
        };
        check((0, 0, 0), None, &[], true, true);
        check((7, 2, 1), Some(9), &[9], true, true);
        // Under way: reported, and not there.
        check((7, 1, 1), Some(8), &[4, 9], true, false);
        // A gap is as much under way as a missing end, and never closes.
        check((8, 0, 0), Some(9), &[9], true, false);
        // The runner died before it could say how far it was.
        check((9, 0, 1), Some(9), &[4], true, true);
        // A frame under two identities, or one that is both stored and dropped.
        check((11, 0, 0), Some(9), &[9], false, false);
        check((9, 1, 1), Some(9), &[9], false, false);
    }

    #[test]
    fn frames_behind_the_last_prediction_count_once() {
        let published = Some(Position { pts_us: 0, frame: 7 });
        let ended = Progress { published, left_out: 2, ..Progress::default() };
        let counted = Delivery { stored: 2, left_out: 6, ..Delivery::default() };
        // A second deployment, which had nothing to do but to pass them once more.
        for reported in [vec![ended], vec![ended, Progress { published: None, ..ended }]] {
            let delivery = counted.witnessed(published, reported);
            assert_eq!((delivery.decoded, delivery.left_out), (10, 8));
            delivery_balances(&delivery, Completed).unwrap();
        }
    }
}
