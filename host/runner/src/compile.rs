//! Compiled plugins: made by a child process, kept in a folder, loaded by the workers.
//!
//! Invariants: a file in the cache is complete (written under another name, flushed, renamed) and signed; its
//! name says which plugin, engine and processor it is for; one plugin is compiled once, however many
//! scenarios ask for it at a time.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use framehook_confine::Limits;
use framehook_core::{
    ids::Digest,
    prediction::PluginIdentity,
    reason::{Reason, ReasonCode},
};
use framehook_infra::seal::KeyError;
use tempfile::NamedTempFile;
use tokio::{process::Command, time::timeout};

use crate::{
    authentic::Authority,
    compiled::{self, UNFINISHED},
    config::RunnerConfig,
    failure::Failure,
    process::last_lines,
    turns::Turns,
};

/// Compiling an 18 MB component takes 1.5 GB.
const MEMORY: u64 = 4 << 30;

/// Machine code is some three times as long as its component, and the longest of those has 32 MiB.
const MAX_COMPILED: u64 = 1 << 30;

#[derive(Debug)]
pub(crate) struct Compiler {
    authority: Arc<Authority>,
    config: Arc<RunnerConfig>,
    compilations: Turns<Digest>,
}

impl Compiler {
    /// # Errors
    /// When there is no key to sign with.
    pub(crate) fn new(config: Arc<RunnerConfig>) -> Result<Self, KeyError> {
        compiled::sweep(&config.cache_dir);
        // Beside the folder: what lies in it may go at any time.
        let authority = Arc::new(Authority::open(&config.cache_dir.with_extension("key"))?);
        Ok(Self { authority, config, compilations: Turns::default() })
    }

    /// The compiled form of the plugin in `wasm`, whose digest was verified; and its own digest.
    ///
    /// # Errors
    /// Fatal when the plugin is refused; worth a retry when the child could not do its work.
    pub(crate) async fn compiled(&self, plugin: &PluginIdentity, wasm: &Path) -> Result<(PathBuf, Digest), Failure> {
        let RunnerConfig { cache_dir, plugin_cache_key, .. } = &*self.config;
        let path = cache_dir.join(format!("{}-{plugin_cache_key}.cwasm", plugin.digest.hex()));
        let _turn = self.compilations.wait(plugin.digest.clone()).await;
        let digest = match self.recognised(&path).await {
            Some(digest) => {
                // If this fails, the file is only swept earlier.
                compiled::used(&path).ok();
                digest
            }
            None => self.compile(plugin, wasm, &path).await?,
        };
        Ok((path, digest))
    }

    /// The digest of a file that this runner wrote.
    async fn recognised(&self, path: &Path) -> Option<Digest> {
        let (authority, file) = (self.authority.clone(), path.to_owned());
        let verified = tokio::task::spawn_blocking(move || authority.verify(&name_of(&file), &file)).await;
        let why = match verified.map_err(io::Error::other).flatten() {
            Ok(Some(digest)) => return Some(digest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Ok(None) => "it was not written by this runner".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(file = %path.display(), why, "a compiled plugin is not used; it is compiled again");
        None
    }

    async fn compile(&self, plugin: &PluginIdentity, wasm: &Path, path: &Path) -> Result<Digest, Failure> {
        let name = format!("{}@{}", plugin.name, plugin.version);
        let broken = |what: &str, e: io::Error| {
            let message = format!("plugin {name} could not be compiled: {what}: {e}");
            Failure::of(&e, Reason::new(ReasonCode::WorkerCrash, message))
        };
        let refused = |why: String| {
            let message = format!("plugin {name} could not be compiled: {why}");
            Failure::Fatal(Reason::new(ReasonCode::PluginIncompatible, message))
        };
        let RunnerConfig { cache_dir, sandbox, plugin_host, compile_timeout, .. } = &*self.config;
        let unfinished = tempfile::Builder::new()
            .suffix(UNFINISHED)
            .tempfile_in(cache_dir)
            .map_err(|e| broken("no file in the cache folder", e))?;
        let out = unfinished.as_file().try_clone().map_err(|e| broken("no file in the cache folder", e))?;
        let limits =
            Limits { memory: MEMORY, cpu_seconds: Some(2 * compile_timeout.as_secs()), file_size: MAX_COMPILED };
        let mut child = Command::from(sandbox.command(plugin_host, limits));
        child.args(["plugin-host", "compile"]).arg(wasm).kill_on_drop(true);
        // The file itself is its output: it needs no folder that it could write to.
        child.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
        let child = child.spawn().map_err(|e| broken("the compiler did not start", e))?;
        // When the time is over the future is dropped, and the child killed with it.
        let output = match timeout(*compile_timeout, child.wait_with_output()).await {
            Err(_) => return Err(refused(format!("it took longer than {compile_timeout:?}"))),
            Ok(Err(e)) => return Err(broken("the compiler was lost", e)),
            Ok(Ok(output)) => output,
        };
        match output.status.code() {
            Some(0) => {}
            Some(_) => return Err(refused(last_lines(&output.stderr).replace(&*wasm.to_string_lossy(), "its file"))),
            None => return Err(broken("the compiler died", io::Error::other(output.status.to_string()))),
        }
        let (authority, target) = (self.authority.clone(), path.to_owned());
        let kept = tokio::task::spawn_blocking(move || keep(&authority, unfinished, &target)).await;
        kept.map_err(io::Error::other).flatten().map_err(|e| broken("the result could not be kept", e))
    }
}

/// Signs a finished file, makes it durable, then visible. The compiler, which could write to it, has ended.
fn keep(authority: &Authority, mut unfinished: NamedTempFile, path: &Path) -> io::Result<Digest> {
    let digest = authority.sign(&name_of(path), unfinished.as_file_mut())?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(path)?;
    if let Some(dir) = path.parent() {
        compiled::sweep(dir);
    }
    Ok(digest)
}

/// What its file name says it is.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
