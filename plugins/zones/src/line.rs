//! One line: who crosses it, and how often it was crossed each way.

use std::collections::BTreeMap;

use framehook_sdk::{Event, geometry::Crossing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Found, MAX_FOLLOWED, Waits,
    shape::{Point, crossing},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// Two points [x, y], 0 to 1 of the frame. Seen from the first to the second, an object that goes from
    /// the left side to the right crosses "forward", else "backward".
    pub(crate) line: [Point; 2],
    /// Only objects of these classes, by name. Empty: all.
    #[serde(default)]
    pub(crate) labels: Vec<String>,
}

/// What is known of a line from earlier frames.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    forward: u64,
    backward: u64,
    /// By track.
    followed: BTreeMap<u64, Followed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Followed {
    /// Where it was; while it is too soon to count it again, where it was when it was counted.
    at: Point,
    crossed_us: Option<i64>,
    /// Time of the first frame on which it was not seen.
    gone_us: Option<i64>,
}

impl Line {
    pub(crate) fn take(
        &self,
        name: &str,
        known: &mut Known,
        found: &[Found<'_>],
        now_us: i64,
        waits: Waits,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for found in found.iter().filter(|found| found.is_one_of(&self.labels)) {
            let Some(track) = found.track else { continue };
            let room = known.followed.len() < MAX_FOLLOWED;
            let Some(followed) = known.followed.get_mut(&track) else {
                if room {
                    known.followed.insert(track, Followed { at: found.at, crossed_us: None, gone_us: None });
                }
                continue;
            };
            followed.gone_us = None;
            if followed.crossed_us.is_some_and(|crossed_us| now_us - crossed_us < waits.cooldown_us) {
                continue;
            }
            let crossing = crossing(self.line, std::mem::replace(&mut followed.at, found.at), found.at);
            followed.crossed_us = crossing.map(|_| now_us);
            if let Some(crossing) = crossing {
                events.push(known.count(name, track, found, crossing));
            }
        }
        let is_there = |track: &u64| found.iter().any(|found| found.track == Some(*track));
        known.followed.retain(|track, followed| {
            is_there(track) || now_us - *followed.gone_us.get_or_insert(now_us) < waits.lost_us
        });
        events
    }
}

impl Known {
    fn count(&mut self, name: &str, track: u64, found: &Found<'_>, crossing: Crossing) -> Event {
        let (count, direction) = match crossing {
            Crossing::ToRight => (&mut self.forward, "forward"),
            Crossing::ToLeft => (&mut self.backward, "backward"),
        };
        *count += 1;
        let event = Event::new("line_crossed").about(found.index).with("line", name).with("direction", direction);
        let event = event.with("track_id", track).with("forward", self.forward).with("backward", self.backward);
        found.label.into_iter().fold(event, |event, label| event.with("label", label))
    }
}
