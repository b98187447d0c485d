//! The whole plugin on outputs in memory: two objects, and what is none.

use model_outputs::memory::Memory;
use proptest::prelude::*;

use super::*;

const BOXES: usize = 100;
/// Centre x, centre y, width, height as shares; on 320x240: left 100, top 50, 120x80, and left 15,
/// top 155, 50x70.
const OBJECTS: [[f32; 4]; 2] = [[0.5, 0.375, 0.375, 1.0 / 3.0], [0.125, 190.0 / 240.0, 50.0 / 320.0, 70.0 / 240.0]];

fn boxes() -> Vec<f32> {
    let mut boxes = vec![[0.5, 0.5, 0.1, 0.1]; BOXES];
    boxes[..2].copy_from_slice(&OBJECTS);
    boxes.concat()
}

/// One number a class for each box.
fn numbers(objects: [&[f32]; 2], none: &[f32]) -> Vec<f32> {
    let mut all = vec![none; BOXES];
    all[..2].copy_from_slice(&objects);
    all.concat()
}

fn memory(logits: &[f32]) -> Memory {
    let width = (logits.len() / BOXES) as u32;
    Memory::new(&[("logits", &[1, BOXES as u32, width], logits), ("boxes", &[1, BOXES as u32, 4], &boxes())])
}

fn detr(config: &Config) -> Detr {
    Detr { config: config.clone(), learnt: Learnt::default(), dropped: Dropped::default() }
}

fn seen(found: &[Detection]) -> Vec<(u32, i32, [i32; 4])> {
    let pixels = |d: &Detection| [d.bbox.x * 320.0, d.bbox.y * 240.0, d.bbox.width * 320.0, d.bbox.height * 240.0];
    found.iter().map(|d| (d.class_id, (d.score * 1e4).round() as i32, pixels(d).map(|n| n.round() as i32))).collect()
}

/// Class 2 with this score in 10,000ths, and class 0 with that.
fn right(first: i32, second: i32) -> Vec<(u32, i32, [i32; 4])> {
    vec![(2, first, [100, 50, 120, 80]), (0, second, [15, 155, 50, 70])]
}

fn refused(config: &Config, outputs: &Memory) -> String {
    match detr(config).find(outputs) {
        Err(Error::InvalidConfig(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sigmoid_softmax_and_scores_are_told_apart() {
    // NumPy: 1 / (1 + exp(-2)) = 0.88080, 1 / (1 + exp(-1)) = 0.73106.
    let sigmoid = numbers([&[-5.0, -6.0, 2.0], &[1.0, -5.0, -5.0]], &[-5.0, -4.0, -6.0]);
    // NumPy: exp(5) / (exp(5) + exp(1) + 2) = 0.96918; exp(4) / (exp(4) + exp(2) + 2) = 0.85327.
    let softmax = numbers([&[0.0, 0.0, 5.0, 1.0], &[4.0, 0.0, 0.0, 2.0]], &[0.0, 0.0, 0.0, 6.0]);
    let scores = numbers([&[0.1, 0.2, 0.9], &[0.8, 0.0, 0.0]], &[0.01, 0.02, 0.03]);
    for (logits, activation, expected) in [
        (&sigmoid, Activation::Sigmoid, right(8808, 7311)),
        (&softmax, Activation::Softmax, right(9692, 8533)),
        (&scores, Activation::None, right(9000, 8000)),
    ] {
        let labels = vec![String::new(); 3];
        for config in [
            Config::default(),
            Config { labels, ..Config::default() },
            Config { activation: Some(activation), ..Config::default() },
        ] {
            assert_eq!(seen(&detr(&config).find(&memory(logits)).unwrap()), expected, "{config:?}");
        }
    }
}

#[test]
fn one_output_with_boxes_and_scores() {
    let scores = numbers([&[0.1, 0.2, 0.9], &[0.8, 0.0, 0.0]], &[0.01, 0.02, 0.03]);
    let rows = boxes().chunks(4).zip(scores.chunks(3)).flat_map(|(b, s)| [b, s].concat()).collect::<Vec<_>>();
    let outputs = Memory::new(&[("output0", &[1, BOXES as u32, 7], &rows)]);
    assert_eq!(seen(&detr(&Config::default()).find(&outputs).unwrap()), right(9000, 8000));
}

#[test]
fn class_ids_with_boxes_on_the_frame() {
    let boxes = [[100.0, 50.0, 220.0, 130.0], [15.0, 155.0, 65.0, 225.0], [0.0, 0.0, 9.0, 9.0]].concat();
    let with = |boxes: &[f32], scores: &[f32]| {
        Memory::new(&[("labels", &[1, 3], &[2.0, 0.0, 5.0]), ("boxes", &[1, 3, 4], boxes), ("scores", &[1, 3], scores)])
    };
    let found = detr(&Config::default()).find(&with(&boxes, &[0.9, 0.8, 0.2])).unwrap();
    assert_eq!(seen(&found), right(9000, 8000));
    let mut detr = detr(&Config::default());
    assert_eq!(detr.find(&with(&boxes, &[0.9, 0.8, f32::NAN])).unwrap().len(), 2);
    assert_eq!(detr.dropped.count(), 1);
    let shares: Vec<_> = boxes.iter().map(|n| n / 320.0).collect();
    assert!(refused(&Config::default(), &with(&shares, &[0.9; 3])).starts_with("`units`: "));
    assert!(refused(&Config::default(), &with(&boxes, &[9.0; 3])).contains("9 stands where scores are"));
}

#[test]
fn boxes_with_values_that_are_none_are_dropped_and_counted() {
    let mut outputs = memory(&numbers([&[-5.0, -6.0, 2.0], &[1.0, -5.0, -5.0]], &[-5.0, -4.0, -6.0]));
    outputs.outputs[0].1[3 * 7] = f32::INFINITY;
    outputs.outputs[0].1[3 * 8] = 3.0;
    outputs.outputs[1].1[4 * 8] = f32::NAN;
    let mut detr = detr(&Config::default());
    assert_eq!(seen(&detr.find(&outputs).unwrap()), right(8808, 7311));
    assert_eq!(detr.dropped.count(), 2);
}

proptest! {
    #[test]
    fn nothing_panics_and_no_score_is_outside_of_0_to_1(
        (rows, width) in (0u32..6, 0u32..6),
        numbers in prop::collection::vec(prop_oneof![prop::num::f32::ANY, -9.0f32..9.0, 0.0f32..=1.0], 120),
        kind in 0usize..4,
        set in prop::option::of(prop::sample::select(vec![Activation::None, Activation::Sigmoid, Activation::Softmax])),
        labels in 0usize..3,
    ) {
        let (one, four, all) = (rows as usize, 4 * rows as usize, (rows * width) as usize);
        let memory = match kind {
            0 => Memory::new(&[("logits", &[1, rows, width], &numbers[..all]), ("boxes", &[1, rows, 4], &numbers[60..60 + four])]),
            1 => Memory::new(&[("labels", &[1, rows], &numbers[..one]), ("boxes", &[1, rows, 4], &numbers[60..60 + four]), ("scores", &[1, rows], &numbers[40..40 + one])]),
            2 => Memory::new(&[("output0", &[1, rows, width], &numbers[..all])]),
            _ => Memory::new(&[("a", &[rows, width], &numbers[..all]), ("b", &[rows], &numbers[..one]), ("c", &[], &numbers[..1])]),
        };
        let mut detr = detr(&Config { labels: vec![String::new(); labels], activation: set, min_score: 0.1, ..Config::default() });
        for _ in 0..2 {
            for d in detr.find(&memory).unwrap_or_default() {
                prop_assert!((0.0..=1.0).contains(&d.score), "{d:?}");
                prop_assert!([d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height].iter().all(|n| (0.0..=1.0).contains(n)));
            }
        }
    }
}

#[test]
fn golden_cases_are_natively_as_under_the_engine() {
    golden::check::<Detr>(env!("CARGO_MANIFEST_DIR"));
}
