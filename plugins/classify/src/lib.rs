//! The best classes of the picture as a whole, from an output `[1, classes]`, `[classes]` or
//! `[1, classes, 1, 1]`.
//!
//! Each is a detection whose box is the whole frame, by falling score. Whether the numbers are
//! probabilities or logits is as configured, or it is recognised on the first frame, and then
//! stays. No score outside of 0 to 1 leaves this plugin: a frame with NaN or infinite values has no
//! classes, and is counted in the log.

use framehook_sdk::{Bbox, ConfigProblem, Detection, Error, Hook, InputOptions, Resize, Stream, default_input};
use model_outputs::{
    Outputs,
    boxes::{detection, highest},
    classes::Activation,
    classifier::Classifier,
    config::{count, problems, share},
    learnt,
    scores::score,
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

/// The whole frame.
const FRAME: Bbox = Bbox { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };

struct Classify {
    config: Config,
    classifier: Classifier,
}

impl Hook for Classify {
    type Config = Config;

    fn new(stream: &Stream, mut config: Config) -> Result<Self, Error> {
        if config.labels.is_empty() {
            config.labels.clone_from(&stream.model_labels);
        }
        let classifier = classifier(&config, learnt());
        Ok(Self { config, classifier })
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

fn classifier(config: &Config, learnt: Option<Activation>) -> Classifier {
    let Config { labels, activation, output, .. } = config.clone();
    Classifier { labels: labels.len(), activation, output, learnt, ..Classifier::default() }
}

impl Classify {
    fn find(&mut self, outputs: &impl Outputs) -> Result<Vec<Detection>, Error> {
        let scores = self.classifier.scores(outputs)?.unwrap_or_default();
        let scores = (0u32..).zip(scores).filter_map(|(class, s)| Some((class, score(s)?)));
        let sure = scores.filter(|(_, score)| f64::from(*score) >= self.config.min_score);
        let found = sure.map(|(class, score)| detection(class, score, FRAME)).collect();
        Ok(highest(found, self.config.top_k as usize))
    }
}

model_outputs::export!(Classify, classifier);

#[cfg(test)]
mod tests;
