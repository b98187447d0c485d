//! Which system calls a child can make, by seccomp: those that decoding, inference and plugins were seen to
//! make, and their older or newer forms. Every other does not exist for it (`ENOSYS`), which is what
//! libraries are prepared for: they take the next best way, where an unexpected `EPERM` would end some.
//!
//! So there is no socket but a pair within the process, no new process or program, no look into
//! another process, no mount, no module, no `bpf`, no `io_uring`, no `userfaultfd`, no key and no
//! performance counter; signals reach this process alone. Files are opened through `open`, whose
//! paths [`crate::restrict_files`] judges.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq,
    SeccompCmpOp::MaskedEq, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::{ConfineError, Devices};

/// Allowed with any arguments.
const ANY: &[libc::c_long] = &[
    // Bytes.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    // Files and descriptors.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    // Waiting.
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_restart_syscall,
    // Memory. Plugins are machine code, so memory may become executable.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals of its own.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    // Who and when it is, and what it used.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Giving up more.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_seccomp,
];

/// The older forms of some of them.
#[cfg(target_arch = "x86_64")]
const OLD: &[libc::c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_eventfd,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_time,
    libc::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[libc::c_long] = &[];

/// Requests of `ioctl`: is it a terminal and how wide, how much is there to read, how a descriptor behaves.
const REQUESTS: [libc::Ioctl; 6] =
    [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::FIONBIO, libc::FIOCLEX, libc::FIONCLEX];

/// Options of `prctl`: names of threads and of memory, and giving up more.
const OPTIONS: [libc::c_int; 5] =
    [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA, libc::PR_SET_NO_NEW_PRIVS, libc::PR_CAPBSET_READ];

/// What makes a `clone` more than a thread of this process.
const NOT_A_THREAD: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// What CUDA makes besides, as tried on an H200 with driver 580: any request of a device (which devices there
/// are is for [`crate::restrict_files`] to say), and a socket within the machine that it listens at. Nobody
/// takes what comes in, and this process connects to nothing. It also shares memory without a file with its
/// device, so such memory is counted by its control group alone.
const GPU: &[libc::c_long] = &[libc::SYS_ioctl, libc::SYS_bind, libc::SYS_listen, UNLINK];

#[cfg(target_arch = "x86_64")]
const UNLINK: libc::c_long = libc::SYS_unlink;
#[cfg(not(target_arch = "x86_64"))]
const UNLINK: libc::c_long = libc::SYS_unlinkat;

/// How a machine says that it has no filters: a kernel without seccomp, one without filters, and the filter
/// of a container around this process.
const MISSING: [libc::c_int; 3] = [libc::ENOSYS, libc::EINVAL, libc::EPERM];

/// Takes all other system calls from this process, all its threads included.
///
/// # Errors
/// When the kernel has seccomp and it does not take effect.
pub fn restrict_system_calls(devices: Devices) -> Result<(), ConfineError> {
    let program = filter(devices).and_then(BpfProgram::try_from).map_err(seccompiler::Error::from)?;
    match seccompiler::apply_filter_all_threads(&program) {
        Err(seccompiler::Error::Seccomp(error)) if error.raw_os_error().is_some_and(|e| MISSING.contains(&e)) => Ok(()),
        other => Ok(other?),
    }
}

fn filter(devices: Devices) -> Result<SeccompFilter, seccompiler::BackendError> {
    let own = u64::from(std::process::id());
    let is = |argument, value: u64| SeccompCondition::new(argument, Dword, Eq, value);
    let lacks = |argument, flag: libc::c_int| {
        SeccompCondition::new(argument, Dword, MaskedEq(u64::from(flag.cast_unsigned())), 0)
    };
    let when = |condition| SeccompRule::new(vec![condition]);
    // Landlock judges what a file is opened to; before Linux 6.2 that is nothing for one that is opened to be
    // read and emptied.
    let opened = |argument| -> Result<_, seccompiler::BackendError> {
        let mode = u64::from(libc::O_ACCMODE.cast_unsigned());
        let is_for = |how: libc::c_int| {
            SeccompCondition::new(argument, Dword, MaskedEq(mode), u64::from(how.cast_unsigned())).and_then(when)
        };
        Ok(vec![when(lacks(argument, libc::O_TRUNC)?)?, is_for(libc::O_WRONLY)?, is_for(libc::O_RDWR)?])
    };
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let flags = thread | u64::from(NOT_A_THREAD.cast_unsigned());
    let mut rules: BTreeMap<_, _> = ANY.iter().chain(OLD).map(|call| (*call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opened(1)?);
    rules.extend([
        (libc::SYS_openat, opened(2)?),
        // `clone3` has its flags in memory, where no filter sees them; without it libraries take this.
        (libc::SYS_clone, vec![when(SeccompCondition::new(0, Qword, MaskedEq(flags), thread)?)?]),
        // Memory of files, or of its own. Neither `memfd_create` nor shared memory without a file: both would
        // be memory that no limit counts.
        (libc::SYS_mmap, vec![when(lacks(3, libc::MAP_SHARED)?)?, when(lacks(3, libc::MAP_ANONYMOUS)?)?]),
        // What a plugin prints goes through a runtime of the plugin engine, which makes a pair for signals.
        (libc::SYS_socketpair, vec![when(is(0, u64::from(libc::AF_UNIX.cast_unsigned()))?)?]),
        (libc::SYS_kill, vec![when(is(0, own)?)?]),
        (libc::SYS_tgkill, vec![when(is(0, own)?)?]),
        // Its own limits; without a capability it can only lower them.
        (libc::SYS_prlimit64, vec![when(is(0, 0)?)?, when(is(0, own)?)?]),
        (libc::SYS_ioctl, REQUESTS.iter().map(|request| when(is(1, *request)?)).collect::<Result<_, _>>()?),
        (
            libc::SYS_prctl,
            OPTIONS.iter().map(|o| when(is(0, u64::from(o.cast_unsigned()))?)).collect::<Result<_, _>>()?,
        ),
    ]);
    if devices == Devices::Gpu {
        rules.extend(GPU.iter().map(|call| (*call, Vec::new())));
        rules.insert(libc::SYS_mmap, Vec::new());
        rules.insert(libc::SYS_socket, vec![when(is(0, u64::from(libc::AF_UNIX.cast_unsigned()))?)?]);
    }
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    SeccompFilter::new(rules, absent, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)
}
