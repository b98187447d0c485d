//! Bytes are counted, not items: what a scenario may store and log, and what a page may hold.

use std::time::Instant;

use framehook_tests::{
    client::{Client, light_scenario},
    platform::{Platform, patient},
};
use serde_json::{Value, json};

/// The demo with this many misbehaving hooks behind its own.
fn with_misbehave(mode: &str, hooks: usize, on_failure: &str) -> Value {
    let mut scenario = light_scenario();
    scenario["on_plugin_failure"] = json!(on_failure);
    let post = scenario["plugins"]["post"].as_array_mut().unwrap();
    post.extend((0..hooks).map(|_| json!({"use": "misbehave", "config": {"mode": mode}})));
    scenario
}

/// Every frame has its row, which says what is missing in it, by which hook and why.
#[test]
fn predictions_that_are_too_large_cost_their_hook_the_frame_and_no_more() {
    let platform = Platform::with_demo(&patient(&[]));
    for (on_failure, keeps) in [("skip_frame", false), ("raw_output", true)] {
        let id = platform.post_scenario(&with_misbehave("large-prediction", 1, on_failure));
        let neighbour = platform.post_scenario(&light_scenario());
        let rows = platform.completed(&id, 500);
        for row in &rows {
            // With the last frame comes what the hook could not say at the end.
            let failures = if row.frame == 499 { 1..=2 } else { 1..=1 };
            assert!(failures.contains(&row.hook_failures.len()), "{row:?}");
            for failure in &row.hook_failures {
                assert!(failure.plugin.starts_with("misbehave@"), "{failure:?}");
                assert!(failure.reason.message.contains("prediction_too_large"), "{failure:?}");
            }
            assert!(serde_json::to_string(row).unwrap().len() <= 256 << 10);
        }
        assert_eq!(rows.iter().any(|row| !row.detections.is_empty()), keeps, "{on_failure}");
        assert_eq!(platform.scenario(&id)["hook_failures"], 500, "and they are counted");
        assert!(platform.completed(&neighbour, 500).iter().all(|row| row.hook_failures.is_empty()));
    }
}

#[test]
fn sixteen_hooks_log_as_much_as_one() {
    let platform = Platform::with_demo(&patient(&[]));
    let began = Instant::now();
    // The demo has hooks of its own.
    let own = light_scenario()["plugins"]["post"].as_array().unwrap().len();
    let id = platform.post_scenario(&with_misbehave("flood-log", 16 - own, "skip_frame"));
    platform.completed(&id, 500);
    // A full budget and what came in, in the worker and again, at worst, in the runner.
    let most = 50 * (2 + began.elapsed().as_secs() as usize);
    let log = platform.log();
    let lines = log.lines().filter(|line| line.contains(" plugin=")).count();
    assert!(lines > 0 && lines <= most, "{lines} lines, where at most {most} are allowed");
    assert!(log.contains("lines were left out: a scenario may log 50 lines"), "nobody says what is missing");
}

#[test]
fn a_plugin_forges_no_line() {
    let platform = Platform::with_demo(&[]);
    let id = platform.post_scenario(&with_misbehave("forge-log", 1, "skip_frame"));
    platform.completed(&id, 500);
    let log = platform.log();
    assert!(log.contains("fine 2026-01-01T00:00:00Z ERROR forged"), "the line itself is there");
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01")), "a plugin wrote a line of the platform's");
    assert!(!log.contains(['\u{1b}', '\u{202e}', '\r']), "a plugin wrote what moves a cursor or turns a line");
}

/// Pages are bounded by what their items hold, and nothing is lost between them.
#[test]
fn pages_of_large_scenarios_are_cut() {
    let platform = Platform::with_demo(&["--max-page-mib", "1", "--max-config-kib", "128"]);
    let mut scenario = light_scenario();
    scenario["plugins"]["post"][0]["config"]["labels"] = json!(["x".repeat(100 << 10)]);
    let posted: Vec<_> = (0..8).map(|_| init(&platform, &scenario)).collect();
    let (mut seen, mut uri) = (Vec::new(), "/scenario?limit=1000".to_owned());
    loop {
        let page = platform.get(&uri).body;
        assert!(page.to_string().len() < 2 << 20, "{}", page.to_string().len());
        seen.extend(page["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("/scenario?limit=1000&cursor={cursor}");
    }
    seen.reverse();
    assert_eq!(seen, posted);
    scenario["plugins"]["post"][0]["config"]["labels"] = json!(["x".repeat(128 << 10)]);
    let refused = platform.post_json("/scenario/init", &scenario);
    assert_eq!((refused.status, &refused.body["field"]), (422, &json!("plugins.post[0].config")));
    assert!(refused.body["detail"].as_str().unwrap().contains("max_config_kib"), "{}", refused.body);
}

fn init(client: &Client, scenario: &Value) -> String {
    let answer = client.post_json("/scenario/init", scenario);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["id"].as_str().unwrap().to_owned()
}
