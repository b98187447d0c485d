//! A control group (cgroup v2) of its own for a child, where this process may make some: the kernel counts
//! there what `RLIMIT_DATA` does not, such as shared memory, page tables and buffers of pipes, and how many
//! threads there are.
//!
//! Groups are made beside the platform's own: a group that limits others holds no process itself. So the
//! process moves into a group `platform` of the one it was started in, unless it was started in one of that
//! name (systemd's `DelegateSubgroup=platform`).

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Where the hierarchy is mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// The group of the platform's own processes.
const PLATFORM: &str = "platform";
/// Before the name of a child's group.
const CHILD: &str = "child-";
/// Threads of a child: those of the decoder grow with the processors.
const PIDS: u64 = 512;
/// Libraries and files that were read count here and not for `RLIMIT_DATA`, which shall be met first: a
/// process that is refused memory can say so, one that the kernel kills cannot.
const SHARED: u64 = 512 << 20;
/// By then a child has entered the group that was made for it.
const ENTERED: Duration = Duration::from_secs(60);

/// The group in which those of the children are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroups(PathBuf);

impl Cgroups {
    /// Prepares the group that this process was started in.
    ///
    /// # Errors
    /// With what is missing, for people.
    pub(crate) fn of_this_process() -> Result<Self, String> {
        let text = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or("there is no cgroup v2")?;
        Self::prepare(&Path::new(MOUNT).join(own.trim_start_matches('/')), std::process::id())
    }

    fn prepare(own: &Path, pid: u32) -> Result<Self, String> {
        let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let controllers = own.join("cgroup.controllers");
        let has = fs::read_to_string(&controllers).map_err(|e| at(&controllers, e))?;
        let lacks = |name: &&str| !has.split_whitespace().any(|has| has == *name);
        if let Some(missing) = ["memory", "pids"].iter().find(|name| lacks(name)) {
            return Err(format!("the controller `{missing}` is not in {}", controllers.display()));
        }
        let root = match own.parent() {
            Some(parent) if own.ends_with(PLATFORM) => parent,
            _ => {
                let members = own.join("cgroup.procs");
                let pids = fs::read_to_string(&members).map_err(|e| at(&members, e))?;
                if pids.trim() != pid.to_string() {
                    return Err(format!("{} has other processes than this one", own.display()));
                }
                let platform = own.join(PLATFORM);
                make(&platform).map_err(|e| at(&platform, e))?;
                put(&platform, "cgroup.procs", &pid.to_string()).map_err(|e| at(&platform, e))?;
                own
            }
        };
        put(root, "cgroup.subtree_control", "+memory +pids").map_err(|e| at(root, e))?;
        // A child goes from one group below to another, which takes this right in the group above both.
        let members = root.join("cgroup.procs");
        OpenOptions::new().append(true).open(&members).map_err(|e| at(&members, e))?;
        Ok(Self(root.to_owned()))
    }

    /// A new group with these limits, as the file through which a process enters it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn group(&self, memory: u64) -> io::Result<File> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let group = self.0.join(format!("{CHILD}{}-{number}", std::process::id()));
        make(&group)?;
        put(&group, "memory.max", &memory.saturating_add(SHARED).to_string())?;
        put(&group, "pids.max", &PIDS.to_string())?;
        // With swap, a child at its limit would grow slow instead of ending. Not every kernel counts it.
        put(&group, "memory.swap.max", "0").ok();
        OpenOptions::new().append(true).create(true).open(group.join("cgroup.procs"))
    }

    /// Removes the groups of children that have ended. The kernel keeps one that has a process.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(CHILD)) {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > ENTERED) {
                fs::remove_dir(entry.path()).ok();
            }
        }
    }
}

/// Between fork and exec: the kernel takes 0 for the process that writes it.
pub(crate) fn enter(group: &File) -> io::Result<()> {
    rustix::io::write(group, b"0")?;
    Ok(())
}

fn make(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn put(group: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::write(group.join(file), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that stands in for a group; the kernel makes the files of one.
    fn group(path: &Path, controllers: &str, pids: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("cgroup.controllers"), controllers).unwrap();
        fs::write(path.join("cgroup.procs"), pids).unwrap();
        for file in ["cgroup.subtree_control", "memory.max", "pids.max", "memory.swap.max"] {
            fs::write(path.join(file), "").unwrap();
        }
    }

    #[test]
    fn groups_are_made_beside_the_platforms_own() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("unit");
        group(&own, "cpu memory pids\n", "7\n");
        group(&own.join(PLATFORM), "cpu memory pids\n", "");
        // It moves into the group below.
        assert_eq!(Cgroups::prepare(&own, 7).unwrap(), Cgroups(own.clone()));
        assert_eq!(fs::read_to_string(own.join("platform/cgroup.procs")).unwrap(), "7");
        assert_eq!(fs::read_to_string(own.join("cgroup.subtree_control")).unwrap(), "+memory +pids");
        // It was started there.
        assert_eq!(Cgroups::prepare(&own.join(PLATFORM), 7).unwrap(), Cgroups(own));
    }

    #[test]
    fn what_is_missing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let said = |own: &Path| Cgroups::prepare(own, 7).unwrap_err();
        assert!(said(&dir.path().join("none")).contains("none/cgroup.controllers"));
        let own = dir.path().join("unit");
        group(&own, "cpu memory\n", "7\n");
        assert!(said(&own).contains("`pids` is not in"));
        group(&own, "memory pids\n", "7\n8\n");
        assert!(said(&own).contains("other processes"));
        // Started below a group that gives it no right to move a process.
        group(&own.join(PLATFORM), "memory pids\n", "");
        fs::remove_file(own.join("cgroup.procs")).unwrap();
        assert!(said(&own.join(PLATFORM)).contains("unit/cgroup.procs"));
    }

    #[test]
    fn a_group_has_its_limits_and_goes_once_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups(dir.path().to_owned());
        let old = dir.path().join("child-1-0");
        fs::create_dir(&old).unwrap();
        fs::File::open(&old).unwrap().set_modified(std::time::SystemTime::now() - 2 * ENTERED).unwrap();
        let (young, other) = (dir.path().join("child-1-1"), dir.path().join("other"));
        fs::create_dir(&young).unwrap();
        fs::create_dir(&other).unwrap();
        enter(&cgroups.group(1 << 30).unwrap()).unwrap();
        assert!(!old.exists() && young.exists() && other.exists());
        let made = dir.path().join(format!("{CHILD}{}-0", std::process::id()));
        let text = |file| fs::read_to_string(made.join(file)).unwrap();
        assert_eq!((text("memory.max"), text("pids.max")), (((1_u64 << 30) + SHARED).to_string(), PIDS.to_string()));
        assert_eq!(text("cgroup.procs"), "0");
    }
}
