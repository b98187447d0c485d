//! Compiled plugins: made by a child process, signed, kept in a folder, loaded by the children of API and
//! runner.
//!
//! Invariants:
//! - What is signed was written by a child that only compiles (`child`). A child that runs a stranger's code,
//!   if only to let it describe itself, gets a compiled file to read and writes none.
//! - A file in the folder is complete (written under another name, flushed, renamed) and signed; its name
//!   says which plugin, engine and processor it is for.
//! - Of one process, a plugin is compiled once, however many ask for it at a time. Several processes may use
//!   one folder: they have one key, and at worst compile a plugin twice, of which the later file stays.
//!
//! Deliberately absent: which plugins there are. What nobody uses goes (`sweep`), and so does the code of a
//! plugin that compiled, and was refused for what it then said of itself.

mod authentic;
mod child;
mod error;
mod sweep;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use framehook_confine::Sandbox;
use framehook_core::ids::Digest;
use framehook_infra::{private, turns::Turns};
use tempfile::NamedTempFile;

use crate::authentic::Authority;

pub use error::{CompileError, OpenError};

/// Wall time of one compilation: a component of a script language (18 MB) takes 14 s on a fast core.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(60);

/// How plugins are compiled, and where what comes of it is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Made if missing, and closed to other users. The key that its files are signed with lies beside it,
    /// with the extension `key`: what lies in it may go at any time.
    pub folder: PathBuf,
    /// Names everything that compiled code depends on besides the plugin
    /// (`framehook_engine::compile::cache_key()`): part of the names of files, so that another engine or
    /// processor never loads them. Letters, digits, `.`, `_`, `-`, `+`.
    pub engine: String,
    /// The `framehook` executable, called as `plugin-host compile FILE`.
    pub plugin_host: PathBuf,
    /// How it is started.
    pub sandbox: Sandbox,
    /// Wall time of one compilation.
    pub timeout: Duration,
}

/// A plugin's machine code, for whoever loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub path: PathBuf,
    /// That of the file when it was recognised: it may be another one by the time it is read.
    pub digest: Digest,
}

/// The compiled plugins of a folder. Cheap to clone; a process needs one of a folder.
#[derive(Clone, Debug)]
pub struct CompiledPlugins(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    authority: Authority,
    compilations: Turns<Digest>,
}

impl CompiledPlugins {
    /// Makes the folder and its key, unless they are there.
    ///
    /// # Errors
    /// When the settings can never work.
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let Settings { folder, engine, plugin_host, .. } = &settings;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+');
        if engine.is_empty() || !engine.bytes().all(is_plain) {
            return Err(OpenError::Engine(engine.clone()));
        }
        if !plugin_host.is_file() {
            return Err(OpenError::NotFound(plugin_host.clone()));
        }
        private::folder(folder).map_err(|source| OpenError::Folder { path: folder.clone(), source })?;
        sweep::sweep(folder);
        let authority = Authority::open(&folder.with_extension("key"))?;
        Ok(Self(Arc::new(Shared { settings, authority, compilations: Turns::default() })))
    }

    /// The folder, whose path is nobody's business but this machine's.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.settings.folder
    }

    /// Names the engine that its files are for, and this processor's features.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.0.settings.engine
    }

    /// The compiled form of the plugin in `wasm`, which has the digest `plugin`, as was verified.
    ///
    /// # Errors
    /// What is wrong with the plugin, or why it could not be compiled.
    pub async fn compiled(&self, plugin: &Digest, wasm: &Path) -> Result<Compiled, CompileError> {
        let Settings { folder, engine, .. } = &self.0.settings;
        let path = folder.join(format!("{}-{engine}{}", plugin.hex(), sweep::COMPILED));
        let _turn = self.0.compilations.wait(plugin.clone()).await;
        let digest = match self.recognised(&path).await {
            Some(digest) => {
                // If this fails, the file is only swept earlier.
                sweep::used(&path).ok();
                digest
            }
            None => self.compile(plugin, wasm, &path).await?,
        };
        Ok(Compiled { path, digest })
    }

    /// The digest of a file that was signed with the key of this folder.
    async fn recognised(&self, path: &Path) -> Option<Digest> {
        let (shared, file) = (Arc::clone(&self.0), path.to_owned());
        let verified = tokio::task::spawn_blocking(move || shared.authority.verify(&name_of(&file), &file)).await;
        let why = match verified.map_err(io::Error::other).flatten() {
            Ok(Some(digest)) => return Some(digest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Ok(None) => "it was not signed with the key of this folder".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(file = %path.display(), why, "a compiled plugin is not used; it is compiled again");
        None
    }

    async fn compile(&self, plugin: &Digest, wasm: &Path, path: &Path) -> Result<Digest, CompileError> {
        let began = Instant::now();
        let unfinished = child::compile(&self.0.settings, wasm).await?;
        let (shared, target) = (Arc::clone(&self.0), path.to_owned());
        let kept = tokio::task::spawn_blocking(move || keep(&shared.authority, unfinished, &target)).await;
        let kept = kept.map_err(io::Error::other).flatten();
        let digest = kept.map_err(CompileError::folder("the result could not be kept"))?;
        tracing::info!(%plugin, ms = began.elapsed().as_millis(), "compiled a plugin");
        Ok(digest)
    }
}

/// Signs a finished file, makes it durable, then visible. The compiler, which could write to it, has ended.
fn keep(authority: &Authority, mut unfinished: NamedTempFile, path: &Path) -> io::Result<Digest> {
    let digest = authority.sign(&name_of(path), unfinished.as_file_mut())?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(path)?;
    if let Some(dir) = path.parent() {
        sweep::sweep(dir);
    }
    Ok(digest)
}

/// What its file name says it is.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
