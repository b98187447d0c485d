//! One call of a plugin's post hook on outputs that somebody kept, under the production engine: for golden
//! tests.
//!
//! For the child process only ([`crate::command`]): it runs a stranger's code.

use std::{fs, path::PathBuf, sync::Arc};

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
    media::{Element, Elements, Geometry, Inference, Output, Size, Start, TensorDesc},
};

/// What a post hook is called on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    pub hook: HookJob,
    /// Width and height of the frame, in pixels.
    pub frame: [u32; 2],
    /// Of the model's input.
    pub input: [u32; 2],
    /// Whether the frame fills it, or keeps its proportions; then, whether it lies in the middle.
    pub is_stretched: bool,
    pub is_centered: bool,
    /// Names of the outputs, with their `.npy` files, in the model's order.
    pub outputs: Vec<(String, PathBuf)>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tried {
    pub detections: Vec<Detection>,
    pub events: Vec<Event>,
    /// Why the hook failed on it, or at its end.
    pub failures: Vec<String>,
    pub log: Vec<PluginLog>,
}

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
        quota: StateQuota::of(1),
        state: HookState::default(),
        metric_names: hook_metrics::names_of(1),
        before: None,
        models: None,
        log: Log::new(Arc::new(move |line| sink.lock().push(line)), limits.log),
    };
    let engine = Engine::judge().map_err(|error| error.reason(&trial.hook.identity))?;
    let mut chain = Chain::start(&engine, Stage::Post, std::slice::from_ref(&trial.hook), &settings)?;
    let after = chain.postprocess(&inference)?;
    let (mut events, mut failures) = (after.events, after.failures);
    let (last, failed) = chain.flush(settings.room);
    events.extend(last);
    failures.extend(failed);
    chain.shutdown();
    let failures = failures.into_iter().map(|failure| failure.reason.message).collect();
    Ok(Tried { detections: after.detections, events, failures, log: std::mem::take(&mut *lines.lock()) })
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
