//! Models of the kinds that people export, over HTTP: what their outputs are for a frame is what
//! Python's ONNX Runtime makes of the frame as `ffmpeg` decodes it (`tests/models.py`). Every type
//! and layout is compared where the model runs (`host/worker/tests/models.rs`).

use std::{fs, path::Path, process::Command};

use framehook_core::prediction::Prediction;
use framehook_tests::{
    asset, models,
    platform::{Platform, patient},
};
use serde_json::{Value, json};

/// Between our conversion of a frame and ffmpeg's, of 255.
const CONVERSION: f64 = 3.0;

/// Models for which a pre hook makes the input as well: of planes of floats, like any other.
const BY_HOOK: [&str; 3] = ["grey_f32", "nhwc_u8", "batch4"];

/// What each model gives for a frame of the demo clip, in Python.
fn judge(cases: &[Case], frame: u64, folder: &Path) -> Vec<Value> {
    let pixels = folder.join("rgb");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-y", "-v", "fatal", "-i"]).arg(asset("demo1.mp4")).args(["-vf", &format!("select=eq(n\\,{frame})")]);
    ffmpeg.args(["-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24"]).arg(&pixels);
    assert!(ffmpeg.status().unwrap().success());
    let list: Vec<_> = cases.iter().map(|c| json!({"model": c.model, "layout": c.layout, "feeds": c.feeds})).collect();
    models::judge(&list, &pixels, folder)
}

/// A model, the `input` of its scenario, and what is right for it.
struct Case {
    model: &'static str,
    input: Value,
    layout: &'static str,
    feeds: Value,
}

fn cases() -> Vec<Case> {
    let case = |model, layout, input| Case { model, input, layout, feeds: json!({}) };
    vec![
        case("nhwc_dyn", "nhwc", json!({"size": [640, 360]})),
        case("nhwc_u8", "nhwc", json!({})),
        case("nchw_f16", "nchw", json!({})),
        case("grey_f32", "nchw", json!({})),
        case("batch4", "nchw", json!({})),
        case("int64_big", "nchw", json!({})),
        case("nan_inf", "nchw", json!({})),
        case("string_and_float", "nchw", json!({})),
        case("ort_all.onnx", "nchw", json!({})),
        case("convolution.ort", "nchw", json!({})),
        case("quantised_channels", "nchw", json!({})),
        Case {
            feeds: json!({"orig_target_sizes": [640, 360]}),
            ..case("rtdetr", "nchw", json!({"inputs": {"orig_target_sizes": "frame_size"}}))
        },
        Case {
            feeds: json!({"im_shape": [360, 640], "scale_factor": [1, 1]}),
            ..case("paddle", "nchw", json!({"inputs": {"im_shape": "input_size", "scale_factor": "scale"}}))
        },
    ]
}

fn upload(platform: &Platform, folder: &Path, model: &str) -> Value {
    let name = model.replace(['.', '_'], "-");
    platform.upload(&format!("/model?name={name}&version=1"), &folder.join(model));
    platform.read(&format!("/model/{name}/1"))
}

/// Looks at the first frame of the demo clip, with a plugin that says what it is shown.
fn scenario(model: &Value, input: &Value) -> Value {
    json!({"source": {"video": "street@1"}, "model": model["name"], "input": input, "range": {"until_us": 20_000},
        "plugins": {"post": [{"use": "misbehave", "config": {"mode": "tell"}}]}})
}

fn check(model: &str, told: &[Value], right: &[Value]) {
    assert_eq!(told.len(), right.len(), "{model}: {told:?}");
    for (told, right) in told.iter().zip(right) {
        let text = |key: &str| told["attributes"][key].as_str().unwrap();
        assert_eq!((text("name"), text("shape")), (right["name"].as_str().unwrap(), &*format!("{:?}", shape(right))));
        let numbers = text("numbers").trim_matches(['[', ']']).split(", ").map(|n| n.parse::<f64>().unwrap());
        let unit = if model.contains("u8") { 1.0 } else { 1.0 / 255.0 };
        for (told, right) in numbers.zip(right["numbers"].as_array().unwrap()) {
            let right: f64 = right.as_str().unwrap().parse().unwrap();
            let near = (told - right).abs() <= CONVERSION * unit * right.abs().max(1.0);
            assert!(told == right || near || (told.is_nan() && right.is_nan()), "{model}: {told} is not {right}");
        }
    }
}

fn shape(right: &Value) -> Vec<u64> {
    right["shape"].as_array().unwrap().iter().map(|side| side.as_u64().unwrap()).collect()
}

#[test]
fn models_of_many_kinds_give_hooks_what_they_give_in_python() {
    let (platform, folder) = (Platform::with_demo(&patient(&[])), models::folder());
    let scratch = tempfile::tempdir().unwrap();
    let cases = cases();
    for (case, right) in cases.iter().zip(judge(&cases, 0, scratch.path())) {
        let model = upload(&platform, &folder, case.model);
        let right = right.as_array().unwrap();
        check(case.model, &run(&platform, &scenario(&model, &case.input)), right);
        if BY_HOOK.contains(&case.model) {
            let mut by_hook = scenario(&model, &case.input);
            by_hook["plugins"]["pre"] = json!([{"use": "misbehave", "config": {"mode": "infer"}}]);
            check(case.model, &run(&platform, &by_hook), right);
        }
    }
}

/// What the plugin was shown of the first frame.
fn run(platform: &Platform, scenario: &Value) -> Vec<Value> {
    run_all(platform, scenario).remove(0)
}

/// What it was shown of each frame.
fn run_all(platform: &Platform, scenario: &Value) -> Vec<Vec<Value>> {
    let id = platform.post_scenario(scenario);
    let ended = platform.wait_for_state(&id, &["completed", "failed"]);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    let shown = |row: &Prediction| {
        assert!(row.skipped.is_none() && row.hook_failures.is_empty(), "{row:?}");
        let events = serde_json::to_value(&row.events).unwrap();
        events.as_array().unwrap().iter().filter(|event| event["kind"] == "output").cloned().collect()
    };
    platform.predictions(&id).iter().map(shown).collect()
}

#[test]
fn a_fixed_batch_is_filled_with_consecutive_frames() {
    let (platform, folder) = (Platform::with_demo(&patient(&[])), models::folder());
    let scratch = tempfile::tempdir().unwrap();
    let uploaded = |model| upload(&platform, &folder, model);
    // Six frames of 40 ms: the second batch has two of them.
    let run = |model: &Value, lanes: u32| {
        let mut six = scenario(model, &json!({}));
        (six["range"], six["lanes"]) = (json!({"until_us": 240_000}), lanes.into());
        let rows = run_all(&platform, &six);
        assert_eq!(rows.len(), 6);
        rows
    };
    let first = |row: &[Value]| row[0]["attributes"]["numbers"].as_str().unwrap().trim_matches('[')[..1].to_owned();
    let numbers: Vec<_> = run(&uploaded("batch4_number"), 1).iter().map(|row| first(row)).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "0", "1"], "the row of the batch that each frame was");
    let cases =
        ["batch4", "batch4_joined"].map(|model| Case { model, input: json!({}), layout: "nchw", feeds: json!({}) });
    let models = cases.each_ref().map(|case| uploaded(case.model));
    let rows = models.each_ref().map(|model| [run(model, 1), run(model, 2)]);
    for frame in 0..6 {
        for ((case, rows), right) in cases.iter().zip(&rows).zip(judge(&cases, frame as u64, scratch.path())) {
            check(case.model, &rows[0][frame], right.as_array().unwrap());
            assert_eq!(rows[0][frame], rows[1][frame], "two lanes give what one gives");
        }
    }
}

#[test]
fn a_model_says_what_it_takes_and_what_a_scenario_has_to_say() {
    let (platform, folder) = (Platform::with_demo(&patient(&[])), models::folder());
    for (name, element, words, field) in [
        ("nhwc_dyn", "float32", "has to say `input.size`", Some("input.size")),
        ("open", "float32", "has to say `input.layout`", Some("input.layout")),
        ("rtdetr", "float32", "what feeds `orig_target_sizes` (int64 [?, 2])", Some("input.inputs")),
        ("batch4_nhwc_u8", "uint8", "its batch is fixed to 4: as many consecutive frames", None),
        ("batch4_joined", "float32", "each frame is run alone with 3 rows of zeros", None),
        (
            "string_and_float",
            "float32",
            "output `label` is text: hooks built for framehook:plugin@0.1.0 do not see it",
            None,
        ),
    ] {
        let model = upload(&platform, &folder, name);
        let manifest = &model["manifest"];
        assert_eq!(manifest["inputs"][0]["element"], element, "{model:#}");
        assert_eq!(manifest["input"].is_object(), field.is_none(), "what a frame becomes without a word: {model:#}");
        assert!(manifest["warnings"][0].as_str().unwrap().contains(words), "{model:#}");
        let answer = platform.post_json("/scenario/check", &scenario(&model, &json!({})));
        let got = (answer.status != 200).then(|| answer.body["field"].as_str().unwrap());
        assert_eq!(got, field, "{name}: {:#}", answer.body);
    }
    let refused = platform.post(
        "/model?name=newer&version=1",
        "application/octet-stream",
        &fs::read(folder.join("opset99")).unwrap(),
    );
    assert_eq!((refused.status, &refused.body["code"]), (422, &json!("invalid_model")), "{:#}", refused.body);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("support for domain ai.onnx is till opset") && !detail.contains("/onnxruntime_src"),
        "{detail}"
    );
}
