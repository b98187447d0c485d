//! How a child process is started, and what it can still reach once it looks at a stranger's file.
//!
//! Whoever starts a child does it through [`Sandbox::command`], which decides what the child begins with: an
//! environment made from nothing, no descriptors but its pipes, an empty working directory, limits, a user of
//! its own. Each child is an executable of ours, and gives up the rest itself before it opens the first file
//! that came from outside: system calls by [`restrict_system_calls`], files and network by
//! [`restrict_files`].
//!
//! Invariants:
//! - Each mechanism has one file, and holds without the others: a decoder that was taken over has to get past
//!   all of them.
//! - What a kernel lacks does not keep a child from running. Anything else that fails ends it before it reads
//!   its input.
//! - Between fork and exec nothing is allocated and no lock is taken: a step is prepared before, and only
//!   carried out there.

mod cgroup;
mod descriptors;
mod directory;
mod environment;
mod files;
mod limits;
mod memory;
mod sandbox;
mod system_calls;
mod table;
mod user;

pub use files::{Devices, Reach, restrict_files};
pub use limits::{Limits, lower_memory};
pub use memory::keep_memory_private;
pub use sandbox::{Piece, Sandbox};
pub use system_calls::restrict_system_calls;
pub use table::{REQUIRED, attempt};
pub use user::{DEFAULT_USER, User, give_up_capabilities};

/// Why a child is not confined as it must be.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("this process cannot be kept from files that are not its own: {0}")]
    Files(#[from] landlock::RulesetError),
    #[error("this process cannot be kept from system calls that it does not need: {0}")]
    SystemCalls(#[from] seccompiler::Error),
    #[error("this process cannot limit its memory: {0}")]
    Limit(std::io::Error),
    #[error("this process cannot keep its memory to itself: {0}")]
    Memory(std::io::Error),
    #[error("this process cannot give up its capabilities: {0}")]
    Capabilities(std::io::Error),
}

/// What a child does first: the kernel ends it before the platform, and nobody looks into it.
///
/// # Errors
/// When the kernel refuses.
pub fn begin() -> Result<(), ConfineError> {
    limits::die_first();
    keep_memory_private()
}

/// Everything at once, for a child that knows from its start what it needs. Must be called before the first
/// thread starts.
///
/// # Errors
/// When a restriction that this kernel has does not take effect.
pub fn enter(reach: &Reach) -> Result<(), ConfineError> {
    begin()?;
    restrict_system_calls(reach.devices)?;
    restrict_files(reach)
}
