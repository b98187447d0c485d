//! Further models of a scenario, which its hooks run: from the upload to the rows.

use framehook_core::prediction::Attribute;
use framehook_tests::{onnx, platform::Platform, root};
use serde_json::{Value, json};

const STREAM: &str = "application/octet-stream";

/// The first model tells the strongest colour of each cell of the frame and how strong it is, and the second
/// one that of each object: both say the same of a cell.
fn two_models() -> Value {
    json!({
        "source": {"video": "street@1"},
        "model": "mosaic@1",
        "models": {"colour": "mean@1"},
        "frames": {"every": 25},
        "plugins": {"post": [
            {"use": "yolo", "config": {"head": "v8", "labels": ["red", "green", "blue"], "min_score": 0.01}},
            {"use": "classify-objects", "config": {
                "model": "colour", "labels": ["red", "green", "blue"], "activation": "none", "min_score": 0.0}},
        ]},
    })
}

#[test]
fn objects_are_classified_by_a_second_model() {
    let platform = Platform::with_demo(&[]);
    let answer = platform.post("/model?name=mean&version=1", STREAM, &onnx::mean_colour());
    assert_eq!(answer.status, 201, "{:#}", answer.body);
    platform.upload("/plugin", &root().join("target/plugins/wasm32-wasip2/release/classify_objects.wasm"));
    let mean = platform.read("/model/mean/1")["digest"].clone();

    for (change, field, words) in [
        (json!({"models": {"colour": "none@1"}}), "models.colour", "there is no model `none@1`"),
        (json!({"models": {"Colour": "mean@1"}}), "models", "`Colour` is no name for a model"),
        (
            json!({"models": {"colour": {"use": "mean@1", "input": {"size": [64, 64]}}}}),
            "models.colour.input.size",
            "32",
        ),
    ] {
        let mut scenario = two_models();
        scenario.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = platform.post_json("/scenario/init", &scenario);
        assert_eq!(answer.body["field"], field, "{:#}", answer.body);
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{:#}", answer.body);
    }

    let id = platform.post_scenario(&two_models());
    platform.wait_for_state(&id, &["completed"]);
    let rows = platform.predictions(&id);
    assert_eq!(rows.len(), 20);
    let (mut compared, mut agreed) = (0, 0);
    for row in &rows {
        assert_eq!(row.hook_failures, [], "frame {}", row.frame);
        assert_eq!(json!(row.provenance.models), json!({"colour": mean}));
        for object in &row.detections {
            let Attribute::Number(score) = object.attributes["colour_score"] else { panic!("{object:?}") };
            // Cells at the edge of the model's input are partly bars, which are no part of the frame.
            let [_, y, _, height] = object.bbox;
            if height > 0.34 && y > 0.1 && y < 0.6 {
                assert!((score - f64::from(object.score)).abs() < 0.02, "{score} {object:?}");
                // Where two colours are as strong, a scaled picture may have the other one.
                agreed += usize::from(object.attributes["colour"] == Attribute::Text(object.label.clone().unwrap()));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 20 * 5, "a row of cells on each frame");
    assert!(agreed > 70, "{agreed} of {compared} have the same colour");

    // One that the scenario lacks: the reason says which there are.
    let mut lacking = two_models();
    lacking["models"] = json!({"other": "mean@1"});
    let id = platform.post_scenario(&lacking);
    let view = platform.wait_for_state(&id, &["failed"]);
    let message = view["reason"]["message"].as_str().unwrap();
    assert!(message.contains("no model `colour`; its `models` are `other`"), "{view:#}");
}
