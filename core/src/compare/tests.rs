use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    prediction::{Attribute, Episode, Severity},
    reason::Reason,
};

const AT: Position = Position { pts_us: 40_000, frame: 1 };

fn detection(label: &str, score: f32, bbox: [f32; 4]) -> Detection {
    Detection { label: Some(label.into()), score, bbox, ..Detection::default() }
}

fn event(kind: &str, phase: Option<Phase>) -> Event {
    let episode = phase.map(|phase| Episode { id: "1".into(), phase });
    Event { kind: kind.into(), severity: Severity::Info, subjects: vec![], attributes: BTreeMap::new(), episode }
}

fn failure(plugin: &str, code: ReasonCode) -> HookFailure {
    HookFailure { plugin: plugin.into(), reason: Reason::new(code, "why") }
}

const NOTHING: Said<'_> = Said { detections: &[], events: &[], skipped: None, failures: &[] };

fn of_detections(before: &[Detection], after: &[Detection]) -> Option<FrameDifference> {
    compare(AT, Said { detections: before, ..NOTHING }, Said { detections: after, ..NOTHING })
}

/// What differs, in short.
fn in_short(difference: Option<FrameDifference>) -> Vec<String> {
    let Some(difference) = difference else { return Vec::new() };
    let label = |found: &Found| found.label.clone().unwrap_or_default();
    let changed = difference.changed.iter().map(|pair| {
        let words: Vec<_> = pair.changes.iter().map(|change| change.as_str()).collect();
        format!("{}-{} {}", label(&pair.before), label(&pair.after), words.join(" "))
    });
    let added = difference.added.iter().map(|found| format!("+{}", label(found)));
    let missing = difference.missing.iter().map(|found| format!("-{}", label(found)));
    changed.chain(added).chain(missing).collect()
}

const A: [f32; 4] = [0.1, 0.1, 0.2, 0.2];
/// Overlaps `A` by 0.6.
const A_BESIDE: [f32; 4] = [0.15, 0.1, 0.2, 0.2];
/// Overlaps `A` by a third.
const A_FAR: [f32; 4] = [0.2, 0.1, 0.2, 0.2];
const B: [f32; 4] = [0.6, 0.6, 0.2, 0.2];

#[test]
fn a_detection_is_matched_or_new_or_missing_and_a_pair_says_in_what_it_differs() {
    let d = detection;
    for (before, after, expected) in [
        (vec![d("car", 0.9, A)], vec![d("car", 0.9, A)], vec![]),
        (vec![], vec![d("car", 0.9, A)], vec!["+car"]),
        (vec![d("car", 0.9, A)], vec![], vec!["-car"]),
        (vec![d("car", 0.9, A)], vec![d("bus", 0.9, A_BESIDE)], vec!["car-bus moved relabelled"]),
        (vec![d("car", 0.9, A)], vec![d("car", 0.9, A_FAR)], vec!["+car", "-car"]),
        (vec![d("car", 0.9, A)], vec![d("car", 0.895, [0.1005, 0.1, 0.2, 0.1995])], vec![]),
        (vec![d("car", 0.9, A)], vec![d("car", 0.88, [0.1, 0.102, 0.2, 0.2])], vec!["car-car moved rescored"]),
        // Their order says nothing.
        (vec![d("car", 0.9, A), d("bus", 0.8, B)], vec![d("bus", 0.8, B), d("car", 0.9, A)], vec![]),
        // A label decides before the overlap does, and the overlap before the order.
        (vec![d("car", 0.9, A)], vec![d("bus", 0.9, A), d("car", 0.9, A_BESIDE)], vec!["car-car moved", "+bus"]),
        (vec![d("car", 0.9, A)], vec![d("car", 0.9, A_BESIDE), d("car", 0.9, A)], vec!["+car"]),
        // One has one partner only.
        (vec![d("car", 0.9, A)], vec![d("car", 0.9, A), d("car", 0.9, A)], vec!["+car"]),
        (vec![d("car", 0.9, A), d("car", 0.5, A)], vec![d("car", 0.5, A), d("car", 0.9, A)], vec![]),
    ] {
        assert_eq!(in_short(of_detections(&before, &after)), expected, "{before:?} {after:?}");
    }
    let other_name = Detection { class_id: 7, ..d("car", 0.9, A) };
    assert_eq!(of_detections(&[d("car", 0.9, A)], &[other_name]), None, "a label is what a class is called");
    let nameless = |class_id| Detection { class_id, label: None, score: 0.5, bbox: A, ..Detection::default() };
    assert_eq!(of_detections(&[nameless(1)], &[nameless(1)]), None);
    assert_eq!(of_detections(&[nameless(1)], &[nameless(2)]).unwrap().counts.relabelled, 1);
}

#[test]
fn what_else_is_drawn_or_said_of_an_object_counts_and_its_track_does_not() {
    let plain = detection("car", 0.9, A);
    let redrawn = |other: Detection| {
        of_detections(std::slice::from_ref(&plain), &[other])
            .map(|difference| (difference.counts.redrawn, difference.changed.len()))
    };
    assert_eq!(redrawn(Detection { track_id: Some(7), ..plain.clone() }), None);
    let attributes = [("plate".to_owned(), Attribute::Text("AB 1".into()))].into();
    for other in [
        Detection { keypoints: vec![[0.1, 0.2]], ..plain.clone() },
        Detection { polygon: vec![[0.1, 0.2]], ..plain.clone() },
        Detection { mask: Some(crate::prediction::Mask { grid: [1, 1], runs: vec![0, 1] }), ..plain.clone() },
        Detection { attributes, ..plain.clone() },
    ] {
        assert_eq!(redrawn(other.clone()), Some((1, 1)));
        assert_eq!(of_detections(std::slice::from_ref(&other), std::slice::from_ref(&other)), None);
    }
}

#[test]
fn events_failures_and_skipped_frames_are_compared_as_often_as_they_are() {
    let skipped = Skipped { by: "yolo@1".into(), reason: "it failed".into() };
    let (new, end) = (Some(Phase::New), Some(Phase::End));
    let before = [event("crossed", None), event("stay", new), event("stay", end), event("crossed", None)];
    let after = [event("stay", end), event("crossed", None), event("left", None), event("stay", end)];
    let first = [failure("yolo@1", ReasonCode::PluginTrap)];
    let second = [failure("yolo@2", ReasonCode::PluginTrap), failure("zones@1", ReasonCode::PluginTimeout)];
    let before = Said { events: &before, failures: &first, ..NOTHING };
    let after = Said { events: &after, failures: &second, skipped: Some(&skipped), ..NOTHING };
    let difference = compare(AT, before, after).unwrap();
    assert_eq!((difference.pts_us, difference.frame), (40_000, 1));
    assert_eq!(difference.events_missing, ["stay", "crossed"]);
    assert_eq!(difference.events_added, ["left", "stay"]);
    assert_eq!((&difference.skipped_after, &difference.skipped_before), (&Some(skipped.clone()), &None));
    assert_eq!(difference.failures_added, [second[1].clone()], "another version failed alike");
    assert_eq!(difference.failures_missing, []);
    let counts = DifferenceCounts {
        events_added: 2,
        events_missing: 2,
        skipped: 1,
        failures_added: 1,
        ..DifferenceCounts::default()
    };
    assert_eq!(difference.counts, counts);
    let both = Said { skipped: Some(&skipped), ..NOTHING };
    assert_eq!(compare(AT, both, both), None);
}

#[test]
fn a_long_difference_is_cut_and_still_counts_all() {
    let many: Vec<_> = (0..500).map(|n| detection("car", 0.5, [n as f32 / 500.0, 0.0, 0.001, 0.5])).collect();
    let whole = of_detections(&[], &many).unwrap();
    let cut = whole.clone().within(4000);
    assert_eq!((whole.added.len(), cut.counts), (500, whole.counts));
    assert!((10..100).contains(&cut.added.len()) && json_bytes(&cut) <= 4000, "{}", cut.added.len());
    assert_eq!(whole.added[..cut.added.len()], cut.added);
    assert_eq!(whole.clone().within(usize::MAX), whole);
    assert!(whole.within(0).added.is_empty());
}

#[test]
fn of_very_many_detections_those_with_the_highest_scores_are_compared() {
    let place = |n: u16| [f32::from(n % 100) / 100.0, f32::from(n / 100) / 100.0, 0.01, 0.01];
    let many: Vec<_> = (0..1500).map(|n| detection("car", 1.0 - f32::from(n) / 2000.0, place(n))).collect();
    let difference = of_detections(&many, &[]).unwrap();
    assert_eq!(difference.counts.missing, MOST_DETECTIONS as u64);
    assert!(difference.missing.iter().all(|found| found.score > 0.5));
    assert_eq!(of_detections(&many, &many), None);
}

#[test]
fn frames_add_up() {
    let difference = of_detections(&[detection("car", 0.9, A)], &[detection("bus", 0.9, A)]);
    let mut sum = Comparison::default();
    sum.count(None);
    sum.count(difference.as_ref());
    let mut twice = sum;
    twice.add(&sum);
    assert_eq!((twice.compared, twice.equal, twice.different, twice.counts.relabelled), (4, 2, 2, 2));
    let text = serde_json::to_string(&twice).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), twice);
    let difference = difference.unwrap();
    let text = serde_json::to_string(&difference).unwrap();
    assert!(!text.contains("skipped_") && text.contains(r#""changes":["relabelled"]"#), "{text}");
    assert_eq!(serde_json::from_str::<FrameDifference>(&text).unwrap(), difference);
}

prop_compose! {
    /// Boxes on a coarse grid, so that many overlap and some are the same.
    fn some_detection()(label in 0..3_u32, score in 0..4_u8, x in 0..4_u8, y in 0..4_u8, w in 1..4_u8, h in 1..4_u8)
        -> Detection {
        let side = |n: u8| f32::from(n) / 8.0;
        Detection { class_id: label, score: f32::from(score) / 4.0, bbox: [side(x), side(y), side(w), side(h)],
            ..Detection::default() }
    }
}

fn some_detections() -> impl Strategy<Value = Vec<Detection>> {
    prop::collection::vec(some_detection(), 0..12)
}

proptest! {
    #[test]
    fn a_frame_equals_itself_in_any_order(one in some_detections(), turned in any::<usize>()) {
        prop_assert_eq!(of_detections(&one, &one), None);
        let mut other = one.clone();
        if !other.is_empty() {
            let by = turned % other.len();
            other.rotate_left(by);
        }
        // Copies in one place with equal scores are the same, whichever is which.
        prop_assert_eq!(of_detections(&one, &other), None);
    }

    /// Each is in one place, and the other way round what is added is missing.
    #[test]
    fn detections_add_up_both_ways(one in some_detections(), other in some_detections()) {
        let there = of_detections(&one, &other).unwrap_or_default();
        let back = of_detections(&other, &one).unwrap_or_default();
        prop_assert_eq!(&there.added, &back.missing);
        prop_assert_eq!(&there.missing, &back.added);
        prop_assert_eq!(there.changed.len(), back.changed.len());
        let (added, missing) = (there.added.len(), there.missing.len());
        prop_assert_eq!(one.len() - missing, other.len() - added, "pairs");
        prop_assert!(there.changed.iter().all(|pair| pair.iou >= SAME_OBJECT && !pair.changes.is_empty()));
        // Nothing that has no partner could have one.
        for found in &there.added {
            prop_assert!(there.missing.iter().all(|other| iou(&found.bbox, &other.bbox) < SAME_OBJECT));
        }
    }

    #[test]
    fn an_overlap_is_a_share_of_both(a in some_detection(), b in some_detection()) {
        let cells = |d: &Detection| -> std::collections::BTreeSet<(u8, u8)> {
            let [x, y, w, h] = d.bbox.map(|n| (n * 8.0) as u8);
            (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))).collect()
        };
        let (ours, theirs) = (cells(&a), cells(&b));
        let expected = ours.intersection(&theirs).count() as f32 / ours.union(&theirs).count() as f32;
        prop_assert!((iou(&a.bbox, &b.bbox) - expected).abs() < 1e-6);
    }
}
