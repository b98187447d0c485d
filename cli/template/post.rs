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

/// Plain functions can be tested with `cargo test`.
fn keep(detections: Vec<Detection>, wanted: &[String]) -> Vec<Detection> {
    let is_wanted = |d: &Detection| d.label.as_ref().is_some_and(|label| wanted.contains(label));
    detections.into_iter().filter(is_wanted).collect()
}

framehook_sdk::export!(post: Crowd);

#[cfg(test)]
mod tests {
    use framehook_sdk::Bbox;

    use super::*;

    #[test]
    fn others_are_dropped() {
        let seen = |label: &str| Detection { label: Some(label.into()), ..Detection::new(0, 0.9, Bbox::default()) };
        let kept = keep(vec![seen("person"), seen("car")], &["person".into()]);
        assert_eq!(kept.len(), 1);
    }
}
