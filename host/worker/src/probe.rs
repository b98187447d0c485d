//! Verdicts about uploads, as the API asks for them: JSON on standard output, whatever the verdict.
//!
//! Invariant: an upload that passes is one that a worker can load, because the same code loads it.

use std::path::Path;

use framehook_core::{
    artifact::{ModelManifest, VideoManifest},
    input::InputOptions,
    probe::{Finding, Verdict},
};

use crate::{
    image::Image,
    model::{Model, ModelError},
    source::{self, SourceError},
};

/// Loads a model and looks at its inputs.
#[must_use]
pub fn model(file: &Path, onnxruntime: &Path) -> Verdict<ModelManifest> {
    let refused = |error: ModelError| Finding::new(error.code(), &error.to_string());
    let checked = Model::load(file, onnxruntime, 1).map_err(refused).and_then(|model| {
        let manifest = model.manifest();
        check_inputs(&manifest)?;
        Ok(manifest)
    });
    checked.map_or_else(|finding| Verdict::Findings(vec![finding]), Verdict::Ok)
}

/// A size that the model leaves open is for the scenario to give; anything else never fits.
fn check_inputs(manifest: &ModelManifest) -> Result<(), Finding> {
    match InputOptions::default().resolve(&manifest.inputs) {
        Err(error) if error.field != "input.size" => Err(Finding::new("unsuitable_input", &error.message)),
        _ => Ok(()),
    }
}

/// Opens a video and decodes its first frame. One that `may_be_cut` may lack its end.
#[must_use]
pub fn video(file: &Path, max_picture_side: u32, may_be_cut: bool) -> Verdict<VideoManifest> {
    let refused = |error: SourceError| Verdict::Findings(vec![Finding::new(error.code(), &error.to_string())]);
    first_frame(file, max_picture_side, may_be_cut).map_or_else(refused, Verdict::Ok)
}

fn first_frame(file: &Path, max_picture_side: u32, may_be_cut: bool) -> Result<VideoManifest, SourceError> {
    let mut video = source::open(file, max_picture_side)?;
    if let Some(cut) = video.cut().filter(|_| !may_be_cut) {
        return Err(SourceError::Truncated(cut.clone()));
    }
    video.advance()?.ok_or(SourceError::NoFrame)?;
    let mut picture = Image::default();
    video.picture(&mut picture).map_err(|_| SourceError::NoFrame)?;
    // The picture is turned as the container asks; the declared size may not be.
    let (width, height) = (picture.width(), picture.height());
    Ok(VideoManifest { width, height, ..*video.info() })
}
