//! What hooks log, as their author reads it.

use framehook_tests::{client::light_scenario, platform::Platform, plugin};
use serde_json::{Value, json};

/// Each 20th frame, so that no hook logs more than it may.
fn sampled(hooks: &[Value]) -> Value {
    let mut scenario = light_scenario();
    scenario["frames"] = json!({"every": 20});
    scenario["plugins"]["post"].as_array_mut().unwrap().extend_from_slice(hooks);
    scenario
}

fn lines(platform: &Platform, path: &str) -> Vec<Value> {
    let (kind, bytes) = platform.get_bytes(path);
    assert_eq!(kind, "application/x-ndjson");
    let text = String::from_utf8(bytes).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_hooks_log_is_followed_to_the_end_and_read_again() {
    let platform = Platform::with_demo(&[]);
    platform.upload("/plugin", &plugin("witness"));
    let failing = json!({"use": "misbehave", "config": {"mode": "panic", "calls": [3, 5]}});
    let id = platform.post_scenario(&sampled(&[json!({"use": "witness"}), failing]));
    let uri = format!("/scenario/{id}/logs");
    // The answer ends with the scenario.
    let followed = lines(&platform, &format!("{uri}?follow=true"));
    assert_eq!(platform.scenario(&id)["state"], "completed");
    let page = platform.read(&format!("{uri}?limit=1000"));
    assert_eq!((page["items"].as_array().unwrap(), &page["next_cursor"]), (&followed, &Value::Null));

    let of = |query: &str| platform.read(&format!("{uri}?{query}"))["items"].as_array().unwrap().clone();
    let witness = of("plugin=witness&level=info");
    assert_eq!(witness.len(), 25, "one a frame: {witness:#?}");
    assert_eq!(witness[1]["frame"], 20);
    assert_eq!(witness[1]["fields"], json!({"kind": "count", "seconds": 2.5, "ids": [1]}));
    assert!(witness[1]["message"].as_str().unwrap().ends_with(" outputs"), "{}", witness[1]);

    let failures = of("plugin=misbehave@0.1.0&level=warn");
    let told: Vec<_> = failures.iter().filter(|line| line["target"] == "framehook").collect();
    let frames: Vec<_> = told.iter().map(|line| line["frame"].as_u64().unwrap()).collect();
    assert_eq!(frames, [40, 60, 80], "{failures:#?}");
    let last = told[2]["message"].as_str().unwrap();
    assert!(last.contains("panics on purpose") && last.ends_with("; not called for 1 s of the stream"), "{last}");
    let again: Vec<_> = of("plugin=misbehave&level=info");
    assert!(again.iter().any(|line| line["message"] == "works again"), "{again:#?}");
}

#[test]
fn a_flood_is_cut_and_the_log_says_so() {
    let platform = Platform::with_demo(&[]);
    let flood = json!({"use": "misbehave", "config": {"mode": "flood-log"}});
    let id = platform.post_scenario(&sampled(&[flood]));
    platform.wait_for_state(&id, &["completed"]);
    let all = lines(&platform, &format!("/scenario/{id}/logs?follow=true"));
    let (told, passed): (Vec<_>, Vec<_>) = all.iter().partition(|line| line["plugin"] == "framehook");
    assert!((50..1000).contains(&passed.len()), "{} of 25,000 lines", passed.len());
    assert!(told.iter().any(|line| line["message"].as_str().unwrap().contains("lines were left out")), "{told:#?}");
}
