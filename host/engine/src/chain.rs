//! A scenario's hooks in their order, and its policy when one fails.
//!
//! Each stage has a chain of its own, because a worker runs them on separate threads.

use std::{collections::BTreeMap, sync::Arc};

use framehook_core::{
    hook_state::{HookState, StateQuota},
    hook_stats::HookStats,
    job::{HookJob, HookLimits},
    prediction::{Detection, Event, HookFailure, Position, Skipped},
    reason::{Reason, ReasonCode},
    size::json_bytes,
    spec::OnPluginFailure,
};

use crate::{
    Engine, LoadError, Log, Plugin,
    hook::Hook,
    media::{Decision, Frame, Inference, Outcome, Size, Start},
    models::Models,
    passed_on,
};

pub use framehook_core::hook_stats::HookStage as Stage;

/// What both chains need besides their hooks.
#[derive(Clone)]
pub struct ChainSettings {
    pub start: Start,
    pub limits: HookLimits,
    pub on_failure: OnPluginFailure,
    /// Bytes of JSON that the detections and events of a frame may take.
    pub room: usize,
    /// What each hook may keep.
    pub quota: StateQuota,
    /// Names that the metrics of each hook may have.
    pub metric_names: usize,
    /// What the hooks kept when the stream stood where it goes on.
    pub state: HookState,
    /// Where the hooks take the place of others while the stream goes on: the versions of those, by slot.
    pub before: Option<BTreeMap<String, String>>,
    /// Further models that hooks may run.
    pub models: Option<Arc<dyn Models>>,
    pub log: Log,
}

/// The hooks of one stage.
pub struct Chain {
    hooks: Vec<Hook>,
    on_failure: OnPluginFailure,
    /// It has yet to show that it works: no failure ends the scenario.
    is_on_trial: bool,
    /// The first names of classes that there are.
    model_labels: Vec<String>,
}

/// What becomes of a frame after its pre hooks.
#[derive(Debug)]
pub struct Before {
    pub decision: Decision,
    pub failures: Vec<HookFailure>,
}

/// What the post hooks made of a frame.
#[derive(Debug, Default, PartialEq)]
pub struct After {
    /// With labels, where a hook named its classes.
    pub detections: Vec<Detection>,
    pub events: Vec<Event>,
    /// A hook failed and the policy is to give up the frame.
    pub skipped: Option<Skipped>,
    pub failures: Vec<HookFailure>,
}

impl Chain {
    /// Loads and starts the hooks.
    ///
    /// # Errors
    /// When a plugin cannot be loaded or refuses its configuration. No other try will help, but where the
    /// code is [`ReasonCode::WorkerCrash`].
    pub fn start(engine: &Engine, stage: Stage, hooks: &[HookJob], settings: &ChainSettings) -> Result<Self, Reason> {
        let load = |job: &HookJob| engine.load(&job.compiled, &job.digest).map_err(|e| e.reason(&job.identity));
        Self::with(&hooks.iter().map(load).collect::<Result<Vec<_>, _>>()?, stage, hooks, settings)
    }

    /// The same with plugins that are loaded already, one for each hook.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn with(plugins: &[Plugin], stage: Stage, hooks: &[HookJob], settings: &ChainSettings) -> Result<Self, Reason> {
        let start = |(at, (job, plugin)): (usize, (&HookJob, &Plugin))| {
            let (fits, place) = match stage {
                Stage::Pre => (plugin.code.has_preprocess(), "before"),
                Stage::Post => (plugin.code.has_postprocess(), "after"),
            };
            if !fits {
                let error = LoadError::Refused(format!("the plugin has no hook for {place} the inference"));
                return Err(error.reason(&job.identity));
            }
            Hook::start(plugin, job, (stage, slot(stage, hooks, at)), settings)
        };
        let hooks = hooks.iter().zip(plugins).enumerate().map(start).collect::<Result<_, _>>()?;
        let model_labels = settings.start.model_labels.clone();
        Ok(Self { hooks, on_failure: settings.on_failure, is_on_trial: settings.before.is_some(), model_labels })
    }

    /// Goes on in the place of a chain that kept `state` up to `after`.
    pub fn take_over(&mut self, state: &HookState, after: Option<Position>) {
        self.hooks.iter_mut().for_each(|hook| hook.take_over(state, after));
    }

    /// Why a hook of it could not begin, if one could not.
    #[must_use]
    pub fn failing(&self) -> Option<Reason> {
        self.hooks.iter().find_map(|hook| hook.not_begun.clone())
    }

    /// It works.
    pub const fn end_trial(&mut self) {
        self.is_on_trial = false;
    }

    /// All that its hooks keep.
    #[must_use]
    pub fn state(&self) -> HookState {
        let mut state = HookState::default();
        self.hooks.iter().for_each(|hook| hook.state(&mut state));
        state
    }

    /// Calls pre hooks on one frame, until one decides.
    ///
    /// # Errors
    /// When a hook failed and the policy is to fail the scenario, or it refuses its configuration.
    pub fn preprocess(&mut self, frame: &Frame<'_>) -> Result<Before, Reason> {
        let mut failures = Vec::new();
        for hook in &mut self.hooks {
            let decision = match hook.preprocess(frame) {
                Ok(decision) => decision,
                Err(reason) => fail((self.on_failure, self.is_on_trial), hook, reason, &mut failures)?
                    .map_or(Decision::Pass, Decision::Skip),
            };
            if !matches!(decision, Decision::Pass) {
                return Ok(Before { decision, failures });
            }
        }
        Ok(Before { decision: Decision::Pass, failures })
    }

    /// Calls post hooks on the outputs of one frame, each with the detections so far.
    ///
    /// # Errors
    /// When a hook failed and the policy is to fail the scenario, or it refuses its configuration.
    pub fn postprocess(&mut self, inference: &Inference<'_>) -> Result<After, Reason> {
        self.each(|_| true, |hook, so_far, labels, taken| hook.postprocess(inference, so_far, labels, taken))
    }

    /// Tells those post hooks that want to know of a frame without an inference.
    ///
    /// # Errors
    /// As [`Self::postprocess`].
    pub fn skipped(&mut self, at: (Position, Size), reason: &str) -> Result<After, Reason> {
        let wants = |hook: &Hook| hook.ready.wants_skipped;
        self.each(wants, |hook, so_far, labels, taken| hook.skipped(at, reason, so_far, labels, taken))
    }

    /// Calls hooks in their order, each with the detections so far, the names of classes that those before or
    /// the model gave, and the bytes that their events take.
    fn each(
        &mut self,
        is_called: impl Fn(&Hook) -> bool,
        mut call: impl FnMut(&mut Hook, &[Detection], &[String], usize) -> Result<Outcome, Reason>,
    ) -> Result<After, Reason> {
        let mut after = After::default();
        let mut labels = &self.model_labels[..];
        let mut taken = 0;
        for hook in &mut self.hooks {
            if is_called(hook) {
                match call(hook, &after.detections, labels, taken) {
                    Ok(outcome) => {
                        passed_on::follow(&mut after.events, &after.detections, &outcome.detections);
                        after.detections = outcome.detections;
                        taken += json_bytes(&outcome.events);
                        after.events.extend(outcome.events);
                    }
                    Err(reason) => {
                        let policy = (self.on_failure, self.is_on_trial);
                        if let Some(skipped) = fail(policy, hook, reason, &mut after.failures)? {
                            return Ok(After { skipped: Some(skipped), failures: after.failures, ..After::default() });
                        }
                    }
                }
            }
            if !hook.ready.labels.is_empty() {
                labels = &hook.ready.labels;
            }
        }
        Ok(after)
    }

    /// At the end of the stream: what the hooks still have to say, for the last frame, whose row
    /// has room for so many bytes. A failure here fails nothing: there is no frame left to skip.
    pub fn flush(&mut self, mut room: usize) -> (Vec<Event>, Vec<HookFailure>) {
        let (mut events, mut failures) = (Vec::new(), Vec::new());
        for hook in &mut self.hooks {
            match hook.flush(room) {
                Ok(more) => {
                    room = room.saturating_sub(json_bytes(&more));
                    events.extend(more);
                }
                Err(reason) => failures.push(HookFailure { plugin: hook.name.clone(), reason }),
            }
        }
        (events, failures)
    }

    /// What the hooks changed of their state since the last call.
    pub fn take_changes(&self) -> HookState {
        let mut changes = HookState::default();
        self.hooks.iter().for_each(|hook| hook.take_changes(&mut changes));
        changes
    }

    /// What became of each hook's calls so far.
    #[must_use]
    pub fn stats(&self) -> Vec<HookStats> {
        self.hooks.iter().map(Hook::stats).collect()
    }

    /// Why the chain is not what the user configured; `None` if it is.
    #[must_use]
    pub fn degraded(&self) -> Option<Reason> {
        self.hooks.iter().find_map(Hook::degraded)
    }

    /// No hook at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Calls the hooks' `shutdown`.
    pub fn shutdown(self) {
        self.hooks.into_iter().for_each(Hook::shutdown);
    }
}

/// The version of each hook's plugin, by its slot.
#[must_use]
pub fn versions(stage: Stage, hooks: &[HookJob]) -> BTreeMap<String, String> {
    (0..hooks.len()).map(|at| (slot(stage, hooks, at), hooks[at].identity.version.clone())).collect()
}

/// The name of a hook's state: see [`HookState`].
fn slot(stage: Stage, hooks: &[HookJob], at: usize) -> String {
    let name = &hooks[at].identity.name;
    match hooks[..at].iter().filter(|before| before.identity.name == *name).count() {
        0 => format!("{stage}/{name}"),
        others => format!("{stage}/{name}#{}", others + 1),
    }
}

/// Applies the policy: the frame is given up (`Some`), the chain goes on (`None`), or all ends.
fn fail(
    (policy, is_on_trial): (OnPluginFailure, bool),
    hook: &Hook,
    reason: Reason,
    failures: &mut Vec<HookFailure>,
) -> Result<Option<Skipped>, Reason> {
    // One that refuses its configuration, for this model or this video, would do so on every frame.
    let ends = policy == OnPluginFailure::FailScenario || reason.code == ReasonCode::PluginIncompatible;
    if ends && !is_on_trial {
        return Err(reason);
    }
    let plugin = hook.name.clone();
    let skip = || Skipped { by: plugin.clone(), reason: format!("the plugin failed: {}", hook.without_name(&reason)) };
    let skipped = (policy != OnPluginFailure::RawOutput).then(skip);
    failures.push(HookFailure { plugin, reason });
    Ok(skipped)
}
