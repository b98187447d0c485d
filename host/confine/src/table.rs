//! Which parts of the confinement hold on this machine: found out by trying them, in a child that is started
//! and confined like every other, whatever a kernel's version or a container's profile says.

use std::{
    io,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Stdio,
};

use framehook_core::message::Confinement;
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getppid, getrlimit, test_kill_process};

use crate::{
    ConfineError, Devices, Limits, Reach, Sandbox, User, begin, descriptors, environment, limits, restrict_files,
    restrict_system_calls,
};

/// The arguments of `framehook` that make it the child which tries.
const ARGUMENTS: [&str; 2] = ["plugin-host", "confinement"];

/// What no installation that asks for a sandbox may lack; the rest is a second line behind these.
pub const REQUIRED: [&str; 5] = ["descriptors", "files", "limits", "no_new_privileges", "system_calls"];

/// It only looks at itself.
const LIMITS: Limits = Limits { memory: 1 << 30, cpu_seconds: Some(10), file_size: 0 };

/// Each with what it does, and what is missing where it does not.
const TEXTS: [(&str, &str, &str); 11] = [
    ("environment", "made from nothing: no credentials are in it", "variables of this process are passed on"),
    (
        "descriptors",
        "a child has its pipes and nothing else of this process",
        "the kernel has no close_range for it (Linux 5.11): what a library leaves open is passed on",
    ),
    ("working_directory", "empty and removed", "no temporary folder could be made"),
    ("limits", "memory, processor time, descriptors and written bytes are bounded", "they could not be set"),
    ("oom_score", "a child goes before the platform when memory runs out", "/proc is not mounted or not writable"),
    ("no_new_privileges", "no program that a child could start has more rights", "it could not be set"),
    (
        "files",
        "Landlock: a child reads the files of its job and the libraries of the system, and writes none",
        "the kernel has no Landlock (Linux 5.13), it is switched off, or a container's filter refuses it: a child reads \
         whatever this process may read",
    ),
    (
        "network",
        "Landlock: no connection over TCP",
        "there is no Landlock, or one without network (Linux 6.7): system_calls alone keeps children from it",
    ),
    (
        "signals",
        "no signal reaches the platform",
        "there is neither Landlock for it (Linux 6.12), nor seccomp, nor another user: a child may signal the platform",
    ),
    (
        "system_calls",
        "seccomp: no sockets, no new processes or programs, no look into others, no mounts",
        "the kernel has no seccomp filters, or a container's own refuses more: a child may ask the kernel for anything",
    ),
    ("memory", "other processes of this user cannot look into this one", "the kernel lets them"),
];

fn row(name: &str, on: bool) -> Confinement {
    let texts = TEXTS.iter().find(|(known, ..)| *known == name);
    let why = texts.map_or("", |(_, does, lacks)| if on { does } else { lacks });
    Confinement { name: name.into(), on, why: why.into() }
}

impl Sandbox {
    /// What children of this sandbox are confined by. `framehook` is the executable that knows `plugin-host
    /// confinement`.
    ///
    /// # Errors
    /// When no child can be started, or it does not come to its end.
    pub fn table(&self, framehook: &Path) -> io::Result<Vec<Confinement>> {
        let mut command = self.command(framehook, LIMITS);
        command.args(ARGUMENTS).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = command.output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{}: {}", output.status, errors.trim())));
        }
        let mut rows: Vec<Confinement> = serde_json::from_slice(&output.stdout)?;
        rows.push(row("memory", dumpable_behavior()? == DumpableBehavior::NotDumpable));
        rows.extend([self.user_row(), self.cgroup_row()]);
        Ok(rows)
    }

    fn cgroup_row(&self) -> Confinement {
        let (on, why) = match self.cgroups.as_ref().map(|groups| groups.group(LIMITS.memory)) {
            Ok(Ok(_)) => (true, "memory and threads are counted by the kernel, child by child".to_owned()),
            Ok(Err(error)) => (false, error.to_string()),
            Err(why) => (false, why.clone()),
        };
        Confinement { name: "cgroup".into(), on, why }
    }

    fn user_row(&self) -> Confinement {
        let (on, why) = match &self.user {
            Ok(User(id)) => (true, format!("a child runs as user {id}, and of root's powers may only read")),
            Err(why) => (false, why.clone()),
        };
        Confinement { name: "user".into(), on, why }
    }
}

/// Confines this process step by step, and tries what each step is to prevent. Only for a process of its own.
///
/// # Errors
/// When a restriction that this kernel has does not take effect.
pub fn attempt() -> Result<Vec<Confinement>, ConfineError> {
    begin()?;
    let mut rows = vec![
        row("environment", std::env::vars_os().all(|(name, _)| environment::is_known(&name))),
        row("descriptors", descriptors::can_close_others()),
        row("working_directory", std::fs::metadata(".").is_ok_and(|folder| folder.nlink() == 0)),
        row("limits", getrlimit(Resource::Core).maximum == Some(0) && getrlimit(Resource::Data).maximum.is_some()),
        row("oom_score", limits::dies_first()),
        row("no_new_privileges", rustix::thread::no_new_privs().unwrap_or(false)),
    ];
    restrict_files(&Reach::default())?;
    let is_refused = |result: io::Result<()>| result.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    // Nobody has to listen there: Landlock refuses before the network is asked.
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, 9)).map(drop);
    rows.push(row("files", is_refused(std::fs::read_dir("/").map(drop))));
    rows.push(row("network", is_refused(connection)));
    restrict_system_calls(Devices::None)?;
    let parent = getppid().map_or(Ok(()), test_kill_process);
    rows.push(row("signals", parent.is_err()));
    // Whoever else refuses sockets, such as a service manager, gives another error than the filter does.
    let socket = std::os::unix::net::UnixDatagram::unbound();
    rows.push(row("system_calls", socket.is_err_and(|e| e.raw_os_error() == Some(libc::ENOSYS))));
    Ok(rows)
}
