//! The first stage: decodes, calls the pre hooks, makes the model's input.

use std::{
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

use framehook_core::{
    job::{Outcome, Report},
    prediction::{FrameTimings, HookFailure, Skipped},
    reason::{Reason, ReasonCode},
    spec::OnPluginFailure,
};
use framehook_engine::{
    chain::{Before, Next, PreChain},
    media::{Frame, FrameMeta, Geometry, Size, Tensor},
};
use opencv::{core::Mat, prelude::*};

use super::{InFlight, Shared, StopFlag, Work, input_size, micros};
use crate::{
    pixels::Picture,
    preprocess::Preprocessor,
    report::Stage as HookStage,
    source::{FrameSource, FrameStamp, SourceError, SourceInfo},
};

/// How often a worker that passes over stored frames says that it lives: well inside any frame timeout,
/// of which the shortest is 1 s.
const ALIVE_EVERY: Duration = Duration::from_millis(200);

/// Bytes of a pixel, as a decoder gives it with 10 bits a sample and as a picture.
const FRAME_PIXEL: usize = 6;

/// The geometry of a frame without an inference.
const NO_GEOMETRY: Geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };

pub(super) struct Stage {
    shared: Shared,
    source: Box<dyn FrameSource>,
    pre: PreChain,
    keeps_pictures: bool,
    stop: StopFlag,
    out: SyncSender<InFlight>,
    preprocessor: Option<Preprocessor>,
}

/// The work on one frame, before it is known what becomes of it.
struct Prepared {
    geometry: Geometry,
    work: Work,
    failures: Vec<HookFailure>,
}

impl Stage {
    pub(super) fn new(
        shared: Shared,
        source: Box<dyn FrameSource>,
        pre: PreChain,
        keeps_pictures: bool,
        stop: StopFlag,
        out: SyncSender<InFlight>,
    ) -> Self {
        Self { shared, source, pre, keeps_pictures, stop, out, preprocessor: None }
    }

    pub(super) fn run(mut self) {
        match self.deliver() {
            Ok((outcome, reason)) => self.shared.verdict.give(outcome, reason),
            Err(reason) => self.shared.verdict.fail(reason),
        }
        self.pre.shutdown();
    }

    fn deliver(&mut self) -> Result<(Outcome, Reason), Reason> {
        let stopped = || (Outcome::Stopped, Reason::new(ReasonCode::StoppedByUser, "stopped"));
        let mut started = Instant::now();
        let mut next = self.first_frame().map_err(|error| self.reason(&error))?;
        while let Some(stamp) = next {
            if self.stop.is_raised() {
                return Ok(stopped());
            }
            let mut picture = self.shared.pools.pictures.take();
            self.source.picture(&mut picture).map_err(|error| self.reason(&error))?;
            let decode_us = micros(started);
            let frame = self.prepare(stamp, picture, decode_us)?;
            if self.out.send(frame).is_err() {
                // A later stage ended, and has said why.
                return Ok(stopped());
            }
            started = Instant::now();
            next = self.source.advance().map_err(|error| self.reason(&error))?;
        }
        if self.stop.is_raised() {
            return Ok(stopped());
        }
        self.source.check_end().map_err(|error| self.reason(&error))?;
        Ok((Outcome::Finished, Reason::new(ReasonCode::EndOfStream, "the video came to its end")))
    }

    /// A decoder that is refused memory gives no picture, and does not say why: it is no damaged video where
    /// not even one more frame fits.
    fn reason(&self, error: &SourceError) -> Reason {
        let reason = error.reason();
        let SourceInfo { width, height, .. } = self.source.info();
        let frame = FRAME_PIXEL.saturating_mul(width as usize).saturating_mul(height as usize);
        if reason.code == ReasonCode::DecodeError && Vec::<u8>::new().try_reserve_exact(frame).is_err() {
            return Reason::new(ReasonCode::OutOfMemory, "there is no memory left for the next frame of the video");
        }
        reason
    }

    /// The first frame behind the resume position. Times are compared, because they are the identity of
    /// a row; the frames passed over go through the same guard, so they are what they were.
    fn first_frame(&mut self) -> Result<Option<FrameStamp>, SourceError> {
        let resume = self.shared.job.resume_after;
        let mut alive = Instant::now();
        while let Some(stamp) = self.source.advance()? {
            if resume.is_none_or(|stored| stamp.pts_us > stored.pts_us) {
                return Ok(Some(stamp));
            }
            if self.stop.is_raised() {
                return Ok(None);
            }
            if alive.elapsed() >= ALIVE_EVERY {
                self.shared.reporter.send(&Report::Alive);
                alive = Instant::now();
            }
        }
        Ok(None)
    }

    fn prepare(&mut self, stamp: FrameStamp, picture: Mat, decode_us: u32) -> Result<InFlight, Reason> {
        let started = Instant::now();
        let size = Size { width: picture.cols().cast_unsigned(), height: picture.rows().cast_unsigned() };
        let prepared = self.make_input(stamp, size, &picture)?;
        let is_needed = self.keeps_pictures && matches!(prepared.work, Work::Infer(_));
        let picture = if is_needed {
            Some(picture)
        } else {
            self.shared.pools.pictures.give_back(picture);
            None
        };
        let timings = FrameTimings { decode_us, pre_us: micros(started), ..FrameTimings::default() };
        let Prepared { geometry, work, failures } = prepared;
        Ok(InFlight { stamp, size, picture, geometry, work, failures, timings })
    }

    fn make_input(&mut self, stamp: FrameStamp, size: Size, picture: &Mat) -> Result<Prepared, Reason> {
        let Before { next, failures } = self.call_hooks(stamp, size, picture)?;
        match next {
            Next::Native => {
                let (input, geometry) = self.native_input(picture).map_err(|error| error.reason())?;
                Ok(Prepared { geometry, work: Work::Infer(input), failures })
            }
            Next::Infer(tensor, geometry) => self.own_input(tensor, geometry, failures),
            Next::Skip(skipped) => Ok(Prepared { geometry: NO_GEOMETRY, work: Work::Skip(skipped), failures }),
        }
    }

    fn call_hooks(&mut self, stamp: FrameStamp, size: Size, picture: &Mat) -> Result<Before, Reason> {
        if self.pre.is_empty() {
            return Ok(Before { next: Next::Native, failures: Vec::new() });
        }
        let job = &self.shared.job;
        let frame = Frame {
            meta: FrameMeta { sequence: stamp.number, pts_us: stamp.pts_us, size },
            input_size: input_size(job),
            pixels: &Picture { mat: picture, spec: &job.input },
        };
        let before = self.pre.run(&frame)?;
        self.shared.reporter.health(HookStage::Pre, self.pre.degraded());
        Ok(before)
    }

    fn native_input(&mut self, picture: &Mat) -> Result<(Vec<f32>, Geometry), SourceError> {
        let preprocessor = match self.preprocessor.take() {
            Some(kept) if kept.fits(picture) => kept,
            _ => Preprocessor::new(&self.shared.job.input, picture.cols(), picture.rows())?,
        };
        let preprocessor = self.preprocessor.insert(preprocessor);
        let mut input = self.shared.pools.inputs.take();
        preprocessor.fill(picture, &mut input)?;
        Ok((input, preprocessor.geometry()))
    }

    /// An input that a pre hook built, if it has the shape that the model takes.
    fn own_input(
        &self,
        tensor: Tensor,
        geometry: Geometry,
        mut failures: Vec<HookFailure>,
    ) -> Result<Prepared, Reason> {
        let spec = &self.shared.job.input;
        let expected = [1, 3, spec.height, spec.width];
        if tensor.shape == expected && tensor.data.len() == 3 * spec.width as usize * spec.height as usize {
            return Ok(Prepared { geometry, work: Work::Infer(tensor.data), failures });
        }
        let message = format!(
            "a pre hook built an input of shape {:?}, but the model takes {expected:?}: use the frame's input size",
            tensor.shape
        );
        let reason = Reason::new(ReasonCode::PluginError, message);
        if self.shared.job.on_plugin_failure == OnPluginFailure::FailScenario {
            return Err(reason);
        }
        let names = self.shared.job.pre.iter().map(|hook| format!("{}@{}", hook.identity.name, hook.identity.version));
        let plugin = names.collect::<Vec<_>>().join(", ");
        let skipped = Skipped { by: plugin.clone(), reason: reason.message.clone() };
        failures.push(HookFailure { plugin, reason });
        Ok(Prepared { geometry: NO_GEOMETRY, work: Work::Skip(skipped), failures })
    }
}
