//! What runs a model: chosen, shown, and kept. OpenVINO stands for every provider that is not ONNX Runtime's
//! own; `scripts/gpu-check.sh` tries CUDA where there is a GPU.

use framehook_core::{
    execution::{Execution, Precision, Provider},
    prediction::Prediction,
};
use framehook_tests::{
    client::{demo_scenario, slow_scenario},
    platform::{Platform, patient, refusal},
    root,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const FRAMES: u64 = 500;
const F32: Execution = Execution { provider: Provider::Openvino, precision: Precision::F32 };

/// `make setup-tests` fetches it.
fn openvino() -> String {
    let library = root().join(".cache/onnxruntime-openvino/libonnxruntime.so");
    assert!(library.is_file(), "there is no {}: run `make setup-openvino`", library.display());
    library.display().to_string()
}

fn with(mut scenario: Value, provider: &str, precision: &str) -> Value {
    scenario["provider"] = json!(provider);
    scenario["precision"] = json!(precision);
    scenario
}

/// What ran the frames, each named once, in their order.
fn executions(rows: &[Prediction]) -> Vec<Execution> {
    let mut all: Vec<_> = rows.iter().map(|row| row.provenance.execution.unwrap()).collect();
    all.dedup();
    all
}

fn boxes(rows: &[Prediction]) -> usize {
    rows.iter().map(|row| row.detections.len()).sum()
}

#[test]
fn a_provider_is_chosen_shown_and_compared_with_the_processor() {
    let platform = Platform::with_demo(&patient(&["--onnxruntime-openvino", &openvino()]));
    let plain = platform.completed(&platform.post_scenario(&with(demo_scenario(), "cpu", "f32")), FRAMES);
    assert_eq!(executions(&plain), [Execution::default()]);
    let runner = &platform.read("/runner")["items"][0];
    let of =
        |name: &str| runner["providers"].as_array().unwrap().iter().find(|p| p["provider"] == name).unwrap().clone();
    assert_eq!(of("cpu")["precisions"], json!(["f32"]));
    assert_eq!(of("cuda")["precisions"], json!([]));
    assert!(of("cuda")["why"].as_str().unwrap().contains("make setup-gpu"), "{runner:#}");

    for precision in of("openvino")["precisions"].as_array().unwrap() {
        let precision: Precision = precision.as_str().unwrap().parse().unwrap();
        let execution = Execution { precision, ..F32 };
        let id = platform.post_scenario(&with(demo_scenario(), "openvino", precision.as_str()));
        let rows = platform.completed(&id, FRAMES);
        assert_eq!(executions(&rows), [execution]);
        let off = boxes(&rows).abs_diff(boxes(&plain));
        assert!(off * 100 <= boxes(&plain), "{off} boxes more or less in {precision:?}");
        let shown = platform.scenario(&id);
        assert_eq!(shown["execution"], json!(execution), "{shown:#}");
        let measured = &shown["measured"];
        assert_eq!((&measured["execution"], &measured["frames"]), (&json!(execution), &json!(50)), "{measured:#}");
        let [mean, most] = ["mean_deviation", "max_deviation"].map(|key| measured[key].as_f64().unwrap());
        // The model's numbers are pixels up to 320: f32 differs by rounding alone, bf16 in the third digit.
        let bounds = if precision == Precision::F32 { 1e-3..=1e-2 } else { 1e-3..=8.0 };
        assert!(
            mean <= most && most <= *bounds.end() && (precision == Precision::F32 || most > *bounds.start()),
            "{measured:#}"
        );
    }
    // Measured once: each precision, however many scenarios ask.
    let again = platform.post_scenario(&with(demo_scenario(), "openvino", "f32"));
    platform.completed(&again, FRAMES);
    let measurements = platform.log().matches("measured execution=openvino in f32").count();
    assert_eq!(measurements, 1, "{}", platform.log());
}

#[test]
fn a_stream_goes_on_with_what_ran_it_whatever_the_runner_is_set_to() {
    let openvino = openvino();
    let mut platform = Platform::with_demo(&patient(&["--onnxruntime-openvino", &openvino, "--provider", "openvino"]));
    let id = platform.post_scenario(&slow_scenario(10));
    platform.wait_for_row(&id, 50);
    platform.signal_workers(Signal::KILL);
    platform.wait_for_row(&id, 120);
    platform.kill();
    platform.set(&patient(&["--onnxruntime-openvino", &openvino, "--provider", "cpu"]));
    platform.up();
    let other = platform.post_scenario(&slow_scenario(1));
    assert_eq!(executions(&platform.completed(&other, FRAMES)), [Execution::default()]);
    assert_eq!(executions(&platform.completed(&id, FRAMES)), [F32]);
}

#[test]
fn a_stream_waits_where_what_ran_it_is_missing() {
    let openvino = openvino();
    let mut platform = Platform::with_demo(&patient(&["--onnxruntime-openvino", &openvino]));
    let id = platform.post_scenario(&with(slow_scenario(10), "openvino", "f32"));
    platform.wait_for_row(&id, 20);
    platform.kill();
    // Beside the executable there may be one, too.
    platform.set(&patient(&["--provider-option", "openvino.device_type=GPU", "--onnxruntime-openvino", &openvino]));
    platform.up();
    let waits = platform.wait_for_scenario(&id, "to wait", |scenario| scenario["reason"]["code"] == "no_capacity");
    assert_eq!(waits["state"], "pending");
    let message = waits["reason"]["message"].as_str().unwrap();
    assert!(
        message.contains("no runner has `provider.openvino.f32=true`") && message.contains("GET /runner"),
        "{message}"
    );
    let runner = &platform.read("/runner")["items"][0];
    assert!(runner["providers"][1]["why"].as_str().unwrap().contains("Failed to load provider"), "{runner:#}");
    platform.interrupt();
    platform.set(&patient(&["--onnxruntime-openvino", &openvino]));
    platform.up();
    assert_eq!(executions(&platform.completed(&id, FRAMES)), [F32]);
}

#[test]
fn what_is_missing_is_refused_with_a_reason_or_fallen_back_from() {
    let platform = Platform::with_demo(&patient(&[
        "--onnxruntime-openvino",
        &openvino(),
        "--provider-option",
        "openvino.device_type=GPU",
    ]));
    for provider in ["openvino", "cuda", "tensorrt"] {
        let id = platform.post_scenario(&with(demo_scenario(), provider, "f32"));
        let waits = platform.wait_for_scenario(&id, "to wait", |scenario| scenario["reason"]["code"] == "no_capacity");
        let message = waits["reason"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("no runner has `provider.{provider}.f32=true`")), "{message}");
    }
    let mut fallback = with(demo_scenario(), "openvino", "bf16");
    fallback["provider_fallback"] = json!(true);
    let rows = platform.completed(&platform.post_scenario(&fallback), FRAMES);
    assert_eq!(executions(&rows), [Execution::default()]);

    let answer = platform.post_json("/scenario/init", &with(demo_scenario(), "cpu", "bf16"));
    assert_eq!((answer.status, answer.body["field"].as_str()), (422, Some("precision")), "{:#}", answer.body);
    assert!(answer.body["detail"].as_str().unwrap().contains("`cpu` runs models in f32 only"), "{:#}", answer.body);

    for (field, value, words) in [
        ("precision", "int8", "upload it quantised"),
        ("precision", "f64", "it is `f32`, `bf16` or `f16`"),
        ("provider", "gpu", "`cuda`"),
    ] {
        let mut scenario = demo_scenario();
        scenario[field] = json!(value);
        let answer = platform.post_json("/scenario/init", &scenario);
        assert_eq!(answer.status, 422);
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{:#}", answer.body);
    }
}

#[test]
fn a_runner_that_is_set_to_what_it_lacks_does_not_start() {
    for (arguments, words) in [
        (
            vec!["--provider", "cuda"],
            "set to the provider `cuda` in f32, and the provider `cuda` cannot be used here: ",
        ),
        (
            vec!["--provider", "cpu", "--precision", "bf16"],
            "the provider `cpu` does not run models in bf16 on this machine",
        ),
        (vec!["--provider", "gpu"], "it must be auto, cpu, openvino, cuda or tensorrt"),
        (vec!["--precision", "int8"], "upload it quantised"),
        (vec!["--provider-option", "cuda"], "it must be PROVIDER.KEY=VALUE"),
        (vec!["--onnxruntime-gpu", "/nowhere/lib.so"], "is not at /nowhere/lib.so"),
    ] {
        let said = refusal(&arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
