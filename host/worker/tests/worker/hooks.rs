//! Real plugins inside the pipeline. They are built before: `make plugins`.

use std::{fs, path::PathBuf, sync::LazyLock};

use framehook_core::{
    job::{HookJob, Job, Outcome, Report},
    prediction::Prediction,
    reason::ReasonCode,
    spec::{OnPluginFailure, TimeRange},
};
use framehook_engine::compile::Compiler;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    FRAMES,
    process::{Worker, asset, hook, job, root},
    run, times,
};

/// A plugin, compiled once for all tests.
pub(crate) fn plugin(name: &str, config: Value) -> HookJob {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let wasm = root().join(format!("target/plugins/wasm32-wasip2/release/{}.wasm", name.replace('-', "_")));
    let bytes = fs::read(&wasm).unwrap_or_else(|error| panic!("{}: {error}; run `make plugins`", wasm.display()));
    let compiled: PathBuf = FOLDER.path().join(format!("{name}-{:?}.cwasm", std::thread::current().id()));
    fs::write(&compiled, Compiler::new().unwrap().compile(&bytes).unwrap()).unwrap();
    hook(name, &compiled, config)
}

pub(crate) fn yolo() -> HookJob {
    plugin("yolo", json!({"labels": ["person", "car", "truck"]}))
}

pub(crate) fn misbehave(config: Value) -> HookJob {
    plugin("misbehave", config)
}

/// Without the last, which a hook's `flush` may have given twice.
fn once(frames: &[Prediction]) -> &[Prediction] {
    &frames[..FRAMES]
}

/// Intersection over union of `[left, top, right, bottom]`.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both)
}

#[test]
fn detections_lie_on_the_objects_and_are_the_same_on_every_run() {
    let mut job = job("demo1.mp4");
    job.post = vec![yolo()];
    let (frames, outcome, _, message) = run(&job);
    assert_eq!((frames.len(), outcome), (FRAMES, Outcome::Finished), "{message}");
    let truth: Value = serde_json::from_slice(&fs::read(asset("demo1.json")).unwrap()).unwrap();
    // In the truth: id, class, left, top, right, bottom in pixels, and how much is visible.
    let car = truth["frames"][0].as_array().unwrap().iter().find(|o| o[1] == 1 && o[6].as_f64() >= Some(0.8)).unwrap();
    let expected = [2, 3, 4, 5].map(|k| car[k].as_f64().unwrap());
    let found = frames[0].detections.iter().filter(|d| d.label.as_deref() == Some("car")).any(|d| {
        let [x, y, w, h] = d.bbox.map(f64::from);
        overlap([x * 640.0, y * 360.0, (x + w) * 640.0, (y + h) * 360.0], expected) > 0.5
    });
    assert!(found, "no car near {expected:?}: {:?}", frames[0].detections);
    assert!(frames.iter().all(|p| p.timings.post_us > 0 && p.hook_failures.is_empty()));
    for (a, b) in frames.iter().zip(&run(&job).0) {
        assert_eq!(a.detections, b.detections, "frame {}", a.frame);
    }
}

#[test]
fn a_pre_hook_skips_frames_and_their_rows_stay_in_order() {
    let mut job = job("demo1.mp4");
    job.pre = vec![misbehave(json!({"mode": "skip", "every": 2}))];
    job.post = vec![yolo()];
    let (frames, outcome, ..) = run(&job);
    assert_eq!((frames.len(), outcome), (FRAMES, Outcome::Finished));
    for (k, prediction) in frames.iter().enumerate() {
        let skipped = prediction.skipped.as_ref().map(|s| (s.by.as_str(), s.reason.as_str()));
        assert_eq!(skipped, (k % 2 == 1).then_some(("misbehave@1", "because")), "frame {k}");
        assert_eq!((prediction.frame, prediction.detections.is_empty()), (k as u64, k % 2 == 1));
    }
}

#[test]
fn a_pre_hook_may_build_the_input_itself() {
    let mut job = job("demo1.mp4");
    job.post = vec![yolo()];
    let (native, ..) = run(&job);
    job.pre = vec![misbehave(json!({"mode": "infer"}))];
    let (own, ..) = run(&job);
    assert_eq!(own.len(), FRAMES);
    for (a, b) in native.iter().zip(&own) {
        assert_eq!(a.detections, b.detections, "frame {}", a.frame);
    }
    job.pre = vec![misbehave(json!({"mode": "wrong-shape", "every": 2}))];
    let (frames, outcome, ..) = run(&job);
    assert_eq!((frames.len(), outcome), (FRAMES, Outcome::Finished));
    assert!(frames[0].hook_failures.is_empty() && frames[1].skipped.is_some());
    assert_eq!(frames[1].hook_failures[0].reason.code, ReasonCode::PluginError);
}

#[test]
fn a_failing_hook_degrades_the_scenario_and_loses_no_frame() {
    let mut job = job("demo1.mp4");
    job.post = vec![yolo(), misbehave(json!({"mode": "trap", "every": 10}))];
    let (mut frames, mut degraded) = (Vec::new(), Vec::new());
    let (outcome, reason) = Worker::start(&job).until_end(|report| match report {
        Report::Frame(prediction) => frames.push(prediction),
        Report::Hooks { degraded: now } => degraded.push(now),
        _ => {}
    });
    assert_eq!((outcome, reason.code), (Outcome::Finished, ReasonCode::EndOfStream), "{reason:?}");
    let expected: Vec<_> = (0..FRAMES as u64).collect();
    assert_eq!(once(&frames).iter().map(|p| p.frame).collect::<Vec<_>>(), expected);
    let trapped: Vec<_> = once(&frames).iter().filter(|p| !p.hook_failures.is_empty()).collect();
    assert_eq!((trapped[0].frame, trapped[0].hook_failures[0].reason.code), (9, ReasonCode::PluginTrap));
    assert!(trapped.iter().all(|p| p.skipped.is_some() && p.detections.is_empty()));
    assert_eq!(degraded.first().unwrap().as_ref().unwrap().code, ReasonCode::PluginTrap);
}

/// Between the runner's look at it and the worker's: the next look makes it anew.
#[test]
fn a_compiled_plugin_that_goes_or_changes_is_worth_another_try() {
    let ended = |post: HookJob| {
        let (_, outcome, code, message) = run(&Job { post: vec![post], ..job("demo1.mp4") });
        assert!(message.starts_with("yolo@1: "), "{message}");
        (outcome, code)
    };
    let retry = (Outcome::Retry, ReasonCode::WorkerCrash);
    let (changed, gone, of_another_kind) = (yolo(), yolo(), yolo());
    fs::write(&changed.compiled, fs::read(&misbehave(json!({})).compiled).unwrap()).unwrap();
    assert_eq!(ended(changed), retry);
    fs::remove_file(&gone.compiled).unwrap();
    assert_eq!(ended(gone), retry);
    // One that the runner itself takes for good: no try will help.
    fs::write(&of_another_kind.compiled, "no code").unwrap();
    let digest = hook("yolo", &of_another_kind.compiled, json!({})).digest;
    assert_eq!(ended(HookJob { digest, ..of_another_kind }), (Outcome::Failed, ReasonCode::PluginIncompatible));
}

#[test]
fn the_policy_may_be_to_fail_with_the_plugins_reason() {
    for (mode, code) in [("trap", ReasonCode::PluginTrap), ("loop", ReasonCode::PluginTimeout)] {
        let check = |job: &Job| {
            let (frames, outcome, got, message) = run(job);
            assert_eq!((outcome, got), (Outcome::Failed, code), "{message}");
            assert_eq!(times(&frames), (0..9).map(|k| (k, k as i64 * 40_000)).collect::<Vec<_>>(), "{mode}");
        };
        let mut job = job("demo1.mp4");
        job.on_plugin_failure = OnPluginFailure::FailScenario;
        job.post = vec![misbehave(json!({"mode": mode, "every": 10}))];
        check(&job);
        job.pre = std::mem::take(&mut job.post);
        check(&job);
    }
}

#[test]
fn last_words_of_a_hook_come_with_the_last_frame() {
    let mut job = job("demo1.mp4");
    job.post = vec![misbehave(json!({"mode": "none"}))];
    let (frames, outcome, ..) = run(&job);
    assert_eq!((frames.len(), outcome), (FRAMES + 1, Outcome::Finished));
    let [.., before, last] = &frames[..] else { panic!("too few frames") };
    assert_eq!((before.frame, before.events.len()), (last.frame, 0));
    assert_eq!((last.events[0].kind.as_str(), &last.detections), ("flushed", &before.detections));
}

#[test]
fn a_hook_that_fails_its_scenario_at_the_last_frame_has_the_last_word() {
    let mut job = Job { on_plugin_failure: OnPluginFailure::FailScenario, ..job("demo1.mp4") };
    job.range = Some(TimeRange { from_us: None, until_us: Some(1) });
    job.post = vec![misbehave(json!({"mode": "trap"}))];
    let (frames, outcome, code, message) = run(&job);
    assert_eq!((frames.len(), outcome), (0, Outcome::Failed), "{code:?} {message}");
}
