//! Where the lines of a plugin go: its `log` calls, and what it prints to stdout or stderr.
//!
//! Invariant: whatever a plugin writes, the host passes on at most [`LINES_A_SECOND`] lines of
//! [`MAX_LINE`] bytes, and says how many it dropped.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use framehook_core::job::{LogLevel, PluginLog};
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};
use wasmtime_wasi_io::bytes::Bytes;

/// Takes the lines of plugins; called on the thread that runs the hook.
pub type LogSink = Arc<dyn Fn(PluginLog) + Send + Sync>;

/// Enough to follow a plugin at 25 frames a second, too few to fill a disk unnoticed.
const LINES_A_SECOND: u32 = 200;
/// A line is for a person; data belongs into detections and events.
const MAX_LINE: usize = 1 << 10;
const MAX_TARGET: usize = 64;

/// The lines of one plugin in one scenario. Clones share the limit.
#[derive(Clone)]
pub(crate) struct Logger(Arc<Mutex<Inner>>);

struct Inner {
    plugin: String,
    sink: LogSink,
    second: Instant,
    lines: u32,
    dropped: u32,
}

impl Logger {
    pub(crate) fn new(plugin: String, sink: LogSink) -> Self {
        Self(Arc::new(Mutex::new(Inner { plugin, sink, second: Instant::now(), lines: 0, dropped: 0 })))
    }

    pub(crate) fn line(&self, level: LogLevel, target: &str, message: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).line(level, target, message, Instant::now());
    }
}

impl Inner {
    fn line(&mut self, level: LogLevel, target: &str, message: &str, now: Instant) {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.report_dropped();
            (self.second, self.lines) = (now, 0);
        }
        if self.lines >= LINES_A_SECOND {
            self.dropped += 1;
            return;
        }
        self.lines += 1;
        self.emit(level, cut(target, MAX_TARGET), cut(message, MAX_LINE));
    }

    fn report_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let message = format!("{dropped} lines were dropped: a plugin may log {LINES_A_SECOND} lines a second");
            self.emit(LogLevel::Warn, "framehook", &message);
        }
    }

    fn emit(&self, level: LogLevel, target: &str, message: &str) {
        let (plugin, target, message) = (self.plugin.clone(), target.to_owned(), message.to_owned());
        (self.sink)(PluginLog { plugin, level, target, message });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.report_dropped();
    }
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
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
    pub(crate) fn stdout(logger: Logger) -> Self {
        Self { logger, level: LogLevel::Info, target: "stdout", partial: Arc::default() }
    }

    pub(crate) fn stderr(logger: Logger) -> Self {
        Self { logger, level: LogLevel::Warn, target: "stderr", partial: Arc::default() }
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
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            partial.extend_from_slice(piece);
            // A line without an end is cut too, so that it cannot grow for ever.
            if piece.ends_with(b"\n") || partial.len() >= MAX_LINE {
                let line = String::from_utf8_lossy(&partial);
                self.logger.line(self.level, self.target, line.trim_end());
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
        (lines, Arc::new(move |line| sink.lock().unwrap().push(line)))
    }

    #[test]
    fn floods_are_cut_and_counted() {
        let (lines, sink) = collected();
        let start = Instant::now();
        let mut inner = Inner { plugin: "p@1".into(), sink, second: start, lines: 0, dropped: 0 };
        for _ in 0..LINES_A_SECOND + 50 {
            inner.line(LogLevel::Info, "t", "x", start);
        }
        assert_eq!(lines.lock().unwrap().len(), LINES_A_SECOND as usize);
        inner.line(LogLevel::Info, "t", &"é".repeat(MAX_LINE), start + Duration::from_secs(1));
        let lines = lines.lock().unwrap();
        assert!(lines[LINES_A_SECOND as usize].message.starts_with("50 lines were dropped"));
        assert_eq!(lines.last().unwrap().message.len(), MAX_LINE);
    }

    #[test]
    fn printed_bytes_become_lines() {
        let (lines, sink) = collected();
        let mut out = Printed::stdout(Logger::new("p@1".into(), sink));
        out.write(Bytes::from_static(b"one\ntw")).unwrap();
        out.write(Bytes::from_static(b"o\nthree")).unwrap();
        let messages: Vec<_> = lines.lock().unwrap().iter().map(|l| l.message.clone()).collect();
        assert_eq!(messages, ["one", "two"]);
    }
}
