//! Plugins that misbehave: the scenario says so, others go on, nothing dies.

use std::collections::BTreeMap;

use framehook_core::prediction::Prediction;
use framehook_tests::{
    DEADLINE,
    client::{light_scenario, slow_scenario},
    platform::Platform,
    wait_for,
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
        let of_list = platform.get("/scenario?limit=1000").body["items"].as_array().unwrap().clone();
        let listed = of_list.into_iter().find(|s| s["id"] == *bad).unwrap();
        for reason in [&lines.last().unwrap()["reason"], &platform.scenario(&bad)["reason"], &listed["reason"]] {
            assert_eq!(reason["code"], "hooks_failed", "{mode}");
            let message = reason["message"].as_str().unwrap();
            let told = "hooks failed on 500 of 500 frames; the last failure: misbehave@0.1.0: ";
            assert!(message.starts_with(told) && message.ends_with("; the video came to its end"), "{mode}: {message}");
        }
        assert_eq!(platform.scenario(&good)["reason"]["code"], "end_of_stream");
        // Its worker was never restarted: the process survived its plugin.
        assert!(lines.iter().all(|l| l["to"] != "recovering"), "{mode}: {history:#}");
        assert_eq!(platform.pid(), pid);
        assert_eq!(platform.get("/readyz").status, 200);
    }
}

/// The level of each line and what it says.
fn told(log: &str) -> Vec<(String, Value)> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    lines.map(|line| (line["level"].as_str().unwrap().to_owned(), line)).collect()
}

#[test]
fn the_log_warns_of_a_failed_scenario_and_not_of_an_ordinary_restart() {
    let mut platform = Platform::with_demo(&["--log-format", "json"]);
    let id = platform.post_scenario(&with_misbehave(&json!({"mode": "trap"}), "fail_scenario"));
    platform.wait_for_state(&id, &["failed"]);
    let is_about = |(_, line): &(String, Value)| line["message"] == "scenario" && line["to"] == "failed";
    let (level, _) = wait_for("a line about it", DEADLINE, || told(&platform.log()).into_iter().find(is_about));
    assert_eq!(level, "WARN");

    let unknown = platform.get("/scenario/00000000-0000-7000-8000-000000000000").body;
    let named = |(_, line): &&(String, Value)| line["request_id"] == unknown["request_id"];
    let lines = told(&platform.log());
    let (_, line) = lines.iter().find(named).expect("the line that a problem's `request_id` names");
    assert!(line["code"] == "scenario_not_found" && line["us"].is_u64() && line["detail"].is_null(), "{line}");

    let before = platform.log().len();
    assert_eq!(platform.interrupt(), Some(0), "{}", platform.log());
    platform.up();
    let again = "runner was started again; this incarnation is over";
    wait_for("the old incarnation to end", DEADLINE, || platform.log()[before..].contains(again).then_some(()));
    let lines = told(&platform.log()[before..]);
    let loud: Vec<_> = lines.iter().filter(|(level, _)| level != "INFO").collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

/// A hiccup of a fast file costs a second of its video, the same in each run, and the rows say what it was.
#[test]
fn three_panics_cost_a_second_of_the_video() {
    let platform = Platform::with_demo(&[]);
    let run = || {
        let mut scenario = with_misbehave(&json!({"mode": "panic", "calls": [101, 103]}), "skip_frame");
        scenario["plugins"].as_object_mut().unwrap().remove("pre");
        let id = platform.post_scenario(&scenario);
        let rows = platform.completed(&id, 500);
        let reason = platform.scenario(&id)["reason"].clone();
        let message = reason["message"].as_str().unwrap();
        assert!(
            reason["code"] == "end_of_stream" && message.ends_with("; hooks failed on 27 of 500 frames"),
            "{reason}"
        );
        rows.into_iter().filter(|row| !row.hook_failures.is_empty()).collect::<Vec<_>>()
    };
    let (lost, again) = (run(), run());
    let frames = |rows: &[Prediction]| rows.iter().map(|row| row.frame).collect::<Vec<_>>();
    assert_eq!((frames(&lost), frames(&again)), ((100..127).collect(), (100..127).collect()));
    for (row, end) in
        [(&lost[0], "on purpose"), (&lost[26], "on purpose; not called for a while after repeated failures")]
    {
        let message = &row.hook_failures[0].reason.message;
        assert!(message.starts_with("misbehave@0.1.0: panicked at misbehave/src/lib.rs:"), "{message}");
        assert!(message.ends_with(&format!(": this plugin panics {end}")), "{message}");
    }
}

/// Each hook's names are those of its own detections, and what one returns that cannot be is not stored.
#[test]
fn detections_keep_their_labels_and_are_in_range() {
    let platform = Platform::with_demo(&[]);
    let labels_of = |mode: &str| {
        let mut scenario = light_scenario();
        let hook = json!({"use": "misbehave", "config": {"mode": mode}});
        scenario["plugins"]["post"].as_array_mut().unwrap().push(hook);
        let rows = platform.completed(&platform.post_scenario(&scenario), 500);
        let mut labels = BTreeMap::new();
        for detection in rows.iter().flat_map(|row| &row.detections) {
            *labels.entry(detection.label.clone().unwrap()).or_insert(0) += 1;
            let [x, y, width, height] = detection.bbox;
            let ends = [x + width, y + height].map(|end| end <= 1.0 + f32::EPSILON);
            assert!(x >= 0.0 && y >= 0.0 && width > 0.0 && height > 0.0 && ends == [true; 2], "{detection:?}");
            assert!((0.0..=1.0).contains(&detection.score), "{detection:?}");
        }
        assert!(rows.iter().all(|row| row.hook_failures.is_empty()));
        (labels, rows)
    };
    let alone = platform.completed(&platform.post_scenario(&light_scenario()), 500);
    let count = |label: &str| {
        alone.iter().flat_map(|row| &row.detections).filter(|d| d.label.as_deref() == Some(label)).count()
    };
    let (labels, _) = labels_of("none");
    for label in ["person", "car", "truck"] {
        assert_eq!(labels.get(label).copied().unwrap_or(0), count(label), "{label}");
    }
    assert!(labels["one"] == 500 && count("car") > 0, "{labels:?}");

    let (labels, rows) = labels_of("out-of-range");
    assert_eq!(labels, BTreeMap::from([("one".to_owned(), 1500)]));
    for row in &rows {
        // Another hook has events, too.
        let about = |kind| row.events.iter().find(|e| e.kind == kind).map(|e| e.subjects.as_slice());
        assert_eq!((about("mixed"), about("dropped")), (Some(&[0, 2][..]), Some(&[][..])), "{row:?}");
    }
    let log = platform.log();
    assert!(log.contains("detections out of range so far: 2 were cut") && log.contains(" 500 were dropped"), "{log}");
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

/// The counter stands before the hook that makes detections, and a third keeps metrics.
#[test]
fn a_scenario_gives_its_hooks_more_time_within_the_operators_ceiling() {
    let platform = Platform::with_demo(&["--max-hook-call-ms", "400"]);
    let mut scenario = light_scenario();
    scenario["frames"] = json!({"every": 100});
    // Longer than the 20 ms that hooks have otherwise.
    scenario["plugins"]["post"] = json!([{"use": "misbehave", "config": {"mode": "none", "delay_ms": 200}}]);
    let failed = |scenario: &Value| {
        let id = platform.post_scenario(scenario);
        platform.wait_for_state(&id, &["completed"]);
        let rows = platform.predictions(&id);
        assert_eq!(rows.len(), 5);
        rows.iter().filter(|row| !row.hook_failures.is_empty()).count()
    };
    assert_eq!(failed(&scenario), 5);
    scenario["limits"] = json!({"hook_call_ms": 400, "hook_memory_mib": 32});
    assert_eq!(failed(&scenario), 0);
    scenario["limits"] = json!({"hook_call_ms": 401, "hook_memory_mib": 300});
    let refused = platform.post_json("/scenario/init", &scenario);
    assert_eq!(refused.status, 422, "{:#}", refused.body);
    let told: Vec<_> = refused.body["errors"].as_array().unwrap().iter().map(|e| e["message"].clone()).collect();
    assert_eq!(
        told,
        [
            "`hook_call_ms` is 401; it is 1 to 400 ms here (`max_hook_call_ms`)",
            "`hook_memory_mib` is 300; it is 1 to 256 MiB here (`max_hook_memory_mib`)"
        ]
    );
}

#[test]
fn a_client_sees_what_hooks_do_and_what_is_likely_not_meant() {
    let platform = Platform::with_demo(&[]);
    let mut scenario = light_scenario();
    let post = scenario["plugins"]["post"].as_array_mut().unwrap();
    post.reverse();
    post.push(json!({"use": "misbehave", "config": {"mode": "measure"}}));
    let id = platform.post_scenario(&scenario);
    let made: usize = platform.completed(&id, 500).iter().map(|row| row.detections.len()).sum();
    let told = platform.read(&format!("/scenario/{id}/plugins"));
    assert_eq!(told["generation"], 1);
    let hooks = told["hooks"].as_array().unwrap();
    let count = |at: usize, key: &str| hooks[at][key].as_u64().unwrap_or_else(|| panic!("{key}: {told:#}"));
    let names: Vec<_> = hooks.iter().map(|hook| hook["plugin"].as_str().unwrap()).collect();
    assert_eq!(names, ["line-counter@0.1.0", "yolo@0.1.0", "misbehave@0.1.0"]);
    assert!((0..3).all(|at| count(at, "calls") == 500 && count(at, "instances") == 1), "{told:#}");
    assert!(made > 0 && count(1, "detections_out") == made as u64 && count(2, "detections_in") == made as u64);
    assert!(count(1, "p99_us") >= count(1, "p50_us") && count(1, "memory_bytes") > 0, "{told:#}");
    let metrics = &hooks[2]["metrics"];
    assert_eq!((&metrics["calls"], &metrics["level"]), (&json!({"counter": 500}), &json!({"gauge": 2.5})));
    assert_eq!(metrics["took_seconds"]["histogram"]["sum"], 125.0);

    let hints = platform.scenario(&id)["hints"].clone();
    let [hint] = &hints.as_array().unwrap()[..] else { panic!("{hints:#}") };
    let words = "if line-counter@0.1.0 works on them, list it behind yolo@0.1.0";
    assert!(hint["code"] == "hook_before_detector" && hint["message"].as_str().unwrap().contains(words), "{hint}");

    let shown = platform.get("/metrics").body.as_str().unwrap().to_owned();
    let of = |plugin: &str| format!("{{plugin=\"{plugin}\",version=\"0.1.0\",stage=\"post\"");
    for line in [
        format!("framehook_plugin_calls_total{}}} 500", of("yolo")),
        format!("framehook_plugin_detections_out_total{}}} {made}", of("yolo")),
        format!("framehook_plugin_metric_total{},metric=\"calls\"}} 500", of("misbehave")),
        format!("framehook_plugin_metric_histogram_count{},metric=\"took_seconds\"}} 500", of("misbehave")),
    ] {
        assert!(shown.contains(&format!("{line}\n")), "{line} is not in\n{shown}");
    }
    assert_eq!(platform.log().matches("hook ended").count(), 3, "{}", platform.log());
}

/// What runs beside a neighbour: each in another way without end, or too much.
const HOSTILE: [&str; 6] = ["loop", "allocate", "recurse", "handle-flood", "flood-log", "large-prediction"];

#[test]
fn a_neighbour_of_hostile_plugins_has_the_rows_of_a_run_alone() {
    let platform = Platform::with_demo(&["--max-workers", "8"]);
    let rows = |id: &str| {
        let rows = platform.completed(id, 500).into_iter();
        rows.map(|row| (row.frame, row.pts_us, row.detections, row.events, row.skipped)).collect::<Vec<_>>()
    };
    let alone = rows(&platform.post_scenario(&light_scenario()));
    let hostile = HOSTILE.map(|mode| {
        let id = platform.post_scenario(&with_misbehave(&json!({"mode": mode}), "skip_frame"));
        platform.wait_for_row(&id, 0);
        id
    });
    let beside = rows(&platform.post_scenario(&light_scenario()));
    assert!(alone == beside, "a row differs");
    for (id, mode) in hostile.iter().zip(HOSTILE) {
        let state = platform.scenario(id)["state"].clone();
        assert!(["running", "degraded", "completed"].iter().any(|fine| state == *fine), "{mode}: {state}");
    }
    // None of their workers ended before its time.
    assert_eq!(platform.log().matches("recovering").count(), 0, "{}", platform.log());
}
