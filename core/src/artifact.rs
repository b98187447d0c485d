//! Models, plugins and videos: immutable blobs, addressed by digest, called by name and version.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::Digest,
    input::{InputOptions, InputSpec, TensorInfo},
    schemas::{AnyObject, ArtifactName, Version},
    state::words,
};

words! {
    ArtifactKind { Plugin = "plugin", Model = "model", Video = "video" }
}

/// The version of plugins in development: it may be given to other content at any time, and no name without a
/// version means it.
pub const DEV: &str = "dev";

/// What was learned about an artifact when it was uploaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Manifest {
    Plugin(PluginManifest),
    Model(ModelManifest),
    Video(VideoManifest),
}

/// A plugin's own description of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginManifest {
    #[schema(value_type = ArtifactName)]
    pub name: String,
    #[schema(value_type = Version)]
    pub version: String,
    /// Version of the `framehook:plugin` package it was built against.
    pub abi: String,
    /// Which hooks it exports.
    pub pre: bool,
    pub post: bool,
    /// JSON Schema (2020-12) of its configuration.
    #[schema(value_type = AnyObject)]
    pub config_schema: serde_json::Value,
    /// What the family of models it reads wants as input.
    #[serde(default)]
    pub input: InputOptions,
    /// What of the host it can use: interfaces of the contract, `pixels` if it can read those of a frame
    /// behind the inference, and `wasi`, behind which there are no files and no network. Empty for plugins
    /// that an older release took, and so are the next two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// The settings that have a value where a configuration leaves them out.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = AnyObject)]
    pub defaults: serde_json::Map<String, serde_json::Value>,
    /// What it took to make an instance when it was uploaded, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instantiation_us: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelManifest {
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    /// What becomes of a frame where neither a scenario nor a plugin says otherwise. Absent where a
    /// scenario has to say something, and for models that an older release took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputSpec>,
    /// What to know before it is used: what a scenario has to say, and what no hook will see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the file says of itself. Empty for models that an older release took.
    #[serde(default)]
    pub metadata: ModelMetadata,
}

/// What a model's file says of itself, as exports of Ultralytics do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelMetadata {
    /// Names of the classes, by class id: a number's name is what it is called where a hook has no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Such as `detect` or `pose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Pixels of the input for one cell of the coarsest grid; sides of the input are multiples of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VideoManifest {
    pub width: u32,
    pub height: u32,
    /// As the container declares it; 0 if it does not.
    pub fps: f64,
    /// As the container declares it; where it declares no count, an estimate: duration times rate.
    pub frames: Option<u64>,
}

/// How a person names an artifact: `name@version`, `name` (its newest upload) or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ArtifactRef {
    Version { name: String, version: String },
    Newest { name: String },
    Digest(Digest),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `name@version`, `name` or `sha256:<64 hexadecimal digits>`; {0}")]
pub struct BadReference(String);

impl FromStr for ArtifactRef {
    type Err = BadReference;
    fn from_str(s: &str) -> Result<Self, BadReference> {
        if s.starts_with("sha256:") {
            return s.parse().map(Self::Digest).map_err(|e: crate::ids::NotADigest| BadReference(e.to_string()));
        }
        match s.split_once('@') {
            Some((name, version)) => {
                check_name(name).and_then(|()| check_version(version)).map_err(BadReference)?;
                Ok(Self::Version { name: name.into(), version: version.into() })
            }
            None => {
                check_name(s).map_err(BadReference)?;
                Ok(Self::Newest { name: s.into() })
            }
        }
    }
}

impl TryFrom<String> for ArtifactRef {
    type Error = BadReference;
    fn try_from(s: String) -> Result<Self, BadReference> {
        s.parse()
    }
}

impl From<ArtifactRef> for String {
    fn from(r: ArtifactRef) -> Self {
        r.to_string()
    }
}

impl fmt::Display for ArtifactRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { name, version } => write!(f, "{name}@{version}"),
            Self::Newest { name } => f.write_str(name),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// 63 characters, so that a name fits a DNS label, a file name and a metric label.
const MAX_NAME: usize = 63;

/// Names are `[a-z0-9][a-z0-9._-]*`, at most 63 characters: safe in URLs, files and SQL.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    check_word("name", name, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Versions are like names, upper case and `+` allowed: `1`, `0.1.0`, `2.0.0-rc.1+linux`.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn check_version(version: &str) -> Result<(), String> {
    check_word("version", version, |b| b.is_ascii_alphanumeric() || b == b'+')
}

fn check_word(what: &str, word: &str, allowed: impl Fn(u8) -> bool) -> Result<(), String> {
    let first_is_plain = word.bytes().next().is_some_and(&allowed);
    let rest_is_plain = word.bytes().all(|b| allowed(b) || matches!(b, b'.' | b'_' | b'-'));
    if first_is_plain && rest_is_plain && word.len() <= MAX_NAME {
        return Ok(());
    }
    Err(format!(
        "{what} `{}` must be 1 to {MAX_NAME} letters and digits, and `.`, `_` or `-` after the first{}",
        word.chars().take(MAX_NAME + 1).collect::<String>().escape_debug(),
        if what == "name" { ", all lower case" } else { "" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_round_trip() {
        for good in ["street@1", "yolo@0.1.0", "a", &format!("sha256:{}", "0".repeat(64))] {
            assert_eq!(good.parse::<ArtifactRef>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn what_could_leave_its_folder_is_refused() {
        for bad in ["", "@1", "a@", "../a", "a/b", "A", ".a", "a@../1", "a@1@2", "sha256:zz", "a b", &"a".repeat(64)] {
            assert!(bad.parse::<ArtifactRef>().is_err(), "{bad}");
        }
    }
}
