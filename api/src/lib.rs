//! The REST API and the two services that belong to it: the outbox relay and the results inbox.
//!
//! Architecture invariant: the API decodes no video, loads no model and runs no plugin: child processes do
//! (`check::probe`). It speaks to the orchestrator and the runners only through the store and the bus, and
//! waits for neither.
//!
//! `resource` answers requests, one file a resource; `http` is what surrounds each of them; `check` judges
//! what a client sends before it is taken, and `judge` the same for tools that have files and no service.

#![allow(
    clippy::result_large_err,
    reason = "a request ends with a problem at most once: moving 176 bytes costs nothing"
)]

mod check;
pub mod health;
mod http;
pub mod inbox;
pub mod judge;
mod metrics;
pub mod relay;
mod resource;

use std::{path::PathBuf, sync::Arc, time::Duration};

use framehook_compiled::CompiledPlugins;
use framehook_confine::Sandbox;
use framehook_core::{artifact::ArtifactKind, limits::HookCeilings, memory::MemoryCaps};
use framehook_infra::{blobs::Blobs, bus::SharedBus, cache::Cache, registry::Registries, seal::Key, store::ApiStore};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    check::{hooks::AcceptedConfigs, probe::ProbeQueues},
    resource::{import, log::MAX_FOLLOWERS, response_cache::ResponseCache, start_rate::StartRate},
};

pub use check::signature::Signing;
pub use http::{
    host::HostPattern,
    limits::HttpLimits,
    server::{openapi, router, serve},
};

/// What the API needs to know of its surroundings.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The executable `framehook-worker`, which judges models and videos.
    pub worker: PathBuf,
    /// The executable `framehook`, whose `plugin-host` lets plugins judge.
    pub plugin_host: PathBuf,
    /// Where it finds them.
    pub compiled: CompiledPlugins,
    /// The ONNX Runtime shared library.
    pub onnxruntime: PathBuf,
    /// How they are started.
    pub sandbox: Sandbox,
    /// Folders whose files a scenario may name as its source.
    pub source_dirs: Vec<PathBuf>,
    /// Seals the credentials of sources; without one, sources that have some are refused.
    pub key: Option<Key>,
    pub upload_caps: UploadCaps,
    /// Pixels of a side of a video's pictures, at most.
    pub max_picture_side: u32,
    pub http: HttpLimits,
    /// What a worker may have.
    pub memory: MemoryCaps,
    pub limits: Limits,
    /// Whether a scenario must name the version of each artifact, so that no later upload takes its place.
    pub require_versions: bool,
    /// How long `/readyz` says no before the listener closes, so that a load balancer stops sending requests.
    pub lame_duck: Duration,
    /// Whose signatures of plugins count.
    pub signing: Signing,
    /// Where plugins may be imported from.
    pub registries: Registries,
}

/// Most bytes of an upload, by kind.
#[derive(Clone, Copy, Debug)]
pub struct UploadCaps {
    pub plugin: u64,
    pub model: u64,
    pub video: u64,
}

/// How much one client, one scenario or one plugin may make this API carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The items of one page; what does not fit is behind its cursor.
    pub page_bytes: u64,
    /// The configuration of one hook.
    pub config_bytes: usize,
    /// Those of all hooks of a scenario.
    pub configs_bytes: usize,
    /// For all hooks of a scenario to judge theirs.
    pub configs_time: Duration,
    /// Pages that are read at a time; a request for another one waits.
    pub pages_at_once: usize,
    /// How often one scenario may be stopped and started in a minute.
    pub starts_a_minute: u32,
    /// What a scenario may ask for its hooks.
    pub hooks: HookCeilings,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Two thousand frames of twenty detections; a client reads it in a second over 100 Mbit/s.
            page_bytes: 8 << 20,
            // A polygon of a thousand corners takes 40 KiB.
            config_bytes: 64 << 10,
            // A scenario is in each order to a runner, in each page of a list, and in the database twice.
            configs_bytes: 256 << 10,
            // As long as one of them may take: thirty-two that are slow on purpose must not hold a request,
            // and a turn, for minutes.
            configs_time: Duration::from_secs(60),
            // Four times the connections that read from an embedded database.
            pages_at_once: 16,
            // A worker takes about a second to start.
            starts_a_minute: 60,
            hooks: HookCeilings::default(),
        }
    }
}

/// What a JSON body holds beside the configurations: names, labels and paths, and white space anywhere. With
/// the default configurations it is a MiB, eight times what a large scenario takes.
const BODY_BESIDE_CONFIGS: usize = 768 << 10;

impl Limits {
    /// Bytes of a JSON body, at most.
    pub(crate) const fn body_bytes(&self) -> usize {
        self.configs_bytes.saturating_add(BODY_BESIDE_CONFIGS)
    }
}

impl UploadCaps {
    pub(crate) const fn of(self, kind: ArtifactKind) -> u64 {
        match kind {
            ArtifactKind::Plugin => self.plugin,
            ArtifactKind::Model => self.model,
            ArtifactKind::Video => self.video,
        }
    }

    /// What the cap of a kind is called among the settings.
    pub(crate) const fn setting(kind: ArtifactKind) -> &'static str {
        match kind {
            ArtifactKind::Plugin => "max_plugin_mib",
            ArtifactKind::Model => "max_model_mib",
            ArtifactKind::Video => "max_video_mib",
        }
    }
}

/// What every handler shares.
pub struct App {
    pub(crate) config: ApiConfig,
    pub(crate) store: Arc<dyn ApiStore>,
    pub(crate) bus: SharedBus,
    pub(crate) blobs: Blobs,
    pub(crate) response_cache: ResponseCache,
    pub(crate) probe_queues: ProbeQueues,
    pub(crate) accepted_configs: AcceptedConfigs,
    pub(crate) start_rate: StartRate,
    /// One a page that is being read: a page of large rows takes some 50 MiB until it is written.
    pub(crate) page_turns: Semaphore,
    /// One a request that follows a log.
    pub(crate) followers: Arc<Semaphore>,
    /// One a plugin that is fetched from a registry.
    pub(crate) imports: Semaphore,
    /// Held while a blob and its row are written or removed together.
    pub(crate) artifact_writes: Mutex<()>,
    pub(crate) draining: CancellationToken,
}

pub(crate) type SharedApp = Arc<App>;

impl App {
    /// `draining`: cancelled once this process is about to stop.
    #[must_use]
    pub fn new(
        config: ApiConfig,
        store: Arc<dyn ApiStore>,
        bus: SharedBus,
        blobs: Blobs,
        cache: Option<Cache>,
        draining: CancellationToken,
    ) -> Self {
        Self {
            response_cache: ResponseCache::new(cache),
            probe_queues: ProbeQueues::new(&config.http),
            accepted_configs: AcceptedConfigs::default(),
            start_rate: StartRate::new(config.limits.starts_a_minute),
            page_turns: Semaphore::new(config.limits.pages_at_once),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            imports: Semaphore::new(import::MAX_AT_ONCE),
            artifact_writes: Mutex::default(),
            config,
            store,
            bus,
            blobs,
            draining,
        }
    }
}
