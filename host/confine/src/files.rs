//! Which files a child can open, by Landlock: those it was given, and the libraries of the system. No
//! connection over TCP (UDP where the kernel has it), no signal to and no abstract socket of a process
//! outside.
//!
//! A rule holds for the file that a path names now. Restrictions add up and are never taken back.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    RestrictSelfAttr as _, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};

use crate::ConfineError;

/// The newest that the library knows; a kernel uses the part that it has.
const NEWEST: ABI = ABI::V10;

/// Where the dynamic linker looks, and the data files of libraries lie.
const LIBRARIES: [&str; 6] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];

/// How many processors there are and what they can: libraries choose their code by it. And what any program
/// may read.
const SYSTEM: [&str; 4] = ["/sys/devices/system/cpu", "/proc/cpuinfo", "/dev/null", "/dev/urandom"];

/// What CUDA reads besides: where its own memory lies.
const GPU_READ: [&str; 1] = ["/proc/self"];

/// Where CUDA gives its threads their names.
const GPU_WRITE: &str = "/proc/self/task";

/// Devices of a GPU in `/dev` begin so.
const GPU_DEVICES: &str = "nvidia";

/// Devices that a child may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    #[default]
    None,
    /// GPUs of NVIDIA. Their driver is in the kernel, so this is a good deal more than nothing.
    Gpu,
}

/// What a child needs besides the libraries of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Files, or folders with all that is in them.
    pub read: Vec<PathBuf>,
    /// Files that exist already.
    pub write: Vec<PathBuf>,
    pub devices: Devices,
}

impl Reach {
    pub fn reading<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let read = paths.into_iter().map(|path| path.as_ref().to_owned()).collect();
        Self { read, ..Self::default() }
    }

    #[must_use]
    pub fn with(self, devices: Devices) -> Self {
        Self { devices, ..self }
    }
}

/// Lets this thread, and those that it starts, open nothing but what is within `reach`; from Linux 7.0 on all
/// threads.
///
/// # Errors
/// When the kernel has Landlock and refuses.
pub fn restrict_files(reach: &Reach) -> Result<(), ConfineError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    // Before the rules, because an environment variable is no upload's to set.
    let linked = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let linked = std::env::split_paths(&linked).filter(|path| path.is_absolute());
    let fixed = LIBRARIES.into_iter().chain(SYSTEM).map(PathBuf::from);
    let (devices, of_devices) = match reach.devices {
        Devices::None => (Vec::new(), &[][..]),
        Devices::Gpu => (gpu_write().collect(), &GPU_READ[..]),
    };
    let readable = fixed.chain(linked).chain(of_devices.iter().map(PathBuf::from)).chain(reach.read.iter().cloned());
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(rules(readable, read))?
        .add_rules(rules(reach.write.iter().cloned(), write))?
        .add_rules(rules(devices.into_iter(), write | AccessFs::IoctlDev))?
        .all_threads(true)?
        .restrict_self()?;
    Ok(())
}

fn gpu_write() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let devices = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(GPU_DEVICES));
    devices.map(|entry| entry.path()).chain([PathBuf::from(GPU_WRITE)])
}

/// A path that does not exist needs no rule: whoever opens it is told so.
fn rules(
    paths: impl Iterator<Item = PathBuf>,
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    paths.filter_map(move |path| {
        let is_folder = path.is_dir();
        let file = PathFd::new(path).ok()?;
        // The rights of folders cannot be had for a file.
        let access = if is_folder { access } else { access & AccessFs::from_file(NEWEST) };
        Some(Ok(PathBeneath::new(file, access)))
    })
}
