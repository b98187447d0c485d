//! The best class of each box, where scores are a matrix of boxes and classes.

use std::ops::Range;

use framehook_sdk::{Candidate, ClassScores, Error, TensorDesc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    MAX_WHOLE, Outputs, described,
    scores::{best, logit, score, sigmoid, softmax},
};

/// What makes scores of a model's numbers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// They are scores.
    None,
    /// Each for itself.
    Sigmoid,
    /// All of a box together.
    Softmax,
}

/// Where the numbers of boxes lie in an output. Its number of elements fits 32 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Matrix {
    pub output: u32,
    pub rows: u32,
    pub width: u32,
    pub row_stride: u32,
    pub stride: u32,
    /// Where the first number lies.
    pub offset: u32,
}

impl Matrix {
    /// Boxes first, or alone.
    #[must_use]
    pub const fn by_rows(output: u32, rows: u32, width: u32) -> Self {
        Self { output, rows, width, row_stride: width, stride: 1, offset: 0 }
    }

    /// Boxes last.
    #[must_use]
    pub const fn by_columns(output: u32, rows: u32, width: u32) -> Self {
        Self { output, rows, width, row_stride: 1, stride: rows, offset: 0 }
    }

    /// Some of the numbers of each box.
    #[must_use]
    pub const fn part(self, numbers: Range<u32>) -> Self {
        let offset = self.offset + numbers.start * self.stride;
        Self { width: numbers.end - numbers.start, offset, ..self }
    }

    /// The numbers of these rows, row by row.
    ///
    /// # Errors
    /// When they are not there.
    pub fn gather(self, outputs: &impl Outputs, rows: impl Iterator<Item = u32>) -> Result<Vec<f32>, Error> {
        let row = |row| (0..self.width).map(move |n| self.offset + row * self.row_stride + n * self.stride);
        outputs.gather(self.output, &rows.flat_map(row).collect::<Vec<_>>())
    }

    /// All numbers, row by row.
    ///
    /// # Errors
    /// When they are too many, or not there.
    pub fn whole(self, outputs: &impl Outputs, desc: &TensorDesc) -> Result<Vec<f32>, Error> {
        if self.rows as usize * self.width as usize > MAX_WHOLE {
            return Err(Error::InvalidConfig(format!("{} is too large to be read as a whole", described(desc))));
        }
        self.gather(outputs, 0..self.rows)
    }

    const fn class_scores(self) -> ClassScores {
        ClassScores {
            rows: self.rows,
            classes: self.width,
            offset: self.offset,
            row_stride: self.row_stride,
            class_stride: self.stride,
        }
    }
}

/// The best classes, and how many boxes have none because of NaN, infinite values or such.
#[derive(Debug, Default)]
pub struct Scored {
    pub candidates: Vec<Candidate>,
    pub unusable: usize,
    /// One of those values that are finite, but no scores.
    pub outside: Option<f32>,
}

/// The best of `classes` of each row whose score is at least `min_score`; the first of them is
/// class 0. With softmax, the others have their share.
///
/// # Errors
/// When the scores are not there.
pub fn best_classes(
    outputs: &impl Outputs,
    desc: &TensorDesc,
    (matrix, classes): (Matrix, Range<u32>),
    activation: Activation,
    min_score: f32,
    limit: u32,
) -> Result<Scored, Error> {
    let scores = matrix.part(classes.clone()).class_scores();
    match activation {
        Activation::Softmax => {
            let rows = matrix.whole(outputs, desc)?;
            Ok(by_softmax(&rows, matrix.width, classes, min_score, limit))
        }
        Activation::Sigmoid => {
            let found = outputs.argmax_rows(matrix.output, scores, logit(min_score), limit)?;
            let finite = |c: &Candidate| if c.score.is_finite() { sigmoid(c.score) } else { f32::NAN };
            Ok(scored(found.iter().map(|c| Candidate { score: finite(c), ..*c })))
        }
        Activation::None => Ok(scored(outputs.argmax_rows(matrix.output, scores, min_score, limit)?.into_iter())),
    }
}

fn scored(candidates: impl Iterator<Item = Candidate>) -> Scored {
    let mut scored = Scored::default();
    for candidate in candidates {
        match score(candidate.score) {
            Some(score) => scored.candidates.push(Candidate { score, ..candidate }),
            None => {
                scored.unusable += 1;
                scored.outside = scored.outside.or(Some(candidate.score).filter(|score| score.is_finite()));
            }
        }
    }
    scored
}

fn by_softmax(numbers: &[f32], width: u32, classes: Range<u32>, min_score: f32, limit: u32) -> Scored {
    let range = classes.start as usize..classes.end as usize;
    let mut found = Scored::default();
    for (row, logits) in (0u32..).zip(numbers.chunks_exact(width.max(1) as usize)) {
        if !logits.iter().all(|n| n.is_finite()) {
            found.unusable += 1;
        } else if let Some((class, score)) = best(&softmax(logits)[range.clone()])
            && score >= min_score
        {
            found.candidates.push(Candidate { row, class_id: class as u32, score: score.min(1.0) });
        }
    }
    found.candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.candidates.truncate(limit as usize);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn run(activation: Activation, classes: Range<u32>, data: &[f32], rows: u32) -> Scored {
        let width = data.len() as u32 / rows;
        let memory = Memory::new(&[("s", &[1, rows, width], data)]);
        let desc = &memory.list()[0];
        best_classes(&memory, desc, (Matrix::by_rows(0, rows, width), classes), activation, 0.3, 9).unwrap()
    }

    #[test]
    fn activations_give_scores() {
        let logits = [1.0, 2.0, 3.0, -9.0, -9.0, 0.0];
        let seen = |found: Scored| found.candidates.iter().map(|c| (c.row, c.class_id)).collect::<Vec<_>>();
        assert_eq!(seen(run(Activation::Sigmoid, 0..3, &logits, 2)), [(0, 2), (1, 2)]);
        assert_eq!(seen(run(Activation::Softmax, 0..3, &logits, 2)), [(1, 2), (0, 2)]);
        // Without the last, which still has its share: 0.24 is the most.
        assert_eq!(seen(run(Activation::Softmax, 0..2, &logits, 2)), []);
        assert_eq!(seen(run(Activation::Sigmoid, 1..3, &logits, 2)), [(0, 1), (1, 1)]);
    }

    #[test]
    fn what_is_no_score_is_counted() {
        let found = run(Activation::None, 0..2, &[0.9, 0.1, 7.0, 0.0, f32::INFINITY, 0.5, 0.2, f32::NAN], 4);
        assert_eq!((found.candidates.len(), found.unusable, found.outside), (1, 2, Some(7.0)));
        for activation in [Activation::Sigmoid, Activation::Softmax] {
            let found = run(activation, 0..1, &[f32::INFINITY, 3.0], 2);
            assert_eq!((found.candidates.len(), found.unusable), (1, 1), "{activation:?}");
        }
    }
}
