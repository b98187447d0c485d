//! What serde says of a body or a query string that it cannot read, in a client's words and with the field's path.

use std::fmt::Display;

use framehook_core::error_code::ErrorCode;

use crate::http::problem::Problem;

/// A URL in the wrong place may hold a password all the same, so no answer repeats it.
pub(crate) const MISPLACED_URL: &str = "there is a URL, which is not repeated because it may hold a password; only \
                                        `source.url` takes one";

pub(crate) fn looks_like_url(text: &str) -> bool {
    text.contains("://")
}

/// How serde's sentences end where an object with exactly one of several keys is expected.
const ONE_OF_SEVERAL: [&str; 3] =
    ["map with a single key", "newtype variant", "expected one of `video`, `file`, `url`"];

/// How sentences begin that name a field or a parameter.
const NAMING: [&str; 5] =
    ["unknown field `", "missing field `", "duplicate field `", "unknown parameter `", "duplicate parameter `"];

/// What serde calls by the name of a type, which says nothing to a client.
fn in_json(expected: &str) -> Option<&'static str> {
    match expected {
        "u8" => Some("a whole number from 0 to 255"),
        "u32" | "u64" | "usize" => Some("a whole number from 0"),
        "i32" | "i64" => Some("a whole number"),
        "f32" | "f64" => Some("a number"),
        _ => expected.starts_with("struct ").then_some("an object"),
    }
}

/// What serde takes for another form of the same, and says nothing helpful of: the field, and what it may be.
fn form(path: &str, message: &str) -> Option<(&'static str, &'static str)> {
    let is_one_of_several = ONE_OF_SEVERAL.iter().any(|end| message.ends_with(end));
    if path.starts_with("plugins[") {
        Some(("plugins", "an object with `pre` and `post`, each a list of hooks"))
    } else if is_one_of_several && path.starts_with("source") {
        Some(("source", "an object with exactly one of `video`, `file`, `url`"))
    } else if is_one_of_several && path.starts_with("frames") {
        Some(("frames", "an object with exactly one of `every`, `fps`"))
    } else {
        None
    }
}

/// serde's sentences, in a client's words: what serde calls a field is a parameter in a query string.
fn in_words_of_the_request(code: ErrorCode, message: String) -> String {
    let message = match message.split_once("expected ").and_then(|(before, what)| Some((before, in_json(what)?))) {
        Some((before, what)) => format!("{before}expected {what}"),
        None => message,
    };
    if code != ErrorCode::InvalidParameter {
        return message;
    }
    let words = [(", there are no fields", "; this route takes none"), (" field `", " parameter `")];
    words.into_iter().fold(message, |message, (theirs, ours)| message.replacen(theirs, ours, 1))
}

/// Reads serde's sentences: `invalid type: ..., expected X`, `unknown field `a`, expected ...`, `missing
/// field `a``.
pub(super) fn misread(code: ErrorCode, error: &serde_path_to_error::Error<impl Display>) -> Problem {
    let path = &*error.path().to_string();
    let message = &in_words_of_the_request(code, error.inner().to_string());
    let quoted = |start: &str| message.strip_prefix(start).and_then(|rest| rest.split('`').next());
    let expected = message.split_once("expected ").map(|(_, what)| what.to_owned());
    let parent = if path == "." { "" } else { path };
    let join = |name: &str| match parent {
        "" => name.to_owned(),
        // The path ends with the unknown name itself where the deserializer knows it.
        _ if parent == name || parent.ends_with(&format!(".{name}")) => parent.to_owned(),
        _ => format!("{parent}.{name}"),
    };
    let named = NAMING.into_iter().find_map(quoted);
    let field = match named {
        Some(name) => join(name),
        _ if parent.is_empty() => "body".to_owned(),
        _ => parent.to_owned(),
    };
    if let Some((field, expected)) = form(path, message) {
        return Problem::new(code, format!("`{field}`: expected {expected}")).field(field).expected(expected);
    }
    if looks_like_url(message) || looks_like_url(path) {
        let field = if looks_like_url(&field) { "body".into() } else { field };
        return Problem::new(code, format!("`{field}`: {MISPLACED_URL}")).field(field);
    }
    Problem { expected, ..Problem::new(code, format!("`{field}`: {message}")).field(field) }
}
