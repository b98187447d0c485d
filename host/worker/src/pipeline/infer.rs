//! The second stage: the model, and nothing else.

use std::{
    sync::mpsc::{Receiver, SyncSender},
    time::Instant,
};

use framehook_core::reason::Reason;

use super::{InFlight, Shared, Work, micros};
use crate::{
    feed::FrameInput,
    model::{BoundModel, ModelError},
};

pub(super) struct Stage {
    pub(super) shared: Shared,
    pub(super) model: BoundModel,
    /// Whether anybody reads the outputs.
    pub(super) keeps_outputs: bool,
    pub(super) frames: Receiver<InFlight>,
    pub(super) out: SyncSender<InFlight>,
}

impl Stage {
    pub(super) fn run(mut self) {
        while let Ok(mut frame) = self.frames.recv() {
            if let Err(error) = self.infer(&mut frame) {
                let message = format!("frame {}: {error}", frame.position.frame);
                self.shared.verdict.fail(Reason::new(error.reason_code(), message));
                return;
            }
            if self.out.send(frame).is_err() {
                return;
            }
        }
    }

    fn infer(&mut self, frame: &mut InFlight) -> Result<(), ModelError> {
        let Work::Infer(input) = &mut frame.work else { return Ok(()) };
        let started = Instant::now();
        let mut outputs = self.shared.pools.outputs.take();
        let wanted = self.keeps_outputs.then_some(&mut outputs);
        let image = FrameInput { image: &*input, size: frame.size, geometry: frame.geometry };
        let run = || self.model.run(&image, wanted);
        self.shared.watch.during("an inference", self.shared.job.patience.frame_ms, run)?;
        self.shared.pools.inputs.give_back(std::mem::take(input));
        frame.work = Work::Inferred(outputs);
        frame.timings.inference_us = micros(started);
        Ok(())
    }
}
