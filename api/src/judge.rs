//! What an upload or a scenario is told, for tools that have files and no service: the same children, with
//! the same limits, without turns.

use std::path::Path;

use framehook_core::{
    artifact::{ModelManifest, PluginManifest, VideoManifest},
    ids::Digest,
    probe::{ConfigVerdict, Verdict},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    ApiConfig,
    check::{
        plugin,
        probe::{self, ProbeError},
    },
};

pub use crate::check::resolve::input_options;

/// Why a file was not judged.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotJudged(#[from] ProbeError);

/// What the plugin in `file`, which has this digest, says it is.
///
/// # Errors
/// When there is no verdict.
pub async fn plugin(config: &ApiConfig, digest: &Digest, file: &Path) -> Result<Verdict<PluginManifest>, NotJudged> {
    read(plugin::describe(config, digest, file).await?)
}

/// What that plugin and its schema say of a configuration.
///
/// # Errors
/// When there is no verdict.
pub async fn plugin_config(
    config: &ApiConfig,
    digest: &Digest,
    file: &Path,
    given: &Value,
) -> Result<ConfigVerdict, NotJudged> {
    Ok(plugin::judge_config(config, digest, file, given).await?)
}

/// What the model of `size` bytes in `file` is.
///
/// # Errors
/// When there is no verdict.
pub async fn model(config: &ApiConfig, file: &Path, size: u64) -> Result<Verdict<ModelManifest>, NotJudged> {
    read(probe::verdict(probe::model(config, file, size)).await?)
}

/// What the video in `file` is, which may lack its end.
///
/// # Errors
/// When there is no verdict.
pub async fn video(config: &ApiConfig, file: &Path) -> Result<Verdict<VideoManifest>, NotJudged> {
    read(probe::verdict(probe::source(config, file)).await?)
}

/// What came of a trial of a plugin, in a child like those that judge: JSON.
///
/// # Errors
/// When there is no answer.
pub async fn trial<T: DeserializeOwned>(config: &ApiConfig, trial: &Value) -> Result<T, NotJudged> {
    Ok(plugin::run_trial(config, trial).await?)
}

/// What came of the checks of a compiled plugin, in a child like those that judge: JSON.
///
/// # Errors
/// When there is no answer.
pub async fn conformance<T: DeserializeOwned>(config: &ApiConfig, subject: &Value) -> Result<T, NotJudged> {
    Ok(plugin::run_conformance(config, subject).await?)
}

fn read<T: DeserializeOwned>(verdict: Verdict<Value>) -> Result<Verdict<T>, NotJudged> {
    Ok(match verdict.bounded() {
        Verdict::Ok(manifest) => {
            Verdict::Ok(serde_json::from_value(manifest).map_err(|error| ProbeError::NoVerdict(error.to_string()))?)
        }
        Verdict::Findings(findings) => Verdict::Findings(findings),
    })
}
