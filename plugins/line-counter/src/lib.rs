//! Tracks objects from frame to frame and says when one crosses a line.
//!
//! Stands behind a hook that detects. Each detection gets the number of its track; each crossing is
//! an event `line_crossed` with its direction and the counts so far.

mod track;

use framehook_sdk::{
    ConfigProblem, Detection, Error, Event, Hook, Inference, Outcome, Point, PostHook, Stream,
    geometry::{self, Crossing},
    state,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::track::{Tracker, Tracking};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Two points [x, y], 0 to 1 of the frame. Seen from the first to the second, an object that
    /// goes from the left side to the right crosses "forward", else "backward".
    line: [[f32; 2]; 2],
    /// Only objects of these classes, by name. Empty: all.
    #[serde(default)]
    labels: Vec<String>,
    /// Detections with a lower score are not tracked.
    #[serde(default = "default_min_score")]
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
}

/// A little above what detectors report: a track should not begin with a guess.
fn default_min_score() -> f64 {
    0.3
}

struct LineCounter {
    config: Config,
    seen: Seen,
}

/// All that it needs of earlier frames.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    tracker: Tracker,
    forward: u64,
    backward: u64,
}

/// Its name among what the hook keeps.
const SEEN: &str = "seen";

impl Hook for LineCounter {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        Ok(Self { config, seen: state::load(SEEN).unwrap_or_default() })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: &str| {
            problems.push(ConfigProblem { path, message: message.into() });
        };
        for (point, coordinates) in config.line.iter().enumerate() {
            for (axis, n) in coordinates.iter().enumerate() {
                if !(0.0..=1.0).contains(n) {
                    problem(format!("/line/{point}/{axis}"), "must be 0 to 1, a share of the frame");
                }
            }
        }
        if config.line[0] == config.line[1] {
            problem("/line".into(), "its two points must differ");
        }
        if !(0.0..=1.0).contains(&config.min_score) {
            problem("/min_score".into(), "must be 0 to 1");
        }
        problems
    }
}

impl PostHook for LineCounter {
    fn postprocess(&mut self, _: &Inference, detections: Vec<Detection>) -> Result<Outcome, Error> {
        let outcome = self.count(detections);
        state::save(SEEN, &self.seen)?;
        Ok(outcome)
    }
}

const FORWARD: &str = "forward";
const BACKWARD: &str = "backward";

impl Seen {
    fn count_of(&mut self, direction: &str) -> &mut u64 {
        if direction == FORWARD { &mut self.forward } else { &mut self.backward }
    }
}

impl LineCounter {
    fn count(&mut self, mut detections: Vec<Detection>) -> Outcome {
        let wanted = |d: &Detection| f64::from(d.score) >= self.config.min_score && self.is_wanted(d);
        let tracked: Vec<usize> = (0..detections.len()).filter(|i| wanted(&detections[*i])).collect();
        let boxes: Vec<_> = tracked.iter().map(|i| (detections[*i].class_id, detections[*i].bbox)).collect();
        let mut events = Vec::new();
        for (index, Tracking { id, from, to }) in tracked.into_iter().zip(self.seen.tracker.update(&boxes)) {
            detections[index].track_id = Some(id);
            if let Some(direction) = from.and_then(|from| crossing(self.config.line, from, to)) {
                *self.seen.count_of(direction) += 1;
                events.push(self.event(index, id, direction, detections[index].label.as_deref()));
            }
        }
        Outcome { detections, events }
    }

    fn is_wanted(&self, detection: &Detection) -> bool {
        let labels = &self.config.labels;
        labels.is_empty() || detection.label.as_ref().is_some_and(|label| labels.contains(label))
    }

    /// Its attributes are texts, as they were when a contract had nothing else: clients compare them.
    fn event(&self, subject: usize, track: u64, direction: &str, label: Option<&str>) -> Event {
        let event = Event::new("line_crossed").about(subject).with("direction", direction);
        let event = event.with("track_id", track.to_string());
        let event = event.with(BACKWARD, self.seen.backward.to_string()).with(FORWARD, self.seen.forward.to_string());
        match label {
            Some(label) => event.with("label", label),
            None => event,
        }
    }
}

/// Which way the step from `from` to `to` crosses the segment, if it does.
fn crossing(line: [[f32; 2]; 2], from: [f32; 2], to: [f32; 2]) -> Option<&'static str> {
    let point = |[x, y]: [f32; 2]| Point { x, y };
    geometry::crossing(line.map(point), point(from), point(to)).map(|crossing| match crossing {
        Crossing::ToRight => FORWARD,
        Crossing::ToLeft => BACKWARD,
    })
}

framehook_sdk::export!(post: LineCounter);

#[cfg(test)]
mod tests {
    use framehook_sdk::{Bbox, Source, SourceKind, Start, Value};

    use super::*;

    fn stream() -> Stream {
        let source = Source { kind: SourceKind::File, size: None, frames_per_second: None, frames: None };
        Stream { id: String::new(), start: Start::Fresh, source, model_labels: Vec::new() }
    }

    fn counter(labels: &[&str]) -> LineCounter {
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        // From the top down: left of it is the right half of the picture.
        let config = Config { line: [[0.5, 0.0], [0.5, 1.0]], labels, min_score: 0.3 };
        LineCounter::new(&stream(), config).unwrap()
    }

    fn at(class_id: u32, x: f32, y: f32) -> Detection {
        let bbox = Bbox { x: x - 0.05, y: y - 0.05, width: 0.1, height: 0.1 };
        let label = ["person", "car"].get(class_id as usize).map(|label| (*label).to_owned());
        Detection { label, ..Detection::new(class_id, 0.9, bbox) }
    }

    /// Directions of all crossings while one object goes through `xs`.
    fn walk(counter: &mut LineCounter, class_id: u32, xs: impl Iterator<Item = f32>) -> Vec<String> {
        let events = xs.flat_map(|x| counter.count(vec![at(class_id, x, 0.5)]).events);
        let direction = |e: Event| match &e.attributes[0].value {
            Value::Text(direction) => direction.clone(),
            other => panic!("{other:?}"),
        };
        events.map(direction).collect()
    }

    #[test]
    fn there_and_back_is_one_crossing_each_way() {
        let mut counter = counter(&[]);
        let there = (0..20).map(|i| 0.3 + 0.02 * i as f32);
        let back = (0..20).rev().map(|i| 0.3 + 0.02 * i as f32);
        assert_eq!(walk(&mut counter, 0, there.chain(back)), [BACKWARD, FORWARD]);
        assert_eq!((counter.seen.forward, counter.seen.backward), (1, 1));
    }

    #[test]
    fn it_goes_on_where_another_instance_stopped() {
        let xs: Vec<_> = (0..40).map(|i| 0.5 + 0.2 * (i as f32 / 4.0).sin()).collect();
        let whole = walk(&mut counter(&[]), 0, xs.iter().copied());
        assert!(whole.len() > 2, "{whole:?}");
        let in_parts = xs.iter().flat_map(|x| {
            let mut counter = counter(&[]);
            let events = walk(&mut counter, 0, [*x].into_iter());
            state::save(SEEN, &counter.seen).unwrap();
            events
        });
        assert_eq!(in_parts.collect::<Vec<_>>(), whole);
        let Seen { forward, backward, .. } = counter(&[]).seen;
        assert_eq!(forward + backward, whole.len() as u64);
    }

    #[test]
    fn a_track_keeps_its_number() {
        let mut counter = counter(&[]);
        let ids: Vec<_> = (0..10)
            .map(|i| {
                let out = counter.count(vec![at(0, 0.1 + 0.02 * i as f32, 0.2), at(0, 0.9, 0.8)]);
                (out.detections[0].track_id, out.detections[1].track_id)
            })
            .collect();
        assert!(ids.iter().all(|pair| *pair == ids[0]), "{ids:?}");
        assert_ne!(ids[0].0, ids[0].1);
    }

    #[test]
    fn other_classes_are_left_alone() {
        let mut counter = counter(&["car"]);
        assert!(walk(&mut counter, 0, (0..20).map(|i| 0.3 + 0.02 * i as f32)).is_empty());
        let mut cars = self::counter(&["car"]);
        assert_eq!(walk(&mut cars, 1, (0..20).map(|i| 0.3 + 0.02 * i as f32)).len(), 1);
        assert_eq!(counter.count(vec![at(0, 0.1, 0.1)]).detections[0].track_id, None);
    }

    #[test]
    fn only_the_segment_counts() {
        let line = [[0.5, 0.0], [0.5, 0.5]];
        assert_eq!(crossing(line, [0.4, 0.2], [0.6, 0.2]), Some(BACKWARD));
        assert_eq!(crossing(line, [0.6, 0.2], [0.4, 0.2]), Some(FORWARD));
        assert_eq!(crossing(line, [0.4, 0.8], [0.6, 0.8]), None);
        assert_eq!(crossing(line, [0.4, 0.2], [0.45, 0.2]), None);
    }

    #[test]
    fn a_line_must_be_one() {
        let problems = |line| {
            let config = Config { line, labels: Vec::new(), min_score: 0.3 };
            LineCounter::check(&config).iter().map(|p| p.path.clone()).collect::<Vec<_>>()
        };
        assert!(problems([[0.0, 0.0], [1.0, 1.0]]).is_empty());
        assert_eq!(problems([[0.0, 2.0], [1.0, -1.0]]), ["/line/0/1", "/line/1/1"]);
        assert_eq!(problems([[0.5, 0.5], [0.5, 0.5]]), ["/line"]);
    }
}
