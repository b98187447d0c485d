//! Judges plugins and lets them judge: compiled in one child process, asked in another.
//!
//! Invariant: the child that runs a stranger's code only reads what the child that compiles wrote. So the
//! compiled form that is kept, which runners use as well, is what the compiler made of the upload, whatever
//! the plugin does.
//!
//! An upload that is refused for what it says of itself leaves its compiled form behind, which is swept as
//! unused.

use std::{path::Path, time::Duration};

use framehook_compiled::{CompileError, Compiled};
use framehook_core::{
    artifact::{ArtifactKind, Manifest},
    error_code::ErrorCode,
    ids::Digest,
    probe::{ConfigProblem, ConfigVerdict, Finding, MAX_ANSWER, Verdict},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    ApiConfig, App,
    check::probe::{self, MEMORY, ProbeError, child, conclude, in_turn, read, refusal},
    http::problem::Problem,
};

/// For the plugin's answer. Its own time is a quarter of a second a call, its schema's two seconds, and a
/// busy machine may take its time to load the code of a script engine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// For some 150 instances and 400 calls, each within its deadline.
const CONFORMANCE_LIMIT: Duration = Duration::from_secs(300);

/// Bytes of an answer about a trial: a prediction, and what a hook may log meanwhile.
const MAX_TRIAL: u64 = 4 << 20;

/// What the plugin in `file` says it is, if it is a usable one.
///
/// # Errors
/// `invalid_plugin` with what is wrong.
pub(crate) async fn inspect(app: &App, digest: &Digest, file: &Path) -> Result<Manifest, Problem> {
    let ask = describe(&app.config, digest, file);
    let verdict = in_turn(&app.probe_queues.uploads, ArtifactKind::Plugin.as_str(), ask).await;
    conclude(ArtifactKind::Plugin, ErrorCode::InvalidPlugin, verdict, file)
}

/// What the plugin in `file` says it is, or what is wrong with it.
pub(crate) async fn describe(config: &ApiConfig, digest: &Digest, file: &Path) -> Result<Verdict<Value>, ProbeError> {
    match compiled(config, digest, file).await? {
        Ok(compiled) => answer(command(config, "describe", &compiled), &[]).await,
        Err(findings) => Ok(Verdict::Findings(findings)),
    }
}

/// Asks a plugin's schema and the plugin whether they accept a configuration; an empty answer is a yes. A
/// plugin whose compiled form is not there, such as one that an older release took, is compiled first.
///
/// # Errors
/// `invalid_plugin_config` when the plugin gives no answer.
pub(crate) async fn validate_config(
    app: &App,
    digest: &Digest,
    file: &Path,
    config: &Value,
) -> Result<Vec<ConfigProblem>, Problem> {
    let ask = judge_config(&app.config, digest, file, config);
    let verdict = in_turn(&app.probe_queues.configs, digest.hex(), ask).await;
    let ConfigVerdict { problems, failed } = verdict.map_err(|error| {
        refusal(ErrorCode::InvalidPluginConfig, "the plugin could not be asked about its configuration", &error)
    })?;
    if let (true, Some(problem)) = (failed, problems.first()) {
        tracing::warn!(plugin = digest.hex(), "a configuration was not judged: {}", problem.message);
    }
    Ok(problems)
}

/// What a plugin and its schema say of a configuration.
pub(crate) async fn judge_config(
    config: &ApiConfig,
    digest: &Digest,
    file: &Path,
    given: &Value,
) -> Result<ConfigVerdict, ProbeError> {
    match compiled(config, digest, file).await? {
        Ok(compiled) => {
            let command = command(config, "validate-config", &compiled);
            answer(command, given.to_string().as_bytes()).await.map(ConfigVerdict::bounded)
        }
        Err(findings) => {
            let problems = findings.iter().map(|finding| ConfigProblem::new("", &finding.message)).collect();
            Ok(ConfigVerdict { problems, failed: true }.bounded())
        }
    }
}

/// The compiled form of a plugin, or what is wrong with the plugin.
async fn compiled(
    config: &ApiConfig,
    digest: &Digest,
    file: &Path,
) -> Result<Result<Compiled, Vec<Finding>>, ProbeError> {
    let ApiConfig { compiled, plugin_host, .. } = config;
    Err(match compiled.compiled(digest, file).await {
        Ok(compiled) => return Ok(Ok(compiled)),
        Err(CompileError::Refused(findings)) => return Ok(Err(findings)),
        Err(CompileError::TooLong(limit)) => ProbeError::Timeout(limit),
        Err(CompileError::Failed { status, said }) => {
            tracing::debug!(%status, "compiler: {said}");
            ProbeError::Crashed(status)
        }
        Err(CompileError::Died(status)) => ProbeError::Crashed(status),
        Err(CompileError::Start(cause)) => ProbeError::Start { program: plugin_host.display().to_string(), cause },
        Err(CompileError::Folder { what, source }) => ProbeError::Folder { what, cause: source },
    })
}

fn command(config: &ApiConfig, verb: &str, compiled: &Compiled) -> Command {
    let ApiConfig { plugin_host, sandbox, .. } = config;
    let mut command = probe::command(sandbox, plugin_host, &["plugin-host", verb], Some(&compiled.path), MEMORY);
    command.arg(compiled.digest.as_str());
    command
}

/// Lets a plugin work on kept outputs; the rest is between this executable and its child.
pub(crate) async fn run_trial<T: DeserializeOwned>(config: &ApiConfig, trial: &Value) -> Result<T, ProbeError> {
    ask(config, "try", trial, ANSWER_LIMIT).await
}

/// Tries whether a plugin keeps to the contract.
pub(crate) async fn run_conformance<T: DeserializeOwned>(config: &ApiConfig, subject: &Value) -> Result<T, ProbeError> {
    ask(config, "conform", subject, CONFORMANCE_LIMIT).await
}

async fn ask<T: DeserializeOwned>(
    config: &ApiConfig,
    verb: &str,
    what: &Value,
    longest: Duration,
) -> Result<T, ProbeError> {
    let ApiConfig { plugin_host, sandbox, .. } = config;
    let command = probe::command(sandbox, plugin_host, &["plugin-host", verb], None, MEMORY);
    read(&child(command, what.to_string().as_bytes(), MAX_TRIAL, longest).await?)
}

async fn answer<T: DeserializeOwned>(command: Command, input: &[u8]) -> Result<T, ProbeError> {
    read(&child(command, input, MAX_ANSWER, ANSWER_LIMIT).await?)
}
