//! Keeps the detections of some classes, and says when the scene gets crowded.

use framehook_sdk::{Detection, Error, Event, Hook, Inference, Outcome, PostHook, Severity, Stream, info};
use schemars::JsonSchema;
use serde::Deserialize;

/// What users may configure. Its JSON Schema is published with the plugin.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Names of the classes to keep.
    #[serde(default = "default_keep")]
    keep: Vec<String>,
    /// An event is sent when at least this many are seen.
    #[serde(default = "default_crowd")]
    crowd: usize,
}

fn default_keep() -> Vec<String> {
    vec!["person".into()]
}

fn default_crowd() -> usize {
    3
}

struct Crowd {
    config: Config,
    crowded: bool,
}

impl Hook for Crowd {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        info!("keeps {}", config.keep.join(", "));
        Ok(Self { config, crowded: false })
    }
}

impl PostHook for Crowd {
    fn postprocess(&mut self, _: &Inference, detections: Vec<Detection>) -> Result<Outcome, Error> {
        let detections = keep(detections, &self.config.keep);
        let was_crowded = std::mem::replace(&mut self.crowded, detections.len() >= self.config.crowd);
        let mut events = Vec::new();
        if self.crowded && !was_crowded {
            let crowded = Event::new("crowded").severity(Severity::Warning).with("count", detections.len());
            events.push((0..detections.len()).fold(crowded, Event::about));
        }
        Ok(Outcome { detections, events })
    }
}

fn keep(detections: Vec<Detection>, wanted: &[String]) -> Vec<Detection> {
    let is_wanted = |d: &Detection| d.label.as_ref().is_some_and(|label| wanted.contains(label));
    detections.into_iter().filter(is_wanted).collect()
}

framehook_sdk::export!(post: Crowd);

#[cfg(test)]
mod tests {
    use framehook_sdk::{
        Bbox,
        testing::{self, Scene},
    };

    use super::*;

    fn seen(label: &str) -> Detection {
        Detection { label: Some(label.into()), ..Detection::new(0, 0.9, Bbox::default()) }
    }

    #[test]
    fn a_crowd_is_told_of_once() {
        let mut hook: Crowd = testing::start(r#"{"keep": ["person"], "crowd": 2}"#).unwrap();
        let frame = Scene::new(640, 360).inference();
        let crowd = || vec![seen("person"), seen("car"), seen("person")];
        let first = hook.postprocess(&frame, crowd()).unwrap();
        assert_eq!((first.detections.len(), first.events.len()), (2, 1));
        assert_eq!(first.events[0].kind, "crowded");
        assert!(hook.postprocess(&frame, crowd()).unwrap().events.is_empty());
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        assert!(testing::start::<Crowd>(r#"{"kept": []}"#).is_err());
    }
}
