//! Which output has the boxes and which the scores: by name, or by shape.

use framehook_sdk::{Error, TensorDesc};
use model_outputs::{classes::Matrix, described_all, named};

use crate::Config;

/// The only pair of outputs whose shapes fit each other.
pub(crate) fn find(list: &[TensorDesc], config: &Config) -> Result<(Matrix, Matrix), Error> {
    let boxes = candidates(list, named(list, "boxes", config.boxes.as_deref())?);
    let scores = candidates(list, named(list, "scores", config.scores.as_deref())?);
    let pairs: Vec<_> = boxes
        .filter_map(|(index, desc)| boxes_of(index, &desc.shape))
        .flat_map(|boxes| {
            let others = scores.clone().filter(move |(index, _)| *index != boxes.output);
            others.filter_map(move |(index, desc)| Some((boxes, scores_of(index, &desc.shape, boxes.rows)?)))
        })
        .collect();
    match pairs[..] {
        [pair] => Ok(pair),
        [] => Err(refused("no two outputs are boxes [1, n, 4] and scores [1, n, classes]", list)),
        _ => Err(refused("several outputs can be the boxes or the scores: set `boxes` and `scores`", list)),
    }
}

fn refused(message: &str, list: &[TensorDesc]) -> Error {
    Error::InvalidConfig(format!("{message}; the outputs are {}", described_all(list)))
}

/// The named output, or all.
fn candidates(list: &[TensorDesc], named: Option<u32>) -> impl Iterator<Item = (u32, &TensorDesc)> + Clone {
    (0u32..).zip(list).filter(move |(index, _)| named.is_none_or(|named| named == *index))
}

fn boxes_of(output: u32, shape: &[u32]) -> Option<Matrix> {
    match *shape {
        [n, 4] | [1, n, 4] | [1, n, 1, 4] => Some(Matrix::by_rows(output, n, 4)),
        [1, 4, n] => Some(Matrix::by_columns(output, n, 4)),
        _ => None,
    }
}

fn scores_of(output: u32, shape: &[u32], boxes: u32) -> Option<Matrix> {
    match *shape {
        [n] | [1, n] if n == boxes => Some(Matrix::by_rows(output, n, 1)),
        [n, classes] | [1, n, classes] if n == boxes => Some(Matrix::by_rows(output, n, classes)),
        [1, classes, n] if n == boxes => Some(Matrix::by_columns(output, n, classes)),
        _ => None,
    }
}
