//! Detections from the outputs of the DETR family, without suppression, in one of three forms:
//! - logits or scores `[1, n, classes]` and boxes `[1, n, 4]` (DETR, Deformable DETR, RT-DETR and
//!   its successors without their last step);
//! - both in one output `[1, n, 4 + classes]` (RT-DETR as Ultralytics exports it);
//! - class ids `[1, n]`, boxes `[1, n, 4]` and scores `[1, n]` (RT-DETR, D-FINE, DEIM with their
//!   last step, which are given the frame's size).
//!
//! Each box counts with its best class. What makes scores of the numbers is as configured, or it is
//! recognised on the first frame, and then stays. No score outside of 0 to 1 leaves this plugin:
//! such boxes, and those with NaN or infinite values, are dropped and counted in the log.

mod activation;
mod outputs;

use framehook_sdk::{Candidate, ConfigProblem, Detection, Error, Hook, InputOptions, Resize, Stream, default_input};
use model_outputs::{
    Dropped, Outputs,
    boxes::{self, Format, Units, highest},
    classes::{Activation, Matrix, Scored, best_classes},
    config::{count, problems, share},
    form::FormCheck,
    learnt,
    scores::score,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    activation::{Rule, recognise},
    outputs::{Form, Numbers},
};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Names of the classes, by class id, without the one for no object.
    labels: Vec<String>,
    /// Detections with a lower score are dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// Those with the highest scores are kept.
    #[schemars(range(min = 1, max = 10_000))]
    max_detections: u32,
    /// What makes scores of the numbers: `softmax`, where the last class is no object, `sigmoid`,
    /// or `none`. Left out, it is recognised from the number of labels and from the values.
    activation: Option<Activation>,
    /// What the four numbers of a box are. Left out: `cxcywh`, and with class ids `xyxy`.
    format: Option<Format>,
    /// What boxes are measured in. Left out: `normalised`, and with class ids `frame`.
    units: Option<Units>,
    /// Name of the output with the boxes.
    boxes: Option<String>,
    /// Name of the output with the logits or scores.
    scores: Option<String>,
    /// Name of the output with the class ids.
    classes: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            // Without suppression, what is below is mostly second guesses.
            min_score: 0.5,
            // As many as the largest of these models give.
            max_detections: 300,
            activation: None,
            format: None,
            units: None,
            boxes: None,
            scores: None,
            classes: None,
        }
    }
}

/// Boxes that are looked at; these models give 100 to 1,000.
const MAX_CANDIDATES: u32 = 10_000;

struct Detr {
    config: Config,
    learnt: Learnt,
    dropped: Dropped,
}

#[derive(Default, Deserialize, Serialize)]
struct Learnt {
    /// Once known.
    rule: Option<Rule>,
    form: FormCheck,
}

impl Hook for Detr {
    type Config = Config;

    fn new(stream: &Stream, mut config: Config) -> Result<Self, Error> {
        if config.labels.is_empty() {
            config.labels.clone_from(&stream.model_labels);
        }
        Ok(Self { config, learnt: learnt(), dropped: Dropped::default() })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        problems(&[share(config.min_score, "/min_score"), count(config.max_detections, "/max_detections")])
    }

    /// As most of the family is trained.
    fn input() -> InputOptions {
        InputOptions { resize: Some(Resize::Stretch), ..default_input() }
    }

    fn labels(&self) -> Vec<String> {
        self.config.labels.clone()
    }
}

impl Detr {
    fn find(&mut self, outputs: &impl Outputs) -> Result<Vec<Detection>, Error> {
        let list = outputs.list();
        let Form { boxes, numbers } = outputs::find(&list, &self.config)?;
        let (scored, format, units) = match numbers {
            Numbers::Classes(scores) => (self.best(outputs, scores)?, Format::Cxcywh, Units::Normalised),
            Numbers::Ids { ids, scores } => {
                (by_ids(outputs, ids, scores, self.config.min_score as f32)?, Format::Xyxy, Units::Frame)
            }
        };
        let (format, units) = (self.config.format.unwrap_or(format), self.config.units.unwrap_or(units));
        let numbers = boxes.gather(outputs, scored.candidates.iter().map(|c| c.row))?;
        if let Some(outside) = scored.outside.filter(|_| self.learnt.form.is_new()) {
            let message = format!("`activation`: {outside} stands where scores are: `sigmoid` or `softmax`?");
            return Err(Error::InvalidConfig(message));
        }
        self.learnt.form.check(format, units, &numbers, &outputs.view())?;
        let (found, unusable) = boxes::detections(&scored, &numbers, (format, units), &outputs.view());
        self.dropped.add(unusable);
        Ok(highest(found, self.config.max_detections as usize))
    }

    fn best(&mut self, outputs: &impl Outputs, scores: Matrix) -> Result<Scored, Error> {
        let desc = &outputs.list()[scores.output as usize];
        let rule = match self.learnt.rule {
            Some(rule) if rule.width == scores.width => rule,
            _ => {
                let labels = Some(self.config.labels.len() as u32).filter(|n| *n > 0);
                let numbers = scores.whole(outputs, desc)?;
                let Some(rule) = recognise(&numbers, scores.width, self.config.activation, labels)? else {
                    return Ok(Scored::default());
                };
                *self.learnt.rule.insert(rule)
            }
        };
        let min_score = self.config.min_score as f32;
        best_classes(outputs, desc, (scores, 0..rule.classes), rule.activation, min_score, MAX_CANDIDATES)
    }
}

fn by_ids(outputs: &impl Outputs, ids: Matrix, scores: Matrix, min_score: f32) -> Result<Scored, Error> {
    let (ids, scores) = (ids.gather(outputs, 0..ids.rows)?, scores.gather(outputs, 0..scores.rows)?);
    let mut found = Scored::default();
    for (row, (id, value)) in (0u32..).zip(ids.into_iter().zip(scores)) {
        let is_id = id >= 0.0 && id.fract() == 0.0 && id < u32::MAX as f32;
        match score(value) {
            Some(score) if is_id && score >= min_score => {
                found.candidates.push(Candidate { row, class_id: id as u32, score });
            }
            Some(_) if is_id => {}
            none => {
                found.unusable += 1;
                let outside = if none.is_none() { value } else { id };
                found.outside = found.outside.or(Some(outside).filter(|n| n.is_finite()));
            }
        }
    }
    Ok(found)
}

model_outputs::export!(Detr);

#[cfg(test)]
mod tests;
