//! What is told of objects that go their ways, one frame after the other.

use framehook_sdk::{Bbox, Phase, Severity, Source, SourceKind, Start, Value};

use super::*;

/// Ten frames a second.
const FRAME_US: i64 = 100_000;

/// From JSON, as users write it: the left half of the picture is `door`, and a line goes down its middle.
fn zones(config: &str) -> Zones {
    let config: Config = serde_json::from_str(config).unwrap();
    let problems = Zones::check(&config);
    assert!(problems.is_empty(), "{problems:?}");
    let source = Source { kind: SourceKind::File, size: None, frames_per_second: None, frames: None };
    let stream = Stream { id: String::new(), start: Start::Fresh, source, model_labels: Vec::new() };
    Zones::new(&stream, config).unwrap()
}

const DOOR: &str =
    r#"{"zones": {"door": {"polygon": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "labels": ["person"], "dwell_s": 2}}}"#;
const LINE: &str = r#"{"lines": {"gate": {"line": [[0.5, 0], [0.5, 1]]}}}"#;
const CROWD: &str =
    r#"{"zones": {"hall": {"polygon": [[0, 0], [1, 0], [1, 1], [0, 1]], "stays": false, "max_count": 2}}}"#;

fn object(track: Option<u64>, label: &str, x: f32) -> Detection {
    let bbox = Bbox { x: x - 0.05, y: 0.3, width: 0.1, height: 0.2 };
    Detection { track_id: track, label: Some(label.into()), ..Detection::new(0, 0.9, bbox) }
}

fn person(track: u64, x: f32) -> Detection {
    object(Some(track), "person", x)
}

fn at(zones: &mut Zones, frame: i64, detections: &[Detection]) -> Vec<Event> {
    zones.tell(frame * FRAME_US, detections).unwrap()
}

/// Frame, kind, phase, and the attributes asked for.
fn told(events: &[(i64, Event)], keys: &[&str]) -> Vec<String> {
    let line = |(frame, event): &(i64, Event)| {
        let phase =
            event.episode.as_ref().map_or("-".into(), |episode| format!("{:?}", episode.phase).replace("Phase::", ""));
        let values = keys.iter().map(|key| value(event, key));
        [vec![frame.to_string(), event.kind.clone(), phase], values.collect()].concat().join(" ")
    };
    events.iter().map(line).collect()
}

fn value(event: &Event, key: &str) -> String {
    match event.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// What is told while one person goes through these places, one a frame; not a number: not seen.
fn walk(zones: &mut Zones, places: &[f32]) -> Vec<(i64, Event)> {
    let of_frame = |(frame, x): (i64, &f32)| {
        let seen: Vec<_> = (!x.is_nan()).then(|| person(7, *x)).into_iter().collect();
        at(zones, frame, &seen).into_iter().map(|event| (frame, event)).collect::<Vec<_>>()
    };
    (0..).zip(places).flat_map(of_frame).collect()
}

const GONE: f32 = f32::NAN;

#[test]
fn a_stay_begins_becomes_long_and_ends() {
    let places = [vec![0.9; 5], vec![0.2; 30], vec![0.9; 20]].concat();
    let events = walk(&mut zones(DOOR), &places);
    // It is outside for a second before the stay is over, and it was inside for 2.9 s.
    let expected = ["5 zone_entered New door 7", "25 zone_dwell Update door 7", "45 zone_left End door 7"];
    assert_eq!(told(&events, &["zone", "track_id"]), expected);
    assert_eq!((value(&events[1].1, "seconds"), value(&events[2].1, "seconds")), ("2".into(), "2.9".into()));
    assert_eq!(value(&events[2].1, "reason"), "left");
    assert!(events.iter().all(|(_, event)| event.episode.as_ref().unwrap().id == "door#1" && event.subjects == [0]));
    assert_eq!(events[1].1.severity, Severity::Warning);
}

#[test]
fn what_trembles_at_an_edge_tells_once() {
    let trembling: Vec<f32> = (0..60).map(|n| if n % 3 == 0 { 0.51 } else { 0.49 }).collect();
    assert_eq!(told(&walk(&mut zones(DOOR), &trembling), &[]), ["1 zone_entered New", "22 zone_dwell Update"]);
    let crossed = walk(&mut zones(LINE), &trembling);
    // Once a second at most, and as often back as there.
    assert!((3..=6).contains(&crossed.len()), "{:?}", told(&crossed, &["direction"]));
    let last = &crossed.last().unwrap().1;
    let [forward, backward] = ["forward", "backward"].map(|key| value(last, key).parse::<i32>().unwrap());
    assert!((forward - backward).abs() <= 1, "{forward} {backward}");
}

#[test]
fn whoever_is_not_seen_any_more_is_lost() {
    let places = [vec![0.2; 10], vec![GONE; 30]].concat();
    let events = walk(&mut zones(DOOR), &places);
    assert_eq!(told(&events, &["reason", "seconds"])[1..], ["30 zone_left End lost 0.9"]);
    assert!(events[1].1.subjects.is_empty());
    // A short gap, and one in which nobody looked, end nothing.
    let mut zones = zones(DOOR);
    walk(&mut zones, &[vec![0.2; 3], vec![GONE; 15], vec![0.2; 3]].concat());
    assert!(at(&mut zones, 9_000, &[person(7, 0.2)]).iter().all(|event| event.kind == "zone_dwell"));
}

#[test]
fn other_classes_and_the_other_side_do_not_count() {
    let mut zones = zones(DOOR);
    let events =
        at(&mut zones, 0, &[object(Some(1), "car", 0.2), person(2, 0.6), person(3, 0.3), object(None, "person", 0.1)]);
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((value(event, "track_id"), value(event, "count")), ("3".into(), "2".into()));
    assert_eq!((event.subjects.as_slice(), value(event, "label")), (&[2][..], "person".into()));
}

#[test]
fn a_crowd_is_told_once_and_again_when_it_grows() {
    let mut zones = zones(CROWD);
    let counts = [vec![2; 3], vec![3; 5], vec![4; 20], vec![2; 5], vec![3; 2], vec![1; 20]].concat();
    let events: Vec<_> = (0..)
        .zip(counts)
        .flat_map(|(frame, count)| {
            let seen: Vec<_> = (0..count).map(|_| object(None, "person", 0.5)).collect();
            at(&mut zones, frame, &seen).into_iter().map(move |event| (frame, event)).collect::<Vec<_>>()
        })
        .collect();
    let expected = ["3 zone_crowded New 3 2", "13 zone_crowded Update 4 2", "45 zone_crowded End 1 2"];
    assert_eq!(told(&events, &["count", "max_count"]), expected);
    assert_eq!((value(&events[2].1, "peak"), value(&events[2].1, "seconds")), ("4".into(), "3.1".into()));
    assert_eq!(events[0].1.subjects, [0, 1, 2]);
}

#[test]
fn crossings_are_counted_each_way() {
    let there: Vec<f32> = (0..20).map(|n| 0.3 + 0.02 * n as f32).collect();
    let back: Vec<f32> = there.iter().rev().copied().collect();
    let events = walk(&mut zones(LINE), &[there.clone(), back, there].concat());
    let said: Vec<_> =
        events.iter().map(|(_, e)| ["direction", "forward", "backward"].map(|k| value(e, k)).join(" ")).collect();
    assert_eq!(said, ["backward 0 1", "forward 1 1", "backward 1 2"]);
    assert!(events.iter().all(|(_, event)| value(event, "line") == "gate" && event.episode.is_none()));
}

#[test]
fn the_end_of_the_stream_ends_what_goes_on() {
    let mut door = zones(DOOR);
    walk(&mut door, &[0.2; 10]);
    let mut hall = zones(CROWD);
    at(&mut hall, 0, &[person(1, 0.1), person(2, 0.2), person(3, 0.3)]);
    for (zones, kind) in [(&mut door, "zone_left"), (&mut hall, "zone_crowded")] {
        let events = zones.flush().unwrap();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.kind.as_str(), value(event, "reason")), (kind, "end_of_stream".into()));
        assert!(event.subjects.is_empty() && event.episode.as_ref().unwrap().phase == Phase::End);
        assert!(zones.flush().unwrap().is_empty());
    }
}

#[test]
fn it_goes_on_where_another_instance_stopped() {
    let both = r#"{
        "zones": {"door": {"polygon": [[0, 0], [0.5, 0], [0.5, 1]], "dwell_s": 0.5, "max_count": 1}},
        "lines": {"gate": {"line": [[0.5, 0], [0.4, 1]]}}, "cooldown_s": 0.3
    }"#;
    let frames: Vec<_> = (0..200)
        .map(|frame| {
            let x = |n: i64| 0.5 + 0.3 * (frame as f32 / (5 + n) as f32).sin();
            (1..5).filter(|n| (frame + n) % 11 > 2).map(|n| person(n as u64, x(n))).collect::<Vec<_>>()
        })
        .collect();
    let all = |begin: &mut dyn FnMut() -> Option<Zones>| {
        let mut zones = self::zones(both);
        let said = (0..).zip(&frames).map(|(frame, seen)| {
            zones = begin().unwrap_or_else(|| std::mem::replace(&mut zones, self::zones(both)));
            let events = at(&mut zones, frame, seen);
            state::save(KNOWN, &zones.known).unwrap();
            format!("{events:?}")
        });
        said.collect::<Vec<_>>()
    };
    let whole = all(&mut || None);
    let kinds = ["zone_entered", "zone_dwell", "zone_left", "zone_crowded", "line_crossed"];
    assert!(kinds.iter().all(|kind| whole.iter().any(|events| events.contains(kind))), "not all kinds");
    assert!(state::get(KNOWN).unwrap().len() < 500);
    state::delete(KNOWN);
    assert_eq!(all(&mut || Some(self::zones(both))), whole);
}

#[test]
fn a_tracker_is_missed_where_one_is_needed() {
    let last = |config: &str, seen: &[Detection]| {
        let mut zones = zones(config);
        (0..150).map(|frame| zones.tell(frame * FRAME_US, seen)).find(Result::is_err)
    };
    let without = [object(None, "person", 0.2)];
    for config in [DOOR, LINE] {
        let Some(Err(Error::InvalidConfig(why))) = last(config, &without) else { panic!("{config}") };
        assert!(why.contains("put `tracker` before `zones`"), "{why}");
        // A tracker gives no number to what it is not sure of.
        assert!(last(config, &[person(1, 0.2), object(None, "person", 0.3)]).is_none());
        assert!(last(config, &[Detection { score: 0.5, ..without[0].clone() }]).is_none());
        assert!(last(config, &[]).is_none());
    }
    assert!(last(CROWD, &without).is_none());
}

#[test]
fn what_cannot_be_meant_is_named() {
    let path = |config: &str| {
        let config = serde_json::from_str(config).unwrap();
        Zones::check(&config).iter().map(|problem| problem.path.clone()).collect::<Vec<_>>().join(" ")
    };
    for (config, expected) in [
        ("{}", ""),
        (r#"{"zones": {"a/b": {"polygon": [[0, 0], [2, 0], [1, 1]]}}}"#, "/zones/a~1b/polygon"),
        (r#"{"zones": {"a": {"polygon": [[0, 0], [0.5, 0.5], [1, 1]]}}}"#, "/zones/a/polygon"),
        (
            r#"{"zones": {"a": {"polygon": [[0, 0], [1, 0], [1, 1]], "stays": false, "dwell_s": 1}}}"#,
            "/zones/a/dwell_s /zones/a",
        ),
        (r#"{"zones": {"a": {"polygon": [[0, 0], [1, 0], [1, 1]], "dwell_s": -1}}}"#, "/zones/a/dwell_s"),
        (r#"{"lines": {"a": {"line": [[0, 0], [0, 0]]}}, "cooldown_s": -1}"#, "/lines/a/line /cooldown_s"),
        (r#"{"lines": {"a": {"line": [[0, 0], [0, -1]]}}, "lost_s": 1e9}"#, "/lines/a/line /lost_s"),
    ] {
        assert_eq!(path(config), expected, "{config}");
        let config = serde_json::from_str(config).unwrap();
        assert!(!Zones::check(&config).is_empty());
    }
}
