//! `framehook up`: every role in one process, on one data folder.
//!
//! Ports are bound and executables checked before work begins. On Ctrl-C or SIGTERM the API stops taking
//! requests, the runner drains its workers, then the rest ends; a second signal ends the process at once,
//! which loses nothing either: whatever is not done is done at the next start.

use std::{io::IsTerminal as _, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use framehook_api::{ApiConfig, UploadCaps};
use framehook_core::{ids::RunnerId, job::HookLimits};
use framehook_infra::{blobs::Blobs, sqlite::Sqlite};
use framehook_orchestrator::OrchestratorConfig;
use framehook_runner::RunnerConfig;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::settings::{LogFormat, Settings};

/// Runs until a signal.
pub(crate) fn up(settings: Settings) -> anyhow::Result<()> {
    start_log(&settings)?;
    check_executable(&settings.worker, "the worker executable", "--worker")?;
    check_executable(&settings.onnxruntime, "the ONNX Runtime library", "--onnxruntime")?;
    std::fs::create_dir_all(&settings.data)
        .with_context(|| format!("cannot make the data folder {}", settings.data.display()))?;
    let settings = Settings {
        data: settings.data.canonicalize().context("cannot resolve the data folder")?,
        worker: settings.worker.canonicalize().context("cannot resolve the worker executable")?,
        onnxruntime: settings.onnxruntime.canonicalize().context("cannot resolve the ONNX Runtime library")?,
        source_dirs: settings.source_dirs.iter().map(|dir| resolve_source_dir(dir)).collect::<anyhow::Result<_>>()?,
        ..settings
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(settings));
    // What blocks a thread now, such as reading from a disk that has gone away, must not keep the process.
    runtime.shutdown_timeout(LEFTOVERS);
    outcome
}

/// Everything that matters has ended before.
const LEFTOVERS: Duration = Duration::from_secs(1);

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log)
        .with_context(|| format!("log filter `{}` is not valid; try `info` or `debug`", settings.log))?;
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::stderr().is_terminal();
    match settings.log_format {
        LogFormat::Text => registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).init(),
    }
    Ok(())
}

fn check_executable(path: &Path, what: &str, flag: &str) -> anyhow::Result<()> {
    if !path.is_file() {
        bail!("{what} is not at {}; run `make build`, or say where it is with {flag}", path.display());
    }
    Ok(())
}

fn resolve_source_dir(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let resolved = dir.canonicalize().with_context(|| format!("cannot read the source folder {}", dir.display()))?;
    if !resolved.is_dir() {
        bail!("the source folder {} is not a folder", dir.display());
    }
    Ok(resolved)
}

/// The roles of this process.
struct Services {
    api: CancellationToken,
    runner: CancellationToken,
    rest: CancellationToken,
    tasks: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.address()).await.with_context(|| {
        format!("cannot listen on {}; choose another port with --port, or --port 0 for a free one", settings.address())
    })?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut services = start(&settings, listener).await?;
    std::fs::write(settings.data.join("url"), &url).context("cannot write the address to the data folder")?;
    greet(&url, &settings);

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        ended = services.first_to_end() => ended,
    };
    println!("Stopping: draining workers (again to stop at once)");
    tokio::select! {
        stopped = services.stop() => stopped?,
        _ = interrupt.recv() => std::process::exit(HARD_STOP),
        _ = terminate.recv() => std::process::exit(HARD_STOP),
    }
    // A stale address would lead the next reader astray.
    std::fs::remove_file(settings.data.join("url")).ok();
    println!("Stopped");
    outcome
}

/// As a shell reports a process ended by Ctrl-C.
const HARD_STOP: i32 = 130;

async fn start(settings: &Settings, listener: TcpListener) -> anyhow::Result<Services> {
    let executable = std::env::current_exe().context("cannot find the path of this executable")?;
    let sqlite = Sqlite::open(&settings.data).await?;
    let (store, bus) = (sqlite.store(), sqlite.bus());
    let blobs = Blobs::open(&settings.data).await.context("cannot open the blob folder")?;
    // Before anybody can upload. What it cannot remove costs room, and the next start tries again.
    let sweep = async { anyhow::Ok(blobs.sweep(&store.live_digests().await?).await?) };
    if let Err(error) = sweep.await {
        warn!("blobs without a name stay for now: {error:#}");
    }
    let (api, runner, rest) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());

    let api_config = ApiConfig {
        worker: settings.worker.clone(),
        plugin_host: executable.clone(),
        onnxruntime: settings.onnxruntime.clone(),
        source_dirs: settings.source_dirs.clone(),
        upload_caps: UploadCaps {
            plugin: settings.max_plugin_mib << 20,
            model: settings.max_model_mib << 20,
            video: settings.max_video_mib << 20,
        },
    };
    let runner_config = RunnerConfig {
        max_workers: settings.max_workers,
        hook_limits: HookLimits {
            call_ms: settings.hook_call_ms,
            memory_bytes: settings.hook_memory_mib << 20,
            ..HookLimits::default()
        },
        source_dirs: settings.source_dirs.clone(),
        intra_threads: settings.intra_threads,
        plugin_cache_key: framehook_engine::compile::cache_key().context("cannot start the plugin engine")?,
        frame_timeout: Duration::from_secs(settings.frame_timeout_s),
        ..RunnerConfig::new(
            RunnerId("local".into()),
            settings.worker.clone(),
            executable,
            settings.onnxruntime.clone(),
            settings.data.join("compiled"),
        )
    };
    let tasks = vec![
        (
            "api",
            tokio::spawn({
                let (store, bus, blobs, cancel) = (store.clone(), bus.clone(), blobs.clone(), api.clone());
                async move { Ok(framehook_api::serve(api_config, listener, store, bus, blobs, cancel).await?) }
            }),
        ),
        ("runner", {
            let (bus, cancel) = (bus.clone(), runner.clone());
            tokio::spawn(async move { Ok(framehook_runner::run(runner_config, bus, blobs, cancel).await?) })
        }),
        ("relay", {
            let (store, bus, cancel) = (store.clone(), bus.clone(), rest.clone());
            tokio::spawn(async move {
                framehook_api::relay::run(store, bus, cancel).await;
                Ok(())
            })
        }),
        ("inbox", {
            let (store, bus, cancel) = (store.clone(), bus.clone(), rest.clone());
            tokio::spawn(async move {
                framehook_api::inbox::run(store, bus, cancel).await;
                Ok(())
            })
        }),
        ("orchestrator", {
            let cancel = rest.clone();
            tokio::spawn(async move {
                framehook_orchestrator::run(OrchestratorConfig::default(), store, bus, cancel).await;
                Ok(())
            })
        }),
    ];
    Ok(Services { api, runner, rest, tasks })
}

impl Services {
    /// Waits for a role to end, which none should do by itself.
    async fn first_to_end(&mut self) -> anyhow::Result<()> {
        let ends = self.tasks.iter_mut().map(|(name, task)| Box::pin(async move { (*name, task.await) }));
        let ((name, result), index, _) = futures::future::select_all(ends).await;
        self.tasks.swap_remove(index);
        match result {
            Ok(Ok(())) => bail!("the {name} ended by itself"),
            Ok(Err(error)) => Err(error.context(format!("the {name} failed"))),
            Err(panic) => bail!("the {name} failed: {panic}"),
        }
    }

    /// Readiness off, runner drained, the rest last, so that the last words of the runner are still stored.
    async fn stop(&mut self) -> anyhow::Result<()> {
        for (cancel, names) in
            [(&self.api, &["api"][..]), (&self.runner, &["runner"]), (&self.rest, &["relay", "inbox", "orchestrator"])]
        {
            cancel.cancel();
            for (name, task) in self.tasks.iter_mut().filter(|(name, _)| names.contains(name)) {
                match timeout(STOP_DEADLINE, task).await {
                    Ok(Ok(Ok(()))) => info!("{name} stopped"),
                    Ok(Ok(Err(error))) => error!("{name} stopped: {error:#}"),
                    Ok(Err(panic)) => error!("{name} stopped: {panic}"),
                    Err(_) => error!("{name} did not stop within {STOP_DEADLINE:?}"),
                }
            }
        }
        Ok(())
    }
}

/// A runner drains for 5 s, waits 4 s for killed workers and 5 s for its last heartbeat; this is past all of it.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// The first thing a new user sees: where it is, and what to do next.
fn greet(url: &str, settings: &Settings) {
    println!(
        "\
Framehook {version} is up
  API      {url}
  Docs     {url}/docs
  Data     {data}
  Workers  at most {workers}

Upload a model, a video and the plugin that reads the model, then post a scenario:
  curl -sS --data-binary @model.onnx '{url}/model?name=street&version=1'
  curl -sS --data-binary @video.mp4 '{url}/video?name=street&version=1'
  curl -sS --data-binary @yolo.wasm '{url}/plugin'
  curl -sS '{url}/scenario/init' -H 'content-type: application/json' \\
       -d '{{\"source\": {{\"video\": \"street@1\"}}, \"model\": \"street@1\", \"plugins\": {{\"post\": [{{\"use\": \"yolo\"}}]}}}}'
  curl -sS '{url}/prediction/ID'

Ctrl-C stops it; everything is kept in the data folder.",
        version = env!("CARGO_PKG_VERSION"),
        data = settings.data.display(),
        workers = settings.max_workers,
    );
}
