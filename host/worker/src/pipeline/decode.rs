//! The first stage: decodes, calls the pre hooks, makes the model's input.

use std::{
    cell::RefCell,
    sync::{atomic::Ordering, mpsc::SyncSender},
    thread,
    time::{Duration, Instant},
};

use super::{InFlight, Shared, StopFlag, Work, input_size, micros};
use crate::{
    image::{BgrCache, Image},
    pace::Pace,
    pixels::Picture,
    preprocess::Preprocessor,
    selection::{Choice, Selection},
    source::{FrameSource, SourceError},
};
use framehook_core::{
    artifact::VideoManifest,
    job::{Outcome, Report},
    prediction::{FrameTimings, Position},
    reason::{Reason, ReasonCode},
};
use framehook_engine::{
    chain::{Before, Chain, Stage as HookStage},
    media::{Decision, Frame, Geometry, Size},
};

/// How often a worker that passes over stored frames says that it lives: well inside any frame
/// timeout, of which the shortest is 1 s.
const ALIVE_EVERY: Duration = Duration::from_millis(200);

/// How soon a worker that waits for a frame to be due obeys.
const STOP_WITHIN: Duration = Duration::from_millis(20);

/// Bytes of a pixel, as a decoder gives it with 10 bits a sample and as a picture.
const FRAME_PIXEL: usize = 6;

/// The geometry of a frame without an inference.
const NO_GEOMETRY: Geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };

pub(super) struct Stage {
    pub(super) shared: Shared,
    pub(super) source: Box<dyn FrameSource>,
    pub(super) pre: Chain,
    pub(super) keeps_pictures: bool,
    pub(super) stop: StopFlag,
    pub(super) out: SyncSender<InFlight>,
    /// That of the last frame.
    pub(super) preprocessor: Option<Preprocessor>,
    pub(super) bgr: BgrCache,
    pub(super) selection: Selection,
    pub(super) pace: Pace,
}

impl Stage {
    pub(super) fn run(mut self) {
        let (outcome, reason) = self.deliver().unwrap_or_else(|reason| (Outcome::Failed, reason));
        // Damage behind the last frame; whoever goes on where this one stopped comes to it again.
        if outcome != Outcome::Stopped {
            self.shared.damaged.store(self.source.damaged(), Ordering::Relaxed);
        }
        self.shared.verdict.give(outcome, reason);
        self.shared.reporter.hooks(HookStage::Pre, true, || self.pre.stats());
        self.pre.shutdown();
    }

    fn deliver(&mut self) -> Result<(Outcome, Reason), Reason> {
        let stopped = || (Outcome::Stopped, Reason::new(ReasonCode::StoppedByUser, "stopped"));
        let (mut started, mut alive) = (Instant::now(), Instant::now());
        let mut next = self.first_frame().map_err(|error| self.reason(&error))?;
        while let Some(position) = next {
            if self.stop.is_raised() {
                return Ok(stopped());
            }
            let left_out = match self.selection.choose(position) {
                Choice::Take { left_out } => left_out,
                Choice::Leave => {
                    next = self.pass_on(&mut alive)?;
                    continue;
                }
                Choice::End { left_out } => return Ok(self.finished(left_out, "the range came to its end")),
            };
            let begin = Instant::now();
            self.keep_pace(position, &mut alive);
            started += begin.elapsed();
            let mut picture = self.shared.pools.pictures.take();
            self.source.picture(&mut picture).map_err(|error| self.reason(&error))?;
            let decode_us = micros(started);
            let damaged = self.source.damaged();
            let frame = InFlight { left_out, damaged, ..self.prepare(position, picture, decode_us)? };
            self.shared.decoded.fetch_add(1, Ordering::Relaxed);
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
        let missing = self.source.check_end().map_err(|error| self.reason(&error))?;
        let left_out = self.selection.behind_last(self.source.frames());
        let (outcome, reason) = self.finished(
            left_out,
            if self.is_before_range() {
                "the video came to its end before the range begins"
            } else {
                "the video came to its end"
            },
        );
        let incomplete = missing.map(|missing| Reason::new(ReasonCode::SourceIncomplete, missing.to_string()));
        Ok((outcome, incomplete.unwrap_or(reason)))
    }

    /// Whether no frame so far, of this run or an earlier one, was one of the range.
    fn is_before_range(&self) -> bool {
        let job = &self.shared.job;
        let begins_later = job.range.is_some_and(|range| range.from_us.is_some());
        begins_later && job.resume_after.is_none() && self.shared.decoded.load(Ordering::Relaxed) == 0
    }

    /// `left_out` frames lie behind the last one.
    fn finished(&mut self, left_out: u64, why: &str) -> (Outcome, Reason) {
        self.shared.reporter.send(&Report::LeftOut { frames: left_out });
        (Outcome::Finished, Reason::new(ReasonCode::EndOfStream, why))
    }

    /// Waits until a frame is due.
    fn keep_pace(&mut self, position: Position, alive: &mut Instant) {
        let Some(due) = self.pace.due(position.pts_us, Instant::now()) else { return };
        while !self.stop.is_raised() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.say_alive(alive);
            thread::sleep(left.min(STOP_WITHIN));
        }
    }

    /// Goes on from a frame that is not asked for.
    fn pass_on(&mut self, alive: &mut Instant) -> Result<Option<Position>, Reason> {
        self.say_alive(alive);
        self.source.advance().map_err(|error| self.reason(&error))
    }

    fn say_alive(&self, alive: &mut Instant) {
        if alive.elapsed() >= ALIVE_EVERY {
            self.shared.reporter.send(&Report::Alive);
            *alive = Instant::now();
        }
    }

    /// A decoder that is refused memory gives no picture, and does not say why: it is no damaged
    /// video where not even one more frame fits.
    fn reason(&self, error: &SourceError) -> Reason {
        let reason = error.reason();
        let VideoManifest { width, height, .. } = self.source.info();
        let frame = FRAME_PIXEL.saturating_mul(*width as usize).saturating_mul(*height as usize);
        if reason.code == ReasonCode::DecodeError && Vec::<u8>::new().try_reserve_exact(frame).is_err() {
            return Reason::new(ReasonCode::OutOfMemory, "there is no memory left for the next frame of the video");
        }
        reason
    }

    /// The first frame behind the resume position, or one that is not behind the first of the
    /// range.
    fn first_frame(&mut self) -> Result<Option<Position>, SourceError> {
        let mut alive = Instant::now();
        let mut go_on = || {
            if alive.elapsed() >= ALIVE_EVERY {
                self.shared.reporter.send(&Report::Alive);
                alive = Instant::now();
            }
            !self.stop.is_raised()
        };
        if self.selection.is_sparse() {
            self.source.leave_all_but(&self.selection);
        }
        let job = &self.shared.job;
        match (job.resume_after, job.range.and_then(|range| range.from_us)) {
            (Some(stored), _) => self.source.resume(stored, &mut go_on),
            (None, Some(from_us)) => self.source.begin_at(from_us, &mut go_on),
            (None, None) => self.source.advance(),
        }
    }

    fn prepare(&mut self, position: Position, picture: Image, decode_us: u32) -> Result<InFlight, Reason> {
        let started = Instant::now();
        let size = Size { width: picture.width(), height: picture.height() };
        self.bgr.clear();
        let Before { decision, failures } = self.call_hooks(position, size, &picture)?;
        let (work, geometry) = match decision {
            Decision::Pass => {
                let (input, geometry) = self.native_input(&picture, position)?;
                (Work::Infer(input), geometry)
            }
            Decision::Infer(tensor, geometry) => (Work::Infer(tensor.data), geometry),
            Decision::Skip(skipped) => (Work::Skip(skipped), NO_GEOMETRY),
        };
        let picture = if self.keeps_pictures && matches!(work, Work::Infer(_)) {
            Some(picture)
        } else {
            self.shared.pools.pictures.give_back(picture);
            None
        };
        let timings = FrameTimings { decode_us, pre_us: micros(started), ..FrameTimings::default() };
        let state = self.pre.take_changes();
        Ok(InFlight { position, left_out: 0, damaged: 0, size, picture, geometry, work, failures, state, timings })
    }

    fn call_hooks(&mut self, position: Position, size: Size, image: &Image) -> Result<Before, Reason> {
        if self.pre.is_empty() {
            return Ok(Before { decision: Decision::Pass, failures: Vec::new() });
        }
        let job = &self.shared.job;
        let pixels = &Picture { image, spec: &job.input, bgr: RefCell::new(&mut self.bgr) };
        let input_planes = job.input.planes;
        let before =
            self.pre.preprocess(&Frame { position, size, input_size: input_size(job), input_planes, pixels })?;
        self.shared.reporter.health(HookStage::Pre, self.pre.degraded());
        self.shared.reporter.hooks(HookStage::Pre, false, || self.pre.stats());
        Ok(before)
    }

    fn native_input(&mut self, image: &Image, at: Position) -> Result<(Vec<f32>, Geometry), Reason> {
        let spec = &self.shared.job.input;
        let preprocessor = Preprocessor::kept(&mut self.preprocessor, spec, image.width(), image.height());
        let mut input = self.shared.pools.inputs.take();
        let filled = preprocessor.fill_whole(image, &mut self.bgr, &mut input);
        filled.map_err(|why| SourceError::Unshown { frame: at.frame, why }.reason())?;
        Ok((input, preprocessor.geometry()))
    }
}
