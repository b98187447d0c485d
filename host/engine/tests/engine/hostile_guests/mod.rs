//! Hostile components, each in a line: refused at upload, or contained within its deadline.
//!
//! SECURITY.md names them. What of them needs a plugin that is built is in `hostile.rs` (`misbehave`), what
//! needs a process with limits in `host/compiled/tests` (a component that compiles for ever) and
//! `tests/e2e/bad_input.rs`.

mod at_upload;
mod at_work;

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

/// On a frame it does this.
fn on_a_frame(body: &str) -> Vec<u8> {
    Guest::doing("#postprocess", body).component()
}

type Hostile = (&'static str, fn() -> Vec<u8>, Fate);

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
    for (name, make, fate) in at_upload::at_upload() {
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
    for (name, make, fate) in at_work::at_work() {
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
