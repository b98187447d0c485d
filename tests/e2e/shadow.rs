//! A shadow beside a scenario's own hooks: what it finds, and that the scenario has nothing of it.

use std::collections::BTreeMap;

use framehook_core::prediction::{Detection, Prediction};
use framehook_tests::{
    DEADLINE,
    client::{light_scenario, slow_scenario},
    cluster::found,
    platform::Platform,
    wait_for,
};
use serde_json::{Value, json};

/// So that a shadow keeps up with most frames on a busy machine.
const FRAME_MS: u64 = 5;
const FRAMES: u64 = 500;

/// The demo's detector with another threshold, and no counter behind it.
fn strict() -> Value {
    json!([{"use": "yolo", "config": {"labels": ["person", "car", "truck"], "min_score": 0.5}}])
}

fn with_shadow(post: &Value) -> Value {
    let mut scenario = slow_scenario(FRAME_MS);
    scenario["shadow"] = json!({ "post": post });
    scenario
}

/// All that the shadow of a completed scenario found, once it is stored: each frame is in the sum.
fn shadow(platform: &Platform, id: &str) -> (Value, Vec<Value>) {
    let page = wait_for("a word on each frame", DEADLINE, || {
        let page = platform.read(&format!("/scenario/{id}/shadow?limit=1000"));
        let summary = &page["summary"];
        let frames = ["compared", "not_compared"].map(|key| summary[key].as_u64().unwrap_or_default());
        (frames.iter().sum::<u64>() == FRAMES).then_some(page)
    });
    assert_eq!(page["next_cursor"], Value::Null);
    (page["summary"].clone(), page["items"].as_array().unwrap().clone())
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key}: {value:#}"))
}

/// Those of `one` that `other` has not, to the last bit; a counter numbers those that it sees.
fn only(one: &Prediction, other: &Prediction) -> Vec<Detection> {
    let bare = |row: &Prediction| -> Vec<Detection> {
        row.detections.iter().map(|detection| Detection { track_id: None, ..detection.clone() }).collect()
    };
    let others = bare(other);
    bare(one).into_iter().filter(|detection| !others.contains(detection)).collect()
}

/// What one run has and another has not, judged by the rows of two scenarios that ran for themselves.
#[test]
fn a_shadow_differs_as_two_scenarios_do() {
    let platform = Platform::with_demo(&[]);
    let shadowed = platform.post_scenario(&with_shadow(&strict()));
    let [loose, strict] = [light_scenario()["plugins"]["post"].clone(), strict()].map(|post| {
        let mut scenario = light_scenario();
        scenario["plugins"]["post"] = post;
        platform.post_scenario(&scenario)
    });
    let [rows, loose, strict] = [&shadowed, &loose, &strict].map(|id| platform.completed(id, FRAMES));
    assert_eq!(found(&rows), found(&loose), "nothing of the shadow is in the rows");

    let judged: BTreeMap<_, _> = loose
        .iter()
        .zip(&strict)
        .map(|(before, after)| {
            assert_eq!(only(after, before), [], "a higher threshold finds nothing new");
            (before.frame, (only(before, after), before.events.len() as u64))
        })
        .filter(|(_, (missing, events))| !missing.is_empty() || *events > 0)
        .collect();
    assert!(judged.len() > 100 && judged.values().any(|(_, events)| *events > 0), "{}", judged.len());

    let (summary, items) = shadow(&platform, &shadowed);
    let [compared, not_compared] = ["compared", "not_compared"].map(|key| number(&summary, key));
    assert!(compared > 0 && number(&summary, "starts") == 1 && summary["ended"].is_null(), "{summary:#}");
    assert_eq!(number(&summary, "equal") + number(&summary, "different"), compared);
    assert_eq!(summary["plugins"][0]["name"], "yolo");
    let different = number(&summary, "different");
    assert_eq!(items.len() as u64 + number(&summary, "left_out"), different);
    assert!(judged.len() as u64 - different <= not_compared, "{} {summary:#}", judged.len());
    for item in &items {
        let (missing, events) = &judged[&number(item, "frame")];
        let label = |value: &Value| value["label"].as_str().unwrap().to_owned();
        let told: Vec<_> = item["missing"].as_array().into_iter().flatten().map(label).collect();
        let labels: Vec<_> = missing.iter().map(|detection| detection.label.clone().unwrap()).collect();
        // The first ones of a long list are told.
        assert!(told.is_empty() == labels.is_empty() && labels.starts_with(&told), "{item:#} {labels:?}");
        let counts = ["missing", "events_missing"].map(|kind| number(&item["counts"], kind));
        assert_eq!(counts, [labels.len() as u64, *events], "{item:#}");
        let counts = item["counts"].as_object().unwrap();
        let others = counts.iter().filter(|(kind, _)| !["missing", "events_missing"].contains(&kind.as_str()));
        assert!(others.into_iter().all(|(_, count)| *count == 0), "{item:#}");
    }
}

/// One that loops is the worst for its own frames, and nothing to the scenario.
#[test]
fn a_shadow_that_fails_fails_alone() {
    let platform = Platform::with_demo(&[]);
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    let plain = platform.completed(&id, FRAMES);
    for mode in ["loop", "panic"] {
        let mut scenario = with_shadow(&json!([{"use": "misbehave", "config": {"mode": mode}}]));
        // A shadow gives up frames where the scenario would fail.
        scenario["on_plugin_failure"] = json!("fail_scenario");
        let id = platform.post_scenario(&scenario);
        let rows = platform.completed(&id, FRAMES);
        assert_eq!(found(&rows), found(&plain), "{mode}");
        assert!(rows.iter().all(|row| row.hook_failures.is_empty() && row.skipped.is_none()), "{mode}");
        assert!(platform.transitions(&id).iter().all(|(_, to)| to != "degraded" && to != "recovering"), "{mode}");
        assert_eq!(platform.scenario(&id)["reason"]["code"], "end_of_stream", "{mode}");
        let (summary, items) = shadow(&platform, &id);
        let (failed, compared) = (number(&summary["counts"], "failures_added"), number(&summary, "compared"));
        assert!(failed > 0 && failed == compared && number(&summary["counts"], "skipped") == compared, "{summary:#}");
        assert!(items.iter().all(|item| item["skipped_after"]["by"] == "misbehave@0.1.0"), "{mode}");
        let lines = platform.read(&format!("/scenario/{id}/logs?limit=1000"));
        let of_shadow = lines["items"].as_array().unwrap().iter().filter(|line| line["plugin"] == "misbehave@0.1.0");
        let of_shadow: Vec<_> = of_shadow.filter(|line| line["shadow"] == true).collect();
        assert!(!of_shadow.is_empty(), "{mode}: {lines:#}");
    }
}
