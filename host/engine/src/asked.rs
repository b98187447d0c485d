//! Labels that a hook's configuration asks for, and that nobody gives: a typing error, most likely.
//!
//! Invariant: what is told is true of all frames so far. A label of which it is not certain that nobody gives
//! it is never told: one is met by being a name of a class, or on a detection.

use std::collections::BTreeSet;

use framehook_core::{
    hook_stats::{MAX_LABEL, MAX_LABELS},
    prediction::Detection,
};
use serde_json::Value;

use crate::abi::Names;

/// Where plugins list the labels that they work on, or give.
const KEYS: [&str; 3] = ["labels", "keep", "classes"];

/// Those that were not met yet.
#[derive(Debug)]
pub(crate) struct Asked {
    labels: BTreeSet<String>,
    /// Whether the names of classes were looked at: they stay the same.
    knows_names: bool,
}

impl Asked {
    pub(crate) fn of(config: &Value) -> Self {
        let lists = KEYS.iter().filter_map(|key| texts(config.get(key)?));
        let labels = lists.flatten().filter(|label| label.len() <= MAX_LABEL).collect();
        Self { labels, knows_names: false }
    }

    /// Notes what a call was given and what it returned. Without a list of names nobody knows what may still
    /// come, so nothing is said.
    pub(crate) fn meet(&mut self, given: &[Detection], returned: &[Detection], names: &Names<'_>) {
        if self.labels.is_empty() {
            return;
        }
        if !self.knows_names {
            self.knows_names = true;
            if names.earlier.is_empty() {
                self.labels.clear();
            }
            self.labels.retain(|label| !names.earlier.contains(label) && !names.own.contains(label));
        }
        for label in given.iter().chain(returned).filter_map(|detection| detection.label.as_ref()) {
            self.labels.remove(label);
        }
    }

    /// Those that nobody gives, as far as is known.
    pub(crate) fn unknown(&self) -> Vec<String> {
        if self.knows_names { self.labels.iter().take(MAX_LABELS).cloned().collect() } else { Vec::new() }
    }
}

/// The items of a list of texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unknown(config: &Value, given: &[&str], own: &[&str], earlier: &[&str]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (own, earlier) = (owned(own), owned(earlier));
        let detections: Vec<_> =
            owned(given).into_iter().map(|label| Detection { label: Some(label), ..Detection::default() }).collect();
        let mut asked = Asked::of(config);
        assert!(asked.unknown().is_empty(), "nothing is known yet");
        asked.meet(&detections, &[], &Names { own: &own, earlier: &earlier });
        asked.unknown()
    }

    #[test]
    fn only_what_certainly_nobody_gives_is_told() {
        let keep = |labels: &[&str]| json!({"keep": labels, "crowd": 2});
        let street = ["person", "car"];
        assert_eq!(unknown(&keep(&["persn", "car"]), &[], &[], &street), ["persn"]);
        assert_eq!(unknown(&keep(&["person", "car"]), &[], &[], &street), [""; 0]);
        assert_eq!(unknown(&keep(&["tent"]), &["tent"], &[], &street), [""; 0], "it was on a detection");
        assert_eq!(unknown(&json!({"labels": ["a"]}), &[], &["a"], &street), [""; 0], "the hook gives it");
        assert_eq!(unknown(&keep(&["persn"]), &["person"], &[], &[]), [""; 0], "nobody has names");
        assert_eq!(unknown(&json!({"zones": ["door"]}), &[], &[], &street), [""; 0], "no list of labels");
        assert_eq!(unknown(&json!({"keep": ["persn", 1]}), &[], &[], &street), [""; 0], "not of texts alone");
        assert_eq!(unknown(&keep(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]), &[], &[], &street).len(), MAX_LABELS);
        assert_eq!(unknown(&keep(&[&"x".repeat(65)]), &[], &[], &street), [""; 0], "too long to be told");
    }
}
