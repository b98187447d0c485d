//! The scores of a classifier, from an output `[1, classes]`, `[classes]` or `[1, classes, 1, 1]`.
//!
//! Whether its numbers are probabilities or logits is as configured, or it is recognised on the first
//! picture, and then stays.

use framehook_sdk::{Error, TensorDesc};

use crate::{
    Dropped, Outputs,
    classes::{Activation, Matrix},
    described, described_all, named,
    scores::{is_score, sigmoid, softmax},
};

/// By which a sum of rounded probabilities may differ from 1.
const ROUNDING: f32 = 0.02;

#[derive(Debug, Default)]
pub struct Classifier {
    /// How many classes have names; 0 if none has.
    pub labels: usize,
    /// What makes scores of the numbers, if that is configured.
    pub activation: Option<Activation>,
    /// Name of the output, if it is configured.
    pub output: Option<String>,
    /// The activation, once recognised.
    pub learnt: Option<Activation>,
    pub dropped: Dropped,
}

impl Classifier {
    /// A score of 0 to 1 for each class; `None` where the numbers are not finite, which is counted.
    ///
    /// # Errors
    /// When the outputs are not those of a classifier, or it is unclear what their numbers are.
    pub fn scores(&mut self, outputs: &impl Outputs) -> Result<Option<Vec<f32>>, Error> {
        let list = outputs.list();
        let (output, classes) = self.find_output(&list)?;
        let desc = &list[output as usize];
        let numbers = Matrix::by_rows(output, 1, classes).whole(outputs, desc)?;
        if !numbers.iter().all(|n| n.is_finite()) {
            self.dropped.add(1);
            return Ok(None);
        }
        let activation = match self.activation.or(self.learnt) {
            Some(activation) => activation,
            None => *self.learnt.insert(recognise(&numbers, desc)?),
        };
        let scores = match activation {
            Activation::None => numbers,
            Activation::Sigmoid => numbers.into_iter().map(sigmoid).collect(),
            Activation::Softmax => softmax(&numbers),
        };
        match scores.iter().find(|score| !is_score(**score)) {
            None => Ok(Some(scores)),
            Some(outside) => Err(Error::InvalidConfig(format!(
                "`activation`: {outside} stands where scores are: `sigmoid` or `softmax`?"
            ))),
        }
    }

    /// The output and the number of its classes.
    fn find_output(&self, outputs: &[TensorDesc]) -> Result<(u32, u32), Error> {
        let named = named(outputs, "output", self.output.as_deref())?;
        let candidates = (0u32..).zip(outputs).filter(|(index, _)| named.is_none_or(|named| named == *index));
        let fits: Vec<_> = candidates.filter_map(|(index, o)| Some((index, classes(&o.shape)?))).collect();
        let refused =
            |message: &str| Err(Error::InvalidConfig(format!("{message}; the outputs are {}", described_all(outputs))));
        match (&fits[..], self.labels) {
            ([(_, classes)], labels) if labels > 0 && labels != *classes as usize => {
                refused(&format!("the model has {classes} classes, but `labels` names {labels}"))
            }
            ([one], _) => Ok(*one),
            ([], _) => refused("no output has the shape [1, classes]"),
            _ => refused("several outputs have the shape [1, classes]: set `output`"),
        }
    }
}

/// Softmax of a single number would always be 1.
fn recognise(numbers: &[f32], desc: &TensorDesc) -> Result<Activation, Error> {
    let sum: f32 = numbers.iter().sum();
    let are_scores = numbers.iter().all(|n| is_score(*n));
    match (are_scores, numbers.len()) {
        (false, 1) => Ok(Activation::Sigmoid),
        (false, _) => Ok(Activation::Softmax),
        (true, 2..) if (sum - 1.0).abs() <= ROUNDING => Ok(Activation::None),
        (true, _) => Err(Error::InvalidConfig(format!(
            "the numbers of {} are between 0 and 1 and their sum is {sum}, so they can be scores of several classes at \
             once or logits: set `activation` to `none`, or to `sigmoid` or `softmax`",
            described(desc)
        ))),
    }
}

fn classes(shape: &[u32]) -> Option<u32> {
    match *shape {
        [n] | [1, n] | [1, n, 1, 1] | [1, 1, 1, n] if n > 0 => Some(n),
        _ => None,
    }
}
