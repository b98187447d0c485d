//! Which output is which: by the names that are set, else by the names that such models have, else
//! by shape.

use framehook_sdk::{Error, TensorDesc};
use model_outputs::{classes::Matrix, described, described_all, named};

use crate::Config;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Form {
    pub(crate) boxes: Matrix,
    pub(crate) numbers: Numbers,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Numbers {
    /// One number a class.
    Classes(Matrix),
    /// A class id and a score.
    Ids { ids: Matrix, scores: Matrix },
}

/// Numbers of a box.
const BOX: u32 = 4;
/// Twice what the largest of these models give. A grid of boxes to choose from has more.
const MOST_BOXES: u32 = 2_000;

pub(crate) fn find(list: &[TensorDesc], config: &Config) -> Result<Form, Error> {
    let set = |field, name: &Option<String>| named(list, field, name.as_deref());
    let boxes = set("boxes", &config.boxes)?;
    let scores = set("scores", &config.scores)?;
    let ids = set("classes", &config.classes)?;
    let refused = |message: &str| {
        let there = described_all(list);
        Error::InvalidConfig(format!("{message}: set `boxes`, `scores` and `classes`; the outputs are {there}"))
    };
    let boxes: Vec<_> = pick(list, boxes, &["box"], |shape| width(shape) == Some(BOX));
    let boxes = match boxes[..] {
        [one] => one,
        [] if ids.is_none() => {
            let joined = joined(list, scores).ok_or_else(|| refused("no output has boxes [1, n, 4]"))?;
            check_joined(&list[joined.boxes.output as usize], joined.boxes.rows, config.labels.len())?;
            return Ok(joined);
        }
        [] => return Err(refused("no output has boxes [1, n, 4]")),
        _ => return Err(refused("several outputs have the shape of boxes")),
    };
    let rows = rows(&list[boxes as usize].shape);
    few(&list[boxes as usize], rows)?;
    let beside = |shape: &[u32]| crate::outputs::rows(shape) == rows;
    let mut matrices = pick(list, scores, &["logit", "score", "prob"], |s| width(s).is_some() && beside(s));
    matrices.retain(|index| *index != boxes);
    let mut vectors = pick(list, scores, &["score", "prob", "conf"], |s| width(s).is_none() && beside(s));
    let labels = pick(list, ids, &["label", "class"], |s| width(s).is_none() && beside(s));
    vectors.retain(|index| !labels.contains(index));
    let matrix = |index: u32, width: u32| Matrix::by_rows(index, rows.unwrap_or(0), width);
    let numbers = match (&matrices[..], &vectors[..], &labels[..]) {
        (_, [score], [id]) => Numbers::Ids { ids: matrix(*id, 1), scores: matrix(*score, 1) },
        ([one], ..) => Numbers::Classes(matrix(*one, width(&list[*one as usize].shape).unwrap_or(0))),
        ([], [], []) => return Err(refused("no output has logits [1, n, classes] for the boxes")),
        _ => return Err(refused("several outputs can have the scores")),
    };
    Ok(Form { boxes: matrix(boxes, BOX), numbers })
}

/// Whether this is no grid of boxes.
fn few(desc: &TensorDesc, rows: Option<u32>) -> Result<(), Error> {
    match rows {
        Some(rows) if rows > MOST_BOXES => Err(Error::InvalidConfig(format!(
            "{} has {rows} boxes, and a DETR has at most {MOST_BOXES}: they overlap and need a suppression, as `yolo` and \
             `boxes-scores` have",
            described(desc)
        ))),
        _ => Ok(()),
    }
}

/// Whether an output of boxes and scores has its boxes first, as far as sizes tell. Where it has
/// more numbers than boxes, so many labels must say that they are classes.
fn check_joined(desc: &TensorDesc, rows: u32, labels: usize) -> Result<(), Error> {
    few(desc, Some(rows))?;
    let numbers = width(&desc.shape).unwrap_or(0);
    if numbers <= rows || labels >= (numbers - BOX - 1) as usize {
        return Ok(());
    }
    Err(Error::InvalidConfig(format!(
        "{} has {rows} boxes of {numbers} numbers, more than boxes: if the boxes are its last dimension, `yolo` reads it; if \
         not, name the classes in `labels`",
        described(desc)
    )))
}

/// Boxes and scores in one output, the only one with such a shape.
fn joined(list: &[TensorDesc], set: Option<u32>) -> Option<Form> {
    let [one] = pick(list, set, &[], |shape| width(shape).is_some_and(|n| n > BOX))[..] else { return None };
    let shape = &list[one as usize].shape;
    let whole = Matrix::by_rows(one, rows(shape)?, width(shape)?);
    Some(Form { boxes: whole.part(0..BOX), numbers: Numbers::Classes(whole.part(BOX..whole.width)) })
}

/// The output that is set; else those with such a shape, and of several those with such a name.
fn pick(list: &[TensorDesc], set: Option<u32>, words: &[&str], shape: impl Fn(&[u32]) -> bool) -> Vec<u32> {
    let of_shape = (0u32..).zip(list).filter(|(index, o)| set.is_none_or(|set| set == *index) && shape(&o.shape));
    let of_shape: Vec<_> = of_shape.collect();
    let is_named = |o: &TensorDesc| words.iter().any(|word| o.name.to_lowercase().contains(word));
    let of_name: Vec<_> = of_shape.iter().filter(|(_, o)| is_named(o)).map(|(index, _)| *index).collect();
    if of_name.is_empty() { of_shape.into_iter().map(|(index, _)| index).collect() } else { of_name }
}

/// Boxes of an output `[1, n]`, `[n]`, `[1, n, width]` or `[n, width]`.
fn rows(shape: &[u32]) -> Option<u32> {
    match *shape {
        [n] | [1, n] | [1, n, _] | [n, _] => Some(n),
        _ => None,
    }
}

/// Numbers of each box, if there are several: `[1, n]` is taken as one number each.
fn width(shape: &[u32]) -> Option<u32> {
    match *shape {
        [1, _] => None,
        [1, _, width] | [_, width] => Some(width),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use framehook_sdk::Element;

    use super::*;

    type Output<'a> = (&'a str, &'a [u32]);

    fn desc((name, shape): &Output<'_>) -> TensorDesc {
        TensorDesc { name: (*name).into(), shape: shape.to_vec(), element: Element::Float }
    }

    #[test]
    fn outputs_are_told_apart() {
        let matrix = |output, width| Matrix::by_rows(output, 300, width);
        let of_classes = |boxes, scores, width| {
            Ok(Form { boxes: matrix(boxes, 4), numbers: Numbers::Classes(matrix(scores, width)) })
        };
        let ids = |ids, boxes, scores| {
            let numbers = Numbers::Ids { ids: matrix(ids, 1), scores: matrix(scores, 1) };
            Ok(Form { boxes: matrix(boxes, 4), numbers })
        };
        let joined = matrix(0, 84);
        let joined = Ok(Form { boxes: joined.part(0..4), numbers: Numbers::Classes(joined.part(4..84)) });
        let table: [(&[Output<'_>], _); 13] = [
            (&[("pred_logits", &[1, 300, 92]), ("pred_boxes", &[1, 300, 4])], of_classes(1, 0, 92)),
            (&[("a", &[1, 300, 4]), ("b", &[1, 300, 80])], of_classes(0, 1, 80)),
            (
                &[
                    ("logits", &[1, 300, 92]),
                    ("pred_boxes", &[1, 300, 4]),
                    ("last_hidden_state", &[1, 300, 256]),
                    ("encoder_last_hidden_state", &[1, 850, 256]),
                ],
                of_classes(1, 0, 92),
            ),
            (&[("logits", &[1, 300, 4]), ("boxes", &[1, 300, 4])], of_classes(1, 0, 4)),
            (&[("labels", &[1, 300]), ("boxes", &[1, 300, 4]), ("scores", &[1, 300])], ids(0, 1, 2)),
            (&[("scores", &[300]), ("labels", &[300]), ("boxes", &[300, 4])], ids(1, 2, 0)),
            (&[("output0", &[1, 300, 84])], joined),
            (
                &[("output0", &[1, 84, 8400])],
                Err("84 boxes of 8400 numbers, more than boxes: if the boxes are its last"),
            ),
            (&[("output0", &[1, 25200, 85])], Err("has 25200 boxes, and a DETR has at most 2000")),
            (&[("boxes", &[1, 8732, 4]), ("scores", &[1, 8732, 21])], Err("need a suppression, as `yolo` and")),
            (&[("output0", &[1, 30, 40])], Err("name the classes in `labels`")),
            (&[("a", &[1, 300]), ("b", &[1, 300, 4]), ("c", &[1, 300])], Err("several outputs can have the scores")),
            (&[("a", &[1, 300, 4]), ("b", &[1, 300, 4])], Err("several outputs have the shape of boxes")),
        ];
        for (outputs, expected) in table {
            let list: Vec<_> = outputs.iter().map(desc).collect();
            match (find(&list, &Config::default()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{outputs:?}"),
                (Err(Error::InvalidConfig(message)), Err(words)) => assert!(message.contains(words), "{message}"),
                (found, _) => panic!("{outputs:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn set_names_decide() {
        let list: Vec<_> = [("a", &[1, 300][..]), ("b", &[1, 300, 4]), ("c", &[1, 300])].iter().map(desc).collect();
        let name = |name: &str| Some(name.to_owned());
        let config = Config { classes: name("c"), scores: name("a"), ..Config::default() };
        let Numbers::Ids { ids, scores } = find(&list, &config).unwrap().numbers else { panic!() };
        assert_eq!((ids.output, scores.output), (2, 0));
        let lacking = find(&list, &Config { boxes: name("x"), ..Config::default() });
        assert!(matches!(lacking, Err(Error::InvalidConfig(m)) if m.contains("no output `x`; its outputs are `a`")));
    }
}
