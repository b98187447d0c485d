//! One zone: the stays of its objects, and whether there are too many of them.
//!
//! A stay is an episode: `zone_entered` begins it, `zone_dwell` tells that it has become long, `zone_left`
//! ends it. Being crowded is another: `zone_crowded`, from the first frame above the limit to the end. What
//! is at an edge and comes and goes is one episode, which ends only after a while outside.

use std::collections::BTreeMap;

use framehook_sdk::{Episode, Event, Phase, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Episodes, Found, MAX_FOLLOWED, Waits,
    shape::{Point, contains},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Zone {
    /// Corners [x, y] in their order, 0 to 1 of the frame.
    #[schemars(length(min = 3, max = 1000))]
    pub(crate) polygon: Vec<Point>,
    /// Only objects of these classes, by name. Empty: all.
    #[serde(default)]
    pub(crate) labels: Vec<String>,
    /// An event tells of an object that stays for so many seconds.
    #[schemars(range(min = 0.0))]
    pub(crate) dwell_s: Option<f64>,
    /// An event tells of more objects than this at a time.
    pub(crate) max_count: Option<u32>,
    /// Whether events tell who enters and leaves. It needs a tracker; counting does not.
    #[serde(default = "stays")]
    pub(crate) stays: bool,
}

fn stays() -> bool {
    true
}

/// What is known of a zone from earlier frames.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    /// By track.
    stays: BTreeMap<u64, Stay>,
    crowd: Option<Crowd>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stay {
    episode: u64,
    label: Option<String>,
    since_us: i64,
    inside_us: i64,
    /// Time of the first frame on which it was not inside.
    gone_us: Option<i64>,
    has_dwelt: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Crowd {
    episode: u64,
    since_us: i64,
    above_us: i64,
    /// Time of the first frame on which there were few enough again.
    gone_us: Option<i64>,
    count: usize,
    peak: usize,
    told_us: i64,
    told: usize,
}

/// A zone while one frame is worked on.
pub(crate) struct Turn<'a> {
    pub(crate) name: &'a str,
    pub(crate) zone: &'a Zone,
    pub(crate) waits: Waits,
    pub(crate) now_us: i64,
    pub(crate) episodes: &'a mut Episodes,
    pub(crate) events: &'a mut Vec<Event>,
}

impl Turn<'_> {
    pub(crate) fn take(&mut self, known: &mut Known, found: &[Found<'_>]) {
        let wanted = found.iter().filter(|found| found.is_one_of(&self.zone.labels));
        let (inside, outside): (Vec<_>, Vec<_>) = wanted.partition(|found| contains(&self.zone.polygon, found.at));
        if self.zone.stays {
            self.follow(&mut known.stays, &inside);
            self.end_stays(&mut known.stays, &inside, &outside);
        }
        if let Some(limit) = self.zone.max_count {
            self.crowd(&mut known.crowd, &inside, limit as usize);
        }
    }

    fn follow(&mut self, stays: &mut BTreeMap<u64, Stay>, inside: &[&Found<'_>]) {
        for found in inside {
            let Some(track) = found.track else { continue };
            if stays.len() >= MAX_FOLLOWED && !stays.contains_key(&track) {
                continue;
            }
            let mut is_new = false;
            let stay = stays.entry(track).or_insert_with(|| {
                is_new = true;
                let label = found.label.map(ToOwned::to_owned);
                let (since_us, inside_us) = (self.now_us, self.now_us);
                Stay { episode: self.episodes.next(), label, since_us, inside_us, gone_us: None, has_dwelt: false }
            });
            (stay.inside_us, stay.gone_us) = (self.now_us, None);
            if is_new {
                let event = self.of_stay("zone_entered", track, stay, Phase::New);
                self.events.push(event.about(found.index).with("count", inside.len()));
            }
            let limit = self.zone.dwell_s.filter(|limit| seconds(self.now_us - stay.since_us) >= *limit);
            if limit.is_some() && !stay.has_dwelt {
                stay.has_dwelt = true;
                let event = self.of_stay("zone_dwell", track, stay, Phase::Update).severity(Severity::Warning);
                self.events.push(event.about(found.index).with("seconds", seconds(self.now_us - stay.since_us)));
            }
        }
    }

    /// Ends those of objects that are outside for long enough, or were not seen for long enough.
    fn end_stays(&mut self, stays: &mut BTreeMap<u64, Stay>, inside: &[&Found<'_>], outside: &[&Found<'_>]) {
        let now_us = self.now_us;
        stays.retain(|track, stay| {
            if inside.iter().any(|found| found.track == Some(*track)) {
                return true;
            }
            let gone = now_us - *stay.gone_us.get_or_insert(now_us);
            let seen = outside.iter().find(|found| found.track == Some(*track));
            let (wait, reason) =
                if seen.is_some() { (self.waits.cooldown_us, "left") } else { (self.waits.lost_us, "lost") };
            if gone < wait {
                return true;
            }
            let event = self.left(*track, stay, reason).with("count", inside.len());
            self.events.push(seen.into_iter().fold(event, |event, found| event.about(found.index)));
            false
        });
    }

    fn crowd(&mut self, crowd: &mut Option<Crowd>, inside: &[&Found<'_>], limit: usize) {
        let (now_us, count) = (self.now_us, inside.len());
        let mut tell = |crowd: &Crowd, phase| {
            let event = crowd_event(self.name, crowd, phase, count, limit);
            self.events.push(inside.iter().fold(event, |event, found| event.about(found.index)));
        };
        let Some(known) = crowd else {
            if count > limit {
                let episode = self.episodes.next();
                let (since_us, above_us, told_us) = (now_us, now_us, now_us);
                let new =
                    Crowd { episode, since_us, above_us, gone_us: None, count, peak: count, told_us, told: count };
                tell(crowd.insert(new), Phase::New);
            }
            return;
        };
        if count > limit {
            (known.above_us, known.gone_us, known.count) = (now_us, None, count);
            known.peak = known.peak.max(count);
            if known.peak > known.told && now_us - known.told_us >= self.waits.cooldown_us {
                (known.told, known.told_us) = (known.peak, now_us);
                tell(known, Phase::Update);
            }
        } else if now_us - *known.gone_us.get_or_insert(now_us) >= self.waits.cooldown_us {
            tell(known, Phase::End);
            *crowd = None;
        }
    }

    fn of_stay(&self, kind: &str, track: u64, stay: &Stay, phase: Phase) -> Event {
        let event = Event::new(kind).with("zone", self.name).with("track_id", track);
        let event = event.of(episode(self.name, stay.episode, phase));
        stay.label.iter().fold(event, |event, label| event.with("label", label.as_str()))
    }

    fn left(&self, track: u64, stay: &Stay, reason: &str) -> Event {
        let inside = seconds(stay.inside_us - stay.since_us);
        self.of_stay("zone_left", track, stay, Phase::End).with("seconds", inside).with("reason", reason)
    }

    /// The stream ends, and with it all that goes on.
    pub(crate) fn end(&mut self, known: &Known) {
        for (track, stay) in &known.stays {
            self.events.push(self.left(*track, stay, "end_of_stream"));
        }
        if let Some((crowd, limit)) = known.crowd.as_ref().zip(self.zone.max_count) {
            let event = crowd_event(self.name, crowd, Phase::End, crowd.count, limit as usize);
            self.events.push(event.with("reason", "end_of_stream"));
        }
    }
}

fn crowd_event(zone: &str, crowd: &Crowd, phase: Phase, count: usize, limit: usize) -> Event {
    let event = Event::new("zone_crowded").severity(Severity::Warning).with("zone", zone).with("count", count);
    let event = event.with("max_count", limit);
    let event = event.with("peak", crowd.peak).with("seconds", seconds(crowd.above_us - crowd.since_us));
    event.of(episode(zone, crowd.episode, phase))
}

fn episode(zone: &str, number: u64, phase: Phase) -> Episode {
    Episode { id: format!("{zone}#{number}"), phase }
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
