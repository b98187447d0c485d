//! The versions of the package `framehook:plugin`, one module each.
//!
//! Each converts between what crosses its boundary and the engine's own types ([`crate::media`],
//! `framehook_core::prediction`), which know no version. What the host does for a guest is the same in all of
//! them (`access`, `results`).

mod access;
mod guest;
mod interfaces;
mod names;
mod results;
mod run;
pub(crate) mod v0_1;
pub(crate) mod v0_2;

pub(crate) use names::Names;

use std::time::Duration;

use framehook_core::{
    artifact::PluginManifest,
    job::HookLimits,
    prediction::{Detection, Event, Position},
    probe::ConfigProblem,
};
use wasmtime::component::{Component, Linker, Resource};

use crate::{
    media::{Decision, Frame, Inference, Outcome, Start},
    sandbox::{Ctx, Failure, Given},
    stats::Used,
};

/// The versions that the host runs, in their order. A new plugin is built against the last one.
pub(crate) const VERSIONS: [&str; 2] = ["0.1.0", "0.2.0"];
/// Package of the interfaces that plugins import and export.
pub(crate) const PACKAGE: &str = "framehook:plugin";

/// What handles stand for.
#[expect(unreachable_pub, reason = "generated code re-exports them")]
pub mod handles {
    /// The frame of the running call: there is only one, so it needs no number.
    pub struct FrameHandle;
}

/// Number of the frame or the inference that a call is for; what the guest holds itself is in its table,
/// which counts from 0.
const THE_ONE: u32 = u32::MAX;

/// Everything a plugin may import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Ctx>> {
    let mut linker = Linker::new(engine);
    // Without files, network or environment in the context there is nothing behind most of it; a
    // plugin's standard library wants it to be there.
    wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
    forbid_waiting(&mut linker)?;
    v0_1::add_to(&mut linker)?;
    v0_2::add_to(&mut linker)?;
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

/// The version that a component was built against; the newest, if it is a plugin of none.
pub(crate) fn version(component: &Component) -> &'static str {
    let [.., newest] = VERSIONS;
    let exports = |version: &&str| component.get_export_index(None, format!("{PACKAGE}/lifecycle@{version}")).is_some();
    VERSIONS.into_iter().find(exports).unwrap_or(newest)
}

/// A plugin whose imports are bound and whose exports are found.
#[derive(Clone)]
pub(crate) enum Code {
    V0_1(v0_1::Code),
    V0_2(v0_2::Code),
}

impl Code {
    pub(crate) fn link(linker: &Linker<Ctx>, component: &Component) -> wasmtime::Result<Self> {
        match version(component) {
            "0.1.0" => v0_1::Code::link(linker, component).map(Self::V0_1),
            _ => v0_2::Code::link(linker, component).map(Self::V0_2),
        }
    }

    pub(crate) fn has_preprocess(&self) -> bool {
        match self {
            Self::V0_1(code) => code.preprocess.is_some(),
            Self::V0_2(code) => code.preprocess.is_some(),
        }
    }

    pub(crate) fn has_postprocess(&self) -> bool {
        match self {
            Self::V0_1(code) => code.postprocess.is_some(),
            Self::V0_2(code) => code.postprocess.is_some(),
        }
    }

    pub(crate) fn start(&self, limits: HookLimits, given: Given) -> Result<Box<dyn Instance>, Failure> {
        Ok(match self {
            Self::V0_1(code) => Box::new(v0_1::Instance::new(code, limits, given)?),
            Self::V0_2(code) => Box::new(v0_2::Instance::new(code, limits, given)?),
        })
    }
}

/// What a plugin said when it started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    /// Names of the classes, by class id; empty if it has none.
    pub(crate) labels: Vec<String>,
    pub(crate) wants_skipped: bool,
}

/// A living plugin, whatever its version.
pub(crate) trait Instance: Send {
    /// The plugin's own words about itself, unchecked but for the schema being JSON.
    fn describe(&mut self) -> Result<PluginManifest, Failure>;
    fn validate_config(&mut self, config: &str) -> Result<Vec<ConfigProblem>, Failure>;
    fn init(&mut self, start: &Start, config: &str) -> Result<Ready, Failure>;
    fn preprocess(&mut self, frame: &Frame<'_>) -> Result<Decision, Failure>;
    fn postprocess(
        &mut self,
        inference: &Inference<'_>,
        so_far: &[Detection],
        labels: &[String],
    ) -> Result<Outcome, Failure>;
    /// Gives what `postprocess` or `skipped` returned its labels, and what else its version cannot tell.
    fn complete(&self, given: &[Detection], returned: &mut [Detection], names: &Names<'_>);
    /// Only for one that wants it.
    fn skipped(&mut self, frame: &Skip<'_>, so_far: &[Detection]) -> Result<Outcome, Failure>;
    fn flush(&mut self) -> Result<Vec<Event>, Failure>;
    fn shutdown(&mut self) -> Result<(), Failure>;
    /// What it has used so far.
    fn used(&self) -> Used;
}

/// A frame without an inference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skip<'a> {
    pub(crate) position: Position,
    pub(crate) size: crate::media::Size,
    pub(crate) reason: &'a str,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn missing(hook: &str) -> Failure {
    Failure::unusable_result(format!("the plugin has no `{hook}` hook"))
}
