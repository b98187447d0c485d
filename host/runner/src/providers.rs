//! Which execution providers this machine has, and which of them runs a scenario's model.
//!
//! Invariants: what ran the stored frames of a scenario goes on doing so, or nothing does. Whether a provider
//! is there and how fast it is are found out by children that are confined as workers are; a model is
//! measured once, however many scenarios wait for it.

use std::{process::Stdio, sync::Arc, time::Duration};

use framehook_confine::Limits;
use framehook_core::{
    execution::{Execution, Measured, Precision, Provider, ProviderStatus, choose, fastest},
    job::{Job, write_record},
    reason::{Reason, ReasonCode, without_source_places},
    spec::{Decoder, ResolvedScenario},
    text::last_lines,
};
use framehook_infra::turns::Turns;
use futures::future::join_all;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    config::{RunnerConfig, RunnerError},
    failure::Failure,
    process::with_library,
};

/// Longest that a check or a measurement may take: TensorRT takes half a minute for a small model.
const CHILD_TIME: Duration = Duration::from_secs(120);

/// A GPU's libraries take most of it, before they have seen a model.
const CHILD_MEMORY: u64 = 8 << 30;

/// What runs a job, and how that was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) execution: Execution,
    /// The fastest of what was measured.
    pub(crate) measured: Option<Measured>,
}

pub(crate) struct Providers {
    config: Arc<RunnerConfig>,
    /// Names this processor's features, and the engine of hooks.
    machine: String,
    found: Vec<ProviderStatus>,
    measurements: Turns<String>,
}

impl Providers {
    /// Finds out what there is. `machine` names its processor's features.
    ///
    /// # Errors
    /// When the runner is set to a provider that cannot be used, or to a precision that none of them has.
    pub(crate) async fn find(config: Arc<RunnerConfig>, machine: &str) -> Result<Self, RunnerError> {
        let cpu = ProviderStatus {
            provider: Provider::Cpu,
            precisions: vec![Precision::F32],
            why: "ONNX Runtime's own".into(),
        };
        let others = [Provider::Openvino, Provider::Cuda, Provider::Tensorrt];
        let others = others.into_iter().map(|provider| check(&config, provider));
        let found = [cpu].into_iter().chain(join_all(others).await).collect();
        let providers = Self { config, machine: machine.to_owned(), found, measurements: Turns::default() };
        for ProviderStatus { provider, precisions, why } in &providers.found {
            tracing::info!(provider = provider.as_str(), ?precisions, why, "execution provider");
        }
        let RunnerConfig { provider, precision, .. } = *providers.config;
        if providers.candidates(provider.provider(), precision).is_empty() {
            let why = providers.missing(provider.provider(), precision);
            return Err(RunnerError::Provider { provider: provider.as_str(), precision: precision.as_str(), why });
        }
        Ok(providers)
    }

    pub(crate) fn found(&self) -> &[ProviderStatus] {
        &self.found
    }

    /// What runs the model of this job. `pinned` is what ran the frames that are stored.
    ///
    /// # Errors
    /// When that is not here.
    pub(crate) async fn choose(
        &self,
        pinned: Option<Execution>,
        scenario: &ResolvedScenario,
        job: &Job,
    ) -> Result<Chosen, Failure> {
        if let Some(execution) = pinned {
            return self.go_on(execution);
        }
        let provider = scenario.provider.unwrap_or(self.config.provider).provider();
        let precision = scenario.precision.unwrap_or(self.config.precision);
        let candidates = self.candidates(provider, precision);
        let mut measured = Vec::new();
        for execution in candidates.iter().copied().filter(|execution| *execution != Execution::default()) {
            measured.extend(self.measured(execution, job).await);
        }
        let works = candidates.contains(&Execution::default()) || !measured.is_empty();
        match choose(&candidates, &measured) {
            Some(execution) if works || !scenario.provider_fallback => {
                Ok(Chosen { execution, measured: fastest(&measured).copied() })
            }
            _ if scenario.provider_fallback => {
                tracing::warn!("the model runs on the processor in f32, because what it should run on does not");
                Ok(Chosen::default())
            }
            _ => Err(unavailable(self.missing(provider, precision))),
        }
    }

    fn go_on(&self, execution: Execution) -> Result<Chosen, Failure> {
        let is_here = self.found.iter().flat_map(ProviderStatus::executions).any(|here| here == execution);
        if is_here {
            return Ok(Chosen { execution, measured: None });
        }
        let why = self.missing(Some(execution.provider), execution.precision);
        let message = format!("its frames so far were made by {execution}, which this runner does not have: {why}");
        Err(unavailable(message))
    }

    /// What may run a model, in the order of the providers.
    fn candidates(&self, wanted: Option<Provider>, precision: Precision) -> Vec<Execution> {
        let executions = self.found.iter().flat_map(ProviderStatus::executions);
        let is_meant = |execution: &Execution| match wanted {
            Some(provider) => execution.provider == provider,
            // It takes minutes to prepare a model.
            None => execution.provider != Provider::Tensorrt,
        };
        executions.filter(|execution| execution.precision == precision && is_meant(execution)).collect()
    }

    /// Why there is none.
    fn missing(&self, wanted: Option<Provider>, precision: Precision) -> String {
        let precision = precision.as_str();
        let Some(wanted) = wanted else { return format!("no provider of this runner runs models in {precision}") };
        let name = wanted.as_str();
        match self.found.iter().find(|status| status.provider == wanted) {
            Some(status) if status.precisions.is_empty() => {
                format!("the provider `{name}` cannot be used here: {}", status.why)
            }
            Some(status) => {
                let why = &status.why;
                format!("the provider `{name}` does not run models in {precision} on this machine ({why})")
            }
            None => format!("this runner does not know the provider `{name}`"),
        }
    }

    /// As measured now or before; `None` if it does not work, which the log tells.
    async fn measured(&self, execution: Execution, job: &Job) -> Option<Measured> {
        let name = self.key(execution, job);
        let file = self.config.measured_dir.join(format!("{name}.json"));
        let _turn = self.measurements.wait(name).await;
        let kept = tokio::fs::read(&file).await.ok();
        if let Some(measured) = kept.and_then(|text| serde_json::from_slice(&text).ok()) {
            return Some(measured);
        }
        let measured = self.measure(execution, job).await;
        let measured: Measured =
            measured.inspect_err(|why| tracing::warn!(%execution, why, "the model was not measured")).ok()?;
        tracing::info!(
            %execution, ms = measured.ms, cpu_ms = measured.cpu_ms, frames = measured.frames,
            max_deviation = measured.max_deviation, "measured"
        );
        // Where this fails, it is measured again.
        if let Ok(text) = serde_json::to_vec(&measured) {
            tokio::fs::write(&file, text).await.ok();
        }
        Some(measured)
    }

    /// Names everything that a measurement depends on.
    fn key(&self, execution: Execution, job: &Job) -> String {
        let (machine, intra_threads) = (&self.machine, self.config.intra_threads);
        let version = self.found.iter().find(|s| s.provider == execution.provider).map_or("", |s| &s.why);
        let (model, options) = (&job.provenance.model, self.config.options_of(execution.provider));
        let input = serde_json::to_string(&job.input).unwrap_or_default();
        let text = format!("{model} {input} {execution} {version} {options:?} {intra_threads} {machine}");
        format!("{:x}", Sha256::digest(text))
    }

    async fn measure(&self, execution: Execution, job: &Job) -> Result<Measured, String> {
        let mut job = job.clone();
        self.config.execute(&mut job, execution);
        let mut record = Vec::new();
        write_record(&mut record, &job).map_err(|error| error.to_string())?;
        let mut command = command(&self.config, job.decoder, execution.provider);
        command.arg("measure").args(execution.provider.has_gpu().then_some("--gpu"));
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that does not read it says why.
            stdin.write_all(&record).await.ok();
        }
        answer(child).await
    }
}

fn unavailable(why: String) -> Failure {
    Failure::Fatal(Reason::new(ReasonCode::ProviderUnavailable, why))
}

/// The target of the Makefile that fetches it.
const fn set_up(provider: Provider) -> &'static str {
    if provider.has_gpu() { "gpu" } else { "openvino" }
}

/// Starts the provider once, with a small model.
async fn check(config: &RunnerConfig, provider: Provider) -> ProviderStatus {
    let Some(library) = config.providers.get(&provider) else {
        let why = format!("this runner has no library with it; `make setup-{}` fetches one", set_up(provider));
        return ProviderStatus { provider, precisions: Vec::new(), why };
    };
    let mut command = command(config, Decoder::Libav, provider);
    command.args(["check-provider", provider.as_str(), "--onnxruntime"]).arg(library).stdin(Stdio::null());
    for (key, value) in config.options_of(provider) {
        command.arg("--option").arg(format!("{key}={value}"));
    }
    let checked: Result<Vec<Precision>, String> = match command.spawn() {
        Ok(child) => answer(child).await,
        Err(error) => Err(error.to_string()),
    };
    let library = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match checked {
        Ok(precisions) => {
            let why = library + &lacking(provider, &precisions);
            ProviderStatus { provider, precisions, why }
        }
        Err(why) => ProviderStatus { provider, precisions: Vec::new(), why },
    }
}

/// Which of a provider's precisions are not there, and why, behind the name of its library.
fn lacking(provider: Provider, here: &[Precision]) -> String {
    let lacking = provider.precisions().iter().filter(|precision| !here.contains(precision));
    let lacking: Vec<_> = lacking.map(|precision| precision.as_str()).collect();
    let hardware = if provider.has_gpu() { "GPU" } else { "processor" };
    match &*lacking {
        [] => String::new(),
        lacking => format!("; not in {}, for which this {hardware} has no instructions", lacking.join(" and ")),
    }
}

fn command(config: &RunnerConfig, decoder: Decoder, provider: Provider) -> Command {
    let limits = Limits { memory: CHILD_MEMORY, cpu_seconds: Some(CHILD_TIME.as_secs()), file_size: 0 };
    let mut command = config.sandbox.command(&config.worker_with(decoder), limits);
    with_library(&mut command, config, provider);
    let mut command = Command::from(command);
    command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The JSON that a child prints, or its last words.
async fn answer<T: DeserializeOwned>(child: Child) -> Result<T, String> {
    // When the time is over the future is dropped, and the child killed with it.
    let output = match timeout(CHILD_TIME, child.wait_with_output()).await {
        Err(_) => return Err(format!("it took longer than {CHILD_TIME:?}")),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        return Err(in_plain_text(&last_lines(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// What ONNX Runtime logs is coloured, and says where in its source it happened.
fn in_plain_text(said: &str) -> String {
    let mut parts = said.split("\u{1b}[");
    let first = parts.next().unwrap_or_default();
    let others = parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text));
    let plain: String = [first].into_iter().chain(others).collect();
    without_source_places(&plain.replace("framehook-worker: ", ""))
}

#[cfg(test)]
mod tests {
    use framehook_core::ids::RunnerId;

    use super::*;

    #[test]
    fn a_provider_says_in_which_precisions_it_is_not_here() {
        use Precision as P;
        let said = lacking(Provider::Openvino, &[P::F32]);
        assert_eq!(said, "; not in bf16 and f16, for which this processor has no instructions");
        assert_eq!(lacking(Provider::Openvino, &P::ALL), "");
        assert_eq!(lacking(Provider::Cuda, &[P::F32]), "");
        assert!(lacking(Provider::Tensorrt, &[P::F32, P::F16]).contains("not in bf16, for which this GPU"));
    }

    /// With OpenVINO in two precisions, and CUDA that cannot be used.
    fn providers() -> Providers {
        let none = std::path::PathBuf::new;
        let config = RunnerConfig::new(RunnerId("r".into()), none(), none(), none(), none());
        let status = |provider, precisions: &[Precision], why: &str| ProviderStatus {
            provider,
            precisions: precisions.to_vec(),
            why: why.into(),
        };
        let found = vec![
            status(Provider::Cpu, &[Precision::F32], ""),
            status(Provider::Openvino, &[Precision::F32, Precision::Bf16], ""),
            status(Provider::Cuda, &[], "there is no driver"),
            status(Provider::Tensorrt, &[Precision::F32, Precision::F16], ""),
        ];
        Providers { config: Arc::new(config), machine: String::new(), found, measurements: Turns::default() }
    }

    #[test]
    fn candidates_are_what_was_asked_for_and_tensorrt_is_never_tried() {
        let check = |wanted, precision, expected: &[Provider]| {
            let given: Vec<_> = providers().candidates(wanted, precision).iter().map(|e| e.provider).collect();
            assert_eq!(given, expected, "{wanted:?} {precision:?}");
        };
        check(None, Precision::F32, &[Provider::Cpu, Provider::Openvino]);
        check(None, Precision::Bf16, &[Provider::Openvino]);
        check(None, Precision::F16, &[]);
        check(Some(Provider::Tensorrt), Precision::F16, &[Provider::Tensorrt]);
        check(Some(Provider::Cuda), Precision::F32, &[]);
    }

    #[test]
    fn what_is_missing_is_said() {
        for (wanted, precision, words) in [
            (Some(Provider::Cuda), Precision::F32, "the provider `cuda` cannot be used here: there is no driver"),
            (Some(Provider::Openvino), Precision::F16, "`openvino` does not run models in f16 on this machine"),
            (None, Precision::F16, "no provider of this runner runs models in f16"),
        ] {
            let said = providers().missing(wanted, precision);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_ran_before_goes_on_or_nothing_does() {
        let bf16 = Execution { provider: Provider::Openvino, precision: Precision::Bf16 };
        assert_eq!(providers().go_on(bf16).unwrap(), Chosen { execution: bf16, measured: None });
        let cuda = Execution { provider: Provider::Cuda, ..bf16 };
        let refused = providers().go_on(cuda).unwrap_err();
        assert!(matches!(refused, Failure::Fatal(reason) if reason.code == ReasonCode::ProviderUnavailable
            && reason.message.contains("its frames so far were made by cuda in bf16")));
    }

    #[test]
    fn logs_become_plain_text() {
        let said = "\u{1b}[1;31m2026-11-27 [E:onnxruntime] /onnxruntime/core/a.cc:141 no GPU\u{1b}[m | framehook-worker: Failed to load";
        assert_eq!(in_plain_text(said), "2026-11-27 [E:onnxruntime] no GPU | Failed to load");
    }
}
