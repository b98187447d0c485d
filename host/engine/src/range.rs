//! Scores and boxes that cannot be: one bad row of a hook costs neither its frame nor the other rows.
//!
//! The rule. A number that is not finite drops its detection, wherever it is; of an event it drops its
//! attribute. A score is cut to 0..1, and a box to the frame; one of which nothing is left drops its
//! detection. Keypoints and outlines stay, because what they mark may lie outside of the frame. Events go on
//! being about the same detections.
//!
//! Invariant: what follows the rule is left as it is, to the last bit.

use framehook_core::prediction::{Attribute, Detection, Event};

use crate::media::Outcome;

/// A left or a top and its length, each rounded, may add up to this more than 1.
const ROUNDING: f32 = f32::EPSILON;

/// How much broke the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mended {
    /// Detections that were cut, and attributes of events that were dropped.
    pub(crate) cut: u64,
    /// Detections.
    pub(crate) dropped: u64,
}

impl Mended {
    /// Counts more of them. Gives what the log should say: at the first, and at each tenfold number.
    pub(crate) fn add(&mut self, more: Self) -> Option<String> {
        let before = (self.cut + self.dropped).checked_ilog10();
        self.cut += more.cut;
        self.dropped += more.dropped;
        let Self { cut, dropped } = self;
        ((*cut + *dropped).checked_ilog10() != before).then(|| {
            format!(
                "detections out of range so far: {cut} were cut to scores of 0 to 1 and to the frame, {dropped} were \
                 dropped, with numbers that are not finite or nothing of the box in the frame; an attribute of an event \
                 that is not finite counts as cut"
            )
        })
    }
}

/// Makes what a hook returned follow the rule.
pub(crate) fn mend(outcome: &mut Outcome) -> Mended {
    let mut mended = mend_events(&mut outcome.events);
    // Where each detection is afterwards.
    let mut places = Vec::with_capacity(outcome.detections.len());
    let mut kept = 0..;
    outcome.detections.retain_mut(|detection| {
        let is_cut = fit(detection);
        places.push(is_cut.and_then(|_| kept.next()));
        mended.cut += u64::from(is_cut == Some(true));
        mended.dropped += u64::from(is_cut.is_none());
        is_cut.is_some()
    });
    if mended.dropped > 0 {
        for event in &mut outcome.events {
            let place = |subject: &u32| places.get(*subject as usize).copied().flatten();
            event.subjects = event.subjects.iter().filter_map(place).collect();
        }
    }
    mended
}

/// The same of events alone.
pub(crate) fn mend_events(events: &mut [Event]) -> Mended {
    let mut mended = Mended::default();
    for event in events {
        event.attributes.retain(|_, value| {
            mended.cut += u64::from(!is_finite(value));
            is_finite(value)
        });
    }
    mended
}

fn is_finite(value: &Attribute) -> bool {
    match value {
        Attribute::Text(_) => true,
        Attribute::Number(number) => number.is_finite(),
        Attribute::Numbers(numbers) => numbers.iter().all(|number| number.is_finite()),
    }
}

/// Whether something had to be cut; `None` if the detection is to be dropped.
fn fit(detection: &mut Detection) -> Option<bool> {
    let Detection { score, bbox, keypoints, polygon, attributes, .. } = detection;
    let points = keypoints.iter().chain(&*polygon).flatten();
    if !bbox.iter().chain([&*score]).chain(points).all(|n| n.is_finite()) || !attributes.values().all(is_finite) {
        return None;
    }
    let [x, y, width, height] = *bbox;
    let ([x, width], [y, height]) = (fit_side(x, width)?, fit_side(y, height)?);
    let (fitting_score, fitting_box) = (score.clamp(0.0, 1.0), [x, y, width, height]);
    let is_cut = *score != fitting_score || *bbox != fitting_box;
    (*score, *bbox) = (fitting_score, fitting_box);
    Some(is_cut)
}

/// What of a side lies in the frame; `None` if that has no length.
fn fit_side(start: f32, length: f32) -> Option<[f32; 2]> {
    let end = start + length;
    if start >= 0.0 && length > 0.0 && end <= 1.0 + ROUNDING {
        return Some([start, length]);
    }
    let start = start.clamp(0.0, 1.0);
    let length = end.clamp(0.0, 1.0) - start;
    (length > 0.0).then_some([start, length])
}

#[cfg(test)]
mod tests {
    use framehook_core::prediction::{Event, Severity};

    use super::*;

    const INSIDE: [f32; 4] = [0.1, 0.2, 0.3, 0.4];
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    const MAX: f32 = f32::MAX;

    fn detection(score: f32, bbox: [f32; 4]) -> Detection {
        Detection { score, bbox, ..Detection::default() }
    }

    fn mended(detections: Vec<Detection>) -> (Vec<Detection>, [u64; 2]) {
        let mut outcome = Outcome { detections, events: Vec::new() };
        let Mended { cut, dropped } = mend(&mut outcome);
        (outcome.detections, [cut, dropped])
    }

    #[test]
    fn what_is_in_range_stays_and_the_rest_is_cut_or_dropped() {
        for (score, bbox, expected) in [
            (0.0, INSIDE, Some((0.0, INSIDE))),
            (1.0, [0.0, 0.0, 1.0, 1.0], Some((1.0, [0.0, 0.0, 1.0, 1.0]))),
            // Their sums are rounded to more than 1.
            (0.5, [0.7, 0.7, 0.300_000_1, 0.300_000_1], Some((0.5, [0.7, 0.7, 0.300_000_1, 0.300_000_1]))),
            (2.5, INSIDE, Some((1.0, INSIDE))),
            (-3.0, INSIDE, Some((0.0, INSIDE))),
            (0.5, [0.5, 0.25, 3.0, 0.5], Some((0.5, [0.5, 0.25, 0.5, 0.5]))),
            (0.5, [-1.0, -0.25, 1.5, 2.0], Some((0.5, [0.0, 0.0, 0.5, 1.0]))),
            (0.5, [-MAX, 0.0, MAX, 1.0], None),
            (0.5, [-1.0, 0.0, MAX, 1.0], Some((0.5, [0.0, 0.0, 1.0, 1.0]))),
            (0.5, [MAX, 0.0, MAX, 1.0], None),
            (0.5, [1.5, 0.0, 0.5, 1.0], None),
            (0.5, [-0.5, 0.0, 0.5, 1.0], None),
            (0.5, [0.1, 0.2, 0.0, 0.4], None),
            (0.5, [0.5, 0.2, -0.3, 0.4], None),
            (NAN, INSIDE, None),
            (0.5, [0.1, INF, 0.3, 0.4], None),
            (0.5, [0.1, 0.2, 0.3, NAN], None),
        ] {
            let (kept, counts) = mended(vec![detection(score, bbox)]);
            let is_cut = expected.is_some_and(|expected| expected != (score, bbox));
            assert_eq!(kept.first().map(|d| (d.score, d.bbox)), expected, "{score} {bbox:?}");
            assert_eq!(counts, [u64::from(is_cut), u64::from(expected.is_none())], "{score} {bbox:?}");
        }
    }

    #[test]
    fn keypoints_may_lie_outside_but_nowhere() {
        let with = |keypoints| Detection { keypoints, ..detection(0.5, INSIDE) };
        let outside = with(vec![[-0.5, 7.0], [0.0, 1.0]]);
        assert_eq!(mended(vec![outside.clone()]), (vec![outside], [0, 0]));
        assert_eq!(mended(vec![with(vec![[0.5, 0.5], [0.5, NAN]])]), (vec![], [0, 1]));
    }

    /// As hooks pass them on: nobody finds a difference.
    #[test]
    fn what_was_cut_is_in_range() {
        let numbers = (-40_i16..60).map(|n| f32::from(n) / 37.0);
        let sides = numbers.clone().flat_map(|start| numbers.clone().map(move |length| (start, length)));
        let once: Vec<_> = sides.filter_map(|(start, length)| fit_side(start, length)).collect();
        assert!(once.len() > 1000, "{}", once.len());
        assert!(once.iter().all(|[start, length]| *start >= 0.0 && *length > 0.0 && start + length <= 1.0 + ROUNDING));
        assert!(once.iter().all(|[start, length]| fit_side(*start, *length) == Some([*start, *length])));
    }

    #[test]
    fn events_are_about_the_same_detections_as_before() {
        let good = |score| detection(score, INSIDE);
        let about = |subjects: &[u32]| Event {
            kind: "seen".into(),
            severity: Severity::Info,
            subjects: subjects.to_vec(),
            attributes: std::collections::BTreeMap::new(),
            episode: None,
        };
        let mut outcome = Outcome {
            detections: vec![good(NAN), good(0.1), good(0.2), good(NAN), good(0.3)],
            events: vec![about(&[4, 0, 1, 4]), about(&[0, 3]), about(&[])],
        };
        assert_eq!(mend(&mut outcome), Mended { cut: 0, dropped: 2 });
        assert_eq!(outcome.detections, [good(0.1), good(0.2), good(0.3)]);
        assert_eq!(outcome.events, [about(&[2, 0, 2]), about(&[]), about(&[])]);
    }

    #[test]
    fn the_log_hears_of_the_first_and_of_each_tenfold_number() {
        let mut all = Mended::default();
        let mut told = |cut, dropped| all.add(Mended { cut, dropped }).is_some();
        assert!(!told(0, 0));
        assert!(told(1, 0));
        assert!(!told(4, 4));
        assert!(told(0, 1));
        assert!(!told(0, 0));
        assert!(told(2000, 0));
        let line = all.add(Mended { cut: 10_000, dropped: 1 }).unwrap();
        assert!(line.contains(": 12005 were cut") && line.contains(", 6 were dropped"), "{line}");
    }
}
