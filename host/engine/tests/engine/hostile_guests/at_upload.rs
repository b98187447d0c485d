//! Those that are refused at upload.

use super::*;

pub(super) fn at_upload() -> Vec<Hostile> {
    vec![
        (
            "endless start function",
            || Guest::default().more("(func $go (loop (br 0))) (start $go)").component(),
            Refused("describe_failed", "deadline"),
        ),
        (
            "start function that traps",
            || Guest::default().more("(func $go (unreachable)) (start $go)").component(),
            Refused("describe_failed", "unreachable"),
        ),
        (
            "endless loop in describe",
            || Guest::doing("#describe", LOOP).component(),
            Refused("describe_failed", "deadline of 250 ms"),
        ),
        ("trap in describe", || Guest::doing("#describe", TRAP).component(), Refused("describe_failed", "unreachable")),
        (
            "recursion in describe",
            || Guest::doing("#describe", "(call $deep)").more(DEEP).component(),
            Refused("describe_failed", "call stack exhausted"),
        ),
        ("name of 10 MB", || described(1, 10 << 20).pages(200).component(), Refused("bad_name", "")),
        ("name outside of its memory", || described(1, FAR).component(), Refused("describe_failed", "")),
        (
            "name that is no text",
            || Guest::default().with(TEXTS, vec![0xff, 0xfe]).component(),
            Refused("describe_failed", ""),
        ),
        (
            "number that is none in its input options",
            || described(14, 1).with(DESCRIPTOR + 60, words(&[f32::NAN.to_bits()])).component(),
            Refused("describe_failed", "not finite"),
        ),
        ("schema of 100,000 levels", || schema(&"[".repeat(100_000)), Refused("describe_failed", "not JSON")),
        (
            "schema of 100 KB",
            || schema(&format!(r#"{{"title":"{}"}}"#, "x".repeat(100_000))),
            Refused("bad_config_schema", "too large"),
        ),
        (
            "schema in another place",
            || schema(r#"{"$ref":"http://example.org/schema"}"#),
            Refused("bad_config_schema", "own parts only"),
        ),
        (
            "memory of 4 GiB",
            || Guest::default().pages(65_536).component(),
            Refused("does_not_fit", "exceeds the limit"),
        ),
        (
            "table of 10,000,000 elements",
            || Guest::default().more("(table 10000000 funcref)").component(),
            Refused("does_not_fit", ""),
        ),
        (
            "data outside of its memory",
            || Guest::default().with(FAR, vec![1]).component(),
            Refused("describe_failed", "out of bounds"),
        ),
        (
            "shared memory",
            || text(r#"(component (core module (memory 1 1 shared)))"#),
            Refused("invalid_component", ""),
        ),
        ("memory of 64 bits", || text("(component (core module (memory i64 1)))"), Refused("invalid_component", "")),
        (
            "objects of a garbage collector",
            || text("(component (core module (type (struct (field i32)))))"),
            Refused("invalid_component", ""),
        ),
        (
            "function of 8 MB",
            || {
                text(&format!(
                    "(component (core module (func {})))",
                    "(drop (i64.const -9223372036854775808))".repeat(700_000)
                ))
            },
            Refused("invalid_component", ""),
        ),
        (
            "100,001 exports",
            || {
                text(&format!(
                    "(component (core module (func $f) {}))",
                    (0..100_001).map(|n| format!("(export \"{n}\" (func $f))")).collect::<String>()
                ))
            },
            Refused("wrong_world", ""),
        ),
        (
            "1,000,001 functions",
            || text(&format!("(component (core module {}))", "(func)".repeat(1_000_001))),
            Refused("invalid_component", ""),
        ),
        ("100 components in each other", || nested(100, ""), Refused("wrong_world", "")),
        ("100 modules beside each other", || nested(1, &"(core module)".repeat(100)), Refused("wrong_world", "")),
        (
            "network",
            || text(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)))"#),
            Refused("unknown_import", "sockets"),
        ),
    ]
}
