//! What only the newest version of the plugin contract can say, from the model's file to the client.

use std::fs;

use framehook_core::prediction::{Attribute, Prediction};
use framehook_tests::{client::slow_scenario, onnx, platform::Platform, root};
use serde_json::{Value, json};

const STREAM: &str = "application/octet-stream";

/// The demo's model, with names of its classes as Ultralytics' exporter writes them.
fn upload_named_model(platform: &Platform) {
    let entry = |key: &str, value: &str| {
        onnx::bytes(14, &[onnx::bytes(1, key.as_bytes()), onnx::bytes(2, value.as_bytes())].concat())
    };
    let named = entry("names", "{0: 'person', 1: 'car', 2: 'truck'}");
    let model = [fs::read(root().join("assets/street.onnx")).unwrap(), named, entry("task", "detect")].concat();
    let answer = platform.post("/model?name=named&version=1", STREAM, &model);
    assert_eq!(answer.status, 201, "{:#}", answer.body);
}

/// Every third frame is skipped.
fn witnessed() -> Value {
    let mut scenario = slow_scenario(1);
    scenario["model"] = json!("named@1");
    let pre = scenario["plugins"]["pre"].as_array_mut().unwrap();
    pre.push(json!({"use": "misbehave", "config": {"mode": "skip", "every": 3}}));
    scenario["plugins"]["post"] = json!([{"use": "yolo", "config": {"min_score": 0.05}}, {"use": "witness"}]);
    scenario
}

fn told(row: &Prediction, kind: &str, key: &str) -> String {
    let event = row.events.iter().find(|event| event.kind == kind);
    event.and_then(|event| event.attributes.get(key)).map(ToString::to_string).unwrap_or_default()
}

#[test]
fn what_hooks_say_in_new_words_reaches_the_client() {
    let mut platform = Platform::with_demo(&[]);
    platform.upload("/plugin", &root().join("target/plugins/wasm32-wasip2/release/witness.wasm"));
    upload_named_model(&platform);
    let shown = platform.read("/model/named/1")["manifest"]["metadata"].clone();
    assert_eq!(shown, json!({"labels": ["person", "car", "truck"], "task": "detect"}));
    assert_eq!(platform.read("/plugin/witness/0.1.0")["manifest"]["abi"], "0.2.0");

    let id = platform.post_scenario(&witnessed());
    platform.wait_for_row(&id, 100);
    // The next instance is told where it goes on.
    assert_eq!(platform.interrupt(), Some(0));
    platform.up();
    let rows = platform.completed(&id, 500);

    let (skipped, inferred): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.skipped.is_some());
    assert!((160..=170).contains(&skipped.len()), "{}", skipped.len());
    for row in &skipped {
        assert_eq!(told(row, "skipped", "frame"), row.frame.to_string());
        assert_eq!(told(row, "skipped", "reason"), row.skipped.as_ref().unwrap().reason);
        // By the witness, which has no name for its class.
        assert_eq!(row.detections[0].label.as_deref(), Some("person"));
    }
    for row in &inferred {
        let (own, found) = row.detections.split_last().unwrap();
        assert_eq!((own.label.as_deref(), own.polygon.len(), own.mask.is_some()), (Some("own"), 3, true));
        assert_eq!(own.attributes["speed"], Attribute::Number(12.5));
        assert!(found.iter().all(|d| d.label.is_some() && d.attributes["seen"] == Attribute::Number(1.0)));
    }
    let labels: Vec<_> = inferred.iter().flat_map(|row| &row.detections).filter_map(|d| d.label.as_deref()).collect();
    assert!(["person", "car", "truck"].iter().all(|label| labels.contains(label)));

    let started =
        |row: &Prediction| ["id", "start", "kind", "size", "fps", "frames"].map(|key| told(row, "started", key));
    assert_eq!(started(&rows[0]), [&id, "fresh", "file", "[640.0, 360.0]", "25", "500"]);
    assert_eq!(told(&rows[0], "started", "model_labels"), "person,car,truck");
    let resumed = rows.iter().position(|row| told(row, "started", "start") == "resumed").unwrap();
    assert!(resumed > 100);
    for row in &rows[resumed..] {
        assert_eq!(started(row)[..3], [&id, "resumed", "file"]);
        assert_eq!(told(row, "started", "after"), (resumed - 1).to_string());
        assert_eq!(told(row, "started", "pts"), rows[resumed - 1].pts_us.to_string());
    }

    // As a client reads it, which need not know Rust.
    let page = platform.read(&format!("/prediction/{id}?limit=1000&event=stay"));
    let [last] = &page["items"].as_array().unwrap()[..] else { panic!("{page:#}") };
    assert_eq!(last["frame"], 499);
    let stay = last["events"].as_array().unwrap().iter().find(|event| event["kind"] == "stay").unwrap();
    assert_eq!(stay["episode"], json!({"id": "1", "phase": "end"}));
    let first = &platform.read(&format!("/prediction/{id}?limit=1"))["items"][0];
    let own = first["detections"].as_array().unwrap().last().unwrap();
    assert_eq!(own["mask"], json!({"grid": [3, 2], "runs": [1, 2, 3]}));
    assert_eq!(own["attributes"], json!({"colour": "red", "count": 3, "path": [0.5, 1], "speed": 12.5}));
}
