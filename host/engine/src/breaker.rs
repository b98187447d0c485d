//! Leaves a plugin out while it keeps failing, and tries it again with one frame.
//!
//! Pure: the position in the stream is passed in, and is the only clock. So a file loses the same frames at
//! any speed and in each run. Closed -> open after [`IN_A_ROW`] failures in a row or more than [`TOLERATED`]
//! among the last [`WINDOW`] calls; open -> one trial after the pause; a good trial closes, a bad one doubles
//! the pause.
//!
//! A worker that is started again begins with a closed breaker.

use std::collections::VecDeque;

use framehook_core::{hook_stats::NOT_CALLED, prediction::Position, reason::Reason};

/// One failure may be the frame's fault, three in a row are the plugin's.
const IN_A_ROW: u32 = 3;
/// Eight seconds at 25 frames a second.
const WINDOW: usize = 200;
/// 5 % of the window.
const TOLERATED: usize = WINDOW / 20;
/// In seconds. Short enough that a hiccup costs 25 frames.
const FIRST_PAUSE: u32 = 1;
/// In seconds. A plugin that is well again comes back within a minute of the stream.
const LONGEST_PAUSE: u32 = 60;
/// So many frames of the source stand for a second, if they come first: the times of a file may stand still,
/// and a pause must end.
const FRAMES_OF_A_SECOND: u64 = 25;

#[derive(Debug)]
pub(crate) struct Breaker {
    /// Whether each of the last calls failed.
    recent: VecDeque<bool>,
    in_a_row: u32,
    /// The next pause, in seconds.
    pause: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// The pause ends here: at this time or at this frame.
    until: Position,
    reason: Reason,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { recent: VecDeque::with_capacity(WINDOW), in_a_row: 0, pause: FIRST_PAUSE, open: None }
    }
}

fn left_out(reason: &Reason) -> Reason {
    Reason::new(reason.code, format!("{}{NOT_CALLED}", reason.message))
}

/// Where a pause of so many seconds ends.
fn after(at: Position, seconds: u32) -> Position {
    Position {
        pts_us: at.pts_us.saturating_add(i64::from(seconds) * 1_000_000),
        frame: at.frame.saturating_add(u64::from(seconds) * FRAMES_OF_A_SECOND),
    }
}

impl Breaker {
    /// Whether the plugin may be called for this frame.
    ///
    /// # Errors
    /// While it is left out: the failure that opened the breaker, and that the plugin was not called.
    pub(crate) fn admit(&self, at: Position) -> Result<(), Reason> {
        match &self.open {
            Some(Open { until, reason }) if at.pts_us < until.pts_us && at.frame < until.frame => Err(left_out(reason)),
            _ => Ok(()),
        }
    }

    /// A call went well.
    pub(crate) fn succeeded(&mut self) {
        if self.open.take().is_some() {
            self.recent.clear();
        }
        self.in_a_row = 0;
        self.remember(false);
        // The long pause is forgiven only after a whole window without a failure.
        if self.recent.len() == WINDOW && !self.recent.contains(&true) {
            self.pause = FIRST_PAUSE;
        }
    }

    /// The call for this frame failed. `Some`: so many seconds of the stream the plugin is left out.
    pub(crate) fn failed(&mut self, reason: &Reason, at: Position) -> Option<u32> {
        self.in_a_row += 1;
        self.remember(true);
        let failures = self.recent.iter().filter(|failed| **failed).count();
        if self.open.is_none() && self.in_a_row < IN_A_ROW && failures <= TOLERATED {
            return None;
        }
        let pause = self.pause;
        self.open = Some(Open { until: after(at, pause), reason: reason.clone() });
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }

    /// The failure for which the plugin is left out, until a trial went well.
    #[must_use]
    pub(crate) fn open_reason(&self) -> Option<&Reason> {
        self.open.as_ref().map(|open| &open.reason)
    }

    fn remember(&mut self, failed: bool) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(failed);
    }
}

#[cfg(test)]
mod tests {
    use framehook_core::reason::ReasonCode;

    use super::*;

    fn reason() -> Reason {
        Reason::new(ReasonCode::PluginTrap, "trap")
    }

    /// A frame of a stream with 25 a second.
    fn frame(frame: u64) -> Position {
        Position { pts_us: 40_000 * frame as i64, frame }
    }

    /// What is admitted of these frames by a breaker of a plugin that fails on each of them.
    fn admitted(frames: impl IntoIterator<Item = Position>) -> Vec<u64> {
        let mut breaker = Breaker::default();
        let mut call = |at: &Position| {
            let is_admitted = breaker.admit(*at).is_ok();
            if is_admitted {
                breaker.failed(&reason(), *at);
            }
            is_admitted
        };
        frames.into_iter().filter(|at| call(at)).map(|at| at.frame).collect()
    }

    #[test]
    fn the_pause_is_a_second_of_the_stream_and_doubles_to_a_minute() {
        let calls = admitted((0..10_000).map(frame));
        assert_eq!(calls[..6], [0, 1, 2, 27, 77, 177]);
        let pauses: Vec<_> = calls[2..].windows(2).map(|pair| (pair[1] - pair[0]) / FRAMES_OF_A_SECOND).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn times_of_all_kinds_end_a_pause() {
        let at = |pts_us: fn(u64) -> i64| (0..300).map(move |n| Position { pts_us: pts_us(n), frame: n });
        for (what, calls, expected) in [
            ("stand still", admitted(at(|_| 7)), &[0, 1, 2, 27, 77, 177][..]),
            ("are missing", admitted(at(|_| i64::MIN)), &[0, 1, 2, 27, 77, 177]),
            ("go back", admitted(at(|n| if n < 5 { 3_600_000_000 } else { n as i64 })), &[0, 1, 2, 27, 77, 177]),
            ("leap ahead", admitted(at(|n| n as i64 + if n < 5 { 0 } else { 3_600_000_000 })), &[0, 1, 2, 5, 55, 155]),
            ("100 frames a second", admitted(at(|n| n as i64 * 10_000)), &[0, 1, 2, 27, 77, 177]),
            ("5 frames a second", admitted(at(|n| n as i64 * 200_000).take(40)), &[0, 1, 2, 7, 17, 37]),
        ] {
            assert_eq!(calls[..expected.len()], *expected, "{what}");
        }
        // `frames: {"fps": 1}` of 25 frames a second.
        assert_eq!(admitted((0..20).map(|n| frame(n * 25))), [0, 25, 50, 75, 125, 225, 425]);
    }

    #[test]
    fn a_good_trial_closes_it() {
        let mut breaker = Breaker::default();
        let paused: Vec<_> = (0..3).map(|n| breaker.failed(&reason(), frame(n))).collect();
        assert_eq!(paused, [None, None, Some(1)]);
        assert_eq!(breaker.admit(frame(26)), Err(left_out(&reason())));
        assert_eq!(breaker.admit(frame(27)), Ok(()));
        assert!(breaker.open_reason().is_some());
        breaker.succeeded();
        assert_eq!(breaker.open_reason(), None);
    }

    #[test]
    fn opens_on_a_share_of_failures_but_not_on_a_few() {
        let (mut breaker, at) = (Breaker::default(), frame(0));
        let mut failures = 0;
        while breaker.open_reason().is_none() {
            breaker.failed(&reason(), at);
            failures += 1;
            (0..5).for_each(|_| {
                if breaker.open_reason().is_none() {
                    breaker.succeeded()
                }
            });
        }
        assert_eq!(failures, TOLERATED + 1);
        let mut rare = Breaker::default();
        for _ in 0..100 {
            rare.failed(&reason(), at);
            (0..50).for_each(|_| rare.succeeded());
        }
        assert_eq!(rare.open_reason(), None);
    }

    #[test]
    fn the_long_pause_is_forgiven() {
        let mut breaker = Breaker::default();
        let longest = (0..20).filter_map(|_| breaker.failed(&reason(), frame(0))).last();
        assert_eq!(longest, Some(LONGEST_PAUSE));
        (0..=WINDOW).for_each(|_| breaker.succeeded());
        let paused = (0..IN_A_ROW).filter_map(|_| breaker.failed(&reason(), frame(0)));
        assert_eq!(paused.collect::<Vec<_>>(), [FIRST_PAUSE]);
        assert_eq!((breaker.admit(frame(24)).is_ok(), breaker.admit(frame(25)).is_ok()), (false, true));
    }
}
