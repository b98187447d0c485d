//! The attacks, as code that took over a child would make them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    os::{
        fd::FromRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            net::{SocketAddr, UnixStream},
            process::CommandExt as _,
        },
    },
    process::Command,
};

use framehook_confine::{Devices, Reach, begin, keep_memory_private, restrict_files, restrict_system_calls};

use super::SECRET;

/// Confines itself by the pieces of `inside`, attacks, says how that went, and ends.
pub(crate) fn run(attack: &str, inside: &str) {
    for piece in inside.split(',').filter(|piece| !piece.is_empty()) {
        match piece {
            "begin" => begin().unwrap(),
            "memory" => keep_memory_private().unwrap(),
            "system_calls" => restrict_system_calls(Devices::None).unwrap(),
            "files" => restrict_files(&Reach::default()).unwrap(),
            "gpu_system_calls" => restrict_system_calls(Devices::Gpu).unwrap(),
            "gpu_files" => restrict_files(&Reach::default().with(Devices::Gpu)).unwrap(),
            other => panic!("no piece is called {other}"),
        }
    }
    let (name, argument) = attack.split_once(' ').unwrap_or((attack, ""));
    let outcome = match name {
        "environment" => std::env::var(SECRET).map(drop).map_err(io::Error::other),
        // SAFETY: the number is of a descriptor that the parent opened, or of none; nothing else here uses
        // it.
        "descriptor" => read(unsafe { File::from_raw_fd(argument.parse().unwrap()) }),
        "read" => File::open(argument).and_then(read),
        "write" => OpenOptions::new().write(true).open(argument).and_then(|mut file| file.write_all(b"the secret")),
        "make" => OpenOptions::new().write(true).create(true).truncate(true).open(argument).map(drop),
        "empty" => empty(argument),
        "tcp" => TcpStream::connect(argument).map(drop),
        "udp" => UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", argument)).map(drop),
        "abstract" => SocketAddr::from_abstract_name(argument).and_then(|a| UnixStream::connect_addr(&a)).map(drop),
        "fork" => fork(),
        "execute" => execute(argument),
        // SAFETY: signal 0 is none: it only asks whether one could be sent.
        "signal" => checked(unsafe { libc::kill(argument.parse().unwrap(), 0) }.into()),
        "call" => call(argument),
        "memory" => allocate(1 << 30),
        "processor" => burn(),
        "open" => (0..300).map(|_| File::open("/dev/null")).collect::<Result<Vec<_>, _>>().map(drop),
        "environment-of" => fs::read_to_string(format!("/proc/{argument}/environ"))
            .and_then(|text| if text.contains(SECRET) { Ok(()) } else { Err(io::Error::other("nothing in it")) }),
        "memory-of" => peek(argument.parse().unwrap()),
        "score" => {
            println!("\nscore {}", fs::read_to_string("/proc/self/oom_score_adj").unwrap());
            Ok(())
        }
        "wait" => {
            print!("waiting");
            io::stdout().flush().unwrap();
            io::stdin().read(&mut [0]).map(drop)
        }
        other => panic!("no attack is called {other}"),
    };
    match outcome {
        Ok(()) => println!("\nattack succeeded"),
        Err(error) => println!("\nstopped: {error}"),
    }
    std::process::exit(0);
}

fn read(mut file: File) -> io::Result<()> {
    file.read(&mut [0; 16]).map(drop)
}

fn checked(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a file to read it, and empties it by that.
fn empty(path: &str) -> io::Result<()> {
    let path = std::ffi::CString::new(path)?;
    // SAFETY: the path ends with a zero, and outlives the call.
    checked(unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_TRUNC) }.into())
}

fn fork() -> io::Result<()> {
    // SAFETY: the child makes one system call that is safe there, and ends.
    match unsafe { libc::fork() } {
        // SAFETY: ends the process without touching anything.
        0 => unsafe { libc::_exit(0) },
        pid => checked(pid.into()),
    }
}

/// In place of this process, so that it takes no fork.
fn execute(program: &str) -> io::Result<()> {
    let argument = if program.ends_with("/id") { "-u" } else { "attack succeeded" };
    Err(Command::new(program).arg(argument).exec())
}

/// Whether there is such a system call: its arguments are such that none does anything.
fn call(name: &str) -> io::Result<()> {
    let number = match name {
        "bpf" => libc::SYS_bpf,
        "handle" => libc::SYS_open_by_handle_at,
        "io_uring" => libc::SYS_io_uring_setup,
        "keyctl" => libc::SYS_keyctl,
        "mount" => libc::SYS_mount,
        "perf" => libc::SYS_perf_event_open,
        "ptrace" => libc::SYS_ptrace,
        "setuid" => libc::SYS_setuid,
        "socketpair" => libc::SYS_socketpair,
        "unshare" => libc::SYS_unshare,
        "userfaultfd" => libc::SYS_userfaultfd,
        other => panic!("no system call is called {other}"),
    };
    let nothing = -1_i64;
    // SAFETY: no pointer among the arguments is one of this process.
    let result = unsafe { libc::syscall(number, nothing, nothing, nothing, nothing, nothing) };
    match checked(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

fn allocate(bytes: usize) -> io::Result<()> {
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(io::Error::other)
}

/// Works for half a second longer than it may.
fn burn() -> io::Result<()> {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    while (used.tv_sec, used.tv_nsec) < (1, 500_000_000) {
        // SAFETY: `used` is a valid, writable timespec.
        checked(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut used) }.into())?;
    }
    Ok(())
}

/// Whether the memory of another process can be read, wherever in it something is.
fn peek(pid: i32) -> io::Result<()> {
    let mut byte = 0_u8;
    let here = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let there = libc::iovec { iov_base: std::ptr::without_provenance_mut(4096), iov_len: 1 };
    // SAFETY: both lists have one entry, and that of this process is one writable byte.
    let result = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
    match checked(result as i64) {
        Err(error) if error.raw_os_error() != Some(libc::EFAULT) => Err(error),
        _ => Ok(()),
    }
}
