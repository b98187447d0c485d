//! The model alone: the yardstick for the whole pipeline.
//!
//! Invariant: the session is made by the same code as a job's, so the figures compare.

use std::{path::Path, thread, time::Instant};

use framehook_core::input::{InputError, InputOptions};
use serde::Serialize;

use crate::{
    feed::FrameInput,
    model::{BoundModel, Model, ModelError},
    process,
};

/// What one measurement gave.
#[derive(Debug, Serialize)]
pub struct InferenceFigures {
    /// Those of all sessions together.
    pub frames: u32,
    pub seconds: f64,
    pub fps: f64,
    pub cpu_ms_per_frame: f64,
    pub peak_rss_mb: f64,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("there is nothing to measure: --frames and --sessions must be at least 1")]
    Nothing,
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{0}; `--size WIDTHxHEIGHT` gives the size that a model leaves open")]
    Input(#[from] InputError),
}

/// The first runs plan memory and fill caches.
const WARM_UP: u32 = 10;

/// Runs the model `frames` times on one random image in each of `sessions` sessions at a time; `size` is for
/// a model that leaves it open.
///
/// # Errors
/// When the model cannot be loaded or run.
pub fn inference(
    file: &Path,
    onnxruntime: &Path,
    frames: u32,
    intra_threads: usize,
    sessions: u32,
    size: Option<[u32; 2]>,
) -> Result<InferenceFigures, BenchError> {
    if frames == 0 || sessions == 0 {
        return Err(BenchError::Nothing);
    }
    let load = || Model::load(file, onnxruntime, intra_threads);
    let first = load()?;
    let options = InputOptions { size, ..InputOptions::default() };
    let spec = options.resolve(&first.manifest().inputs)?;
    let others = (1..sessions).map(|_| load());
    let bound = std::iter::once(Ok(first)).chain(others).map(|model| model?.bind(&spec));
    let mut models = bound.collect::<Result<Vec<_>, _>>()?;
    let image = noise(spec.frame_len());
    let frame = FrameInput::of_input_size(&spec, &image);
    let run = |model: &mut BoundModel, times| (0..times).try_for_each(|_| model.run(&frame, None));
    models.iter_mut().try_for_each(|model| run(model, WARM_UP))?;
    let (started, cpu_before) = (Instant::now(), process::cpu_ms());
    thread::scope(|scope| {
        let running: Vec<_> = models.iter_mut().map(|model| scope.spawn(|| run(model, frames))).collect();
        running.into_iter().try_for_each(|session| session.join().expect("a session does not panic"))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let frames = frames.saturating_mul(sessions);
    Ok(InferenceFigures {
        frames,
        seconds,
        fps: f64::from(frames) / seconds,
        cpu_ms_per_frame: (process::cpu_ms() - cpu_before) / f64::from(frames),
        peak_rss_mb: process::peak_rss_mb(),
    })
}

/// The same numbers from 0 to 1 on every run (xorshift, Marsaglia 2003).
fn noise(length: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 16_777_216.0
    })
    .take(length)
    .collect()
}
