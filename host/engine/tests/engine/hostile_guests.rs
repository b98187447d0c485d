//! Hostile components, each in a line: refused at upload, or contained within its deadline.
//!
//! SECURITY.md names them. What of them needs a plugin that is built is in `hostile.rs` (`misbehave`), what needs a
//! process with limits in `host/compiled/tests` (a component that compiles for ever) and `tests/e2e/bad_input.rs`.

use framehook_core::{job::HookLimits, probe::Verdict, spec::OnPluginFailure as Policy};
use framehook_engine::chain::{Chain, ChainSettings, Stage};
use serde_json::json;

use crate::{
    guests::{DESCRIPTOR, DONE, Guest, OWN, TEXTS, detection, outcome, words},
    support::{COMPILER, ENGINE, SIZE, infer, inspect, job_of, judge, position, settings},
};

/// Where it does harm, if it is accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Check,
    Start,
    Frame,
    Skipped,
    Flush,
    Shutdown,
}

/// What becomes of it, in words of what is said. Contained without words: nothing is wrong with the frame.
enum Fate {
    Refused(&'static str, &'static str),
    Contained(At, &'static str),
}
use Fate::{Contained, Refused};

const LOOP: &str = "(loop (br 0)) (unreachable)";
const TRAP: &str = "(unreachable)";
const DEEP: &str = "(func $deep (result i32) (i32.add (i32.const 1) (call $deep)))";
/// Far over what a plugin has.
const FAR: u32 = 0x7fff_0000;
const WHOLE: [f32; 4] = [0.1, 0.1, 0.5, 0.5];

/// In an endless loop.
fn again(call: &str) -> String {
    format!("(loop {call} (br 0)) (unreachable)")
}

/// One that returns what lies at [`OWN`].
fn returns(export: &'static str, data: Vec<(u32, Vec<u8>)>) -> Guest {
    let given_back = if export == "#postprocess" { "(call $inference (local.get 0))" } else { "" };
    let guest = Guest::doing(export, &format!("{given_back} (i32.const 2048)"));
    data.into_iter().fold(guest, |guest, (at, data)| guest.with(at, data))
}

/// One that finds this one thing.
fn finds(detection: [u32; 26], more: Vec<(u32, Vec<u8>)>) -> Guest {
    let one = vec![outcome([OWN + 64, 1], [0, 0]), (OWN + 64, words(&detection))];
    returns("#postprocess", [one, more].concat())
}

/// A detection with some words at other places.
fn altered(places: &[(usize, u32)]) -> [u32; 26] {
    let mut record = detection(0.5, WHOLE);
    places.iter().for_each(|(place, word)| record[*place] = *word);
    record
}

/// One that describes itself with another word at this place of its descriptor.
fn described(place: u32, word: u32) -> Guest {
    Guest::default().with(DESCRIPTOR + 4 * place, words(&[word]))
}

/// A component that is no plugin, of this text.
fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// One whose schema is this text.
fn schema(schema: &str) -> Vec<u8> {
    let at = 1 << 16;
    let guest = Guest::default().with(DESCRIPTOR + 16, words(&[at, schema.len() as u32]));
    guest.with(at, schema.as_bytes().to_vec()).pages(8).component()
}

fn nested(depth: usize, part: &str) -> Vec<u8> {
    text(&(["(component ".repeat(depth), part.to_owned(), ")".repeat(depth)].concat()))
}

const STATE: (&str, &str, &str) = ("state", "set", "(param i32 i32 i32 i32 i32)");
const LOG: (&str, &str, &str) = ("log", "log", "(param i32 i32 i32 i32 i32 i32 i32)");
const METRIC: (&str, &str, &str) = ("metrics", "add", "(param i32 i32 i64 i32)");
const TENSOR: (&str, &str, &str) = ("media", "[static]tensor.from-f32", "(param i32 i32 i32 i32 i32)");
const SUPPRESS: (&str, &str, &str) = ("media", "suppress", "(param i32 i32 f32 i32 i32 i32)");
const MODEL: (&str, &str, &str) = ("model", "run", "(param i32 i32 i32 i32 i32)");
const READ: (&str, &str, &str) = ("media", "[method]inference.read-f32", "(param i32 i32 i32 i32 i32)");

/// On a frame it calls the host.
fn calls((module, name, ty): (&'static str, &'static str, &'static str), body: &str) -> Vec<u8> {
    Guest::doing("#postprocess", body).import(module, name, ty).component()
}

type Hostile = (&'static str, fn() -> Vec<u8>, Fate);

fn at_upload() -> Vec<Hostile> {
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
            Refused("invalid_component", ""),
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

fn at_work() -> Vec<Hostile> {
    vec![
        (
            "endless loop in validate-config",
            || Guest::doing("#validate-config", LOOP).component(),
            Contained(At::Check, "deadline of 250 ms"),
        ),
        (
            "trap in validate-config",
            || Guest::doing("#validate-config", TRAP).component(),
            Contained(At::Check, "unreachable"),
        ),
        ("endless loop in init", || Guest::doing("#init", LOOP).component(), Contained(At::Start, "deadline")),
        ("trap in init", || Guest::doing("#init", TRAP).component(), Contained(At::Start, "unreachable")),
        (
            "endless loop in postprocess",
            || Guest::doing("#postprocess", LOOP).component(),
            Contained(At::Frame, "deadline of 20 ms"),
        ),
        (
            "endless loop in skipped",
            || {
                let curious = Guest {
                    bodies: vec![("#init", "(i32.const 2048)".into()), ("#skipped", LOOP.into())],
                    ..Guest::default()
                };
                curious.with(OWN, words(&[0, 0, 0, 1])).component()
            },
            Contained(At::Skipped, "deadline"),
        ),
        ("endless loop in flush", || Guest::doing("#flush", LOOP).component(), Contained(At::Flush, "deadline")),
        ("trap in flush", || Guest::doing("#flush", TRAP).component(), Contained(At::Flush, "unreachable")),
        ("endless loop in shutdown", || Guest::doing("#shutdown", LOOP).component(), Contained(At::Shutdown, "")),
        (
            "endless loop where the host asks for memory",
            || Guest::doing("cabi_realloc", LOOP).component(),
            Contained(At::Start, "deadline"),
        ),
        (
            "memory for the host outside of its own",
            || Guest::doing("cabi_realloc", "(i32.const 0x7fff0000)").component(),
            Contained(At::Start, ""),
        ),
        (
            "recursion",
            || Guest::doing("#postprocess", "(call $deep)").more(DEEP).component(),
            Contained(At::Frame, "call stack exhausted"),
        ),
        (
            "memory at once",
            || Guest::doing("#postprocess", "(drop (memory.grow (i32.const 60000))) (unreachable)").component(),
            Contained(At::Frame, "limit of 64 MiB"),
        ),
        (
            "memory in steps",
            || {
                Guest::doing(
                    "#postprocess",
                    "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
                )
                .component()
            },
            Contained(At::Frame, "limit of 64 MiB"),
        ),
        (
            "table in steps",
            || {
                Guest::doing("#postprocess",
            "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 64)) (i32.const -1)))) (unreachable)")
            .more("(table $t 1 funcref)").component()
            },
            Contained(At::Frame, "unreachable"),
        ),
        (
            "list of 2 GiB for the host",
            || {
                calls(
                    SUPPRESS,
                    "(call $suppress (i32.const 0) (i32.const 0x7fffffff) (f32.const 0.5) (i32.const 0) (i32.const 9) (i32.const 600)) (unreachable)",
                )
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of handles",
            || {
                calls(
                    TENSOR,
                    &again(
                        "(call $from-f32 (i32.const 600) (i32.const 0) (i32.const 600) (i32.const 1) (i32.const 700))",
                    ),
                )
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of lines",
            || {
                calls(
                    LOG,
                    &again(
                        "(call $log (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 1000) (i32.const 0) (i32.const 0))",
                    ),
                )
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "line of 10 MB",
            || {
                let body = "(call $log (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 10485760) (i32.const 0) (i32.const 0))";
                let (module, name, ty) = LOG;
                Guest::doing("#postprocess", &format!("{body} {DONE}")).import(module, name, ty).pages(200).component()
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of state",
            || {
                // Another key each time: its first bytes count.
                let body = again(
                    "(i32.store (i32.const 1024) (i32.add (i32.const 1) (i32.load (i32.const 1024)))) \
                (i32.store (i32.const 1024) (i32.or (i32.and (i32.load (i32.const 1024)) (i32.const 0x3f3f3f3f)) (i32.const 0x40404040))) \
                (call $set (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 60000) (i32.const 600))",
                );
                calls(STATE, &body)
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "value of 10 MB",
            || {
                let body =
                    "(call $set (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 10485760) (i32.const 600))";
                let (module, name, ty) = STATE;
                Guest::doing("#postprocess", &format!("{body} {DONE}")).import(module, name, ty).pages(200).component()
            },
            Contained(At::Frame, ""),
        ),
        (
            "flood of names of metrics",
            || {
                let body = again(
                    "(i32.store (i32.const 1024) (i32.add (i32.const 1) (i32.load (i32.const 1024)))) \
                (i32.store (i32.const 1024) (i32.or (i32.and (i32.load (i32.const 1024)) (i32.const 0x07070707)) (i32.const 0x61616161))) \
                (call $add (i32.const 1024) (i32.const 4) (i64.const 1) (i32.const 600))",
                );
                calls(METRIC, &body)
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "models without end",
            || {
                calls(
                    MODEL,
                    &again("(call $run (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 600))"),
                )
            },
            Contained(At::Frame, "deadline"),
        ),
        (
            "elements outside of an output",
            || {
                calls(
                    READ,
                    &format!(
                        "(call $read-f32 (local.get 0) (i32.const 9) (i32.const -1) (i32.const -1) (i32.const 600)) {DONE}"
                    ),
                )
            },
            Contained(At::Frame, ""),
        ),
        (
            "handle dropped twice",
            || Guest::doing("#postprocess", &format!("(call $inference (local.get 0)) {DONE}")).component(),
            Contained(At::Frame, ""),
        ),
        (
            "handle of nothing",
            || {
                calls(
                    READ,
                    &format!(
                        "(call $read-f32 (i32.const 77) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 600)) {DONE}"
                    ),
                )
            },
            Contained(At::Frame, ""),
        ),
        (
            "result outside of its memory",
            || Guest::doing("#postprocess", "(i32.const 0x7fff0000)").component(),
            Contained(At::Frame, ""),
        ),
        (
            "result of 100,000,000 detections",
            || returns("#postprocess", vec![outcome([0, 100_000_000], [0, 0])]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "20,000 detections",
            || returns("#postprocess", vec![outcome([1 << 16, 20_000], [0, 0])]).pages(64).component(),
            Contained(At::Frame, "at most 10000"),
        ),
        (
            "20,000 events",
            || returns("#postprocess", vec![outcome([0, 0], [1 << 16, 20_000])]).pages(64).component(),
            Contained(At::Frame, "at most 1000"),
        ),
        (
            "label of 10 MB",
            || finds(altered(&[(1, 1), (2, 65_536), (3, 10 << 20)]), vec![]).pages(200).component(),
            Contained(At::Frame, "bytes of text"),
        ),
        (
            "label that is no text",
            || finds(altered(&[(1, 1), (2, 3000), (3, 2)]), vec![(3000, vec![0xff, 0xff])]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "boxes and scores that are no numbers",
            || finds(detection(f32::NAN, [f32::NAN; 4]), vec![]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "infinite box",
            || finds(detection(0.5, [f32::NEG_INFINITY, 0.0, f32::INFINITY, 1.0]), vec![]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "mask with runs of another length",
            || finds(altered(&[(18, 1), (19, 4), (20, 4), (21, 3000), (22, 1)]), vec![(3000, words(&[5]))]).component(),
            Contained(At::Frame, "runs of 5 cells"),
        ),
        (
            "mask of 4 billion cells",
            || finds(altered(&[(18, 1), (19, 65_535), (20, 65_535)]), vec![]).component(),
            Contained(At::Frame, "at most 4096 a side"),
        ),
        (
            "100,000,000 keypoints",
            || finds(altered(&[(14, 0), (15, 100_000_000)]), vec![]).component(),
            Contained(At::Frame, ""),
        ),
        (
            "one attribute twice",
            || {
                let attribute = [TEXTS, 7, 1, 0, 0, 0];
                finds(altered(&[(23, 3000), (24, 2)]), vec![(3000, words(&[attribute, attribute].concat()))])
                    .component()
            },
            Contained(At::Frame, "twice"),
        ),
        (
            "event about nothing",
            || {
                let event = [TEXTS, 7, 0, 3100, 1, 0, 0, 0, 0, 0, 0];
                returns("#postprocess", vec![outcome([0, 0], [3000, 1]), (3000, words(&event)), (3100, words(&[99]))])
                    .component()
            },
            Contained(At::Frame, "about detection 99"),
        ),
        (
            "event with an attribute of 8 MB",
            || {
                let event = [TEXTS, 7, 0, 0, 0, 3100, 1, 0, 0, 0, 0];
                let attribute = [TEXTS, 7, 2, 0, 1 << 16, 1 << 20];
                returns(
                    "#postprocess",
                    vec![outcome([0, 0], [3000, 1]), (3000, words(&event)), (3100, words(&attribute))],
                )
                .pages(200)
                .component()
            },
            Contained(At::Frame, "bytes of text"),
        ),
        (
            "severity that there is not",
            || {
                let event = [TEXTS, 7, 77, 0, 0, 0, 0, 0, 0, 0, 0];
                returns("#postprocess", vec![outcome([0, 0], [3000, 1]), (3000, words(&event))]).component()
            },
            Contained(At::Frame, ""),
        ),
        (
            "error of 10 MB",
            || returns("#postprocess", vec![(OWN, words(&[1, 1, 65_536, 10 << 20]))]).pages(200).component(),
            Contained(At::Frame, ""),
        ),
    ]
}

/// Those that may pass a frame: what they did is bounded, or was answered with an error.
const HARMLESS: [&str; 6] = [
    "line of 10 MB",
    "value of 10 MB",
    "elements outside of an output",
    "boxes and scores that are no numbers",
    "infinite box",
    "endless loop in shutdown",
];

#[test]
fn hostile_components_are_refused_at_upload() {
    let mut wrong = Vec::new();
    for (name, make, fate) in at_upload() {
        let Refused(code, words) = fate else { panic!("{name}: in the wrong list") };
        match inspect(&make()) {
            Verdict::Findings(findings)
                if findings.iter().all(|finding| finding.code == code) && findings[0].message.contains(words) => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hostile_components_are_contained_within_their_deadline() {
    let mut wrong = Vec::new();
    for (name, make, fate) in at_work() {
        let wasm = make();
        if !matches!(inspect(&wasm), Verdict::Ok(_)) {
            wrong.push(format!("{name}: {:?}", inspect(&wasm)));
            continue;
        }
        let Contained(at, words) = fate else { panic!("{name}: in the wrong list") };
        let said = if at == At::Check {
            vec![judge(&COMPILER.compile(&wasm).unwrap()).validate_config("{}").unwrap_err().to_string()]
        } else {
            at_a_frame(name, &wasm, at)
        };
        if said.is_empty() != HARMLESS.contains(&name) || !said.iter().all(|said| said.contains(words)) {
            wrong.push(format!("{name}: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is said of it on two frames, or behind them; what it did is bounded, and the process goes on.
fn at_a_frame(name: &str, wasm: &[u8], at: At) -> Vec<String> {
    let (settings, lines) = settings(Policy::RawOutput);
    // So that what is endless at the start need not run for two seconds.
    let settings = ChainSettings { limits: HookLimits { init_ms: 50, ..settings.limits }, ..settings };
    let job = job_of(&format!("hostile-{}", name.replace(' ', "-")), || wasm.to_vec(), json!({}));
    let mut chain = Chain::start(&ENGINE, Stage::Post, &[job], &settings).unwrap();
    let mut failures = Vec::new();
    for frame in 0..2 {
        let after = match at {
            At::Skipped => chain.skipped((position(frame), SIZE), "still").unwrap(),
            _ => infer(frame, &[(&[1, 2], &[0.0, 1.0])], |inference| chain.postprocess(inference)).unwrap(),
        };
        assert_eq!((after.detections, after.events), (vec![], vec![]), "{name}");
        failures.extend(after.failures);
    }
    let stats = chain.stats().remove(0);
    assert!(stats.state_bytes <= 1 << 20, "{name}: {stats:?}");
    assert!(stats.metrics.len() <= 64, "{name}: {} metrics", stats.metrics.len());
    failures.extend(chain.flush(1 << 20).1);
    chain.shutdown();
    assert!(lines.all().len() <= 200, "{name}: {} lines", lines.all().len());
    failures.into_iter().map(|failure| failure.reason.message).collect()
}

/// What nothing replaces is a plugin like any other.
#[test]
fn a_guest_that_does_nothing_is_accepted() {
    let wasm = Guest::default().component();
    assert!(matches!(inspect(&wasm), Verdict::Ok(_)), "{:?}", inspect(&wasm));
    assert_eq!(at_a_frame("nothing", &wasm, At::Frame), [""; 0]);
}
