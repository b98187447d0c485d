//! The whole plugin on outputs in memory.

use model_outputs::memory::Memory;
use proptest::prelude::*;

use super::*;

fn classify(config: &Config) -> Classify {
    Classify { classifier: classifier(config, None), config: config.clone() }
}

fn memory(numbers: &[f32]) -> Memory {
    Memory::new(&[("output0", &[1, numbers.len() as u32], numbers)])
}

fn seen(found: &[Detection]) -> Vec<(u32, i32)> {
    found.iter().map(|d| (d.class_id, (d.score * 1e4).round() as i32)).collect()
}

fn refused(config: &Config, outputs: &Memory) -> String {
    match classify(config).find(outputs) {
        Err(Error::InvalidConfig(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn probabilities_and_logits_are_told_apart() {
    let set = |activation| Config { activation: Some(activation), ..Config::default() };
    // NumPy: softmax and sigmoid of these numbers.
    for (config, numbers, expected) in [
        (Config::default(), &[0.1, 0.7, 0.2][..], vec![(1, 7000), (2, 2000), (0, 1000)]),
        (Config::default(), &[1.0, 3.0, 2.0], vec![(1, 6652), (2, 2447), (0, 900)]),
        (Config::default(), &[-1.0, -9.0, 4.0], vec![(2, 9933)]),
        (Config::default(), &[2.0], vec![(0, 8808)]),
        (set(Activation::Sigmoid), &[0.0, 2.0], vec![(1, 8808), (0, 5000)]),
        (set(Activation::Softmax), &[0.0, 0.5], vec![(1, 6225), (0, 3775)]),
        (set(Activation::None), &[0.9, 0.8], vec![(0, 9000), (1, 8000)]),
        (Config { top_k: 1, ..Config::default() }, &[1.0, 3.0, 2.0], vec![(1, 6652)]),
        (Config { min_score: 0.2, ..Config::default() }, &[1.0, 3.0, 2.0], vec![(1, 6652), (2, 2447)]),
    ] {
        let found = classify(&config).find(&memory(numbers)).unwrap();
        assert_eq!(seen(&found), expected, "{config:?} {numbers:?}");
        assert!(found.iter().all(|d| (d.bbox.x, d.bbox.y, d.bbox.width, d.bbox.height) == (0.0, 0.0, 1.0, 1.0)));
    }
}

#[test]
fn what_was_recognised_stays() {
    let mut classify = classify(&Config::default());
    classify.find(&memory(&[1.0, 3.0, 2.0])).unwrap();
    // These could be scores, but the model gives logits.
    assert_eq!(seen(&classify.find(&memory(&[0.1, 0.7, 0.2])).unwrap()), [(1, 4640), (2, 2814), (0, 2546)]);
}

#[test]
fn what_is_unclear_or_missing_is_explained() {
    let labels = vec![String::new(); 5];
    let two = Memory::new(&[("a", &[1, 2], &[0.5; 2]), ("b", &[1, 3], &[0.5; 3])]);
    let set = Config { output: Some("c".into()), ..Config::default() };
    let scores = Config { activation: Some(Activation::None), ..Config::default() };
    for (config, outputs, words) in [
        (Config::default(), memory(&[0.9, 0.8]), "set `activation` to `none`, or to `sigmoid` or `softmax`"),
        (Config { labels, ..Config::default() }, memory(&[1.0, 3.0]), "the model has 2 classes, but `labels` names 5"),
        (Config::default(), two.clone(), "several outputs have the shape [1, classes]: set `output`"),
        (set, two, "`output`: the model has no output `c`; its outputs are `a` [1, 2], `b` [1, 3]"),
        (scores, memory(&[1.0, 3.0]), "`activation`: 3 stands where scores are"),
        (Config::default(), Memory::new(&[("a", &[1, 2, 2], &[0.5; 4])]), "no output has the shape [1, classes]"),
    ] {
        let message = refused(&config, &outputs);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_frame_with_values_that_are_none_has_no_classes_and_is_counted() {
    let mut classify = classify(&Config::default());
    assert!(classify.find(&memory(&[f32::NAN, 3.0])).unwrap().is_empty());
    assert_eq!(classify.classifier.dropped.count(), 1);
    assert_eq!(classify.find(&memory(&[1.0, 3.0])).unwrap().len(), 2);
}

proptest! {
    #[test]
    fn nothing_panics_and_no_score_is_outside_of_0_to_1(
        numbers in prop::collection::vec(prop_oneof![prop::num::f32::ANY, -9.0f32..9.0, 0.0f32..=1.0], 0..9),
        activation in prop::option::of(prop::sample::select(vec![Activation::None, Activation::Sigmoid, Activation::Softmax])),
        min_score in 0.0f64..=1.0,
    ) {
        let config = Config { activation, min_score, ..Config::default() };
        for d in classify(&config).find(&memory(&numbers)).unwrap_or_default() {
            prop_assert!((0.0..=1.0).contains(&d.score), "{d:?}");
        }
    }
}

#[test]
fn golden_cases_are_natively_as_under_the_engine() {
    golden::check::<Classify>(env!("CARGO_MANIFEST_DIR"));
}
