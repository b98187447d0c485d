//! Presentation times that can identify a frame.
//!
//! Invariant: the times given out are strictly increasing, and the same file gives the same times
//! on every run, because nothing but the decoder's answers goes in. A resumed run feeds the frames
//! it passes over through the same guard, so it agrees with the run it continues.

/// Turns what the decoder says into strictly increasing microseconds.
#[derive(Clone, Debug)]
pub(super) struct TimestampGuard {
    previous: Option<i64>,
    delta: i64,
}

/// Used until two good times were seen, if the container declares no frame rate: 25 frames a
/// second.
const DEFAULT_DELTA_US: i64 = 40_000;

impl TimestampGuard {
    /// `declared_fps` is what the container says; 0 if it says nothing.
    #[must_use]
    pub(super) fn new(declared_fps: f64) -> Self {
        let declared = 1e6 / declared_fps;
        // A rate beyond 100,000 frames a second is damage, not a rate.
        let delta = if declared.is_finite() && declared >= 10.0 { declared.round() as i64 } else { DEFAULT_DELTA_US };
        Self { previous: None, delta }
    }

    /// The time of the next frame, for which the decoder said `milliseconds`. What is not finite or
    /// not after the previous frame is replaced by the previous time plus the last good distance:
    /// FFmpeg says 0 for the frames that a decoder flushes at the end of a file.
    pub(super) fn next(&mut self, milliseconds: f64) -> i64 {
        let said = milliseconds.is_finite().then(|| (milliseconds * 1e3).round() as i64);
        let pts_us = match (said, self.previous) {
            (Some(said), None) => said.max(0),
            (None, None) => 0,
            (Some(said), Some(previous)) if said > previous => {
                self.delta = said - previous;
                said
            }
            (_, Some(previous)) => previous.saturating_add(self.delta),
        };
        self.previous = Some(pts_us);
        pts_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(fps: f64, said: &[f64], expected: &[i64]) {
        let mut guard = TimestampGuard::new(fps);
        let got: Vec<_> = said.iter().map(|ms| guard.next(*ms)).collect();
        assert_eq!(got, expected, "{said:?}");
    }

    #[test]
    fn good_times_pass_and_bad_ones_are_replaced() {
        check(25.0, &[0.0, 40.0, 80.0], &[0, 40_000, 80_000]);
        check(25.0, &[0.0, 40.0, 0.0, 0.0], &[0, 40_000, 80_000, 120_000]);
        check(25.0, &[0.0, 33.0, 33.0, f64::NAN], &[0, 33_000, 66_000, 99_000]);
        check(50.0, &[0.0, 0.0, 0.0], &[0, 20_000, 40_000]);
        check(0.0, &[f64::NAN, f64::INFINITY], &[0, DEFAULT_DELTA_US]);
        check(25.0, &[-200.0, 0.0], &[0, 40_000]);
        check(25.0, &[1000.0, 1040.0], &[1_000_000, 1_040_000]);
    }

    proptest! {
        #[test]
        fn times_always_increase(fps in -1.0..1e9f64, said in proptest::collection::vec(-1e6..1e9f64, 1..50)) {
            let mut guard = TimestampGuard::new(fps);
            let times: Vec<_> = said.iter().map(|ms| guard.next(*ms)).collect();
            prop_assert!(times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
        }
    }
}
