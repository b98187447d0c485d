//! `framehook:plugin@0.1.0`: linking, calling, and converting to the engine's own types.
//!
//! What a guest returns is checked here ([`results`]), so that nothing unusable (an index of nothing, a
//! list without end) goes further. Scores and boxes are checked behind it, for all versions (`range`).

mod host;
mod results;

use std::time::Duration;

use framehook_core::{
    artifact::PluginManifest,
    job::HookLimits,
    prediction::{Detection, Event},
    probe::ConfigProblem,
};
use wasmtime::component::{Component, InstancePre, Linker, Resource};

use self::bindings::exports::framehook::plugin::{lifecycle, postprocess, preprocess};
use crate::{
    log::Logger,
    media::{Decision, Frame, Inference, Outcome},
    sandbox::{Ctx, Failure, Guarded, View},
    state::State,
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/framehook-plugin-0.1.0",
        world: "framehook:plugin/processor",
        imports: { default: trappable },
        with: {
            "framehook:plugin/media.frame": super::handles::FrameHandle,
            "framehook:plugin/media.inference": super::handles::InferenceHandle,
            "framehook:plugin/media.tensor": crate::media::Tensor,
        },
    });
}

/// What handles stand for; `pub` because the generated code re-exports them.
mod handles {
    #![allow(unreachable_pub)]
    /// The frame of the running call: there is only one, so it needs no number.
    pub struct FrameHandle;
    /// The inference of the running call.
    pub struct InferenceHandle;
}
pub use bindings::framehook::plugin::{
    media::{Geometry, PixelFormat, TensorDesc},
    types::{Rect, Size},
};
use handles::{FrameHandle, InferenceHandle};

/// Everything a plugin may import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Ctx>> {
    let mut linker = Linker::new(engine);
    // Without files, network or environment in the context there is nothing behind most of it; a
    // plugin's standard library wants it to be there.
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    forbid_waiting(&mut linker)?;
    bindings::Processor::add_to_linker::<_, host::Host>(&mut linker, |ctx| ctx)?;
    Ok(linker)
}

/// A deadline cannot interrupt a guest that sleeps inside the host, so it may not sleep.
fn forbid_waiting(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::DynPollable;
    const REFUSED: &str = "a plugin may not sleep or wait";
    linker.allow_shadowing(true);
    let mut poll = linker.instance("wasi:io/poll@0.2.12")?;
    poll.func_wrap("[method]pollable.block", |_, (_,): (Resource<DynPollable>,)| -> wasmtime::Result<()> {
        Err(wasmtime::format_err!(REFUSED))
    })?;
    poll.func_wrap("poll", |_, (_,): (Vec<Resource<DynPollable>>,)| -> wasmtime::Result<(Vec<u32>,)> {
        Err(wasmtime::format_err!(REFUSED))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// A plugin whose imports are bound and whose exports are found.
#[derive(Clone)]
pub(crate) struct Code {
    instance: InstancePre<Ctx>,
    lifecycle: lifecycle::GuestIndices,
    pub(crate) preprocess: Option<preprocess::GuestIndices>,
    pub(crate) postprocess: Option<postprocess::GuestIndices>,
}

impl Code {
    pub(crate) fn link(linker: &Linker<Ctx>, component: &Component) -> wasmtime::Result<Self> {
        let instance = linker.instantiate_pre(component)?;
        let exports = |name: &str| component.get_export_index(None, name).is_some();
        let lifecycle = lifecycle::GuestIndices::new(&instance)?;
        let preprocess = exports("framehook:plugin/preprocess@0.1.0")
            .then(|| preprocess::GuestIndices::new(&instance))
            .transpose()?;
        let postprocess = exports("framehook:plugin/postprocess@0.1.0")
            .then(|| postprocess::GuestIndices::new(&instance))
            .transpose()?;
        Ok(Self { instance, lifecycle, preprocess, postprocess })
    }
}

/// A living plugin.
pub(crate) struct Instance {
    guarded: Guarded,
    lifecycle: lifecycle::Guest,
    preprocess: Option<preprocess::Guest>,
    postprocess: Option<postprocess::Guest>,
    limits: HookLimits,
}

impl Instance {
    pub(crate) fn new(code: &Code, limits: HookLimits, logger: Logger, state: State) -> Result<Self, Failure> {
        let mut guarded = Guarded::new(code.instance.engine(), limits.memory_bytes, logger, state);
        let (lifecycle, preprocess, postprocess) = guarded.enter(ms(limits.init_ms), None, |store| {
            let instance = code.instance.instantiate(&mut *store)?;
            Ok((
                code.lifecycle.load(&mut *store, &instance)?,
                code.preprocess.as_ref().map(|p| p.load(&mut *store, &instance)).transpose()?,
                code.postprocess.as_ref().map(|p| p.load(&mut *store, &instance)).transpose()?,
            ))
        })?;
        Ok(Self { guarded, lifecycle, preprocess, postprocess, limits })
    }

    /// The plugin's own words about itself, unchecked but for the schema being JSON.
    pub(crate) fn describe(&mut self) -> Result<PluginManifest, Failure> {
        let limit = ms(self.limits.describe_ms);
        let descriptor = self.guarded.enter(limit, None, |store| self.lifecycle.call_describe(store))?;
        results::manifest(descriptor, self.preprocess.is_some(), self.postprocess.is_some())
    }

    pub(crate) fn validate_config(&mut self, config: &str) -> Result<Vec<ConfigProblem>, Failure> {
        let limit = ms(self.limits.describe_ms);
        let verdict = self.guarded.enter(limit, None, |store| self.lifecycle.call_validate_config(store, config))?;
        Ok(results::problems(verdict))
    }

    /// Gives the names of the classes.
    pub(crate) fn init(&mut self, stream_id: &str, config: &str) -> Result<Vec<String>, Failure> {
        let limit = ms(self.limits.init_ms);
        let ready = self.guarded.enter(limit, None, |store| self.lifecycle.call_init(store, stream_id, config))?;
        results::labels(ready.map_err(results::plugin_error)?)
    }

    pub(crate) fn preprocess(&mut self, frame: &Frame<'_>) -> Result<Decision, Failure> {
        let Self { guarded, preprocess: Some(hook), limits, .. } = self else {
            return Err(missing("preprocess"));
        };
        let view = View::Frame(*frame);
        let decision = guarded.enter(ms(limits.call_ms), Some(&view), |store| {
            hook.call_preprocess(store, Resource::new_borrow(THE_ONE))
        })?;
        results::decision(decision.map_err(results::plugin_error)?, guarded.ctx(), frame)
    }

    pub(crate) fn postprocess(
        &mut self,
        inference: &Inference<'_>,
        so_far: &[Detection],
        labels: &[String],
    ) -> Result<Outcome, Failure> {
        let Self { guarded, postprocess: Some(hook), limits, .. } = self else {
            return Err(missing("postprocess"));
        };
        let view = View::Inference(*inference, labels);
        let so_far: Vec<_> = so_far.iter().map(results::to_guest).collect();
        let outcome = guarded.enter(ms(limits.call_ms), Some(&view), |store| {
            hook.call_postprocess(store, Resource::new_borrow(THE_ONE), &so_far)
        })?;
        results::outcome(outcome.map_err(results::plugin_error)?)
    }

    pub(crate) fn flush(&mut self) -> Result<Vec<Event>, Failure> {
        let Self { guarded, postprocess: Some(hook), limits, .. } = self else {
            return Err(missing("postprocess"));
        };
        let events = guarded.enter(ms(limits.init_ms), None, |store| hook.call_flush(store))?;
        // Nothing says which detections a late event is about.
        results::events(events.map_err(results::plugin_error)?, 0)
    }

    pub(crate) fn shutdown(&mut self) -> Result<(), Failure> {
        self.guarded.enter(ms(self.limits.describe_ms), None, |store| self.lifecycle.call_shutdown(store))
    }
}

/// Number of the only frame or inference there is during a call.
const THE_ONE: u32 = 0;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn missing(hook: &str) -> Failure {
    Failure::unusable_result(format!("the plugin has no `{hook}` hook"))
}
