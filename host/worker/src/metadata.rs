//! What a model's file says of itself: the metadata that exporters write, each in its own way.
//!
//! Invariant: it is a stranger's text, so it is bounded, and what cannot be read is not there.

use framehook_core::{artifact::ModelMetadata, probe::printable};
use ort::session::Session;

/// As many as the largest public sets of classes have.
const MAX_LABELS: usize = 22_000;
/// Bytes of all names together: a quarter of an answer about an upload, in which a quote takes two.
const MAX_TEXT: usize = 256 << 10;
const MAX_LABEL: usize = 256;
/// Bytes of the name of a task, which is a word.
const MAX_TASK: usize = 64;

/// What Ultralytics' exporter writes: `names` and `stride` in Python's spelling, and `task`.
pub(crate) fn of(session: &Session) -> ModelMetadata {
    let Ok(metadata) = session.metadata() else { return ModelMetadata::default() };
    ModelMetadata {
        labels: metadata.custom("names").and_then(|text| labels(&text)).unwrap_or_default(),
        task: metadata.custom("task").filter(|task| !task.is_empty() && task.len() <= MAX_TASK).map(|t| printable(&t)),
        // One number or a list of one for each head, the coarsest last.
        stride: metadata.custom("stride").and_then(|text| numbers(&text).into_iter().max()),
    }
}

fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Names by class id, out of `{0: 'person', 1: 'car'}` or `['person', 'car']`, with single or double quotes.
/// A number that has no name gets an empty one.
fn labels(text: &str) -> Option<Vec<String>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let text = text.trim();
    let is_dict = text.starts_with('{');
    let mut rest = text.strip_prefix(['{', '['])?;
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if let Some(behind) = rest.strip_prefix(if is_dict { '}' } else { ']' }) {
            return behind.is_empty().then_some(labels);
        }
        let mut id = labels.len();
        if is_dict {
            let (key, behind) = rest.split_once(':')?;
            id = key.trim().trim_matches(['"', '\'']).parse().ok()?;
            rest = behind.trim_start();
        }
        let (label, behind) = quoted(rest)?;
        if id >= MAX_LABELS || label.len() > MAX_LABEL {
            return None;
        }
        labels.resize(labels.len().max(id + 1), String::new());
        labels[id] = printable(&label);
        rest = behind;
    }
}

/// A string in Python's or JSON's spelling, and what comes behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            c if c == quote => return Some((value, &text[at + c.len_utf8()..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_exporters_write_them() {
        for (text, expected) in [
            ("{0: 'person', 1: 'car'}", Some(&["person", "car"][..])),
            (r#"{0: "driver's seat", 1: 'say \'so\''}"#, Some(&["driver's seat", "say 'so'"])),
            (r#"{"0": "person", "2": "truck"}"#, Some(&["person", "", "truck"])),
            (r#"["person","車"]"#, Some(&["person", "車"])),
            ("['a, b: {c}',]", Some(&["a, b: {c}"])),
            (" {} ", Some(&[])),
            ("[]", Some(&[])),
            ("person", None),
            ("", None),
            ("{0: 'person'", None),
            ("{0: 'person}", None),
            ("{0: person}", None),
            ("{-1: 'person'}", None),
            ("{99999999: 'person'}", None),
            ("['a'] and more", None),
            ("['a\\", None),
        ] {
            let expected = expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
            assert_eq!(labels(text), expected, "{text}");
        }
        assert_eq!(labels(&format!("['{}']", "a".repeat(MAX_LABEL + 1))), None);
    }

    #[test]
    fn strides_are_one_number_or_several() {
        assert_eq!(numbers("32"), [32]);
        assert_eq!(numbers("[8, 16, 32]"), [8, 16, 32]);
        assert_eq!(numbers("none"), [0; 0]);
    }
}
