//! The best classes of the picture as a whole, from an output `[1, classes]`, `[classes]` or
//! `[1, classes, 1, 1]`.
//!
//! Each is a detection whose box is the whole frame, by falling score. Whether the numbers are
//! probabilities or logits is as configured, or it is recognised on the first frame, and then
//! stays. No score outside of 0 to 1 leaves this plugin: a frame with NaN or infinite values has no
//! classes, and is counted in the log.

use framehook_sdk::{
    Bbox, ConfigProblem, Detection, Error, Hook, InputOptions, Resize, Stream, TensorDesc, default_input,
};
use model_outputs::{
    Dropped, Outputs,
    boxes::{detection, highest},
    classes::{Activation, Matrix},
    config::{count, problems, share},
    described, described_all, learnt, named,
    scores::{is_score, score, sigmoid, softmax},
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Names of the classes, by class id.
    labels: Vec<String>,
    /// So many classes at most, those with the highest scores.
    #[schemars(range(min = 1, max = 10_000))]
    top_k: u32,
    /// Classes with a lower score are dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// What makes scores of the numbers. Left out: nothing where they are probabilities whose sum
    /// is 1, softmax where some are outside of 0 to 1.
    activation: Option<Activation>,
    /// Name of the output to read. Needed only if several have the layout.
    output: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        // Five are what classifiers are compared by; what is below 1 % is noise.
        Self { labels: Vec::new(), top_k: 5, min_score: 0.01, activation: None, output: None }
    }
}

/// By which a sum of rounded probabilities may differ from 1.
const ROUNDING: f32 = 0.02;
/// The whole frame.
const FRAME: Bbox = Bbox { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };

struct Classify {
    config: Config,
    /// The activation, once recognised.
    learnt: Option<Activation>,
    dropped: Dropped,
}

impl Hook for Classify {
    type Config = Config;

    fn new(stream: &Stream, mut config: Config) -> Result<Self, Error> {
        if config.labels.is_empty() {
            config.labels.clone_from(&stream.model_labels);
        }
        Ok(Self { config, learnt: learnt(), dropped: Dropped::default() })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        problems(&[share(config.min_score, "/min_score"), count(config.top_k, "/top_k")])
    }

    /// The whole picture, without bars, which a classifier has never seen.
    fn input() -> InputOptions {
        InputOptions { resize: Some(Resize::Stretch), ..default_input() }
    }

    fn labels(&self) -> Vec<String> {
        self.config.labels.clone()
    }
}

impl Classify {
    fn find(&mut self, outputs: &impl Outputs) -> Result<Vec<Detection>, Error> {
        let list = outputs.list();
        let (output, classes) = find_output(&list, &self.config)?;
        let desc = &list[output as usize];
        let numbers = Matrix::by_rows(output, 1, classes).whole(outputs, desc)?;
        if !numbers.iter().all(|n| n.is_finite()) {
            self.dropped.add(1);
            return Ok(Vec::new());
        }
        let activation = match self.config.activation.or(self.learnt) {
            Some(activation) => activation,
            None => *self.learnt.insert(recognise(&numbers, desc)?),
        };
        let scores = match activation {
            Activation::None => numbers,
            Activation::Sigmoid => numbers.into_iter().map(sigmoid).collect(),
            Activation::Softmax => softmax(&numbers),
        };
        if let Some(outside) = scores.iter().find(|s| !is_score(**s)) {
            let message = format!("`activation`: {outside} stands where scores are: `sigmoid` or `softmax`?");
            return Err(Error::InvalidConfig(message));
        }
        let scores = (0u32..).zip(scores).filter_map(|(class, s)| Some((class, score(s)?)));
        let sure = scores.filter(|(_, score)| f64::from(*score) >= self.config.min_score);
        let found = sure.map(|(class, score)| detection(class, score, FRAME)).collect();
        Ok(highest(found, self.config.top_k as usize))
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

/// The output and the number of its classes.
fn find_output(outputs: &[TensorDesc], config: &Config) -> Result<(u32, u32), Error> {
    let named = named(outputs, "output", config.output.as_deref())?;
    let candidates = (0u32..).zip(outputs).filter(|(index, _)| named.is_none_or(|named| named == *index));
    let fits: Vec<_> = candidates.filter_map(|(index, o)| Some((index, classes(&o.shape)?))).collect();
    let refused =
        |message: &str| Err(Error::InvalidConfig(format!("{message}; the outputs are {}", described_all(outputs))));
    match (&fits[..], config.labels.len()) {
        ([(_, classes)], labels) if labels > 0 && labels != *classes as usize => {
            refused(&format!("the model has {classes} classes, but `labels` names {labels}"))
        }
        ([one], _) => Ok(*one),
        ([], _) => refused("no output has the shape [1, classes]"),
        _ => refused("several outputs have the shape [1, classes]: set `output`"),
    }
}

fn classes(shape: &[u32]) -> Option<u32> {
    match *shape {
        [n] | [1, n] | [1, n, 1, 1] | [1, 1, 1, n] if n > 0 => Some(n),
        _ => None,
    }
}

model_outputs::export!(Classify);

#[cfg(test)]
mod tests;
