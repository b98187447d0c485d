//! What serde says of a body or a query string that it cannot read, in a client's words and with the field's
//! path.

use std::fmt::Display;

use framehook_core::error_code::ErrorCode;

use crate::http::problem::Problem;

/// A URL in the wrong place may hold a password all the same, so no answer repeats it.
pub(crate) const MISPLACED_URL: &str = "there is a URL, which is not repeated because it may hold a password; only \
                                        `source.url` takes one";

pub(crate) fn looks_like_url(text: &str) -> bool {
    text.contains("://")
}

/// Fields with exactly one of several keys.
const ONE_OF_SEVERAL: [(&str, &str); 2] = [
    ("source", "an object with exactly one of `video`, `file`, `url`"),
    ("frames", "an object with exactly one of `every`, `fps`"),
];
/// How serde's sentences end where one of them is expected.
const NO_SINGLE_KEY: [&str; 5] = [
    "map with a single key",
    "newtype variant",
    "expected one of `video`, `file`, `url`",
    "expected `every` or `fps`",
    "string or map",
];

/// How serde names what it found, and how JSON does.
const KINDS: [(&str, &str); 7] = [
    ("floating point ", ""),
    ("integer ", ""),
    ("boolean ", ""),
    ("string ", ""),
    ("map", "an object"),
    ("sequence", "a list"),
    ("unit value", "null"),
];

/// The sentence, if it is one about a value of the wrong kind, in the words of JSON.
fn found(message: &str) -> Option<String> {
    let rest = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "))?;
    let mut known = KINDS.iter().filter_map(|(serde, json)| Some(format!("found {json}{}", rest.strip_prefix(serde)?)));
    Some(known.next().unwrap_or_else(|| format!("found {rest}")))
}

/// How sentences begin that name a field or a parameter.
const NAMING: [&str; 6] = [
    "unknown field `",
    "missing field `",
    "duplicate field `",
    "unknown parameter `",
    "missing parameter `",
    "duplicate parameter `",
];

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
    if path.starts_with("plugins[") {
        return Some(("plugins", "an object with `pre` and `post`, each a list of hooks"));
    }
    let is_one_of_several = NO_SINGLE_KEY.iter().any(|end| message.ends_with(end));
    ONE_OF_SEVERAL.into_iter().find(|(field, _)| is_one_of_several && path.starts_with(field))
}

/// serde's sentences, in a client's words: what serde calls a field is a parameter in a query string.
fn in_words_of_the_request(code: ErrorCode, message: String) -> String {
    let message = match message.split_once("expected ").and_then(|(before, what)| Some((before, in_json(what)?))) {
        Some((before, what)) => format!("{before}expected {what}"),
        None => message,
    };
    let message = found(&message).unwrap_or(message);
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

#[cfg(test)]
mod tests {
    use framehook_core::spec::ScenarioSpec;

    use super::*;
    use crate::http::extract::parse_body;

    fn refused(text: &str) -> Problem {
        parse_body::<ScenarioSpec>(text.as_bytes()).err().unwrap()
    }

    #[test]
    fn syntax_has_a_line_and_meaning_has_a_path() {
        let problem = refused("{\n  \"model\": ,\n}");
        assert_eq!(problem.code, ErrorCode::InvalidJson);
        assert!(problem.detail.contains("line 2 column 12"), "{}", problem.detail);
        assert!(refused("").detail.contains("empty"));
        for (text, field, words) in [
            ("[]", "body", "expected an object"),
            ("3", "body", "expected an object"),
            (r#"{"source": {"video": "v"}, "model": "m", "input": 3}"#, "input", "`3`, expected an object"),
            (r#"{"model": "m"}"#, "source", "missing field"),
            (r#"{"source": {"video": "v"}, "model": 3}"#, "model", "expected a string"),
            (r#"{"source": {"video": "v"}, "model": "m", "plugin": 1}"#, "plugin", "expected one of"),
            (
                r#"{"source": {"video": "a", "file": "/b"}, "model": "m"}"#,
                "source",
                "exactly one of `video`, `file`, `url`",
            ),
            (r#"{"source": {"video": "v"}, "model": "m", "plugins": [{"use": "a"}]}"#, "plugins", "`pre` and `post`"),
            (r#"{"source": {"uri": "a"}, "model": "m"}"#, "source", "`video`, `file`, `url`"),
            (r#"{"source": {"url": "a"}, "model": "m"}"#, "source.url", "not a URL"),
            (r#"{"source": {"url": "rtsp://a/b"}, "model": "m"}"#, "source.url", "`http` or `https`"),
            (
                r#"{"source": {"video": "v"}, "model": "m", "plugins": {"post": [{"use": "a", "cfg": 1}]}}"#,
                "plugins.post[0].cfg",
                "`use` or `config`",
            ),
            (
                r#"{"source": {"video": "v"}, "model": "m", "plugins": {"post": [{"use": "A B"}]}}"#,
                "plugins.post[0].use",
                "name@version",
            ),
            (r#"{"source": {"video": "v"}, "model": "m", "input": {"pad": 300}}"#, "input.pad", "from 0 to 255"),
            (
                r#"{"source": {"video": "v"}, "model": "m", "input": {"scale": "x"}}"#,
                "input.scale",
                "expected a number",
            ),
            (
                r#"{"source": {"video": "v"}, "model": "m", "memory_mib": -1}"#,
                "memory_mib",
                "found `-1`, expected a whole",
            ),
            (r#"{"source": {"video": "v"}, "model": "m", "frames": {}}"#, "frames", "exactly one of `every`, `fps`"),
            (r#"{"source": {"video": "v"}, "model": "m", "frames": 2}"#, "frames", "exactly one of `every`, `fps`"),
            (r#"{"source": {"video": "v"}, "model": "m", "frames": {"evry": 2}}"#, "frames", "one of `every`, `fps`"),
            (
                r#"{"source": {"video": "v"}, "model": "m", "frames": {"every": 2, "fps": 2}}"#,
                "frames",
                "exactly one of `every`, `fps`",
            ),
            (
                r#"{"source": {"video": "v"}, "model": "m", "frames": {"every": 1.5}}"#,
                "frames.every",
                "found `1.5`, expected a whole number from 0",
            ),
            (r#"{"source": {"video": "v"}, "model": "m", "frames": {"fps": {}}}"#, "frames.fps", "found an object"),
            (
                r#"{"source": {"video": "v"}, "model": "m", "frames": {"fps": "9"}}"#,
                "frames.fps",
                "found \"9\", expected",
            ),
            (r#"{"source": "street@1", "model": "m"}"#, "source", "an object with exactly one of"),
            (r#"{"source": "video", "model": "m"}"#, "source", "an object with exactly one of"),
        ] {
            let problem = refused(text);
            assert_eq!(problem.code, ErrorCode::InvalidScenario, "{text}");
            assert_eq!(problem.field.as_deref(), Some(field), "{text}: {}", problem.detail);
            assert!(problem.detail.contains(words), "{text}: {}", problem.detail);
        }
    }

    #[test]
    fn a_url_is_not_repeated_wherever_it_stands() {
        let url = "https://me:s3cret@cameras.example/clip.mp4?token=s3cret";
        for (text, field) in [
            (r#"{"source": "URL", "model": "m"}"#, "source"),
            (r#"{"source": ["URL"], "model": "m"}"#, "source"),
            (r#"{"source": {"URL": "video"}, "model": "m"}"#, "source"),
            (r#"{"source": {"video": "URL"}, "model": "m"}"#, "source.video"),
            (r#"{"source": {"url": "rtsp+URL"}, "model": "m"}"#, "source.url"),
            (r#"{"source": {"url": ["URL"]}, "model": "m"}"#, "source.url"),
            (r#"{"source": {"url": "a", "URL": "a"}, "model": "m"}"#, "source"),
            (r#"{"source": {"video": "v"}, "model": "URL"}"#, "model"),
            (r#"{"source": {"video": "v"}, "model": "m", "URL": 1}"#, "body"),
            (r#"{"source": {"video": "v"}, "model": "m", "labels": {"URL": 1}}"#, "body"),
            (r#"{"source": {"video": "v"}, "model": "m", "on_plugin_failure": "URL"}"#, "on_plugin_failure"),
            (r#""URL""#, "body"),
        ] {
            let problem = refused(&text.replace("URL", url));
            let answer = serde_json::to_string(&problem).unwrap();
            assert!(!answer.contains("s3cret"), "{text}: {answer}");
            assert_eq!(problem.field.as_deref(), Some(field), "{text}: {}", problem.detail);
        }
    }
}
