//! The first stage: decodes, calls the pre hooks, makes the model's input.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering, mpsc::SyncSender},
    thread,
    time::{Duration, Instant},
};

use super::{InFlight, NewPost, Shared, StopFlag, Turn, Work, input_size, micros};
use crate::{
    change::{Chains, Next, Ready, Settings},
    image::{BgrCache, Image},
    pace::Pace,
    pixels::Picture,
    preprocess::Preprocessor,
    selection::{Choice, Selection},
    source::{FrameSource, SourceError},
};
use framehook_core::{
    artifact::VideoManifest,
    hook_state::HookState,
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
    pub(super) settings: Arc<Settings>,
    /// What a revision on trial took the place of.
    pub(super) before: Option<(Chain, Arc<Settings>)>,
    /// What a change of settings changed of the hooks' state; goes with the next frame.
    pub(super) carried: HookState,
    /// The frame that was worked on last.
    pub(super) last: Option<Position>,
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
        self.shared.reporter.hooks((HookStage::Pre, self.settings.revision()), true, || self.pre.stats());
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
            let turn = self.follow_changes();
            let frame = InFlight { left_out, damaged, turn, ..self.prepare(position, picture, decode_us)? };
            self.last = Some(position);
            self.shared.changes.worked_on(position);
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
        let keeps_pictures = !self.settings.post.is_empty() || !self.shared.job.shadow.is_empty();
        let picture = if keeps_pictures && matches!(work, Work::Infer(_)) {
            Some(picture)
        } else {
            self.shared.pools.pictures.give_back(picture);
            None
        };
        let timings = FrameTimings { decode_us, pre_us: micros(started), ..FrameTimings::default() };
        let mut state = std::mem::take(&mut self.carried);
        state.extend(self.pre.take_changes());
        let (settings, turn, left_out, damaged) = (Arc::clone(&self.settings), None, 0, 0);
        Ok(InFlight {
            position,
            settings,
            turn,
            left_out,
            damaged,
            size,
            picture,
            geometry,
            work,
            failures,
            state,
            timings,
        })
    }

    /// Goes on with other settings from the next frame on, if there are some.
    fn follow_changes(&mut self) -> Option<Turn> {
        match self.shared.changes.next()? {
            Next::Begin(ready) => Some(Turn::Begin(self.begin(*ready))),
            Next::GoBack(revision) if revision == self.settings.revision() => {
                let (chain, settings) = self.before.take()?;
                self.carried.extend(self.pre.state().changes_to(&chain.state()));
                std::mem::replace(&mut self.pre, chain).shutdown();
                self.turn_to(settings);
                Some(Turn::GoBack)
            }
            Next::Keep(revision) if revision == self.settings.revision() => {
                self.pre.end_trial();
                self.give_up_before();
                None
            }
            // A later one has begun meanwhile.
            Next::GoBack(_) | Next::Keep(_) => None,
        }
    }

    fn begin(&mut self, Ready { settings, chains }: Ready) -> Option<Box<NewPost>> {
        // A change during a trial ends it: that revision is what this one may go back to.
        self.give_up_before();
        let before = self.turn_to(settings);
        let Chains { mut pre, post, is_fresh, trial } = chains?;
        let kept = self.pre.state();
        if !is_fresh {
            pre.take_over(&kept, self.last);
        }
        self.carried.extend(kept.changes_to(&pre.state()));
        self.before = Some((std::mem::replace(&mut self.pre, pre), before));
        Some(Box::new(NewPost { chain: post, is_fresh, trial }))
    }

    /// Gives the settings until now.
    fn turn_to(&mut self, settings: Arc<Settings>) -> Arc<Settings> {
        self.shared.changes.set(Arc::clone(&settings));
        std::mem::replace(&mut self.settings, settings)
    }

    fn give_up_before(&mut self) {
        if let Some((chain, _)) = self.before.take() {
            chain.shutdown();
        }
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
        self.shared.reporter.hooks((HookStage::Pre, self.settings.revision()), false, || self.pre.stats());
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
