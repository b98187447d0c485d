//! The stock plugins keep to the contract, and so do those of the release before; what does not is told.

use framehook_core::job::HookJob;
use framehook_engine::conformance::{self, Check, ModelOutput, Subject, Verdict};
use serde_json::{Value, json};

use crate::support::{job, job_0_1};

fn checks(job: HookJob, outputs: Vec<ModelOutput>) -> Vec<Check> {
    let HookJob { compiled, digest, config, .. } = job;
    let config = (!config.is_null()).then_some(config);
    conformance::run(&Subject { compiled, digest, config, outputs }).unwrap()
}

fn failures(checks: &[Check]) -> Vec<(&str, &str)> {
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail);
    failed.map(|check| (check.name.as_str(), check.message.as_str())).collect()
}

/// The names of those that were not tried.
fn skipped(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|check| check.verdict == Verdict::Skip).map(|check| check.name.as_str()).collect()
}

const PRE: [&str; 3] = ["postprocess", "damaged", "skipped"];
const POST: [&str; 2] = ["preprocess", "skipped"];
const CURIOUS: [&str; 1] = ["preprocess"];

#[test]
fn stock_plugins_keep_to_the_contract() {
    let door = json!([[0, 0], [0.5, 0], [0.5, 1], [0, 1]]);
    for (name, config, not_tried) in [
        ("yolo", Value::Null, &POST[..]),
        ("boxes-scores", json!({"format": "xyxy", "units": "normalised"}), &POST),
        ("detr", Value::Null, &POST),
        ("classify", Value::Null, &POST),
        ("classify-objects", json!({"model": "synthetic"}), &POST),
        ("centerface", Value::Null, &POST),
        ("text-db", Value::Null, &POST),
        ("tracker", json!({"fill_skipped": true}), &CURIOUS),
        ("zones", json!({"zones": {"door": {"polygon": door}}}), &POST),
        ("line-counter", json!({"line": [[0.5, 0], [0.5, 1]]}), &POST),
        ("privacy-blur", json!({"labels": ["person"]}), &CURIOUS),
        ("motion-gate", Value::Null, &PRE),
        ("roi", json!({"region": [0.25, 0.25, 0.5, 0.5], "fps": 10}), &PRE),
    ] {
        let checks = checks(job(name, config), Vec::new());
        checks.iter().for_each(|check| println!("{name}: {check:?}"));
        assert_eq!(failures(&checks), [], "{name}");
        assert_eq!(skipped(&checks), not_tried, "{name}: {checks:?}");
    }
}

#[test]
fn plugins_of_the_contract_0_1_0_keep_to_it() {
    for (name, config, not_tried) in [
        ("yolo", Value::Null, &POST[..]),
        // Its host lost what it kept.
        ("line-counter", json!({"line": [[0.5, 0], [0.5, 1]]}), &["preprocess", "skipped", "state"]),
        ("motion-gate", Value::Null, &PRE),
    ] {
        let checks = checks(job_0_1(name, config), Vec::new());
        checks.iter().for_each(|check| println!("{name}: {check:?}"));
        assert_eq!(failures(&checks), [], "{name}");
        assert_eq!(skipped(&checks), not_tried, "{name}: {checks:?}");
    }
}
