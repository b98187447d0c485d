//! The stock plugins, through the same chains a worker uses.

use std::collections::BTreeSet;

use framehook_core::{
    hook_state::HookState, job::HookJob, reason::ReasonCode, size::MAX_PREDICTION, spec::OnPluginFailure as Policy,
};
use framehook_engine::{
    chain::{After, Chain, ChainSettings, Stage},
    media::Decision,
};
use serde_json::json;

use crate::support::{ENGINE, Flat, GEOMETRY, frame, infer, job, settings};

const BOXES: usize = 960;
const CLASSES: usize = 3;

/// A head `[1, 7, 960]` with one car, found by two neighbouring boxes, around `x` of the frame (0..1).
pub(crate) fn head(x: f32) -> Vec<f32> {
    let mut data = vec![0.01; (4 + CLASSES) * BOXES];
    for (index, (nudge, score)) in [(0.0, 0.9), (1.0, 0.7)].into_iter().enumerate() {
        let row = 400 + index;
        for (number, value) in [x * 320.0 + nudge, 96.0, 32.0, 36.0].into_iter().enumerate() {
            data[number * BOXES + row] = value;
        }
        data[5 * BOXES + row] = score;
    }
    data
}

/// The same as `[1, 960, 7]`.
fn transposed(columns: &[f32]) -> Vec<f32> {
    (0..columns.len()).map(|i| columns[(i % 7) * BOXES + i / 7]).collect()
}

fn yolo_and_counter() -> Chain {
    let (settings, _) = settings(Policy::FailScenario);
    let jobs = [
        job("yolo", json!({"labels": ["person", "car", "truck"]})),
        job("line-counter", json!({"line": [[0.5, 0.0], [0.5, 1.0]], "labels": ["car"]})),
    ];
    Chain::start(&ENGINE, Stage::Post, &jobs, &settings).unwrap()
}

pub(crate) fn run(chain: &mut Chain, sequence: u64, shape: &[u32], data: &[f32]) -> After {
    infer(sequence, &[(shape, data)], |inference| chain.postprocess(inference)).unwrap()
}

#[test]
fn yolo_reads_both_layouts_and_names_its_classes() {
    let data = head(0.25);
    let columns = run(&mut yolo_and_counter(), 0, &[1, 7, 960], &data);
    let rows = run(&mut yolo_and_counter(), 0, &[1, 960, 7], &transposed(&data));
    assert_eq!(columns, rows);
    let [car] = &columns.detections[..] else { panic!("{columns:?}") };
    assert_eq!((car.class_id, car.label.as_deref(), car.score), (1, Some("car"), 0.9));
    // 32x36 pixels of the input around (80, 96) are 64x72 around (160, 180) of 640x360.
    let expected = [128.0 / 640.0, 144.0 / 360.0, 0.1, 0.2];
    assert!(car.bbox.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", car.bbox);
}

#[test]
fn the_counter_tracks_what_yolo_found_and_tells_of_the_crossing() {
    let mut chain = yolo_and_counter();
    let mut events = Vec::new();
    for step in 0..30 {
        let after = run(&mut chain, step, &[1, 7, 960], &head(0.2 + 0.02 * step as f32));
        assert_eq!(after.detections[0].track_id, Some(1));
        events.extend(after.events);
    }
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((event.kind.as_str(), event.subjects.as_slice()), ("line_crossed", &[0][..]));
    let attribute = |key: &str| event.attributes.get(key).map(ToString::to_string);
    assert_eq!(
        ["direction", "backward", "forward", "label"].map(attribute),
        ["backward", "1", "0", "car"].map(|value| Some(value.to_owned()))
    );
}

/// It has names of its own, passes on what it is given and adds a detection.
fn misbehave() -> HookJob {
    job("misbehave", json!({"mode": "none"}))
}

#[test]
fn a_detection_has_the_label_of_the_hook_that_made_it() {
    let (settings, _) = settings(Policy::FailScenario);
    let yolo = || job("yolo", json!({"labels": ["person", "car", "truck"]}));
    let counter = || job("line-counter", json!({"line": [[0.5, 0.0], [0.5, 1.0]]}));
    for (jobs, expected) in [
        (vec![yolo(), misbehave()], &["car", "one"][..]),
        (vec![yolo(), counter(), misbehave()], &["car", "one"]),
        (vec![yolo(), misbehave(), counter()], &["car", "one"]),
        (vec![yolo(), misbehave(), counter(), misbehave()], &["car", "one", "one"]),
        // Nobody named its classes before.
        (vec![job("yolo", json!({"head": "v8"})), misbehave()], &["one", "one"]),
    ] {
        let mut chain = Chain::start(&ENGINE, Stage::Post, &jobs, &settings).unwrap();
        let after = run(&mut chain, 0, &[1, 7, 960], &head(0.25));
        let labels: Vec<_> = after.detections.iter().map(|d| d.label.as_deref().unwrap()).collect();
        assert_eq!(labels, expected);
    }
}

#[test]
fn a_model_with_other_outputs_is_explained() {
    let (settings, _) = settings(Policy::SkipFrame);
    let mut chain = Chain::start(&ENGINE, Stage::Post, &[job("yolo", json!({}))], &settings).unwrap();
    let reason = infer(0, &[(&[1, 1000], &[0.0; 1000])], |inference| chain.postprocess(inference)).unwrap_err();
    assert_eq!(reason.code, ReasonCode::PluginIncompatible);
    let message = reason.message;
    assert!(message.contains("no output has the shape") && message.contains("`output0` [1, 1000]"), "{message}");
}

#[test]
fn the_gate_skips_still_frames() {
    let (settings, _) = settings(Policy::FailScenario);
    let mut chain =
        Chain::start(&ENGINE, Stage::Pre, &[job("motion-gate", json!({"max_skip": 3}))], &settings).unwrap();
    let mut passes = |sequence, level| match chain.preprocess(&frame(sequence, &Flat(level))).unwrap().decision {
        Decision::Pass => true,
        Decision::Skip(skipped) => {
            assert_eq!((skipped.by.as_str(), skipped.reason.as_str()), ("motion-gate@0.1.0", "nothing moves"));
            false
        }
        next => panic!("{next:?}"),
    };
    let pattern: Vec<_> = [0, 0, 0, 0, 0, 0, 200].into_iter().enumerate().map(|(i, l)| passes(i as u64, l)).collect();
    assert_eq!(pattern, [true, false, false, false, true, false, true]);
}

/// As after the end of a worker: what one chain kept, the next begins with.
#[test]
fn hooks_go_on_where_another_chain_stopped() {
    let xs: Vec<_> = (0..60).map(|step| 0.5 + 0.2 * (step as f32 / 6.0).sin()).collect();
    let jobs = [
        job("yolo", json!({"labels": ["person", "car", "truck"]})),
        job("line-counter", json!({"line": [[0.5, 0.0], [0.5, 1.0]]})),
        job("line-counter", json!({"line": [[0.4, 0.0], [0.4, 1.0]]})),
    ];
    let (settings, _) = settings(Policy::FailScenario);
    let start = |state: &HookState| {
        let settings = ChainSettings { state: state.clone(), ..settings.clone() };
        Chain::start(&ENGINE, Stage::Post, &jobs, &settings).unwrap()
    };
    let said = |chain: &mut Chain, step: usize| run(chain, step as u64, &[1, 7, 960], &head(xs[step]));
    let mut whole = start(&HookState::default());
    let mut kept = HookState::default();
    for step in 0..xs.len() {
        let mut again = start(&kept);
        assert_eq!(said(&mut again, step), said(&mut whole, step), "step {step}");
        kept.apply(again.take_changes());
        assert!(again.take_changes().is_empty(), "what was told is not told again");
    }
    let hooks: BTreeSet<_> = kept.iter().map(|(hook, ..)| hook).collect();
    assert_eq!(hooks, ["post/line-counter", "post/line-counter#2", "post/yolo"].into());
}

#[test]
fn zones_know_what_the_tracker_numbers() {
    let (settings, _) = settings(Policy::FailScenario);
    let left = json!([[0, 0], [0.5, 0], [0.5, 1], [0, 1]]);
    let jobs = [
        job("yolo", json!({"labels": ["person", "car", "truck"]})),
        job("tracker", json!({})),
        job("zones", json!({"zones": {"left": {"polygon": left, "labels": ["car"]}}})),
        job("privacy-blur", json!({"labels": ["car"]})),
    ];
    let mut chain = Chain::start(&ENGINE, Stage::Post, &jobs, &settings).unwrap();
    let mut events = Vec::new();
    for step in 0..10 {
        let after = run(&mut chain, step, &[1, 7, 960], &head(0.2 + 0.01 * step as f32));
        assert_eq!(after.detections[0].track_id, (step > 0).then_some(1));
        assert_eq!(after.detections[0].attributes.get("privacy").map(ToString::to_string).as_deref(), Some("blur"));
        events.extend(after.events);
    }
    // A stay that goes on ends with the stream.
    events.extend(chain.flush(MAX_PREDICTION).0);
    let told: Vec<_> = events.iter().map(|e| (e.kind.as_str(), e.episode.as_ref().unwrap().id.as_str())).collect();
    assert_eq!(told, [("zone_entered", "left#1"), ("zone_left", "left#1")]);
}

#[test]
fn a_region_is_what_the_model_gets() {
    let (settings, _) = settings(Policy::FailScenario);
    let config = json!({"region": [0.5, 0.0, 0.5, 0.5], "every": 2});
    let mut chain = Chain::start(&ENGINE, Stage::Pre, &[job("roi", config)], &settings).unwrap();
    let mut decision = |sequence| chain.preprocess(&frame(sequence, &Flat(7))).unwrap().decision;
    let Decision::Infer(tensor, geometry) = decision(0) else { panic!() };
    assert_eq!((tensor.data[0], geometry), (7.0, GEOMETRY));
    let Decision::Skip(skipped) = decision(1) else { panic!() };
    assert_eq!(skipped.reason, "not sampled");
}

#[test]
fn text_is_where_the_map_is_high() {
    let (settings, _) = settings(Policy::FailScenario);
    let mut chain = Chain::start(&ENGINE, Stage::Post, &[job("text-db", json!({}))], &settings).unwrap();
    let (height, width) = (96, 160);
    let is_text = |at: usize| (20..100).contains(&(at % width)) && (30..42).contains(&(at / width));
    let map: Vec<f32> = (0..height * width).map(|at| if is_text(at) { 0.9 } else { 0.1 }).collect();
    let after = infer(0, &[(&[1, 1, 96, 160], &map)], |inference| chain.postprocess(inference)).unwrap();
    let [text] = &after.detections[..] else { panic!("{after:?}") };
    assert_eq!((text.label.as_deref(), text.polygon.len()), (Some("text"), 4));
    // 79 x 11 pixels from middle to middle, grown by 1.5 * 869 / 180; the map is half as large as the input.
    let by = 1.5 * (79.0 * 11.0) / 180.0;
    let corner = [(20.5 - by) * 2.0 / 0.5 / 640.0, ((30.5 - by) * 2.0 - 6.0) / 0.5 / 360.0];
    assert!(text.polygon[0].iter().zip(corner).all(|(a, b)| (a - b).abs() < 1e-4), "{text:?} {corner:?}");
}

#[test]
fn centerface_reads_its_four_outputs() {
    let (settings, _) = settings(Policy::FailScenario);
    let mut chain = Chain::start(&ENGINE, Stage::Post, &[job("centerface", json!({}))], &settings).unwrap();
    let (height, width) = (48usize, 80usize);
    let cells = height * width;
    let cell = 20 * width + 30;
    let mut heat = vec![0.0; cells];
    heat[cell] = 0.9;
    heat[cell + 1] = 0.6;
    let shape = |channels: u32| [1, channels, height as u32, width as u32];
    let sizes = vec![10f32.ln(); 2 * cells];
    let (offsets, landmarks) = (vec![0.0; 2 * cells], vec![0.5; 10 * cells]);
    let outputs: [(&[u32], &[f32]); 4] =
        [(&shape(1), &heat), (&shape(2), &sizes), (&shape(2), &offsets), (&shape(10), &landmarks)];
    let after = infer(0, &outputs, |inference| chain.postprocess(inference)).unwrap();
    let [face] = &after.detections[..] else { panic!("{after:?}") };
    assert_eq!((face.score, face.label.as_deref(), face.keypoints.len()), (0.9, Some("face"), 5));
    // The centre is cell (30.5, 20.5) x 4 pixels of the input.
    let expected = [122.0 / 0.5 / 640.0, (82.0 - 6.0) / 0.5 / 360.0];
    assert!(face.keypoints[0].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{face:?}");
}
