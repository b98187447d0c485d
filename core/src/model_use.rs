//! How a scenario names a further model, one that its hooks run.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

use crate::{
    artifact::{ArtifactRef, ModelManifest},
    input::{InputError, InputOptions, InputSpec},
    memory,
    probe::printable,
};

/// Further models of a scenario, at most: each has a session in the worker's memory.
pub const MAX_MODELS: usize = 8;

/// Lower-case letters, digits, `_` and `-`: what a hook calls a model is a word of its configuration.
pub const MODEL_NAME: &str = "^[a-z][a-z0-9_-]{0,31}$";

/// Whether hooks may know a model by this name; see [`MODEL_NAME`].
fn is_model_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    name.len() <= 32 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_inner)
}

/// What is wrong with the names that a scenario gives to its further models.
///
/// # Errors
/// The first thing, in words.
pub fn check_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Result<(), String> {
    let models = names.len();
    if models > MAX_MODELS {
        return Err(format!("there are {models} further models; at most {MAX_MODELS} are allowed"));
    }
    match names.into_iter().find(|name| !is_model_name(name)) {
        Some(name) => Err(format!("`{}` is no name for a model: it must match {MODEL_NAME}", printable(name))),
        None => Ok(()),
    }
}

/// How a further model with a file of `size` bytes gets its input, and the bytes that it takes in a worker.
///
/// # Errors
/// When the options do not fit the model.
pub fn fit(input: &InputOptions, model: &ModelManifest, size: u64) -> Result<(InputSpec, u64), InputError> {
    let input = input.clone().resolve(&model.inputs)?;
    let bytes = memory::further_bytes(size, [input.width, input.height], input.batch);
    Ok((input, bytes))
}

/// A further model of a scenario: its name alone, or with how it gets its input.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelUse {
    pub model: ArtifactRef,
    pub input: InputOptions,
}

/// As it is written where there is more to say than a name.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ModelUse)]
pub struct WrittenModelUse {
    /// `name@version`, `name` or `sha256:...`.
    #[serde(rename = "use")]
    pub model: ArtifactRef,
    /// How a part of a frame becomes its input; absent fields are letterbox, centred, RGB, 0..1, padded with
    /// 114.
    #[serde(default)]
    pub input: InputOptions,
}

impl Serialize for ModelUse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { model, input } = self.clone();
        if input == InputOptions::default() {
            return model.serialize(serializer);
        }
        WrittenModelUse { model, input }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ModelUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ModelUse;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model such as `lpr@1`, or an object with `use` and `input`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ModelUse, E> {
                let model = name.parse().map_err(E::custom)?;
                Ok(ModelUse { model, input: InputOptions::default() })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<ModelUse, A::Error> {
                let written = WrittenModelUse::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ModelUse { model: written.model, input: written.input })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_name_or_a_name_with_its_input() {
        let read = |text: &str| serde_json::from_str::<ModelUse>(text);
        let bare = read(r#""lpr@1""#).unwrap();
        assert_eq!(serde_json::to_string(&bare).unwrap(), r#""lpr@1""#);
        assert_eq!(read(r#"{"use": "lpr@1"}"#).unwrap(), bare);
        let sized = read(r#"{"use": "lpr@1", "input": {"size": [94, 24]}}"#).unwrap();
        assert_eq!(sized.input.size, Some([94, 24]));
        assert_eq!(read(&serde_json::to_string(&sized).unwrap()).unwrap(), sized);
        for (bad, words) in [
            (r#""L P""#, "expected `name@version`"),
            ("3", "a model such as `lpr@1`, or an object"),
            (r#"{"use": "lpr", "size": [1, 2]}"#, "unknown field `size`"),
            (r#"{"input": {}}"#, "missing field `use`"),
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn names_are_short_words() {
        for (name, is_one) in [
            ("plate", true),
            ("a", true),
            ("a1_-", true),
            ("", false),
            ("1a", false),
            ("-a", false),
            ("A", false),
            ("a b", false),
            ("\u{e4}", false),
        ] {
            assert_eq!(check_names([name].into_iter()).is_ok(), is_one, "{name}");
        }
        let nine = ["a"; MAX_MODELS + 1];
        assert!(check_names(nine.into_iter()).unwrap_err().starts_with("there are 9 further models"));
        assert!(is_model_name(&"a".repeat(32)) && !is_model_name(&"a".repeat(33)));
    }
}
