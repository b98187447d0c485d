//! Which head an output is: by its shape, by the number of labels, and by the values of the first
//! frame on which something is found. What fits two heads is an error that names both.

use std::ops::Range;

use model_outputs::{boxes::look_normalised, scores::is_score};

use crate::{
    head::{BOX, Grid, Head, Kind},
    sample::{NOTICED, Sample},
};

/// What is known beside the values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// As configured; `None` has every head tried.
    pub(crate) kind: Option<Kind>,
    /// The number of labels, if there are any.
    pub(crate) classes: Option<u32>,
    /// Another output has the shape of mask prototypes.
    pub(crate) masks: bool,
}

/// The heads that an output can be, and why it is not one of the others.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) fits: Vec<Fit>,
    pub(crate) against: Vec<(Head, String)>,
    /// There is nothing but zeros.
    pub(crate) is_blank: bool,
    /// Boxes with NaN or infinite values.
    pub(crate) unusable: usize,
}

#[derive(Debug)]
pub(crate) struct Fit {
    pub(crate) head: Head,
    /// The highest score that it finds.
    pub(crate) highest: f32,
}

/// More classes than any model has.
const MOST_CLASSES: u32 = 100_000;
/// More boxes than an end-to-end head gives; a grid has more.
const MOST_END2END: u32 = 1_000;
/// Scores that fall from the first box to the last are a sorted list from this many on.
const SORTED: usize = 8;
/// A keypoint lies somewhere in the picture, in pixels; coefficients of masks are smaller numbers.
const FAR: f32 = 16.0;
/// Fewer than one box of so many is an object.
const MANY: usize = 4;
/// Fewer boxes than any detector's grid has.
const GRID: usize = 400;
/// The objectness of what is an object for certain, so that a v5 has a class for it.
const CERTAIN: f32 = 0.5;
/// A score that leaves little doubt; or an angle, if all that is certain has one.
pub(crate) const SURE: f32 = 0.25;

/// Judges an output that is seen in one of the two ways.
pub(crate) fn judge(grid: Grid, sample: &Sample, known: Known) -> Verdict {
    let mut verdict = Verdict { is_blank: sample.is_blank(), unusable: sample.unusable(), ..Verdict::default() };
    for head in heads(grid, sample, known) {
        let unlikely = || match (known.kind, known.classes) {
            (None, _) => unlikely(head, sample, known),
            (Some(_), _) if is_end2end_for_certain(head, sample, known) => {
                Some("whole numbers stand behind the score of each box, as class ids do".into())
            }
            // Labels say how many of the numbers are classes.
            (Some(_), None) => contradicted(head, sample, known),
            (Some(_), Some(_)) => None,
        };
        match refuted(head, sample, known).or_else(unlikely) {
            Some(reason) => verdict.against.push((head, reason)),
            None => verdict.fits.push(Fit { head, highest: sample.highest(head) }),
        }
    }
    let is_end2end = |fit: &Fit| fit.head.kind == Kind::End2End;
    if is_sorted(sample) && verdict.fits.iter().any(is_end2end) {
        verdict.fits.retain(is_end2end);
    }
    verdict
}

/// Those whose shape fits. A keypoint is x, y and visibility where it can be.
fn heads(grid: Grid, sample: &Sample, known: Known) -> Vec<Head> {
    let scores = sample.leading_scores();
    let head = |kind: Kind| {
        let points: &[u32] = match kind {
            Kind::Pose => &[3, 2],
            Kind::End2End => &[0, 3],
            _ => &[0],
        };
        let mut heads: Vec<_> =
            points.iter().filter_map(|point| Head::new(kind, grid, known.classes, scores, *point)).collect();
        heads.sort_by_key(|head| refuted(*head, sample, known).is_some());
        heads.first().copied()
    };
    Kind::ALL.into_iter().filter(|kind| known.kind.is_none_or(|set| set == *kind)).filter_map(head).collect()
}

/// Why a tensor with these values cannot be this head, whoever says so.
fn refuted(head: Head, sample: &Sample, known: Known) -> Option<String> {
    let tail = head.tail()..head.width;
    if let Some(other) = sample.columns(head.scores()).find(|n| !is_score(*n)) {
        return Some(format!("{other} stands where scores are"));
    }
    if look_normalised(sample.columns(0..BOX)) == Some(true) {
        return Some("its boxes are shares of 0 to 1, which `detr` and `boxes-scores` read".into());
    }
    let visibilities = tail.clone().skip(2).step_by(3).take_while(|_| head.point == 3);
    if let Some(other) = visibilities.flat_map(|n| sample.column(n)).find(|n| !is_score(*n)) {
        return Some(format!("{other} stands where visibilities of keypoints are"));
    }
    let found =
        |row: &&[f32]| row[head.scores().start as usize..head.scores().end as usize].iter().any(|n| *n >= NOTICED);
    if head.kind != Kind::End2End && sample.rows().filter(found).any(|row| row[2] < 0.0 || row[3] < 0.0) {
        return Some("boxes have negative widths or heights: they are not decoded".into());
    }
    match head.kind {
        Kind::Obb => {
            let other = sample.columns(tail).find(|n| n.abs() > std::f32::consts::PI + 0.01)?;
            Some(format!("{other} stands where angles are"))
        }
        Kind::End2End => no_end2end(sample, known.classes.unwrap_or(MOST_CLASSES)),
        _ => None,
    }
}

fn no_end2end(sample: &Sample, classes: u32) -> Option<String> {
    let is_class_id = |n: f32| n >= 0.0 && n.fract() == 0.0 && n < classes as f32;
    if let Some(other) = sample.column(BOX + 1).find(|n| !is_class_id(*n)) {
        return Some(format!("{other} stands where ids of {classes} classes are"));
    }
    let inside_out = |row: &[f32]| row[BOX as usize] >= NOTICED && (row[2] < row[0] || row[3] < row[1]);
    sample.rows().any(inside_out).then(|| "right lies left of left, or bottom above top".into())
}

/// Why a tensor that can be this head is likely another: what is known of how models are exported.
fn unlikely(head: Head, sample: &Sample, known: Known) -> Option<String> {
    let (labelled, pairs) = (known.classes.is_some(), Pairs::count(sample));
    let far = || sample.columns(head.tail()..head.width).any(|n| n.abs() > FAR);
    let reason = match head.kind {
        Kind::V5 if !labelled && head.columns && !may_be_v5_last(sample, &pairs) => "a v5 has its boxes first",
        Kind::V5 if !labelled && !pairs.may_be_v5() => "no box has an objectness and a class",
        Kind::V8 if !labelled && !head.columns && !pairs.may_be_v8() => "boxes have two classes",
        Kind::V8 if !labelled && head.columns && is_grid_of_classes(sample, &pairs) => "too many boxes have a class",
        // Labels leave nothing else, and boxes last are usual.
        Kind::Obb if labelled && head.columns => return None,
        Kind::Obb if !has_angles(head, sample) => "no angle is outside of 0 to 1",
        Kind::Seg if !known.masks => "no output has the prototypes of masks",
        Kind::Pose if known.masks => "there is an output with the prototypes of masks",
        Kind::Pose | Kind::End2End if head.point > 0 && !far() => "no keypoint lies in the picture",
        Kind::End2End if head.point == 0 && head.width > head.tail() && !known.masks => {
            "no output has the prototypes of masks"
        }
        Kind::End2End if head.boxes > MOST_END2END => "there are more than 1000 boxes",
        _ => return None,
    };
    Some(reason.into())
}

/// Whether a tensor that is set to be another head has what only an end-to-end one has: things
/// found, and behind each score a class id that is neither a score nor an angle, or sorted scores.
fn is_end2end_for_certain(set: Head, sample: &Sample, known: Known) -> bool {
    let head = |point| Head::new(Kind::End2End, set.grid(), known.classes, 0, point);
    let fits = |head: Head| refuted(head, sample, known).or_else(|| unlikely(head, sample, known)).is_none();
    let ids = || sample.rows().filter(|row| row[BOX as usize] >= SURE).map(|row| row[BOX as usize + 1]);
    set.kind != Kind::End2End
        && [0, 3].into_iter().filter_map(head).any(fits)
        && (ids().any(|id| id >= 2.0) || (ids().next().is_some() && is_sorted(sample)))
}

/// Why a tensor is not the head that is set, where no labels bear that out: what leaves no doubt.
fn contradicted(head: Head, sample: &Sample, known: Known) -> Option<String> {
    let tail = head.tail()..head.width;
    match head.kind {
        Kind::V8 if is_v5_for_certain(sample) => Some(
            "most boxes have a class, and none has the first alone, as in a `v5`; `labels` would bear it out".into(),
        ),
        Kind::Seg if !known.masks && are_classes(sample, tail.clone()) => Some(
            "no output has the prototypes of masks, and what stands where coefficients are looks like scores".into(),
        ),
        Kind::Pose if known.masks && finds(head, sample) && !sample.columns(tail).any(|n| n.abs() > FAR) => {
            Some("an output has the prototypes of masks, and no keypoint lies in the picture".into())
        }
        Kind::V5 => {
            let objects = || sample.rows().filter(|row| row[BOX as usize] >= CERTAIN);
            let has_class = |row: &[f32]| row[BOX as usize + 1..].iter().any(|n| *n >= NOTICED);
            let classless = objects().next().is_some() && !objects().any(has_class);
            classless.then(|| "no box with an objectness of 0.5 or more has a class; `labels` would bear it out".into())
        }
        Kind::Obb if sample.rows().count() >= GRID && !has_angles(head, sample) => {
            Some("no angle is outside of 0 to 1, as those of a grid are; `labels` would bear it out".into())
        }
        _ => None,
    }
}

/// Whether a head that is no `v5` finds something for certain.
fn finds(head: Head, sample: &Sample) -> bool {
    sample.highest(head) >= SURE
}

/// Whether this is a grid most of whose boxes have a class without the first number, which itself
/// is never high alone: a v5, whose classes mean nothing where there is no object.
fn is_v5_for_certain(sample: &Sample) -> bool {
    let (first, classes) = (BOX as usize, BOX as usize + 1);
    let has_class = |row: &[f32]| row[classes..].iter().any(|n| *n >= NOTICED);
    let classed = sample.spread().filter(|row| row[first] < NOTICED && has_class(row)).count();
    let mut objects = sample.rows().filter(|row| row[first] >= SURE).peekable();
    let is_grid = sample.rows().count() >= GRID && classed * 2 > sample.spread().count();
    is_grid && objects.peek().is_some() && objects.all(has_class)
}

/// Whether these numbers of a grid are scores: never outside of 0 to 1, and few of them high.
/// Coefficients of masks are below 0 as often as above.
fn are_classes(sample: &Sample, numbers: Range<u32>) -> bool {
    let range = numbers.start as usize..numbers.end as usize;
    let high = sample.spread().filter(|row| row[range.clone()].iter().any(|n| *n >= NOTICED)).count();
    sample.rows().count() >= GRID
        && sample.columns(numbers.clone()).all(is_score)
        && sample.columns(numbers).any(|n| n != 0.0)
        && high < sample.spread().count() / MANY
}

/// Whether the last number of the boxes looks like an angle. Real ones fill -pi/4 to 3 pi/4. Where
/// boxes are the last dimension, as usual, two things are enough to doubt that it is a score: it is
/// high beside every score, or for most boxes.
fn has_angles(head: Head, sample: &Sample) -> bool {
    let last = head.tail();
    let is_angle = |n: f32| !is_score(n) && n.fract() != 0.0;
    let high = || sample.column(last).filter(|n| *n >= NOTICED).count();
    let is_no_score = || is_beside(sample, last, BOX..last) || high() * 2 > sample.rows().count();
    sample.column(last).any(is_angle) || (head.columns && is_no_score())
}

/// Whether something is found, and each time one number is high beside the others.
fn is_beside(sample: &Sample, number: u32, others: Range<u32>) -> bool {
    let others = others.start as usize..others.end as usize;
    let found = |row: &&[f32]| row[others.clone()].iter().any(|n| *n >= SURE);
    let mut found = sample.rows().filter(found).peekable();
    found.peek().is_some() && found.all(|row| row[number as usize] >= SURE)
}

/// Boxes by what is noticed: the first number behind the box, one of the others, or both.
#[derive(Debug, Default)]
struct Pairs {
    both: usize,
    one: usize,
    /// More boxes have one than can be objects.
    crowded: bool,
    /// There are no others.
    single: bool,
}

impl Pairs {
    fn count(sample: &Sample) -> Self {
        let high = |n: &f32| *n >= NOTICED;
        let pair = |row: &[f32]| (high(&row[BOX as usize]), row[BOX as usize + 1..].iter().any(high));
        let both = sample.rows().map(pair).filter(|(first, other)| *first && *other).count();
        let one = sample.rows().map(pair).filter(|(first, other)| first != other).count();
        let spread = sample.spread().map(pair).filter(|(first, other)| first != other).count();
        let crowded = spread > 0 && spread >= sample.spread().count() / MANY;
        Self { both, one, crowded, single: sample.width() == BOX + 1 }
    }

    /// An object has an objectness and a class; and what is none has a class all the same.
    const fn may_be_v5(&self) -> bool {
        self.both > 0 || self.one == 0 || self.crowded
    }

    /// An object rarely has two classes, and few boxes are objects.
    const fn may_be_v8(&self) -> bool {
        self.single || self.both + self.one == 0 || (!self.crowded && self.one > self.both)
    }
}

/// Whether what has its boxes last may be a v5 all the same, which is rare: it must be beyond
/// doubt.
fn may_be_v5_last(sample: &Sample, pairs: &Pairs) -> bool {
    is_grid_of_classes(sample, pairs) || is_beside(sample, BOX, BOX + 1..sample.width())
}

/// Whether this is a detector's grid in which more boxes have a class than can be objects.
fn is_grid_of_classes(sample: &Sample, pairs: &Pairs) -> bool {
    !pairs.single && pairs.crowded && sample.rows().count() >= GRID
}

/// Whether the first number behind the box falls from the first box to the last.
fn is_sorted(sample: &Sample) -> bool {
    let scores: Vec<_> = sample.column(BOX).collect();
    let mut different = scores.clone();
    different.dedup();
    scores.is_sorted_by(|a, b| a >= b) && different.len() >= SORTED
}
