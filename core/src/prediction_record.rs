//! A prediction as the JSON that its worker wrote, on its way into the store.
//!
//! Invariant: whoever reads a record has checked that its text is a whole [`Prediction`], so that
//! whatever is stored can be read again. The check reads one detection at a time and keeps none;
//! the text itself is passed on as it is and never written again.

use std::fmt;

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    ids::{Generation, ScenarioId},
    prediction::{Detection, Event, FrameTimings, HookFailure, Position, Prediction, Provenance, Skipped},
};

/// The text of a prediction, with what is looked at between the worker and the reader.
#[derive(Clone, Debug)]
pub struct PredictionRecord {
    pub scenario_id: ScenarioId,
    pub generation: Generation,
    pub position: Position,
    pub left_out: u64,
    pub captured_at: Timestamp,
    /// There was no inference, or its result was dropped.
    pub is_skipped: bool,
    /// The last of its hooks that failed.
    pub hook_failure: Option<HookFailure>,
    pub timings: FrameTimings,
    json: Box<RawValue>,
}

impl PredictionRecord {
    /// The prediction as it was written.
    pub fn json(&self) -> &str {
        self.json.get()
    }

    /// # Errors
    /// When `json` is not a prediction.
    pub fn read(json: Box<RawValue>) -> serde_json::Result<Self> {
        let outline: Outline = serde_json::from_str(json.get())?;
        Ok(Self {
            scenario_id: outline.scenario_id,
            generation: outline.generation,
            position: Position { pts_us: outline.pts_us, frame: outline.frame },
            left_out: outline.left_out,
            captured_at: outline.captured_at,
            is_skipped: outline.skipped.is_some(),
            hook_failure: outline.hook_failures.last,
            timings: outline.timings,
            json,
        })
    }
}

impl Serialize for PredictionRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PredictionRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Deserialize::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl From<&Prediction> for PredictionRecord {
    fn from(prediction: &Prediction) -> Self {
        let &Prediction { scenario_id, generation, pts_us, frame, left_out, captured_at, timings, .. } = prediction;
        Self {
            scenario_id,
            generation,
            position: Position { pts_us, frame },
            left_out,
            captured_at,
            is_skipped: prediction.skipped.is_some(),
            hook_failure: prediction.hook_failures.last().cloned(),
            timings,
            json: to_raw_value(prediction).expect("a prediction has no keys but strings"),
        }
    }
}

impl PartialEq for PredictionRecord {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

/// Every field of a [`Prediction`], with the last items of its lists.
#[derive(Deserialize)]
struct Outline {
    scenario_id: ScenarioId,
    generation: Generation,
    pts_us: i64,
    frame: u64,
    #[serde(default)]
    left_out: u64,
    #[serde(rename = "size")]
    _size: Option<[u32; 2]>,
    captured_at: Timestamp,
    #[serde(rename = "detections")]
    _detections: Each<Detection>,
    #[serde(rename = "events")]
    _events: Each<Event>,
    skipped: Option<Skipped>,
    #[serde(default)]
    hook_failures: Each<HookFailure>,
    timings: FrameTimings,
    #[serde(rename = "provenance")]
    _provenance: Provenance,
}

/// A list of which each item was read and let go for the next.
struct Each<T> {
    last: Option<T>,
}

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self { last: None }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Each<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Self, A::Error> {
        while let Some(item) = items.next_element()? {
            self.last = Some(item);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::reason::{Reason, ReasonCode};

    fn prediction(detections: usize, is_skipped: bool, failures: usize) -> Prediction {
        let digest = format!("sha256:{}", "a".repeat(64));
        let by = || "gate@0.1.0".to_owned();
        let detection = json!({"class_id": 2, "label": "car", "score": 0.5, "box": [0.1, 0.2, 0.3, 0.4],
            "track_id": 7, "keypoints": [[0.1, 0.2]]});
        let event = json!({"kind": "line_crossed", "severity": "info", "subjects": [0], "attributes": {"line": "a"}});
        let failure =
            |n| HookFailure { plugin: by(), reason: Reason::new(ReasonCode::PluginTrap, format!("unreachable {n}")) };
        let whole = json!({
            "scenario_id": ScenarioId::generate(), "generation": 3, "pts_us": -40_000, "frame": 12,
            "captured_at": "2026-11-27T03:04:05.123456Z", "detections": vec![detection; detections],
            "events": [event], "timings": {"decode_us": 1, "pre_us": 2, "inference_us": 3, "post_us": 4},
            "provenance": {"model": digest, "plugins": [{"name": "yolo", "version": "0.1.0", "digest": digest}], "revision": 1},
        });
        let prediction: Prediction = serde_json::from_value(whole).unwrap();
        let skipped = is_skipped.then(|| Skipped { by: by(), reason: "no motion".into() });
        Prediction { skipped, hook_failures: (0..failures).map(failure).collect(), ..prediction }
    }

    fn read(text: &str) -> serde_json::Result<PredictionRecord> {
        serde_json::from_str(text)
    }

    /// Each value of the tree, the tree itself included, by the way to it.
    fn paths(value: &Value, here: &str, all: &mut Vec<String>) {
        all.push(here.to_owned());
        match value {
            Value::Object(map) => map.iter().for_each(|(key, inner)| paths(inner, &format!("{here}/{key}"), all)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(k, inner)| paths(inner, &format!("{here}/{k}"), all))
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn a_record_says_of_its_prediction_what_that_says(detections in 0..3usize, skipped: bool, failures in 0..3usize) {
            let prediction = prediction(detections, skipped, failures);
            let text = serde_json::to_string(&prediction).unwrap();
            let (ours, made) = (read(&text).unwrap(), PredictionRecord::from(&prediction));
            prop_assert_eq!(ours.json(), &text);
            prop_assert_eq!(format!("{ours:?}"), format!("{made:?}"));
            prop_assert_eq!(ours.is_skipped, skipped);
            prop_assert_eq!(&ours.hook_failure, &prediction.hook_failures.last().cloned());
            prop_assert_eq!(serde_json::to_string(&ours).unwrap(), text);
            let other = PredictionRecord::from(&Prediction { frame: prediction.frame + 1, ..prediction });
            prop_assert!(ours == made && ours != other);
        }
    }

    #[test]
    fn a_text_is_a_record_if_and_only_if_it_is_a_prediction() {
        let whole = serde_json::to_value(prediction(2, true, 1)).unwrap();
        let mut all = Vec::new();
        paths(&whole, "", &mut all);
        assert!(all.len() > 60, "{}", all.len());
        let others = [json!(null), json!(-1), json!(1.5), json!("x"), json!([]), json!({}), json!(true), json!(1e300)];
        let mut refused = 0;
        for path in &all {
            for other in &others {
                let mut damaged = whole.clone();
                *damaged.pointer_mut(path).unwrap() = other.clone();
                let text = damaged.to_string();
                let is_prediction = serde_json::from_str::<Prediction>(&text).is_ok();
                assert_eq!(read(&text).is_ok(), is_prediction, "{path} = {other}");
                refused += usize::from(!is_prediction);
            }
            let (parent, key) = path.rsplit_once('/').unwrap_or_default();
            let mut damaged = whole.clone();
            if let Some(map) = damaged.pointer_mut(parent).and_then(Value::as_object_mut) {
                map.remove(key);
                let text = damaged.to_string();
                assert_eq!(read(&text).is_ok(), serde_json::from_str::<Prediction>(&text).is_ok(), "no {path}");
            }
        }
        assert!(refused > 200, "{refused}");
        let text = whole.to_string();
        for cut in 0..text.len() {
            assert!(read(&text[..cut]).is_err(), "{cut}");
        }
        assert!(read(&format!("{text} {{}}")).is_err());
        let mut damaged = whole;
        damaged["events"] = json!(1);
        assert!(read(&damaged.to_string()).unwrap_err().to_string().contains("expected a list"));
    }
}
