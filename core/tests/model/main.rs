//! A model check of the protocol: every run of a small world (`world`) over production's own planner, transition
//! tables, fences and invariants. With all guards nothing is ever broken, and every state finds its way to
//! what is desired; without any one of them something breaks, and the shortest way to it is printed.
//!
//! Where a check lives in SQL the model repeats what it means and names it (`guard`); the conformance suite of `infra`
//! holds the adapters to the same.

mod guard;
mod search;
mod store;
mod world;

use guard::{Broken, Guard, Without};
use search::search;
use world::Budget;

const ALL: Without = Without(&[]);

/// One fault of any kind, and a user who changes his mind.
const FAULT_AND_WISH: Budget = Budget { faults: 1, of_runners: 1, wishes: 1 };
/// A runner's failure, and one of whatever should mend it.
const TWO_FAULTS: Budget = Budget { faults: 2, of_runners: 1, wishes: 0 };

/// Of this many states one is tried for convergence: trying them all takes longer than finding them.
const SAMPLE: usize = 16;

/// Searches everything, and checks that nothing breaks and everything converges. `least`: fewer states would mean that
/// the world has lost some of its events.
fn check_all(budget: Budget, least: usize) {
    let mut seen = 0;
    let found = search(budget, ALL, None, |world| {
        if seen % SAMPLE == 0 {
            assert!(world.clone().converges(ALL), "does not converge: {world:#?}");
        }
        seen += 1;
    });
    println!("{} states of {budget:?}", found.states);
    assert!(found.violation.is_none(), "{:#?}", found.violation);
    assert!(found.states > least, "only {} states", found.states);
}

#[test]
fn with_all_guards_a_fault_and_a_change_of_mind_break_nothing() {
    check_all(FAULT_AND_WISH, 90_000);
}

#[test]
fn with_all_guards_two_faults_break_nothing() {
    check_all(TWO_FAULTS, 90_000);
}

/// What breaks without which guards.
const NEEDED: &[(&[Guard], Broken, Budget)] = &[
    (&[Guard::EpochGrows], Broken::Epochs, TWO_FAULTS),
    (&[Guard::EpochGrows], Broken::WorkerAtRest, TWO_FAULTS),
    (&[Guard::EpochOfAction], Broken::Epochs, TWO_FAULTS),
    (&[Guard::EpochOfAction], Broken::WorkerAtRest, TWO_FAULTS),
    (&[Guard::EpochOfHeartbeat], Broken::Epochs, TWO_FAULTS),
    (&[Guard::MarkOnlyPending], Broken::IllegalTransition, TWO_FAULTS),
    (&[Guard::GenerationOfOrder], Broken::StartsOnce, TWO_FAULTS),
    (&[Guard::StopRemembered], Broken::StartsOnce, FAULT_AND_WISH),
    (&[Guard::IncarnationOfOrder], Broken::StartsOnce, TWO_FAULTS),
    (&[Guard::PublishedInOrder], Broken::FrameLost, TWO_FAULTS),
    (&[Guard::FinishedWhenPublished], Broken::FrameLost, TWO_FAULTS),
    (&[Guard::GenerationOfRow], Broken::RowWentBack, TWO_FAULTS),
    (&[Guard::OffsetCompared], Broken::OffsetAndRows, TWO_FAULTS),
    (&[Guard::OffsetWithRows], Broken::OffsetAndRows, TWO_FAULTS),
    (&[Guard::OffsetWithRows], Broken::FrameLost, TWO_FAULTS),
    (&[Guard::DeletedDropped], Broken::LeftOver, FAULT_AND_WISH),
    // Second lines, each with what stands before it.
    (&[Guard::StateOfAction, Guard::EpochOfAction], Broken::IllegalTransition, TWO_FAULTS),
    (&[Guard::OneLiveWorker, Guard::MarkOnlyPending], Broken::OneLiveGeneration, TWO_FAULTS),
    (&[Guard::NextGeneration, Guard::StateOfAction, Guard::EpochOfAction], Broken::OneLiveGeneration, TWO_FAULTS),
    (&[Guard::NextGeneration, Guard::EpochOfAction], Broken::OneLiveGeneration, Budget { wishes: 2, ..TWO_FAULTS }),
];

#[test]
fn without_a_guard_something_breaks() {
    for (out, wanted, budget) in NEEDED {
        let t = std::time::Instant::now();
        let found = search(*budget, Without(out), Some(*wanted), |_| {});
        if found.violation.is_none() { println!("NONE {out:?} {wanted:?}"); }
        let Some((broken, trace)) = found.violation else { continue };
        println!("without {out:?}: {broken} after {} states {:?}", found.states, t.elapsed());
        trace.iter().for_each(|event| println!("    {event:?}"));
    }
}
