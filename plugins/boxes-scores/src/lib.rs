//! Detections from two outputs: boxes, `[1, n, 4]`, and scores, `[1, n, classes]` or `[1, n]`;
//! boxes last (`[1, 4, n]`), without the 1, and `[1, n, 1, 4]` as well. Torchvision, SSD,
//! EfficientDet, YOLO-NAS and many others export these.
//!
//! What the numbers are cannot be seen, so it is configured; what contradicts it on the first frame
//! on which something is found is an error. No score outside of 0 to 1 leaves this plugin: such
//! boxes, and those with NaN or infinite values, are dropped and counted in the log.

mod outputs;

use framehook_sdk::{ConfigProblem, Detection, Error, Hook, Stream, geometry::nms};
use model_outputs::{
    Dropped, Outputs,
    boxes::{self, Format, Units},
    classes::{Activation, Matrix, best_classes},
    config::{count, problems, share},
    form::FormCheck,
    learnt,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// What is no class in the scores.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Background {
    /// Every number is a class.
    None,
    /// The first is the background.
    First,
    /// The last is the background.
    Last,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What the four numbers of a box are.
    format: Format,
    /// What boxes are measured in.
    units: Units,
    /// Name of the output with the boxes. Needed only if several have the layout.
    #[serde(default)]
    boxes: Option<String>,
    /// Name of the output with the scores. Needed only if several have the layout.
    #[serde(default)]
    scores: Option<String>,
    /// What makes scores of the numbers.
    #[serde(default = "scores_already")]
    activation: Activation,
    /// Which of the scores is that of the background. It has no class id: the others begin at 0.
    #[serde(default = "no_background")]
    background: Background,
    /// Names of the classes, by class id, without the background.
    #[serde(default)]
    labels: Vec<String>,
    /// Detections with a lower score are dropped.
    #[serde(default = "default_min_score")]
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// Where two detections of one class overlap by more than this, the one with the lower score is
    /// dropped. 1 keeps all.
    #[serde(default = "default_iou")]
    #[schemars(range(min = 0.0, max = 1.0))]
    iou: f64,
    /// Those with the highest scores are kept.
    #[serde(default = "default_max_detections")]
    #[schemars(range(min = 1, max = 10_000))]
    max_detections: u32,
}

const fn scores_already() -> Activation {
    Activation::None
}

const fn no_background() -> Background {
    Background::None
}

/// What most of these models' own tools use, and `yolo`.
const fn default_min_score() -> f64 {
    0.25
}

/// As `yolo`: tight enough for people side by side, loose enough for one person found twice.
const fn default_iou() -> f64 {
    0.45
}

/// More than a person can look at.
const fn default_max_detections() -> u32 {
    300
}

/// Boxes that go into the suppression, whose cost grows with their square.
const MAX_CANDIDATES: u32 = 3_000;

struct BoxesScores {
    config: Config,
    learnt: FormCheck,
    dropped: Dropped,
}

impl Hook for BoxesScores {
    type Config = Config;

    fn new(stream: &Stream, mut config: Config) -> Result<Self, Error> {
        if config.labels.is_empty() {
            config.labels.clone_from(&stream.model_labels);
        }
        Ok(Self { config, learnt: learnt(), dropped: Dropped::default() })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        problems(&[
            share(config.min_score, "/min_score"),
            share(config.iou, "/iou"),
            count(config.max_detections, "/max_detections"),
        ])
    }

    fn labels(&self) -> Vec<String> {
        self.config.labels.clone()
    }
}

impl BoxesScores {
    fn find(&mut self, outputs: &impl Outputs) -> Result<Vec<Detection>, Error> {
        let Config { format, units, activation, .. } = self.config;
        let list = outputs.list();
        let (boxes, scores) = outputs::find(&list, &self.config)?;
        let desc = &list[scores.output as usize];
        let classes = self.classes(scores)?;
        let min_score = self.config.min_score as f32;
        let scored = best_classes(outputs, desc, (scores, classes), activation, min_score, MAX_CANDIDATES)?;
        let numbers = boxes.gather(outputs, scored.candidates.iter().map(|c| c.row))?;
        if let Some(outside) = scored.outside.filter(|_| self.learnt.is_new()) {
            let message = format!("`activation`: {outside} stands where scores are: `sigmoid` or `softmax`?");
            return Err(Error::InvalidConfig(message));
        }
        self.learnt.check(format, units, &numbers, &outputs.view())?;
        let (found, unusable) = boxes::detections(&scored, &numbers, (format, units), &outputs.view());
        self.dropped.add(unusable);
        Ok(nms(found, self.config.iou as f32, self.config.max_detections as usize))
    }

    /// Those numbers of a box that are classes.
    fn classes(&self, scores: Matrix) -> Result<std::ops::Range<u32>, Error> {
        let (labels, width) = (self.config.labels.len(), scores.width);
        let classes = match self.config.background {
            Background::None => 0..width,
            Background::First => 1.min(width)..width,
            Background::Last => 0..width.saturating_sub(1),
        };
        if labels > 0 && classes.len() != labels {
            let message =
                format!("the model has {} classes, but `labels` names {labels}; see `background`", classes.len());
            return Err(Error::InvalidConfig(message));
        }
        Ok(classes)
    }
}

model_outputs::export!(BoxesScores);

#[cfg(test)]
mod tests;
