//! The last stage: calls the post hooks and reports what they made of a frame.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering, mpsc::RecvTimeoutError},
    time::Instant,
};

use framehook_core::{
    hook_state::HookState,
    job::Report,
    prediction::{Position, Prediction},
    reason::Reason,
    size::{json_bytes, room_for_outputs},
};
use framehook_engine::{
    chain::{After, Chain, Stage as HookStage},
    media::{FramePixels, Inference, Output},
};
use jiff::SignedDuration;

use super::{InFlight, Shared, Work, input_size, micros, order::InOrder};
use crate::{image::BgrCache, lanes::Lanes, pixels::Picture, recorded::NoPixels};

pub(super) struct Stage {
    pub(super) shared: Shared,
    pub(super) post: Chain,
    pub(super) frames: InOrder<InFlight>,
    pub(super) lanes: Arc<Lanes>,
    /// The newest prediction, if hooks may have something to add to the last one.
    pub(super) last: Option<Prediction>,
    /// Damaged frames that were reported.
    pub(super) damaged: u64,
    pub(super) bgr: BgrCache,
}

impl Stage {
    /// Until the stages before have ended and all their frames are reported; gives the number of frames.
    pub(super) fn run(mut self) -> u64 {
        let mut finished = 0;
        match self.finish_all(&mut finished) {
            // A stream that only stopped may go on, with what its hooks keep.
            Ok(()) if self.shared.verdict.is_end_of_source() => self.flush(),
            Ok(()) => {}
            Err(reason) => self.shared.verdict.fail(reason),
        }
        self.report_damage(self.shared.damaged.load(Ordering::Relaxed));
        self.shared.reporter.hooks(HookStage::Post, true, || self.post.stats());
        self.post.shutdown();
        finished
    }

    fn finish_all(&mut self, finished: &mut u64) -> Result<(), Reason> {
        let mut waiting = self.frames.wait();
        while let Some(mut frame) = waiting {
            let damaged = frame.damaged;
            let mut state = std::mem::take(&mut frame.state);
            let prediction = self.finish(frame)?;
            state.extend(self.post.take_changes());
            self.report(prediction, state);
            // Behind the frame, so that whoever goes on behind it counts what comes then.
            self.report_damage(damaged);
            *finished += 1;
            waiting = self.next();
        }
        Ok(())
    }

    /// Waits for the next frame, and sees that those before it do not wait too long for it. Where there is
    /// none, the last one leaves together with what hooks say at the end: whoever goes on behind it has both
    /// or neither.
    fn next(&mut self) -> Option<InFlight> {
        let Some(due) = self.shared.reporter.due() else { return self.frames.wait() };
        let frame = match self.frames.wait_until(due) {
            Err(RecvTimeoutError::Disconnected) => return None,
            other => other.ok(),
        };
        if due <= Instant::now() {
            self.shared.reporter.flush();
        }
        frame.or_else(|| self.frames.wait())
    }

    fn report_damage(&mut self, frames: u64) {
        if frames > self.damaged {
            self.damaged = frames;
            self.shared.reporter.send(&Report::Damaged { frames });
        }
    }

    fn report(&mut self, prediction: Prediction, state: HookState) {
        self.lanes.report();
        self.shared.reporter.frame(&prediction, state);
        // Only a hook's last words need it again.
        self.last = (!self.post.is_empty()).then_some(prediction);
    }

    fn finish(&mut self, mut frame: InFlight) -> Result<Prediction, Reason> {
        let started = Instant::now();
        let after = self.call_hooks(&frame)?;
        frame.timings.post_us = micros(started);
        frame.failures.extend(after.failures);
        let skipped = match frame.work {
            Work::Skip(skipped) => Some(skipped),
            Work::Inferred(outputs) => {
                self.shared.pools.outputs.give_back(outputs);
                after.skipped
            }
            Work::Infer(_) => after.skipped,
        };
        if let Some(picture) = frame.picture {
            self.shared.pools.pictures.give_back(picture);
        }
        let job = &self.shared.job;
        let Position { pts_us, frame: number } = frame.position;
        let since_start = SignedDuration::from_micros(pts_us);
        Ok(Prediction {
            scenario_id: job.scenario_id,
            generation: job.generation,
            pts_us,
            frame: number,
            left_out: frame.left_out,
            size: Some([frame.size.width, frame.size.height]),
            // Out of range only for a video of thousands of years.
            captured_at: job.created_at.checked_add(since_start).unwrap_or(job.created_at),
            detections: after.detections,
            events: after.events,
            skipped,
            hook_failures: frame.failures,
            timings: frame.timings,
            provenance: job.provenance.clone(),
        })
    }

    fn call_hooks(&mut self, frame: &InFlight) -> Result<After, Reason> {
        if self.post.is_empty() {
            return Ok(After::default());
        }
        let after = match &frame.work {
            Work::Inferred(outputs) => self.of_inference(frame, outputs)?,
            Work::Skip(skipped) => self.post.skipped((frame.position, frame.size), &skipped.reason)?,
            Work::Infer(_) => After::default(),
        };
        self.shared.reporter.health(HookStage::Post, self.post.degraded());
        self.shared.reporter.hooks(HookStage::Post, false, || self.post.stats());
        Ok(after)
    }

    fn of_inference(&mut self, frame: &InFlight, outputs: &[Output]) -> Result<After, Reason> {
        let job = &self.shared.job;
        self.bgr.clear();
        let bgr = RefCell::new(&mut self.bgr);
        let picture = frame.picture.as_ref().map(|image| Picture { image, spec: &job.input, bgr });
        let inference = Inference {
            position: frame.position,
            size: frame.size,
            input_size: input_size(job),
            geometry: frame.geometry,
            outputs,
            pixels: match &picture {
                Some(picture) => Some(picture as &dyn FramePixels),
                None => (!job.replay.is_empty()).then_some(&NoPixels as &dyn FramePixels),
            },
        };
        self.post.postprocess(&inference)
    }

    /// What the hooks say at the end belongs to the last frame, which is reported once more: a row is
    /// identified by its time, so the later report replaces the earlier.
    fn flush(&mut self) {
        let Some(mut last) = self.last.take() else { return };
        let job = &self.shared.job;
        let room = room_for_outputs(job.limits.prediction_bytes, job.pre.len() + job.post.len());
        let taken = json_bytes(&last.detections) + json_bytes(&last.events);
        let (events, failures) = self.post.flush(room.saturating_sub(taken));
        let state = self.post.take_changes();
        if events.is_empty() && failures.is_empty() && state.is_empty() {
            return;
        }
        last.events.extend(events);
        last.hook_failures.extend(failures);
        self.shared.reporter.frame(&last, state);
    }
}
