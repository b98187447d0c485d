//! Verdicts about uploads, as the API asks for them: JSON on standard output, whatever the verdict.
//!
//! Invariant: an upload that passes is one that a worker can load, because the same code loads it.

use std::path::Path;

use framehook_core::{
    artifact::{ModelManifest, VideoManifest},
    input::InputOptions,
};
use opencv::{core::Mat, prelude::*};
use serde::Serialize;

use crate::{
    model::{Model, ModelError},
    source::{FrameSource as _, SourceError, VideoFile},
};

/// What a probe says.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict<T> {
    Ok(T),
    Problem(Problem),
}

/// Why an upload is refused.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable, for programs.
    pub code: &'static str,
    /// What was found and what to do, for people.
    pub message: String,
}

/// Loads a model and looks at its inputs.
#[must_use]
pub fn model(file: &Path, onnxruntime: &Path) -> Verdict<ModelManifest> {
    let problem = |error: ModelError| Problem { code: error.code(), message: error.to_string() };
    let checked = Model::load(file, onnxruntime, 1).map_err(problem).and_then(|model| {
        let manifest = model.manifest();
        check_inputs(&manifest)?;
        Ok(manifest)
    });
    checked.map_or_else(Verdict::Problem, Verdict::Ok)
}

/// A size that the model leaves open is for the scenario to give; anything else never fits.
fn check_inputs(manifest: &ModelManifest) -> Result<(), Problem> {
    match InputOptions::default().resolve(&manifest.inputs) {
        Err(error) if error.field != "input.size" => Err(Problem { code: "unsuitable_input", message: error.message }),
        _ => Ok(()),
    }
}

/// Opens a video and decodes its first frame.
#[must_use]
pub fn video(file: &Path) -> Verdict<VideoManifest> {
    match first_frame(file) {
        Ok(manifest) => Verdict::Ok(manifest),
        Err(error) => Verdict::Problem(Problem { code: error.code(), message: error.to_string() }),
    }
}

fn first_frame(file: &Path) -> Result<VideoManifest, SourceError> {
    let mut video = VideoFile::open(file)?;
    if let Some(cut) = video.cut() {
        return Err(SourceError::Truncated(cut.clone()));
    }
    video.advance()?.ok_or(SourceError::NoFrame)?;
    let mut picture = Mat::default();
    video.picture(&mut picture).map_err(|_| SourceError::NoFrame)?;
    let info = video.info();
    // The picture is turned as the container asks; the declared size may not be.
    let (width, height) = (picture.cols().cast_unsigned(), picture.rows().cast_unsigned());
    Ok(VideoManifest { width, height, fps: info.fps, frames: info.frames })
}
