//! Plays scenes to instances of a plugin, one after the other, as a worker would, and keeps what a worker
//! would count.
//!
//! Unlike [`crate::hook::Hook`] it has no breaker, and a failure ends the check: what the host contains in
//! production is what is wrong with a plugin here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use framehook_core::{
    hook_metrics,
    hook_state::{HookState, StateQuota},
    hook_stats::HookStage,
    job::HookLimits,
    log_budget::LogLimits,
    prediction::{Event, Position},
    size::{json_bytes, room_for_outputs},
};
use parking_lot::Mutex;

use super::synthetic::{Further, Scene};
use crate::{
    Log, Plugin,
    abi::{Instance, Names, Ready, Skip},
    log::Logger,
    media::{Decision, Outcome, Source, Start},
    metrics::Named,
    range,
    sandbox::{Failure, Given, thread_cpu_time},
    state::Kept,
};

/// The kit has one hook, whose state needs no other name.
const SLOT: &str = "kit";

/// What a call gave. One that failed in the plugin's own words gave those.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Made {
    Decided(Decision),
    Found(Outcome),
    Said(String),
}

/// What calls took, and what they gave that the host had to mend.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) calls: u64,
    pub(super) slowest: Duration,
    pub(super) memory_bytes: u64,
    pub(super) out_of_range: u64,
}

pub(super) struct Player<'a> {
    plugin: &'a Plugin,
    pub(super) config: String,
    pub(super) limits: HookLimits,
    pub(super) spent: Spent,
    /// Lines of the plugin, also those that would be left out.
    pub(super) lines: Arc<AtomicU64>,
}

/// One instance that was started.
pub(super) struct Living {
    pub(super) instance: Box<dyn Instance>,
    pub(super) ready: Ready,
    given: Given,
}

impl<'a> Player<'a> {
    pub(super) fn new(plugin: &'a Plugin) -> Self {
        Self {
            plugin,
            config: String::new(),
            limits: HookLimits::default(),
            spent: Spent::default(),
            lines: Arc::default(),
        }
    }

    /// An instance that nobody started.
    pub(super) fn instance(&self) -> Result<Box<dyn Instance>, Failure> {
        self.plugin.code.start(self.limits, self.given(&HookState::default()))
    }

    /// One that goes on behind a frame, with what was kept there.
    pub(super) fn begin(&self, state: &HookState, after: Option<Position>) -> Result<Living, Failure> {
        let given = self.given(state);
        let mut instance = self.plugin.code.start(self.limits, given.clone())?;
        let start = Start { stream_id: "conformance".into(), after, source: Source::default(), ..Start::default() };
        let ready = instance.init(&start, &self.config)?;
        Ok(Living { instance, ready, given })
    }

    fn given(&self, state: &HookState) -> Given {
        let lines = Arc::clone(&self.lines);
        let sink = move |_| {
            lines.fetch_add(1, Ordering::Relaxed);
        };
        // Each of them is counted, whatever a scenario may log in a second.
        let log = Log::new(Arc::new(sink), LogLimits { lines: u32::MAX, bytes: u32::MAX });
        Given {
            logger: Logger::new(String::new(), log),
            state: Arc::new(Mutex::new(Kept::restore(StateQuota::default(), state, SLOT))),
            metrics: Arc::new(Mutex::new(Named::new(hook_metrics::names_of(1)))),
            models: Some(Arc::new(Further::new())),
        }
    }

    /// One call. `Err` is what no plugin may do.
    pub(super) fn call(&mut self, living: &mut Living, stage: HookStage, scene: &Scene) -> Result<Made, Failure> {
        let pixels = scene.pixels();
        living.given.logger.begin_frame(scene.number);
        let began = thread_cpu_time();
        let made = match stage {
            HookStage::Pre => living.instance.preprocess(&scene.frame(&pixels)).map(Made::Decided),
            HookStage::Post => {
                living.instance.postprocess(&scene.inference(&pixels), &scene.so_far, &[]).map(Made::Found)
            }
        };
        self.note(living, began);
        self.judged(living, scene, made)
    }

    /// A frame without an inference.
    pub(super) fn skipped(&mut self, living: &mut Living, scene: &Scene) -> Result<Made, Failure> {
        let skip = Skip { position: scene.position(), size: scene.size, reason: "nothing moves" };
        let began = thread_cpu_time();
        let made = living.instance.skipped(&skip, &scene.so_far).map(Made::Found);
        self.note(living, began);
        self.judged(living, scene, made)
    }

    pub(super) fn flush(&mut self, living: &mut Living) -> Result<Result<Vec<Event>, String>, Failure> {
        let began = thread_cpu_time();
        let said = living.instance.flush();
        self.note(living, began);
        match said {
            Ok(mut events) => {
                self.spent.out_of_range += range::mend_events(&mut events).cut;
                fits(json_bytes(&events))?;
                Ok(Ok(events))
            }
            Err(failure) => plain(failure).map(Err),
        }
    }

    /// Notes a call that began at this time of the processor.
    fn note(&mut self, living: &Living, began: Duration) {
        self.spent.calls += 1;
        self.spent.slowest = self.spent.slowest.max(thread_cpu_time().saturating_sub(began));
        self.spent.memory_bytes = self.spent.memory_bytes.max(living.instance.used().memory_bytes);
    }

    fn judged(&mut self, living: &Living, scene: &Scene, made: Result<Made, Failure>) -> Result<Made, Failure> {
        match made {
            Ok(Made::Found(mut outcome)) => {
                let mended = range::mend(&mut outcome);
                self.spent.out_of_range += mended.cut + mended.dropped;
                let names = Names { own: &living.ready.labels, earlier: &[] };
                living.instance.complete(&scene.so_far, &mut outcome.detections, &names);
                fits(json_bytes(&outcome.detections) + json_bytes(&outcome.events))?;
                Ok(Made::Found(outcome))
            }
            Ok(made) => Ok(made),
            Err(failure) => plain(failure).map(Made::Said),
        }
    }
}

impl Living {
    /// Adds what it changed of its state since the last call.
    pub(super) fn keep(&self, state: &mut HookState) {
        let mut changes = HookState::default();
        self.given.state.lock().take_changes(SLOT, &mut changes);
        state.apply(changes);
    }
}

/// What the plugin itself said, if that is what it was.
fn plain(failure: Failure) -> Result<String, Failure> {
    if failure.is_its_word { Ok(failure.message) } else { Err(failure) }
}

fn fits(bytes: usize) -> Result<(), Failure> {
    let room = room_for_outputs(HookLimits::default().prediction_bytes, 1);
    let words = || format!("its result has {bytes} bytes of JSON; a frame's row has room for {room}");
    if bytes <= room { Ok(()) } else { Err(Failure::unusable_result(words())) }
}
