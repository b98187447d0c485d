//! The compiler, for a child process that runs nothing of what it compiles.

use std::hash::{DefaultHasher, Hash, Hasher};

use framehook_core::probe::Finding;

use crate::{
    LoadError,
    check::{self, refused},
    engine,
};

/// Checks and compiles components. Their code is a stranger's: use it in a process of its own, as
/// [`crate::command`] does.
pub struct Compiler(wasmtime::Engine);

impl Compiler {
    /// # Errors
    /// When the engine cannot start.
    pub fn new() -> Result<Self, LoadError> {
        engine::compiler().map(Self)
    }

    /// Machine code for this processor and this engine, to be written where [`crate::Engine::load`] finds it.
    ///
    /// # Errors
    /// With what is wrong, when `wasm` is not a component that could be a plugin and that this engine can
    /// compile.
    pub fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, Vec<Finding>> {
        check::check(wasm)?;
        self.0
            .precompile_component(wasm)
            .or_else(|e| refused("compile_failed", format!("the component does not compile: {e:#}")))
    }
}

/// Names everything that a compiled plugin depends on besides its source: the engine's version and
/// settings, and the features of this processor. Safe as a file name.
///
/// # Errors
/// When the engine cannot start.
pub fn cache_key() -> Result<String, LoadError> {
    let mut hasher = DefaultHasher::new();
    engine::compiler()?.precompile_compatibility_hash().hash(&mut hasher);
    Ok(format!("wasmtime-48-{:016x}", hasher.finish()))
}
