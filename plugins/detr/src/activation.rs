//! What makes scores of a model's numbers: sigmoid, or softmax with a last class for no object, or
//! nothing. Recognised from the number of labels and the values of one frame; what fits two is an
//! error that names both.

use framehook_sdk::Error;
use model_outputs::{
    classes::Activation,
    scores::{best, is_score},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Rule {
    pub(crate) activation: Activation,
    /// Numbers of a box.
    pub(crate) width: u32,
    /// Those of them that are classes; a last one is no object.
    pub(crate) classes: u32,
}

/// With softmax, most boxes are no object: more than one of so many.
const MOST: usize = 2;
/// With sigmoid, the last class is the best of few boxes: one of so many.
const FEW: usize = 10;

/// `None` if no number can be used.
pub(crate) fn recognise(
    numbers: &[f32],
    width: u32,
    set: Option<Activation>,
    labels: Option<u32>,
) -> Result<Option<Rule>, Error> {
    let usable = |row: &&[f32]| row.iter().all(|n| n.is_finite());
    let rows: Vec<_> = numbers.chunks_exact(width.max(1) as usize).filter(usable).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    if have_class_ids(&rows) {
        return Err(Error::InvalidConfig(
            "the second number of each box is whole, as a class id is, and the first a score: `yolo` reads such an output".into(),
        ));
    }
    let are_scores = rows.iter().all(|row| row.iter().all(|n| is_score(*n)));
    let activation = match set {
        Some(activation) => activation,
        None if are_scores => Activation::None,
        None => by_last(&rows, width, labels)?,
    };
    let with_last = labels.is_some_and(|n| n + 1 == width) || activation == Activation::Softmax;
    let classes = if with_last { width - 1 } else { width };
    match labels {
        Some(n) if n != classes => Err(Error::InvalidConfig(format!(
            "the model has {classes} classes with `{}`, but `labels` names {n}",
            name(activation)
        ))),
        _ => Ok(Some(Rule { activation, width, classes })),
    }
}

/// Whether the two numbers of each box are a score and a class id.
fn have_class_ids(rows: &[&[f32]]) -> bool {
    let is_pair = |row: &&[f32]| matches!(**row, [score, id] if is_score(score) && id >= 0.0 && id.fract() == 0.0);
    rows.iter().all(is_pair) && rows.iter().any(|row| row[0].fract() != 0.0)
}

fn by_last(rows: &[&[f32]], width: u32, labels: Option<u32>) -> Result<Activation, Error> {
    match labels {
        Some(n) if n == width => return Ok(Activation::Sigmoid),
        Some(n) if n + 1 == width => return Ok(Activation::Softmax),
        _ => {}
    }
    let is_last = |row: &&&[f32]| best(row).is_some_and(|(class, _)| class + 1 == row.len());
    let last = rows.iter().filter(is_last).count();
    match (width > 1 && last * MOST > rows.len(), width == 1 || last * FEW <= rows.len()) {
        (true, _) => Ok(Activation::Softmax),
        (_, true) => Ok(Activation::Sigmoid),
        _ => Err(Error::InvalidConfig(format!(
            "the last class is the best of {last} of {} boxes, which fits both `sigmoid` and `softmax` with a last \
             class for no object: set `activation`",
            rows.len()
        ))),
    }
}

const fn name(activation: Activation) -> &'static str {
    match activation {
        Activation::None => "none",
        Activation::Sigmoid => "sigmoid",
        Activation::Softmax => "softmax",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes of which so many have the last of three numbers as the best.
    fn boxes(count: usize, last: usize) -> Vec<f32> {
        (0..count).flat_map(|i| if i < last { [-4.0, -5.0, 3.0] } else { [2.0, -5.0, -6.0] }).collect()
    }

    #[test]
    fn labels_decide_then_values() {
        use Activation::{None as Scores, Sigmoid, Softmax};
        for (numbers, set, labels, expected) in [
            (boxes(100, 95), None, None, Ok((Softmax, 2))),
            (boxes(100, 5), None, None, Ok((Sigmoid, 3))),
            (boxes(100, 30), None, None, Err("fits both `sigmoid` and `softmax`")),
            (boxes(100, 30), None, Some(3), Ok((Sigmoid, 3))),
            (boxes(100, 30), None, Some(2), Ok((Softmax, 2))),
            (boxes(100, 95), Some(Sigmoid), None, Ok((Sigmoid, 3))),
            (boxes(100, 95), None, Some(7), Err("2 classes with `softmax`, but `labels` names 7")),
            (vec![0.1, 0.9, 0.5], None, None, Ok((Scores, 3))),
            (vec![0.1, 0.4, 0.5], None, Some(2), Ok((Scores, 2))),
        ] {
            match (recognise(&numbers, 3, set, labels), expected) {
                (Ok(Some(rule)), Ok(expected)) => assert_eq!((rule.activation, rule.classes), expected),
                (Err(Error::InvalidConfig(message)), Err(words)) => assert!(message.contains(words), "{message}"),
                (other, expected) => panic!("{other:?} {expected:?}"),
            }
        }
        assert_eq!(recognise(&[f32::NAN; 3], 3, None, None).unwrap(), None);
        for ids in [[2.0, 0.0], [1.0, 0.0]] {
            let refused = recognise(&[0.9, ids[0], 0.8, ids[1]], 2, Some(Scores), None);
            assert!(matches!(refused, Err(Error::InvalidConfig(m)) if m.contains("`yolo` reads such an output")));
        }
        assert!(recognise(&[0.9, 0.1, 0.8, 0.0], 2, None, None).unwrap().is_some());
        assert_eq!(recognise(&[], 3, None, None).unwrap(), None);
    }
}
