//! What the worker tells its runner, from several threads, in whole records.
//!
//! Invariants: records never mix, frames stay in order, and a runner that went away ends the
//! process: nobody would read on.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use framehook_core::{
    hook_state::HookState,
    hook_stats::HookStats,
    job::{Report, write_record},
    prediction::{Position, Prediction},
    reason::Reason,
    recorded::{MAX_FRAME, Sent},
};

use framehook_engine::chain::Stage;

use crate::process;

/// The exit code of a worker whose runner closed the pipe.
pub const EXIT_ORPHANED: i32 = 3;

/// Frames of this time wake the runner once. It is a fifth of the time in which the runner gathers
/// them again, and less than what lies between two frames of a camera, which do not wait.
const GATHER: Duration = Duration::from_millis(10);

/// How often a worker tells what became of its hooks' calls. Nobody reads it twice a second, and a record of
/// it may have 200 KiB.
const STATS: Duration = Duration::from_secs(1);

/// What a pipe holds.
const BUFFER: usize = 64 << 10;

/// Writes reports; shared by all threads.
pub struct Reporter(Mutex<Inner>);

struct Inner {
    out: BufWriter<File>,
    flushed_at: Instant,
    /// Whether frames wait to be written.
    waits: bool,
    /// What became of the calls of the pre and of the post hooks; `None`: they were not asked yet.
    /// With the revision that they are of.
    hooks: [Option<(i64, Vec<HookStats>)>; 2],
    /// When each is asked again.
    ask_at: [Instant; 2],
    /// Health of the pre and of the post hooks, and what was reported.
    health: [Option<Reason>; 2],
    reported: Option<Reason>,
}

impl Reporter {
    #[must_use]
    pub fn new(out: File) -> Self {
        let now = Instant::now();
        Self(Mutex::new(Inner {
            out: BufWriter::with_capacity(BUFFER, out),
            flushed_at: now,
            waits: false,
            hooks: [None, None],
            ask_at: [now; 2],
            health: [None, None],
            reported: None,
        }))
    }

    /// Writes a record at once.
    pub fn send(&self, report: &Report<&Prediction>) {
        let mut inner = self.0.lock();
        inner.write(report);
        inner.flush();
    }

    /// Keeps a frame, and what hooks changed on it, until [`Self::due`].
    pub fn frame(&self, prediction: &Prediction, state: HookState) {
        let mut inner = self.0.lock();
        if !state.is_empty() {
            inner.write(&Report::State(state));
        }
        inner.write(&Report::Frame(prediction));
        inner.waits = true;
    }

    /// Writes what recorded outputs begin with.
    pub fn opening(&self, opening: &[u8]) {
        self.0.lock().write_outputs(Sent::Opening(opening));
    }

    /// Writes the outputs of a frame, whose prediction follows; none if a record has no room for them.
    pub fn outputs(&self, at: Position, outputs: &[u8]) {
        let outputs = if outputs.len() <= MAX_FRAME { outputs } else { &[] };
        self.0.lock().write_outputs(Sent::Frame(at, outputs));
    }

    /// When frames that wait must be written, if any do.
    pub fn due(&self) -> Option<Instant> {
        let inner = self.0.lock();
        inner.waits.then(|| inner.flushed_at + GATHER)
    }

    /// Writes what waits.
    pub fn flush(&self) {
        self.0.lock().flush();
    }

    /// Reports what became of the calls of one chain's hooks, together with what is known of the other's, if
    /// it is time or the last time. While only one of them has changed to another revision, nothing is said.
    pub fn hooks(&self, (stage, revision): (Stage, i64), is_last: bool, stats: impl FnOnce() -> Vec<HookStats>) {
        let mut inner = self.0.lock();
        let now = Instant::now();
        if !is_last && now < inner.ask_at[stage as usize] {
            return;
        }
        inner.ask_at[stage as usize] = now + STATS;
        inner.hooks[stage as usize] = Some((revision, stats()));
        if let [Some((of_pre, pre)), Some((of_post, post))] = &inner.hooks
            && of_pre == of_post
        {
            let both = [&pre[..], &post[..]].concat();
            if !both.is_empty() {
                inner.write(&Report::HookStats(both));
            }
        }
    }

    /// Notes the health of one chain, and reports a change of the whole at once.
    pub fn health(&self, stage: Stage, degraded: Option<Reason>) {
        let mut inner = self.0.lock();
        inner.health[stage as usize] = degraded;
        let now = inner.health.iter().flatten().next().cloned();
        if now != inner.reported {
            inner.reported.clone_from(&now);
            inner.write(&Report::Hooks { degraded: now });
            inner.flush();
        }
    }
}

impl Inner {
    fn write(&mut self, report: &Report<&Prediction>) {
        write_record(&mut self.out, report).unwrap_or_else(|error| give_up(&error));
    }

    fn write_outputs(&mut self, sent: Sent<'_>) {
        sent.write(&mut self.out).unwrap_or_else(|error| give_up(&error));
    }

    fn flush(&mut self) {
        (self.waits, self.flushed_at) = (false, Instant::now());
        self.out.flush().unwrap_or_else(|error| give_up(&error));
    }
}

fn give_up(error: &std::io::Error) -> ! {
    eprintln!("the runner reads no more reports, so this worker ends: {error}");
    process::exit_now(EXIT_ORPHANED)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use framehook_core::{job::read_record, reason::ReasonCode};

    use super::*;

    #[test]
    fn health_is_reported_when_it_changes_and_only_then() {
        let mut file = tempfile::tempfile().unwrap();
        let reporter = Reporter::new(file.try_clone().unwrap());
        let slow = || Some(Reason::new(ReasonCode::PluginTimeout, "slow"));
        let trap = || Some(Reason::new(ReasonCode::PluginTrap, "trap"));
        reporter.health(Stage::Pre, None);
        reporter.health(Stage::Post, trap());
        reporter.health(Stage::Post, trap());
        reporter.health(Stage::Pre, slow());
        reporter.health(Stage::Post, None);
        reporter.health(Stage::Pre, None);
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let mut input = bytes.as_slice();
        for expected in [trap(), slow(), None] {
            assert_eq!(read_record(&mut input).unwrap(), Some(Report::<()>::Hooks { degraded: expected }));
        }
        assert!(input.is_empty());
    }

    #[test]
    fn hooks_are_told_of_once_both_chains_are_known_seldom_and_at_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        let reporter = Reporter::new(file.try_clone().unwrap());
        let stats = |stage, calls| vec![HookStats { calls, ..HookStats::new("p@1".into(), stage) }];
        reporter.hooks((Stage::Pre, 1), false, || stats(Stage::Pre, 1));
        reporter.hooks((Stage::Post, 1), false, Vec::new);
        (2..1000).for_each(|calls| reporter.hooks((Stage::Pre, 1), false, || stats(Stage::Pre, calls)));
        reporter.hooks((Stage::Pre, 1), true, || stats(Stage::Pre, 1000));
        reporter.flush();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let mut input = bytes.as_slice();
        let mut told = Vec::new();
        while let Some(Report::<()>::HookStats(hooks)) = read_record(&mut input).unwrap() {
            told.push(hooks[0].calls);
        }
        assert_eq!((told.first(), told.last()), (Some(&1), Some(&1000)));
        assert!(told.len() < 10, "{told:?}");
    }
}
