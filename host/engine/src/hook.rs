//! One plugin in one scenario: its instance, its breaker and its state.
//!
//! Invariant: a failure costs the instance at most. The next call that the breaker admits gets a
//! new one; a plugin that keeps failing is left out for a while and called again with one frame.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use framehook_core::{
    hook_state::HookState,
    hook_stats::{HookStage, HookStats},
    job::{HookJob, HookLimits, LogLevel},
    prediction::{Detection, Event, Position},
    reason::{Reason, ReasonCode},
    size::json_bytes,
};
use parking_lot::Mutex;

use crate::{
    Plugin,
    abi::{Instance, Names, Ready, Skip},
    asked::Asked,
    breaker::Breaker,
    chain::ChainSettings,
    log::Logger,
    media::{Decision, Frame, Inference, Outcome, Size, Start},
    metrics::Named,
    range::{self, Mended},
    sandbox::{Failure, Given},
    state::Kept,
    stats::Stats,
};

pub struct Hook {
    plugin: Plugin,
    /// `name@version`.
    pub(crate) name: String,
    /// What an instance is started for; `after` grows with the frames that the hook is called for.
    start: Start,
    config: String,
    limits: HookLimits,
    /// Bytes of JSON that the detections and events of a frame may take, those of all hooks
    /// together.
    room: usize,
    /// Whose state it has, among the hooks of its scenario.
    slot: String,
    given: Given,
    breaker: Breaker,
    /// Detections that were out of range.
    mended: Mended,
    stats: Stats,
    /// Labels of its configuration that nobody gave yet.
    asked: Asked,
    instance: Option<Box<dyn Instance>>,
    /// Why the first one could not be made.
    pub(crate) not_begun: Option<Reason>,
    /// What the last instance said when it started.
    pub(crate) ready: Ready,
}

impl Hook {
    /// Makes the first instance. A plugin that fails here in a way that another try may mend (a
    /// trap, a timeout) gives a hook that is already failing, not an error.
    ///
    /// # Errors
    /// When the plugin refuses its configuration: no other try will help.
    pub fn start(
        plugin: &Plugin,
        job: &HookJob,
        (stage, slot): (HookStage, String),
        settings: &ChainSettings,
    ) -> Result<Self, Reason> {
        let HookJob { identity, config, .. } = job;
        let mut start = settings.start.clone();
        if let Some(before) = &settings.before {
            start.from_version = before.get(&slot).cloned();
            // Whoever takes nobody's place has seen nothing.
            start.after = start.after.filter(|_| start.from_version.is_some());
        }
        let name = format!("{}@{}", identity.name, identity.version);
        let mut hook = Self {
            plugin: plugin.clone(),
            start,
            config: config.to_string(),
            limits: settings.limits,
            room: settings.room,
            given: Given {
                logger: Logger::new(name.clone(), settings.log.clone()),
                state: Arc::new(Mutex::new(Kept::restore(settings.quota, &settings.state, &slot))),
                metrics: Arc::new(Mutex::new(Named::new(settings.metric_names))),
                models: settings.models.clone(),
            },
            slot,
            breaker: Breaker::default(),
            mended: Mended::default(),
            stats: Stats::new(name.clone(), stage),
            asked: Asked::of(config),
            instance: None,
            not_begun: None,
            ready: Ready::default(),
            name,
        };
        match hook.attempt(|_, _| Ok(())) {
            Err(reason) if reason.code == ReasonCode::PluginIncompatible => Err(reason),
            begun => {
                hook.not_begun = begun.err();
                Ok(hook)
            }
        }
    }

    /// # Errors
    /// When the plugin failed, or is left out because it failed before.
    pub fn preprocess(&mut self, frame: &Frame<'_>) -> Result<Decision, Reason> {
        self.call(frame.position, |instance, _| instance.preprocess(frame))
    }

    /// Gives detections with their labels. `taken` is what the events of the hooks before take.
    ///
    /// # Errors
    /// When the plugin failed, made more than the frame's row has room for, or is left out because
    /// it failed before.
    pub fn postprocess(
        &mut self,
        inference: &Inference<'_>,
        so_far: &[Detection],
        earlier_labels: &[String],
        taken: usize,
    ) -> Result<Outcome, Reason> {
        self.outcome(inference.position, so_far, earlier_labels, taken, |instance| {
            instance.postprocess(inference, so_far, earlier_labels)
        })
    }

    /// Tells one that wants to know of a frame without an inference.
    ///
    /// # Errors
    /// As [`Self::postprocess`].
    pub fn skipped(
        &mut self,
        (position, size): (Position, Size),
        reason: &str,
        so_far: &[Detection],
        earlier_labels: &[String],
        taken: usize,
    ) -> Result<Outcome, Reason> {
        let skip = Skip { position, size, reason };
        self.outcome(position, so_far, earlier_labels, taken, |instance| instance.skipped(&skip, so_far))
    }

    /// What a call for a frame makes of the detections so far: in range, labelled, and no more than there is
    /// room.
    fn outcome(
        &mut self,
        at: Position,
        so_far: &[Detection],
        earlier_labels: &[String],
        taken: usize,
        call: impl FnOnce(&mut dyn Instance) -> Result<Outcome, Failure>,
    ) -> Result<Outcome, Reason> {
        let room = self.room.saturating_sub(taken);
        let (outcome, mended) = self.call(at, |instance, own_labels| {
            let mut outcome = call(&mut *instance)?;
            let mended = range::mend(&mut outcome);
            let names = Names { own: own_labels, earlier: earlier_labels };
            instance.complete(so_far, &mut outcome.detections, &names);
            must_fit(json_bytes(&outcome.detections) + json_bytes(&outcome.events), room)?;
            Ok((outcome, mended))
        })?;
        self.tell(mended);
        self.stats.made(so_far.len(), &outcome);
        let names = Names { own: &self.ready.labels, earlier: earlier_labels };
        self.asked.meet(so_far, &outcome.detections, &names);
        Ok(outcome)
    }

    fn tell(&mut self, mended: Mended) {
        if let Some(line) = self.mended.add(mended) {
            self.given.logger.tell(LogLevel::Warn, &line);
        }
    }

    /// What the plugin still has to say at the end of the stream. One that is left out is asked too: there is
    /// no frame left to lose. Nothing, if it has no instance: a new one has seen nothing.
    ///
    /// # Errors
    /// When the plugin failed, or said more than `room` bytes of JSON.
    pub fn flush(&mut self, room: usize) -> Result<Vec<Event>, Reason> {
        if self.instance.is_none() {
            return Ok(Vec::new());
        }
        let (events, mended) = self.attempt(|instance, _| {
            let mut events = instance.flush()?;
            let mended = range::mend_events(&mut events);
            must_fit(json_bytes(&events), room)?;
            Ok((events, mended))
        })?;
        self.tell(mended);
        self.stats.said(events.len());
        Ok(events)
    }

    /// Goes on with what another one kept, as of `after`: an instance that began with nothing is made anew.
    /// What it fails on now, it fails on at its first frame.
    pub(crate) fn take_over(&mut self, state: &HookState, after: Option<Position>) {
        if state.of(&self.slot).next().is_none() {
            return;
        }
        self.given.state.lock().take_over(state, &self.slot);
        self.start.after = self.start.after.and(after);
        self.instance = None;
        if let Err(reason) = self.attempt(|_, _| Ok(())) {
            tracing::debug!(plugin = self.name, "does not go on with what was kept: {}", reason.message);
        }
    }

    /// Adds all that it keeps.
    pub(crate) fn state(&self, state: &mut HookState) {
        self.given.state.lock().all(&self.slot, state);
    }

    /// Adds what it changed of its state since the last call.
    pub(crate) fn take_changes(&self, changes: &mut HookState) {
        self.given.state.lock().take_changes(&self.slot, changes);
    }

    /// What became of its calls so far.
    pub(crate) fn stats(&self) -> HookStats {
        let used = self.instance.as_ref().map(|instance| instance.used()).unwrap_or_default();
        HookStats {
            cut: self.mended.cut,
            dropped: self.mended.dropped,
            state_bytes: self.given.state.lock().bytes() as u64,
            unknown_labels: self.asked.unknown(),
            metrics: self.given.metrics.lock().now(),
            ..self.stats.now(used)
        }
    }

    /// The failure for which the plugin is left out at the moment.
    #[must_use]
    pub fn degraded(&self) -> Option<Reason> {
        self.breaker.open_reason().cloned()
    }

    /// Calls the plugin's `shutdown`.
    pub fn shutdown(mut self) {
        if let Some(mut instance) = self.instance.take()
            && let Err(failure) = instance.shutdown()
        {
            tracing::debug!(plugin = self.name, "shutdown failed: {}", failure.message);
        }
    }

    /// Time of the models that it ran so far.
    fn models(&self) -> Duration {
        let living = self.instance.as_ref().map(|instance| instance.used().models);
        self.stats.models() + living.unwrap_or_default()
    }

    /// One call for a frame, through the breaker.
    fn call<R>(
        &mut self,
        at: Position,
        call: impl FnOnce(&mut dyn Instance, &[String]) -> Result<R, Failure>,
    ) -> Result<R, Reason> {
        if let Err(reason) = self.breaker.admit(at) {
            self.stats.left_out();
            return Err(reason);
        }
        self.given.logger.begin_frame(at.frame);
        let (began, models_before) = (Instant::now(), self.models());
        let result = self.attempt(call);
        let models = self.models().saturating_sub(models_before);
        let took = began.elapsed().saturating_sub(models);
        self.stats.called(took, result.as_ref().err().map(|reason| reason.code));
        self.start.after = Some(at);
        self.start.from_version = None;
        let was_left_out = self.breaker.open_reason().is_some();
        match &result {
            Ok(_) => {
                self.breaker.succeeded();
                if was_left_out {
                    self.given.logger.tell(LogLevel::Info, "works again");
                }
            }
            Err(reason) => self.failed(reason, at),
        }
        result
    }

    /// What a reason says besides the plugin's name, for where that stands already.
    pub(crate) fn without_name<'a>(&self, reason: &'a Reason) -> &'a str {
        let message = reason.message.strip_prefix(&self.name).and_then(|behind| behind.strip_prefix(": "));
        message.unwrap_or(&reason.message)
    }

    fn failed(&mut self, reason: &Reason, at: Position) {
        let message = self.without_name(reason).to_owned();
        let message = match self.breaker.failed(reason, at) {
            Some(seconds) => format!("{message}; not called for {seconds} s of the stream"),
            None => message,
        };
        self.given.logger.tell(LogLevel::Warn, &message);
    }

    /// One call, in a new instance if there is none.
    fn attempt<R>(
        &mut self,
        call: impl FnOnce(&mut dyn Instance, &[String]) -> Result<R, Failure>,
    ) -> Result<R, Reason> {
        let result = self.living_instance().and_then(|(instance, labels)| call(instance, labels));
        result.map_err(|failure| {
            if failure.store_is_lost
                && let Some(instance) = self.instance.take()
            {
                self.stats.lost(instance.used());
            }
            failure.reason(&self.name)
        })
    }

    /// With its labels.
    fn living_instance(&mut self) -> Result<(&mut dyn Instance, &[String]), Failure> {
        if self.instance.is_none() {
            self.stats.began();
            let mut instance = self.plugin.code.start(self.limits, self.given.clone())?;
            self.ready = instance.init(&self.start, &self.config)?;
            self.instance = Some(instance);
        }
        let instance = self.instance.as_mut().ok_or_else(|| Failure::unusable_result("the plugin has no instance"))?;
        Ok((&mut **instance, &self.ready.labels))
    }
}

/// A plugin that makes too much has failed on the frame, and its scenario's policy decides: a frame
/// must not vanish.
fn must_fit(bytes: usize, room: usize) -> Result<(), Failure> {
    if bytes <= room {
        return Ok(());
    }
    Err(Failure::unusable_result(format!(
        "prediction_too_large: its detections and events have {bytes} bytes of JSON; the frame's row has room for {room} \
         (max_prediction_kib)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_to_the_last_byte_fits() {
        assert!(must_fit(100, 100).is_ok());
        let failure = must_fit(101, 100).unwrap_err();
        assert!(failure.message.contains("prediction_too_large") && !failure.store_is_lost);
    }
}
