//! ByteTrack: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", 2022.
//!
//! Detections of a high score are given to tracks first, then those of a low score to the tracks that are
//! left: an object that is half hidden has a low score, and a track is the reason to believe it all the same.
//! Pairs are those of the optimal assignment. The result depends on the input only, and all that is known of
//! earlier frames is in [`Tracker`].

use framehook_sdk::{Bbox, geometry::iou};
use pathfinding::{kuhn_munkres::kuhn_munkres, matrix::Matrix};
use serde::{Deserialize, Serialize};

use crate::motion::{Motion, State};

/// Half hidden objects: how much a detection of a low score must overlap its track. As in the paper.
const MIN_OVERLAP_LOW: f32 = 0.5;
/// How well the second detection of a track must match the first, whose velocity nobody knows. As in the
/// paper.
const MIN_MATCH_NEW: f32 = 0.3;
/// More than a picture shows; so what is kept has 25 KiB at most.
const MAX_TRACKS: usize = 300;

/// What a user may set; see the plugin's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) high_score: f32,
    pub(crate) low_score: f32,
    pub(crate) new_score: f32,
    pub(crate) min_match: f32,
    pub(crate) max_lost_us: i64,
    pub(crate) min_hits: u32,
    pub(crate) per_class: bool,
}

/// A detection, its box in shares of the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) class_id: u32,
    pub(crate) score: f32,
    pub(crate) bbox: Bbox,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tracker {
    /// Time of the last frame.
    now_us: i64,
    last_id: u64,
    tracks: Vec<Track>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Track {
    /// `None` until it was found often enough.
    id: Option<u64>,
    hits: u32,
    class_id: u32,
    score: f32,
    /// Time of the first frame on which it was missed.
    lost_us: Option<i64>,
    motion: Motion,
}

impl Tracker {
    /// One frame of the given width by height; the id of each detection, in the same order.
    pub(crate) fn update(&mut self, now_us: i64, aspect: f32, seen: &[Seen], rules: &Rules) -> Vec<Option<u64>> {
        self.advance(now_us);
        let of_track: Vec<Option<usize>> = self.associate(aspect, seen, rules);
        let mut ids = vec![None; seen.len()];
        let mut taken = vec![false; seen.len()];
        for (track, index) in self.tracks.iter_mut().zip(of_track) {
            let Some(index) = index else {
                track.lost_us.get_or_insert(now_us);
                continue;
            };
            taken[index] = true;
            track.follow(&seen[index], aspect);
            ids[index] = track.known_as(&mut self.last_id, rules.min_hits);
        }
        let is_kept = |track: &Track| match (track.id, track.lost_us) {
            (_, None) => true,
            (Some(_), Some(since)) => now_us - since <= rules.max_lost_us,
            // A flicker: whoever is not there on the next frame never was.
            (None, Some(_)) => false,
        };
        self.tracks.retain(is_kept);
        for (index, seen) in
            seen.iter().enumerate().filter(|(index, seen)| !taken[*index] && seen.score >= rules.new_score)
        {
            if self.tracks.len() < MAX_TRACKS {
                let mut track = Track::begin(seen, aspect);
                ids[index] = track.known_as(&mut self.last_id, rules.min_hits);
                self.tracks.push(track);
            }
        }
        ids
    }

    /// Where the objects that are seen should be by now: id and what is known of each.
    pub(crate) fn expected(&self, now_us: i64, aspect: f32) -> Vec<(u64, Seen)> {
        let mut later = self.clone();
        later.advance(now_us);
        let seen = later.tracks.iter().filter(|track| track.lost_us.is_none());
        let known = |track: &Track| {
            let bbox = bbox_of(track.motion.state(), aspect);
            track.id.map(|id| (id, Seen { class_id: track.class_id, score: track.score, bbox }))
        };
        seen.filter_map(known).collect()
    }

    fn advance(&mut self, now_us: i64) {
        // Times of a damaged file may go back.
        let seconds = (now_us - self.now_us).max(0) as f32 / 1e6;
        self.now_us = now_us;
        for track in &mut self.tracks {
            track.motion.advance(seconds, track.lost_us.is_none());
        }
    }

    /// The detection of each track, in the three steps of the paper.
    fn associate(&self, aspect: f32, seen: &[Seen], rules: &Rules) -> Vec<Option<usize>> {
        let boxes: Vec<_> = self.tracks.iter().map(|track| bbox_of(track.motion.state(), aspect)).collect();
        let mut of_track = vec![None; self.tracks.len()];
        let mut taken = vec![false; seen.len()];
        let mut step =
            |is_asked: &dyn Fn(&Track) -> bool, is_offered: &dyn Fn(&Seen) -> bool, least: f32, by_score: bool| {
                let asked: Vec<_> =
                    (0..boxes.len()).filter(|t| of_track[*t].is_none() && is_asked(&self.tracks[*t])).collect();
                let offered: Vec<_> = (0..seen.len()).filter(|d| !taken[*d] && is_offered(&seen[*d])).collect();
                let gain = |t: usize, d: usize| {
                    let (t, seen) = (asked[t], &seen[offered[d]]);
                    if rules.per_class && self.tracks[t].class_id != seen.class_id {
                        return 0.0;
                    }
                    let likeness = iou(&boxes[t], &seen.bbox) * if by_score { seen.score } else { 1.0 };
                    likeness - least
                };
                for (t, d) in assign(asked.len(), offered.len(), gain) {
                    of_track[asked[t]] = Some(offered[d]);
                    taken[offered[d]] = true;
                }
            };
        let is_high = |seen: &Seen| seen.score >= rules.high_score;
        let is_low = |seen: &Seen| (rules.low_score..rules.high_score).contains(&seen.score);
        step(&|track| track.id.is_some(), &is_high, rules.min_match, true);
        step(&|track| track.id.is_some() && track.lost_us.is_none(), &is_low, MIN_OVERLAP_LOW, false);
        step(&|track| track.id.is_none(), &is_high, MIN_MATCH_NEW, true);
        of_track
    }
}

impl Track {
    fn begin(seen: &Seen, aspect: f32) -> Self {
        let motion = Motion::new(state_of(&seen.bbox, aspect));
        Self { id: None, hits: 1, class_id: seen.class_id, score: seen.score, lost_us: None, motion }
    }

    fn follow(&mut self, seen: &Seen, aspect: f32) {
        self.motion.measure(state_of(&seen.bbox, aspect));
        (self.class_id, self.score, self.lost_us) = (seen.class_id, seen.score, None);
        self.hits = self.hits.saturating_add(1);
    }

    /// Its id, which it gets once it was found on so many frames.
    fn known_as(&mut self, last_id: &mut u64, min_hits: u32) -> Option<u64> {
        if self.id.is_none() && self.hits >= min_hits {
            *last_id += 1;
            self.id = Some(*last_id);
        }
        self.id
    }
}

/// The pairs of rows and columns with the highest sum of gains; a pair without a gain is none.
pub(crate) fn assign(rows: usize, columns: usize, gain: impl Fn(usize, usize) -> f32) -> Vec<(usize, usize)> {
    let gains: Vec<Vec<i64>> = (0..rows).map(|r| (0..columns).map(|c| whole(gain(r, c))).collect()).collect();
    // Most objects are far from most others: only those that have a partner take part.
    let rows: Vec<_> = (0..rows).filter(|r| gains[*r].iter().any(|gain| *gain > 0)).collect();
    let columns: Vec<_> = (0..columns).filter(|c| rows.iter().any(|r| gains[*r][*c] > 0)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let gain = |r: usize, c: usize| columns.get(c).map_or(0, |c| gains[rows[r]][*c]);
    // A row for each, a column for each row at least: those without a gain are for rows without a partner.
    let matrix = Matrix::from_fn(rows.len(), columns.len().max(rows.len()), |(r, c)| gain(r, c));
    let (_, column_of) = kuhn_munkres(&matrix);
    let pairs = column_of.into_iter().enumerate().filter(|(r, c)| gain(*r, *c) > 0);
    pairs.map(|(r, c)| (rows[r], columns[c])).collect()
}

/// The assignment counts in whole numbers; a millionth of a gain is less than any measurement tells.
fn whole(gain: f32) -> i64 {
    (gain.max(0.0) * 1e6) as i64
}

fn state_of(bbox: &Bbox, aspect: f32) -> State {
    let (width, height) = (bbox.width * aspect, bbox.height);
    [(bbox.x + bbox.width / 2.0) * aspect, bbox.y + height / 2.0, width / height, height]
}

fn bbox_of([x, y, width_by_height, height]: State, aspect: f32) -> Bbox {
    let width = width_by_height * height / aspect;
    Bbox { x: x / aspect - width / 2.0, y: y - height / 2.0, width, height }
}
