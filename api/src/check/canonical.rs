//! One form for what is the same in JSON: a text of each value, whatever the order its keys came in, with its
//! digest, and integers for whole numbers.

use framehook_core::ids::Digest;
use serde_json::Value;
use sha2::Digest as _;

/// The sha256 of the value's text.
pub(crate) fn digest(value: &Value) -> Digest {
    Digest::from_bytes(&sha2::Sha256::digest(text(value)).into())
}

/// The value with its keys sorted and without blanks.
pub(crate) fn text(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    sorted.to_string()
}

/// Makes whole numbers integers: `3.0` is one to JSON Schema, and none to serde. A plugin's configuration is
/// the plugin's to read, and stays as it is.
pub(crate) fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // Up to 2^53 a float holds every whole number.
            let is_whole = |n: &f64| n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0;
            if let Some(whole) = number.as_f64().filter(|n| number.is_f64() && is_whole(n)) {
                *number = (whole as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => {
            let fields = fields.iter_mut().filter(|(name, _)| *name != "config");
            fields.for_each(|(_, field)| whole_numbers(field));
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_are_integers_outside_of_configurations() {
        let mut value = json!({"a": [3.0, -2.0, 0.5, 1e300], "b": {"config": {"c": 3.0}, "d": 4.0}, "e": u64::MAX});
        let expected = json!({"a": [3, -2, 0.5, 1e300], "b": {"config": {"c": 3.0}, "d": 4}, "e": u64::MAX});
        whole_numbers(&mut value);
        assert_eq!(value, expected);
    }

    #[test]
    fn order_and_blanks_do_not_matter_and_everything_else_does() {
        let of = |text: &str| digest(&serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"a": 1, "b": {"y": [1, "x"], "x": null}}"#), of(r#"{"b":{"x":null,"y":[1,"x"]},"a":1}"#));
        assert_ne!(of("[1, 2]"), of("[2, 1]"));
        assert_ne!(of(r#"{"a": "1"}"#), of(r#"{"a": 1}"#));
        assert_eq!(text(&json!({"b": [1, {"d": "\""}], "a": {}})), r#"{"a":{},"b":[1,{"d":"\""}]}"#);
    }
}
