//! The whole plugin on outputs in memory. Models of the kinds that people have: zeros, and the two
//! objects of [`OBJECTS`]; the right values follow from those.

use framehook_sdk::{Bbox, Element, Value};
use model_outputs::memory::Memory;
use proptest::prelude::*;

use super::*;

mod set;
mod twin;

/// Centre x, centre y, width, height in pixels of 320x240, and the class.
const OBJECTS: [([f32; 4], usize); 2] = [([160.0, 90.0, 120.0, 80.0], 2), ([40.0, 190.0, 50.0, 70.0], 0)];
const SCORE: f32 = 0.53;

/// `[1, boxes, width]`, small boxes in the corner, without scores.
fn grid(boxes: usize, width: usize) -> Vec<Vec<f32>> {
    let row = [vec![5.0, 5.0, 4.0, 4.0], vec![0.0; width - 4]].concat();
    vec![row; boxes]
}

fn v8(boxes: usize, classes: usize, width: usize) -> Vec<Vec<f32>> {
    let mut rows = grid(boxes, width);
    for (row, (numbers, class)) in rows.iter_mut().zip(OBJECTS) {
        row[..4].copy_from_slice(&numbers);
        row[4 + class.min(classes - 1)] = SCORE;
    }
    rows
}

fn v5(boxes: usize, classes: usize) -> Vec<Vec<f32>> {
    let mut rows = grid(boxes, 5 + classes);
    for (row, (numbers, class)) in rows.iter_mut().zip(OBJECTS) {
        row[..4].copy_from_slice(&numbers);
        (row[4], row[5 + class]) = (0.8, SCORE / 0.8);
    }
    rows
}

fn end2end(width: usize) -> Vec<Vec<f32>> {
    let mut rows = vec![vec![0.0; width]; 300];
    for (row, ([cx, cy, w, h], class)) in rows.iter_mut().zip(OBJECTS) {
        row[..6].copy_from_slice(&[cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0, SCORE, class as f32]);
    }
    rows
}

fn pose(keypoints: usize, numbers: usize) -> Vec<Vec<f32>> {
    let mut rows = v8(1500, 1, 5 + numbers * keypoints);
    rows[1] = grid(1, 5 + numbers * keypoints).remove(0);
    for k in 0..keypoints {
        let point = [110.0 + 6.0 * k as f32, 60.0 + 4.0 * k as f32, 0.9];
        rows[0][5 + numbers * k..][..numbers].copy_from_slice(&point[..numbers]);
    }
    rows
}

/// Turned by these angles; the model's other boxes, too.
fn obb(angles: [f32; 2], others: f32) -> Vec<Vec<f32>> {
    let mut rows = v8(1500, 3, 8);
    for row in &mut rows[2..] {
        row[7] = others;
    }
    (rows[0][7], rows[1][7]) = (angles[0], angles[1]);
    rows
}

fn columns(rows: &[Vec<f32>]) -> (Vec<u32>, Vec<f32>) {
    let data = (0..rows[0].len()).flat_map(|n| rows.iter().map(move |row| row[n])).collect();
    (vec![1, rows[0].len() as u32, rows.len() as u32], data)
}

fn rows(rows: &[Vec<f32>]) -> (Vec<u32>, Vec<f32>) {
    (vec![1, rows.len() as u32, rows[0].len() as u32], rows.concat())
}

fn memory((shape, data): (Vec<u32>, Vec<f32>)) -> Memory {
    Memory::new(&[("output0", &shape, &data)])
}

fn yolo(config: &Config) -> Yolo {
    Yolo { config: config.clone(), learnt: Learnt::default(), dropped: Dropped::default() }
}

fn labelled(count: usize) -> Config {
    Config { labels: vec![String::new(); count], ..Config::default() }
}

fn set(head: Kind) -> Config {
    Config { head: Some(head), ..Config::default() }
}

fn find(config: &Config, outputs: &Memory) -> Vec<Detection> {
    yolo(config).find(outputs).unwrap()
}

fn refused(config: &Config, outputs: &Memory) -> String {
    match yolo(config).find(outputs) {
        Err(Error::InvalidConfig(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// Class, score, and left, top, width and height in pixels.
fn seen(found: &[Detection]) -> Vec<(u32, f32, [f32; 4])> {
    let pixels = |b: Bbox| [b.x * 320.0, b.y * 240.0, b.width * 320.0, b.height * 240.0];
    let round = |n: f32| (n * 100.0).round() / 100.0;
    found.iter().map(|d| (d.class_id, round(d.score), pixels(d.bbox).map(round))).collect()
}

fn right(classes: [u32; 2]) -> Vec<(u32, f32, [f32; 4])> {
    vec![(classes[0], SCORE, [100.0, 50.0, 120.0, 80.0]), (classes[1], SCORE, [15.0, 155.0, 50.0, 70.0])]
}

#[test]
fn each_head_is_recognised_and_may_be_set() {
    for (name, outputs, kind, labels, expected) in [
        ("v8", columns(&v8(1500, 3, 7)), Kind::V8, 3, right([2, 0])),
        ("v8, boxes first", rows(&v8(1500, 3, 7)), Kind::V8, 3, right([2, 0])),
        ("v8, more classes than boxes", columns(&v8(525, 601, 605)), Kind::V8, 601, right([2, 0])),
        ("the same, boxes first", rows(&v8(525, 601, 605)), Kind::V8, 601, right([2, 0])),
        ("v5", rows(&v5(1500, 3)), Kind::V5, 3, right([2, 0])),
        ("end2end", rows(&end2end(6)), Kind::End2End, 3, right([2, 0])),
        ("pose", columns(&pose(17, 3)), Kind::Pose, 1, right([0, 0])[..1].to_vec()),
        ("pose without visibilities", columns(&pose(5, 2)), Kind::Pose, 1, right([0, 0])[..1].to_vec()),
        ("obb, not turned", columns(&obb([0.0; 2], -0.5)), Kind::Obb, 3, right([2, 0])),
        ("obb, all turned a little", columns(&obb([0.0; 2], 0.3)), Kind::Obb, 3, right([2, 0])),
        ("obb, boxes first", rows(&obb([0.0; 2], 1.2)), Kind::Obb, 3, right([2, 0])),
    ] {
        let outputs = memory(outputs);
        for config in [Config::default(), set(kind), labelled(labels), Config { head: Some(kind), ..labelled(labels) }]
        {
            assert_eq!(seen(&find(&config, &outputs)), expected, "{name}: {config:?}");
        }
    }
}

#[test]
fn the_class_of_many_is_right() {
    let mut boxes = grid(525, 605);
    boxes[0][..4].copy_from_slice(&[80.0, 80.0, 60.0, 40.0]);
    boxes[0][4 + 500] = SCORE;
    let expected = [(500, SCORE, [50.0, 60.0, 60.0, 40.0])];
    assert_eq!(seen(&find(&Config::default(), &memory(columns(&boxes)))), expected);
    assert_eq!(seen(&find(&Config::default(), &memory(rows(&boxes)))), expected);
}

#[test]
fn keypoints_are_those_of_the_pose() {
    for (outputs, count) in [(columns(&pose(17, 3)), 17), (columns(&pose(5, 2)), 5)] {
        let found = find(&Config::default(), &memory(outputs));
        assert_eq!(found[0].keypoints.len(), count);
        for (k, point) in found[0].keypoints.iter().enumerate() {
            let (x, y) = (110.0 + 6.0 * k as f32, 60.0 + 4.0 * k as f32);
            assert!((point.x * 320.0 - x).abs() < 1e-3 && (point.y * 240.0 - y).abs() < 1e-3, "{point:?}");
        }
    }
    let mut with_pose = end2end(6 + 51);
    with_pose[0][6..9].copy_from_slice(&[110.0, 60.0, 0.9]);
    let found = find(&set(Kind::End2End), &memory(rows(&with_pose)));
    assert_eq!((found.len(), found[0].keypoints.len()), (2, 17));
    assert!((found[0].keypoints[0].x * 320.0 - 110.0).abs() < 1e-3);
}

#[test]
fn a_turned_box_is_the_upright_one_around_it_with_its_corners() {
    let quarter = std::f32::consts::FRAC_PI_2;
    let found = find(&labelled(3), &memory(columns(&obb([quarter, 0.0], -0.5))));
    // 120 x 80 around (160, 90), on its side.
    assert_eq!(seen(&found)[0], (2, SCORE, [120.0, 30.0, 80.0, 120.0]));
    let corners: Vec<_> = found[0].polygon.iter().map(|p| [(p.x * 320.0).round(), (p.y * 240.0).round()]).collect();
    assert_eq!(corners, [[120.0, 150.0], [200.0, 150.0], [200.0, 30.0], [120.0, 30.0]]);
    assert!(matches!(found[0].attribute("angle"), Some(Value::Number(angle)) if *angle == f64::from(quarter)));
}

/// Two long, thin things side by side in parallel: the boxes around them are nearly the same.
#[test]
fn turned_neighbours_are_no_duplicates() {
    let mut boxes = obb([std::f32::consts::FRAC_PI_4, std::f32::consts::FRAC_PI_4], -0.5);
    for (row, x) in boxes.iter_mut().zip([150.0, 165.0]) {
        row[..7].copy_from_slice(&[x, 100.0, 100.0, 8.0, SCORE, 0.0, 0.0]);
    }
    let found = find(&set(Kind::Obb), &memory(columns(&boxes)));
    assert_eq!(found.len(), 2);
    assert!(framehook_sdk::geometry::iou(&found[0].bbox, &found[1].bbox) > 0.6);
}

#[test]
fn masks_are_left_alone() {
    let mut boxes = v8(1500, 3, 4 + 3 + 32);
    for row in &mut boxes {
        row[7..].fill(-1.5);
    }
    let (shape, data) = columns(&boxes);
    let outputs = Memory::new(&[("output0", &shape, &data), ("output1", &[1, 32, 2, 2], &[0.0; 128])]);
    for config in [Config::default(), labelled(3), set(Kind::Seg)] {
        assert_eq!(seen(&find(&config, &outputs)), right([2, 0]), "{config:?}");
    }
}

#[test]
fn boxes_with_values_that_are_none_are_dropped_and_counted() {
    let mut boxes = v8(1500, 3, 7);
    boxes[5][4] = f32::NAN;
    (boxes[7][0], boxes[7][5]) = (f32::NAN, 0.9);
    boxes[9].copy_from_slice(&[200.0, 200.0, 20.0, 20.0, f32::INFINITY, 0.0, 0.0]);
    let outputs = memory(columns(&boxes));
    let mut yolo = yolo(&Config::default());
    for frame in 1..=2 {
        assert_eq!(seen(&yolo.find(&outputs).unwrap()), right([2, 0]));
        assert_eq!(yolo.dropped.count(), 2 * frame);
    }
    // A value that cannot be a score, once the head is known.
    boxes[11][4] = 206.0;
    assert_eq!(seen(&yolo.find(&memory(columns(&boxes))).unwrap()), right([2, 0]));
    assert_eq!(yolo.dropped.count(), 7);
}

#[test]
fn a_v5_as_trained_has_classes_where_it_has_no_objects() {
    let mut boxes = v5(2000, 4);
    for (i, row) in boxes.iter_mut().enumerate().skip(2) {
        row[4] = 1e-5;
        row[5 + i % 4] = 0.6;
    }
    assert_eq!(seen(&find(&Config::default(), &memory(rows(&boxes)))), right([2, 0]));
    assert_eq!(seen(&find(&Config::default(), &memory(columns(&boxes)))), right([2, 0]));
    // A frame without objects is still a v5's.
    let mut yolo = yolo(&Config::default());
    assert!(yolo.find(&memory(rows(&boxes[2..]))).unwrap().is_empty());
    assert_eq!(yolo.learnt.head.unwrap().1.kind, Kind::V5);
}

/// People in a crowd have 1,200 of 8,400 boxes: fewer than a v5 has with a class.
#[test]
fn a_crowd_is_still_a_v8() {
    for classes in [1, 3] {
        let mut boxes = grid(8400, 4 + classes);
        for (i, row) in boxes.iter_mut().enumerate().filter(|(i, _)| i % 7 == 3) {
            row[..4].copy_from_slice(&[(i % 320) as f32, (i % 240) as f32, 9.0, 9.0]);
            row[4] = 0.3 + (i % 50) as f32 / 100.0;
        }
        for outputs in [columns(&boxes), rows(&boxes)] {
            let mut yolo = yolo(&Config::default());
            assert!(yolo.find(&memory(outputs)).unwrap().len() > 100);
            assert_eq!(yolo.learnt.head.unwrap().1.kind, Kind::V8);
        }
    }
}

#[test]
fn an_end_to_end_head_of_one_class_is_known_by_its_order() {
    let mut boxes = end2end(6);
    for (i, row) in boxes.iter_mut().enumerate() {
        row[4] = 0.9 - i as f32 / 400.0;
        (row[2], row[3], row[5]) = (row[0] + 9.0, row[1] + 9.0, 0.0);
    }
    let mut yolo = yolo(&labelled(1));
    yolo.find(&memory(rows(&boxes))).unwrap();
    assert_eq!(yolo.learnt.head.unwrap().1.kind, Kind::End2End);
}

#[test]
fn what_fits_two_heads_names_both_and_tells_what_to_set() {
    // Two boxes of classes 0 and 1: they could as well be scores.
    let mut boxes = end2end(6);
    boxes[0][5] = 1.0;
    let message = refused(&Config::default(), &memory(rows(&boxes)));
    assert!(message.contains("fits both `v") && message.contains("`end2end`"), "{message}");
    assert!(message.ends_with("set `head`"), "{message}");
    assert_eq!(seen(&find(&set(Kind::End2End), &memory(rows(&boxes)))), right([1, 0]));

    // Angles between 0 and 1 could as well be scores of a fourth class.
    let turned = memory(columns(&obb([0.3, 0.4], 0.0)));
    let message = refused(&Config::default(), &turned);
    assert!(message.contains("both `v8` with 4 classes and 1500 boxes and `obb` with 3 classes"), "{message}");
    assert_eq!(find(&set(Kind::Obb), &turned).len(), 2);

    // An objectness could as well be the score of a first class.
    let message = refused(&Config::default(), &memory(columns(&v5(1500, 3))));
    assert!(message.contains("both `v5` with 3 classes and 1500 boxes and `v8` with 4 classes"), "{message}");
    assert_eq!(seen(&find(&set(Kind::V5), &memory(columns(&v5(1500, 3))))), right([2, 0]));

    // As many numbers as boxes, each of them small enough.
    let mut square = vec![vec![0.5; 9]; 9];
    square[0][0] = 9.0;
    let message = refused(&set(Kind::V8), &memory(rows(&square)));
    assert!(message.ends_with("set `labels`"), "{message}");
}

#[test]
fn nothing_is_decided_before_something_is_found() {
    let mut yolo = yolo(&Config::default());
    let empty = memory(rows(&vec![vec![0.0; 6]; 300]));
    assert!(yolo.find(&empty).unwrap().is_empty() && yolo.learnt.head.is_none());
    assert!(yolo.find(&memory((vec![1, 0, 6], vec![]))).unwrap().is_empty());
    assert_eq!(seen(&yolo.find(&memory(rows(&end2end(6)))).unwrap()), right([2, 0]));
    // What is known stays, also with another number of boxes.
    assert!(yolo.find(&empty).unwrap().is_empty());
    assert_eq!(seen(&yolo.find(&memory(rows(&end2end(6)[..1]))).unwrap()), right([2, 0])[..1]);
    assert!(yolo.find(&memory((vec![1, 0, 6], vec![]))).unwrap().is_empty());
    let other = yolo.find(&memory(rows(&v8(960, 3, 7)))).unwrap_err();
    assert!(matches!(&other, Error::InvalidConfig(m) if m.contains("was `end2end` with")), "{other:?}");
}

#[test]
fn what_fits_no_head_is_explained() {
    let logits: Vec<_> = (0..8400).map(|i| vec![9.0, 9.0, 4.0, 4.0, -3.0, 2.0, i as f32 / 100.0]).collect();
    let shares: Vec<_> = (0..300).map(|i| vec![0.5, 0.5, 0.1, 0.1, 0.0, i as f32 / 300.0]).collect();
    let mut raw = v5(2000, 3);
    raw.iter_mut().for_each(|row| row[2..4].fill(-0.4));
    for (config, outputs, words) in [
        (Config::default(), rows(&raw), "negative widths or heights"),
        (Config::default(), columns(&logits), "-3 stands where scores are"),
        (Config::default(), rows(&shares), "its boxes are shares of 0 to 1, which `detr`"),
        (set(Kind::V8), columns(&pose(17, 3)), "`head`: `v8` does not fit `output0` [1, 56, 1500]"),
        (labelled(80), columns(&v8(1500, 3, 7)), "3 classes, but `labels` names 80"),
        (labelled(2), rows(&end2end(6)), "2 stands where ids of 2 classes are"),
        (labelled(80), columns(&v8(1500, 3, 7)), "set `labels` or `head` to what the model has"),
        (
            set(Kind::Pose),
            columns(&v8(1500, 3, 7)),
            "a box has 7 or 1500 numbers, and one of `pose` has 4, one score a class, and 3",
        ),
        // What is set and no labels bear out is looked at as well: a class is neither an angle nor
        // an objectness.
        (set(Kind::Obb), columns(&v8(1500, 3, 7)), "no angle is outside of 0 to 1"),
        (set(Kind::V5), columns(&v8(1500, 1, 7)), "no box with an objectness of 0.5 or more has a class"),
    ] {
        let message = refused(&config, &memory(outputs));
        assert!(message.contains(words), "{message}");
        assert!(message.contains(" to what the model has; `detr` and"), "{message}");
    }
}

#[test]
fn a_model_that_gives_nothing_but_nan_is_told_in_the_log() {
    let mut yolo = yolo(&Config::default());
    assert!(yolo.find(&memory(columns(&vec![vec![f32::NAN; 7]; 300]))).unwrap().is_empty());
    assert_eq!(yolo.dropped.count(), 300);
}

#[test]
fn labels_tell_a_turned_box_that_is_not_turned() {
    assert_eq!(seen(&find(&labelled(3), &memory(columns(&obb([0.0; 2], 0.0))))), right([2, 0]));
}

fn output(name: &str, shape: &[u32]) -> TensorDesc {
    TensorDesc { name: name.into(), shape: shape.to_vec(), element: Element::Float }
}

#[test]
fn the_output_is_found_among_others_or_by_name() {
    let outputs = [output("proto", &[1, 32, 160, 160]), output("a", &[1, 7, 960]), output("b", &[1, 84, 8400])];
    assert_eq!(find_output(&outputs, &labelled(3)).unwrap(), 1);
    let named = |name: &str| Config { output: Some(name.into()), ..Config::default() };
    assert_eq!(find_output(&outputs, &named("b")).unwrap(), 2);
    let message = |outputs, config| match find_output(outputs, &config) {
        Err(Error::InvalidConfig(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(message(&outputs[..1], Config::default()).contains("`proto` [1, 32, 160, 160]"));
    let lacking = message(&outputs, named("c"));
    assert!(lacking.contains("no output `c`; its outputs are `proto` [1, 32, 160, 160], `a`"), "{lacking}");
}

#[test]
fn a_box_is_mapped_to_the_frame() {
    let mut outputs = memory(columns(&v8(1500, 3, 7)));
    outputs.view.geometry = framehook_sdk::Geometry { scale_x: 0.5, scale_y: 0.5, pad_x: 0.0, pad_y: 6.0 };
    outputs.view.frame = framehook_sdk::Size { width: 640, height: 360 };
    let b = find(&Config::default(), &outputs)[0].bbox;
    let expected = [200.0 / 640.0, 88.0 / 360.0, 240.0 / 640.0, 160.0 / 360.0];
    assert!([b.x, b.y, b.width, b.height].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{b:?}");
}

fn any_number() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => 0.0f32..=1.0,
        2 => -400.0f32..400.0,
        1 => prop::num::f32::ANY,
        1 => prop::sample::select(vec![0.0, 1.0, 2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
    ]
}

/// Any tensor, or one whose numbers behind the box are all scores: a head that is found.
fn any_output() -> impl Strategy<Value = (Vec<u32>, Vec<f32>)> {
    let sized = |shape: Vec<u32>, number: BoxedStrategy<f32>| {
        let count = shape.iter().product::<u32>() as usize;
        (Just(shape), prop::collection::vec(number, count))
    };
    let any = prop::collection::vec(0u32..12, 0..4).prop_flat_map(move |s| sized(s, any_number().boxed()));
    let shape = (5u32..48, 5u32..48).prop_map(|(a, b)| vec![1, a, b]);
    let likely = shape.clone().prop_flat_map(move |s| sized(s, any_number().boxed()));
    let heads = shape.prop_flat_map(move |s| sized(s, (0.0f32..=1.0).boxed())).prop_map(|(shape, mut data)| {
        let boxes = 4 * shape[2] as usize;
        data[..boxes].iter_mut().for_each(|n| *n *= 300.0);
        (shape, data)
    });
    prop_oneof![any, likely, heads]
}

proptest! {
    #[test]
    fn nothing_panics_and_no_score_is_outside_of_0_to_1(
        frames in prop::collection::vec(any_output(), 1..3),
        kind in prop::option::of(prop::sample::select(Kind::ALL.to_vec())),
        labels in 0usize..4,
        min_score in 0.0f64..=1.0,
    ) {
        let mut yolo = yolo(&Config { head: kind, min_score, ..labelled(labels) });
        for (shape, data) in frames {
            for d in yolo.find(&memory((shape, data))).unwrap_or_default() {
                prop_assert!((0.0..=1.0).contains(&d.score), "{d:?}");
                prop_assert!([d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height].iter().all(|n| (0.0..=1.0).contains(n)));
                prop_assert!(d.keypoints.iter().all(|p| p.x.is_finite() && p.y.is_finite()), "{d:?}");
            }
        }
    }
}

#[test]
fn golden_cases_are_natively_as_under_the_engine() {
    golden::check::<Yolo>(env!("CARGO_MANIFEST_DIR"));
}
