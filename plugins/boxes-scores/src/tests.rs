//! The whole plugin on outputs in memory.

use model_outputs::memory::Memory;
use proptest::prelude::*;

use super::*;

/// Left, top, right, bottom in pixels of 320x240; the second is found twice.
const CORNERS: [[f32; 4]; 4] =
    [[100.0, 50.0, 220.0, 130.0], [15.0, 155.0, 65.0, 225.0], [16.0, 156.0, 66.0, 226.0], [0.0, 0.0, 8.0, 8.0]];
/// Three classes each.
const SCORES: [[f32; 3]; 4] = [[0.1, 0.0, 0.9], [0.8, 0.2, 0.0], [0.7, 0.0, 0.1], [0.1, 0.1, 0.1]];

fn config(format: Format, units: Units) -> Config {
    Config {
        format,
        units,
        boxes: None,
        scores: None,
        activation: scores_already(),
        background: no_background(),
        labels: Vec::new(),
        min_score: default_min_score(),
        iou: default_iou(),
        max_detections: default_max_detections(),
    }
}

fn plugin(config: &Config) -> BoxesScores {
    BoxesScores { config: config.clone(), learnt: FormCheck::default(), dropped: Dropped::default() }
}

fn memory(boxes: &[f32], scores: &[f32]) -> Memory {
    let width = (scores.len() / 4) as u32;
    Memory::new(&[("scores", &[1, 4, width], scores), ("boxes", &[1, 4, 4], boxes)])
}

fn seen(found: &[Detection]) -> Vec<(u32, i32, [i32; 4])> {
    let pixels = |d: &Detection| [d.bbox.x * 320.0, d.bbox.y * 240.0, d.bbox.width * 320.0, d.bbox.height * 240.0];
    found.iter().map(|d| (d.class_id, (d.score * 1e4).round() as i32, pixels(d).map(|n| n.round() as i32))).collect()
}

/// With these class ids and scores in 10,000ths.
fn right(classes: [u32; 2], scores: [i32; 2]) -> Vec<(u32, i32, [i32; 4])> {
    vec![(classes[0], scores[0], [100, 50, 120, 80]), (classes[1], scores[1], [15, 155, 50, 70])]
}

fn refused(config: &Config, outputs: &Memory) -> String {
    match plugin(config).find(outputs) {
        Err(Error::InvalidConfig(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn cxcywh([x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
    [(x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0, y1 - y0]
}

fn shares([a, b, c, d]: [f32; 4]) -> [f32; 4] {
    [a / 320.0, b / 240.0, c / 320.0, d / 240.0]
}

#[test]
fn boxes_in_every_form_are_right() {
    for (format, units, boxes) in [
        (Format::Xyxy, Units::Pixels, CORNERS),
        (Format::Cxcywh, Units::Pixels, CORNERS.map(cxcywh)),
        (Format::Xywh, Units::Pixels, CORNERS.map(|[a, b, c, d]| [a, b, c - a, d - b])),
        (Format::Xyxy, Units::Normalised, CORNERS.map(shares)),
        (Format::Cxcywh, Units::Normalised, CORNERS.map(|b| shares(cxcywh(b)))),
        (Format::Xyxy, Units::Frame, CORNERS),
    ] {
        let found = plugin(&config(format, units)).find(&memory(&boxes.concat(), &SCORES.concat())).unwrap();
        assert_eq!(seen(&found), right([2, 0], [9000, 8000]), "{format:?} {units:?}");
    }
}

#[test]
fn shapes_of_many_exports_are_read() {
    let (boxes, scores) = (CORNERS.concat(), SCORES.concat());
    let last = |data: &[f32], width: usize| (0..data.len()).map(|i| data[(i % 4) * width + i / 4]).collect::<Vec<_>>();
    let best: Vec<_> = SCORES.map(|s| s.into_iter().fold(0.0, f32::max)).to_vec();
    let config = config(Format::Xyxy, Units::Pixels);
    let mut five = SCORES.map(|s| s.to_vec());
    five.iter_mut().for_each(|s| s.extend([0.0, 0.0]));
    let columns = last(&five.concat(), 5);
    for (outputs, classes) in [
        ([("b", &[4u32, 4][..], &boxes[..]), ("s", &[4, 3], &scores)], [2, 0]),
        ([("b", &[1, 4, 1, 4], &boxes), ("s", &[1, 4, 3], &scores)], [2, 0]),
        ([("b", &[1, 4, 4], &boxes), ("s", &[1, 5, 4], &columns)], [2, 0]),
        ([("b", &[1, 4, 4], &boxes), ("s", &[1, 4], &best)], [0, 0]),
        ([("b", &[4, 4], &boxes), ("s", &[4], &best)], [0, 0]),
    ] {
        let found = plugin(&config).find(&Memory::new(&outputs)).unwrap();
        assert_eq!(seen(&found), right(classes, [9000, 8000]), "{outputs:?}");
    }
    // Five boxes, last.
    let more = [boxes.clone(), vec![0.0; 4]].concat();
    let more: Vec<_> = (0..20).map(|i| more[(i % 5) * 4 + i / 5]).collect();
    let best = [best, vec![0.0]].concat();
    let outputs = Memory::new(&[("b", &[1, 4, 5], &more), ("s", &[1, 5], &best)]);
    assert_eq!(seen(&plugin(&config).find(&outputs).unwrap()), right([0, 0], [9000, 8000]));
}

#[test]
fn the_background_is_no_class() {
    let boxes = CORNERS.concat();
    let first = SCORES.map(|s| [vec![0.95], s.to_vec()].concat()).concat();
    let last = SCORES.map(|s| [s.to_vec(), vec![0.95]].concat()).concat();
    for (background, scores) in [(Background::First, first), (Background::Last, last)] {
        let labels = vec![String::new(); 3];
        // Four boxes with four scores each: only names tell which is which.
        let (boxes_output, scores_output) = (Some("boxes".into()), Some("scores".into()));
        let named = Config { boxes: boxes_output, scores: scores_output, ..config(Format::Xyxy, Units::Pixels) };
        let config = Config { background, labels, ..named };
        let found = plugin(&config).find(&memory(&boxes, &scores)).unwrap();
        assert_eq!(seen(&found), right([2, 0], [9000, 8000]), "{background:?}");
        let none = Config { background: Background::None, ..config };
        assert!(refused(&none, &memory(&boxes, &scores)).contains("the model has 4 classes, but `labels` names 3"));
    }
}

#[test]
fn logits_become_scores_as_configured() {
    let logits = [[-5.0, -6.0, 2.0], [1.0, -5.0, -5.0], [0.9, -5.0, -5.0], [-5.0, -5.0, -5.0f32]].concat();
    let boxes = CORNERS.concat();
    let with = |activation| Config { activation, min_score: 0.4, ..config(Format::Xyxy, Units::Pixels) };
    // NumPy: sigmoid of 2 and 1; softmax of the first two rows.
    let sigmoid = plugin(&with(Activation::Sigmoid)).find(&memory(&boxes, &logits)).unwrap();
    assert_eq!(seen(&sigmoid), right([2, 0], [8808, 7311]));
    let softmax = plugin(&with(Activation::Softmax)).find(&memory(&boxes, &logits)).unwrap();
    assert_eq!(seen(&softmax), right([2, 0], [9988, 9951]));
    let message = refused(&with(Activation::None), &memory(&boxes, &logits));
    assert!(message.contains("`activation`: 2 stands where scores are"), "{message}");
}

#[test]
fn what_contradicts_the_configuration_is_an_error() {
    let (pixels, scores) = (CORNERS.concat(), SCORES.concat());
    let shares: Vec<_> = CORNERS.map(shares).concat();
    let centres: Vec<_> = CORNERS.map(cxcywh).concat();
    for (format, units, boxes, words) in [
        (Format::Xyxy, Units::Pixels, &shares, "they are `normalised`"),
        (Format::Xyxy, Units::Normalised, &pixels, "they are not `normalised`"),
        (Format::Xyxy, Units::Pixels, &centres, "they are not `xyxy`"),
    ] {
        let message = refused(&config(format, units), &memory(boxes, &scores));
        assert!(message.contains(words), "{message}");
    }
    // Corners at the right and at the bottom, as what they are not.
    let corners = [[224.0, 24.0, 288.0, 96.0], [200.0, 150.0, 310.0, 230.0], [90.0, 170.0, 160.0, 236.0], [0.0; 4]];
    let mut plugin = plugin(&config(Format::Xywh, Units::Pixels));
    let outputs = memory(&corners.concat(), &scores);
    assert!((0..2).all(|_| plugin.find(&outputs).is_ok()));
    let told = plugin.find(&outputs);
    assert!(matches!(&told, Err(Error::InvalidConfig(m)) if m.contains("not `xywh`: `xyxy`")), "{told:?}");

    let two = [("a", &[1u32, 4, 4][..], &pixels[..]), ("b", &[1, 4, 4], &pixels)];
    let message = refused(&config(Format::Xyxy, Units::Pixels), &Memory::new(&two));
    assert!(message.contains("set `boxes` and `scores`; the outputs are `a` [1, 4, 4], `b` [1, 4, 4]"), "{message}");
    let named = Config { boxes: Some("x".into()), ..config(Format::Xyxy, Units::Pixels) };
    assert!(refused(&named, &Memory::new(&two)).contains("`boxes`: the model has no output `x`"));
}

#[test]
fn boxes_with_values_that_are_none_are_dropped_and_counted() {
    let (mut boxes, mut scores) = (CORNERS, SCORES);
    (boxes[2][1], scores[3][1]) = (f32::NAN, f32::INFINITY);
    let mut plugin = plugin(&config(Format::Xyxy, Units::Pixels));
    let found = plugin.find(&memory(&boxes.concat(), &scores.concat())).unwrap();
    assert_eq!((seen(&found), plugin.dropped.count()), (right([2, 0], [9000, 8000]), 2));
}

proptest! {
    #[test]
    fn nothing_panics_and_no_score_is_outside_of_0_to_1(
        (rows, width) in (0u32..6, 0u32..6),
        numbers in prop::collection::vec(prop_oneof![prop::num::f32::ANY, -9.0f32..300.0, 0.0f32..=1.0], 60),
        shape in 0usize..4,
        format in prop::sample::select(vec![Format::Xyxy, Format::Cxcywh, Format::Xywh]),
        units in prop::sample::select(vec![Units::Pixels, Units::Normalised, Units::Frame]),
        activation in prop::sample::select(vec![Activation::None, Activation::Sigmoid, Activation::Softmax]),
        background in prop::sample::select(vec![Background::None, Background::First, Background::Last]),
    ) {
        let scores = (&numbers[..(rows * width) as usize], &numbers[..rows as usize]);
        let boxes = &numbers[30..30 + 4 * rows as usize];
        let memory = match shape {
            0 => Memory::new(&[("b", &[1, rows, 4], boxes), ("s", &[1, rows, width], scores.0)]),
            1 => Memory::new(&[("b", &[1, 4, rows], boxes), ("s", &[1, width, rows], scores.0)]),
            2 => Memory::new(&[("b", &[rows, 4], boxes), ("s", &[rows], scores.1)]),
            _ => Memory::new(&[("b", &[rows, width], scores.0), ("s", &[], &numbers[..1])]),
        };
        let mut plugin = plugin(&Config { activation, background, min_score: 0.1, ..config(format, units) });
        for _ in 0..2 {
            for d in plugin.find(&memory).unwrap_or_default() {
                prop_assert!((0.0..=1.0).contains(&d.score), "{d:?}");
                prop_assert!([d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height].iter().all(|n| (0.0..=1.0).contains(n)));
            }
        }
    }
}
