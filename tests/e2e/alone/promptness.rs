//! Stop, start and delete.

use std::{fs, time::Instant};

use framehook_tests::{
    DEADLINE, asset,
    client::{Answer, light_scenario, slow_scenario},
    platform::{PROMPT, Platform, patient},
    wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A run takes some three seconds, so that it is still running when it is looked at.
const FRAME_MS: u64 = 5;

/// Calls that must answer within a second, twice each, with the same result.
fn twice(call: impl Fn() -> Answer) -> Answer {
    let answers = [(); 2].map(|()| {
        let start = Instant::now();
        let answer = call();
        assert!(start.elapsed() < PROMPT, "answered after {:?}", start.elapsed());
        answer
    });
    let [first, second] = answers;
    assert_eq!(first.status, second.status, "{first:?} {second:?}");
    second
}

fn stop(platform: &Platform, id: &str) {
    assert_eq!(twice(|| platform.post_json(&format!("/scenario/{id}/stop"), &Value::Null)).status, 200);
}

fn start(platform: &Platform, id: &str) {
    assert_eq!(twice(|| platform.post_json(&format!("/scenario/{id}/start"), &Value::Null)).status, 200);
}

fn delete(platform: &Platform, id: &str) {
    assert_eq!(twice(|| platform.delete(&format!("/scenario/{id}"))).status, 204);
    for path in ["", "/history"] {
        assert_eq!(platform.get(&format!("/scenario/{id}{path}")).status, 404);
    }
    assert_eq!(platform.get(&format!("/prediction/{id}")).status, 404);
}

#[test]
fn stop_start_and_delete_are_prompt_and_idempotent_while_a_worker_is_busy() {
    let platform = Platform::with_demo(&patient(&["--max-workers", "1"]));

    // Running, and a second one that waits.
    let busy = platform.post_scenario(&slow_scenario(FRAME_MS));
    let waiting = platform.post_scenario(&light_scenario());
    platform.wait_for_state(&busy, &["running"]);
    platform.wait_for_scenario(&waiting, "waiting", |s| s["reason"]["code"] == "no_capacity");
    stop(&platform, &waiting);
    platform.wait_for_state(&waiting, &["stopped"]);
    stop(&platform, &waiting);
    stop(&platform, &busy);
    let stopped = platform.wait_for_state(&busy, &["stopped", "completed"]);
    assert_eq!(stopped["desired"], "stopped");
    start(&platform, &busy);
    platform.completed(&busy, 500);

    // Completed: start and stop change nothing.
    start(&platform, &busy);
    stop(&platform, &busy);
    assert_eq!(platform.scenario(&busy)["state"], "completed");
    start(&platform, &waiting);
    platform.completed(&waiting, 500);

    // Deleting a completed, a running and a pending one.
    delete(&platform, &busy);
    let running = platform.post_scenario(&slow_scenario(FRAME_MS));
    let pending = platform.post_scenario(&light_scenario());
    platform.wait_for_state(&running, &["running"]);
    delete(&platform, &pending);
    delete(&platform, &running);
    wait_for("the worker of a deleted scenario to end", DEADLINE, || platform.workers().is_empty().then_some(()));
    delete(&platform, &waiting);
    // The place of the deleted one is free again.
    let next = platform.post_scenario(&light_scenario());
    platform.completed(&next, 500);
    delete(&platform, &next);
    assert_eq!(platform.get("/scenario").body["items"].as_array().unwrap().len(), 0);
}

#[test]
fn stop_start_and_delete_are_prompt_and_idempotent_while_things_go_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (clip, away) = (folder.path().join("clip.mp4"), folder.path().join("away.mp4"));
    fs::copy(asset("demo1.mp4"), &clip).unwrap();
    let source_dir = folder.path().to_str().unwrap();
    let platform = Platform::with_demo(&patient(&["--source-dir", source_dir]));

    // Degraded.
    let mut scenario = slow_scenario(FRAME_MS);
    scenario["plugins"]["post"].as_array_mut().unwrap().push(json!({"use": "misbehave", "config": {"mode": "trap"}}));
    let degraded = platform.post_scenario(&scenario);
    platform.wait_for_state(&degraded, &["degraded"]);
    start(&platform, &degraded);
    stop(&platform, &degraded);
    platform.wait_for_state(&degraded, &["stopped"]);
    start(&platform, &degraded);
    platform.wait_for_state(&degraded, &["degraded"]);
    delete(&platform, &degraded);
    wait_for("its worker to end", DEADLINE, || platform.workers().is_empty().then_some(()));

    // Deploying, or still pending: the worker takes some time to come up.
    let deploying = platform.post_scenario(&slow_scenario(FRAME_MS));
    stop(&platform, &deploying);
    platform.wait_for_state(&deploying, &["stopped"]);
    start(&platform, &deploying);
    delete(&platform, &deploying);
    wait_for("its worker to end", DEADLINE, || platform.workers().is_empty().then_some(()));

    // Stopping, for as long as the worker does not listen.
    let stopping = platform.post_scenario(&slow_scenario(FRAME_MS));
    platform.wait_for_row(&stopping, 10);
    platform.signal_workers(Signal::STOP);
    stop(&platform, &stopping);
    platform.wait_for_state(&stopping, &["stopping"]);
    stop(&platform, &stopping);
    start(&platform, &stopping);
    platform.completed(&stopping, 500);

    // Recovering, because the source is away, and then failed.
    scenario = slow_scenario(FRAME_MS);
    scenario["source"] = json!({"file": clip});
    let recovering = platform.post_scenario(&scenario);
    platform.wait_for_row(&recovering, 10);
    fs::rename(&clip, &away).unwrap();
    platform.signal_workers(Signal::KILL);
    platform.wait_for_scenario(&recovering, "waiting for its next try", |s| s["retry_at"].is_string());
    stop(&platform, &recovering);
    platform.wait_for_state(&recovering, &["stopped"]);
    start(&platform, &recovering);
    let failed = platform.wait_for_state(&recovering, &["failed"]);
    assert_eq!(failed["reason"]["code"], "source_unreachable");
    stop(&platform, &recovering);
    assert_eq!(platform.scenario(&recovering)["state"], "failed");
    fs::rename(&away, &clip).unwrap();
    start(&platform, &recovering);
    platform.completed(&recovering, 500);
    delete(&platform, &recovering);
}

#[test]
fn a_stopped_scenario_goes_on_where_it_was() {
    let platform = Platform::with_demo(&patient(&[]));
    let reference = platform.post_scenario(&light_scenario());
    let reference = platform.completed(&reference, 500);
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    platform.wait_for_row(&id, 20);
    stop(&platform, &id);
    platform.wait_for_state(&id, &["stopped"]);
    start(&platform, &id);
    let rows = platform.completed(&id, 500);
    assert!(rows.iter().zip(&reference).all(|(a, b)| (a.pts_us, &a.detections) == (b.pts_us, &b.detections)));
}
