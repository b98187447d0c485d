//! Between the exported functions and an author's type. Used by [`crate::export!`] only.

use std::{any::Any, cell::RefCell, panic};

use serde_json::Value;
use serde_path_to_error::Segment;

pub use crate::bindings::host::framehook::plugin::types::{Descriptor, Ready};
use crate::{ConfigProblem, Error, Hook, Stream, log};

thread_local! {
    /// The instance. A component has one thread, and a crate exports one type.
    static INSTANCE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

#[must_use]
pub fn describe<H: Hook>(name: &str, version: &str) -> Descriptor {
    log_panics();
    let mut schema = schemars::schema_for!(H::Config).to_value();
    as_written(&mut schema);
    Descriptor { name: name.into(), version: version.into(), config_schema: schema.to_string(), input: H::input() }
}

/// Numbers that were an `f32`, such as defaults, as their author wrote them: 0.35 and not 0.3499999940395355.
fn as_written(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let exact = number.as_f64().filter(|exact| exact.fract() != 0.0 && f64::from(*exact as f32) == *exact);
            let short = exact.and_then(|exact| (exact as f32).to_string().parse().ok());
            if let Some(short) = short.and_then(serde_json::Number::from_f64) {
                *number = short;
            }
        }
        Value::Array(all) => all.iter_mut().for_each(as_written),
        Value::Object(all) => all.values_mut().for_each(as_written),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// # Errors
/// What is wrong with the configuration.
pub fn validate_config<H: Hook>(config: &str) -> Result<(), Vec<ConfigProblem>> {
    log_panics();
    let config = parse::<H::Config>(config).map_err(|problem| vec![problem])?;
    let problems = H::check(&config);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// # Errors
/// When the configuration is wrong, or the plugin cannot start.
pub fn init<H: Hook>(stream: &Stream, config: &str) -> Result<Ready, Error> {
    log_panics();
    let hook = H::new(stream, accepted::<H>(config)?)?;
    let labels = hook.labels();
    INSTANCE.set(Some(Box::new(hook)));
    Ok(Ready { labels, wants_skipped: H::WANTS_SKIPPED })
}

/// # Errors
/// What is wrong with the configuration.
pub(crate) fn accepted<H: Hook>(config: &str) -> Result<H::Config, Error> {
    let config = parse::<H::Config>(config).map_err(|problem| invalid(&problem))?;
    match H::check(&config).first() {
        Some(problem) => Err(invalid(problem)),
        None => Ok(config),
    }
}

pub fn shutdown<H: Hook>() {
    if let Some(mut hook) = INSTANCE.take().and_then(|hook| hook.downcast::<H>().ok()) {
        hook.shutdown();
    }
}

/// # Errors
/// What `call` says, or that there is no instance.
pub fn with<H: Hook, R>(call: impl FnOnce(&mut H) -> Result<R, Error>) -> Result<R, Error> {
    INSTANCE.with_borrow_mut(|slot| match slot.as_mut().and_then(|hook| hook.downcast_mut::<H>()) {
        Some(hook) => call(hook),
        None => Err(Error::Fatal("called before `init`".into())),
    })
}

fn parse<C: serde::de::DeserializeOwned>(config: &str) -> Result<C, ConfigProblem> {
    let whole = |message: String| ConfigProblem { path: String::new(), message };
    let value: Value = serde_json::from_str(config).map_err(|e| whole(e.to_string()))?;
    // A derived type would also take its fields from a list, in their order.
    if !value.is_object() {
        return Err(whole(format!("must be a JSON object, not {value}")));
    }
    serde_path_to_error::deserialize(value)
        .map_err(|e| ConfigProblem { path: pointer(e.path()), message: e.inner().to_string() })
}

/// A JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { .. } | Segment::Unknown => String::new(),
    };
    path.iter().map(part).collect()
}

fn invalid(problem: &ConfigProblem) -> Error {
    let place = if problem.path.is_empty() { "configuration" } else { &problem.path };
    Error::InvalidConfig(format!("{place}: {}", problem.message))
}

/// A panic ends the instance; its message is a line of the plugin's log.
fn log_panics() {
    panic::set_hook(Box::new(|info| log::line(log::Level::Error, "panic", &info.to_string(), &[])));
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        limits: Vec<Limit>,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Limit {
        #[serde(rename = "at/most")]
        at_most: u8,
    }

    #[test]
    fn the_offending_path_is_a_json_pointer() {
        for (config, path, words) in [
            (r#"{"limits": [{"at/most": 1}, {"at/most": "x"}]}"#, "/limits/1/at~1most", "expected u8"),
            (r#"{"limits": [{}]}"#, "/limits/0", "missing field `at/most`"),
            (r#"{"limit": 3}"#, "/limit", "unknown field `limit`, expected `limits`"),
            ("[]", "", "must be a JSON object, not []"),
            ("{", "", "EOF"),
            ("{} {}", "", "trailing characters"),
        ] {
            let problem = parse::<Config>(config).unwrap_err();
            assert!(problem.message.contains(words), "{config}: {problem:?}");
            assert_eq!(problem.path, path, "{config}: {problem:?}");
        }
        assert!(parse::<Config>("{}").unwrap().limits.is_empty());
        assert_eq!(parse::<Config>(r#"{"limits": [{"at/most": 7}]}"#).unwrap().limits[0].at_most, 7);
    }

    #[test]
    fn numbers_of_a_schema_are_those_that_were_written() {
        let mut schema = serde_json::json!({"default": 0.35f32, "of": [0.1f32, 0.1f64, 0.25f32, 3, "0.3"]});
        as_written(&mut schema);
        assert_eq!(schema.to_string(), r#"{"default":0.35,"of":[0.1,0.1,0.25,3,"0.3"]}"#);
    }
}
