//! Detections and events, made in few words.

use crate::{Attribute, Bbox, Detection, Episode, Event, Severity, Value};

impl Default for Bbox {
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, width: 0.0, height: 0.0 }
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            class_id: 0,
            label: None,
            score: 0.0,
            bbox: Bbox::default(),
            track_id: None,
            keypoints: Vec::new(),
            polygon: Vec::new(),
            mask: None,
            attributes: Vec::new(),
        }
    }
}

impl Detection {
    #[must_use]
    pub fn new(class_id: u32, score: f32, bbox: Bbox) -> Self {
        Self { class_id, score, bbox, ..Self::default() }
    }

    /// Adds an attribute, or replaces the one of that key.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        set(&mut self.attributes, key.into(), value.into());
        self
    }

    /// The attribute of that key.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
    }
}

impl Event {
    /// An event of `Severity::Info`, about nothing yet.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            severity: Severity::Info,
            subjects: Vec::new(),
            attributes: Vec::new(),
            episode: None,
        }
    }

    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Is about that detection of the same outcome, by its place there.
    #[must_use]
    pub fn about(mut self, detection: usize) -> Self {
        self.subjects.extend(u32::try_from(detection));
        self
    }

    /// Adds an attribute, or replaces the one of that key.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        set(&mut self.attributes, key.into(), value.into());
        self
    }

    #[must_use]
    pub fn of(mut self, episode: Episode) -> Self {
        self.episode = Some(episode);
        self
    }
}

fn set(attributes: &mut Vec<Attribute>, key: String, value: Value) {
    attributes.retain(|attribute| attribute.key != key);
    attributes.push(Attribute { key, value });
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<f64>> for Value {
    fn from(numbers: Vec<f64>) -> Self {
        Self::Numbers(numbers)
    }
}

macro_rules! from_numbers {
    ($($number:ty),+) => {
        $(impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Number(number as f64)
            }
        })+
    };
}
from_numbers!(f32, f64, u8, u16, u32, u64, usize, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_occurs_once() {
        let car = Detection::new(2, 0.9, Bbox::default()).with("speed", 3).with("speed", 4u64).with("lane", "left");
        assert_eq!(car.attributes.len(), 2);
        assert!(matches!(car.attribute("speed"), Some(Value::Number(4.0))));
        assert!(matches!(car.attribute("lane"), Some(Value::Text(lane)) if lane == "left"));
        assert!(car.attribute("colour").is_none());
        let event =
            Event::new("stopped").severity(Severity::Warning).about(3).with("seconds", 1.5).with("seconds", 2.5);
        assert_eq!((event.subjects.as_slice(), event.attributes.len()), (&[3][..], 1));
    }
}
