//! What came of a run, counted, and what a person should know of it.

use std::collections::BTreeMap;

use framehook_core::{
    artifact::ModelManifest,
    hints::{Hint, HintCode},
    hook_stats::NOT_CALLED,
    prediction::{HookFailure, Prediction},
    text::one_line,
};

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
    /// On which it was called.
    frames: u64,
    /// On which it was left out because it had failed before.
    not_called: u64,
    first: u64,
    message: String,
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
            self.fail(failure, prediction.frame);
        }
        // A frame on which a hook failed is skipped as well, and told as that.
        if let Some(skipped) = prediction.skipped.as_ref().filter(|_| prediction.hook_failures.is_empty()) {
            *self.skipped.entry(format!("{}: {}", skipped.by, skipped.reason)).or_default() += 1;
        }
    }

    fn fail(&mut self, HookFailure { plugin, reason }: &HookFailure, frame: u64) {
        let is_called = !reason.message.ends_with(NOT_CALLED);
        // The message may begin with the hook's name, which stands before it anyway.
        let said = reason.message.strip_prefix(&format!("{plugin}: ")).unwrap_or(&reason.message);
        let first = || Failures { frames: 0, not_called: 0, first: frame, message: one_line(said).into_owned() };
        let failures = self.failures.entry(plugin.clone()).or_insert_with(first);
        failures.frames += u64::from(is_called);
        failures.not_called += u64::from(!is_called);
    }

    /// The hook that failed on more than half of the frames, or was not called for that, if one did: a
    /// platform says so of its scenario, too.
    pub(super) fn failed_hook(&self) -> Option<&str> {
        let is_most = |failures: &Failures| (failures.frames + failures.not_called) * 2 > self.frames;
        let mut failed = self.failures.iter().filter(|(_, failures)| is_most(failures));
        failed.next().map(|(plugin, _)| plugin.as_str())
    }

    /// `person 230, car 12 | crowded 3`
    pub(super) fn short(&self) -> String {
        let parts = [&self.detections, &self.events].map(counts);
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" | ")
    }

    /// The end's lines: what there was of each, and what may be the matter.
    pub(super) fn summary(&self, model: &ModelManifest, hints: Vec<Hint>) -> Vec<String> {
        let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
        let total: u64 = self.detections.values().sum();
        let mut lines = vec![format!("detections  {total}: {}", or_none(counts(&self.detections)))];
        lines.push(format!("events      {}", or_none(counts(&self.events))));
        lines.extend(self.skipped.iter().map(|(why, frames)| format!("skipped     {frames} frames by {why}")));
        lines.extend(self.failures.iter().map(|(plugin, Failures { frames, not_called, first, message })| {
            let not_called = match not_called {
                0 => String::new(),
                n => format!(", and was not called on {n} after repeated failures"),
            };
            format!("failed      {plugin} on {frames} frames{not_called}; first on frame {first}: {message}")
        }));
        let hints = hints.into_iter().map(|hint| match hint.code {
            HintCode::NoPostHook | HintCode::NoDetections => format!("{} ({})", hint.message, outputs(model)),
            _ => hint.message,
        });
        lines.extend(hints.chain(self.hint()).map(|hint| format!("hint        {hint}")));
        lines
    }

    /// Why there may be no detection, where the hooks' calls do not say it.
    fn hint(&self) -> Option<String> {
        if !self.detections.is_empty() || self.frames == 0 {
            return None;
        }
        let failed: u64 = self.failures.values().map(|failures| failures.frames + failures.not_called).sum();
        let skipped: u64 = self.skipped.values().sum();
        if failed >= self.frames {
            Some("hooks failed on every frame; what they said is above".to_owned())
        } else if skipped >= self.frames {
            Some("every frame was skipped before the inference; see the configuration of the pre hook".to_owned())
        } else {
            None
        }
    }
}

/// What a post hook has to read.
fn outputs(model: &ModelManifest) -> String {
    let side = |side: &Option<u32>| side.map_or("?".to_owned(), |n| n.to_string());
    let outputs = model.outputs.iter().map(|output| {
        let sides: Vec<_> = output.shape.iter().map(side).collect();
        format!("{} [{}]", output.name, sides.join(", "))
    });
    format!("the model's outputs are {}", outputs.collect::<Vec<_>>().join(", "))
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

    fn told(predictions: &[serde_json::Value], hints: Vec<Hint>) -> String {
        let model = ModelManifest {
            inputs: Vec::new(),
            outputs: serde_json::from_value(json!([{"name": "o", "element": "float32", "shape": [1, null]}])).unwrap(),
            input: None,
            warnings: Vec::new(),
            metadata: ModelMetadata::default(),
        };
        let mut tally = Tally::default();
        predictions.iter().for_each(|more| tally.add(&prediction(more.clone())));
        tally.summary(&model, hints).join("\n")
    }

    fn failed(message: &str) -> serde_json::Value {
        json!({"hook_failures": [{"plugin": "a@1", "code": "plugin_trap", "message": message}]})
    }

    #[test]
    fn what_was_found_is_counted_and_nothing_is_explained() {
        let car = json!({"class_id": 2, "label": "car", "score": 0.5, "box": [0.0, 0.0, 0.1, 0.1]});
        let thing = json!({"class_id": 7, "score": 0.5, "box": [0.0, 0.0, 0.1, 0.1]});
        let event = json!({"kind": "crowded", "severity": "info"});
        let found = json!({"detections": [car, thing, car], "events": [event]});
        assert_eq!(told(&[found], vec![]), "detections  3: car 2, class 7 1\nevents      crowded 1");
    }

    #[test]
    fn what_may_be_the_matter_is_told() {
        let hint = |code| Hint { code, message: "words".into() };
        let skipped = json!({"skipped": {"by": "gate@1", "reason": "still"}});
        let left_out = failed(&format!("a@1: x{NOT_CALLED}"));
        for (rows, hints, words) in [
            (vec![], vec![], "events      none"),
            (vec![json!({})], vec![hint(HintCode::NoPostHook)], "hint        words (the model's outputs are o [1, ?])"),
            (vec![json!({})], vec![hint(HintCode::UnknownLabel)], "hint        words"),
            (vec![failed("a@1: x\ny")], vec![], "on 1 frames; first on frame 4: x"),
            (
                vec![failed("a@1: x"), left_out.clone(), left_out],
                vec![],
                "failed      a@1 on 1 frames, and was not called on 2 after repeated failures; first on frame 4: x\n\
                 hint        hooks failed",
            ),
            (vec![skipped], vec![], "skipped     1 frames by gate@1: still\nhint        every frame was skipped"),
        ] {
            let told = told(&rows, hints);
            assert!(told.contains(words), "{told}");
        }
        assert!(!told(&[], vec![]).contains("hint"));
        let mut tally = Tally::default();
        for (row, expected) in [(failed("x"), Some("a@1")), (json!({}), None), (failed("x"), Some("a@1"))] {
            tally.add(&prediction(row));
            assert_eq!(tally.failed_hook(), expected);
        }
    }
}
