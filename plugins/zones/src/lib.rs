//! Says who enters zones, stays in them, leaves them and crowds them, and who crosses lines.
//!
//! Stands behind a hook that detects and one that tracks. Times are those of the stream. A frame that a pre
//! hook skipped is no frame: nobody looked, so nobody is missed. All that is needed of earlier frames is in
//! the hook's state: whatever ends the worker, stays and counts go on.

mod line;
mod shape;
#[cfg(test)]
mod tests;
mod zone;

use std::collections::BTreeMap;

use framehook_sdk::{ConfigProblem, Detection, Error, Event, Hook, Inference, Outcome, PostHook, Stream, state};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    line::Line,
    shape::{Anchor, Point, is_flat},
    zone::{Turn, Zone},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// By name.
    #[serde(default)]
    zones: BTreeMap<String, Zone>,
    /// By name.
    #[serde(default)]
    lines: BTreeMap<String, Line>,
    /// The point of an object that counts.
    #[serde(default)]
    anchor: Anchor,
    /// Seconds that an object must be outside before its stay ends, before it may cross the same line again,
    /// and between two events about a crowd that grows: what moves to and fro at an edge tells once.
    #[serde(default = "default_cooldown_s")]
    #[schemars(range(min = 0.0, max = 86400.0))]
    cooldown_s: f64,
    /// Seconds after which a stay ends whose object is not seen.
    #[serde(default = "default_lost_s")]
    #[schemars(range(min = 0.0, max = 86400.0))]
    lost_s: f64,
}

/// Longer than a box trembles at an edge.
fn default_cooldown_s() -> f64 {
    1.0
}

/// Twice as long as the tracker looks for an object by default, so that it is the tracker that decides.
fn default_lost_s() -> f64 {
    2.0
}

/// More objects than a tracker follows; those of a zone or line beyond are not followed, so that what is kept
/// has an end.
const MAX_FOLLOWED: usize = 500;
/// Frames with a sure detection after which a number would have been seen if anything gave numbers: four
/// seconds at 25 frames a second.
const FRAMES_WITHOUT_TRACKS: u32 = 100;
/// A detection of this score begins a track at once, with what `tracker` has as `new_score` and others have
/// below.
const SURE: f32 = 0.6;

struct Zones {
    config: Config,
    waits: Waits,
    known: Known,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    cooldown_us: i64,
    lost_us: i64,
}

/// All that it needs of earlier frames.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    zones: BTreeMap<String, zone::Known>,
    lines: BTreeMap<String, line::Known>,
    episodes: Episodes,
    /// Until a detection had a number.
    frames_without_tracks: u32,
    has_tracks: bool,
}

/// How many there were so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Episodes(u64);

impl Episodes {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// A detection as zones and lines see it.
struct Found<'a> {
    index: usize,
    track: Option<u64>,
    label: Option<&'a str>,
    at: Point,
}

impl Found<'_> {
    fn is_one_of(&self, labels: &[String]) -> bool {
        labels.is_empty() || self.label.is_some_and(|label| labels.iter().any(|wanted| wanted == label))
    }
}

/// Its name among what the hook keeps.
const KNOWN: &str = "known";

impl Hook for Zones {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        let us = |seconds: f64| (seconds * 1e6) as i64;
        let waits = Waits { cooldown_us: us(config.cooldown_s), lost_us: us(config.lost_s) };
        Ok(Self { config, waits, known: state::load(KNOWN).unwrap_or_default() })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: &str| {
            problems.push(ConfigProblem { path, message: message.into() });
        };
        if config.zones.is_empty() && config.lines.is_empty() {
            problem(String::new(), "has neither `zones` nor `lines`, so there is nothing to tell");
        }
        for (name, zone) in &config.zones {
            let path = format!("/zones/{}", escaped(name));
            if !zone.polygon.iter().flatten().all(|n| (0.0..=1.0).contains(n)) {
                problem(format!("{path}/polygon"), "has numbers that are not 0 to 1, a share of the frame");
            } else if zone.polygon.len() < 3 || is_flat(&zone.polygon) {
                problem(format!("{path}/polygon"), "has no area: it needs three corners that are not in a line");
            }
            if zone.dwell_s.is_some() && !zone.stays {
                problem(format!("{path}/dwell_s"), "needs `stays`: without them, nobody knows who stays");
            }
            if zone.dwell_s.is_some_and(|seconds| !seconds.is_finite() || seconds < 0.0) {
                problem(format!("{path}/dwell_s"), "must be a number of seconds, from 0");
            }
            if !zone.stays && zone.max_count.is_none() {
                problem(path, "tells nothing: it needs `stays` or `max_count`");
            }
        }
        for (name, line) in &config.lines {
            let path = format!("/lines/{}/line", escaped(name));
            if !line.line.iter().flatten().all(|n| (0.0..=1.0).contains(n)) {
                problem(path, "has numbers that are not 0 to 1, a share of the frame");
            } else if line.line[0] == line.line[1] {
                problem(path, "its two points must differ");
            }
        }
        for (seconds, path) in [(config.cooldown_s, "/cooldown_s"), (config.lost_s, "/lost_s")] {
            if !(0.0..=86_400.0).contains(&seconds) {
                problem(path.into(), "must be 0 to 86400 seconds");
            }
        }
        problems
    }
}

/// In a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

impl PostHook for Zones {
    fn postprocess(&mut self, inference: &Inference, detections: Vec<Detection>) -> Result<Outcome, Error> {
        let events = self.tell(inference.meta().pts_us, &detections)?;
        state::save(KNOWN, &self.known)?;
        Ok(Outcome { detections, events })
    }

    fn flush(&mut self) -> Result<Vec<Event>, Error> {
        Ok(self.end())
    }
}

impl Zones {
    fn tell(&mut self, now_us: i64, detections: &[Detection]) -> Result<Vec<Event>, Error> {
        self.expect_tracks(detections)?;
        let found = detections.iter().enumerate().map(|(index, d)| {
            let at = self.config.anchor.of(&d.bbox);
            Found { index, track: d.track_id, label: d.label.as_deref(), at }
        });
        let found: Vec<_> = found.collect();
        let (mut events, waits) = (Vec::new(), self.waits);
        let Known { zones, lines, episodes, .. } = &mut self.known;
        for (name, zone) in &self.config.zones {
            let mut turn = Turn { name, zone, waits, now_us, episodes, events: &mut events };
            turn.take(zones.entry(name.clone()).or_default(), &found);
        }
        for (name, line) in &self.config.lines {
            events.extend(line.take(name, lines.entry(name.clone()).or_default(), &found, now_us, waits));
        }
        Ok(events)
    }

    /// Without a tracker before it, it would be silent for ever, which nobody wants.
    fn expect_tracks(&mut self, detections: &[Detection]) -> Result<(), Error> {
        let needs = !self.config.lines.is_empty() || self.config.zones.values().any(|zone| zone.stays);
        let known = &mut self.known;
        known.has_tracks |= detections.iter().any(|d| d.track_id.is_some());
        if !needs || known.has_tracks || detections.iter().all(|d| d.score < SURE) {
            return Ok(());
        }
        known.frames_without_tracks += 1;
        if known.frames_without_tracks < FRAMES_WITHOUT_TRACKS {
            return Ok(());
        }
        Err(Error::InvalidConfig(format!(
            "no detection on {FRAMES_WITHOUT_TRACKS} frames has a `track_id`, so nobody knows who enters, leaves or \
             crosses: put `tracker` before `zones` in `plugins.post`, or set `stays` of each zone to false and \
             leave `lines` out"
        )))
    }

    fn end(&mut self) -> Vec<Event> {
        let (mut events, waits) = (Vec::new(), self.waits);
        let Known { zones, episodes, .. } = &mut self.known;
        for (name, zone) in &self.config.zones {
            let known = zones.remove(name).unwrap_or_default();
            Turn { name, zone, waits, now_us: 0, episodes, events: &mut events }.end(&known);
        }
        events
    }
}

framehook_sdk::export!(post: Zones);
