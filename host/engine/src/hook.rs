//! One plugin in one scenario: its instance, its breaker and its state.
//!
//! Invariant: a failure costs the instance at most. The next call that the breaker admits gets a
//! new one; a plugin that keeps failing is left out for a while and called again with one frame.

use std::time::Instant;

use framehook_core::{
    job::HookLimits,
    prediction::{Detection, Event, PluginIdentity},
    reason::{Reason, ReasonCode},
};

use crate::{
    Plugin,
    abi::v0_1::Instance,
    breaker::Breaker,
    chain::ChainSettings,
    log::Logger,
    media::{Decision, Frame, Inference, Outcome},
    store::{Failure, State},
};

pub struct Hook {
    plugin: Plugin,
    /// `name@version`.
    name: String,
    stream_id: String,
    config: String,
    limits: HookLimits,
    logger: Logger,
    state: State,
    breaker: Breaker,
    instance: Option<Instance>,
    labels: Vec<String>,
}

impl Hook {
    /// Makes the first instance. A plugin that fails here in a way that another try may mend (a
    /// trap, a timeout) gives a hook that is already failing, not an error.
    ///
    /// # Errors
    /// When the plugin refuses its configuration: no other try will help.
    pub fn start(
        plugin: &Plugin,
        identity: &PluginIdentity,
        config: &serde_json::Value,
        settings: &ChainSettings,
    ) -> Result<Self, Reason> {
        let name = format!("{}@{}", identity.name, identity.version);
        let mut hook = Self {
            plugin: plugin.clone(),
            stream_id: settings.stream_id.clone(),
            config: config.to_string(),
            limits: settings.limits,
            logger: Logger::new(name.clone(), settings.log.clone()),
            state: State::default(),
            breaker: Breaker::default(),
            instance: None,
            labels: Vec::new(),
            name,
        };
        match hook.attempt(|_| Ok(())) {
            Err(reason) if reason.code == ReasonCode::PluginIncompatible => Err(reason),
            _ => Ok(hook),
        }
    }

    /// `name@version`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the classes, by class id, as the plugin gave them; empty if it has none.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// # Errors
    /// When the plugin failed, or is left out because it failed before.
    pub fn preprocess(&mut self, frame: &Frame<'_>) -> Result<Decision, Reason> {
        self.attempt(|instance| instance.preprocess(frame))
    }

    /// # Errors
    /// When the plugin failed, or is left out because it failed before.
    pub fn postprocess(
        &mut self,
        inference: &Inference<'_>,
        so_far: &[Detection],
        labels: &[String],
    ) -> Result<Outcome, Reason> {
        self.attempt(|instance| instance.postprocess(inference, so_far, labels))
    }

    /// What the plugin still has to say at the end of the stream. Nothing, if it has no instance: a
    /// new one has seen nothing.
    ///
    /// # Errors
    /// When the plugin failed.
    pub fn flush(&mut self) -> Result<Vec<Event>, Reason> {
        if self.instance.is_none() {
            return Ok(Vec::new());
        }
        self.attempt(Instance::flush)
    }

    /// The failure for which the plugin is left out at the moment.
    #[must_use]
    pub fn degraded(&self) -> Option<Reason> {
        self.breaker.open_reason().cloned()
    }

    /// Lets the plugin say good-bye.
    pub fn shutdown(mut self) {
        if let Some(mut instance) = self.instance.take()
            && let Err(failure) = instance.shutdown()
        {
            tracing::debug!(plugin = self.name, "shutdown failed: {}", failure.message);
        }
    }

    /// One call through the breaker, in a new instance if there is none.
    fn attempt<R>(&mut self, call: impl FnOnce(&mut Instance) -> Result<R, Failure>) -> Result<R, Reason> {
        self.breaker.admit(Instant::now())?;
        let result = self.living_instance().and_then(call);
        match result {
            Ok(value) => {
                self.breaker.succeeded();
                Ok(value)
            }
            Err(failure) => {
                if failure.store_is_lost {
                    self.instance = None;
                }
                let reason = failure.reason(&self.name);
                self.breaker.failed(&reason, Instant::now());
                Err(reason)
            }
        }
    }

    fn living_instance(&mut self) -> Result<&mut Instance, Failure> {
        if self.instance.is_none() {
            let mut instance = Instance::new(&self.plugin.code, self.limits, self.logger.clone(), self.state.clone())?;
            self.labels = instance.init(&self.stream_id, &self.config)?;
            self.instance = Some(instance);
        }
        self.instance.as_mut().ok_or_else(|| Failure::unusable_result("the plugin has no instance"))
    }
}
