//! Holds a source to a multiple of its own speed.
//!
//! Invariant: over any stretch, frames are due no faster than that, but for `MAKES_UP`.

use std::time::{Duration, Instant};

/// What a stream that fell behind may make up for: the hiccup of a busy machine, not a pause.
const MAKES_UP: Duration = Duration::from_millis(100);

/// A longer step between two times is one of the recording, which nobody wants to sit through.
const LONGEST_STEP_US: u64 = 10_000_000;

/// When the frames of a source are due.
pub struct Pace {
    speed: Option<f64>,
    /// Time and due time of the last frame.
    last: Option<(i64, Instant)>,
}

impl Pace {
    /// So many times as fast as the source's own times say, at most; `None`: as fast as it goes.
    #[must_use]
    pub const fn new(speed: Option<f64>) -> Self {
        Self { speed, last: None }
    }

    /// When the next frame, which has this time, is due; `None` if it need not wait.
    pub fn due(&mut self, pts_us: i64, now: Instant) -> Option<Instant> {
        let speed = self.speed?;
        let due = self.last.map_or(now, |(last_us, due)| {
            let step = if pts_us > last_us { pts_us.abs_diff(last_us).min(LONGEST_STEP_US) } else { 0 };
            let earliest = now.checked_sub(MAKES_UP).unwrap_or(now);
            (due + Duration::from_micros(step).div_f64(speed)).max(earliest)
        });
        self.last = Some((pts_us, due));
        (due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn frames_are_due_as_their_times_say() {
        let begin = Instant::now() + Duration::from_secs(60);
        // Speed; time of a frame, when it comes, and how long it waits, in milliseconds.
        for (speed, frames) in [
            (1.0, vec![(0, 0, 0), (40, 1, 39), (80, 41, 39), (120, 80, 40)]),
            (4.0, vec![(0, 0, 0), (40, 1, 9), (80, 11, 9)]),
            (0.5, vec![(0, 0, 0), (40, 1, 79)]),
            // A stream that falls behind makes up for a tenth of a second, and for no more.
            (1.0, vec![(0, 0, 0), (40, 90, 0), (80, 91, 0), (120, 92, 28)]),
            (1.0, vec![(0, 0, 0), (40, 5_000, 0), (80, 5_001, 0), (120, 5_002, 0), (160, 5_003, 17)]),
            // A clock that jumps: ahead is ten seconds at most, and back is now.
            (1.0, vec![(0, 0, 0), (86_400_000, 0, 10_000), (86_400_040, 10_000, 40)]),
            (1.0, vec![(80, 0, 0), (0, 1, 0), (40, 1, 39)]),
        ] {
            let mut pace = Pace::new(Some(speed));
            for (pts_ms, at_ms, waits_ms) in &frames {
                let now = begin + MS * *at_ms;
                let waits = pace.due(pts_ms * 1000, now).map_or(Duration::ZERO, |due| due - now);
                assert_eq!(waits, MS * *waits_ms, "frame of {pts_ms} ms at speed {speed}: {frames:?}");
            }
        }
        assert_eq!(Pace::new(None).due(1_000_000, begin), None);
    }
}
