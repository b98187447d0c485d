//! A plugin's JSON Schema, and a configuration against it.
//!
//! For the child process only ([`crate::command`]): a small schema can take for ever to evaluate, or all of a
//! stack. Invariant: nothing is ever fetched. A schema refers to its own parts only, and [`check`] says so at
//! upload and again before each use, because a plugin may have been uploaded when the rules were others.

use std::{sync::mpsc, thread, time::Duration};

use framehook_core::probe::{ConfigProblem, MAX_FINDINGS, MAX_SCHEMA};
use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::{Map, Value};

/// A thousand times what the schemas of the stock plugins take, on a busy machine too.
const TIME_LIMIT: Duration = Duration::from_secs(2);

const NO_SCHEMA: &str = "is not a JSON Schema (2020-12)";

/// Whether `schema` is one that can be used.
///
/// # Errors
/// What is wrong, as the rest of a sentence about it.
pub(crate) fn check(schema: &Value) -> Result<(), String> {
    if !schema.is_object() {
        return Err(format!("{NO_SCHEMA}: it is not an object"));
    }
    let bytes = schema.to_string().len();
    if bytes > MAX_SCHEMA {
        return Err(format!("is too large: it has {bytes} bytes, and at most {MAX_SCHEMA} are allowed"));
    }
    let no_schema = |why: String| format!("{NO_SCHEMA}: {why}");
    check_references(schema, true).map_err(no_schema)?;
    jsonschema::draft202012::meta::validate(schema).map_err(|e| no_schema(e.to_string()))
}

/// `$id` would give the parts of a schema addresses of their own, and `$schema` another meaning. At the root
/// both are usual: generators write the draft they know.
fn check_references(schema: &Value, is_root: bool) -> Result<(), String> {
    const DRAFTS: [&str; 2] = ["https://json-schema.org/", "http://json-schema.org/"];
    let children: Box<dyn Iterator<Item = &Value>> = match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                let allowed = match (name.as_str(), value) {
                    ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(target)) => target.starts_with('#'),
                    ("$id", Value::String(_)) => is_root,
                    ("$schema", Value::String(draft)) => is_root && DRAFTS.iter().any(|known| draft.starts_with(known)),
                    _ => true,
                };
                if !allowed {
                    return Err(format!(
                        "`{name}` is {value}, but a schema refers to its own parts only (`#/$defs/...`)"
                    ));
                }
            }
            Box::new(fields.values())
        }
        Value::Array(values) => Box::new(values.iter()),
        _ => return Ok(()),
    };
    children.into_iter().try_for_each(|child| check_references(child, false))
}

/// What of `config` does not fit `schema`.
///
/// # Errors
/// When the schema cannot be used, or takes too long; a sentence that says so.
/// The settings that have a value where a configuration leaves them out.
pub(crate) fn defaults(schema: &Value) -> Map<String, Value> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.filter_map(|(name, about)| Some((name.clone(), about.get("default")?.clone()))).collect()
}

pub(crate) fn problems(schema: Value, config: &str) -> Result<Vec<ConfigProblem>, String> {
    let unusable = |why: String| format!("the plugin's own schema cannot be used: {why}");
    check(&schema).map_err(|why| unusable(format!("it {why}")))?;
    let config: Value = match serde_json::from_str(config) {
        Ok(config) => config,
        Err(error) => return Ok(vec![ConfigProblem::new("", &format!("the configuration is no JSON: {error}"))]),
    };
    let (answer, answered) = mpsc::channel();
    // It cannot be stopped; the process ends soon, and it with it.
    thread::spawn(move || answer.send(evaluate(&schema, &config)));
    match answered.recv_timeout(TIME_LIMIT) {
        Ok(result) => result.map_err(unusable),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(unusable(format!("it takes longer than {} s to evaluate", TIME_LIMIT.as_secs())))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(unusable("its evaluation panicked".into())),
    }
}

fn evaluate(schema: &Value, config: &Value) -> Result<Vec<ConfigProblem>, String> {
    let validator = jsonschema::draft202012::new(schema).map_err(|e| e.to_string())?;
    let problems = |e: ValidationError<'_>| -> Vec<_> {
        let place = e.instance_path();
        match e.kind() {
            // The place is that of the whole object; what is wrong is each of these fields.
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let message = match schema["properties"].as_object().filter(|_| place.as_str().is_empty()) {
                    Some(known) => {
                        let known: Vec<_> = known.keys().map(|name| format!("`{name}`")).collect();
                        format!("the plugin knows no such setting; it knows {}", known.join(", "))
                    }
                    None => e.to_string(),
                };
                let places = unexpected.iter().map(|field| place.join(field.as_str()));
                places.map(|place| ConfigProblem::new(place.as_str(), &message)).collect()
            }
            _ => vec![ConfigProblem::new(place.as_str(), &none_of(&e).unwrap_or_else(|| e.to_string()))],
        }
    };
    Ok(validator.iter_errors(config).flat_map(problems).take(MAX_FINDINGS).collect())
}

/// Where a value is none of several words, which ones there are: a generator hides them behind
/// keywords of the schema.
fn none_of(error: &ValidationError<'_>) -> Option<String> {
    let choices = choices(error);
    let choices: Vec<_> = choices.iter().map(ToString::to_string).collect();
    (!choices.is_empty()).then(|| format!("{} is none of {}", error.instance(), choices.join(", ")))
}

fn choices(error: &ValidationError<'_>) -> Vec<Value> {
    match error.kind() {
        ValidationErrorKind::Enum { options } => options.as_array().cloned().unwrap_or_default(),
        ValidationErrorKind::Constant { expected_value } => vec![Value::clone(expected_value)],
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            context.iter().flatten().flat_map(choices).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_offending_value_is_named() {
        let schema = json!({
            "type": "object",
            "properties": {"min_score": {"type": "number", "maximum": 1}, "line": {"type": "array", "items": {"type": "number"}}},
            "required": ["min_score"],
            "additionalProperties": false
        });
        let fields = |config: Value| -> Vec<String> {
            problems(schema.clone(), &config.to_string()).unwrap().into_iter().map(|p| p.path).collect()
        };
        assert!(fields(json!({"min_score": 0.3, "line": [1, 2]})).is_empty());
        assert_eq!(fields(json!({"min_score": 3, "line": [1, "x"]})), ["/line/1", "/min_score"]);
        assert_eq!(fields(json!({"min_score": 0.3, "a/b": 1})), ["/a~1b"]);
        assert_eq!(fields(json!({"min_score": 0.3, "x": 1, "y~": 2})), ["/x", "/y~0"]);
        assert_eq!(fields(json!({})), [""]);
        assert_eq!(fields(json!(3)), [""]);
        assert!(problems(schema.clone(), "{").unwrap()[0].message.contains("no JSON"));
    }

    #[test]
    fn the_words_that_there_are_are_listed() {
        // As `schemars` writes an enumeration with comments, and one that may be left out.
        let format = json!({"oneOf": [{"const": "xyxy"}, {"enum": ["xywh", "cxcywh"]}]});
        let schema = json!({"properties": {"format": {"$ref": "#/$defs/F"}, "or": {"anyOf": [{"$ref": "#/$defs/F"}, {"type": "null"}]}},
            "$defs": {"F": format}});
        for config in [json!({"format": "xyx"}), json!({"or": "xyx"})] {
            let problems = problems(schema.clone(), &config.to_string()).unwrap();
            assert_eq!(problems[0].message, r#""xyx" is none of "xyxy", "xywh", "cxcywh""#);
        }
        let number = problems(json!({"anyOf": [{"type": "number"}, {"type": "null"}]}), "{}").unwrap();
        assert!(number[0].message.contains("anyOf"), "{number:?}");
    }

    #[test]
    fn a_schema_refers_to_its_own_parts_only() {
        for good in [
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}),
            json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/mine"}),
            json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
            json!({"properties": {"id": {"type": "string"}, "$ref": {"type": "string"}}}),
        ] {
            assert_eq!(check(&good), Ok(()), "{good}");
        }
        let elsewhere = "https://example.com/schema.json";
        for bad in [
            json!({"$ref": elsewhere}),
            json!({"$dynamicRef": "other#meta"}),
            json!({"$recursiveRef": "file:///etc/passwd"}),
            json!({"properties": {"a": {"anyOf": [{"not": {"$ref": "/etc/passwd"}}]}}}),
            json!({"$defs": {"a": {"$id": elsewhere}}}),
            json!({"items": {"$schema": elsewhere}}),
            json!({"$schema": elsewhere}),
            json!({"$ref": ""}),
        ] {
            assert!(check(&bad).unwrap_err().contains("its own parts only"), "{bad}");
            assert!(problems(bad, "{}").unwrap_err().contains("cannot be used"));
        }
    }

    #[test]
    fn a_schema_has_a_size_and_a_form() {
        let large = json!({"title": "t".repeat(MAX_SCHEMA)});
        assert_eq!(check(&large), Err("is too large: it has 65548 bytes, and at most 65536 are allowed".into()));
        assert!(
            problems(large, "{}")
                .unwrap_err()
                .ends_with("cannot be used: it is too large: it has 65548 bytes, and at most 65536 are allowed")
        );
        assert_eq!(check(&json!([])), Err("is not a JSON Schema (2020-12): it is not an object".into()));
        assert!(check(&json!({"type": 7})).is_err());
        assert!(problems(json!({"$ref": "#/nowhere"}), "{}").unwrap_err().contains("cannot be used"));
        assert!(problems(json!({"pattern": "("}), "{}").unwrap_err().contains("cannot be used"));
    }

    #[test]
    fn a_schema_that_takes_for_ever_is_named_as_such() {
        let each_twice = (0..60).map(|n| {
            let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
            (n.to_string(), json!({"allOf": [next, next]}))
        });
        let mut parts: serde_json::Map<_, _> = each_twice.collect();
        parts.insert("60".into(), json!({"type": "object"}));
        let error = problems(json!({"$ref": "#/$defs/0", "$defs": parts}), "{}").unwrap_err();
        assert!(error.contains("longer than 2 s"), "{error}");
    }

    #[test]
    fn an_answer_is_bounded() {
        let config: serde_json::Map<_, _> =
            (0..5000).map(|n| (format!("unknown-{n}"), json!("x".repeat(20)))).collect();
        let schema = json!({"additionalProperties": {"type": "integer"}});
        let found = problems(schema, &Value::Object(config).to_string()).unwrap();
        assert_eq!(found.len(), MAX_FINDINGS);
    }
}
