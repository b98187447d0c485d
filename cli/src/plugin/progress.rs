//! How far a run is, on stderr: one line that changes in a terminal, a line a second elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use framehook_core::{
    job::{LogLevel, PluginLog},
    text::one_line,
};
use framehook_runner::alone::told;
use rustix::termios::tcgetwinsize;

use super::tally::Tally;

const WIDTH: usize = 24;

pub(super) struct Progress {
    total: Option<u64>,
    began: Instant,
    shown_at: Instant,
    is_terminal: bool,
}

impl Progress {
    /// `total`: frames that are expected.
    pub(super) fn new(total: Option<u64>) -> Self {
        Self { total, began: Instant::now(), shown_at: Instant::now(), is_terminal: io::stderr().is_terminal() }
    }

    /// Shows it, if it is time to.
    pub(super) fn show(&mut self, tally: &Tally) {
        // In a terminal as often as an eye follows, in a log as often as somebody reads it.
        let pause = Duration::from_millis(if self.is_terminal { 100 } else { 1000 });
        if self.shown_at.elapsed() >= pause {
            self.shown_at = Instant::now();
            self.write(&self.line(tally));
        }
    }

    /// A line of a hook's log, at once.
    pub(super) fn log(&self, line: &PluginLog) {
        let level = match line.level {
            LogLevel::Trace => "TRACE",
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warn => "WARN",
            LogLevel::Error => "ERROR",
        };
        self.clear();
        let frame = line.frame.map(|frame| format!(" frame {frame}")).unwrap_or_default();
        let message = line.message.clone() + &told(&line.fields);
        eprintln!("{level} {}{frame}: {}", one_line(&line.plugin), one_line(&message));
    }

    /// Leaves the line for others.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }

    /// Frames a second since the first.
    pub(super) fn fps(&self, frames: u64) -> f64 {
        frames as f64 / self.began.elapsed().as_secs_f64().max(1e-3)
    }

    fn line(&self, tally: &Tally) -> String {
        let frames = tally.frames;
        let (bar, of) = match self.total {
            Some(total) => (bar(frames, total), format!("{frames} of {total}")),
            None => (String::new(), frames.to_string()),
        };
        format!("{bar}{of} frames, {:.0} a second  {}", self.fps(frames), tally.short())
    }

    fn write(&self, line: &str) {
        if !self.is_terminal {
            eprintln!("{line}");
            return;
        }
        // What does not fit would begin a new line, and stay.
        let columns = tcgetwinsize(io::stderr()).map_or(80, |size| usize::from(size.ws_col).max(20));
        let line: String = line.chars().take(columns - 1).collect();
        eprint!("\r{line}\x1b[K");
        io::stderr().flush().ok();
    }
}

/// `[######------] `
fn bar(done: u64, total: u64) -> String {
    let done = (done.min(total) as usize * WIDTH).checked_div(total as usize).unwrap_or_default();
    format!("[{}{}] ", "#".repeat(done), "-".repeat(WIDTH - done))
}
