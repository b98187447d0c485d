//! What a child may use at most, as the kernel counts it.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::ConfineError;

/// Libraries, a video, a model, pipes and an event queue come to some 30.
const DESCRIPTORS: u64 = 256;

/// The scale ends at 1000; a process whose score nobody has set has 0.
const SCORE: &str = "900";

/// The limits of one kind of child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that are its own (`RLIMIT_DATA`). Not the address space: the plugin engine reserves
    /// more of it than there is memory, and never touches it.
    pub memory: u64,
    /// Seconds of all its threads together; `None` for one that runs as long as its video does.
    pub cpu_seconds: Option<u64>,
    /// Bytes of a file that it was given to write. What goes through a pipe does not count.
    pub file_size: u64,
}

impl Limits {
    /// As pairs that can be set after a fork. What this process may use itself is never exceeded.
    pub(crate) fn prepare(self) -> [(Resource, Rlimit); 5] {
        [
            (Resource::Data, Some(self.memory)),
            (Resource::Cpu, self.cpu_seconds),
            (Resource::Nofile, Some(DESCRIPTORS)),
            (Resource::Fsize, Some(self.file_size)),
            // A core file would hold other people's pictures.
            (Resource::Core, Some(0)),
        ]
        .map(|(resource, wanted)| {
            let ours = getrlimit(resource).maximum;
            let limit = [wanted, ours].into_iter().flatten().min();
            (resource, Rlimit { current: limit, maximum: limit })
        })
    }
}

pub(crate) fn set(limits: &[(Resource, Rlimit)]) -> io::Result<()> {
    for (resource, limit) in limits {
        setrlimit(*resource, *limit)?;
    }
    Ok(())
}

/// Lowers the limit of this process's own memory for good; a higher one than it has changes nothing.
///
/// # Errors
/// When the kernel refuses.
pub fn lower_memory(bytes: u64) -> Result<(), ConfineError> {
    let limit = getrlimit(Resource::Data).maximum.map_or(bytes, |now| now.min(bytes));
    setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum: Some(limit) })
        .map_err(|errno| ConfineError::Limit(errno.into()))
}

/// Makes the kernel choose this process before the platform when memory runs out. Raising it needs no
/// privilege, but the file is root's while memory is private. So between fork and exec, where a child is as
/// private as the platform, only root can; every child does it again behind exec.
pub(crate) fn die_first() {
    // Where there is no /proc, the kernel chooses by size, as ever.
    let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty())
    else {
        return;
    };
    rustix::io::write(&file, SCORE.as_bytes()).ok();
}

/// Whether the kernel was told.
pub(crate) fn dies_first() -> bool {
    std::fs::read_to_string("/proc/self/oom_score_adj").is_ok_and(|score| score.trim() == SCORE)
}
