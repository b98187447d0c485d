//! Where the lines of a plugin go: its `log` calls, and what it prints to stdout or stderr.
//!
//! Invariant: whatever the plugins of a scenario write, the host passes on as many lines and bytes
//! a second as the scenario may log, each of them one line of at most [`MAX_LINE`] bytes, and says
//! how many it left out.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;

use framehook_core::{
    job::{LogLevel, PluginLog},
    log_budget::{LogBudget, LogLimits},
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
}

impl Logger {
    pub(crate) fn new(plugin: String, log: Log) -> Self {
        Self { plugin, log }
    }

    pub(crate) fn line(&self, level: LogLevel, target: &str, message: &str) {
        let (target, message) = (short_line(target, MAX_TARGET), short_line(message, MAX_LINE));
        let line = PluginLog { plugin: self.plugin.clone(), level, target, message };
        self.log.0.lock().line(line, Instant::now());
    }
}

impl Inner {
    fn line(&mut self, line: PluginLog, now: Instant) {
        if let Some(left_out) = self.budget.admit(line.target.len() + line.message.len(), now) {
            self.tell(left_out);
            (self.sink)(line);
        }
    }

    fn tell(&self, lines: u64) {
        if lines > 0 {
            let (plugin, target) = ("framehook".to_owned(), "log".to_owned());
            let message = self.budget.left_out(lines);
            (self.sink)(PluginLog { plugin, level: LogLevel::Warn, target, message });
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
        (lines, Arc::new(move |line| sink.lock().push(line)))
    }

    #[test]
    fn all_hooks_share_one_budget_and_floods_are_counted() {
        let (lines, sink) = collected();
        let log = Log::new(sink, LogLimits { lines: 5, bytes: 1 << 20 });
        let loggers: Vec<_> = (0..16).map(|n| Logger::new(format!("p{n}@1"), log.clone())).collect();
        for logger in loggers.iter().cycle().take(1600) {
            logger.line(LogLevel::Info, "t", "x");
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
        logger.line(LogLevel::Info, "a\nb", "fine\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m");
        logger.line(LogLevel::Info, "t", &"é".repeat(MAX_LINE));
        let lines = lines.lock();
        assert_eq!(lines[0].target, "a\\nb");
        assert_eq!(lines[0].message, "fine\\n2026-01-01T00:00:00Z ERROR forged \\u{1b}[31m");
        assert_eq!(lines[1].message.len(), MAX_LINE);
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
