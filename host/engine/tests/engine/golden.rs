//! The golden cases of the stock plugins, under the production engine. Their own tests run the same cases
//! natively, against the same files (`plugins/golden`): so both give the same, to the last bit.

use std::{fs, path::PathBuf};

use framehook_core::prediction::Detection;
use framehook_engine::trial::{self, Trial};
use serde_json::Value;

use crate::support::job;

#[test]
fn golden_cases_are_under_the_engine_as_natively() {
    for plugin in ["yolo", "detr", "classify", "text-db"] {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins")).join(plugin);
        let mut cases = 0;
        for entry in fs::read_dir(folder.join("tests/golden")).unwrap() {
            let folder = entry.unwrap().path();
            let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
            let case: Value = serde_json::from_str(&read("case.json")).unwrap();
            let size = |of: &Value| [0, 1].map(|at| of[at].as_u64().unwrap() as u32);
            let output = |of: &Value| (of[0].as_str().unwrap().to_owned(), folder.join(of[1].as_str().unwrap()));
            let tried = trial::run(&Trial {
                is_measured: false,
                hook: job(plugin, case["config"].clone()),
                frame: size(&case["frame"]),
                input: size(&case["input"]["size"]),
                is_stretched: case["input"]["resize"] == "stretch",
                is_centered: case["input"]["anchor"] != "top_left",
                outputs: case["outputs"].as_array().unwrap().iter().map(output).collect(),
            });
            let tried = tried.unwrap();
            if std::env::var_os("FRAMEHOOK_UPDATE_GOLDEN").is_some() {
                let row = serde_json::json!({"frame": 0, "detections": tried.detections, "events": tried.events});
                fs::write(folder.join("expected.ndjson"), format!("{row}\n")).unwrap();
            }
            let expected: Value = serde_json::from_str(&read("expected.ndjson")).unwrap();
            let expected: Vec<Detection> = serde_json::from_value(expected["detections"].clone()).unwrap();
            assert_eq!((&tried.detections, tried.failures.len()), (&expected, 0), "{plugin}");
            assert!(!expected.is_empty(), "{plugin}: nothing shows nothing");
            cases += 1;
        }
        assert!(cases > 0, "{plugin}");
    }
}
