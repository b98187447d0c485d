//! What every role of this executable does first and last: its log, the check of its files, its runtime.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use framehook_api::{ApiConfig, HttpLimits, Limits, Signing, UploadCaps};
use framehook_compiled::{self as compiled, CompiledPlugins};
use framehook_confine::keep_memory_private;
use framehook_core::{execution::Provider, ids::RunnerId, job::HookLimits, log_budget::LogLimits, memory::MemoryCaps};
use framehook_infra::{
    private,
    registry::{Credentials, Registries},
    seal::Key,
    signing::TrustedKeys,
    store::Keep,
};
use framehook_orchestrator::OrchestratorConfig;
use framehook_runner::RunnerConfig;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{
    confinement::Confined,
    log,
    settings::{PARENTS, Settings},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything that matters has ended before.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Runs a role to its end.
pub(crate) fn run<F>(name: &str, settings: Settings, role: impl FnOnce(Settings) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    // Keys and credentials are in it, and children of this user may be a stranger's by then.
    keep_memory_private()?;
    let traces = log::start(name, &settings)?;
    let settings = resolve(name, settings)?;
    raise_file_limit();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(role(settings));
    // What blocks a thread now, such as reading from a disk that has gone away, must not keep the process.
    runtime.shutdown_timeout(LEFTOVERS);
    if let Some(traces) = traces {
        traces.end();
    }
    outcome
}

/// Checks the files that are named, and makes their paths independent of where the process was started.
fn resolve(name: &str, mut settings: Settings) -> anyhow::Result<Settings> {
    if name == "up" || PARENTS.contains(&name) {
        resolve_children(&mut settings)?;
        let dirs = settings.source_dirs.iter().map(|dir| resolve_source_dir(dir)).collect();
        settings.source_dirs = settings.blame("source_dirs", dirs)?;
    }
    // It keeps nothing in a folder, so it makes none.
    if name == "migrate" {
        return Ok(settings);
    }
    if settings.data.is_file() {
        bail!("{} is a file; name a folder with {}", settings.data.display(), settings.origins.of("data"));
    }
    let made = private::folder(&settings.data);
    let made = made.with_context(|| format!("cannot make the data folder {}", settings.data.display()));
    settings.blame("data", made)?;
    settings.data = settings.data.canonicalize().context("cannot resolve the data folder")?;
    Ok(settings)
}

/// What the children of this process are.
pub(crate) fn resolve_children(settings: &mut Settings) -> anyhow::Result<()> {
    let origin = |id| settings.origins.of(id);
    settings.worker = resolve_file(&settings.worker, "the worker executable", origin("worker"))?;
    settings.onnxruntime = resolve_file(&settings.onnxruntime, "the ONNX Runtime library", origin("onnxruntime"))?;
    settings.onnxruntime_openvino =
        provider_library(&settings.onnxruntime_openvino, "openvino", origin("onnxruntime_openvino"))?;
    settings.onnxruntime_gpu = provider_library(&settings.onnxruntime_gpu, "gpu", origin("onnxruntime_gpu"))?;
    Ok(())
}

fn resolve_file(path: &Path, what: &str, origin: &str) -> anyhow::Result<PathBuf> {
    if !path.is_file() {
        bail!("{what} is not at {}; run `make build`, or say where it is with {origin}", path.display());
    }
    path.canonicalize().with_context(|| format!("cannot resolve {what}"))
}

/// The library that was named, or that which is beside this executable, if it is.
fn provider_library(named: &Option<PathBuf>, name: &str, origin: &str) -> anyhow::Result<Option<PathBuf>> {
    let what = "this ONNX Runtime library";
    match named {
        Some(path) => resolve_file(path, what, origin).map(Some),
        None => {
            let path = this_executable()?.with_file_name(format!("onnxruntime-{name}")).join("libonnxruntime.so");
            path.is_file().then(|| resolve_file(&path, what, origin)).transpose()
        }
    }
}

fn resolve_source_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let resolved = dir.canonicalize().with_context(|| format!("cannot read the source folder {}", dir.display()))?;
    if !resolved.is_dir() {
        bail!("the source folder {} is not a folder", dir.display());
    }
    Ok(resolved)
}

/// Opens the folder of compiled plugins; an API and a runner of one process share it.
pub(crate) fn compiled_plugins(settings: &Settings, confined: &Confined) -> anyhow::Result<CompiledPlugins> {
    let folder = settings.compiled_dir.clone().unwrap_or_else(|| settings.data.join("compiled"));
    let compiled = CompiledPlugins::open(compiled::Settings {
        // Children begin in a folder of their own.
        folder: std::path::absolute(folder).context("cannot resolve the folder of compiled plugins")?,
        engine: framehook_engine::compile::cache_key().context("cannot start the plugin engine")?,
        plugin_host: this_executable()?,
        sandbox: confined.sandbox.clone(),
        timeout: Duration::from_secs(settings.compile_timeout_s),
    });
    settings.blame("compiled_dir", compiled)
}

pub(crate) fn api_config(
    settings: &Settings,
    confined: &Confined,
    compiled: CompiledPlugins,
    key: Option<Key>,
) -> anyhow::Result<ApiConfig> {
    let trusted = settings.trusted_keys.as_deref().map(TrustedKeys::read);
    let auth = settings.registry_auth.clone();
    let credentials = auth.map_or(Credentials::None, |file| Credentials::Docker(Some(file)));
    Ok(ApiConfig {
        worker: settings.worker.clone(),
        plugin_host: this_executable()?,
        compiled,
        onnxruntime: settings.onnxruntime.clone(),
        sandbox: confined.sandbox.clone(),
        source_dirs: settings.source_dirs.clone(),
        key,
        max_picture_side: settings.max_picture_side,
        upload_caps: UploadCaps {
            plugin: settings.max_plugin_mib << 20,
            model: settings.max_model_mib << 20,
            video: settings.max_video_mib << 20,
        },
        http: http_limits(settings),
        memory: MemoryCaps {
            worker_mib: settings.worker_memory_mib,
            hook_mib: u32::try_from(settings.hook_memory_mib).unwrap_or(u32::MAX),
        },
        limits: Limits {
            page_bytes: settings.limits.max_page_mib << 20,
            config_bytes: settings.limits.max_config_kib << 10,
            configs_bytes: settings.limits.max_configs_kib << 10,
            configs_time: Duration::from_secs(settings.limits.max_configs_s),
            pages_at_once: settings.limits.max_pages_at_once,
            starts_a_minute: settings.limits.max_starts_min,
            hooks: settings.hook_ceilings(),
        },
        require_versions: settings.limits.require_versions,
        lame_duck: Duration::ZERO,
        signing: Signing {
            trusted: settings.blame("trusted_keys", trusted.unwrap_or_else(|| Ok(TrustedKeys::default())))?,
            is_required: settings.require_signed,
        },
        registries: Registries::listed(settings.registries.clone(), credentials),
    })
}

/// As set, but a quarter of the descriptors at most: a connection that uploads has a file open too,
/// and what works inside needs as many again.
pub(crate) fn http_limits(settings: &Settings) -> HttpLimits {
    let limits = settings.http.limits();
    let files =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let connections = limits.connections.min((files / 4).max(1));
    if connections < limits.connections {
        warn!("at most {connections} connections instead of {}: only {files} files may be open", limits.connections);
    }
    HttpLimits { connections, ..limits }
}

/// Shells and service managers give 1,024 for the sake of programs that use `select`, and leave it
/// to the rest to take more.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        warn!("at most {:?} files may be open, because that limit could not be raised: {error}", limit.current);
    }
}

pub(crate) fn orchestrator_config(settings: &Settings) -> OrchestratorConfig {
    let keep_results = settings.keep_results_days.map(|days| DAY * days);
    let keep = Keep { dead_letters: DAY * settings.limits.keep_dead_letters_days, ..Keep::default() };
    OrchestratorConfig { keep_results, keep, ..OrchestratorConfig::default() }
}

pub(crate) fn runner_config(settings: &Settings, confined: Confined, id: RunnerId, key: Option<Key>) -> RunnerConfig {
    RunnerConfig {
        sandbox: confined.sandbox,
        confinement: confined.table,
        max_workers: settings.max_workers,
        labels: settings.labels(),
        hook_limits: HookLimits {
            call_ms: settings.hook_call_ms,
            memory_bytes: settings.hook_memory_mib << 20,
            prediction_bytes: settings.limits.max_prediction_kib << 10,
            log: LogLimits { lines: settings.limits.max_log_lines, bytes: settings.limits.max_log_kib << 10 },
            ..HookLimits::default()
        },
        hook_ceilings: settings.hook_ceilings(),
        prediction_bytes_per_s: settings.limits.max_prediction_mib_s << 20,
        source_dirs: settings.source_dirs.clone(),
        max_recording_bytes: settings.max_video_mib << 20,
        max_outputs_bytes: settings.limits.max_outputs_mib << 20,
        worker_memory_mib: settings.worker_memory_mib,
        memory_mib: settings.runner_memory_mib,
        fetch_timeout: Duration::from_secs(settings.fetch_timeout_s),
        least_rate: settings.fetch_least_kib_s << 10,
        first_inference: Duration::from_secs(settings.first_inference_s),
        disk_reserve: settings.disk_reserve(),
        source_networks: settings.source_networks.clone(),
        key,
        intra_threads: settings.intra_threads,
        decoder: settings.decoder.into(),
        provider: settings.provider,
        precision: settings.precision,
        providers: providers(settings),
        provider_options: provider_options(settings),
        lanes: settings.lanes,
        max_picture_side: settings.max_picture_side,
        frame_timeout: Duration::from_secs(settings.frame_timeout_s),
        ..RunnerConfig::new(
            id,
            settings.worker.clone(),
            settings.onnxruntime.clone(),
            settings.data.join("recordings"),
            settings.data.join("measured"),
        )
    }
}

/// One library has both that run on a GPU.
fn providers(settings: &Settings) -> BTreeMap<Provider, PathBuf> {
    let Settings { onnxruntime_openvino: openvino, onnxruntime_gpu: gpu, .. } = settings;
    let all = [(Provider::Openvino, openvino), (Provider::Cuda, gpu), (Provider::Tensorrt, gpu)];
    all.into_iter().filter_map(|(provider, library)| Some((provider, library.clone()?))).collect()
}

fn provider_options(settings: &Settings) -> BTreeMap<Provider, BTreeMap<String, String>> {
    let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (provider, key, value) in settings.provider_options.iter().cloned() {
        all.entry(provider).or_default().insert(key, value);
    }
    all
}

pub(crate) fn this_executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of this executable")
}
