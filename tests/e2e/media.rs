//! Clips of the kinds that people have, over HTTP: each frame comes once with the stream's own
//! time, and the scenario says how it ended. What is right, ffprobe says. Pictures are compared
//! where they are decoded (`host/worker/tests/decoders.rs`).

use std::{path::PathBuf, process::Command};

use framehook_core::{delivery::Delivery, invariants, prediction::Prediction, spec::Decoder, state::ScenarioState};
use framehook_tests::{
    client::{demo_scenario, light_scenario},
    platform::{Platform, patient},
    root, seed,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The folder of the clips.
fn clips() -> PathBuf {
    let made = Command::new("python3").arg(root().join("tests/clips.py")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().into()
}

/// Microseconds of each frame, as the stream says them.
fn times(clip: &str) -> Vec<i64> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "fatal", "-select_streams", "v:0", "-show_entries", "frame=best_effort_timestamp_time"]);
    let output = command.args(["-of", "csv=p=0"]).arg(clips().join(clip)).output().unwrap();
    let micros = |line: &str| (line.trim_end_matches(',').parse::<f64>().unwrap() * 1e6).round() as i64;
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(micros).collect()
}

fn start() -> Platform {
    Platform::with_demo(&patient(&["--source-dir", clips().to_str().unwrap()]))
}

fn upload(platform: &Platform, clip: &str) -> Value {
    let name = clip.replace(['.', '_'], "-");
    platform.upload(&format!("/video?name={name}&version=1"), &clips().join(clip));
    json!({"video": name})
}

fn scenario(source: &Value, more: &Value) -> Value {
    let mut scenario = demo_scenario();
    scenario["source"] = source.clone();
    scenario.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    scenario
}

/// How a scenario ended, its rows and its account, which adds up.
fn ended(platform: &Platform, id: &str) -> (Value, Vec<Prediction>, Delivery) {
    let ended = platform.wait_for_state(id, &["completed", "failed"]);
    let (rows, delivery) = (platform.predictions(id), platform.delivery(id));
    invariants::delivery_balances(&delivery, ScenarioState::Completed).unwrap();
    (ended, rows, delivery)
}

fn run(platform: &Platform, source: &Value, more: &Value) -> (Value, Vec<Prediction>, Delivery) {
    let id = platform.post_scenario(&scenario(source, more));
    let (ended, rows, delivery) = self::ended(platform, &id);
    assert_eq!(ended["state"], "completed", "{ended:#}");
    (ended, rows, delivery)
}

/// Each time that follows the one before is that of its frame; others lie between.
fn check_times(clip: &str, rows: &[Prediction]) {
    let said = times(clip);
    assert_eq!(rows.len(), said.len(), "{clip}");
    let mut latest = i64::MIN;
    for ((row, said), number) in rows.iter().zip(said).zip(0..) {
        assert_eq!(row.frame, number, "{clip}");
        assert!(said <= latest || row.pts_us == said, "{clip}: frame {number} is at {}, not {said}", row.pts_us);
        latest = latest.max(said);
    }
    assert!(rows.windows(2).all(|pair| pair[0].pts_us < pair[1].pts_us), "{clip}");
}

#[test]
fn clips_from_the_field_come_as_their_streams_say() {
    let platform = start();
    for clip in [
        "rot90.mp4",
        "grows.ts",
        "changes_format.avi",
        "bt709.mp4",
        "hevc10.mp4",
        "gapdup.mkv",
        "gapend.mp4",
        "vfr.mp4",
        "recorder.webm",
        "overlap.ts",
        "longaudio.mkv",
        "longaudio.ts",
        "latevideo.mkv",
        "frag_unknown_duration.mp4",
        "elst.mp4",
        "sparse_audio.mp4",
        "sparse_audio.ts",
        "trailer_text.mp4",
        "raw.y4m",
    ] {
        let (ended, rows, delivery) = run(&platform, &upload(&platform, clip), &json!({}));
        check_times(clip, &rows);
        assert_eq!(
            (ended["reason"]["code"].as_str(), delivery.damaged),
            (Some("end_of_stream"), 0),
            "{clip}: {ended:#}"
        );
        assert_eq!(ended["decoder"], "libav");
        let last = match clip {
            "rot90.mp4" => [240, 320],
            "grows.ts" => [640, 480],
            _ => [320, 240],
        };
        assert_eq!(rows.last().unwrap().size, Some(last), "{clip}");
    }
}

#[test]
fn damage_is_told_and_ends_nothing() {
    let platform = start();
    let (ended, rows, delivery) = run(&platform, &upload(&platform, "bit_errors.mp4"), &json!({}));
    check_times("bit_errors.mp4", &rows);
    assert!(delivery.damaged >= 2, "{delivery:?}");
    let words = format!("; {} frames were damaged", delivery.damaged);
    assert!(ended["reason"]["message"].as_str().unwrap().ends_with(&words), "{ended:#}");

    let cut = json!({"file": clips().join("cut_front.mp4")});
    let (ended, rows, _) = run(&platform, &cut, &json!({}));
    assert_eq!((ended["reason"]["code"].as_str(), rows.len()), (Some("source_incomplete"), 21), "{ended:#}");
    assert!(ended["reason"]["message"].as_str().unwrap().contains("after 21 of 60 frames"), "{ended:#}");
}

#[test]
fn an_image_is_told_by_name() {
    let platform = start();
    let image = std::fs::read(clips().join("still.avif")).unwrap();
    let answer = platform.post("/video?name=v&version=1", "application/octet-stream", &image);
    assert_eq!((answer.status, &answer.body["code"]), (422, &json!("invalid_video")), "{:#}", answer.body);
    assert!(answer.body["detail"].as_str().unwrap().contains("an AVIF image"), "{:#}", answer.body);
}

#[test]
fn a_scenario_names_its_decoder_and_its_frames() {
    let platform = start();
    let source = upload(&platform, "bframes.mp4");
    let (ended, rows, _) = run(&platform, &source, &json!({"decoder": "opencv"}));
    assert_eq!((&ended["decoder"], rows.len()), (&json!("opencv"), 60));
    assert!(rows.iter().all(|row| row.provenance.decoder == Some(Decoder::Opencv)));

    let part = json!({"frames": {"every": 7}, "range": {"from_us": 200_000, "until_us": 2_000_000}});
    let (_, rows, delivery) = run(&platform, &source, &part);
    let numbers: Vec<_> = rows.iter().map(|row| row.frame).collect();
    assert_eq!(numbers, [7, 14, 21, 28, 35, 42, 49]);
    assert_eq!((delivery.decoded, delivery.stored, delivery.left_out), (50, 7, 43), "{delivery:?}");

    // The account ends where the source does, not at the last frame that was taken.
    let (ended, rows, delivery) = run(&platform, &source, &json!({"frames": {"every": 7}}));
    assert_eq!((rows.len(), &ended["progress"]["frames"]), (9, &json!(60)), "{ended:#}");
    assert_eq!((delivery.decoded, delivery.stored, delivery.left_out), (60, 9, 51), "{delivery:?}");

    for (bad, field) in [
        (json!({"frames": {"every": 0}}), "frames.every"),
        (json!({"frames": {"fps": -1.0}}), "frames.fps"),
        (json!({"range": {"from_us": 5, "until_us": 5}}), "range.until_us"),
        (json!({"lanes": 0}), "lanes"),
        (json!({"lanes": 65}), "lanes"),
    ] {
        let answer = platform.post_json("/scenario/check", &scenario(&source, &bad));
        assert_eq!((answer.status, &answer.body["field"]), (422, &json!(field)), "{:#}", answer.body);
    }
}

/// A worker for each clip is killed so often.
const KILLS: usize = 4;
/// Some seconds a run: enough to be hit.
const SPEED: f64 = 1.0;

#[test]
fn killing_the_worker_changes_no_row_of_a_difficult_clip() {
    let platform = start();
    let mut random = fastrand::Rng::with_seed(seed());
    for clip in ["bframes.mp4", "long_gop.mp4", "elst.mov", "vfr.mp4", "open_gop.mkv", "bit_errors.mp4"] {
        let source = upload(&platform, clip);
        let quick = json!({"plugins": light_scenario()["plugins"], "lanes": 1});
        let (_, reference, undisturbed) = run(&platform, &source, &quick);
        // Side by side: each kill ends the workers of both.
        let ids = [1, 2].map(|lanes| {
            let slow = json!({"plugins": light_scenario()["plugins"], "max_speed": SPEED, "lanes": lanes});
            platform.post_scenario(&scenario(&source, &slow))
        });
        let mut moments: Vec<_> = (0..KILLS).map(|_| random.u64(0..reference.len() as u64 - 5)).collect();
        moments.sort_unstable();
        for moment in moments {
            platform.wait_for_row(&ids[0], moment);
            platform.signal_workers(Signal::KILL);
        }
        let found = |rows: &[Prediction]| -> Vec<_> {
            rows.iter().map(|row| (row.frame, row.pts_us, row.size, row.detections.clone())).collect()
        };
        for id in &ids {
            let (_, rows, delivery) = ended(&platform, id);
            assert!(found(&rows) == found(&reference), "{clip}: rows are not those of an undisturbed run");
            assert_eq!(delivery.damaged, undisturbed.damaged, "{clip}: each damaged frame counts once");
        }
    }
}
