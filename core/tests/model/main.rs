//! A model check of the protocol: every run of a small world (`world`) over production's own planner,
//! transition tables, fences and invariants. With all guards nothing is ever broken, and every state finds
//! its way to what is desired; without a guard something breaks, and the shortest way to it is printed
//! (`cargo test --test model -- --nocapture`).
//!
//! Where a check lives in SQL the model repeats what it means and names it (`guard`); the conformance suite
//! of `infra` holds the adapters to the same. What the model says of them is as good as that repetition.

mod guard;
mod host;
mod late;
mod search;
mod store;
mod world;

use std::collections::BTreeSet;

use framehook_core::state::Desired;

use guard::{Broken, Guard, Without};
use search::search;
use world::{Budget, World};

const ALL: Without = Without(&[]);

/// One fault of any kind, and a user who changes his mind.
const FAULT_AND_WISH: Budget = Budget { faults: 1, of_runners: 1, wishes: 1 };
/// A runner's failure, and one of whatever should mend it.
const TWO_FAULTS: Budget = Budget { faults: 2, of_runners: 1, wishes: 0 };
/// Both may be of runners: a minute and more.
const TWO_OF_RUNNERS: Budget = Budget { faults: 2, of_runners: 2, wishes: 0 };

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
    (&[Guard::GenerationOfState], Broken::CountedTwice, TWO_FAULTS),
    (&[Guard::OffsetCompared], Broken::OffsetAndRows, TWO_FAULTS),
    (&[Guard::OffsetWithRows], Broken::OffsetAndRows, TWO_FAULTS),
    (&[Guard::OffsetWithRows], Broken::FrameLost, TWO_FAULTS),
    (&[Guard::DeletedDropped], Broken::LeftOver, FAULT_AND_WISH),
    // Second lines, each with what stands before it.
    (&[Guard::StateOfAction, Guard::EpochOfAction], Broken::IllegalTransition, TWO_FAULTS),
    (&[Guard::OneLiveWorker, Guard::MarkOnlyPending], Broken::OneLiveGeneration, TWO_FAULTS),
    (&[Guard::NextGeneration, Guard::EpochOfAction], Broken::OneLiveGeneration, Budget { wishes: 2, ..TWO_FAULTS }),
];

/// Without these nothing breaks while the others stand. The first three wait behind the epoch and the relay's
/// mark, in case one of those has a defect: see `NEEDED`. The last two spare detours: an ended report is
/// final, and an outdated one can only lead to orders that generations refuse.
const SECOND_LINES: Without = Without(&[
    Guard::StateOfAction,
    Guard::NextGeneration,
    Guard::OneLiveWorker,
    Guard::SequenceOfHeartbeat,
    Guard::ReplacedIncarnation,
]);

/// Searches everything: nothing breaks, and every state converges. `least`: with fewer states the world would
/// have lost some of its events.
fn check_all(budget: Budget, without: Without, least: usize) {
    let mut lost = false;
    let found = search(World::new(budget), without, None, |world| {
        // One way for each state: both would take twice as long, and neighbours differ little.
        lost = !lost;
        assert!(world.clone().converges(without, lost), "orders lost: {lost}; does not converge: {world:#?}");
    });
    println!("{} states of {budget:?}", found.states);
    assert!(found.violation.is_none(), "{:#?}", found.violation);
    assert!(found.states > least, "only {} states", found.states);
}

#[test]
fn with_all_guards_a_fault_and_a_change_of_mind_break_nothing() {
    check_all(FAULT_AND_WISH, ALL, 90_000);
}

#[test]
fn with_all_guards_two_faults_break_nothing() {
    check_all(TWO_FAULTS, ALL, 150_000);
}

#[test]
#[ignore = "takes minutes; for changes of the protocol: cargo test --release -p framehook-core --test model -- --ignored"]
fn with_all_guards_two_failures_of_runners_break_nothing() {
    check_all(TWO_OF_RUNNERS, ALL, 1_400_000);
}

#[test]
fn without_a_guard_something_breaks() {
    for (out, wanted, budget) in NEEDED {
        let found = search(World::new(*budget), Without(out), Some(*wanted), |_| {});
        let Some((broken, trace)) = found.violation else { panic!("{wanted:?} holds without {out:?}") };
        println!("without {out:?}: {broken:?}, after {} states, by", found.states);
        trace.iter().for_each(|event| println!("    {event:?}"));
    }
}

#[test]
fn second_lines_are_not_needed_while_the_first_stand() {
    check_all(FAULT_AND_WISH, SECOND_LINES, 90_000);
}

#[test]
fn without_repetition_a_lost_order_is_missed() {
    let once = Without(&[Guard::OrdersRepeated]);
    let mut stuck = BTreeSet::new();
    search(World::new(Budget { of_runners: 0, ..FAULT_AND_WISH }), ALL, None, |world| {
        if !world.clone().converges(once, true) {
            stuck.insert(world.store.desired);
        }
    });
    assert_eq!(
        stuck,
        BTreeSet::from_iter(Desired::ALL.iter().copied()),
        "a deployment, a stop, and one before deletion"
    );
}
