//! The rules of tracks one by one; and a sequence with known ids, which `plugins/judges/tracker.py` made, and
//! on which another implementation was measured.

use std::collections::{BTreeMap, BTreeSet};

use framehook_sdk::{Bbox, Source, SourceKind, Start, geometry::iou};
use proptest::prelude::*;

use super::*;
use crate::track::assign;

const SIZE: Size = Size { width: 640, height: 360 };
/// The sequence has 30 frames a second.
const FRAME_US: i64 = 33_333;

fn tracker(config: Config) -> Tracker {
    assert_eq!(Tracker::check(&config).len(), 0);
    let source = Source { kind: SourceKind::File, size: None, frames_per_second: None, frames: None };
    let stream = Stream { id: String::new(), start: Start::Fresh, source, model_labels: Vec::new() };
    Tracker::new(&stream, config).unwrap()
}

fn meta(pts_us: i64) -> FrameMeta {
    FrameMeta { sequence: 0, pts_us, size: SIZE }
}

/// Around a place in shares of the frame.
fn at(x: f32, score: f32) -> Detection {
    Detection::new(0, score, Bbox { x: x - 0.05, y: 0.4, width: 0.1, height: 0.2 })
}

fn ids(tracker: &mut Tracker, frame: i64, detections: Vec<Detection>) -> Vec<Option<u64>> {
    tracker.track(&meta(frame * FRAME_US), detections).iter().map(|d| d.track_id).collect()
}

#[test]
fn an_object_gets_its_number_on_the_second_frame_and_keeps_it() {
    let mut tracker = tracker(Config::default());
    assert_eq!(ids(&mut tracker, 0, vec![at(0.2, 0.9), at(0.8, 0.9)]), [None, None]);
    for frame in 1..20 {
        let step = 0.01 * frame as f32;
        assert_eq!(ids(&mut tracker, frame, vec![at(0.8 - step, 0.9), at(0.2 + step, 0.9)]), [Some(2), Some(1)]);
    }
}

#[test]
fn a_low_score_goes_on_with_a_track_and_begins_none() {
    let mut tracker = tracker(Config { min_hits: 1, ..Config::default() });
    assert_eq!(ids(&mut tracker, 0, vec![at(0.2, 0.9), at(0.5, 0.3), at(0.8, 0.55)]), [Some(1), None, None]);
    assert_eq!(ids(&mut tracker, 1, vec![at(0.2, 0.15), at(0.5, 0.3), at(0.8, 0.05)]), [Some(1), None, None]);
    assert_eq!(ids(&mut tracker, 2, vec![at(0.2, 0.05)]), [None]);
}

#[test]
fn what_flickers_gets_no_number() {
    let mut tracker = tracker(Config::default());
    for frame in 0..10 {
        let seen = if frame % 2 == 0 { vec![at(0.5, 0.9)] } else { Vec::new() };
        assert!(ids(&mut tracker, frame, seen).iter().all(Option::is_none));
    }
}

/// The same gaps in seconds, at whichever rate, and whether frames are skipped or not.
#[test]
fn a_gap_is_as_long_as_its_time() {
    for rate in [30, 10, 3] {
        for (gap_s, expected) in [(0.9, Some(1)), (2.5, Some(2))] {
            let mut tracker = tracker(Config { min_hits: 1, ..Config::default() });
            let mut at_time = |seconds: f64, seen| {
                let frame = meta((seconds * 1e6) as i64);
                tracker.track(&frame, seen).first().and_then(|d: &Detection| d.track_id)
            };
            assert_eq!(at_time(0.0, vec![at(0.5, 0.9)]), Some(1));
            let missed = (1..).map(|n| f64::from(n) / f64::from(rate)).take_while(|t| *t < gap_s);
            missed.for_each(|seconds| assert_eq!(at_time(seconds, Vec::new()), None));
            assert_eq!(at_time(gap_s, vec![at(0.5, 0.9)]), expected, "{gap_s} s at {rate} frames a second");
        }
    }
    // Nobody looked meanwhile, so nothing was missed.
    let mut tracker = tracker(Config { min_hits: 1, ..Config::default() });
    ids(&mut tracker, 0, vec![at(0.5, 0.9)]);
    assert_eq!(ids(&mut tracker, 300, vec![at(0.5, 0.9)]), [Some(1)]);
}

#[test]
fn classes_stay_apart_if_they_are_to() {
    for (per_class, expected) in [(true, Some(2)), (false, Some(1))] {
        let mut tracker = tracker(Config { per_class, min_hits: 1, ..Config::default() });
        ids(&mut tracker, 0, vec![at(0.5, 0.9)]);
        assert_eq!(ids(&mut tracker, 1, vec![Detection { class_id: 1, ..at(0.5, 0.9) }]), [expected]);
    }
}

#[test]
fn other_labels_are_left_alone() {
    let mut tracker = tracker(Config { labels: vec!["car".into()], min_hits: 1, ..Config::default() });
    let named = |label: &str| Detection { label: Some(label.into()), ..at(0.5, 0.9) };
    assert_eq!(ids(&mut tracker, 0, vec![named("person"), named("car"), at(0.5, 0.9)]), [None, Some(1), None]);
}

#[test]
fn a_skipped_frame_may_have_what_is_expected() {
    let mut tracker = tracker(Config { fill_skipped: true, ..Config::default() });
    for frame in 0..10 {
        ids(&mut tracker, frame, vec![at(0.2 + 0.01 * frame as f32, 0.9)]);
    }
    let filled = tracker.skipped(meta(12 * FRAME_US), "sampled", Vec::new()).unwrap().detections;
    let [detection] = &filled[..] else { panic!("{filled:?}") };
    assert_eq!(detection.track_id, Some(1));
    assert!((detection.bbox.x - 0.27).abs() < 0.005 && detection.attribute("predicted").is_some(), "{detection:?}");
    tracker.fill_skipped = false;
    assert!(tracker.skipped(meta(13 * FRAME_US), "sampled", Vec::new()).unwrap().detections.is_empty());
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let paths = |config| Tracker::check(&config).iter().map(|problem| problem.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(Config { low_score: 0.7, ..Config::default() }), ["/low_score"]);
    assert_eq!(paths(Config { new_score: 0.3, ..Config::default() }), ["/new_score"]);
    assert_eq!(paths(Config { min_hits: 0, max_lost_s: f64::NAN, ..Config::default() }), ["/max_lost_s", "/min_hits"]);
}

#[derive(Debug)]
struct Line {
    frame: i64,
    id: u64,
    bbox: Bbox,
    score: f32,
}

fn share([x, y, width, height]: [f32; 4]) -> Bbox {
    let (w, h) = (SIZE.width as f32, SIZE.height as f32);
    Bbox { x: x / w, y: y / h, width: width / w, height: height / h }
}

fn numbers(text: &str) -> impl Iterator<Item = Vec<f32>> {
    text.lines().map(|line| line.split(',').map(|number| number.parse().unwrap()).collect())
}

fn truth() -> Vec<Line> {
    let line =
        |n: Vec<f32>| Line { frame: n[0] as i64, id: n[1] as u64, bbox: share([n[2], n[3], n[4], n[5]]), score: 1.0 };
    numbers(include_str!("sequence/truth.txt")).map(line).collect()
}

/// With the ids of the other implementation.
fn detections() -> Vec<Line> {
    let line =
        |n: Vec<f32>| Line { frame: n[0] as i64, id: n[6] as u64, bbox: share([n[1], n[2], n[3], n[4]]), score: n[5] };
    numbers(include_str!("sequence/detections.txt")).map(line).collect()
}

/// What the tracker makes of those frames that `is_seen` says.
fn tracked(is_seen: impl Fn(i64) -> bool, mut begin: impl FnMut(Option<Tracker>) -> Tracker) -> Vec<Line> {
    let seen = detections();
    let (mut tracker, mut said) = (None, Vec::new());
    for frame in (0..=seen.last().unwrap().frame).filter(|frame| is_seen(*frame)) {
        let of_frame = seen.iter().filter(|line| line.frame == frame);
        let given = of_frame.map(|line| Detection::new(0, line.score, line.bbox)).collect();
        let mut current = begin(tracker.take());
        let found = current.track(&meta(frame * FRAME_US), given);
        let known = found.iter().filter_map(|d| Some(Line { frame, id: d.track_id?, bbox: d.bbox, score: d.score }));
        said.extend(known);
        state::save(TRACKS, &current.tracks).unwrap();
        tracker = Some(current);
    }
    said
}

fn undisturbed(tracker: Option<Tracker>) -> Tracker {
    tracker.unwrap_or_else(|| self::tracker(Config::default()))
}

/// Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016: the
/// share of boxes that have the right id, of those that are there and those that are said, ids being given to
/// objects in the best way for the whole sequence.
fn idf1(truth: &[Line], said: &[Line]) -> f64 {
    let mut common: BTreeMap<(u64, u64), u32> = BTreeMap::new();
    for real in truth {
        for line in said.iter().filter(|line| line.frame == real.frame && iou(&line.bbox, &real.bbox) >= 0.5) {
            *common.entry((real.id, line.id)).or_default() += 1;
        }
    }
    let objects: Vec<_> = BTreeSet::from_iter(common.keys().map(|(object, _)| *object)).into_iter().collect();
    let ids: Vec<_> = BTreeSet::from_iter(common.keys().map(|(_, id)| *id)).into_iter().collect();
    let count = |o: usize, i: usize| common.get(&(objects[o], ids[i])).copied().unwrap_or_default();
    let pairs = assign(objects.len(), ids.len(), |o, i| count(o, i) as f32);
    let right: u32 = pairs.into_iter().map(|(o, i)| count(o, i)).sum();
    2.0 * f64::from(right) / (truth.len() + said.len()) as f64
}

/// Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", 2020: the geometric
/// mean of how well objects are found and how well they are told apart, over 19 demands on how well boxes
/// lie.
fn hota(truth: &[Line], said: &[Line]) -> f64 {
    let numbers = |lines: &[Line]| BTreeSet::from_iter(lines.iter().map(|line| line.id));
    let count = |lines: &[Line]| {
        let of = |id: u64| (id, lines.iter().filter(|line| line.id == id).count() as f64);
        BTreeMap::from_iter(numbers(lines).into_iter().map(of))
    };
    let (real_counts, said_counts) = (count(truth), count(said));
    let either = |pair: &(u64, u64), both: f64| real_counts[&pair.0] + said_counts[&pair.1] - both;
    let of_frame = |lines: &[Line], frame: i64| {
        lines.iter().filter(|line| line.frame == frame).map(|line| (line.id, line.bbox)).collect::<Vec<_>>()
    };
    let frames = BTreeSet::from_iter(truth.iter().chain(said).map(|line| line.frame));
    let frames: Vec<_> = frames.into_iter().map(|frame| (of_frame(truth, frame), of_frame(said, frame))).collect();
    // How much of all that an object and a number have they may have in common.
    let mut common: BTreeMap<(u64, u64), f64> = BTreeMap::new();
    for (real, said) in &frames {
        let overlap = |r: &(u64, Bbox), s: &(u64, Bbox)| f64::from(iou(&r.1, &s.1));
        for (r, s) in real.iter().flat_map(|r| said.iter().map(move |s| (r, s))) {
            let all = real.iter().map(|other| overlap(other, s)).sum::<f64>()
                + said.iter().map(|other| overlap(r, other)).sum::<f64>();
            if all > 0.0 {
                *common.entry((r.0, s.0)).or_default() += overlap(r, s) / (all - overlap(r, s));
            }
        }
    }
    let matched: Vec<_> = frames
        .iter()
        .flat_map(|(real, said)| {
            let overlap = |r: usize, s: usize| iou(&real[r].1, &said[s].1);
            let pair = |r: usize, s: usize| (real[r].0, said[s].0);
            let gain = |r, s| {
                let both = common.get(&pair(r, s)).copied().unwrap_or_default();
                (both / either(&pair(r, s), both)) as f32 * overlap(r, s)
            };
            let pairs = assign(real.len(), said.len(), gain);
            pairs.into_iter().map(|(r, s)| (pair(r, s), overlap(r, s))).collect::<Vec<_>>()
        })
        .collect();
    let at = |demand: f32| {
        let mut right: BTreeMap<(u64, u64), f64> = BTreeMap::new();
        for (pair, _) in matched.iter().filter(|(_, overlap)| *overlap >= demand - f32::EPSILON) {
            *right.entry(*pair).or_default() += 1.0;
        }
        let found: f64 = right.values().sum();
        let detection = found / ((truth.len() + said.len()) as f64 - found);
        let association =
            right.iter().map(|(pair, both)| both * both / either(pair, *both)).sum::<f64>() / found.max(1.0);
        (detection * association).sqrt()
    };
    (1..20).map(|step| at(step as f32 / 20.0)).sum::<f64>() / 19.0
}

/// What motmetrics 1.4.0 and TrackEval 1.3.0 say of the ByteTrack of supervision 0.26.1 on this sequence.
const REFERENCE_IDF1: f64 = 0.784961;
const REFERENCE_HOTA: f64 = 0.644092;

#[test]
fn it_tells_objects_apart_as_well_as_another_implementation() {
    let (truth, said) = (truth(), tracked(|_| true, undisturbed));
    let reference: Vec<_> = detections().into_iter().filter(|line| line.id > 0).collect();
    let measures: [(&str, fn(&[Line], &[Line]) -> f64, f64); 2] =
        [("IDF1", idf1, REFERENCE_IDF1), ("HOTA", hota, REFERENCE_HOTA)];
    for (name, measure, expected) in measures {
        let judged = measure(&truth, &reference);
        assert!((judged - expected).abs() < 1e-5, "{name}, the measure itself: {judged} instead of {expected}");
        let own = measure(&truth, &said);
        println!("{name} {own:.3}, of supervision {judged:.3}");
        assert!(own > expected - 0.01, "{name} {own}");
    }
}

/// Frames leave at uneven times, so an object moves by more than itself between some.
#[test]
fn it_works_at_an_uneven_rate() {
    let is_seen = |frame: i64| frame % 3 != 1 && frame % 7 != 2;
    let truth: Vec<_> = truth().into_iter().filter(|line| is_seen(line.frame)).collect();
    let said = tracked(is_seen, undisturbed);
    let own = idf1(&truth, &said);
    println!("IDF1 {own:.3}, HOTA {:.3} on uneven frames", hota(&truth, &said));
    assert!(own > REFERENCE_IDF1 - 0.1, "{own}");
}

#[test]
fn it_goes_on_where_another_instance_stopped_and_keeps_little() {
    let line = |line: Line| (line.frame, line.id);
    let whole: Vec<_> = tracked(|_| true, undisturbed).into_iter().map(line).collect();
    state::delete(TRACKS);
    let again: Vec<_> = tracked(|_| true, |_| tracker(Config::default())).into_iter().map(line).collect();
    assert_eq!(again, whole);
    // Ten objects on the picture, and those that left it.
    let kept = state::get(TRACKS).unwrap().len();
    assert!((100..2_000).contains(&kept), "{kept} bytes");
}

#[test]
fn no_more_is_kept_than_there_is_room_for() {
    let mut tracker = tracker(Config::default());
    let many = |frame: i64| (0..2_000).map(|n| at((n % 500) as f32 / 500.0, 0.9 - (n + frame) as f32 / 1e5)).collect();
    (0..4).for_each(|frame| drop(ids(&mut tracker, frame, many(frame))));
    state::save(TRACKS, &tracker.tracks).unwrap();
    let kept = state::get(TRACKS).unwrap().len();
    assert!((15_000..25_600).contains(&kept), "{kept} bytes");
}

/// The best sum of gains, by trying all.
fn best(gains: &[Vec<u8>], row: usize, taken: &mut Vec<usize>) -> u32 {
    let Some(of_row) = gains.get(row) else { return 0 };
    let mut sum = best(gains, row + 1, taken);
    for column in 0..of_row.len() {
        if !taken.contains(&column) {
            taken.push(column);
            sum = sum.max(u32::from(of_row[column]) + best(gains, row + 1, taken));
            taken.pop();
        }
    }
    sum
}

proptest! {
    #[test]
    fn the_assignment_is_the_best(gains in (0usize..5, 0usize..5).prop_flat_map(|(rows, columns)| {
        proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(0u8), 1..9u8], columns), rows)
    })) {
        let pairs = assign(gains.len(), gains.first().map_or(0, Vec::len), |r, c| f32::from(gains[r][c]));
        prop_assert!(pairs.iter().all(|(r, c)| gains[*r][*c] > 0));
        let columns = BTreeSet::from_iter(pairs.iter().map(|(_, c)| c));
        prop_assert_eq!(columns.len(), pairs.len());
        let sum: u32 = pairs.iter().map(|(r, c)| u32::from(gains[*r][*c])).sum();
        prop_assert_eq!(sum, best(&gains, 0, &mut Vec::new()));
    }
}
