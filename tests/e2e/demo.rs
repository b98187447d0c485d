//! From a video to predictions: the main job.

use std::{collections::BTreeSet, fs};

use framehook_tests::{
    asset,
    client::{demo_scenario, slowed},
    evaluate,
    platform::{Platform, patient},
    plugin,
};
use serde_json::json;

const FRAMES: u64 = 500;
/// Some seconds a run, so that every state it passes through is noted.
const FRAME_MS: u64 = 5;

#[test]
fn every_frame_of_the_clip_comes_back_in_order_and_the_model_sees_what_is_there() {
    let platform = Platform::with_demo(&patient(&[]));
    let id = platform.post_scenario(&slowed(demo_scenario(), FRAME_MS));
    let rows = platform.completed(&id, FRAMES);

    let truth = fs::read_to_string(asset("demo1.json")).unwrap();
    let map = evaluate::map50(&rows, &truth);
    assert!(map >= 0.90, "mAP50 is {map}");

    let scenario = platform.scenario(&id);
    assert_eq!(scenario["progress"]["frames"], FRAMES);
    assert_eq!(scenario["progress"]["frames_total"], FRAMES);
    assert_eq!(scenario["progress"]["percent"], 100.0);
    assert!(scenario["fps"].as_f64().unwrap() > 1.0, "{scenario:#}");
    assert!(scenario["timings"]["inference_us"].as_u64().unwrap() > 0, "{scenario:#}");
    let steps = platform.transitions(&id);
    let states: Vec<_> = steps.iter().map(|(_, to)| to.as_str()).collect();
    assert_eq!(states, ["pending", "deploying", "running", "completed"]);
}

#[test]
fn a_prediction_says_what_produced_it() {
    let platform = Platform::with_demo(&[]);
    let id = platform.post_scenario(&demo_scenario());
    let rows = platform.completed(&id, FRAMES);

    let model = platform.get("/model/street/1").body;
    let yolo = platform.get("/plugin").body["items"].as_array().unwrap().clone();
    let yolo = yolo.iter().find(|p| p["name"] == "yolo").unwrap();
    for row in &rows {
        assert_eq!(row.provenance.model.as_str(), model["digest"]);
        assert_eq!(row.provenance.plugins.len(), 1);
        assert_eq!(row.provenance.plugins[0].digest.as_str(), yolo["digest"]);
        assert_eq!(row.provenance.revision, 1);
        for detection in &row.detections {
            let [x, y, width, height] = detection.bbox;
            assert!(x >= 0.0 && y >= 0.0 && x + width <= 1.001 && y + height <= 1.001, "{detection:?}");
            assert!(["person", "car", "truck"].contains(&detection.label.as_deref().unwrap()));
        }
    }
    assert_eq!(rows[1].captured_at.as_microsecond() - rows[0].captured_at.as_microsecond(), rows[1].pts_us);
    assert!(rows.iter().all(|r| r.timings.inference_us > 0));
}

#[test]
fn filters_and_cursors_cut_the_same_rows() {
    let platform = Platform::with_demo(&[]);
    let id = platform.post_scenario(&demo_scenario());
    let rows = platform.completed(&id, FRAMES);

    let mut paged = vec![];
    let mut cursor = String::new();
    loop {
        let page = platform.get(&format!("/prediction/{id}?limit=77{cursor}")).body;
        paged.extend(page["items"].as_array().unwrap().iter().map(|p| p["pts_us"].as_i64().unwrap()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, rows.iter().map(|r| r.pts_us).collect::<Vec<_>>());

    let page = platform
        .get(&format!("/prediction/{id}?limit=1000&label=truck&min_score=0.5&from_us=4000000&until_us=8000000"));
    let items = page.body["items"].as_array().unwrap();
    let expected: Vec<_> = rows
        .iter()
        .filter(|r| (4_000_000..8_000_000).contains(&r.pts_us))
        .filter(|r| r.detections.iter().any(|d| d.label.as_deref() == Some("truck") && d.score >= 0.5))
        .map(|r| r.pts_us)
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(items.iter().map(|p| p["pts_us"].as_i64().unwrap()).collect::<Vec<_>>(), expected);
    for detection in items.iter().flat_map(|p| p["detections"].as_array().unwrap()) {
        assert_eq!(detection["label"], "truck");
        assert!(detection["score"].as_f64().unwrap() >= 0.5);
    }
}

#[test]
fn hooks_chain_and_a_gate_skips_still_frames() {
    let platform = Platform::with_demo(&[]);
    let mut scenario = demo_scenario();
    scenario["plugins"]["post"][0]["config"]["min_score"] = json!(0.35);
    scenario["plugins"]["post"]
        .as_array_mut()
        .unwrap()
        .push(json!({"use": "line-counter", "config": {"line": [[0.5, 0.0], [0.5, 1.0]]}}));
    let id = platform.post_scenario(&scenario);
    let rows = platform.completed(&id, FRAMES);
    let tracks: BTreeSet<_> = rows.iter().flat_map(|r| &r.detections).filter_map(|d| d.track_id).collect();
    assert!(tracks.len() > 3, "{} tracks", tracks.len());
    let events: Vec<_> = rows.iter().flat_map(|r| &r.events).collect();
    assert!(!events.is_empty(), "nothing crossed the middle of a street");
    assert!(events.iter().all(|e| !e.kind.is_empty()));
    assert!(rows.iter().flat_map(|r| &r.detections).any(|d| d.label.as_deref() == Some("car")));

    // Nothing in the clip moves enough for this threshold, so every frame but the forced ones is still.
    let mut gated = demo_scenario();
    gated["plugins"]["pre"] = json!([{"use": "motion-gate", "config": {"threshold": 1.0, "max_skip": 9}}]);
    let id = platform.post_scenario(&gated);
    let rows = platform.completed(&id, FRAMES);
    let skipped = rows.iter().filter(|r| r.skipped.is_some()).count();
    assert!((400..500).contains(&skipped), "{skipped} skipped");
    assert!(rows.iter().all(|r| r.skipped.is_none() || r.detections.is_empty()));
    assert_eq!(platform.scenario(&id)["skipped"], skipped);
}

#[test]
fn the_same_file_by_path_gives_the_same_predictions() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(asset("demo1.mp4"), folder.path().join("clip.mp4")).unwrap();
    let platform = Platform::with_demo(&["--source-dir", folder.path().to_str().unwrap()]);
    let mut by_path = demo_scenario();
    by_path["source"] = json!({"file": folder.path().join("clip.mp4")});
    let uploaded = platform.post_scenario(&demo_scenario());
    let by_path = platform.post_scenario(&by_path);
    let detections =
        |id: &str| platform.completed(id, FRAMES).into_iter().map(|r| (r.pts_us, r.detections)).collect::<Vec<_>>();
    assert_eq!(detections(&uploaded), detections(&by_path));
}

#[test]
fn uploading_the_same_again_is_no_conflict_and_other_content_is() {
    let platform = Platform::with_demo(&[]);
    let yolo = fs::read(plugin("yolo")).unwrap();
    assert_eq!(platform.post("/plugin", "application/wasm", &yolo).status, 200);
    let mut clip = fs::read(asset("demo1.mp4")).unwrap();
    // A `free` box at the end: another file with the same frames.
    clip.extend_from_slice(&[0, 0, 0, 8]);
    clip.extend_from_slice(b"free");
    let answer = platform.post("/video?name=street&version=1", "video/mp4", &clip);
    assert_eq!((answer.status, answer.body["code"].as_str()), (409, Some("version_exists")), "{}", answer.body);
    assert_eq!(platform.post("/video?name=street&version=2", "video/mp4", &clip).status, 201);
    assert_eq!(platform.delete("/video/street/2").status, 204);
    assert_eq!(platform.get("/video/street/2").status, 404);
}
