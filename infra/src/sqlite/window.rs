//! How much is kept of a topic whose readers begin at its end: pure bookkeeping of what was appended and
//! when.
//!
//! Invariants: what is younger than [`READ_BY`] is never dropped; what is older than [`KEPT`] always is, and
//! before that while the topic holds more than [`BYTES`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// All readers are in this process and woken by each commit; one that is this far behind has long been told
/// again.
const KEPT: Duration = Duration::from_secs(10);

/// Even an overloaded machine gives a reader a processor once in this time.
const READ_BY: Duration = Duration::from_secs(5);

/// Bytes of one topic. Heartbeats of a thousand workers in five seconds are half of it.
const BYTES: usize = 8 << 20;

/// What of one topic lies in the log, oldest first.
#[derive(Debug, Default)]
pub(super) struct Window {
    commits: VecDeque<Commit>,
    bytes: usize,
}

#[derive(Debug)]
struct Commit {
    /// The offset behind its last record.
    end: i64,
    bytes: usize,
    at: Instant,
}

impl Window {
    /// Records up to `end` are in the log.
    pub(super) fn appended(&mut self, end: i64, bytes: usize, at: Instant) {
        self.bytes += bytes;
        self.commits.push_back(Commit { end, bytes, at });
    }

    /// The offset before which nothing is kept any more; `None` if nothing is to be dropped.
    pub(super) fn passed(&self, now: Instant) -> Option<i64> {
        let mut left = self.bytes;
        let dropped = self.commits.iter().take_while(|commit| {
            let age = now.duration_since(commit.at);
            let is_dropped = age > KEPT || (age > READ_BY && left > BYTES);
            left -= commit.bytes;
            is_dropped
        });
        dropped.last().map(|commit| commit.end)
    }

    /// Everything before `offset` is gone.
    pub(super) fn dropped(&mut self, offset: i64) {
        while self.commits.front().is_some_and(|commit| commit.end <= offset) {
            self.bytes -= self.commits.pop_front().map_or(0, |commit| commit.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_goes_and_what_is_large_goes_once_it_was_read() {
        let (mut window, start) = (Window::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        window.appended(3, 10, start);
        window.appended(5, 10, after(30));
        assert_eq!(window.passed(after(10)), None);
        assert_eq!(window.passed(after(11)), Some(3));
        window.dropped(3);
        assert_eq!(window.passed(after(40)), None);
        assert_eq!(window.passed(after(41)), Some(5));

        window.appended(6, BYTES, after(31));
        assert_eq!(window.passed(after(35)), None, "it may be unread");
        assert_eq!(window.passed(after(36)), Some(5), "the oldest first, and no more than is too much");
        window.dropped(5);
        window.appended(7, 1, after(32));
        assert_eq!(window.passed(after(37)), Some(6));
        window.dropped(6);
        assert_eq!(window.bytes, 1);
    }
}
