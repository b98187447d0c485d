//! The second stage: the model, and nothing else, on several frames at a time.

use std::{
    sync::{Arc, mpsc::SyncSender},
    thread,
    time::Instant,
};

use framehook_core::{artifact::VideoManifest, reason::Reason};

use super::{InFlight, Shared, Work, micros, no_thread, order::Intake};
use crate::{
    feed::FrameInput,
    lanes::Lanes,
    loader::Loader,
    model::{BoundModel, ModelError},
};

/// One session with the frames that it works on: one, or those of a batch.
struct Lane {
    number: usize,
    stage: Arc<Stage>,
    model: BoundModel,
    out: SyncSender<InFlight>,
}

/// What all lanes share.
pub(super) struct Stage {
    pub(super) shared: Shared,
    pub(super) lanes: Arc<Lanes>,
    pub(super) frames: Arc<Intake<InFlight>>,
}

impl Stage {
    /// Starts the first lane with `model`, and each further one of `outs` once it may work and there is room
    /// for it.
    pub(super) fn run(self: Arc<Self>, model: BoundModel, further: &Further, outs: Vec<SyncSender<InFlight>>) {
        let mut model = Some(model);
        for (number, out) in outs.into_iter().enumerate() {
            self.lanes.wait_for(number);
            if model.is_none() && !further.loader.has_room(&further.video) {
                return;
            }
            // Before it takes memory: should that kill this process, its runner knows what to do without.
            self.lanes.open();
            let model = model.take().map_or_else(|| further.loader.load_another(), Ok);
            let start = |model| Lane { number, stage: Arc::clone(&self), model, out }.start();
            if let Err(error) = model.map_err(anyhow::Error::from).and_then(start) {
                eprintln!("one lane fewer: {error:#}");
                if number == 0 {
                    // Its model is loaded already.
                    self.shared.verdict.fail(no_thread(error));
                }
                return self.lanes.close();
            }
        }
    }
}

/// What lanes besides the first one are made of.
pub(super) struct Further {
    pub(super) loader: Loader,
    pub(super) video: VideoManifest,
}

impl Lane {
    fn start(self) -> anyhow::Result<()> {
        thread::Builder::new().spawn(move || self.run())?;
        Ok(())
    }

    fn run(mut self) {
        let mut frames = Vec::new();
        loop {
            self.stage.lanes.wait_for(self.number);
            self.stage.frames.take(self.number, self.model.frames(), &mut frames);
            let Some(first) = frames.first().map(|frame| frame.position.frame) else { return };
            if let Err(error) = self.infer(&mut frames) {
                let message = format!("frame {first}: {error}");
                self.stage.shared.verdict.fail(Reason::new(error.reason_code(), message));
                return self.stage.frames.close();
            }
            if frames.drain(..).any(|frame| self.out.send(frame).is_err()) {
                return self.stage.frames.close();
            }
        }
    }

    /// Runs those of the frames that are not skipped, all at once.
    fn infer(&mut self, frames: &mut [InFlight]) -> Result<(), ModelError> {
        let Stage { shared: Shared { job, pools, watch, .. }, .. } = &*self.stage;
        // Whether anybody reads the outputs.
        let is_of_all = job.record || !job.shadow.is_empty();
        let keeps_outputs = is_of_all || frames.iter().any(|frame| !frame.settings.post.is_empty());
        let started = Instant::now();
        let inputs: Vec<_> = frames.iter().filter_map(input).collect();
        let count = inputs.len();
        if count == 0 {
            return Ok(());
        }
        let mut outputs: Vec<_> = (0..count).map(|_| pools.outputs.take()).collect();
        let wanted = keeps_outputs.then_some(&mut outputs[..]);
        watch.during("an inference", job.patience.frame_ms, || self.model.run_together(&inputs, wanted))?;
        // Each has its share.
        let inference_us = micros(started) / count as u32;
        let mut outputs = outputs.into_iter();
        for frame in frames {
            let Work::Infer(input) = &mut frame.work else { continue };
            pools.inputs.give_back(std::mem::take(input));
            frame.work = Work::Inferred(outputs.next().unwrap_or_default());
            frame.timings.inference_us = inference_us;
        }
        Ok(())
    }
}

fn input(frame: &InFlight) -> Option<FrameInput<'_>> {
    let Work::Infer(image) = &frame.work else { return None };
    Some(FrameInput { image, size: frame.size, geometry: frame.geometry })
}
