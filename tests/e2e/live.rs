//! Settings that change while a scenario runs: between two frames, and back if the new ones fail.

use std::{fs, process::Command};

use framehook_core::{invariants, prediction::Prediction};
use framehook_tests::{
    DEADLINE,
    client::slow_scenario,
    platform::{Platform, patient},
    plugin, root, wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// So that what happens meanwhile is seen.
const FRAME_MS: u64 = 5;

/// The post hooks of the slow scenario, with another threshold: it finds the same.
fn post(min_score: f64) -> Vec<Value> {
    let line = json!([[0.5, 0.0], [0.5, 1.0]]);
    let labels = ["person", "car", "truck"];
    vec![
        json!({"use": "yolo", "config": {"labels": labels, "min_score": min_score}}),
        json!({"use": "line-counter", "config": {"line": line}}),
    ]
}

fn with_hooks(post: &[Value]) -> Value {
    json!({"plugins": {"post": post}})
}

/// Changes a scenario from the revision that it has; gives the new one.
fn change(platform: &Platform, id: &str, patch: &Value) -> i64 {
    let revision = platform.scenario(id)["revision"].as_i64().unwrap();
    let answer = platform.patch(&format!("/scenario/{id}"), Some(&format!("\"{revision}\"")), patch);
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    answer.body["revision"].as_i64().unwrap()
}

fn runs(platform: &Platform, id: &str, revision: i64) {
    platform.wait_for_scenario(id, &format!("at revision {revision}"), |s| s["running_revision"] == revision);
}

fn revisions(platform: &Platform, id: &str) -> Vec<Value> {
    platform.read(&format!("/scenario/{id}/revisions?limit=1000"))["items"].as_array().unwrap().clone()
}

fn states(platform: &Platform, id: &str) -> Vec<String> {
    revisions(platform, id).iter().map(|revision| revision["state"].as_str().unwrap().to_owned()).collect()
}

/// The first frame of a revision, by the rows.
fn first_of(rows: &[Prediction], revision: i64) -> u64 {
    rows.iter().find(|row| row.provenance.revision == revision).unwrap_or_else(|| panic!("no row of {revision}")).frame
}

#[test]
fn hooks_change_between_two_frames_and_know_what_those_before_knew() {
    let platform = Platform::with_demo(&patient(&[]));
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    let undisturbed = platform.completed(&id, 500);
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    platform.wait_for_row(&id, 50);
    let second = change(&platform, &id, &with_hooks(&post(0.050_001)));
    runs(&platform, &id, second);
    // Only the number is another.
    let third = change(&platform, &id, &json!({"labels": {"team": "traffic"}}));
    runs(&platform, &id, third);
    let rows = platform.completed(&id, 500);
    assert_eq!((second, third), (2, 3));
    assert!(rows.is_sorted_by_key(|row| row.provenance.revision));
    for (row, expected) in rows.iter().zip(&undisturbed) {
        assert_eq!((&row.detections, &row.events), (&expected.detections, &expected.events), "frame {}", row.frame);
    }
    let all = revisions(&platform, &id);
    assert_eq!(states(&platform, &id), ["superseded", "superseded", "active"]);
    for (revision, entry) in (2..).zip(&all[1..]) {
        assert_eq!(entry["from_frame"], first_of(&rows, revision), "{entry:#}");
    }
    assert_eq!(all[1]["post"][0]["config"]["min_score"], 0.050_001);
    assert_eq!(all[2]["spec"]["labels"]["team"], "traffic");
    let history = platform.read(&format!("/scenario/{id}/history?limit=100"));
    let lines = history["items"].as_array().unwrap();
    let told: Vec<_> = lines.iter().filter(|line| line["reason"]["code"] == "revised").collect();
    assert_eq!(told[0]["reason"]["message"], "revision 2: plugins");
    assert_eq!(told.len(), 2);
    assert!(lines.iter().all(|line| line["to"] != "recovering"), "the worker stayed: {history:#}");
    let late = platform.patch(&format!("/scenario/{id}"), Some("*"), &json!({"labels": {"team": "none"}}));
    assert_eq!((late.status, &late.body["code"]), (409, &json!("scenario_ended")));
}

#[test]
fn what_fails_is_rolled_back_and_what_cannot_change_is_refused() {
    let platform = Platform::with_demo(&patient(&[]));
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    platform.wait_for_row(&id, 20);
    let path = format!("/scenario/{id}");
    let refused = |revision: Option<&str>, patch: Value| {
        let answer = platform.patch(&path, revision, &patch);
        (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned(), answer.body["field"].clone())
    };
    let labels = json!({"labels": {"a": "b"}});
    let code = |(status, code, _): (u16, String, Value)| (status, code);
    assert_eq!(code(refused(None, labels.clone())), (428, "precondition_required".into()));
    assert_eq!(code(refused(Some("\"7\""), labels)), (412, "revision_conflict".into()));
    let model = refused(Some("\"1\""), json!({"model": "street@1"}));
    assert_eq!(model, (422, "not_changeable".into(), json!("model")));
    let config = refused(Some("\"1\""), with_hooks(&[json!({"use": "yolo", "config": {"min_score": 7}})]));
    assert_eq!(code(config), (422, "invalid_plugin_config".into()));
    assert_eq!(platform.scenario(&id)["revision"], 1);

    let before = platform.scenario(&id)["spec"].clone();
    let mut failing = post(0.05);
    failing.push(json!({"use": "misbehave", "config": {"mode": "trap"}}));
    assert_eq!(change(&platform, &id, &with_hooks(&failing)), 2);
    platform.wait_for_scenario(&id, "as before", |s| s["revision"] == 1 && s["running_revision"] == 1);
    assert_eq!(platform.scenario(&id)["spec"], before);
    // Its number is not given again.
    assert_eq!(change(&platform, &id, &with_hooks(&post(0.050_001))), 3);
    let rows = platform.completed(&id, 500);
    let failed: Vec<_> = rows.iter().filter(|row| row.provenance.revision == 2).collect();
    assert!((3..20).contains(&failed.len()), "{} frames", failed.len());
    assert!(failed.iter().all(|row| row.skipped.is_some() && !row.hook_failures.is_empty()));
    assert!(rows.iter().all(|row| row.provenance.revision == 2 || row.hook_failures.is_empty()));
    let all = revisions(&platform, &id);
    assert_eq!((&all[1]["state"], &all[1]["reason"]["code"]), (&json!("rolled_back"), &json!("plugin_trap")));
    let message = all[1]["reason"]["message"].as_str().unwrap();
    assert!(message.starts_with("hooks failed on 3 frames in a row"), "{message}");
    assert_eq!(states(&platform, &id), ["superseded", "rolled_back", "active"]);
}

#[test]
fn a_plugin_in_development_is_replaced_while_it_runs() {
    let platform = Platform::with_demo(&patient(&[]));
    let mut wasm = fs::read(plugin("line-counter")).unwrap();
    let upload = |wasm: &[u8]| platform.post("/plugin?version=dev", "application/octet-stream", wasm);
    assert_eq!(upload(&wasm).body["version"], "dev");
    let mut scenario = slow_scenario(FRAME_MS);
    scenario["plugins"]["post"][1]["use"] = json!("line-counter@dev");
    let id = platform.post_scenario(&scenario);
    platform.wait_for_row(&id, 20);
    // A section that nobody reads makes another component of it.
    wasm.extend([0, 3, 1, b'x', 0]);
    let second = upload(&wasm);
    assert_eq!(second.status, 201, "{:#}", second.body);
    runs(&platform, &id, 2);
    let resolved = platform.scenario(&id)["resolved"]["post"][1].clone();
    assert_eq!((&resolved["version"], &resolved["digest"]), (&json!("dev"), &second.body["digest"]));
    let rows = platform.completed(&id, 500);
    let last = serde_json::to_value(rows.last().unwrap().provenance.plugins.last()).unwrap();
    assert_eq!((&last["version"], &last["digest"]), (&json!("dev"), &second.body["digest"]));
    // A name alone never means it.
    let answer = platform.post_json("/scenario/check", &slow_scenario(FRAME_MS));
    assert_eq!(answer.body["resolved"]["post"][1]["version"], "0.1.0");
    let answer = platform.post("/plugin?version=2", "application/octet-stream", &wasm);
    assert_eq!((answer.status, &answer.body["field"]), (400, &json!("version")));
}

/// How often settings change; `make swaps` has more.
fn swaps() -> usize {
    std::env::var("FRAMEHOOK_SWAPS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// Memory of a worker, in MiB.
fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or_default() >> 10
}

/// What a worker may grow by: allocators keep some of what was freed.
const GROWTH_MIB: u64 = 48;

#[test]
fn many_changes_lose_no_frame_and_no_memory() {
    let platform = Platform::with_demo(&patient(&[]));
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("long.mp4");
    let mut ffmpeg = Command::new("ffmpeg");
    // More than all changes take: the scenario is stopped.
    ffmpeg.args(["-v", "error", "-stream_loop", &(swaps() * 2).to_string(), "-i"]).arg(root().join("assets/demo1.mp4"));
    assert!(ffmpeg.args(["-c", "copy"]).arg(&clip).status().unwrap().success());
    platform.upload("/video?name=long&version=1", &clip);
    let mut scenario = slow_scenario(FRAME_MS);
    scenario["source"] = json!({"video": "long@1"});
    let id = platform.post_scenario(&scenario);
    platform.wait_for_row(&id, 10);
    let mut settled = 0;
    let newest = i64::try_from(swaps()).unwrap() + 1;
    for revision in 2..=newest {
        let n = revision - 1;
        assert_eq!(change(&platform, &id, &with_hooks(&post(0.05 + n as f64 * 1e-6))), revision);
        if n % 10 == 9 {
            // Whatever the change has come to.
            platform.signal_workers(Signal::KILL);
        }
        runs(&platform, &id, revision);
        let resident = platform.workers().first().map_or(0, |pid| resident_mib(*pid));
        match n % 10 {
            2 => settled = resident,
            8 => assert!(resident <= settled + GROWTH_MIB, "from {settled} to {resident} MiB"),
            _ => {}
        }
    }
    assert_eq!(platform.post_json(&format!("/scenario/{id}/stop"), &json!({})).status, 200);
    platform.wait_for_state(&id, &["stopped"]);
    let rows = platform.predictions(&id);
    invariants::every_frame_once(&rows, rows.len() as u64).unwrap();
    assert!(rows.is_sorted_by_key(|row| row.provenance.revision));
    assert!((1..=newest).all(|revision| first_of(&rows, revision) < rows.len() as u64));
    // What is changed at rest is there from the next start on.
    assert_eq!(change(&platform, &id, &with_hooks(&post(0.06))), newest + 1);
    assert_eq!(platform.post_json(&format!("/scenario/{id}/start"), &json!({})).status, 200);
    runs(&platform, &id, newest + 1);
    wait_for("the revision to be active", DEADLINE, || {
        (states(&platform, &id).last().unwrap() == "active").then_some(())
    });
}
