//! What two chains of hooks said of the same frame, compared.
//!
//! Detections are matched one to one: of all pairs whose boxes overlap by [`SAME_OBJECT`] or more, those with
//! equal labels first, then those that overlap most (greedy). A pair may still differ, in what [`Change`]
//! lists; what has no partner was added, or is missing. A track's number is no difference: a tracker that
//! begins elsewhere gives other numbers to the same tracks.
//!
//! Invariants: a prediction equals itself; what is added one way is missing the other way; the counts are
//! whole, however much of the lists is left out ([`FrameDifference::within`]).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    prediction::{Detection, Event, HookFailure, Phase, Position, Prediction, Skipped},
    reason::ReasonCode,
    size::json_bytes,
    state::words,
};

/// Intersection over union from which two boxes are of the same object: as PASCAL VOC and COCO count it.
pub const SAME_OBJECT: f32 = 0.5;

/// Numbers of boxes and points that differ by no more than this are equal: a pixel of a picture of a
/// thousand. What half floats round is less.
pub const SAME_PLACE: f32 = 0.001;

/// Scores that differ by no more than this are equal. Nobody sets a threshold more finely, and half floats
/// round to less.
pub const SAME_SCORE: f32 = 0.01;

/// Detections of a side that are compared, those with the highest scores: the pairs are a square of it. A
/// frame with more is a frame of noise.
const MOST_DETECTIONS: usize = 1000;

/// One side of a comparison.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub detections: &'a [Detection],
    pub events: &'a [Event],
    pub skipped: Option<&'a Skipped>,
    pub failures: &'a [HookFailure],
}

words! {
    /// In what a detection differs from that which it is matched with.
    Change {
        /// Its box lies elsewhere, by more than a thousandth of the frame.
        Moved = "moved",
        /// Its label differs; where neither has one, its class.
        Relabelled = "relabelled",
        /// Its score differs by more than 0.01.
        Rescored = "rescored",
        /// Its keypoints, outline, mask or attributes differ.
        Redrawn = "redrawn",
    }
}

/// How much differs, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DifferenceCounts {
    /// Detections of the second chain that match none of the first.
    pub added: u64,
    /// Detections of the first chain that match none of the second.
    pub missing: u64,
    /// Matched detections that differ, by [`Change`]; one may differ in several.
    pub moved: u64,
    pub relabelled: u64,
    pub rescored: u64,
    pub redrawn: u64,
    /// Events by kind and phase: what they are about, and their attributes, are not compared.
    pub events_added: u64,
    pub events_missing: u64,
    /// Frames that one of the chains gave up, or skipped, and the other did not.
    pub skipped: u64,
    /// Failures of hooks, by plugin and code, that the other chain did not have.
    pub failures_added: u64,
    pub failures_missing: u64,
}

/// A detection as a difference shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Found {
    pub class_id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub score: f32,
    /// `[x, y, width, height]`, normalised to 0..1 of the frame.
    #[serde(rename = "box")]
    #[schema(min_items = 4, max_items = 4)]
    pub bbox: [f32; 4],
}

/// Two detections of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    pub before: Found,
    pub after: Found,
    /// Intersection over union of their boxes.
    pub iou: f32,
    pub changes: Vec<Change>,
}

/// What one chain said of a frame (before) and another did not (after), or said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FrameDifference {
    pub pts_us: i64,
    pub frame: u64,
    /// All of it. The lists may hold less, where a frame's differences are long.
    pub counts: DifferenceCounts,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<Found>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Found>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Changed>,
    /// Kinds of events, each as often as there are more of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events_added: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events_missing: Vec<String>,
    /// Why the first chain gave the frame up, which the second did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_before: Option<Skipped>,
    /// The other way round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_after: Option<Skipped>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures_added: Vec<HookFailure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures_missing: Vec<HookFailure>,
}

/// Compared frames, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Comparison {
    /// `equal` + `different`.
    pub compared: u64,
    pub equal: u64,
    pub different: u64,
    /// Added up over all frames.
    pub counts: DifferenceCounts,
}

/// What differs between the two; `None`: nothing.
#[must_use]
pub fn compare(at: Position, before: Said<'_>, after: Said<'_>) -> Option<FrameDifference> {
    let detections = [best(before.detections), best(after.detections)];
    let pairs = matched(&detections);
    let alone = |side: usize| -> Vec<Found> {
        let mut is_alone = vec![true; detections[side].len()];
        pairs.iter().for_each(|pair| is_alone[pair.at[side]] = false);
        detections[side].iter().zip(is_alone).filter(|(_, alone)| *alone).map(|(d, _)| Found::from(*d)).collect()
    };
    let changed: Vec<_> = pairs.iter().filter_map(|pair| pair.changed(&detections)).collect();
    let kinds = |events: Vec<&Event>| events.into_iter().map(|event| event.kind.clone()).collect();
    let mut difference = FrameDifference {
        pts_us: at.pts_us,
        frame: at.frame,
        counts: DifferenceCounts::default(),
        added: alone(1),
        missing: alone(0),
        changed,
        events_added: kinds(surplus(after.events, before.events, happening)),
        events_missing: kinds(surplus(before.events, after.events, happening)),
        skipped_before: before.skipped.filter(|_| after.skipped.is_none()).cloned(),
        skipped_after: after.skipped.filter(|_| before.skipped.is_none()).cloned(),
        failures_added: surplus(after.failures, before.failures, cause).into_iter().cloned().collect(),
        failures_missing: surplus(before.failures, after.failures, cause).into_iter().cloned().collect(),
    };
    difference.counts = difference.count();
    (difference.counts != DifferenceCounts::default()).then_some(difference)
}

impl FrameDifference {
    fn count(&self) -> DifferenceCounts {
        let changed = |change| self.changed.iter().filter(|pair| pair.changes.contains(&change)).count() as u64;
        DifferenceCounts {
            added: self.added.len() as u64,
            missing: self.missing.len() as u64,
            moved: changed(Change::Moved),
            relabelled: changed(Change::Relabelled),
            rescored: changed(Change::Rescored),
            redrawn: changed(Change::Redrawn),
            events_added: self.events_added.len() as u64,
            events_missing: self.events_missing.len() as u64,
            skipped: u64::from(self.skipped_before.is_some() || self.skipped_after.is_some()),
            failures_added: self.failures_added.len() as u64,
            failures_missing: self.failures_missing.len() as u64,
        }
    }

    /// With lists so short that it is no longer than so many bytes of JSON, as far as they decide that: each
    /// keeps its first ones.
    #[must_use]
    pub fn within(mut self, bytes: usize) -> Self {
        let mut most = self.longest();
        while most > 0 && json_bytes(&self) > bytes {
            most /= 2;
            self.added.truncate(most);
            self.missing.truncate(most);
            self.changed.truncate(most);
            self.events_added.truncate(most);
            self.events_missing.truncate(most);
            self.failures_added.truncate(most);
            self.failures_missing.truncate(most);
        }
        self
    }

    fn longest(&self) -> usize {
        let found = self.added.len().max(self.missing.len()).max(self.changed.len());
        let events = self.events_added.len().max(self.events_missing.len());
        found.max(events).max(self.failures_added.len()).max(self.failures_missing.len())
    }
}

impl Comparison {
    /// Counts one more frame, with what differs on it.
    pub fn count(&mut self, difference: Option<&FrameDifference>) {
        let counts = difference.map(|difference| difference.counts).unwrap_or_default();
        let different = u64::from(difference.is_some());
        self.add(&Self { compared: 1, equal: 1 - different, different, counts });
    }

    pub fn add(&mut self, more: &Self) {
        self.compared += more.compared;
        self.equal += more.equal;
        self.different += more.different;
        self.counts.add(&more.counts);
    }
}

impl DifferenceCounts {
    fn add(&mut self, more: &Self) {
        self.added += more.added;
        self.missing += more.missing;
        self.moved += more.moved;
        self.relabelled += more.relabelled;
        self.rescored += more.rescored;
        self.redrawn += more.redrawn;
        self.events_added += more.events_added;
        self.events_missing += more.events_missing;
        self.skipped += more.skipped;
        self.failures_added += more.failures_added;
        self.failures_missing += more.failures_missing;
    }
}

impl From<&Detection> for Found {
    fn from(Detection { class_id, label, score, bbox, .. }: &Detection) -> Self {
        Self { class_id: *class_id, label: label.clone(), score: *score, bbox: *bbox }
    }
}

/// Those with the highest scores, in their order.
fn best(detections: &[Detection]) -> Vec<&Detection> {
    if detections.len() <= MOST_DETECTIONS {
        return detections.iter().collect();
    }
    let mut by_score: Vec<_> = detections.iter().enumerate().collect();
    by_score.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
    by_score.truncate(MOST_DETECTIONS);
    by_score.sort_by_key(|(at, _)| *at);
    by_score.into_iter().map(|(_, detection)| detection).collect()
}

/// Two detections, by their places before and after.
struct Pair {
    at: [usize; 2],
    iou: f32,
}

impl Pair {
    fn of<'a>(&self, [before, after]: &[Vec<&'a Detection>; 2]) -> [&'a Detection; 2] {
        [before[self.at[0]], after[self.at[1]]]
    }

    fn likeness(&self, detections: &[Vec<&Detection>; 2]) -> Likeness {
        let [a, b] = self.of(detections);
        Likeness { same_label: has_same_label(a, b), score_gap: (a.score - b.score).abs() }
    }

    fn order(&self) -> (usize, [usize; 2]) {
        (self.at[0].abs_diff(self.at[1]), self.at)
    }

    fn changed(&self, detections: &[Vec<&Detection>; 2]) -> Option<Changed> {
        let [a, b] = self.of(detections);
        let is_drawn_alike = || {
            let points = |d: &Detection| d.keypoints.iter().chain(&d.polygon).flatten().copied().collect::<Vec<_>>();
            near(&points(a), &points(b)) && a.mask == b.mask && a.attributes == b.attributes
        };
        let changes: Vec<_> = [
            (Change::Moved, !near(&a.bbox, &b.bbox)),
            (Change::Relabelled, !has_same_label(a, b)),
            (Change::Rescored, (a.score - b.score).abs() > SAME_SCORE),
            (Change::Redrawn, !is_drawn_alike()),
        ]
        .into_iter()
        .filter_map(|(change, is_so)| is_so.then_some(change))
        .collect();
        (!changes.is_empty()).then(|| Changed { before: a.into(), after: b.into(), iou: self.iou, changes })
    }
}

struct Likeness {
    same_label: bool,
    score_gap: f32,
}

/// Pairs of one object, in the order of those before.
fn matched(detections: &[Vec<&Detection>; 2]) -> Vec<Pair> {
    let [before, after] = detections;
    let all = (0..before.len()).flat_map(|a| (0..after.len()).map(move |b| [a, b]));
    let pair = |at: [usize; 2]| Pair { at, iou: iou(&before[at[0]].bbox, &after[at[1]].bbox) };
    let mut pairs: Vec<_> = all.map(pair).filter(|pair| pair.iou >= SAME_OBJECT).collect();
    // Pairs that lie alike are of copies in one place: scores and order say which is which.
    pairs.sort_by(|one, other| {
        let (a, b) = (one.likeness(detections), other.likeness(detections));
        let (nearer, earlier) = (a.score_gap.total_cmp(&b.score_gap), one.order().cmp(&other.order()));
        b.same_label.cmp(&a.same_label).then(other.iou.total_cmp(&one.iou)).then(nearer).then(earlier)
    });
    let mut is_free = [vec![true; before.len()], vec![true; after.len()]];
    pairs.retain(|Pair { at: [a, b], .. }| {
        let are_free = is_free[0][*a] && is_free[1][*b];
        if are_free {
            (is_free[0][*a], is_free[1][*b]) = (false, false);
        }
        are_free
    });
    pairs.sort_by_key(|pair| pair.at);
    pairs
}

fn has_same_label(a: &Detection, b: &Detection) -> bool {
    match (&a.label, &b.label) {
        (None, None) => a.class_id == b.class_id,
        (one, other) => one == other,
    }
}

fn near(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME_PLACE)
}

/// Intersection over union of two boxes `[x, y, width, height]`; 1 if they are the same.
#[must_use]
pub fn iou(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    if a == b {
        return 1.0;
    }
    let common = |axis: usize| {
        let end = (a[axis] + a[axis + 2]).min(b[axis] + b[axis + 2]);
        (end - a[axis].max(b[axis])).max(0.0)
    };
    let both = common(0) * common(1);
    let either = a[2] * a[3] + b[2] * b[3] - both;
    if either > 0.0 { both / either } else { 0.0 }
}

fn happening(event: &Event) -> (&str, Option<Phase>) {
    (&event.kind, event.episode.as_ref().map(|episode| episode.phase))
}

/// Without the version: two versions of a plugin are compared.
fn cause(failure: &HookFailure) -> (&str, ReasonCode) {
    let plugin = &failure.plugin;
    (plugin.split_once('@').map_or(plugin.as_str(), |(name, _)| name), failure.reason.code)
}

/// Items of which there are more than on the other side, as often as there are more.
fn surplus<'a, T, K: PartialEq>(of: &'a [T], over: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    let mut taken: Vec<_> = over.iter().map(&key).collect();
    let is_more = |item: &&'a T| match taken.iter().position(|other| *other == key(item)) {
        Some(at) => {
            taken.swap_remove(at);
            false
        }
        None => true,
    };
    of.iter().filter(is_more).collect()
}

impl<'a> From<&'a Prediction> for Said<'a> {
    fn from(Prediction { detections, events, skipped, hook_failures, .. }: &'a Prediction) -> Self {
        Self { detections, events, skipped: skipped.as_ref(), failures: hook_failures }
    }
}

#[cfg(test)]
mod tests;
