//! In place of all stages but the last, where recorded outputs are replayed: reads them.

use std::sync::{Arc, atomic::Ordering};

use framehook_core::{
    job::{Outcome, Report},
    prediction::FrameTimings,
    reason::{Reason, ReasonCode},
};

use super::{InFlight, Shared, StopFlag, Work, order::OneLane};
use crate::{
    change::Settings,
    recorded::{RecordedFrame, Recording},
};

pub(super) struct Stage {
    pub(super) shared: Shared,
    pub(super) recording: Recording,
    pub(super) stop: StopFlag,
    pub(super) out: OneLane<InFlight>,
}

impl Stage {
    pub(super) fn run(self) {
        let Self { shared, recording, stop, out } = self;
        let (settings, mut damaged) = (shared.changes.settings(), 0);
        let read = recording.each(shared.job.resume_after, |frame| {
            if stop.is_raised() {
                return false;
            }
            shared.decoded.fetch_add(1, Ordering::Relaxed);
            damaged = frame.damaged;
            out.send(in_flight(frame, Arc::clone(&settings))).is_ok()
        });
        shared.damaged.store(damaged, Ordering::Relaxed);
        let (outcome, reason) = match read {
            Ok(true) => {
                // What lay behind the last frame was not recorded.
                shared.reporter.send(&Report::LeftOut { frames: 0 });
                (Outcome::Finished, Reason::new(ReasonCode::EndOfStream, "the recorded outputs came to their end"))
            }
            Ok(false) => (Outcome::Stopped, Reason::new(ReasonCode::StoppedByUser, "stopped")),
            Err(error) => (Outcome::Failed, Reason::new(ReasonCode::DecodeError, error.to_string())),
        };
        shared.verdict.give(outcome, reason);
    }
}

/// Nothing was decoded and no model ran, so that took no time.
fn in_flight(frame: RecordedFrame, settings: Arc<Settings>) -> InFlight {
    let RecordedFrame { position, left_out, damaged, size, geometry, failures, outcome } = frame;
    InFlight {
        position,
        settings,
        turn: None,
        left_out,
        damaged,
        size,
        picture: None,
        geometry,
        work: outcome.map_or_else(Work::Skip, Work::Inferred),
        failures,
        state: Default::default(),
        timings: FrameTimings::default(),
    }
}
