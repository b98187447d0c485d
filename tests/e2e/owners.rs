//! Memory and time have owners: a model that takes either without end costs its own scenario, once, and keeps
//! nobody else from running.

use std::time::Duration;

use framehook_core::state::ScenarioState;
use framehook_tests::{
    client::light_scenario,
    platform::{Platform, patient},
    root, wait_for,
};
use serde_json::{Value, json};

const FRAMES: u64 = 500;

/// A scenario of the demo clip with a model that is up to no good.
fn hostile(platform: &Platform, model: &str) -> Value {
    platform.upload(&format!("/model?name={model}&version=1"), &root().join(format!("tests/hostile/{model}.onnx")));
    json!({"source": {"video": "street@1"}, "model": format!("{model}@1")})
}

#[track_caller]
fn failed(platform: &Platform, id: &str, code: &str, words: &str) {
    let scenario = platform.wait_for_state(id, &[ScenarioState::Failed.as_str()]);
    let message = scenario["reason"]["message"].as_str().unwrap();
    assert_eq!(scenario["reason"]["code"], code, "{message}");
    assert!(message.contains(words), "`{words}` is not in {message}");
    assert_eq!(scenario["generation"], 1, "{message}");
}

fn tries(platform: &Platform, id: &str) -> usize {
    1 + platform.transitions(id).iter().filter(|(_, to)| to == "recovering").count()
}

#[test]
fn models_without_end_give_their_slots_back() {
    let platform =
        Platform::with_demo(&patient(&["--max-workers", "2", "--first-inference-s", "3", "--frame-timeout-s", "3"]));
    let endless = hostile(&platform, "loop");
    let ids: Vec<_> = (0..2).map(|_| platform.post_scenario(&endless)).collect();
    wait_for("all slots to be taken", Duration::from_secs(60), || (platform.workers().len() == 2).then_some(()));
    let neighbour = platform.post_scenario(&light_scenario());
    platform.completed(&neighbour, FRAMES);
    for id in &ids {
        failed(&platform, id, "model_stalled", "first inference took longer than 3.0 s");
        assert_eq!(tries(&platform, id), 1);
    }
    // It is ready in no time, and never gives a frame.
    let later = platform.post_scenario(&hostile(&platform, "loop_later"));
    failed(&platform, &later, "model_stalled", "an inference took longer than 2.7 s");
    assert_eq!(tries(&platform, &later), 1);
}

#[test]
fn a_model_that_takes_memory_without_end_fails_once_and_says_why() {
    let platform = Platform::with_demo(&patient(&["--worker-memory-mib", "1024", "--runner-memory-mib", "2000"]));
    let mut too_much = light_scenario();
    too_much["memory_mib"] = json!(1025);
    let answer = platform.post_json("/scenario/check", &too_much);
    assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("invalid_scenario")));
    assert!(answer.body.to_string().contains("64 to 1024 MiB"), "{answer:?}");

    let neighbour = platform.post_scenario(&light_scenario());
    let id = platform.post_scenario(&hostile(&platform, "loop_grow"));
    failed(&platform, &id, "out_of_memory", "`memory_mib`, at most 1024 here");
    assert_eq!(tries(&platform, &id), 1);
    platform.completed(&neighbour, FRAMES);
}

/// Whatever it is that finds no memory first, and however the process is to say so.
#[test]
fn workers_with_next_to_no_memory_fail_at_once_and_keep_nobody_waiting() {
    let platform = Platform::with_demo(&patient(&[]));
    let scarce = |mib: u32| {
        let mut scenario = light_scenario();
        scenario["memory_mib"] = json!(mib);
        platform.post_scenario(&scenario)
    };
    let ids: Vec<_> = (64..160).step_by(6).map(scarce).collect();
    let neighbour = platform.post_scenario(&light_scenario());
    platform.completed(&neighbour, FRAMES);
    for id in &ids {
        let ended = platform.wait_for_scenario(id, "at rest", |s| s["state"] == "failed" || s["state"] == "completed");
        if ended["state"] == "failed" {
            assert!(ended["reason"]["message"].as_str().unwrap().contains("`memory_mib`"), "{ended}");
            // One that came to some frames before is tried again: as after any crash.
            let came_to_frames = ended["progress"]["frames"] != 0;
            assert!(came_to_frames || tries(&platform, id) == 1, "{ended}");
        } else {
            // A decoder without memory calls its frames damaged.
            assert_eq!(platform.delivery(id).damaged, 0, "{ended}");
        }
    }
    let first = platform.scenario(&ids[0]);
    assert_eq!(first["state"], "failed", "{first}");
}

#[test]
fn a_scenario_that_fits_no_runner_waits_and_says_what_it_needs() {
    let platform = Platform::with_demo(&patient(&["--runner-memory-mib", "300"]));
    assert_eq!(platform.get("/runner").body["items"][0]["memory_mib"], 300);
    let id = platform.post_scenario(&light_scenario());
    let scenario = platform.wait_for_scenario(&id, "waiting", |s| s["reason"]["code"] == "no_capacity");
    let needed = scenario["resolved"]["memory_mib"].as_u64().unwrap();
    let message = scenario["reason"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("needs {needed} MiB")) && message.contains("has 300 MiB"), "{message}");
    let mut modest = light_scenario();
    modest["memory_mib"] = json!(300);
    let id = platform.post_scenario(&modest);
    platform.completed(&id, FRAMES);
}
