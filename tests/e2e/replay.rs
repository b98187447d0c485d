//! Recorded outputs, and scenarios that run other hooks on them.

use std::{fs, process::Command};

use framehook_core::prediction::Prediction;
use framehook_tests::{
    DEADLINE, asset,
    client::demo_scenario,
    executables,
    platform::{Platform, patient},
    plugin, wait_for,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const FRAMES: u64 = 500;

fn recording() -> Value {
    let mut scenario = demo_scenario();
    scenario["record"] = "outputs".into();
    // A tracker keeps state, and a gate skips frames.
    scenario["plugins"]["pre"] = json!([{"use": "misbehave", "config": {"mode": "skip", "every": 7}}]);
    scenario["plugins"]["post"].as_array_mut().unwrap().push(json!({"use": "tracker"}));
    scenario
}

/// What of a prediction does not depend on which scenario it is of, and how long it took.
fn said(rows: &[Prediction]) -> Vec<Value> {
    let strip = |row: &Prediction| {
        let mut row = serde_json::to_value(row).unwrap();
        for field in ["scenario_id", "generation", "timings", "provenance"] {
            row.as_object_mut().unwrap().remove(field);
        }
        row
    };
    rows.iter().map(strip).collect()
}

fn outputs(platform: &Platform, id: &str) -> Value {
    platform.read(&format!("/scenario/{id}/outputs"))
}

/// Waits until what was recorded is whole.
fn wait_for_outputs(platform: &Platform, id: &str) -> Value {
    wait_for("the recorded outputs to be whole", DEADLINE, || {
        let outputs = outputs(platform, id);
        (outputs["gaps"] == json!([]) && outputs["frames"] == FRAMES).then_some(outputs)
    })
}

fn replay(platform: &Platform, id: &str, body: &Value) -> String {
    let answer = platform.post_json(&format!("/scenario/{id}/replay"), body);
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    assert_eq!(answer.body["replay_of"], id);
    answer.body["id"].as_str().unwrap().to_owned()
}

fn comparison(platform: &Platform, id: &str) -> (Value, Vec<Value>) {
    let (mut summary, mut items, mut cursor) = (json!({}), Vec::new(), String::new());
    loop {
        let mut page = platform.read(&format!("/scenario/{id}/comparison?limit=50{cursor}"));
        for (field, value) in page["summary"].as_object().unwrap() {
            if let Some(more) = value.as_u64() {
                summary[field] = (summary[field].as_u64().unwrap_or_default() + more).into();
            }
        }
        items.append(page["items"].as_array_mut().unwrap());
        let Some(next) = page["next_cursor"].as_str() else { return (summary, items) };
        cursor = format!("&cursor={next}");
    }
}

#[test]
fn recorded_outputs_are_replayed_through_other_hooks_or_the_same() {
    let platform = Platform::with_demo(&patient(&[]));
    platform.upload("/plugin", &plugin("tracker"));
    let id = platform.post_scenario(&recording());
    // Whatever becomes of the worker, its runner goes on with the part that it has begun.
    platform.wait_for_row(&id, 200);
    platform.signal_workers(Signal::KILL);
    let original = platform.completed(&id, FRAMES);
    let recorded = wait_for_outputs(&platform, &id);
    assert!(recorded["bytes"].as_u64().unwrap() < FRAMES * 26_880, "{recorded}");

    // From outputs and from the source, the same hooks say the same, to the last bit.
    for from in ["outputs", "source"] {
        let replay = replay(&platform, &id, &json!({"from": from}));
        let rows = platform.completed(&replay, FRAMES);
        assert!(said(&rows) == said(&original), "a replay from the {from} differs");
        let (summary, items) = comparison(&platform, &replay);
        assert_eq!((summary["equal"].as_u64(), items.len()), (Some(FRAMES), 0), "{summary}");
        if from == "outputs" {
            assert!(rows.iter().all(|row| row.timings.inference_us == 0 && row.timings.decode_us == 0));
        }
    }

    // Another threshold: the differences are those between two runs that the platform knows nothing of.
    let mut stricter = recording();
    let post = &mut stricter["plugins"]["post"];
    post[0]["config"]["min_score"] = 0.6.into();
    let post = post.clone();
    stricter["record"] = "none".into();
    let other = platform.post_scenario(&stricter);
    let other = platform.completed(&other, FRAMES);
    let replayed = replay(&platform, &id, &json!({"plugins": {"post": post}}));
    let rows = platform.completed(&replayed, FRAMES);
    assert_eq!(platform.scenario(&replayed)["resolved"]["replay"]["from"], "outputs");
    assert!(said(&rows) != said(&original));
    for (row, expected) in rows.iter().zip(&other) {
        assert_eq!(
            (&row.detections, &row.events, &row.skipped),
            (&expected.detections, &expected.events, &expected.skipped)
        );
    }
    let (summary, items) = comparison(&platform, &replayed);
    let differ = |(a, b): (&Prediction, &Prediction)| (a.detections.len() != b.detections.len()).then_some(a.frame);
    let expected: Vec<_> = original.iter().zip(&other).filter_map(differ).collect();
    let found = items.iter().filter(|item| item["counts"]["missing"].as_u64() > item["counts"]["added"].as_u64());
    assert_eq!(found.map(|item| item["frame"].as_u64().unwrap()).collect::<Vec<_>>(), expected);
    assert!(summary["different"].as_u64().unwrap() >= expected.len() as u64 && expected.len() > 50, "{summary}");

    // What needs more than outputs is refused early.
    for (body, words) in [
        (json!({"from": "outputs", "plugins": {"pre": []}}), "behind the pre hooks"),
        (json!({"from": "outputs", "plugins": {"post": [{"use": "nobody"}]}}), "there is no plugin `nobody`"),
    ] {
        let answer = platform.post_json(&format!("/scenario/{id}/replay"), &body);
        assert_eq!(answer.status, 422);
        assert!(answer.body["detail"].as_str().unwrap().contains(words), "{:#}", answer.body);
    }
    let answer = platform.post_json(&format!("/scenario/{replayed}/replay"), &json!({}));
    assert!(answer.body["detail"].as_str().unwrap().contains("is a replay itself"), "{:#}", answer.body);

    of_the_command_line(&platform, &id);

    // Nothing is left of what nobody can read any more.
    let blobs = || walk(&platform.data().join("blobs/sha256"));
    let before = blobs();
    for id in [&replayed, &id] {
        assert_eq!(platform.delete(&format!("/scenario/{id}")).status, 204);
    }
    let rest: Vec<_> = platform.read("/scenario?limit=1000")["items"].as_array().unwrap().clone();
    for scenario in rest.iter().filter(|scenario| scenario["replay_of"] == *id) {
        assert_eq!(platform.delete(&format!("/scenario/{}", scenario["id"].as_str().unwrap())).status, 204);
    }
    wait_for("the blobs of the recorded outputs to go", DEADLINE, || (blobs() < before).then_some(()));
}

fn walk(folder: &std::path::Path) -> usize {
    let folders = fs::read_dir(folder).unwrap();
    folders.map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
}

fn of_the_command_line(platform: &Platform, id: &str) {
    let run = |more: &[&str]| {
        let mut command = Command::new(executables().join("framehook"));
        command.args(["replay", id, "--api", platform.url()]).args(more);
        let output = command.output().unwrap();
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        (output.status.code(), out, err)
    };
    let yolo = plugin("yolo").display().to_string();
    let (code, out, err) = run(&["--plugin", &yolo]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("500 compared: 500 equal, 0 different"), "{out}");
    let folder = tempfile::tempdir().unwrap();
    let (json, video) = (folder.path().join("all.ndjson"), folder.path().join("both.mp4"));
    let clip = asset("demo1.mp4").display().to_string();
    let config = r#"{"labels": ["person", "car", "truck"], "min_score": 0.6}"#;
    let files = ["--json", &json.display().to_string(), "--video", &video.display().to_string(), "--source", &clip];
    let (code, out, err) = run(&[&["--plugin", &yolo, "--config", config, "--show", "3"][..], &files].concat());
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("missing") && out.matches("\nframe ").count() == 3 && out.contains("more frames"), "{out}");
    let lines = fs::read_to_string(&json).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["summary"]["different"], lines.lines().count() as u64 - 1);
    assert!(fs::metadata(&video).unwrap().len() > 100_000);
    let (code, _, err) = run(&["--plugin", "no-such-file.wasm"]);
    assert_eq!(code, Some(2), "{err}");
}

#[test]
fn what_a_killed_platform_had_not_stored_is_a_gap_and_the_oldest_parts_go() {
    // Those of some 250 frames: the newest two of three parts.
    let mut platform = Platform::with_demo(&patient(&["--max-outputs-mib", "6"]));
    let mut scenario = recording();
    scenario["plugins"]["pre"] = json!([{"use": "misbehave", "config": {"mode": "none", "delay_ms": 3}}]);
    platform.upload("/plugin", &plugin("tracker"));
    let id = platform.post_scenario(&scenario);
    platform.wait_for_row(&id, 60);
    platform.kill();
    platform.up();
    platform.completed(&id, FRAMES);
    let recorded = wait_for("the end of the outputs", DEADLINE, || {
        let outputs = outputs(&platform, &id);
        (outputs["last"]["frame"] == FRAMES - 1).then_some(outputs)
    });
    let gaps = recorded["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{recorded}");
    // What was lost with the platform is as one with what was given up behind it.
    assert!(gaps[0].get("after").is_none() && gaps[0]["last"]["frame"].as_u64().unwrap() >= 200, "{recorded}");
    assert_eq!(gaps[0]["last"]["frame"].as_u64().unwrap() + 1, recorded["first"]["frame"].as_u64().unwrap());
    assert_eq!(recorded["frames"].as_u64().unwrap() + recorded["first"]["frame"].as_u64().unwrap(), FRAMES);
    assert!(recorded["bytes"].as_u64().unwrap() <= 6 << 20, "{recorded}");

    // What is not whole is not taken unless somebody asks for it.
    let replayed = replay(&platform, &id, &json!({}));
    assert_eq!(platform.scenario(&replayed)["resolved"]["replay"]["from"], "source");
    let replayed = replay(&platform, &id, &json!({"from": "outputs"}));
    platform.wait_for_state(&replayed, &["completed"]);
    let (summary, _) = comparison(&platform, &replayed);
    assert_eq!(summary["only_before"], recorded["first"]["frame"], "{summary}");
}
