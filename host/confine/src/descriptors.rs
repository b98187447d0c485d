//! A child's descriptors: its three pipes. Whatever a library of ours opened without `O_CLOEXEC` stays here.

/// The first that is not standard input, output or error.
const FIRST: libc::c_uint = 3;

/// Closes all others when the new program starts, and not before: through one of them the start itself is
/// reported.
///
/// Linux knows the flag from 5.11 on; before, only what was opened without `O_CLOEXEC` is passed on.
pub(crate) fn close_others() {
    // SAFETY: the system call takes no pointers, and closes nothing now.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Whether this kernel can.
pub(crate) fn can_close_others() -> bool {
    let none = libc::c_uint::MAX;
    // SAFETY: the system call takes no pointers, and no descriptor has that number.
    unsafe { libc::syscall(libc::SYS_close_range, none, none, libc::CLOSE_RANGE_CLOEXEC) == 0 }
}
