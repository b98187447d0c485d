//! The compiler, for the child process only: a worker's engine has none.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{Engine, LoadError};

/// Compiles components and, to judge them (`inspect`), runs them. Their code is a stranger's: use it in a
/// process of its own, as [`crate::command`] does.
pub struct Compiler(pub(crate) Engine);

impl Compiler {
    /// # Errors
    /// When the engine cannot start.
    pub fn new() -> Result<Self, LoadError> {
        Engine::compiler().map(Self)
    }

    /// Machine code for this processor and this engine, to be written where [`Engine::load`] finds it.
    ///
    /// # Errors
    /// When `wasm` is not a component that this engine can compile.
    pub fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
        self.0
            .raw()
            .precompile_component(wasm)
            .map_err(|e| LoadError::Refused(format!("the plugin does not compile: {e:#}")))
    }
}

/// Names everything that a compiled plugin depends on besides its source: the engine's version and
/// settings, and the features of this processor. Safe as a file name.
///
/// # Errors
/// When the engine cannot start.
pub fn cache_key() -> Result<String, LoadError> {
    let mut hasher = DefaultHasher::new();
    Engine::compiler()?.raw().precompile_compatibility_hash().hash(&mut hasher);
    Ok(format!("wasmtime-48-{:016x}", hasher.finish()))
}
