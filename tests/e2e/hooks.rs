//! Plugins that misbehave: the scenario says so, others go on, nothing dies.

use framehook_tests::{
    client::{light_scenario, slow_scenario},
    platform::Platform,
};
use serde_json::{Value, json};

fn with_misbehave(config: &Value, on_failure: &str) -> Value {
    let mut scenario = slow_scenario(FRAME_MS);
    scenario["on_plugin_failure"] = json!(on_failure);
    scenario["plugins"]["post"].as_array_mut().unwrap().push(json!({"use": "misbehave", "config": config}));
    scenario
}

/// So that what it is called meanwhile is seen.
const FRAME_MS: u64 = 5;

/// How a plugin misbehaves, and what is said of it.
const MODES: [(&str, &str); 4] =
    [("trap", "plugin_trap"), ("loop", "plugin_timeout"), ("allocate", "plugin_trap"), ("bad-input", "plugin_error")];

#[test]
fn a_plugin_that_misbehaves_degrades_its_scenario_and_no_other() {
    let platform = Platform::with_demo(&[]);
    for (mode, code) in MODES {
        let pid = platform.pid();
        let bad = platform.post_scenario(&with_misbehave(&json!({"mode": mode}), "skip_frame"));
        let good = platform.post_scenario(&light_scenario());
        let good_rows = platform.completed(&good, 500);
        assert!(good_rows.iter().all(|r| r.hook_failures.is_empty()));
        let bad_rows = platform.completed(&bad, 500);
        assert!(bad_rows.iter().all(|r| r.skipped.is_some() && r.detections.is_empty()), "{mode}");
        assert!(bad_rows.iter().all(|r| !r.hook_failures.is_empty()), "{mode}");
        let codes: Vec<_> =
            bad_rows.iter().map(|r| serde_json::to_value(r.hook_failures[0].reason.code).unwrap()).collect();
        assert!(codes.iter().all(|c| c == code), "{mode}: {:?}", codes[0]);
        let history = platform.get(&format!("/scenario/{bad}/history?limit=100")).body;
        let lines = history["items"].as_array().unwrap();
        let degraded = lines.iter().find(|l| l["to"] == "degraded").unwrap_or_else(|| panic!("{mode}: {history:#}"));
        assert_eq!(degraded["reason"]["code"], code, "{mode}");
        assert!(degraded["reason"]["message"].as_str().unwrap().contains("misbehave"), "{degraded}");
        let last = lines.last().unwrap()["reason"]["message"].as_str().unwrap();
        assert!(last.contains("hooks failed on 500 of 500 frames"), "{mode}: {last}");
        // Its worker was never restarted: the process survived its plugin.
        assert!(lines.iter().all(|l| l["to"] != "recovering"), "{mode}: {history:#}");
        assert_eq!(platform.pid(), pid);
        assert_eq!(platform.get("/readyz").status, 200);
    }
}

#[test]
fn raw_output_keeps_what_the_others_found() {
    let platform = Platform::with_demo(&[]);
    let id = platform.post_scenario(&with_misbehave(&json!({"mode": "trap"}), "raw_output"));
    let rows = platform.completed(&id, 500);
    assert!(rows.iter().all(|r| r.skipped.is_none() && !r.hook_failures.is_empty()));
    assert!(rows.iter().any(|r| !r.detections.is_empty()));
}

#[test]
fn fail_scenario_fails_it_and_it_stays_readable() {
    let mut platform = Platform::with_demo(&[]);
    let id = platform.post_scenario(&with_misbehave(&json!({"mode": "trap"}), "fail_scenario"));
    let failed = platform.wait_for_state(&id, &["failed"]);
    assert_eq!(failed["reason"]["code"], "plugin_trap");
    platform.kill();
    platform.up();
    let failed = platform.scenario(&id);
    assert_eq!((failed["state"].as_str(), failed["reason"]["code"].as_str()), (Some("failed"), Some("plugin_trap")));
}
