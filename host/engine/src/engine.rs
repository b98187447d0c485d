//! The engine, and what it loads.
//!
//! All engines of one build share one compilation profile, so that what the compiling child process
//! writes is exactly what a worker accepts. Only that child has a compiler, and it loads nothing.

use std::{
    io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use framehook_core::{
    ids::Digest,
    prediction::PluginIdentity,
    reason::{Reason, ReasonCode},
};
use sha2::{Digest as _, Sha256};
use wasmtime::{
    Config, InstanceAllocationStrategy, PoolingAllocationConfig, Precompiled,
    component::{Component, Linker},
};

use crate::{abi, sandbox::Ctx};

/// How often a running guest can be interrupted. A tick costs a wake-up, so not finer than a
/// deadline of 20 ms needs.
pub(crate) const TICK: Duration = Duration::from_millis(4);
/// Deep enough for any real plugin; a runaway recursion ends early.
const WASM_STACK: usize = 512 << 10;
/// Hooks alive at once in one worker: 16 before and 16 behind the model, twice while its scenario changes
/// them, and 16 of a shadow. Each reserves 4 GiB of address space, none of it memory.
const MAX_INSTANCES: u32 = 80;
/// A component built from Rust is made of 3 or 4 core modules, one from JavaScript of 6, one from Python,
/// with its library in parts, of 38.
const CORE_MODULES: u32 = 64;
/// A component has one or two, whatever its language. The pool of tables is memory that may be written, of
/// which a worker has little: 160 KB each.
const TABLES: u32 = 4;
/// Alive at once in a process that asks one plugin: a check of conformance compares some.
const MAX_JUDGED: u32 = 4;
/// What an instance may be configured to use at most.
pub(crate) const MEMORY_CEILING: usize = 256 << 20;
/// Kept mapped between instances: faster to start than either none or more.
const KEEP_RESIDENT: usize = 64 << 10;

/// Runs plugins. Cheap to clone; one per process is enough.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    engine: wasmtime::Engine,
    linker: Linker<Ctx>,
    /// Dropped with the last clone, which ends the ticker.
    _ticker: mpsc::Sender<()>,
}

/// A loaded plugin, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    /// Keeps the clock of its deadlines running.
    _engine: Engine,
    pub(crate) code: abi::Code,
}

/// Why a plugin, or the engine itself, cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Refused(String),
    /// Its code cannot be loaded here: it is made of more than fits, or another release compiled it.
    #[error("{0}")]
    Unfit(String),
    /// Its compiled form went, or became another, after it was looked at: the next look mends that.
    #[error("{0}")]
    Lost(String),
    #[error("there is no memory for the plugin")]
    NoMemory,
}

impl LoadError {
    /// As the reason of a scenario that cannot run.
    #[must_use]
    pub fn reason(&self, plugin: &PluginIdentity) -> Reason {
        let code = match self {
            Self::Refused(_) | Self::Unfit(_) => ReasonCode::PluginIncompatible,
            Self::Lost(_) => ReasonCode::WorkerCrash,
            Self::NoMemory => ReasonCode::OutOfMemory,
        };
        Reason::new(code, format!("{}@{}: {self}", plugin.name, plugin.version))
    }
}

impl Engine {
    /// For a worker: loads compiled plugins and cannot compile any.
    ///
    /// # Errors
    /// When this machine cannot give it the address space.
    pub fn loader() -> Result<Self, LoadError> {
        let mut config = profile();
        config.enable_compiler(false).allocation_strategy(InstanceAllocationStrategy::Pooling(pool(MAX_INSTANCES)));
        Self::new(&config)
    }

    /// For a process that asks one plugin and ends: the same, so that what it accepts fits into a worker,
    /// with room for a few.
    ///
    /// # Errors
    /// When the engine cannot start.
    pub(crate) fn judge() -> Result<Self, LoadError> {
        let mut config = profile();
        config.enable_compiler(false).allocation_strategy(InstanceAllocationStrategy::Pooling(pool(MAX_JUDGED)));
        Self::new(&config)
    }

    fn new(config: &Config) -> Result<Self, LoadError> {
        let engine = wasmtime::Engine::new(config).map_err(not_started)?;
        let linker = abi::linker(&engine).map_err(not_started)?;
        let ticker = start_ticker(engine.clone()).map_err(|e| not_started(e.into()))?;
        Ok(Self(Arc::new(Shared { engine, linker, _ticker: ticker })))
    }

    /// Loads a component that [`crate::compile`] compiled on this machine.
    ///
    /// # Errors
    /// When the file is missing, has another digest, or was made by another engine or for another processor.
    pub fn load(&self, compiled: &Path, digest: &Digest) -> Result<Plugin, LoadError> {
        self.link(&self.component(compiled, digest)?)
    }

    /// Loads what was read of such a file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_bytes(&self, name: &Path, code: io::Result<Vec<u8>>, digest: &Digest) -> Result<Plugin, LoadError> {
        self.link(&self.recognised(name, code, digest)?)
    }

    /// The same, with nothing behind its imports yet.
    pub(crate) fn component(&self, compiled: &Path, digest: &Digest) -> Result<Component, LoadError> {
        // Read and not mapped: nobody can change these bytes once they were looked at.
        self.recognised(compiled, std::fs::read(compiled), digest)
    }

    fn recognised(&self, name: &Path, code: io::Result<Vec<u8>>, digest: &Digest) -> Result<Component, LoadError> {
        let name = name.display();
        let code = code.map_err(|e| match e.kind() {
            io::ErrorKind::OutOfMemory => LoadError::NoMemory,
            _ => LoadError::Lost(format!("{name} could not be read: {e}")),
        })?;
        if Digest::from_bytes(&Sha256::digest(&code).into()) != *digest {
            return Err(LoadError::Lost(format!("{name} has changed since it was looked at")));
        }
        let Some(Precompiled::Component) = wasmtime::Engine::detect_precompiled(&code) else {
            return Err(LoadError::Refused(format!("{name} is not a compiled plugin; compile it again")));
        };
        // SAFETY: these bytes are what whoever starts this process recognised as its own compiler's; no
        // artifact compiled elsewhere is accepted anywhere. The call checks that engine, settings and
        // processor are the same.
        unsafe { Component::deserialize(&self.0.engine, &code) }
            .map_err(|e| LoadError::Unfit(format!("it does not fit this host, or another release compiled it: {e:#}")))
    }

    /// Binds a component's imports to the host.
    pub(crate) fn link(&self, component: &Component) -> Result<Plugin, LoadError> {
        let code = abi::Code::link(&self.0.linker, component)
            .map_err(|e| LoadError::Refused(format!("the plugin does not fit this host: {e:#}")))?;
        Ok(Plugin { _engine: self.clone(), code })
    }
}

/// An engine that compiles, and nothing else.
pub(crate) fn compiler() -> Result<wasmtime::Engine, LoadError> {
    wasmtime::Engine::new(&profile()).map_err(not_started)
}

fn not_started(error: wasmtime::Error) -> LoadError {
    LoadError::Refused(format!("the plugin engine could not start: {error:#}"))
}

/// Everything that decides what compiled code looks like.
fn profile() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        // Hooks are synchronous: a call costs a quarter of what it costs with the async machinery.
        .concurrency_support(false)
        // An image of a plugin's memory would be a file without a name, which a child may not make: its
        // system calls lack it, and where they are not confined its limit of written bytes, which is none,
        // ends the load.
        .memory_init_cow(false)
        .wasm_memory64(false)
        // The same result on every processor.
        .relaxed_simd_deterministic(true);
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    // Hooks are synchronous and run on the thread that calls them. The stacks of a thousand fibers would
    // count as 2 GiB of data, more than a worker may have.
    pool.total_stacks(0)
        .total_component_instances(instances)
        .total_core_instances(instances * CORE_MODULES)
        .total_memories(instances)
        .total_tables(instances * TABLES)
        .max_core_instances_per_component(CORE_MODULES)
        .max_memory_size(MEMORY_CEILING)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT);
    pool
}

/// Advances the engine's epoch until the sender is dropped.
fn start_ticker(engine: wasmtime::Engine) -> std::io::Result<mpsc::Sender<()>> {
    let (alive, stopped) = mpsc::channel::<()>();
    thread::Builder::new().name("plugin-clock".into()).spawn(move || {
        while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
            engine.increment_epoch();
        }
    })?;
    Ok(alive)
}
