//! Where the lines of a plugin go: its `log` calls, and what it prints to stdout or stderr. What it says of
//! its own end is kept as well, for the failure of that call.
//!
//! Each line names the frame that its hook was last called for.
//!
//! Invariant: whatever the plugins of a scenario write, the host passes on as many lines and bytes
//! a second as the scenario may log, each of them one line of at most [`MAX_LINE`] bytes, and says
//! how many it left out.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use parking_lot::Mutex;

use framehook_core::{
    job::{LogLevel, PluginLog},
    log_budget::{LogBudget, LogLimits},
    prediction::Attribute,
    text::short_line,
};
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};
use wasmtime_wasi_io::bytes::Bytes;

/// Takes the lines of plugins; called on the thread that runs the hook.
pub type LogSink = Arc<dyn Fn(PluginLog) + Send + Sync>;

/// A line is for a person; data belongs into detections and events.
const MAX_LINE: usize = 1 << 10;
const MAX_TARGET: usize = 64;
const MAX_KEY: usize = 64;
/// Where a line comes from that the host says of a plugin.
pub(crate) const HOST: &str = "framehook";
/// Where the SDK logs panics.
const PANIC: &str = "panic";
/// Where a plugin prints what went wrong. Rust's standard library reports panics there.
pub(crate) const STDERR: &str = "stderr";
/// How the standard library begins its report of a panic, behind the name of the thread.
const PANICKED: &str = "panicked at ";
/// Its advice below the report, which is for whoever runs a program themselves.
const ADVICE: &str = "note: run with `RUST_BACKTRACE";

/// The log of a scenario's hooks, all of them within one budget. Clones share it.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Inner>>);

struct Inner {
    sink: LogSink,
    budget: LogBudget,
}

impl Log {
    #[must_use]
    pub fn new(sink: LogSink, limits: LogLimits) -> Self {
        Self(Arc::new(Mutex::new(Inner { sink, budget: LogBudget::new(limits, Instant::now()) })))
    }
}

/// The lines of one plugin in one scenario.
#[derive(Clone)]
pub(crate) struct Logger {
    /// `name@version`.
    pub(crate) plugin: String,
    log: Log,
    call: Arc<Mutex<Call>>,
}

/// What is going on.
#[derive(Default)]
struct Call {
    /// The frame that the hook was last called for.
    frame: Option<u64>,
    said: LastWords,
}

/// What a plugin said during a call that would explain why the call had no end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum LastWords {
    #[default]
    None,
    /// On stderr: an explanation, perhaps.
    Printed(String),
    Panic(String),
}

impl LastWords {
    fn hear(&mut self, target: &str, message: &str) {
        match (target, &mut *self) {
            (PANIC, _) => *self = Self::Panic(in_one_line(message)),
            (STDERR, Self::None | Self::Printed(_)) if message.is_empty() || message.starts_with(ADVICE) => {}
            // What was printed before a panic has nothing to do with it, and the end says more than the rest.
            (STDERR, Self::Printed(so_far))
                if !message.contains(PANICKED) && so_far.len() + message.len() < MAX_LINE =>
            {
                so_far.push(' ');
                so_far.push_str(&in_one_line(message));
            }
            (STDERR, Self::None | Self::Printed(_)) => *self = Self::Printed(in_one_line(message)),
            _ => {}
        }
    }
}

/// A text of several lines, such as what an assertion says, as one that a person can read.
fn in_one_line(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_LINE)];
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    short_line(&lines.join(" "), MAX_LINE)
}

impl Logger {
    pub(crate) fn new(plugin: String, log: Log) -> Self {
        Self { plugin, log, call: Arc::default() }
    }

    /// What comes is about this frame.
    pub(crate) fn begin_frame(&self, frame: u64) {
        self.call.lock().frame = Some(frame);
    }

    /// What was said so far is about an earlier call.
    pub(crate) fn begin_call(&self) {
        self.call.lock().said = LastWords::None;
    }

    /// What was said since the call began.
    pub(crate) fn last_words(&self) -> LastWords {
        self.call.lock().said.clone()
    }

    /// A line of the host about the plugin.
    pub(crate) fn tell(&self, level: LogLevel, message: &str) {
        self.line(level, HOST, message, Vec::new());
    }

    /// A line of the plugin. What of its fields does not fit into a line behind the message is left out.
    pub(crate) fn line(&self, level: LogLevel, target: &str, message: &str, fields: Vec<(String, Attribute)>) {
        let mut call = self.call.lock();
        // Heard also where the log is full.
        call.said.hear(target, message);
        let frame = call.frame;
        drop(call);
        let (target, message) = (short_line(target, MAX_TARGET), in_one_line(message));
        let fields = fitting(fields, MAX_LINE - message.len());
        let line = PluginLog { plugin: self.plugin.clone(), level, target, message, fields, frame, shadow: false };
        self.log.0.lock().line(line, Instant::now());
    }
}

/// Those that take at most `room` bytes together, fit for a line; of two with one key the last.
fn fitting(fields: Vec<(String, Attribute)>, mut room: usize) -> BTreeMap<String, Attribute> {
    let mut fitting = BTreeMap::new();
    for (key, value) in fields {
        let (key, value) = (short_line(&key, MAX_KEY), presentable(value));
        let Some(left) = room.checked_sub(key.len() + value.to_string().len()) else { break };
        room = left;
        fitting.insert(key, value);
    }
    fitting
}

/// JSON has no number that is not finite.
fn presentable(value: Attribute) -> Attribute {
    match value {
        Attribute::Text(text) => Attribute::Text(in_one_line(&text)),
        Attribute::Number(number) if !number.is_finite() => Attribute::Text(number.to_string()),
        Attribute::Numbers(numbers) if !numbers.iter().all(|number| number.is_finite()) => {
            Attribute::Text(format!("{numbers:?}"))
        }
        finite => finite,
    }
}

impl Inner {
    fn line(&mut self, line: PluginLog, now: Instant) {
        if let Some(left_out) = self.budget.admit(line.bytes(), now) {
            self.tell(left_out);
            (self.sink)(line);
        }
    }

    fn tell(&self, lines: u64) {
        if lines > 0 {
            (self.sink)(PluginLog::of_platform(LogLevel::Warn, "log", self.budget.left_out(lines)));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let lines = self.budget.rest();
        self.tell(lines);
    }
}

/// What a plugin prints: each line becomes a line of its log.
#[derive(Clone)]
pub(crate) struct Printed {
    logger: Logger,
    level: LogLevel,
    target: &'static str,
    /// The beginning of a line that is not complete yet.
    partial: Arc<Mutex<Vec<u8>>>,
}

impl Printed {
    pub(crate) fn new(logger: Logger, level: LogLevel, target: &'static str) -> Self {
        Self { logger, level, target, partial: Arc::default() }
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    // Only version 2 of WASI is linked, which calls `p2_stream`.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut partial = self.partial.lock();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            // A line without an end is cut too, so that it cannot grow for ever.
            if piece.ends_with(b"\n") || partial.len() >= MAX_LINE {
                let line = String::from_utf8_lossy(&partial);
                self.logger.line(self.level, self.target, line.trim_end(), Vec::new());
                partial.clear();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

/// What one write may bring: as much as WASI implementations usually take.
const MAX_WRITE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn collected() -> (Arc<Mutex<Vec<PluginLog>>>, LogSink) {
        let lines: Arc<Mutex<Vec<PluginLog>>> = Arc::default();
        let sink = lines.clone();
        (lines, Arc::new(move |line| sink.lock().push(line)))
    }

    #[test]
    fn all_hooks_share_one_budget_and_floods_are_counted() {
        let (lines, sink) = collected();
        let log = Log::new(sink, LogLimits { lines: 5, bytes: 1 << 20 });
        let loggers: Vec<_> = (0..16).map(|n| Logger::new(format!("p{n}@1"), log.clone())).collect();
        for logger in loggers.iter().cycle().take(1600) {
            logger.line(LogLevel::Info, "t", "x", Vec::new());
        }
        drop((log, loggers));
        let lines = lines.lock();
        let (said, passed): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.plugin == "framehook");
        let left_out: usize =
            said.iter().map(|line| line.message.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
        assert!(passed.len() >= 5 && passed.len() + left_out == 1600, "{} and {left_out}", passed.len());
    }

    #[test]
    fn a_line_is_one_line_and_has_an_end() {
        let (lines, sink) = collected();
        let logger = Logger::new("p@1".into(), Log::new(sink, LogLimits::default()));
        logger.line(LogLevel::Info, "a\nb", "fine\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m", Vec::new());
        logger.line(LogLevel::Info, "t", &"é".repeat(MAX_LINE), vec![("k".into(), Attribute::Number(1.0))]);
        logger.begin_frame(7);
        let fields = [
            ("a\nb", Attribute::Text("c\nd".into())),
            ("n", Attribute::Number(f64::NAN)),
            ("twice", Attribute::Number(1.0)),
            ("twice", Attribute::Numbers(vec![2.0])),
            ("long", Attribute::Text("x".repeat(MAX_LINE))),
            ("behind", Attribute::Number(1.0)),
        ];
        logger.line(LogLevel::Info, "t", "m", fields.map(|(key, value)| (key.to_owned(), value)).to_vec());
        let lines = lines.lock();
        assert_eq!(lines[0].target, "a\\nb");
        assert_eq!(lines[0].message, "fine 2026-01-01T00:00:00Z ERROR forged \\u{1b}[31m");
        assert_eq!((lines[1].message.len(), lines[1].frame), (MAX_LINE, None));
        assert!(lines[1].fields.is_empty(), "there was no room for it");
        let fields = serde_json::to_value(&lines[2].fields).unwrap();
        assert_eq!(fields, serde_json::json!({"a\\nb": "c d", "n": "NaN", "twice": [2]}));
        assert_eq!(lines[2].frame, Some(7));
    }

    #[test]
    fn what_explains_an_end_is_heard() {
        use LastWords as L;
        let (printed, panic) = (|text: &str| L::Printed(text.into()), |text: &str| L::Panic(text.into()));
        let std = [
            (STDERR, ""),
            (STDERR, "thread '<unnamed>' (1) panicked at src/lib.rs:3:5:"),
            (STDERR, "index out of bounds"),
            (STDERR, "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"),
        ];
        let of_std = "thread '<unnamed>' (1) panicked at src/lib.rs:3:5: index out of bounds";
        for (said, words) in [
            (&[("stdout", "x"), ("my_plugin", "y")][..], L::None),
            (
                &[("panic", "panicked at src/lib.rs:1:2:\nboom\u{1b}[2J")],
                panic("panicked at src/lib.rs:1:2: boom\\u{1b}[2J"),
            ),
            (&[("panic", "one"), ("panic", "two"), (STDERR, "three")], panic("two")),
            (&std, printed(of_std)),
            (&[&[(STDERR, "loading")][..], &std].concat(), printed(of_std)),
            (
                &[(STDERR, "Traceback"), (STDERR, "  line 3"), (STDERR, "ValueError")],
                printed("Traceback line 3 ValueError"),
            ),
        ] {
            let mut heard = L::None;
            said.iter().for_each(|(target, message)| heard.hear(target, message));
            assert_eq!(heard, words);
        }
        let mut flooded = L::None;
        (0..1000).for_each(|n| flooded.hear(STDERR, &format!("line {n}")));
        assert!(
            matches!(&flooded, L::Printed(text) if text.len() <= MAX_LINE && text.ends_with("line 999")),
            "{flooded:?}"
        );
        flooded.hear("panic", &"é".repeat(MAX_LINE));
        assert!(matches!(&flooded, L::Panic(text) if text.len() == MAX_LINE));
    }

    #[test]
    fn printed_bytes_become_lines() {
        let (lines, sink) = collected();
        let mut out =
            Printed::new(Logger::new("p@1".into(), Log::new(sink, LogLimits::default())), LogLevel::Info, "stdout");
        out.write(Bytes::from_static(b"one\ntw")).unwrap();
        out.write(Bytes::from_static(b"o\nthree")).unwrap();
        let messages: Vec<_> = lines.lock().iter().map(|l| l.message.clone()).collect();
        assert_eq!(messages, ["one", "two"]);
    }
}
