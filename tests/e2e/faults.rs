//! Whatever is killed, whenever: the scenario completes by itself, every frame once, with the detections of an
//! undisturbed run.

use framehook_core::prediction::{Detection, Prediction};
use framehook_tests::platform::{Platform, demo_scenario, signal};
use rustix::process::Signal;

use crate::alone;

const FRAMES: u64 = 500;
const MOMENTS: usize = 10;

fn detections(rows: &[Prediction]) -> Vec<(i64, &[Detection])> {
    rows.iter().map(|row| (row.pts_us, row.detections.as_slice())).collect()
}

/// Moments as numbers of stored frames, different at each run; the seed is printed so that one can be repeated with
/// `FRAMEHOOK_TEST_SEED`.
fn moments() -> Vec<u64> {
    let seed =
        std::env::var("FRAMEHOOK_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("FRAMEHOOK_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    (0..MOMENTS).map(|_| random.u64(0..FRAMES - 20)).collect()
}

fn wait_for_frames(platform: &Platform, id: &str, frames: u64) {
    platform.wait_for_scenario(id, &format!("past frame {frames}"), |s| {
        s["progress"]["frames"].as_u64() >= Some(frames) || s["state"] == "completed"
    });
}

#[test]
fn killing_the_worker_at_any_moment_loses_nothing_and_doubles_nothing() {
    let _alone = alone();
    let platform = Platform::with_demo(&[]);
    let reference = platform.post_scenario(&demo_scenario());
    let reference = platform.completed(&reference, FRAMES);
    let mut kills = 0;
    for moment in moments() {
        let id = platform.post_scenario(&demo_scenario());
        wait_for_frames(&platform, &id, moment);
        for worker in platform.workers() {
            signal(worker, Signal::KILL);
            kills += 1;
        }
        let rows = platform.completed(&id, FRAMES);
        assert_eq!(detections(&rows), detections(&reference), "killed at {moment}");
    }
    assert!(kills > MOMENTS / 2, "only {kills} workers were there to be killed");
}

#[test]
fn a_worker_that_is_killed_again_and_again_still_gets_there() {
    let _alone = alone();
    let platform = Platform::with_demo(&[]);
    let reference = platform.post_scenario(&demo_scenario());
    let reference = platform.completed(&reference, FRAMES);
    let id = platform.post_scenario(&demo_scenario());
    for step in 1..=5 {
        wait_for_frames(&platform, &id, step * 80);
        for worker in platform.workers() {
            signal(worker, Signal::KILL);
        }
    }
    let rows = platform.completed(&id, FRAMES);
    assert_eq!(detections(&rows), detections(&reference));
    let recoveries = platform.transitions(&id).iter().filter(|(_, to)| to == "recovering").count();
    assert!(recoveries > 0, "no recovery was seen: {:?}", platform.transitions(&id));
}

#[test]
fn killing_everything_at_any_moment_loses_nothing_and_doubles_nothing() {
    let _alone = alone();
    let mut platform = Platform::with_demo(&[]);
    let reference = platform.post_scenario(&demo_scenario());
    let reference = platform.completed(&reference, FRAMES);
    for moment in moments() {
        let id = platform.post_scenario(&demo_scenario());
        wait_for_frames(&platform, &id, moment);
        platform.kill();
        platform.up();
        let rows = platform.completed(&id, FRAMES);
        assert_eq!(detections(&rows), detections(&reference), "killed at {moment}");
    }
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let _alone = alone();
    let platform = Platform::with_demo(&["--frame-timeout-s", "1"]);
    let id = platform.post_scenario(&demo_scenario());
    wait_for_frames(&platform, &id, 50);
    let workers = platform.workers();
    for worker in &workers {
        signal(*worker, Signal::STOP);
    }
    let rows = platform.completed(&id, FRAMES);
    assert_eq!(rows.len() as u64, FRAMES);
    let history = platform.get(&format!("/scenario/{id}/history?limit=100")).body;
    let reasons: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|line| line["reason"]["code"].clone()).collect();
    assert!(reasons.iter().any(|code| code == "source_stalled"), "{history:#}");
}
