//! Marks what videos for people must not show: detections of some classes, and areas that are always private.
//!
//! It only marks, with the attribute `privacy`, whose value is `blur`; whatever draws a frame hides what is
//! marked. An area is a detection of its own on each frame, so that each row says by itself what is private.

use std::collections::BTreeMap;

use framehook_sdk::{
    Bbox, ConfigProblem, Detection, Error, FrameMeta, Hook, Inference, Outcome, Point, PostHook, Stream,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Config {
    /// Detections of these classes are private, by name.
    labels: Vec<String>,
    /// Areas that are private on each frame, by name: corners [x, y], 0 to 1 of the frame.
    #[schemars(inner(length(min = 3, max = 1000)))]
    areas: BTreeMap<String, Vec<[f32; 2]>>,
}

/// The attribute and the value that mark a detection.
const KEY: &str = "privacy";
const VALUE: &str = "blur";

struct PrivacyBlur(Config);

impl Hook for PrivacyBlur {
    type Config = Config;

    /// A frame that nobody looked at is shown as well.
    const WANTS_SKIPPED: bool = true;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        Ok(Self(config))
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let mut problem = |path: String, message: &str| {
            problems.push(ConfigProblem { path, message: message.into() });
        };
        if config.labels.is_empty() && config.areas.is_empty() {
            problem(String::new(), "has neither `labels` nor `areas`, so nothing would be private");
        }
        for (name, corners) in &config.areas {
            let path = format!("/areas/{}", name.replace('~', "~0").replace('/', "~1"));
            if corners.len() < 3 {
                problem(path, "needs three corners or more");
            } else if !corners.iter().flatten().all(|n| (0.0..=1.0).contains(n)) {
                problem(path, "has numbers that are not 0 to 1, a share of the frame");
            }
        }
        problems
    }
}

impl PostHook for PrivacyBlur {
    fn postprocess(&mut self, _: &Inference, detections: Vec<Detection>) -> Result<Outcome, Error> {
        Ok(self.mark(detections))
    }

    fn skipped(&mut self, _: FrameMeta, _: &str, detections: Vec<Detection>) -> Result<Outcome, Error> {
        Ok(self.mark(detections))
    }
}

impl PrivacyBlur {
    fn mark(&self, detections: Vec<Detection>) -> Outcome {
        let is_private = |d: &Detection| d.label.as_ref().is_some_and(|label| self.0.labels.contains(label));
        let marked = detections.into_iter().map(|d| if is_private(&d) { d.with(KEY, VALUE) } else { d });
        let areas = self.0.areas.iter().map(|(name, corners)| area(name, corners));
        Outcome { detections: marked.chain(areas).collect(), events: Vec::new() }
    }
}

/// A detection that is always there.
fn area(name: &str, corners: &[[f32; 2]]) -> Detection {
    let bound = |axis: usize, better: fn(f32, f32) -> f32| {
        corners.iter().map(|corner| corner[axis]).reduce(better).unwrap_or_default()
    };
    let (x, y) = (bound(0, f32::min), bound(1, f32::min));
    let bbox = Bbox { x, y, width: bound(0, f32::max) - x, height: bound(1, f32::max) - y };
    let polygon = corners.iter().map(|[x, y]| Point { x: *x, y: *y }).collect();
    let detection = Detection { label: Some("private".into()), polygon, ..Detection::new(0, 1.0, bbox) };
    detection.with("area", name).with(KEY, VALUE)
}

framehook_sdk::export!(post: PrivacyBlur);

#[cfg(test)]
mod tests {
    use framehook_sdk::Value;

    use super::*;

    fn is_marked(detection: &Detection) -> bool {
        matches!(detection.attribute(KEY), Some(Value::Text(value)) if value == VALUE)
    }

    #[test]
    fn some_classes_are_marked_and_others_are_not() {
        let hook = PrivacyBlur(Config { labels: vec!["face".into()], ..Config::default() });
        let named = |label: &str| Detection { label: Some(label.into()), ..Detection::default() };
        let marked = hook.mark(vec![named("face"), named("car"), Detection::default()]).detections;
        assert_eq!(marked.iter().map(is_marked).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn an_area_is_there_on_each_frame() {
        let corners = vec![[0.25, 0.5], [0.75, 0.5], [0.5, 1.0]];
        let mut hook = PrivacyBlur(Config { areas: [("window".to_owned(), corners)].into(), ..Config::default() });
        let frame = FrameMeta { sequence: 0, pts_us: 0, size: framehook_sdk::Size { width: 8, height: 8 } };
        let found = hook.skipped(frame, "nothing moves", vec![Detection::default()]).unwrap().detections;
        let [_, area] = &found[..] else { panic!("{found:?}") };
        let Bbox { x, y, width, height } = area.bbox;
        assert_eq!(([x, y, width, height], area.polygon.len()), ([0.25, 0.5, 0.5, 0.5], 3));
        assert!(is_marked(area) && matches!(area.attribute("area"), Some(Value::Text(name)) if name == "window"));
    }

    #[test]
    fn nothing_private_is_nothing_meant() {
        let path = |config: Config| PrivacyBlur::check(&config).iter().map(|p| p.path.clone()).collect::<Vec<_>>();
        let areas =
            |corners: &[[f32; 2]]| Config { areas: [("a/b".to_owned(), corners.to_vec())].into(), ..Config::default() };
        assert_eq!(path(Config::default()), [""]);
        assert_eq!(path(areas(&[[0.0, 0.0], [1.0, 1.0]])), ["/areas/a~1b"]);
        assert_eq!(path(areas(&[[0.0, 0.0], [1.0, 1.0], [0.0, 2.0]])), ["/areas/a~1b"]);
        assert!(path(areas(&[[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])).is_empty());
    }
}
