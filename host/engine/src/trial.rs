//! A plugin's post hook on outputs that somebody kept, under the production engine: called once, for golden
//! tests, and if asked for so often that it can be said what a call takes.
//!
//! For the child process only ([`crate::command`]): it runs a stranger's code.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use framehook_core::{
    hook_metrics,
    hook_state::{HookState, StateQuota},
    job::{HookJob, HookLimits, PluginLog},
    prediction::{Detection, Event, Position},
    reason::{Reason, ReasonCode},
    size::room_for_outputs,
    spec::OnPluginFailure,
};
use framehook_helpers::{npy, place::place};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    Engine, Log,
    chain::{Chain, ChainSettings, Stage},
    hook::Hook,
    media::{Element, Elements, Geometry, Inference, Output, Size, Start, TensorDesc},
};

/// What a post hook is called on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    pub hook: HookJob,
    /// Width and height of the frame, in pixels.
    pub frame: [u32; 2],
    /// The same of the model's input.
    pub input: [u32; 2],
    /// Whether the frame fills it, or keeps its proportions; then, whether it lies in the middle.
    pub is_stretched: bool,
    pub is_centered: bool,
    /// Names of the outputs, with their `.npy` files, in the model's order.
    pub outputs: Vec<(String, PathBuf)>,
    /// Whether to measure what a call takes, too.
    pub is_measured: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tried {
    pub detections: Vec<Detection>,
    pub events: Vec<Event>,
    /// Why the hook failed on it, or at its end.
    pub failures: Vec<String>,
    pub log: Vec<PluginLog>,
    pub measured: Option<Measured>,
}

/// What a hook takes when it is called on the same outputs again and again. Times are wall time in
/// microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Until the compiled plugin is read, verified and linked.
    pub load_us: f64,
    /// Until its first instance is made and has its configuration.
    pub start_us: f64,
    /// Half of the calls took this or less, with what the host did for them; and 99 of 100.
    pub p50_us: f64,
    pub p99_us: f64,
    /// Bytes that a call had copied into the plugin.
    pub copied_bytes: u64,
    /// What the instance had at the end.
    pub memory_bytes: u64,
}

/// Calls before those that count. In its first 100 searches for scores the host notes the highest of all,
/// which takes longer.
const WARM_UP: u64 = 120;
/// How long calls are measured: long enough for thousands of a fast hook.
const MEASURED: Duration = Duration::from_millis(500);
/// For a hook that takes its whole deadline: what a quantile needs at least.
const LEAST_CALLS: usize = 20;

/// Starts the hook, calls it once, and lets it say its last words.
///
/// # Errors
/// When an output cannot be read, or the hook does not start.
pub fn run(trial: &Trial) -> Result<Tried, Reason> {
    let outputs = trial.outputs.iter().map(|(name, file)| read(name, file)).collect::<Result<Vec<_>, _>>();
    let outputs = outputs.map_err(|why| Reason::new(ReasonCode::PluginIncompatible, why))?;
    let size = |[width, height]: [u32; 2]| Size { width, height };
    let [x, y, width, height] = place(trial.frame, trial.input, trial.is_stretched, trial.is_centered);
    let inference = Inference {
        position: Position { pts_us: 0, frame: 0 },
        size: size(trial.frame),
        input_size: size(trial.input),
        geometry: Geometry {
            scale_x: width as f32 / trial.frame[0] as f32,
            scale_y: height as f32 / trial.frame[1] as f32,
            pad_x: x as f32,
            pad_y: y as f32,
        },
        outputs: &outputs,
        pixels: None,
    };
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let limits = HookLimits::default();
    let settings = ChainSettings {
        start: Start { stream_id: "test".into(), ..Start::default() },
        limits,
        on_failure: OnPluginFailure::RawOutput,
        room: room_for_outputs(limits.prediction_bytes, 1),
        quota: StateQuota::default(),
        state: HookState::default(),
        metric_names: hook_metrics::names_of(1),
        before: None,
        models: None,
        log: Log::new(Arc::new(move |line| sink.lock().push(line)), limits.log),
    };
    // That of a worker, with its room set aside.
    let engine = Engine::loader().map_err(|error| error.reason(&trial.hook.identity))?;
    let mut chain = Chain::start(&engine, Stage::Post, std::slice::from_ref(&trial.hook), &settings)?;
    let after = chain.postprocess(&inference)?;
    let (mut events, mut failures) = (after.events, after.failures);
    let (last, failed) = chain.flush(settings.room);
    events.extend(last);
    failures.extend(failed);
    chain.shutdown();
    let failures: Vec<_> = failures.into_iter().map(|failure| failure.reason.message).collect();
    let log = std::mem::take(&mut *lines.lock());
    // Such a hook is soon not called at all.
    let can_be_measured = trial.is_measured && failures.is_empty();
    let measured = can_be_measured.then(|| measure(&engine, &trial.hook, &settings, inference)).transpose()?;
    Ok(Tried { detections: after.detections, events, failures, log, measured })
}

fn measure(
    engine: &Engine,
    job: &HookJob,
    settings: &ChainSettings,
    mut inference: Inference<'_>,
) -> Result<Measured, Reason> {
    let micros = |took: Duration| 1e6 * took.as_secs_f64();
    let began = Instant::now();
    let plugin = engine.load(&job.compiled, &job.digest).map_err(|error| error.reason(&job.identity))?;
    let load_us = micros(began.elapsed());
    let began = Instant::now();
    let mut hook = Hook::start(&plugin, job, (Stage::Post, "measured".into()), settings)?;
    let start_us = micros(began.elapsed());
    let (mut took, mut began, mut before) = (Vec::<f64>::new(), Instant::now(), 0);
    loop {
        let frame = inference.position.frame + 1;
        // 25 frames a second.
        inference.position = Position { frame, pts_us: frame as i64 * 40_000 };
        let called = Instant::now();
        hook.postprocess(&inference, &[], &[], 0)?;
        let call = called.elapsed();
        hook.take_changes(&mut HookState::default());
        if frame == WARM_UP {
            (began, before) = (Instant::now(), hook.stats().copied_bytes);
        } else if frame > WARM_UP {
            took.push(micros(call));
            if began.elapsed() >= MEASURED && took.len() >= LEAST_CALLS {
                break;
            }
        }
    }
    let stats = hook.stats();
    hook.shutdown();
    took.sort_unstable_by(f64::total_cmp);
    let quantile = |of_100: usize| took[(took.len() - 1) * of_100 / 100];
    let copied_bytes = (stats.copied_bytes - before) / took.len() as u64;
    let memory_bytes = stats.memory_bytes;
    Ok(Measured { load_us, start_us, p50_us: quantile(50), p99_us: quantile(99), copied_bytes, memory_bytes })
}

fn read(name: &str, file: &PathBuf) -> Result<Output, String> {
    let bytes = fs::read(file).map_err(|why| format!("output `{name}`: {why}"))?;
    let (shape, kept) = npy::read(&bytes).map_err(|why| format!("output `{name}`: {why}"))?;
    let element = if matches!(kept, npy::Elements::Floats(_)) { Element::Float } else { Element::Integer };
    Ok(Output { desc: TensorDesc { name: name.to_owned(), shape, element }, data: elements(kept) })
}

fn elements(kept: npy::Elements) -> Elements {
    match kept {
        npy::Elements::Floats(all) | npy::Elements::Small(all) => Elements::F32(all),
        npy::Elements::Integers(all) => Elements::I64(all),
    }
}
