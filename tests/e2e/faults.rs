//! Whatever is killed, whenever: the scenario completes by itself, every frame once, with the detections of
//! an undisturbed run.

use framehook_core::prediction::{Detection, Event, Prediction};
use framehook_tests::{
    client::{light_scenario, slow_scenario},
    platform::{Platform, patient},
    seed,
};
use rustix::process::Signal;
use serde_json::json;

const FRAMES: u64 = 500;
const MOMENTS: usize = 10;
/// Two and a half seconds a run: enough to be hit, short enough for twenty of them.
const FRAME_MS: u64 = 5;

/// What was found on each frame, and what happened on it.
fn found(rows: &[Prediction]) -> Vec<(i64, &[Detection], &[Event])> {
    rows.iter().map(|row| (row.pts_us, &row.detections[..], &row.events[..])).collect()
}

/// Moments as numbers of a stored frame.
fn moments() -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed());
    (0..MOMENTS).map(|_| random.u64(0..FRAMES - 20)).collect()
}

/// Runs slowed scenarios, with one lane and with two in turns, and calls `kill` at each moment, until it has
/// hit a running scenario as often as there are moments; each must end as the undisturbed one did.
fn at_random_moments(mut kill: impl FnMut(&mut Platform)) {
    let mut platform = Platform::with_demo(&patient(&[]));
    let mut reference = light_scenario();
    reference["lanes"] = json!(1);
    let reference = platform.post_scenario(&reference);
    let reference = platform.completed(&reference, FRAMES);
    let (moments, mut hits) = (moments(), 0);
    for round in 0..3 * MOMENTS {
        let moment = moments[round % MOMENTS];
        let mut scenario = slow_scenario(FRAME_MS);
        scenario["lanes"] = json!(1 + round % 2);
        let id = platform.post_scenario(&scenario);
        platform.wait_for_row(&id, moment);
        hits += usize::from(platform.workers().len() == 1);
        kill(&mut platform);
        let rows = platform.completed(&id, FRAMES);
        assert_eq!(found(&rows), found(&reference), "killed at {moment}");
        if hits == MOMENTS {
            return;
        }
    }
    panic!("only {hits} scenarios were running when it was time to kill");
}

#[test]
fn killing_the_worker_at_any_moment_loses_nothing_and_doubles_nothing() {
    at_random_moments(|platform| platform.signal_workers(Signal::KILL));
}

#[test]
fn killing_everything_at_any_moment_loses_nothing_and_doubles_nothing() {
    at_random_moments(|platform| {
        platform.kill();
        platform.up();
    });
}

#[test]
fn a_worker_that_is_killed_again_and_again_still_gets_there() {
    let platform = Platform::with_demo(&patient(&[]));
    let reference = platform.post_scenario(&light_scenario());
    let reference = platform.completed(&reference, FRAMES);
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    for step in 1..=5 {
        platform.wait_for_row(&id, step * 80);
        platform.signal_workers(Signal::KILL);
    }
    let rows = platform.completed(&id, FRAMES);
    assert_eq!(found(&rows), found(&reference));
    let recoveries = platform.transitions(&id).iter().filter(|(_, to)| to == "recovering").count();
    assert!(recoveries > 0, "no recovery was seen: {:?}", platform.transitions(&id));
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let platform = Platform::with_demo(&patient(&["--frame-timeout-s", "3"]));
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    platform.wait_for_row(&id, 50);
    platform.signal_workers(Signal::STOP);
    let rows = platform.completed(&id, FRAMES);
    assert_eq!(rows.len() as u64, FRAMES);
    let history = platform.get(&format!("/scenario/{id}/history?limit=100")).body;
    let reasons: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|line| line["reason"]["code"].clone()).collect();
    assert!(reasons.iter().any(|code| code == "source_stalled"), "{history:#}");
}
