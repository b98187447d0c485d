//! What became of hooks' calls, and the numbers that hooks keep of their own.

use framehook_core::{
    hook_metrics::Metric,
    hook_stats::{HookStage, HookStats},
    job::HookJob,
    prediction::Attribute,
    spec::OnPluginFailure as Policy,
};
use framehook_engine::chain::{After, Chain, Stage};
use serde_json::{Value, json};

use crate::{
    stock::{head, run},
    support::{ENGINE, Lines, infer, job, settings},
};

fn chain(jobs: &[HookJob]) -> (Chain, Lines) {
    let (settings, lines) = settings(Policy::RawOutput);
    (Chain::start(&ENGINE, Stage::Post, jobs, &settings).unwrap(), lines)
}

/// What became of a plugin that misbehaves on so many frames, and what it made of the last.
fn misbehave(config: Value, frames: u64) -> (HookStats, After, Lines) {
    let (mut chain, lines) = chain(&[job("misbehave", config)]);
    let call = |frame| infer(frame, &[(&[1, 2], &[0.0, 1.0])], |inference| chain.postprocess(inference)).unwrap();
    let last = (0..frames).map(call).last().unwrap();
    (chain.stats().remove(0), last, lines)
}

#[test]
fn what_hooks_are_given_and_make_is_counted() {
    let yolo = job("yolo", json!({"labels": ["person", "car", "truck"]}));
    let counter = job("line-counter", json!({"line": [[0.5, 0.0], [0.5, 1.0]], "labels": ["car", "buss"]}));
    let (mut chain, _) = chain(&[yolo, counter]);
    let none = |name: &str| HookStats { instances: 1, ..HookStats::new(format!("{name}@0.1.0"), HookStage::Post) };
    let mut before = chain.stats();
    assert!(before.iter().all(|hook| hook.memory_bytes > 1 << 16), "{before:?}");
    before.iter_mut().for_each(|hook| hook.memory_bytes = 0);
    assert_eq!(before, [none("yolo"), none("line-counter")]);
    for step in 0..30 {
        run(&mut chain, step, &[1, 7, 960], &head(0.2 + 0.02 * step as f32));
    }
    let [yolo, counter] = &chain.stats()[..] else { panic!() };
    assert_eq!((yolo.calls, yolo.detections_in, yolo.detections_out, yolo.events), (30, 0, 30, 0));
    assert_eq!((counter.calls, counter.detections_in, counter.detections_out, counter.events), (30, 30, 30, 1));
    assert!(yolo.copied_bytes > 0 && counter.copied_bytes == 0, "{yolo:?} {counter:?}");
    assert_eq!((yolo.highest_score, counter.highest_score), (Some(0.9), None));
    assert!(counter.state_bytes > 0 && yolo.p50_us > 0, "{yolo:?} {counter:?}");
    assert!(yolo.p50_us <= yolo.p99_us && yolo.p99_us <= yolo.max_us && yolo.max_us <= yolo.total_us, "{yolo:?}");
    assert_eq!((&yolo.unknown_labels[..], &counter.unknown_labels[..]), (&[][..], &["buss".to_owned()][..]));
}

#[test]
fn the_highest_score_is_known_where_none_reaches_the_threshold() {
    let (mut chain, _) = chain(&[job("yolo", json!({"labels": ["person", "car", "truck"], "min_score": 0.95}))]);
    for frame in 0..3 {
        assert!(run(&mut chain, frame, &[1, 7, 960], &head(0.5)).detections.is_empty());
    }
    assert_eq!(chain.stats()[0].highest_score, Some(0.9));
}

#[test]
fn failures_are_told_apart() {
    let failed = |mode: &str| {
        let (stats, ..) = misbehave(json!({"mode": mode, "every": 2}), 4);
        let HookStats { calls, traps, timeouts, errors, instances, not_called, .. } = stats;
        assert_eq!((calls, not_called), (4, 0), "{mode}");
        // The last one is made with the next call.
        ([traps, timeouts, errors], instances)
    };
    assert_eq!(failed("trap"), ([2, 0, 0], 2));
    assert_eq!(failed("loop"), ([0, 2, 0], 2));
    assert_eq!(failed("bad-input"), ([0, 0, 2], 1));
    // Three in a row, then a second of the video.
    let (stats, ..) = misbehave(json!({"mode": "trap"}), 10);
    assert_eq!((stats.calls, stats.traps, stats.not_called, stats.successes()), (3, 3, 7, 0));
    let (stats, ..) = misbehave(json!({"mode": "out-of-range"}), 2);
    assert_eq!((stats.cut, stats.dropped, stats.detections_out), (4, 4, 6));
}

#[test]
fn a_hook_has_metrics_of_its_own() {
    let (stats, ..) = misbehave(json!({"mode": "measure"}), 3);
    assert_eq!(stats.metrics["calls"], Metric::Counter(3));
    assert_eq!(stats.metrics["level"], Metric::Gauge(2.5));
    let Metric::Histogram(took) = &stats.metrics["took_seconds"] else { panic!("{stats:?}") };
    assert_eq!((took.sum, took.count(), took.buckets[8]), (0.75, 3, 3), "0.25 is above 0.2 and at most 0.5");
}

#[test]
fn metrics_that_cannot_be_are_refused_and_cost_one_line() {
    let (stats, after, lines) = misbehave(json!({"mode": "measure-badly"}), 3);
    let text = |key: &str| after.events[0].attributes[key].to_string();
    let answers = "bad-name bad-name bad-name bad-value bad-value ok wrong-kind wrong-kind";
    assert_eq!(text("answers"), answers);
    assert_eq!(after.events[0].attributes["taken"], Attribute::Number(64.0));
    assert_eq!((text("last"), text("still")), ("too-many".into(), "ok".into()));
    assert_eq!(stats.metrics.len(), 64);
    assert_eq!(stats.metrics["kept"], Metric::Counter(6), "twice on each frame");
    let told: Vec<_> = lines.texts().into_iter().filter(|line| line.contains("was not taken")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("metric `Calls` was not taken, nor may others be: a name has up to 64"), "{told:?}");
}
