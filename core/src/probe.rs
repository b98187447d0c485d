//! The answers of the child that judges an upload or a configuration: JSON on its standard output.
//!
//! Invariant: an answer is bounded, however hostile the file is. The child keeps to the limits below, and the
//! reader, which does not trust the child, reads at most [`MAX_ANSWER`] bytes and cuts what is longer.

use serde::{Deserialize, Serialize};

/// Bytes of an answer. The longest is the manifest of a plugin whose schema has [`MAX_SCHEMA`] bytes, or of a
/// model with [`MAX_TENSORS`] inputs and outputs.
pub const MAX_ANSWER: u64 = 1 << 20;
/// Findings or problems in an answer; more would help nobody.
pub const MAX_FINDINGS: usize = 100;
/// Bytes of one text: a long sentence.
pub const MAX_TEXT: usize = 1 << 10;
/// Bytes of a plugin's JSON Schema; those of the stock plugins have at most 1,000.
pub const MAX_SCHEMA: usize = 64 << 10;
/// Inputs or outputs of a model; a detector without a last layer that joins them has some 20.
pub const MAX_TENSORS: usize = 256;
/// Bytes of the name of an input or output; exporters that join the names of scopes come to some 200.
pub const MAX_TENSOR_NAME: usize = 512;

/// Pixels of a side of each of the two pictures in a preview: most models' inputs are shown as they
/// are.
pub const MAX_PREVIEW_SIDE: u32 = 1280;
/// Bytes of a preview: two pictures of that size, full of noise, have 6 MiB.
pub const MAX_PREVIEW: u64 = 8 << 20;
/// The code of a finding about a preview: the video has no frame at that time or later.
pub const NO_SUCH_FRAME: &str = "no_such_frame";

/// How the child that compiles ends when it wrote findings where the code would be: a program that fails ends
/// with 1, one that was called in a wrong way with 2.
pub const EXIT_FINDINGS: u8 = 3;

/// What an upload is, or what is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict<T> {
    Ok(T),
    Findings(Vec<Finding>),
}

/// Something wrong with an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable, for programs.
    pub code: String,
    /// What was found and what to do, for people.
    pub message: String,
}

impl Finding {
    pub fn new(code: &str, message: &str) -> Self {
        Self { code: printable(code), message: printable(message) }
    }
}

/// What is wrong with a configuration; nothing: it is good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigVerdict {
    pub problems: Vec<ConfigProblem>,
    /// The plugin could not judge it, as the only problem says: it ended while it did, or its schema is not
    /// usable.
    #[serde(default)]
    pub failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// JSON pointer into the configuration; empty for the whole.
    pub path: String,
    pub message: String,
}

impl ConfigProblem {
    pub fn new(path: &str, message: &str) -> Self {
        Self { path: printable(path), message: printable(message) }
    }
}

impl<T> Verdict<T> {
    /// The same, not longer than the limits.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Ok(manifest) => Self::Ok(manifest),
            Self::Findings(findings) => {
                Self::Findings(findings.iter().take(MAX_FINDINGS).map(|f| Finding::new(&f.code, &f.message)).collect())
            }
        }
    }
}

impl ConfigVerdict {
    /// The same, not longer than the limits.
    #[must_use]
    pub fn bounded(self) -> Self {
        let problems = self.problems.iter().take(MAX_FINDINGS);
        Self { problems: problems.map(|p| ConfigProblem::new(&p.path, &p.message)).collect(), failed: self.failed }
    }
}

/// `text` with its control characters written out, so that it can forge no line of a log, and cut to
/// [`MAX_TEXT`].
pub fn printable(text: &str) -> String {
    let mut made = String::new();
    for c in text.chars() {
        let before = made.len();
        if c.is_control() {
            made.extend(c.escape_default())
        } else {
            made.push(c)
        }
        if made.len() > MAX_TEXT {
            made.truncate(before);
            break;
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_answers_are_within_their_limit() {
        let finding = Finding { code: "c".into(), message: "m".repeat(MAX_TEXT) };
        let findings = Verdict::<()>::Findings(vec![finding; MAX_FINDINGS]);
        // A schema is text within JSON, whose quotes take two bytes each.
        for longest in [serde_json::to_string(&findings).unwrap().len(), 2 * MAX_SCHEMA] {
            assert!((100_000..MAX_ANSWER).contains(&(longest as u64)), "{longest}");
        }
    }

    #[test]
    fn a_preview_of_noise_is_within_its_limit_and_less_than_its_pixels() {
        let pixels = 2 * 3 * u64::from(MAX_PREVIEW_SIDE) * u64::from(MAX_PREVIEW_SIDE);
        assert!((6 << 20..pixels).contains(&MAX_PREVIEW));
    }

    #[test]
    fn what_is_too_long_or_not_printable_is_mended() {
        assert_eq!(printable("größer\n\x1b[31mERROR"), "größer\\n\\u{1b}[31mERROR");
        assert_eq!(printable(&"ü".repeat(MAX_TEXT)), "ü".repeat(MAX_TEXT / 2));
        let long = ConfigProblem { path: "/a".repeat(MAX_TEXT), message: "\n".repeat(MAX_TEXT) };
        let verdict = ConfigVerdict { problems: vec![long; 3 * MAX_FINDINGS], failed: false }.bounded();
        assert_eq!(verdict.problems.len(), MAX_FINDINGS);
        assert!(verdict.problems.iter().all(|p| p.path.len() <= MAX_TEXT && p.message.len() <= MAX_TEXT));
        let finding = Finding { code: "c".into(), message: "m\0".into() };
        let Verdict::Findings(findings) = Verdict::<()>::Findings(vec![finding; 3 * MAX_FINDINGS]).bounded() else {
            panic!()
        };
        assert_eq!((findings.len(), findings[0].message.as_str()), (MAX_FINDINGS, "m\\u{0}"));
    }
}
