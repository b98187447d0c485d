//! What hooks keep: a scenario that is killed at any moment says what an undisturbed one says.

use std::{fs, process::Command};

use framehook_core::prediction::{Detection, Event, Prediction};
use framehook_tests::{
    client::slow_scenario,
    platform::{Platform, patient},
    plugin, root, seed,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The demo's clip twice, one after the other.
const FRAMES: u64 = 1000;
const KILLS: usize = 20;
/// Three seconds a run and more: enough to be hit twenty times.
const FRAME_MS: u64 = 3;
const STREAM: &str = "application/octet-stream";

fn upload(platform: &Platform) {
    ["tracker", "zones"].iter().for_each(|name| drop(platform.upload("/plugin", &plugin(name))));
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("long.mp4");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-stream_loop", "1", "-i"]).arg(root().join("assets/demo1.mp4")).args(["-c", "copy"]);
    assert!(ffmpeg.arg(&clip).status().unwrap().success());
    let answer = platform.post("/video?name=long&version=1", STREAM, &fs::read(clip).unwrap());
    assert_eq!(answer.status, 201, "{:#}", answer.body);
}

/// Two counters, to be told apart; a tracker, and zones that know its objects; and a hook before the model
/// whose state says on which frames it skips.
fn counting() -> Value {
    let mut scenario = slow_scenario(FRAME_MS);
    scenario["source"] = json!({"video": "long@1"});
    let pre = scenario["plugins"]["pre"].as_array_mut().unwrap();
    pre.push(json!({"use": "misbehave", "config": {"mode": "skip", "every": 7}}));
    let post = scenario["plugins"]["post"].as_array_mut().unwrap();
    post.push(json!({"use": "line-counter", "config": {"line": [[0.0, 0.6], [1.0, 0.6]]}}));
    post.push(json!({"use": "tracker", "config": {"high_score": 0.3, "new_score": 0.3}}));
    let left = json!([[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]);
    post.push(json!({"use": "zones", "config": {
        "zones": {"left": {"polygon": left, "dwell_s": 0.5, "max_count": 1}},
        "lines": {"middle": {"line": [[0.5, 0.0], [0.5, 1.0]]}},
        "cooldown_s": 0.2, "lost_s": 0.5
    }}));
    scenario
}

type Row<'a> = (u64, &'a [Detection], &'a [Event], bool);

fn said(rows: &[Prediction]) -> Vec<Row<'_>> {
    rows.iter().map(|row| (row.frame, &row.detections[..], &row.events[..], row.skipped.is_some())).collect()
}

fn check(rows: &[Prediction], undisturbed: &[Prediction]) {
    for (found, expected) in said(rows).into_iter().zip(said(undisturbed)) {
        assert_eq!(found, expected, "a row differs from that of an undisturbed run");
    }
}

#[test]
fn hooks_go_on_with_what_they_knew_whatever_is_killed() {
    let mut platform = Platform::with_demo(&patient(&[]));
    upload(&platform);
    let id = platform.post_scenario(&counting());
    let undisturbed = platform.completed(&id, FRAMES);
    let count = |kind: &str| undisturbed.iter().flat_map(|row| &row.events).filter(|event| event.kind == kind).count();
    let kinds = ["line_crossed", "zone_entered", "zone_dwell", "zone_left", "zone_crowded"];
    let tracks = undisturbed.iter().flat_map(|row| &row.detections).filter_map(|d| d.track_id).max().unwrap_or(0);
    let counts = kinds.map(count);
    assert!(counts.iter().all(|count| *count > 1) && tracks > 20, "{counts:?} of {tracks} tracks are too few to tell");
    assert_eq!(undisturbed.iter().filter(|row| row.skipped.is_some()).count(), 142);

    let mut random = fastrand::Rng::with_seed(seed());
    let mut moments: Vec<_> = (0..KILLS).map(|_| random.u64(0..FRAMES - 20)).collect();
    moments.sort_unstable();
    let id = platform.post_scenario(&counting());
    for (n, moment) in moments.into_iter().enumerate() {
        platform.wait_for_row(&id, moment);
        match n % 4 {
            // The runner goes with the whole platform here; `matrix` and `chaos` kill it alone.
            0 | 1 => platform.signal_workers(Signal::KILL),
            2 => {
                platform.kill();
                platform.up();
            }
            _ => {
                assert_eq!(platform.interrupt(), Some(0));
                platform.up();
            }
        }
    }
    check(&platform.completed(&id, FRAMES), &undisturbed);
}

#[test]
fn a_scenario_that_was_stopped_goes_on_with_what_its_hooks_knew() {
    let platform = Platform::with_demo(&patient(&[]));
    upload(&platform);
    let id = platform.post_scenario(&counting());
    let undisturbed = platform.completed(&id, FRAMES);
    let id = platform.post_scenario(&counting());
    for moment in [100, 600] {
        platform.wait_for_row(&id, moment);
        assert_eq!(platform.post_json(&format!("/scenario/{id}/stop"), &json!({})).status, 200);
        platform.wait_for_state(&id, &["stopped"]);
        assert_eq!(platform.post_json(&format!("/scenario/{id}/start"), &json!({})).status, 200);
    }
    check(&platform.completed(&id, FRAMES), &undisturbed);
}
