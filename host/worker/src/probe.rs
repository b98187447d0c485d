//! Verdicts about uploads, as the API asks for them: JSON on standard output, whatever the verdict.
//!
//! Invariant: an upload that passes is one that a worker can load, because the same code loads it.

use std::path::Path;

use framehook_core::{
    artifact::{ModelManifest, VideoManifest},
    input::{InputOptions, InputSpec, TensorInfo},
    probe::{Finding, Verdict, printable},
};

use crate::{
    image::Image,
    model::{Model, ModelError},
    source::{self, SourceError},
};

/// Loads a model and looks at its inputs and outputs.
#[must_use]
pub fn model(file: &Path, onnxruntime: &Path) -> Verdict<ModelManifest> {
    let refused = |error: ModelError| Finding::new(error.code(), &error.to_string());
    let checked = Model::load(file, onnxruntime, 1).map_err(refused).and_then(|model| {
        let manifest = model.manifest();
        let (input, warning) = look_at_inputs(&manifest, &model)?;
        let warnings = warning.into_iter().chain(model.left_out()).collect();
        Ok(ModelManifest { input, warnings, ..manifest })
    });
    checked.map_or_else(|finding| Verdict::Findings(vec![finding]), Verdict::Ok)
}

/// What becomes of a frame by default, and what a scenario has to say, or might want to know; a
/// finding if nothing that it says would help.
fn look_at_inputs(manifest: &ModelManifest, model: &Model) -> Result<(Option<InputSpec>, Option<String>), Finding> {
    match InputOptions::default().resolve(&manifest.inputs) {
        Ok(spec) => {
            let warning = (spec.batch > 1).then(|| batched(spec.batch, model.not_by_rows(spec.batch).as_ref()));
            Ok((Some(spec), warning))
        }
        Err(error) if error.field == "model" || manifest.inputs.is_empty() => {
            Err(Finding::new("unsuitable_input", &error.message))
        }
        Err(error) => {
            let warning = format!("a scenario has to say `{}`: {}", error.field, printable(&error.message));
            Ok((None, Some(warning)))
        }
    }
}

/// What a fixed batch means: `alone` is the output that keeps frames from being run together.
fn batched(batch: u32, alone: Option<&TensorInfo>) -> String {
    match alone {
        None => format!(
            "its batch is fixed to {batch}: as many consecutive frames are run at a time, and the first waits for the others; \
             where fewer are left, the rest is zeros"
        ),
        Some(TensorInfo { name, .. }) => format!(
            "its batch is fixed to {batch}, but output `{name}` does not have {batch} as its first dimension: each frame is run \
             alone with {} rows of zeros, which cost as much; export it with batch size 1",
            batch - 1
        ),
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
