//! Counts what one generation has published: a pure fold over its frames.
//!
//! Whether its hooks failed on most frames is asked once all are counted ([`Tally::failed_hooks`]).

use framehook_core::{
    message::Progress,
    prediction::{FrameTimings, HookFailure, Position},
    prediction_record::PredictionRecord,
    size::MAX_REASON,
    spec::Decoder,
    text::short_line,
};
use tokio::time::Instant;

use crate::providers::Chosen;

/// What is kept of a frame once its record is made.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) position: Position,
    /// When the runner read it.
    pub(crate) at: Instant,
    pub(crate) timings: FrameTimings,
    pub(crate) skipped: bool,
    pub(crate) hook_failure: Option<HookFailure>,
}

impl Sample {
    pub(crate) fn of(frame: &PredictionRecord, at: Instant) -> Self {
        let &PredictionRecord { position, timings, is_skipped, ref hook_failure, .. } = frame;
        Self { position, at, timings, skipped: is_skipped, hook_failure: hook_failure.clone() }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    progress: Progress,
    first_at: Option<Instant>,
    /// Microseconds of all frames: decode, pre, inference, post.
    sums: [u64; 4],
    /// Frames that workers before the current one said were damaged.
    damaged_before: u64,
    /// Frames that a hook skipped while all were well: those behind it were not called.
    passed_over: u64,
    last_failure: Option<HookFailure>,
}

impl Tally {
    pub(crate) const fn progress(&self) -> Progress {
        self.progress
    }

    pub(crate) fn declare_frames(&mut self, total: Option<u64>) {
        self.progress.frames_total = total;
    }

    /// For one more worker, which counts damage anew.
    pub(crate) fn begin(&mut self, decoder: Decoder, chosen: Chosen) {
        self.progress.decoder = Some(decoder);
        self.progress.execution = Some(chosen.execution);
        self.progress.measured = chosen.measured.or(self.progress.measured);
        self.progress.lanes = None;
        self.damaged_before = self.progress.damaged;
        self.progress.left_out = 0;
    }

    pub(crate) const fn set_lanes(&mut self, lanes: u32) {
        self.progress.lanes = Some(lanes);
    }

    pub(crate) const fn damage(&mut self, frames: u64) {
        self.progress.damaged = self.damaged_before.saturating_add(frames);
    }

    pub(crate) const fn leave_out(&mut self, frames: u64) {
        self.progress.left_out = frames;
    }

    /// That hooks failed on more than half of the frames that they were called for, if they did.
    pub(crate) fn failed_hooks(&self) -> Option<String> {
        let Progress { frames, hook_failures, .. } = self.progress;
        let called = frames - self.passed_over;
        let HookFailure { reason, .. } = self.last_failure.as_ref().filter(|_| hook_failures * 2 > called)?;
        let of = match self.passed_over {
            0 => format!("{frames} frames"),
            _ => format!("the {called} frames that none skipped"),
        };
        let last = short_line(&reason.message, MAX_REASON);
        Some(format!("hooks failed on {hook_failures} of {of}; the last failure: {last}"))
    }

    // Counts of frames and sums of microseconds are far below 2^52.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn add(&mut self, sample: &Sample) {
        let progress = &mut self.progress;
        // The last frame comes again with what the hooks held back: the same row, not another frame.
        if progress.published == Some(sample.position) {
            return;
        }
        progress.published = Some(sample.position);
        progress.frames += 1;
        progress.skipped += u64::from(sample.skipped);
        progress.hook_failures += u64::from(sample.hook_failure.is_some());
        self.passed_over += u64::from(sample.skipped && sample.hook_failure.is_none());
        if sample.hook_failure.is_some() {
            self.last_failure.clone_from(&sample.hook_failure);
        }
        let first_at = *self.first_at.get_or_insert(sample.at);
        let elapsed = sample.at.duration_since(first_at).as_secs_f64();
        // n frames are n - 1 intervals.
        progress.fps = if elapsed > 0.0 { (progress.frames - 1) as f64 / elapsed } else { 0.0 };
        let FrameTimings { decode_us, pre_us, inference_us, post_us } = sample.timings;
        for (sum, us) in self.sums.iter_mut().zip([decode_us, pre_us, inference_us, post_us]) {
            *sum += u64::from(us);
        }
        let [decode_us, pre_us, inference_us, post_us] =
            self.sums.map(|sum| u32::try_from(sum / progress.frames).unwrap_or(u32::MAX));
        progress.mean = FrameTimings { decode_us, pre_us, inference_us, post_us };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use framehook_core::reason::{Reason, ReasonCode};

    use super::*;

    fn failure() -> HookFailure {
        HookFailure { plugin: "p@1".into(), reason: Reason::new(ReasonCode::PluginTrap, "p@1: boom\nforged") }
    }

    #[test]
    fn frames_are_counted_timed_and_averaged() {
        let (mut tally, start) = (Tally::default(), Instant::now());
        for frame in 0..11u32 {
            tally.add(&Sample {
                position: Position { pts_us: i64::from(frame) * 40_000, frame: frame.into() },
                at: start + Duration::from_millis(100) * frame,
                timings: FrameTimings { decode_us: frame * 10, pre_us: 1, inference_us: u32::MAX, post_us: 3 },
                skipped: frame % 2 == 0,
                hook_failure: (frame == 7).then(failure),
            });
        }
        let before = tally.progress();
        tally.add(&Sample {
            position: Position { pts_us: 400_000, frame: 10 },
            at: start + Duration::from_secs(9),
            timings: FrameTimings::default(),
            skipped: true,
            hook_failure: Some(failure()),
        });
        assert_eq!(tally.progress(), before, "a frame that comes again is not another one");
        let progress = tally.progress();
        assert_eq!(progress.published, Some(Position { pts_us: 400_000, frame: 10 }));
        assert_eq!((progress.frames, progress.skipped, progress.hook_failures), (11, 6, 1));
        assert!((progress.fps - 10.0).abs() < 1e-9, "{}", progress.fps);
        assert_eq!(progress.mean, FrameTimings { decode_us: 50, pre_us: 1, inference_us: u32::MAX, post_us: 3 });
    }

    #[test]
    fn hooks_that_failed_on_most_of_their_frames_are_told_of() {
        let told = |frames: &str| {
            let mut tally = Tally::default();
            for (frame, kind) in (0..).zip(frames.chars()) {
                tally.add(&Sample {
                    position: Position { pts_us: frame, frame: frame as u64 },
                    at: Instant::now(),
                    timings: FrameTimings::default(),
                    // One that fails may skip as well.
                    skipped: "sF".contains(kind),
                    hook_failure: "fF".contains(kind).then(failure),
                });
            }
            tally.failed_hooks()
        };
        for (frames, words) in [
            ("", None),
            ("..", None),
            ("f.", None),
            ("f.F", Some("2 of 3 frames")),
            ("FFFF", Some("4 of 4 frames")),
            ("ssss", None),
            ("ssssf.", None),
            ("ssssf", Some("1 of the 1 frames that none skipped")),
            ("sFf.s", Some("2 of the 3 frames that none skipped")),
        ] {
            let expected = words.map(|words| format!("hooks failed on {words}; the last failure: p@1: boom\\nforged"));
            assert_eq!(told(frames), expected, "{frames}");
        }
    }
}
