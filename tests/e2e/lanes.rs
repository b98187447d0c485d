//! Scenarios share the cores of their runner, and find the same whatever share they have.

use std::thread::available_parallelism;

use framehook_core::prediction::{Detection, Prediction};
use framehook_tests::{
    client::{demo_scenario, light_scenario, slow_scenario},
    platform::{Platform, patient},
};
use rustix::process::Signal;
use serde_json::json;

const FRAMES: u64 = 500;
/// Ten seconds a run: enough to see another one come and go.
const FRAME_MS: u64 = 20;

fn detections(rows: &[Prediction]) -> Vec<(i64, &[Detection])> {
    rows.iter().map(|row| (row.pts_us, row.detections.as_slice())).collect()
}

/// Where the worker is killed: with its lanes at work, because nothing else slows it down.
const KILLED_AT: [u64; 4] = [60, 140, 230, 310];

#[test]
fn killing_a_worker_whose_lanes_are_all_at_work_changes_no_row() {
    let platform = Platform::with_demo(&patient(&[]));
    let with_lanes = |lanes: u32| {
        let mut scenario = demo_scenario();
        scenario["lanes"] = json!(lanes);
        platform.post_scenario(&scenario)
    };
    let reference = platform.completed(&with_lanes(1), FRAMES);
    let id = with_lanes(2);
    for frame in KILLED_AT {
        platform.wait_for_row(&id, frame);
        platform.signal_workers(Signal::KILL);
    }
    assert_eq!(detections(&platform.completed(&id, FRAMES)), detections(&reference));
    let recoveries = platform.transitions(&id).iter().filter(|(_, to)| to == "recovering").count();
    assert!(recoveries > 0, "no recovery was seen: {:?}", platform.transitions(&id));
}

#[test]
fn scenarios_share_the_cores_and_get_what_another_leaves() {
    let cores = available_parallelism().unwrap().get();
    let platform = Platform::with_demo(&patient(&[]));
    let has = |id: &str, lanes: usize| {
        platform.wait_for_scenario(id, &format!("at {lanes} lanes"), |scenario| {
            assert_ne!(scenario["state"], "completed", "it ended before");
            scenario["lanes"] == lanes
        });
    };
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    has(&id, cores);
    let other = platform.post_scenario(&slow_scenario(FRAME_MS));
    has(&other, cores.div_ceil(2));
    has(&id, cores.div_ceil(2));
    assert_eq!(platform.delete(&format!("/scenario/{other}")).status, 204);
    has(&id, cores);
    let rows = platform.completed(&id, FRAMES);

    let mut one = light_scenario();
    one["lanes"] = json!(1);
    let one = platform.post_scenario(&one);
    assert_eq!(detections(&rows), detections(&platform.completed(&one, FRAMES)));
    assert_eq!(platform.scenario(&one)["resolved"]["lanes"], 1);
    assert_eq!(platform.scenario(&one)["lanes"], 1);
}
