//! Plugins of the contract 0.2.0 that are made of a few lines of WebAssembly: each export returns nothing,
//! but for those that a test replaces.
//!
//! Addresses: what `describe` returns lies at [`DESCRIPTOR`], what all others return at [`NOTHING`] (zeros,
//! which are `ok` without anything in it), texts from [`TEXTS`] on, what is allocated from [`HEAP`] on.

use std::fmt::Write as _;

pub(crate) const DESCRIPTOR: u32 = 16;
const NOTHING: u32 = 512;
pub(crate) const TEXTS: u32 = 1024;
/// Where tests put what is to be returned instead.
pub(crate) const OWN: u32 = 2048;
const HEAP: u32 = 8192;

/// Functions of the host: interface, name and type. Each is called by the end of its name.
const IMPORTS: [(&str, &str, &str); 8] = [
    ("media", "[resource-drop]inference", "(param i32)"),
    ("state", "set", "(param i32 i32 i32 i32 i32)"),
    ("log", "log", "(param i32 i32 i32 i32 i32 i32 i32)"),
    ("metrics", "add", "(param i32 i32 i64 i32)"),
    ("media", "[static]tensor.from-f32", "(param i32 i32 i32 i32 i32)"),
    ("media", "suppress", "(param i32 i32 f32 i32 i32 i32)"),
    ("model", "run", "(param i32 i32 i32 i32 i32)"),
    ("media", "[method]inference.read-f32", "(param i32 i32 i32 i32 i32)"),
];

const EXPORTS: [(&str, &str, &str); 8] = [
    ("framehook:plugin/lifecycle@0.2.0#describe", "(result i32)", "(i32.const 16)"),
    ("framehook:plugin/lifecycle@0.2.0#validate-config", "(param i32 i32) (result i32)", "(i32.const 512)"),
    ("framehook:plugin/lifecycle@0.2.0#init", "(param i32) (result i32)", "(i32.const 512)"),
    ("framehook:plugin/lifecycle@0.2.0#shutdown", "", ""),
    ("framehook:plugin/postprocess@0.2.0#postprocess", "(param i32 i32 i32) (result i32)", DONE),
    (
        "framehook:plugin/postprocess@0.2.0#skipped",
        "(param i64 i64 i32 i32 i32 i32 i32 i32) (result i32)",
        "(i32.const 512)",
    ),
    ("framehook:plugin/postprocess@0.2.0#flush", "(result i32)", "(i32.const 512)"),
    ("cabi_realloc", "(param i32 i32 i32 i32) (result i32)", "(i32.const 8192)"),
];

/// The end of `postprocess`: what was lent for the call is given back, and nothing was found.
pub(crate) const DONE: &str = "(call $inference (local.get 0)) (i32.const 512)";

/// What differs from a plugin that does nothing.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    /// Ends of the names of exports, and what they do instead.
    pub(crate) bodies: Vec<(&'static str, String)>,
    /// What else is in the module.
    pub(crate) more: String,
    pub(crate) data: Vec<(u32, Vec<u8>)>,
    /// 64 KiB each.
    pub(crate) pages: u32,
}

impl Default for Guest {
    fn default() -> Self {
        const SCHEMA: &str = r#"{"type":"object"}"#;
        let (version, schema) = (TEXTS + 16, TEXTS + 32);
        let descriptor = words(&[TEXTS, 7, version, 5, schema, SCHEMA.len() as u32]);
        let text = |text: &str| text.as_bytes().to_vec();
        Self {
            bodies: Vec::new(),
            more: String::new(),
            data: vec![
                (DESCRIPTOR, descriptor),
                (TEXTS, text("hostile")),
                (version, text("0.1.0")),
                (schema, text(SCHEMA)),
            ],
            pages: 2,
        }
    }
}

impl Guest {
    /// One whose export does this.
    pub(crate) fn doing(export: &'static str, body: &str) -> Self {
        Self { bodies: vec![(export, body.to_owned())], ..Self::default() }
    }

    pub(crate) fn with(mut self, at: u32, data: Vec<u8>) -> Self {
        self.data.push((at, data));
        self
    }

    pub(crate) fn more(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self
    }

    pub(crate) fn pages(self, pages: u32) -> Self {
        Self { pages, ..self }
    }

    fn module(&self) -> String {
        let mut text = String::new();
        for (module, name, ty) in IMPORTS {
            let short = name.rsplit(['.', ']']).next().unwrap();
            writeln!(text, r#"(import "framehook:plugin/{module}@0.2.0" "{name}" (func ${short} {ty}))"#).unwrap();
        }
        writeln!(text, r#"(memory (export "memory") {})"#, self.pages).unwrap();
        for (name, ty, usual) in EXPORTS {
            let own = self.bodies.iter().find(|(end, _)| name.ends_with(end)).map(|(_, body)| body.as_str());
            writeln!(text, r#"(func (export "{name}") {ty} {})"#, own.unwrap_or(usual)).unwrap();
        }
        for (at, data) in &self.data {
            let bytes: String = data.iter().map(|byte| format!("\\{byte:02x}")).collect();
            writeln!(text, r#"(data (i32.const {at}) "{bytes}")"#).unwrap();
        }
        text + &self.more
    }

    pub(crate) fn component(&self) -> Vec<u8> {
        wat::parse_str(include_str!("guest.wat").replace("    MODULE", &self.module())).unwrap()
    }
}

/// As they lie in memory.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A detection, as words: class, no label, score, box, and nothing else.
pub(crate) fn detection(score: f32, bbox: [f32; 4]) -> [u32; 26] {
    let mut record = [0; 26];
    record[4] = score.to_bits();
    for (place, value) in record[5..9].iter_mut().zip(bbox) {
        *place = value.to_bits();
    }
    record
}

/// An `ok` outcome at [`OWN`] whose detections and events, so many, lie at these addresses.
pub(crate) fn outcome(detections: [u32; 2], events: [u32; 2]) -> (u32, Vec<u8>) {
    (OWN, words(&[0, detections[0], detections[1], events[0], events[1]]))
}

const _: () = assert!(DESCRIPTOR == 16 && NOTHING == 512 && HEAP == 8192, "as the exports have them");
