//! Gives each object a number that it keeps from frame to frame, in the manner of ByteTrack.
//!
//! Stands behind a hook that detects. Detections pass as they are, with a `track_id` where one is known. Time
//! is that of the stream, so frames may come at any rate and be skipped. All that is needed of earlier frames
//! is in the hook's state: whatever ends the worker, the ids go on.

mod motion;
#[cfg(test)]
mod tests;
mod track;

use framehook_sdk::{
    ConfigProblem, Detection, Error, FrameMeta, Hook, Inference, Outcome, PostHook, Size, Stream, state,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::track::{Rules, Seen, Tracker as Tracks};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Detections of at least this score are given to tracks first.
    #[schemars(range(min = 0.0, max = 1.0))]
    high_score: f64,
    /// Detections of a lower score are left alone; those between it and `high_score` only go on with a track.
    #[schemars(range(min = 0.0, max = 1.0))]
    low_score: f64,
    /// A track begins with a detection of at least this score.
    #[schemars(range(min = 0.0, max = 1.0))]
    new_score: f64,
    /// A detection belongs to a track if its score times its overlap (IoU) with where the object should be is
    /// above this.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_match: f64,
    /// Seconds of the stream after which a track ends whose object is not found.
    #[schemars(range(min = 0.0, max = 3600.0))]
    max_lost_s: f64,
    /// On how many frames in a row an object must be found before it gets a number.
    #[schemars(range(min = 1, max = 100))]
    min_hits: u32,
    /// Whether an object stays of one class.
    per_class: bool,
    /// Only objects of these classes, by name. Empty: all.
    labels: Vec<String>,
    /// Whether frames that a pre hook skipped get detections where the objects should be, each with the
    /// attribute `predicted`.
    fill_skipped: bool,
}

impl Default for Config {
    /// Those of the paper's authors; a second is the 30 frames of theirs.
    fn default() -> Self {
        Self {
            high_score: 0.5,
            low_score: 0.1,
            new_score: 0.6,
            min_match: 0.2,
            max_lost_s: 1.0,
            min_hits: 2,
            per_class: true,
            labels: Vec::new(),
            fill_skipped: false,
        }
    }
}

struct Tracker {
    rules: Rules,
    labels: Vec<String>,
    fill_skipped: bool,
    tracks: Tracks,
}

/// Detections of a frame that are looked at, those with the highest scores: more would take longer than a
/// hook may.
const MAX_SEEN: usize = 500;
/// Its name among what the hook keeps.
const TRACKS: &str = "tracks";

impl Hook for Tracker {
    type Config = Config;

    const WANTS_SKIPPED: bool = true;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        let rules = Rules {
            high_score: config.high_score as f32,
            low_score: config.low_score as f32,
            new_score: config.new_score as f32,
            min_match: config.min_match as f32,
            max_lost_us: (config.max_lost_s * 1e6) as i64,
            min_hits: config.min_hits,
            per_class: config.per_class,
        };
        let tracks = state::load(TRACKS).unwrap_or_default();
        Ok(Self { rules, labels: config.labels, fill_skipped: config.fill_skipped, tracks })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let shares = [
            (config.high_score, "/high_score"),
            (config.low_score, "/low_score"),
            (config.new_score, "/new_score"),
            (config.min_match, "/min_match"),
        ];
        let shares = shares.map(|(share, path)| ((0.0..=1.0).contains(&share), path, "must be 0 to 1"));
        let others = [
            (config.low_score <= config.high_score, "/low_score", "must not be above `high_score`"),
            (config.new_score >= config.high_score, "/new_score", "must not be below `high_score`"),
            ((0.0..=3600.0).contains(&config.max_lost_s), "/max_lost_s", "must be 0 to 3600 seconds"),
            ((1..=100).contains(&config.min_hits), "/min_hits", "must be 1 to 100 frames"),
        ];
        let problem =
            |(_, path, message): (bool, &str, &str)| ConfigProblem { path: path.into(), message: message.into() };
        shares.into_iter().chain(others).filter(|(good, ..)| !good).map(problem).collect()
    }
}

impl PostHook for Tracker {
    fn postprocess(&mut self, inference: &Inference, detections: Vec<Detection>) -> Result<Outcome, Error> {
        let detections = self.track(&inference.meta(), detections);
        state::save(TRACKS, &self.tracks)?;
        Ok(Outcome { detections, events: Vec::new() })
    }

    fn skipped(&mut self, frame: FrameMeta, _: &str, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        if self.fill_skipped {
            detections.extend(self.predict(&frame));
        }
        Ok(Outcome { detections, events: Vec::new() })
    }
}

impl Tracker {
    fn track(&mut self, frame: &FrameMeta, mut detections: Vec<Detection>) -> Vec<Detection> {
        // A box without an area is nowhere.
        let is_wanted = |d: &Detection| d.bbox.width > 0.0 && d.bbox.height > 0.0 && self.is_wanted(d);
        let mut wanted: Vec<usize> = (0..detections.len()).filter(|index| is_wanted(&detections[*index])).collect();
        wanted.sort_by(|a, b| detections[*b].score.total_cmp(&detections[*a].score));
        wanted.truncate(MAX_SEEN);
        let seen = wanted.iter().map(|index| {
            let Detection { class_id, score, bbox, .. } = detections[*index];
            Seen { class_id, score, bbox }
        });
        let seen: Vec<_> = seen.collect();
        let ids = self.tracks.update(frame.pts_us, aspect(frame.size), &seen, &self.rules);
        for (index, id) in wanted.into_iter().zip(ids) {
            detections[index].track_id = id;
        }
        detections
    }

    /// Where the objects should be on a frame that nobody looked at.
    fn predict(&self, frame: &FrameMeta) -> impl Iterator<Item = Detection> {
        let expected = self.tracks.expected(frame.pts_us, aspect(frame.size)).into_iter();
        expected.map(|(id, seen)| {
            let detection = Detection::new(seen.class_id, seen.score, seen.bbox).with("predicted", 1);
            Detection { track_id: Some(id), ..detection }
        })
    }

    fn is_wanted(&self, detection: &Detection) -> bool {
        self.labels.is_empty() || detection.label.as_ref().is_some_and(|label| self.labels.contains(label))
    }
}

/// Width by height.
fn aspect(size: Size) -> f32 {
    size.width.max(1) as f32 / size.height.max(1) as f32
}

framehook_sdk::export!(post: Tracker);
