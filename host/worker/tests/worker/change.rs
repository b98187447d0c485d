//! Settings that change while a worker runs: each frame is of one revision, and what fails is taken back.

use std::{collections::BTreeMap, fs, path::Path};

use framehook_core::{
    hook_state::HookState,
    job::{Change, Control, HookJob, Job, NewHooks, Outcome, Report},
    prediction::Prediction,
    reason::Reason,
};
use serde_json::json;
use tempfile::TempDir;

use super::{
    FRAMES,
    hooks::{misbehave, plugin, yolo},
    process::{Worker, job},
};

/// So that changes come while frames do.
const DELAY_MS: u64 = 3;

/// What a worker told of a run.
#[derive(Default)]
struct Told {
    rows: Vec<Prediction>,
    /// What hooks keep behind the last frame.
    state: HookState,
    changed: Vec<(i64, u64)>,
    proven: Vec<i64>,
    rolled_back: BTreeMap<i64, Reason>,
}

/// Runs a job to its end, and has it change at these frames.
fn run(job: &Job, changes: Vec<(u64, Change)>) -> Told {
    let mut worker = Worker::start(job);
    let (mut told, mut changes) = (Told::default(), changes.into_iter().peekable());
    loop {
        match worker.next() {
            Report::Frame(row) => {
                if let Some((_, change)) = changes.next_if(|(at, _)| *at == row.frame) {
                    worker.send(&Control::Change(change));
                }
                told.rows.retain(|earlier| earlier.frame != row.frame);
                told.rows.push(row);
            }
            Report::State(state) => told.state.apply(state),
            Report::Changed { revision, from_frame } => told.changed.push((revision, from_frame)),
            Report::Proven { revision } => told.proven.push(revision),
            Report::RolledBack { revision, reason } => drop(told.rolled_back.insert(revision, reason)),
            Report::Ended { outcome, reason } => {
                assert_eq!(outcome, Outcome::Finished, "{reason:?}");
                assert_eq!(
                    told.rows.iter().map(|row| row.frame).collect::<Vec<_>>(),
                    (0..FRAMES as u64).collect::<Vec<_>>()
                );
                return told;
            }
            _ => {}
        }
    }
}

fn counter() -> HookJob {
    plugin("line-counter", json!({"line": [[0.5, 0.0], [0.5, 1.0]]}))
}

/// A slow job with a folder for later plugins, and three lanes.
fn slow_job(folder: &TempDir, post: Vec<HookJob>) -> Job {
    let pre = vec![misbehave(json!({"mode": "none", "delay_ms": DELAY_MS}))];
    Job { pre, post, lanes: 3, later_plugins: Some(folder.path().to_owned()), ..job("demo1.mp4") }
}

/// A hook as a change names it: its code lies in the folder.
fn later(folder: &Path, hook: &HookJob) -> HookJob {
    let name = hook.digest.hex().to_owned();
    fs::copy(&hook.compiled, folder.join(&name)).unwrap();
    HookJob { compiled: name.into(), ..hook.clone() }
}

fn change(folder: &Path, job: &Job, revision: i64, post: &[HookJob], fresh: bool) -> Change {
    let all = |hooks: &[HookJob]| hooks.iter().map(|hook| later(folder, hook)).collect::<Vec<_>>();
    let hooks = NewHooks {
        pre: all(&job.pre),
        post: all(post),
        on_plugin_failure: job.on_plugin_failure,
        limits: job.limits,
        fresh,
    };
    Change { revision, hooks: Some(Box::new(hooks)) }
}

#[test]
fn hooks_go_on_with_what_those_before_kept_and_each_frame_is_of_one_revision() {
    let folder = tempfile::tempdir().unwrap();
    let job = slow_job(&folder, vec![yolo(), counter()]);
    let undisturbed = run(&job, vec![]);
    let only_the_number = Change { revision: 3, hooks: None };
    let told = run(&job, vec![(20, change(folder.path(), &job, 2, &job.post, false)), (200, only_the_number)]);
    assert_eq!(told.changed.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(told.proven, [2, 3]);
    for (row, expected) in told.rows.iter().zip(&undisturbed.rows) {
        assert_eq!((&row.detections, &row.events), (&expected.detections, &expected.events), "frame {}", row.frame);
        let began = told.changed.iter().rfind(|(_, from)| *from <= row.frame);
        assert_eq!(row.provenance.revision, began.map_or(1, |(revision, _)| *revision), "frame {}", row.frame);
    }
    assert_eq!(told.state, undisturbed.state);
}

#[test]
fn what_begins_anew_or_goes_away_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let job = slow_job(&folder, vec![yolo(), counter()]);
    let without = run(&job, vec![(300, change(folder.path(), &job, 2, &[yolo()], false))]);
    assert!(without.state.iter().all(|(hook, ..)| hook != "post/line-counter"), "{:?}", without.state);
    let tracks = |told: &Told| told.rows.last().unwrap().detections.iter().filter_map(|found| found.track_id).max();
    let anew = run(&job, vec![(300, change(folder.path(), &job, 2, &job.post, true))]);
    assert!(tracks(&anew) < tracks(&run(&job, vec![])), "it knows the tracks of before");
}

#[test]
fn what_fails_is_taken_back_with_all_that_it_kept() {
    let folder = tempfile::tempdir().unwrap();
    let job = slow_job(&folder, vec![yolo(), counter()]);
    let failing = [yolo(), counter(), misbehave(json!({"mode": "trap"}))];
    let mut broken = change(folder.path(), &job, 3, &job.post, false);
    broken.hooks.as_mut().unwrap().post[0].compiled = "nowhere".into();
    let told = run(&job, vec![(20, change(folder.path(), &job, 2, &failing, false)), (200, broken)]);
    let failed: Vec<_> = told.rows.iter().filter(|row| row.provenance.revision == 2).collect();
    assert!((3..20).contains(&failed.len()), "{} frames", failed.len());
    assert!(failed.iter().all(|row| !row.hook_failures.is_empty()));
    let after = told.rows.iter().filter(|row| row.provenance.revision == 1 && row.frame > failed[0].frame);
    assert!(after.clone().count() > 100 && after.clone().all(|row| row.hook_failures.is_empty()));
    assert!(told.rolled_back[&2].message.starts_with("hooks failed on 3 frames in a row"), "{:?}", told.rolled_back);
    assert!(told.rolled_back[&3].message.contains("could not be read"), "{:?}", told.rolled_back);
    // The frames of the failed one are not seen again: as if they had been skipped.
    assert_eq!((told.changed.len(), told.proven.len()), (1, 0));
    assert!(told.state.iter().all(|(hook, ..)| hook != "post/misbehave"), "{:?}", told.state);
}
