//! Whatever the number of lanes, a run gives what one lane gives.

use std::fs;

use framehook_core::{
    job::{Control, Job, Outcome, Report},
    prediction::{FrameTimings, Prediction},
    spec::{Sampling, TimeRange},
};
use serde_json::json;

use super::{
    FRAMES,
    hooks::{misbehave, plugin, yolo},
    process::{Worker, asset, job},
};

/// What a run tells: its rows without their timings, its damaged frames, the most lanes it had, its end.
type Told = (Vec<Prediction>, u64, u32, Outcome);

/// Runs a job; `on_frame` may say something to the worker.
fn run(job: &Job, mut on_frame: impl FnMut(u64) -> Option<Control>) -> Told {
    let mut worker = Worker::start(job);
    let (mut rows, mut damaged, mut most) = (Vec::new(), 0, 0);
    loop {
        match worker.next() {
            Report::Frame(row) => {
                if let Some(control) = on_frame(row.frame) {
                    worker.send(&control);
                }
                rows.push(Prediction { timings: FrameTimings::default(), ..row });
            }
            Report::Damaged { frames } => damaged = frames,
            Report::Lanes { lanes } => most = most.max(lanes),
            Report::Ended { outcome, .. } => return (rows, damaged, most, outcome),
            _ => {}
        }
    }
}

fn check(name: &str, job: &Job) {
    let (rows, damaged, most, outcome) = run(job, |_| None);
    assert_eq!(most, 1, "{name}");
    for lanes in [2, 3] {
        let told = run(&Job { lanes, ..job.clone() }, |_| None);
        assert_eq!((told.1, told.2, told.3), (damaged, lanes, outcome), "{name} with {lanes} lanes");
        assert_eq!(told.0.len(), rows.len(), "{name} with {lanes} lanes");
        for (row, expected) in told.0.iter().zip(&rows) {
            assert_eq!(row, expected, "{name} with {lanes} lanes");
        }
    }
}

#[test]
fn gates_trackers_and_samples_give_the_same_rows_with_more_lanes() {
    let mut job = job("demo1.mp4");
    job.range = Some(TimeRange { from_us: None, until_us: Some(8_000_000) });
    // Each of them has a state that the next frame sees.
    job.pre = vec![plugin("motion-gate", json!({})), misbehave(json!({"mode": "skip", "every": 7}))];
    job.post = vec![yolo(), plugin("line-counter", json!({"line": [[0.5, 0.0], [0.5, 1.0]]}))];
    check("gates", &job);
    job.frames = Some(Sampling::Every(3));
    job.range = None;
    check("samples", &job);
}

#[test]
fn a_damaged_video_gives_the_same_rows_with_more_lanes() {
    let folder = tempfile::tempdir().unwrap();
    let mut clip = fs::read(asset("demo1.mp4")).unwrap();
    let third = clip.len() / 3;
    for at in (third..2 * third).step_by(5003) {
        clip[at] ^= 0x55;
    }
    let mut job = job("demo1.mp4");
    job.source = folder.path().join("damaged.mp4");
    fs::write(&job.source, clip).unwrap();
    job.post = vec![yolo()];
    assert!(run(&job, |_| None).1 > 0, "nothing is damaged");
    check("damage", &job);
}

#[test]
fn lanes_come_and_go_while_frames_pass() {
    let mut job = job("demo1.mp4");
    job.post = vec![yolo()];
    let (expected, ..) = run(&job, |_| None);
    let lanes = |frame| (frame % 50 == 0).then_some(Control::Lanes { lanes: [1, 3, 2, 4][frame as usize / 50 % 4] });
    let (rows, _, most, outcome) = run(&job, lanes);
    assert_eq!((rows.len(), outcome), (FRAMES, Outcome::Finished));
    assert!(most > 1, "it kept to one lane");
    assert!(rows == expected, "other rows");
}

#[test]
fn memory_decides_how_many_lanes_there_are() {
    let hook = yolo();
    // One lane has some 80 MiB here, and 160 at its start. The second would leave too little for the hook.
    for (memory_mib, expected) in [(170, 1), (2000, 3)] {
        let post = vec![hook.clone()];
        let job = Job { lanes: 3, memory_mib: Some(memory_mib), post, ..job("demo1.mp4") };
        let (rows, _, most, outcome) = run(&job, |_| None);
        assert_eq!((rows.len(), most, outcome), (FRAMES, expected, Outcome::Finished), "{memory_mib} MiB");
    }
}
