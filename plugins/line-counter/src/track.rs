//! A small tracker: detections of one class that overlap, or lie close together, on consecutive
//! frames are one object. Greedy, the best pair first; the result depends on the input only.

use framehook_sdk::{Bbox, geometry::iou};
use serde::{Deserialize, Serialize};

/// Frames an object may be hidden before its track ends: half a second at 25 frames a second.
const MAX_MISSED: u32 = 12;
/// Without overlap, a centre may move by this share of the larger box's diagonal: fast small objects.
const MAX_JUMP: f32 = 0.75;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tracker {
    tracks: Vec<Track>,
    last_id: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Track {
    id: u64,
    class_id: u32,
    #[serde(with = "Corners")]
    bbox: Bbox,
    missed: u32,
}

/// How a box is kept.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Bbox")]
struct Corners {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

/// What is known of one detection: its track, and how the centre moved since it was last seen.
#[derive(Debug, PartialEq)]
pub(crate) struct Tracking {
    pub(crate) id: u64,
    pub(crate) from: Option<[f32; 2]>,
    pub(crate) to: [f32; 2],
}

impl Tracker {
    /// One frame: `(class_id, box)` of each detection; the answers are in the same order.
    pub(crate) fn update(&mut self, detections: &[(u32, Bbox)]) -> Vec<Tracking> {
        let matches = self.match_up(detections);
        for track in &mut self.tracks {
            track.missed += 1;
        }
        let answers = detections
            .iter()
            .zip(matches)
            .map(|(&(class_id, bbox), matched)| match matched {
                Some(index) => self.follow(index, bbox),
                None => self.begin(class_id, bbox),
            })
            .collect();
        self.tracks.retain(|track| track.missed <= MAX_MISSED);
        answers
    }

    /// For each detection the index of its track.
    fn match_up(&self, detections: &[(u32, Bbox)]) -> Vec<Option<usize>> {
        let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
        for (d, (class_id, bbox)) in detections.iter().enumerate() {
            for (t, track) in self.tracks.iter().enumerate().filter(|(_, t)| t.class_id == *class_id) {
                pairs.extend(likeness(&track.bbox, bbox).map(|likeness| (likeness, d, t)));
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut matches = vec![None; detections.len()];
        let mut taken = vec![false; self.tracks.len()];
        for (_, d, t) in pairs {
            if matches[d].is_none() && !taken[t] {
                matches[d] = Some(t);
                taken[t] = true;
            }
        }
        matches
    }

    fn follow(&mut self, index: usize, bbox: Bbox) -> Tracking {
        let track = &mut self.tracks[index];
        let from = Some(centre(&track.bbox));
        (track.bbox, track.missed) = (bbox, 0);
        Tracking { id: track.id, from, to: centre(&bbox) }
    }

    fn begin(&mut self, class_id: u32, bbox: Bbox) -> Tracking {
        self.last_id += 1;
        self.tracks.push(Track { id: self.last_id, class_id, bbox, missed: 0 });
        Tracking { id: self.last_id, from: None, to: centre(&bbox) }
    }
}

/// 1 to 2 for boxes that overlap, 0 to 1 for close ones, `None` for others.
fn likeness(a: &Bbox, b: &Bbox) -> Option<f32> {
    let overlap = iou(a, b);
    if overlap > 0.0 {
        return Some(1.0 + overlap);
    }
    let ([ax, ay], [bx, by]) = (centre(a), centre(b));
    let distance = (ax - bx).hypot(ay - by);
    let reach = MAX_JUMP * a.width.hypot(a.height).max(b.width.hypot(b.height));
    (distance < reach).then(|| 1.0 - distance / reach)
}

fn centre(b: &Bbox) -> [f32; 2] {
    [b.x + b.width / 2.0, b.y + b.height / 2.0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f32) -> (u32, Bbox) {
        (0, Bbox { x, y: 0.0, width: 0.1, height: 0.1 })
    }

    fn ids(tracker: &mut Tracker, boxes: &[(u32, Bbox)]) -> Vec<u64> {
        tracker.update(boxes).iter().map(|t| t.id).collect()
    }

    #[test]
    fn order_does_not_matter_and_the_best_pair_wins() {
        let mut tracker = Tracker::default();
        assert_eq!(ids(&mut tracker, &[at(0.1), at(0.16)]), [1, 2]);
        assert_eq!(ids(&mut tracker, &[at(0.17), at(0.11)]), [2, 1]);
    }

    #[test]
    fn a_short_gap_is_bridged_and_a_long_one_is_not() {
        let mut tracker = Tracker::default();
        tracker.update(&[at(0.1)]);
        (0..MAX_MISSED).for_each(|_| drop(tracker.update(&[])));
        assert_eq!(ids(&mut tracker, &[at(0.12)]), [1]);
        (0..=MAX_MISSED).for_each(|_| drop(tracker.update(&[])));
        assert_eq!(ids(&mut tracker, &[at(0.12)]), [2]);
    }

    #[test]
    fn classes_and_far_objects_stay_apart() {
        let mut tracker = Tracker::default();
        tracker.update(&[at(0.1)]);
        assert_eq!(ids(&mut tracker, &[(1, at(0.1).1), at(0.9)]), [2, 3]);
    }
}
