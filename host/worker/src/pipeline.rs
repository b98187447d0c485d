//! One scenario's frames on their way from the source to the runner.
//!
//! ```text
//! decode thread                  a thread each lane    finishing thread (the caller's)    shadow's thread
//! decode, pre hooks, resize  ->  the model         ->  post hooks, report            ->  post hooks, compare
//! ```
//!
//! A scenario that records its outputs has one more stage, between model and post hooks. One that replays
//! them reads them instead of decoding and inferring.
//!
//! The stages are connected by bounded channels, so that no stage waits for another while there is
//! work, and memory stays bounded. Buffers go back into `Pools`.
//!
//! Invariants: frames leave in the order they came, each exactly once, skipped or not; hooks see
//! them in that order, however many lanes there are. Nothing but the model runs on the threads of
//! the lanes: they set the pace. The first stage that ends says why (`Verdict`); what is in flight
//! then is still finished and reported.

mod decode;
mod finish;
mod infer;
mod order;
mod record;
mod replay;
mod shadow;

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    thread,
    time::Instant,
};

use framehook_core::{
    hook_state::HookState,
    job::{Job, Outcome},
    prediction::{FrameTimings, HookFailure, Position, Skipped},
    reason::{Reason, ReasonCode},
    revision::Trial,
    spec::MAX_LANES,
};
use framehook_engine::{
    chain::Chain,
    media::{Geometry, Output, Size},
};
use parking_lot::Mutex;

use self::shadow::Shadow;
use crate::{
    change::{Changes, Settings},
    image::{BgrCache, Image},
    lanes::Lanes,
    loader::Loader,
    model::BoundModel,
    pace::Pace,
    recorded::Recording,
    report::Reporter,
    selection::Selection,
    source::FrameSource,
    watch::Watch,
};

/// Frames that are decoded and not in the model: one being taken, one ready. More only adds latency and
/// memory.
const BETWEEN_STAGES: usize = 2;

/// Everything that was loaded for a job.
pub struct Parts {
    pub source: Box<dyn FrameSource>,
    pub model: BoundModel,
    /// Gives further lanes the same.
    pub loader: Loader,
    pub pre: Chain,
    pub post: Chain,
    /// The chain to compare that with, or why it cannot be started.
    pub shadow: Option<Result<Chain, Reason>>,
    /// Other settings that may come.
    pub changes: Arc<Changes>,
    /// What recorded outputs begin with, if they are to be recorded.
    pub opening: Option<Vec<u8>>,
}

/// Everything that was loaded for a job that replays outputs.
pub(crate) struct ReplayParts {
    pub(crate) recording: Recording,
    pub(crate) post: Chain,
}

/// Asks the pipeline to stop after the frames in flight.
#[derive(Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a job until its source ends, `stop` is raised or something fails. Every frame that was
/// decoded before is reported.
pub fn run(
    parts: Parts,
    job: &Arc<Job>,
    reporter: &Arc<Reporter>,
    watch: &Arc<Watch>,
    lanes: &Arc<Lanes>,
    stop: &StopFlag,
) -> (Outcome, Reason) {
    let Parts { source, model, loader, pre, post, shadow, changes, opening } = parts;
    let shared = Shared::new(job, reporter, watch, changes);
    let (to_model, from_decode) = sync_channel(BETWEEN_STAGES);
    let (frames, outs, from_model) = order::connect(from_decode, MAX_LANES as usize, model.frames());
    let shadow = shadow.map(|chain| Shadow::start(chain, &shared));
    let further = infer::Further { loader, video: source.info().clone() };
    let decode = decode::Stage {
        shared: shared.clone(),
        source,
        pre,
        settings: shared.changes.settings(),
        before: None,
        carried: HookState::default(),
        last: job.resume_after,
        stop: stop.clone(),
        out: to_model,
        preprocessor: None,
        selection: Selection::new(job.frames, job.range, job.resume_after),
        pace: Pace::new(job.max_speed),
        bgr: BgrCache::default(),
    };
    let infer = infer::Stage { shared: shared.clone(), lanes: Arc::clone(lanes), frames };
    shared.start(move || decode.run());
    shared.start(move || Arc::new(infer).run(model, &further, outs));
    let Some(opening) = opening else { return shared.finish(post, shadow, from_model, lanes) };
    let (out, recorded) = order::one_lane(BETWEEN_STAGES);
    let record = record::Stage { shared: shared.clone(), frames: from_model, out };
    shared.start(move || record.run(&opening));
    shared.finish(post, shadow, recorded, lanes)
}

/// The same of recorded outputs: until they end, `stop` is raised or something fails. Its settings never
/// change, and it has no shadow.
pub(crate) fn replay(
    ReplayParts { recording, post }: ReplayParts,
    job: &Arc<Job>,
    reporter: &Arc<Reporter>,
    watch: &Arc<Watch>,
    lanes: &Arc<Lanes>,
    stop: &StopFlag,
) -> (Outcome, Reason) {
    let shared = Shared::new(job, reporter, watch, Arc::new(Changes::new(job)));
    let (out, frames) = order::one_lane(BETWEEN_STAGES);
    let replay = replay::Stage { shared: shared.clone(), recording, stop: stop.clone(), out };
    shared.start(move || replay.run());
    shared.finish(post, None, frames, lanes)
}

/// What all stages hold.
#[derive(Clone)]
struct Shared {
    job: Arc<Job>,
    reporter: Arc<Reporter>,
    watch: Arc<Watch>,
    pools: Arc<Pools>,
    verdict: Arc<Verdict>,
    /// Frames that the first stage handed on.
    decoded: Arc<AtomicU64>,
    /// Damaged frames of a source that ended.
    damaged: Arc<AtomicU64>,
    changes: Arc<Changes>,
}

impl Shared {
    fn new(job: &Arc<Job>, reporter: &Arc<Reporter>, watch: &Arc<Watch>, changes: Arc<Changes>) -> Self {
        Self {
            job: Arc::clone(job),
            reporter: Arc::clone(reporter),
            watch: Arc::clone(watch),
            pools: Arc::default(),
            verdict: Arc::default(),
            decoded: Arc::default(),
            damaged: Arc::default(),
            changes,
        }
    }

    /// Runs the last stage, and says how all ended.
    fn finish(
        self,
        post: Chain,
        shadow: Option<Shadow>,
        frames: order::InOrder<InFlight>,
        lanes: &Arc<Lanes>,
    ) -> (Outcome, Reason) {
        let stage = finish::Stage {
            settings: self.changes.settings(),
            shared: self.clone(),
            post,
            shadow,
            before: None,
            trial: None,
            failed: None,
            frames,
            lanes: Arc::clone(lanes),
            last: None,
            damaged: 0,
            bgr: BgrCache::default(),
        };
        let finished = stage.run();
        self.verdict.take(finished == self.decoded.load(Ordering::Relaxed))
    }

    /// Starts a stage on a thread of its own. Nobody joins it: a decoder may hang, and the process ends after
    /// the last report anyway.
    fn start(&self, stage: impl FnOnce() + Send + 'static) {
        if let Err(error) = thread::Builder::new().spawn(stage) {
            self.verdict.fail(no_thread(error));
        }
    }
}

/// Memory is all that a thread can lack here.
fn no_thread(error: impl Display) -> Reason {
    Reason::new(ReasonCode::OutOfMemory, format!("there is no memory for a thread: {error}"))
}

/// Why the pipeline ended: what the first stage to end said. The end of the source is no cause: a frame that
/// is in flight then can still fail.
#[derive(Default)]
struct Verdict(Mutex<Option<(Outcome, Reason)>>);

impl Verdict {
    fn give(&self, outcome: Outcome, reason: Reason) {
        let mut given = self.0.lock();
        // A later one is a consequence of the first.
        if given.as_ref().is_none_or(|(first, _)| *first == Outcome::Finished) {
            *given = Some((outcome, reason));
        }
    }

    fn fail(&self, reason: Reason) {
        self.give(Outcome::Failed, reason);
    }

    fn is_end_of_source(&self) -> bool {
        matches!(*self.0.lock(), Some((Outcome::Finished, _)))
    }

    /// A stage that ended without a word, or without all frames, panicked; another try may help.
    fn take(&self, has_all: bool) -> (Outcome, Reason) {
        let given = self.0.lock().take();
        given.filter(|(outcome, _)| has_all || *outcome != Outcome::Finished).unwrap_or_else(|| {
            let message = "a thread of the worker panicked; its log has the details";
            (Outcome::Retry, Reason::new(ReasonCode::WorkerCrash, message))
        })
    }
}

/// Buffers for the next frames, so that none is allocated while the pipeline runs.
#[derive(Default)]
struct Pools {
    pictures: Pool<Image>,
    inputs: Pool<Vec<f32>>,
    outputs: Pool<Vec<Output>>,
}

#[derive(Default)]
struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    fn take(&self) -> T {
        self.0.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: T) {
        self.0.lock().push(buffer);
    }
}

/// A frame between two stages.
struct InFlight {
    position: Position,
    settings: Arc<Settings>,
    /// The settings are others than those of the frame before.
    turn: Option<Turn>,
    left_out: u64,
    /// Damaged frames of the source up to here.
    damaged: u64,
    /// The size of the original frame.
    size: Size,
    /// Kept only for post hooks.
    picture: Option<Image>,
    geometry: Geometry,
    work: Work,
    failures: Vec<HookFailure>,
    /// What the pre hooks changed of their state.
    state: HookState,
    timings: FrameTimings,
}

/// What the last stage does before its first frame of other settings.
enum Turn {
    /// `None`: it keeps its chain.
    Begin(Option<Box<NewPost>>),
    GoBack,
}

struct NewPost {
    chain: Chain,
    is_fresh: bool,
    trial: Trial,
}

enum Work {
    /// The image for the model.
    Infer(Vec<f32>),
    /// The model's outputs; none if no hook would read them.
    Inferred(Vec<Output>),
    Skip(Skipped),
}

fn input_size(job: &Job) -> Size {
    Size { width: job.input.width, height: job.input.height }
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_is_the_verdict_and_the_end_of_the_source_is_none() {
        let reason = |code| Reason::new(code, "");
        let verdict = |given: &[(Outcome, ReasonCode)], has_all| {
            let verdict = Verdict::default();
            given.iter().for_each(|(outcome, code)| verdict.give(*outcome, reason(*code)));
            verdict.take(has_all).1.code
        };
        use {Outcome as O, ReasonCode as R};
        let end = (O::Finished, R::EndOfStream);
        let (stop, hook) = ((O::Stopped, R::StoppedByUser), (O::Failed, R::PluginIncompatible));
        assert_eq!(verdict(&[end], true), R::EndOfStream);
        assert_eq!(verdict(&[end, hook], true), R::PluginIncompatible);
        assert_eq!(verdict(&[hook, stop], true), R::PluginIncompatible);
        assert_eq!(verdict(&[stop, hook], false), R::StoppedByUser);
        // A thread panicked with a frame that the source had given.
        assert_eq!(verdict(&[end], false), R::WorkerCrash);
        assert_eq!(verdict(&[], true), R::WorkerCrash);
    }
}
