//! Detections from the heads of the YOLO family: one output `[1, numbers, boxes]` or
//! `[1, boxes, numbers]`, whose boxes are in pixels of the model's input.
//!
//! The head is as configured, or it is recognised from shape and values of the first frame on which something
//! is found, and then stays. Keypoints of a pose are those of its detection, without their visibilities. A
//! rotated box is the upright box around it, with its four corners as outline and its angle as an attribute;
//! suppression compares the rotated ones. No score outside of 0 to 1 leaves this plugin: such boxes, and
//! those with NaN or infinite values, are dropped and counted in the log.

mod decode;
mod head;
mod judge;
mod masks;
mod rotated;
mod sample;

use framehook_sdk::{
    ConfigProblem, Detection, Error, Hook, Stream, TensorDesc,
    geometry::{nms, nms_by},
};
use model_outputs::{
    Dropped, Outputs,
    boxes::highest,
    config::{count, problems, share},
    described, described_all, learnt, named,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    decode::decode,
    head::{BOX, Grid, Head, Kind},
    judge::{Fit, Known, SURE, Verdict, judge},
    sample::Sample,
};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Names of the classes, by class id.
    labels: Vec<String>,
    /// How the output is read. Left out, it is recognised from shape and values.
    head: Option<Kind>,
    /// Detections with a lower score are dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// Where two detections of one class overlap by more than this, the one with the lower score is
    /// dropped. Not for `end2end`.
    #[schemars(range(min = 0.0, max = 1.0))]
    iou: f64,
    /// Those with the highest scores are kept.
    #[schemars(range(min = 1, max = 10_000))]
    max_detections: u32,
    /// Whether objects get a mask, where the model has masks.
    masks: bool,
    /// Name of the output to read. Needed only if several have the layout.
    output: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            head: None,
            // What the family's own tools use.
            min_score: 0.25,
            // Tight enough for people side by side, loose enough for one person found twice.
            iou: 0.45,
            // More than a person can look at.
            max_detections: 300,
            masks: true,
            output: None,
        }
    }
}

/// Frames without objects on which a head that is set is still looked at: some seconds of a video.
const LOOKS: u32 = 100;

struct Yolo {
    config: Config,
    learnt: Learnt,
    dropped: Dropped,
}

#[derive(Default, Deserialize, Serialize)]
struct Learnt {
    /// Once recognised, with the number of its output.
    head: Option<(u32, Head)>,
    /// Frames on which what is set was looked at.
    looks: u32,
}

impl Hook for Yolo {
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

impl Yolo {
    fn find(&mut self, outputs: &impl Outputs) -> Result<Vec<Detection>, Error> {
        let list = outputs.list();
        let (output, head) = match self.learnt.head {
            Some((output, head)) => (output, refit(head, list.get(output as usize))?),
            None => {
                let output = find_output(&list, &self.config)?;
                let Some(head) = self.recognise(outputs, output, &list)? else { return Ok(Vec::new()) };
                (output, head)
            }
        };
        let found = decode(outputs, output, head, self.config.min_score as f32)?;
        self.dropped.add(found.unusable);
        let (iou, max) = (self.config.iou as f32, self.config.max_detections as usize);
        let mut kept = match head.kind {
            Kind::End2End => highest(found.detections, max),
            Kind::Obb => nms_by(found.detections, iou, max, rotated::iou),
            _ => nms(found.detections, iou, max),
        };
        if head.has_coefficients() {
            let list = if self.config.masks { &list[..] } else { &[] };
            masks::add(outputs, output, head, list, &mut kept)?;
        }
        Ok(kept)
    }

    /// The head, which stays if something was found. `None` while several fit and none finds
    /// anything.
    fn recognise(&mut self, outputs: &impl Outputs, output: u32, list: &[TensorDesc]) -> Result<Option<Head>, Error> {
        let desc = &list[output as usize];
        let known = Known {
            kind: self.config.head,
            classes: Some(self.config.labels.len() as u32).filter(|n| *n > 0),
            masks: list.iter().any(|o| matches!(o.shape[..], [1, 32, _, _])),
        };
        let take = |grid| Sample::take(outputs, output, grid).map(|sample| (grid, sample));
        let samples = Grid::both(&desc.shape).into_iter().map(take).collect::<Result<Vec<_>, _>>()?;
        let judged = |known| samples.iter().map(|(grid, sample)| judge(*grid, sample, known)).collect::<Vec<_>>();
        let verdicts = judged(known);
        // A score of 0 is no sign of anything, whatever the threshold.
        let threshold = (self.config.min_score as f32).max(f32::MIN_POSITIVE);
        let fits: Vec<_> = verdicts.iter().flat_map(|verdict| &verdict.fits).collect();
        let finds: Vec<_> = fits.iter().copied().filter(|fit| fit.highest >= threshold).collect();
        let others = || others(known, threshold, judged);
        match (&fits[..], &finds[..]) {
            ([], _) if verdicts.iter().all(|verdict| verdict.is_blank) => Ok(None),
            ([], _) => Err(Error::InvalidConfig(fits_nothing(desc, known, &verdicts, &others()))),
            (_, [a, b, ..]) => Err(Error::InvalidConfig(fits_two(desc, a.head, b.head))),
            (_, []) if is_seen_otherwise(&fits, &others()) => {
                Err(Error::InvalidConfig(fits_nothing(desc, known, &verdicts, &others())))
            }
            (_, [fit]) | ([fit], []) => {
                // What is set may fit a frame without objects though it is wrong.
                self.learnt.looks += 1;
                let is_shown = known.kind.is_none() || !finds.is_empty() || self.learnt.looks >= LOOKS;
                self.learnt.head = (fit.highest > 0.0 && is_shown).then_some((output, fit.head));
                Ok(Some(fit.head))
            }
            (_, []) => {
                // Seen both ways; the boxes are rarely the fewer ones.
                self.dropped.add(verdicts.iter().map(|verdict| verdict.unusable).max().unwrap_or(0));
                Ok(None)
            }
        }
    }
}

/// What the values look like to one who does not know which head is set: heads that find something
/// for certain. Nothing where none is set.
fn others(known: Known, threshold: f32, judged: impl Fn(Known) -> Vec<Verdict>) -> Vec<Head> {
    let Some(set) = known.kind else { return Vec::new() };
    let verdicts = judged(Known { kind: None, ..known });
    let fits = verdicts.iter().flat_map(|verdict| &verdict.fits);
    fits.filter(|fit| fit.head.kind != set && fit.highest >= threshold.max(SURE)).map(|fit| fit.head).collect()
}

/// Whether what is set fits only where boxes and numbers change places, and another head finds
/// something the right way round. A raw output that is seen the wrong way round has pixels where
/// scores are, so that nothing is found there.
fn is_seen_otherwise(fits: &[&Fit], others: &[Head]) -> bool {
    let is_turned = |fit: &&Fit| others.iter().all(|other| other.columns != fit.head.columns);
    !others.is_empty() && fits.iter().all(is_turned)
}

/// The same head on this frame's output, whose number of boxes may be another.
fn refit(head: Head, output: Option<&TensorDesc>) -> Result<Head, Error> {
    output.and_then(|o| head.refit(&o.shape)).ok_or_else(|| {
        let now = output.map_or("nothing".into(), described);
        Error::InvalidConfig(format!("the output was {} and is now {now}", described_head(head)))
    })
}

fn find_output(outputs: &[TensorDesc], config: &Config) -> Result<u32, Error> {
    if let Some(output) = named(outputs, "output", config.output.as_deref())? {
        return Ok(output);
    }
    // With up to four boxes it could be an output of boxes. Without any, nothing was found.
    let is_head =
        |o: &TensorDesc| matches!(o.shape[..], [1, a, b] if a.min(b) > BOX || (a.min(b) == 0 && a.max(b) > BOX));
    (0u32..).zip(outputs).find(|(_, o)| is_head(o)).map(|(index, _)| index).ok_or_else(|| {
        let there = described_all(outputs);
        Error::InvalidConfig(format!("no output has the shape [1, 4 + classes, boxes] or its transpose: {there}"))
    })
}

fn fits_two(desc: &TensorDesc, a: Head, b: Head) -> String {
    let heads = format!("both {} and {}", described_head(a), described_head(b));
    let set = if a.kind == b.kind { "labels" } else { "head" };
    format!("{} fits {heads}: set `{set}`", described(desc))
}

fn fits_nothing(desc: &TensorDesc, known: Known, verdicts: &[Verdict], others: &[Head]) -> String {
    // Where it was seen both ways, the one with more boxes tells more.
    let against = verdicts.iter().filter(|v| !v.against.is_empty()).max_by_key(|v| v.against[0].0.boxes);
    let against = against.map_or(&[][..], |verdict| &verdict.against);
    let labels = known.classes.and_then(|labels| other_classes(desc, known.kind.unwrap_or(Kind::V8), labels));
    let set = if labels.is_some() { "`labels` or `head`" } else { "`head`" };
    let reasons = against.iter().map(|(head, reason)| format!("{}: {reason}", described_head(*head)));
    let mut reasons: Vec<_> = labels.into_iter().chain(reasons).collect();
    if reasons.is_empty() || !others.is_empty() {
        reasons.extend(known.kind.map(|kind| other_numbers(desc, kind, known.classes)));
    }
    if !others.is_empty() {
        let heads: Vec<_> = others.iter().copied().map(described_head).collect();
        reasons.push(format!("the values look like {}", heads.join(" or ")));
    }
    let head = known.kind.map_or("no head fits".into(), |kind| format!("`head`: `{}` does not fit", kind.name()));
    let remedy = format!("set {set} to what the model has; `detr` and `boxes-scores` read other models");
    format!("{head} {}: {}; {remedy}", described(desc), reasons.join("; "))
}

/// How many numbers a box has, and how many it would need.
fn other_numbers(desc: &TensorDesc, kind: Kind, classes: Option<u32>) -> String {
    let widths: Vec<_> = Grid::both(&desc.shape).iter().map(|grid| grid.width.to_string()).collect();
    let labels = classes.map(|n| format!(" of the {n} in `labels`")).unwrap_or_default();
    format!("a box has {} numbers, and one of `{}` has {}{labels}", widths.join(" or "), kind.name(), kind.numbers())
}

/// How many classes there would be, where labels say another number.
fn other_classes(desc: &TensorDesc, kind: Kind, labels: u32) -> Option<String> {
    let usual = Grid::both(&desc.shape).into_iter().max_by_key(|grid| grid.boxes)?;
    let head = Head::new(kind, usual, None, 0, 0).filter(|head| head.classes != labels)?;
    Some(format!("as `{}` it has {} classes, but `labels` names {labels}", kind.name(), head.classes))
}

fn described_head(head: Head) -> String {
    let name = head.kind.name();
    match head.classes {
        0 => format!("`{name}` with {} boxes", head.boxes),
        1 => format!("`{name}` with 1 class and {} boxes", head.boxes),
        classes => format!("`{name}` with {classes} classes and {} boxes", head.boxes),
    }
}

model_outputs::export!(Yolo);

#[cfg(test)]
mod tests;
