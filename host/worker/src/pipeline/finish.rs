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
    reason::{Reason, ReasonCode},
    revision::{Shown, Trial},
    size::{json_bytes, room_for_outputs},
};
use framehook_engine::{
    chain::{After, Chain, Stage as HookStage},
    media::{FramePixels, Inference, Output},
};
use jiff::SignedDuration;

use super::{
    InFlight, NewPost, Shared, Turn, Work, input_size, micros,
    order::InOrder,
    shadow::{Seen, Shadow},
};
use crate::{
    change::{Next, Settings},
    image::BgrCache,
    lanes::Lanes,
    pixels::Picture,
    recorded::NoPixels,
};

pub(super) struct Stage {
    pub(super) shared: Shared,
    pub(super) post: Chain,
    pub(super) shadow: Option<Shadow>,
    /// Those of the newest frame.
    pub(super) settings: Arc<Settings>,
    /// What a revision on trial took the place of.
    pub(super) before: Option<Chain>,
    pub(super) trial: Option<Trial>,
    /// Why the trial has failed, until the first stage has gone back.
    pub(super) failed: Option<Reason>,
    pub(super) frames: InOrder<InFlight>,
    pub(super) lanes: Arc<Lanes>,
    /// The newest prediction, if hooks may have something to add to the last one.
    pub(super) last: Option<Arc<Prediction>>,
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
        self.shared.reporter.hooks((HookStage::Post, self.settings.revision()), true, || self.post.stats());
        self.post.shutdown();
        if let Some(shadow) = self.shadow {
            let is_all = self.shared.verdict.is_end_of_source();
            shadow.end(self.last.filter(|_| is_all));
        }
        finished
    }

    fn finish_all(&mut self, finished: &mut u64) -> Result<(), Reason> {
        let mut waiting = self.frames.wait();
        while let Some(mut frame) = waiting {
            let (damaged, pre_failures) = (frame.damaged, frame.failures.len());
            let mut state = std::mem::take(&mut frame.state);
            if let Some(turn) = frame.turn.take() {
                self.follow(turn, &frame, &mut state);
            }
            let prediction = Arc::new(self.finish(&mut frame)?);
            state.extend(self.post.take_changes());
            let shown = self.trial.as_mut().map(|trial| trial.frame(&prediction.hook_failures));
            self.report(&prediction, state);
            shown.into_iter().for_each(|shown| self.judge(shown));
            let InFlight { size, geometry, picture, work, .. } = frame;
            let seen = Seen { prediction, pre_failures, size, geometry, picture, work };
            // A comparison is of one revision of the scenario.
            let is_compared = self.settings.revision() == self.shared.job.provenance.revision;
            seen.let_go(self.shadow.as_ref().filter(|_| is_compared), &self.shared.pools);
            // Behind the frame, so that whoever goes on behind it counts what comes then.
            self.report_damage(damaged);
            *finished += 1;
            waiting = self.next();
        }
        Ok(())
    }

    /// This frame is the first of other settings.
    fn follow(&mut self, turn: Turn, frame: &InFlight, state: &mut HookState) {
        let before = std::mem::replace(&mut self.settings, Arc::clone(&frame.settings));
        let revision = self.settings.revision();
        match turn {
            Turn::Begin(new) => {
                self.give_up_before();
                self.shared.reporter.send(&Report::Changed { revision, from_frame: frame.position.frame });
                let Some(new) = new else { return self.prove(revision) };
                let NewPost { mut chain, is_fresh, trial } = *new;
                let kept = self.post.state();
                if !is_fresh {
                    chain.take_over(
                        &kept,
                        self.last.as_ref().map(|last| Position { pts_us: last.pts_us, frame: last.frame }),
                    );
                }
                state.extend(kept.changes_to(&chain.state()));
                self.before = Some(std::mem::replace(&mut self.post, chain));
                self.trial = Some(trial);
            }
            Turn::GoBack => {
                if let Some(chain) = self.before.take() {
                    state.extend(self.post.state().changes_to(&chain.state()));
                    std::mem::replace(&mut self.post, chain).shutdown();
                }
                let unknown = || Reason::new(ReasonCode::PluginError, "its hooks failed");
                let reason = self.failed.take().unwrap_or_else(unknown);
                self.shared.reporter.send(&Report::RolledBack { revision: before.revision(), reason });
            }
        }
    }

    /// What a frame has shown of a revision on trial.
    fn judge(&mut self, shown: Shown) {
        let revision = self.settings.revision();
        match shown {
            Shown::Open => {}
            Shown::Works => {
                self.trial = None;
                self.post.end_trial();
                self.shared.changes.push(Next::Keep(revision));
                self.give_up_before();
                self.prove(revision);
            }
            Shown::Fails(reason) => {
                (self.trial, self.failed) = (None, Some(reason));
                self.shared.changes.push(Next::GoBack(revision));
            }
        }
    }

    fn prove(&self, revision: i64) {
        self.shared.reporter.send(&Report::Proven { revision });
    }

    fn give_up_before(&mut self) {
        (self.trial, self.failed) = (None, None);
        if let Some(chain) = self.before.take() {
            chain.shutdown();
        }
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

    fn report(&mut self, prediction: &Arc<Prediction>, state: HookState) {
        self.lanes.report();
        self.shared.reporter.frame(prediction, state);
        // Only a hook's last words need it again.
        let has_hooks = !self.post.is_empty() || self.shadow.is_some();
        self.last = has_hooks.then(|| Arc::clone(prediction));
    }

    fn finish(&mut self, frame: &mut InFlight) -> Result<Prediction, Reason> {
        let started = Instant::now();
        let after = self.call_hooks(frame)?;
        frame.timings.post_us = micros(started);
        frame.failures.extend(after.failures);
        let skipped = match &frame.work {
            Work::Skip(skipped) => Some(skipped.clone()),
            Work::Inferred(_) | Work::Infer(_) => after.skipped,
        };
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
            hook_failures: std::mem::take(&mut frame.failures),
            timings: frame.timings,
            provenance: frame.settings.provenance.clone(),
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
        self.shared.reporter.hooks((HookStage::Post, self.settings.revision()), false, || self.post.stats());
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
        let Some(last) = &mut self.last else { return };
        let last = Arc::make_mut(last);
        let job = &self.shared.job;
        let room = room_for_outputs(job.limits.prediction_bytes, self.settings.hooks());
        let taken = json_bytes(&last.detections) + json_bytes(&last.events);
        let (events, failures) = self.post.flush(room.saturating_sub(taken));
        let state = self.post.take_changes();
        if events.is_empty() && failures.is_empty() && state.is_empty() {
            return;
        }
        last.events.extend(events);
        last.hook_failures.extend(failures);
        self.shared.reporter.frame(last, state);
    }
}
