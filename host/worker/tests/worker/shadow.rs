//! A second chain on the same frames: it is compared with the first, and changes nothing.

use std::sync::LazyLock;

use framehook_core::{
    compare::{DifferenceCounts, FrameDifference},
    ids::ScenarioId,
    job::{HookJob, Job, Outcome, Report},
    prediction::{FrameTimings, Prediction},
    reason::ReasonCode,
    shadow::ShadowCounts,
    spec::{OnPluginFailure, Sampling},
};
use serde_json::json;

use super::{
    hooks::{misbehave, yolo},
    process::{Worker, job},
};

/// The same of all jobs here, so that their rows are.
static ID: LazyLock<ScenarioId> = LazyLock::new(ScenarioId::generate);

/// Every tenth of the clip.
const SAMPLED: u64 = 50;

struct Told {
    rows: Vec<Prediction>,
    counts: ShadowCounts,
    differences: Vec<FrameDifference>,
    ended: Option<ReasonCode>,
    of_shadow: Vec<bool>,
}

/// Runs a job that ends well, and gives the shadow time for each of its frames.
fn run(post: Vec<HookJob>, shadow: Vec<HookJob>) -> Told {
    let frames = Some(Sampling::Every(10));
    let pre = vec![misbehave(json!({"mode": "skip", "every": 7, "delay_ms": 5}))];
    let on_plugin_failure = OnPluginFailure::RawOutput;
    let job = Job { scenario_id: *ID, frames, pre, post, shadow, on_plugin_failure, ..job("demo1.mp4") };
    let (rows, counts, differences) = (Vec::new(), ShadowCounts::default(), Vec::new());
    let mut told = Told { rows, counts, differences, ended: None, of_shadow: Vec::new() };
    let (outcome, reason) = Worker::start(&job).until_end(|report| match report {
        Report::Frame(mut row) => {
            // The time at which it was said.
            row.events.iter_mut().for_each(|event| event.attributes.clear());
            told.rows.push(Prediction { timings: FrameTimings::default(), ..row });
        }
        Report::Shadow(report) => {
            told.counts = report.counts;
            told.differences.extend(report.differences);
            told.ended = report.ended.map(|reason| reason.code);
        }
        Report::Log(line) => told.of_shadow.push(line.shadow),
        Report::Hooks { degraded } => panic!("{degraded:?}"),
        _ => {}
    });
    assert_eq!(outcome, Outcome::Finished, "{reason:?}");
    told
}

#[test]
fn the_same_hooks_say_the_same_to_their_last_words() {
    // Its only word is an event at the end.
    let hooks = || vec![yolo(), misbehave(json!({"mode": "none", "every": 1_u64 << 40}))];
    let (alone, told) = (run(hooks(), vec![]), run(hooks(), hooks()));
    assert_eq!(told.rows, alone.rows);
    assert_eq!((alone.counts, alone.differences), (ShadowCounts::default(), vec![]));
    let ShadowCounts { comparison, not_compared } = told.counts;
    assert_eq!(comparison.compared + not_compared, SAMPLED);
    assert!(comparison.equal == comparison.compared && comparison.compared > 0, "{comparison:?}");
    assert_eq!(comparison.counts, DifferenceCounts::default());

    let more = run(vec![yolo()], hooks());
    assert_eq!(more.rows, run(vec![yolo()], vec![]).rows);
    match &more.differences[..] {
        [last] => assert_eq!((last.frame, &last.events_added[..]), (490, &["flushed".to_owned()][..])),
        // Where a busy machine left it no time for the last frame.
        others => assert!(others.is_empty() && more.counts.not_compared > 0, "{others:?}"),
    }
}

#[test]
fn a_shadow_that_fails_or_cannot_start_fails_alone() {
    let alone = run(vec![yolo()], vec![]);
    let failing = run(vec![yolo()], vec![misbehave(json!({"mode": "trap"}))]);
    assert_eq!(failing.rows, alone.rows);
    let ShadowCounts { comparison, not_compared } = failing.counts;
    // Frames that the pre hook skips are shown to neither.
    let inferred = comparison.counts.failures_added;
    assert!(inferred > 0 && comparison.compared + not_compared == SAMPLED, "{:?}", failing.counts);
    assert!(!failing.of_shadow.is_empty() && failing.of_shadow.iter().all(|is_of_shadow| *is_of_shadow));

    let refused = run(vec![yolo()], vec![misbehave(json!({"mode": "invalid-config", "at_start": true}))]);
    assert_eq!(refused.rows, alone.rows);
    assert_eq!(refused.ended, Some(ReasonCode::PluginIncompatible));
    assert_eq!(refused.counts, ShadowCounts { not_compared: SAMPLED, ..ShadowCounts::default() });
}
