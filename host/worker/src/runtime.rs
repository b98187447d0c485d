//! What a session is made with: the library, the execution provider, and its options.
//!
//! Invariant: every session of a worker is made here, with the same settings, also in benchmarks.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use framehook_confine::Devices;
use framehook_core::{
    execution::{Execution, Precision, Provider},
    job::Job,
};
use ort::{
    environment::Environment,
    ep::{self, ArbitrarilyConfigurableExecutionProvider as Configurable, ExecutionProviderDispatch},
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};
use parking_lot::Mutex;

use crate::model::ModelError;

/// How models run.
#[derive(Clone, Copy, Debug)]
pub struct Runtime<'a> {
    /// The ONNX Runtime shared library.
    pub library: &'a Path,
    /// Threads of one inference.
    pub intra_threads: usize,
    pub execution: Execution,
    /// Options of the provider, in ONNX Runtime's own words.
    pub options: &'a BTreeMap<String, String>,
}

impl<'a> Runtime<'a> {
    /// The processor in f32.
    #[must_use]
    pub fn cpu(library: &'a Path, intra_threads: usize) -> Self {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        Self { library, intra_threads, execution: Execution::default(), options: NONE }
    }

    #[must_use]
    pub fn of(job: &'a Job) -> Self {
        let Job { onnxruntime, intra_threads, execution, provider_options, .. } = job;
        Self { library: onnxruntime, intra_threads: *intra_threads, execution: *execution, options: provider_options }
    }

    /// A session with the model in `bytes`.
    ///
    /// # Errors
    /// When the library, the provider or the model cannot be used.
    pub(crate) fn session(&self, bytes: &[u8]) -> Result<Session, ModelError> {
        let environment = environment(self.library)?;
        let failed = |error: ort::Error| self.failed(&error.to_string());
        let mut builder = self.builder(&environment).map_err(failed)?;
        self.providers().iter().try_for_each(|provider| provider.register(&mut builder)).map_err(failed)?;
        builder.commit_from_memory(bytes).map_err(failed)
    }

    fn builder(&self, environment: &Environment) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.intra_threads.max(1))?
            // A spinning pool takes the core that decodes the next frame.
            .with_intra_op_spinning(false)?)
    }

    /// A model was loaded by the processor before anybody could ask for another provider: it is not to blame.
    fn failed(&self, why: &str) -> ModelError {
        match self.execution.provider {
            Provider::Cpu => ModelError::load(why),
            provider => ModelError::provider(provider.as_str(), why),
        }
    }

    /// In the order in which they may take a part of a model; the processor takes what is left.
    fn providers(&self) -> Vec<ExecutionProviderDispatch> {
        match self.execution.provider {
            Provider::Cpu => Vec::new(),
            Provider::Openvino => vec![self.with(ep::OpenVINO::default(), &self.openvino()).build()],
            Provider::Cuda => vec![self.with(ep::CUDA::default(), &CUDA).build()],
            Provider::Tensorrt => {
                let cuda =
                    CUDA.into_iter().fold(ep::CUDA::default(), |ep, (key, value)| ep.with_arbitrary_config(key, value));
                vec![self.with(ep::TensorRT::default(), &self.tensorrt()).build(), cuda.build()]
            }
        }
    }

    /// What the operator has set comes last, so it counts.
    fn with<E: Configurable>(&self, provider: E, ours: &[(&str, impl AsRef<str>)]) -> E {
        let ours = ours.iter().map(|(key, value)| (*key, value.as_ref()));
        let set = self.options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        ours.chain(set).fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
    }

    /// One stream with the threads of a session: lanes are what works on several frames. Without the hint,
    /// OpenVINO computes in bf16 wherever the processor can. Each session would pin its thread to the first
    /// core, whatever the others do.
    fn openvino(&self) -> [(&'static str, String); 2] {
        let (precision, threads) = (self.execution.precision.as_str(), self.intra_threads.max(1));
        let config = format!(
            r#"{{"CPU": {{"INFERENCE_PRECISION_HINT": "{precision}", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "{threads}", "ENABLE_CPU_PINNING": "NO"}}}}"#
        );
        [("device_type", "CPU".to_owned()), ("load_config", config)]
    }

    fn tensorrt(&self) -> Vec<(&'static str, &'static str)> {
        match self.execution.precision {
            Precision::F32 => vec![],
            Precision::F16 => vec![("trt_fp16_enable", "1")],
            Precision::Bf16 => vec![("trt_bf16_enable", "1")],
        }
    }
}

/// f32 is f32: no 19-bit products (TF32). And the way to convolve is chosen by rule, not by a race, which
/// another run of the same scenario could lose.
const CUDA: [(&str, &str); 2] = [("use_tf32", "0"), ("cudnn_conv_algo_search", "HEURISTIC")];

/// What a process opens to load a library: where a provider is not part of it, what lies around it, too.
#[must_use]
pub fn files(provider: Provider, library: &Path) -> Vec<PathBuf> {
    let folder = library.parent().filter(|_| provider != Provider::Cpu);
    [library].into_iter().chain(folder).map(Path::to_owned).collect()
}

#[must_use]
pub const fn devices(provider: Provider) -> Devices {
    if provider.has_gpu() { Devices::Gpu } else { Devices::None }
}

/// Loads ONNX Runtime ahead of the first model.
///
/// # Errors
/// When the library is not usable.
pub fn preload(library: &Path) -> Result<(), ModelError> {
    environment(library).map(drop)
}

/// ONNX Runtime allows one environment a process, so the first library that loads stays.
fn environment(library: &Path) -> Result<Environment, ModelError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let failed = |why: String| ModelError::Library { path: library.display().to_string(), why };
    let mut kept = ENVIRONMENT.lock();
    if let Some(environment) = &*kept {
        return Ok(environment.clone());
    }
    let builder = ort::init_from(library).map_err(|error| failed(error.to_string()))?;
    let environment = builder.with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
    Ok(kept.insert(environment).clone())
}
