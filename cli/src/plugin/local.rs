//! What judges and runs plugins on this machine, without a service.
//!
//! Worker, ONNX Runtime and limits are those that `framehook up` would have here: from its environment
//! variables, its settings file (`FRAMEHOOK_CONFIG`), or beside this executable. Compiled plugins are kept in
//! the user's cache, so that each is compiled once.

use std::{
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use framehook_api::ApiConfig;
use framehook_compiled::CompiledPlugins;
use framehook_confine::Sandbox;
use framehook_core::ids::{Digest, RunnerId};
use framehook_runner::RunnerConfig;
use sha2::{Digest as _, Sha256};

use crate::{confinement::Confined, process, settings::Settings};

pub(super) struct Local {
    pub(super) settings: Settings,
    pub(super) confined: Confined,
    pub(super) compiled: CompiledPlugins,
    pub(super) api: ApiConfig,
}

impl Local {
    /// For what needs no worker.
    ///
    /// # Errors
    /// When a setting is wrong, or the cache cannot be used.
    pub(super) fn open() -> anyhow::Result<Self> {
        Self::of(crate::settings_of_environment()?)
    }

    /// For what needs a worker.
    ///
    /// # Errors
    /// As [`Self::open`], or when there is no worker or no ONNX Runtime.
    pub(super) fn with_worker() -> anyhow::Result<Self> {
        let mut settings = crate::settings_of_environment()?;
        process::resolve_children(&mut settings)?;
        Self::of(settings)
    }

    fn of(mut settings: Settings) -> anyhow::Result<Self> {
        settings.data = cache();
        let sandbox = Sandbox::with_user(settings.child_user).in_cgroups();
        let confined = Confined { sandbox, table: Vec::new() };
        let compiled = process::compiled_plugins(&settings, &confined)?;
        let api = process::api_config(&settings, &confined, compiled.clone(), None)?;
        Ok(Self { settings, confined, compiled, api })
    }

    /// What a runner would be told here.
    pub(super) fn runner(self) -> RunnerConfig {
        process::runner_config(&self.settings, self.confined, RunnerId("none".into()), None)
    }
}

/// A folder for what can be made again at any time.
fn cache() -> PathBuf {
    let of_user = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let of_home = || env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(".cache"));
    of_user.or_else(of_home).unwrap_or_else(env::temp_dir).join("framehook")
}

/// A file that a command names: its path wherever a child begins, its digest and its bytes' number.
pub(super) struct Named {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// # Errors
/// When it cannot be read.
pub(super) fn named(path: &Path) -> anyhow::Result<Named> {
    let read = || -> io::Result<Named> {
        let path = path.canonicalize()?;
        let mut hash = Sha256::new();
        let size = io::copy(&mut File::open(&path)?, &mut hash)?;
        Ok(Named { path, digest: Digest::from_bytes(&hash.finalize().into()), size })
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

/// Runs what waits for children.
///
/// # Errors
/// What `work` says, or that there is no runtime.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(work)
}
