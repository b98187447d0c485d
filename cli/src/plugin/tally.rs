//! What came of a run, counted, and what a person should know of it.

use std::collections::BTreeMap;

use framehook_core::{artifact::ModelManifest, prediction::Prediction};

#[derive(Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    detections: BTreeMap<String, u64>,
    events: BTreeMap<String, u64>,
    /// By hook and reason.
    skipped: BTreeMap<String, u64>,
    failures: BTreeMap<String, Failures>,
}

/// Those of one hook.
struct Failures {
    frames: u64,
    first: u64,
    message: String,
}

/// What a scenario had to find something with.
pub(super) struct Means<'a> {
    pub(super) model: &'a ModelManifest,
    pub(super) has_post: bool,
}

impl Tally {
    pub(super) fn add(&mut self, prediction: &Prediction) {
        self.frames += 1;
        for detection in &prediction.detections {
            let label = detection.label.clone().unwrap_or_else(|| format!("class {}", detection.class_id));
            *self.detections.entry(label).or_default() += 1;
        }
        for event in &prediction.events {
            *self.events.entry(event.kind.clone()).or_default() += 1;
        }
        for failure in &prediction.hook_failures {
            // The message may begin with the hook's name, which stands before it anyway.
            let said = &failure.reason.message;
            let message = said.strip_prefix(&format!("{}: ", failure.plugin)).unwrap_or(said);
            let first = || Failures { frames: 0, first: prediction.frame, message: message.to_owned() };
            self.failures.entry(failure.plugin.clone()).or_insert_with(first).frames += 1;
        }
        // A frame on which a hook failed is skipped as well, and told as that.
        if let Some(skipped) = prediction.skipped.as_ref().filter(|_| prediction.hook_failures.is_empty()) {
            *self.skipped.entry(format!("{}: {}", skipped.by, skipped.reason)).or_default() += 1;
        }
    }

    /// The hook that failed on more than half of the frames, if one did: a platform says so of its scenario, too.
    pub(super) fn failed_hook(&self) -> Option<&str> {
        let mut failed = self.failures.iter().filter(|(_, failures)| failures.frames * 2 > self.frames);
        failed.next().map(|(plugin, _)| plugin.as_str())
    }

    /// `person 230, car 12 | crowded 3`
    pub(super) fn short(&self) -> String {
        let parts = [&self.detections, &self.events].map(counts);
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" | ")
    }

    /// The end's lines: what there was of each, and what may be the matter.
    pub(super) fn summary(&self, means: &Means<'_>) -> Vec<String> {
        let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
        let total: u64 = self.detections.values().sum();
        let mut lines = vec![format!("detections  {total}: {}", or_none(counts(&self.detections)))];
        lines.push(format!("events      {}", or_none(counts(&self.events))));
        lines.extend(self.skipped.iter().map(|(why, frames)| format!("skipped     {frames} frames by {why}")));
        lines.extend(self.failures.iter().map(|(plugin, Failures { frames, first, message })| {
            format!("failed      {plugin} on {frames} frames, first on frame {first}: {message}")
        }));
        lines.extend(self.hint(means).map(|hint| format!("hint        {hint}")));
        lines
    }

    /// Why there may be no detection.
    fn hint(&self, Means { model, has_post }: &Means<'_>) -> Option<String> {
        if !self.detections.is_empty() || self.frames == 0 {
            return None;
        }
        let outputs: Vec<_> = model
            .outputs
            .iter()
            .map(|output| {
                let sides: Vec<_> =
                    output.shape.iter().map(|side| side.map_or("?".to_owned(), |n| n.to_string())).collect();
                format!("{} [{}]", output.name, sides.join(", "))
            })
            .collect();
        let outputs = outputs.join(", ");
        let failed: u64 = self.failures.values().map(|failures| failures.frames).sum();
        let skipped: u64 = self.skipped.values().sum();
        Some(if !has_post {
            format!("no plugin has a post hook, so nobody reads the model's outputs ({outputs})")
        } else if failed >= self.frames {
            "hooks failed on every frame; what they said is above".to_owned()
        } else if skipped >= self.frames {
            "every frame was skipped before the inference; see the configuration of the pre hook".to_owned()
        } else {
            format!(
                "nothing was detected. The first post hook must read the model's outputs ({outputs}); those that count or \
                 filter come behind it. Then: are scores asked for that the model does not reach, and is its input made as \
                 in its training (--input)?"
            )
        })
    }
}

/// The most frequent first.
fn counts(of: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = of.iter().collect();
    all.sort_by(|a, b| b.1.cmp(a.1));
    all.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use framehook_core::artifact::ModelMetadata;
    use serde_json::json;

    use super::*;

    fn prediction(more: serde_json::Value) -> Prediction {
        let digest = format!("sha256:{}", "0".repeat(64));
        let mut all = json!({
            "scenario_id": "018f4e2a-0000-7000-8000-000000000000", "generation": 1, "pts_us": 0, "frame": 4,
            "captured_at": "2026-01-01T00:00:00Z", "detections": [], "events": [],
            "timings": {"decode_us": 1, "pre_us": 1, "inference_us": 1, "post_us": 1},
            "provenance": {"model": digest, "plugins": [], "revision": 1},
        });
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn told(predictions: &[serde_json::Value], has_post: bool) -> String {
        let model = ModelManifest {
            inputs: Vec::new(),
            outputs: Vec::new(),
            input: None,
            warnings: Vec::new(),
            metadata: ModelMetadata::default(),
        };
        let mut tally = Tally::default();
        predictions.iter().for_each(|more| tally.add(&prediction(more.clone())));
        tally.summary(&Means { model: &model, has_post }).join("\n")
    }

    #[test]
    fn what_was_found_is_counted_and_nothing_is_explained() {
        let car = json!({"class_id": 2, "label": "car", "score": 0.5, "box": [0.0, 0.0, 0.1, 0.1]});
        let thing = json!({"class_id": 7, "score": 0.5, "box": [0.0, 0.0, 0.1, 0.1]});
        let event = json!({"kind": "crowded", "severity": "info"});
        let found = json!({"detections": [car, thing, car], "events": [event]});
        assert_eq!(told(&[found], true), "detections  3: car 2, class 7 1\nevents      crowded 1");
        let failed = json!({"hook_failures": [{"plugin": "a@1", "code": "plugin_trap", "message": "a@1: x"}]});
        let skipped = json!({"skipped": {"by": "gate@1", "reason": "still"}});
        for (rows, has_post, words) in [
            (vec![], true, "events      none"),
            (vec![json!({})], false, "no plugin has a post hook"),
            (vec![json!({})], true, "nothing was detected"),
            (vec![failed.clone()], true, "failed      a@1 on 1 frames, first on frame 4: x\nhint        hooks failed"),
            (vec![skipped], true, "skipped     1 frames by gate@1: still\nhint        every frame was skipped"),
        ] {
            let told = told(&rows, has_post);
            assert!(told.contains(words), "{told}");
        }
        assert!(!told(&[], true).contains("hint"));
        let mut tally = Tally::default();
        for (row, expected) in [(&failed, Some("a@1")), (&json!({}), None), (&failed, Some("a@1"))] {
            tally.add(&prediction(row.clone()));
            assert_eq!(tally.failed_hook(), expected);
        }
    }
}
