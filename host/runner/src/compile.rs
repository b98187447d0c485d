//! Compiled plugins: made by a child process, kept in a folder, loaded by the workers.
//!
//! Invariants: a file in the cache is complete (written under another name, flushed, renamed); its name says which
//! plugin, engine and processor it is for; one plugin is compiled once, however many scenarios ask for it at a time.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use framehook_core::{
    ids::Digest,
    prediction::PluginIdentity,
    reason::{Reason, ReasonCode},
};
use tokio::time::timeout;

use crate::{
    compiled::{self, UNFINISHED},
    config::RunnerConfig,
    process::{command, last_lines},
    supervisor::Setback,
};

#[derive(Debug)]
pub(crate) struct Compiler {
    plugin_host: PathBuf,
    dir: PathBuf,
    key: String,
    limit: Duration,
    /// One lock a plugin, for as long as somebody waits for it.
    under_way: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Compiler {
    pub(crate) fn new(config: &RunnerConfig) -> Self {
        compiled::sweep(&config.cache_dir);
        Self {
            plugin_host: config.plugin_host.clone(),
            dir: config.cache_dir.clone(),
            key: config.plugin_cache_key.clone(),
            limit: config.compile_timeout,
            under_way: Mutex::default(),
        }
    }

    /// The compiled form of the plugin in `wasm`, whose digest was verified.
    ///
    /// # Errors
    /// Fatal when the plugin is refused; worth a retry when the child could not do its work.
    pub(crate) async fn compiled(&self, plugin: &PluginIdentity, wasm: &Path) -> Result<PathBuf, Setback> {
        let path = self.dir.join(format!("{}-{}.cwasm", plugin.digest.hex(), self.key));
        let lock = self.lock_of(&plugin.digest);
        let turn = lock.lock().await;
        let result = match tokio::fs::try_exists(&path).await {
            Ok(true) => {
                // It only goes sooner where that fails.
                compiled::used(&path).ok();
                Ok(())
            }
            _ => self.compile(plugin, wasm, &path).await,
        };
        drop(turn);
        self.release(&plugin.digest, lock);
        result.map(|()| path)
    }

    fn lock_of(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.entry(digest.clone()).or_default().clone()
    }

    fn release(&self, digest: &Digest, lock: Arc<tokio::sync::Mutex<()>>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        drop(lock);
        // The map's own is the only one left.
        if under_way.get(digest).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            under_way.remove(digest);
        }
    }

    async fn compile(&self, plugin: &PluginIdentity, wasm: &Path, path: &Path) -> Result<(), Setback> {
        let name = format!("{}@{}", plugin.name, plugin.version);
        let broken = |what: &str, e: io::Error| {
            let message = format!("plugin {name} could not be compiled: {what}: {e}");
            Setback::Retry(Reason::new(ReasonCode::WorkerCrash, message))
        };
        let refused = |why: String| {
            let message = format!("plugin {name} could not be compiled: {why}");
            Setback::Fatal(Reason::new(ReasonCode::PluginIncompatible, message))
        };
        let unfinished = tempfile::Builder::new()
            .suffix(UNFINISHED)
            .tempfile_in(&self.dir)
            .map_err(|e| broken("no file in the cache folder", e))?
            .into_temp_path();
        let mut child = command(&self.plugin_host);
        child.args(["plugin-host", "compile"]).args([wasm, &*unfinished]);
        child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // When the time is over the future is dropped, and the child killed with it.
        let output = match timeout(self.limit, child.output()).await {
            Err(_) => return Err(refused(format!("it took longer than {:?}", self.limit))),
            Ok(Err(e)) => return Err(broken("the compiler did not start", e)),
            Ok(Ok(output)) => output,
        };
        match output.status.code() {
            Some(0) => {}
            Some(_) => return Err(refused(last_lines(&output.stderr).replace(&*wasm.to_string_lossy(), "its file"))),
            None => return Err(broken("the compiler died", io::Error::other(output.status.to_string()))),
        }
        let target = path.to_owned();
        let kept = tokio::task::spawn_blocking(move || keep(unfinished, &target)).await;
        kept.map_err(io::Error::other).flatten().map_err(|e| broken("the result could not be kept", e))
    }
}

/// Makes a finished file durable, then visible.
fn keep(unfinished: tempfile::TempPath, path: &Path) -> io::Result<()> {
    let file = std::fs::File::open(&unfinished)?;
    if file.metadata()?.len() == 0 {
        return Err(io::Error::other("the compiler wrote nothing"));
    }
    file.sync_all()?;
    unfinished.persist(path).map_err(|e| e.error)?;
    if let Some(dir) = path.parent() {
        compiled::sweep(dir);
    }
    Ok(())
}
