//! One text for each JSON value, whatever the order its keys came in, and the digest of it.

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_and_blanks_do_not_matter_and_everything_else_does() {
        let of = |text: &str| digest(&serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"a": 1, "b": {"y": [1, "x"], "x": null}}"#), of(r#"{"b":{"x":null,"y":[1,"x"]},"a":1}"#));
        assert_ne!(of("[1, 2]"), of("[2, 1]"));
        assert_ne!(of(r#"{"a": "1"}"#), of(r#"{"a": 1}"#));
        assert_eq!(text(&json!({"b": [1, {"d": "\""}], "a": {}})), r#"{"a":{},"b":[1,{"d":"\""}]}"#);
    }
}
