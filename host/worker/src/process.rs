//! What the worker asks of its own process: a standard output that no library can write into, an
//! end that waits for nobody, and how much it used.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _},
        unix::{ffi::OsStrExt as _, fs::FileExt as _},
    },
    path::Path,
    sync::LazyLock,
};

/// Takes the real standard output away and points file descriptor 1 at standard error, so that
/// what a native library prints becomes a log line instead of a broken record.
///
/// # Errors
/// When the process was started without standard output or standard error.
pub fn take_stdout() -> io::Result<File> {
    let real = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    // SAFETY: both descriptors are open for the whole life of the process.
    let result = unsafe { libc::dup2(io::stderr().as_raw_fd(), io::stdout().as_raw_fd()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(real) }
}

/// Ends the process now: no destructor of OpenCV or ONNX Runtime runs, and no thread is waited
/// for, so a decoder that is stuck in a read cannot hold it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Changes the name that the kernel shows for this thread, and for the process if it is its first; it keeps
/// 15 bytes.
pub fn set_name(name: &CStr) {
    // SAFETY: the kernel copies the string, which ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Tells FFmpeg, through OpenCV, to open files only and to take them for nothing but containers of
/// video. Without it a text that looks like a playlist could name other files, or hosts.
/// What is set already stays: the runner may know better.
///
/// ONNX Runtime is told to report nothing: `with_telemetry(false)` comes after it has looked up its host.
///
/// Must be called before the first thread is started.
pub fn quieten_libraries() {
    const OPTIONS: &str = "OPENCV_FFMPEG_CAPTURE_OPTIONS";
    const CONFINED: &str = "protocol_whitelist;file|format_whitelist;mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,h264,hevc,m4v,mpegvideo,ivf,mxf,live_flv";
    // SAFETY: the process has one thread, as the contract above says.
    unsafe {
        std::env::set_var("ORT_DISABLE_TELEMETRY", "1");
        if std::env::var_os(OPTIONS).is_none() {
            std::env::set_var(OPTIONS, CONFINED);
        }
    }
}

/// Keeps FFmpeg from allocating more at once than a plane of a picture of `max_side` x `max_side` pixels
/// needs. A file may declare a small picture and hold a large one, which FFmpeg meets first, and OpenCV 4.6
/// hands no limit on to a decoder.
pub fn limit_ffmpeg(max_side: u32) {
    /// Four channels of 16 bits: the widest pixel in one plane.
    const BYTES_OF_A_PIXEL: usize = 8;
    /// Decoders align rows and columns and read some bytes too far.
    const ALIGNMENT: usize = 128;
    let side = max_side as usize + ALIGNMENT;
    // SAFETY: one number is set, which is read at the next allocation; each value is a valid one.
    unsafe { ffmpeg_next::ffi::av_max_alloc(side.saturating_mul(side).saturating_mul(BYTES_OF_A_PIXEL)) };
}

/// What the kernel says of this process.
static STATUS: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/status").ok());

/// Makes [`data_mib`] work where that file cannot be opened any more.
pub fn open_status() {
    LazyLock::force(&STATUS);
}

/// Memory of this process alone so far, as `RLIMIT_DATA` counts it; `None` where there is no `/proc`.
#[must_use]
pub fn data_mib() -> Option<u64> {
    /// More than the kernel writes.
    const LENGTH: usize = 8 << 10;
    let mut status = vec![0; LENGTH];
    let length = STATUS.as_ref()?.read_at(&mut status, 0).ok()?;
    let data = str::from_utf8(&status[..length]).ok()?.lines().find_map(|line| line.strip_prefix("VmData:"))?;
    let kib: u64 = data.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.div_ceil(1 << 10))
}

/// Opens a file of a folder that is open: whoever may not go the way to it still may from there.
///
/// # Errors
/// When there is none, or `name` is no name of a file.
pub fn open_in(folder: &File, name: &Path) -> io::Result<File> {
    let name = name.file_name().unwrap_or_default();
    let name = CString::new(name.as_bytes()).map_err(io::Error::other)?;
    let how = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the folder is open, and the name ends with a zero.
    let file = unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), how) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(file) })
}

/// CPU time of all threads so far, in milliseconds.
#[must_use]
pub fn cpu_ms() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid, writable timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// The most memory the process ever had resident, in MiB.
#[must_use]
pub fn peak_rss_mb() -> f64 {
    // SAFETY: a `rusage` is numbers, for which zero is a value.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `used` is a valid, writable rusage.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut used) };
    used.ru_maxrss as f64 / 1024.0
}
