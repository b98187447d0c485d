//! What the end of a worker means: from what was seen to a reason, and to whether another try is worth it.
//!
//! Invariant: a reason is for whoever posted the scenario. It holds no path of this machine and no place in a
//! library's source; the log has the whole.
//!
//! Everything here is pure but [`oom_kills`].

use std::path::Path;

use framehook_core::{
    memory::BASE_MIB,
    reason::{Reason, ReasonCode, without_source_places},
};

/// How a process went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exit {
    /// In words.
    pub(crate) how: String,
    pub(crate) signal: Option<i32>,
    /// The last lines of its standard error.
    pub(crate) last_lines: String,
}

/// Linux's SIGKILL, which the kernel sends when memory runs out, and SIGABRT, with which a process ends that
/// was refused memory.
const KILLED: i32 = 9;
const ABORTED: i32 = 6;

/// A sentence for people is shorter.
const MAX_MESSAGE: usize = 1000;

/// What libraries say when memory is refused: the standard library of Rust, that of C++, ONNX Runtime,
/// OpenCV, the kernel by way of C, and for a thread's stack.
const SHORTAGES: [&str; 8] = [
    "memory allocation of",
    "failed to spawn thread",
    "bad_alloc",
    "Failed to allocate memory",
    "Insufficient memory",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "BFCArena::AllocateRawInternal",
];

/// The reason of a worker that ended without saying why. `killed_for_memory`: the kernel did that to a
/// process meanwhile.
pub(crate) fn crash(exit: &Exit, killed_for_memory: bool) -> Reason {
    let Exit { how, signal, last_lines } = exit;
    let is_shortage = match *signal {
        Some(KILLED) => killed_for_memory,
        // A process that is refused memory aborts, or panics where a thread could not be started.
        Some(ABORTED) | None => is_shortage(last_lines),
        Some(_) => false,
    };
    if is_shortage {
        return out_of_memory(how);
    }
    let more = if last_lines.is_empty() { String::new() } else { format!("; its last lines: {last_lines}") };
    Reason::new(ReasonCode::WorkerCrash, format!("the worker process ended unexpectedly: {how}{more}"))
}

/// What a worker said of its end. One of whose threads panicked does not know why; its last lines may.
pub(crate) fn said(reason: Reason, exit: &Exit) -> Reason {
    let is_unknown = reason.code == ReasonCode::WorkerCrash && exit.signal.is_none();
    if is_unknown && is_shortage(&exit.last_lines) { out_of_memory(&exit.how) } else { reason }
}

fn out_of_memory(how: &str) -> Reason {
    Reason::new(ReasonCode::OutOfMemory, format!("the worker ran out of memory and ended with {how}"))
}

fn is_shortage(text: &str) -> bool {
    SHORTAGES.iter().any(|words| text.contains(words))
}

/// What a worker said of itself, as a user may read it. `private` are paths of this machine.
pub(crate) fn presentable<'a>(reason: Reason, private: impl IntoIterator<Item = &'a Path>) -> Reason {
    let Reason { code, mut message } = reason;
    use ReasonCode as R;
    let of_libraries = matches!(code, R::ModelLoad | R::DecodeError | R::PluginIncompatible | R::WorkerCrash);
    let code = if of_libraries && is_shortage(&message) { ReasonCode::OutOfMemory } else { code };
    // A job that replays outputs has no source and no model.
    for path in private.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        message = message.replace(&*path.to_string_lossy(), "(a file)");
    }
    let mut message = without_source_places(&message);
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message += "...";
    }
    Reason::new(code, message)
}

/// The reason of a deployment that came to the end of its source. That its predictions lack most of what was
/// asked for says more than that the source may have been longer, so this comes first.
pub(crate) fn with_hooks(end: Reason, failed: Option<String>) -> Reason {
    match failed {
        Some(failed) => Reason::new(ReasonCode::HooksFailed, format!("{failed}; {}", end.message)),
        None => end,
    }
}

/// What a user can do about a worker that ran out of the memory it may have.
pub(crate) fn with_limit(reason: Reason, memory_mib: u32, cap_mib: u32) -> Reason {
    let Reason { code, message } = reason;
    let message = match code {
        ReasonCode::OutOfMemory => format!(
            "{message}; it may have {memory_mib} MiB: take a smaller model or video, or give the scenario more with \
             `memory_mib`, at most {cap_mib} here (`worker_memory_mib`)"
        ),
        // Libraries do not always say that it was memory they lacked.
        ReasonCode::DecodeError | ReasonCode::ModelLoad | ReasonCode::PluginIncompatible if memory_mib < BASE_MIB => {
            format!("{message}; or it lacks memory: it may have {memory_mib} MiB (`memory_mib`)")
        }
        _ => message,
    };
    Reason::new(code, message)
}

/// How many restarts in a row are worth trying after such an end, `most` where it may have been an accident.
/// A model that fails before its first frame fails again; a source may be silent by accident, once.
pub(crate) fn restarts(code: ReasonCode, has_frames: bool, most: u32) -> u32 {
    match (code, has_frames) {
        (ReasonCode::OutOfMemory | ReasonCode::ModelStalled, false) => 0,
        (ReasonCode::SourceStalled, false) | (ReasonCode::ModelStalled, true) => most.min(1),
        _ => most,
    }
}

/// How many processes of this machine the kernel has killed for memory; `None` where it does not count.
pub(crate) fn oom_kills() -> Option<u64> {
    count_in(&std::fs::read_to_string("/proc/vmstat").unwrap_or_default())
}

fn count_in(counters: &str) -> Option<u64> {
    counters.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(signal: i32, last_lines: &str) -> Exit {
        Exit { how: format!("signal: {signal}"), signal: Some(signal), last_lines: last_lines.into() }
    }

    #[test]
    fn a_worker_is_out_of_memory_only_where_somebody_says_so() {
        for (exit, killed_for_memory, expected) in [
            (exit(9, ""), true, ReasonCode::OutOfMemory),
            (exit(9, "memory allocation of 5 bytes failed"), false, ReasonCode::WorkerCrash),
            (exit(6, "memory allocation of 4294967296 bytes failed"), false, ReasonCode::OutOfMemory),
            (
                exit(6, "terminate called after throwing an instance of 'std::bad_alloc'"),
                false,
                ReasonCode::OutOfMemory,
            ),
            (
                exit(6, "terminate called: 'std::system_error' what(): Resource temporarily unavailable"),
                false,
                ReasonCode::OutOfMemory,
            ),
            (exit(6, "double free or corruption"), true, ReasonCode::WorkerCrash),
            (exit(11, "bad_alloc"), true, ReasonCode::WorkerCrash),
            (Exit { how: "exit status: 3".into(), ..Exit::default() }, true, ReasonCode::WorkerCrash),
            (
                Exit { last_lines: "failed to spawn thread: Os { code: 11, ..".into(), ..Exit::default() },
                false,
                ReasonCode::OutOfMemory,
            ),
        ] {
            assert_eq!(crash(&exit, killed_for_memory).code, expected, "{exit:?}");
        }
        let message = crash(&exit(11, "a | b"), false).message;
        assert_eq!(message, "the worker process ended unexpectedly: signal: 11; its last lines: a | b");
    }

    #[test]
    fn a_worker_that_panicked_for_want_of_memory_is_out_of_memory() {
        let panicked = || Reason::new(ReasonCode::WorkerCrash, "a thread of the worker panicked");
        let ended = |signal, last_lines: &str| Exit { signal, ..exit(0, last_lines) };
        let shortage = "failed to spawn thread: Os { code: 11, ..";
        assert_eq!(said(panicked(), &ended(None, shortage)).code, ReasonCode::OutOfMemory);
        assert_eq!(said(panicked(), &ended(None, "index out of bounds")), panicked());
        // One that was killed, because of what it sent.
        assert_eq!(said(panicked(), &ended(Some(KILLED), shortage)), panicked());
        let other = Reason::new(ReasonCode::DecodeError, "the video is damaged");
        assert_eq!(said(other.clone(), &ended(None, shortage)), other);
    }

    #[test]
    fn what_libraries_say_is_cleaned_and_told_apart() {
        let clean = |code, message: &str| {
            presentable(Reason::new(code, message), [Path::new("/srv/data/blobs/ab/cd"), Path::new("/srv/data")])
        };
        let arena = "the model failed: Non-zero status code returned while running Conv node. Name:'/model.0/conv/Conv' \
                     Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* AllocateRaw() \
                     Failed to allocate memory for requested buffer of size 1099511627776";
        let reason = clean(ReasonCode::ModelLoad, arena);
        assert_eq!(reason.code, ReasonCode::OutOfMemory);
        assert!(reason.message.contains("Name:'/model.0/conv/Conv'") && !reason.message.contains("onnxruntime_src"));
        let reason = clean(
            ReasonCode::DecodeError,
            "OpenCV(4.6.0) ./modules/core/src/alloc.cpp:73: error: (-4:Insufficient memory) in 'x'",
        );
        assert_eq!(
            reason,
            Reason::new(ReasonCode::OutOfMemory, "OpenCV(4.6.0) error: (-4:Insufficient memory) in 'x'")
        );
        let reason = clean(ReasonCode::ModelLoad, "cannot read /srv/data/blobs/ab/cd: gone, in /srv/data/x");
        assert_eq!(reason, Reason::new(ReasonCode::ModelLoad, "cannot read (a file): gone, in (a file)/x"));
        let empty = presentable(Reason::new(ReasonCode::EndOfStream, "the end"), [Path::new("")]);
        assert_eq!(empty.message, "the end");
        let plugin = clean(ReasonCode::PluginError, "bad_alloc is what I say");
        assert_eq!(plugin.code, ReasonCode::PluginError, "a plugin speaks for itself");
        assert_eq!(clean(ReasonCode::ModelLoad, &"é".repeat(5000)).message.chars().count(), MAX_MESSAGE + 3);
    }

    #[test]
    fn failed_hooks_come_before_what_the_source_lacks() {
        for code in [ReasonCode::EndOfStream, ReasonCode::SourceIncomplete] {
            let end = Reason::new(code, "the end");
            assert_eq!(with_hooks(end.clone(), None), end);
            let failed = with_hooks(end, Some("hooks failed".into()));
            assert_eq!(failed, Reason::new(ReasonCode::HooksFailed, "hooks failed; the end"));
        }
    }

    #[test]
    fn what_happens_again_anyway_is_not_tried_five_times() {
        for (code, without_frames, with_frames) in [
            (ReasonCode::OutOfMemory, 0, 5),
            (ReasonCode::ModelStalled, 0, 1),
            (ReasonCode::SourceStalled, 1, 5),
            (ReasonCode::WorkerCrash, 5, 5),
            (ReasonCode::BlobUnavailable, 5, 5),
        ] {
            assert_eq!((restarts(code, false, 5), restarts(code, true, 5)), (without_frames, with_frames), "{code:?}");
        }
        assert_eq!(restarts(ReasonCode::SourceStalled, false, 0), 0, "never more than anything else");
    }

    #[test]
    fn the_kernel_counts() {
        assert_eq!(count_in("pgfault 7\noom_kill 3\noom_kill_x 9\n"), Some(3));
        assert_eq!(count_in("pgfault 7\n"), None);
    }
}
