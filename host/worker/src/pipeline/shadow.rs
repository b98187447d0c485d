//! The shadow: a second chain of post hooks behind the last stage, which sees what the first chain saw and
//! whose results are compared with those of the first, and with nothing else.
//!
//! Invariants: the first chain never waits for it: a frame that finds the queue full is not compared. Nothing
//! that its hooks do changes the outcome of the job. At the end each frame was compared or is counted as not
//! compared.
//!
//! A frame is compared when the next one comes or the source has ended, because hooks may have something to
//! add to the last one.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use framehook_core::{
    compare::{Comparison, Said, compare},
    job::{Job, Report},
    memory::SHADOW_FRAMES,
    prediction::{Position, Prediction},
    reason::Reason,
    shadow::{Recent, ShadowCounts, ShadowReport},
    size::{json_bytes, room_for_outputs},
};
use framehook_engine::{
    chain::{After, Chain},
    media::{FramePixels, Geometry, Inference, Size},
};
use parking_lot::Mutex;

use super::{Pools, Shared, Work, input_size, no_thread};
use crate::{
    image::{BgrCache, Image},
    pixels::Picture,
    report::Reporter,
};

/// How often findings are told; a person who looks at them is not faster.
const TELL: Duration = Duration::from_secs(1);

/// At the end, for the frames that wait: each may take 20 ms a hook by default. Nobody but the scenario's end
/// waits for it.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// The side of the stage that finishes frames.
pub(super) struct Shadow {
    frames: Option<SyncSender<Seen>>,
    shared: Arc<Findings>,
    reporter: Arc<Reporter>,
    /// Nothing comes; its end is that of the thread.
    ended: Receiver<()>,
}

/// A frame after the first chain.
pub(super) struct Seen {
    pub(super) prediction: Arc<Prediction>,
    /// How many of the hook failures are of pre hooks, which come first.
    pub(super) pre_failures: usize,
    pub(super) size: Size,
    pub(super) geometry: Geometry,
    pub(super) picture: Option<Image>,
    pub(super) work: Work,
}

/// What both sides know.
#[derive(Default)]
struct Findings {
    offered: AtomicU64,
    refused: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    comparison: Comparison,
    differences: Recent,
    ended: Option<Reason>,
    /// The last frame with what the hooks of the first chain had to add, once the source has ended.
    last: Option<Arc<Prediction>>,
    /// Nothing is compared or told any more.
    is_closed: bool,
}

impl Findings {
    fn report(told: &mut Told, not_compared: u64) -> Report<&'static Prediction> {
        let (_, differences) = told.differences.take();
        let counts = ShadowCounts { comparison: told.comparison, not_compared };
        Report::Shadow(ShadowReport { counts, differences, ended: told.ended.clone() })
    }
}

impl Shadow {
    /// Starts a chain on a thread of its own. One that could not be started compares nothing.
    pub(super) fn start(chain: Result<Chain, Reason>, shared: &Shared) -> Self {
        let (frames, to_compare) = sync_channel(SHADOW_FRAMES);
        let (alive, ended) = sync_channel(0);
        let findings = Arc::<Findings>::default();
        let started = chain.and_then(|chain| {
            let behind = Behind {
                chain,
                job: Arc::clone(&shared.job),
                pools: Arc::clone(&shared.pools),
                reporter: Arc::clone(&shared.reporter),
                findings: Arc::clone(&findings),
                bgr: BgrCache::default(),
                last: None,
                tell_at: Instant::now() + TELL,
            };
            thread::Builder::new().spawn(move || behind.run(&to_compare, alive)).map_err(no_thread)
        });
        findings.told.lock().ended = started.err();
        Self { frames: Some(frames), shared: findings, reporter: Arc::clone(&shared.reporter), ended }
    }

    /// Gives the frame back if the shadow does not take it.
    pub(super) fn offer(&self, seen: Seen) -> Option<Seen> {
        self.shared.offered.fetch_add(1, Ordering::Relaxed);
        let sent = self.frames.as_ref().map(|frames| frames.try_send(seen));
        let Some(Err(TrySendError::Full(seen) | TrySendError::Disconnected(seen))) = sent else { return None };
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        Some(seen)
    }

    /// No more frames come; `last`: the last one, if its source has ended. Waits a while for those that were
    /// taken, and tells everything.
    pub(super) fn end(mut self, last: Option<Arc<Prediction>>) {
        self.shared.told.lock().last = last;
        self.frames = None;
        let waited = self.ended.recv_timeout(LAST_FRAMES);
        if waited == Err(RecvTimeoutError::Timeout) {
            eprintln!("the shadow did not finish its last frames in {} s", LAST_FRAMES.as_secs());
        }
        let mut told = self.shared.told.lock();
        told.is_closed = true;
        let not_compared = self.shared.offered.load(Ordering::Relaxed) - told.comparison.compared;
        self.reporter.send(&Findings::report(&mut told, not_compared));
    }
}

impl Seen {
    fn give_back(self, pools: &Pools) {
        if let Work::Inferred(outputs) = self.work {
            pools.outputs.give_back(outputs);
        }
        if let Some(picture) = self.picture {
            pools.pictures.give_back(picture);
        }
    }

    pub(super) fn let_go(self, shadow: Option<&Shadow>, pools: &Pools) {
        let rest = match shadow {
            Some(shadow) => shadow.offer(self),
            None => Some(self),
        };
        if let Some(rest) = rest {
            rest.give_back(pools);
        }
    }
}

/// A frame after both chains.
struct Both {
    prediction: Arc<Prediction>,
    pre_failures: usize,
    after: After,
}

/// The side of the shadow's thread.
struct Behind {
    chain: Chain,
    job: Arc<Job>,
    pools: Arc<Pools>,
    reporter: Arc<Reporter>,
    findings: Arc<Findings>,
    bgr: BgrCache,
    /// Not compared yet.
    last: Option<Both>,
    tell_at: Instant,
}

impl Behind {
    /// Until no more frames come. `_alive` is let go at the end, however this ends.
    fn run(mut self, frames: &Receiver<Seen>, _alive: SyncSender<()>) {
        while let Ok(seen) = frames.recv() {
            let after = self.call(&seen);
            // What its hooks keep goes nowhere.
            drop(self.chain.take_changes());
            let (prediction, pre_failures) = (Arc::clone(&seen.prediction), seen.pre_failures);
            seen.give_back(&self.pools);
            if let Some(before) = self.last.take() {
                self.compare(&before.prediction, &before);
            }
            match after {
                Ok(after) => self.last = Some(Both { prediction, pre_failures, after }),
                Err(reason) => {
                    self.findings.told.lock().ended = Some(reason);
                    return;
                }
            }
            self.tell();
        }
        self.finish();
        self.chain.shutdown();
    }

    fn call(&mut self, seen: &Seen) -> Result<After, Reason> {
        let Prediction { pts_us, frame, .. } = *seen.prediction;
        let position = Position { pts_us, frame };
        let outputs = match &seen.work {
            Work::Inferred(outputs) => outputs,
            Work::Skip(skipped) => {
                let after = self.chain.skipped((position, seen.size), &skipped.reason)?;
                return Ok(After { skipped: Some(skipped.clone()), ..after });
            }
            Work::Infer(_) => return Ok(After::default()),
        };
        self.bgr.clear();
        let bgr = RefCell::new(&mut self.bgr);
        let picture = seen.picture.as_ref().map(|image| Picture { image, spec: &self.job.input, bgr });
        self.chain.postprocess(&Inference {
            position,
            size: seen.size,
            input_size: input_size(&self.job),
            geometry: seen.geometry,
            outputs,
            pixels: picture.as_ref().map(|picture| picture as &dyn FramePixels),
        })
    }

    /// The last frame, with what the hooks of both chains have to add at the end.
    fn finish(&mut self) {
        let Some(mut both) = self.last.take() else { return };
        let last = self.findings.told.lock().last.take();
        let Some(last) = last.filter(|last| last.pts_us == both.prediction.pts_us) else {
            return self.compare(&both.prediction, &both);
        };
        let room = room_for_outputs(self.job.limits.prediction_bytes, self.job.shadow.len());
        let taken = json_bytes(&both.after.detections) + json_bytes(&both.after.events);
        let (events, failures) = self.chain.flush(room.saturating_sub(taken));
        both.after.events.extend(events);
        both.after.failures.extend(failures);
        self.compare(&last, &both);
    }

    fn compare(&self, prediction: &Prediction, Both { pre_failures, after, .. }: &Both) {
        let Prediction { pts_us, frame, ref detections, ref events, ref skipped, ref hook_failures, .. } = *prediction;
        let failures = &hook_failures[*pre_failures..];
        let before = Said { detections, events, skipped: skipped.as_ref(), failures };
        let After { detections, events, skipped, failures } = after;
        let after = Said { detections, events, skipped: skipped.as_ref(), failures };
        let difference = compare(Position { pts_us, frame }, before, after);
        let mut told = self.findings.told.lock();
        if !told.is_closed {
            told.comparison.count(difference.as_ref());
            difference.into_iter().for_each(|difference| told.differences.push(difference));
        }
    }

    fn tell(&mut self) {
        if Instant::now() < self.tell_at {
            return;
        }
        self.tell_at = Instant::now() + TELL;
        let mut told = self.findings.told.lock();
        if !told.is_closed {
            self.reporter.send(&Findings::report(&mut told, self.findings.refused.load(Ordering::Relaxed)));
        }
    }
}
