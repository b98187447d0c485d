//! Keeps other processes from looking into this one.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::ConfineError;

/// Closes `/proc/PID` of this process (its environment, memory and descriptors) to others of its user, keeps
/// debuggers out, and writes no core files. It takes a debugger of root to look in from now on.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_memory_private() -> Result<(), ConfineError> {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, nothing))
        .map_err(|errno| ConfineError::Memory(errno.into()))
}
