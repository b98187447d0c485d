//! A user of its own for the children of a process that runs as root.
//!
//! It keeps one capability, to read files whatever their permissions are, because the files of a job lie in
//! folders that are closed to everybody but the platform; how far that reaches is for
//! [`crate::restrict_files`] to say. Nothing else of root is left: no writing, no signals, no looking into
//! other processes.
//!
//! All children have the same user. They are kept from each other by the other restrictions, and a limit on
//! the number of its processes would let one child take what the others need; so there is none.

use std::io;

use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities,
        set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::ConfineError;

/// `nobody` on every system, and mapped in every container.
pub const DEFAULT_USER: u32 = 65_534;

/// What the child keeps.
const KEPT: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// Who children run as, where they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(pub(crate) u32);

impl User {
    /// # Errors
    /// With what keeps this process from it, for people.
    pub fn new(id: u32) -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("this process does not run as root, so its children are of its own user".into());
        }
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL | KEPT;
        let have = capabilities(None).map_err(|e| e.to_string())?.permitted;
        if !have.contains(needed) {
            let lacks: Vec<_> = needed.difference(have).iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
            return Err(format!("this process is root without {}", lacks.join(", ")));
        }
        let is_mapped = |file| std::fs::read_to_string(file).is_ok_and(|map| maps(&map, id));
        if !["/proc/self/uid_map", "/proc/self/gid_map"].into_iter().all(is_mapped) {
            return Err(format!("user {id} is not in the user namespace of this process"));
        }
        Ok(Self(id))
    }

    /// Between fork and exec: this thread is the whole process.
    pub(crate) fn become_it(self) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(self.0), Gid::from_raw(self.0));
        set_keep_capabilities(true)?;
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        set_capabilities(None, CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: KEPT })?;
        Ok(configure_capability_in_ambient_set(KEPT, true)?)
    }
}

/// Whether a map of a user namespace (lines of first inside, first outside, how many) has this number inside.
fn maps(map: &str, id: u32) -> bool {
    let numbers = |line: &str| line.split_whitespace().map(|n| n.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    map.lines().filter_map(numbers).any(|line| match line[..] {
        [first, _, count] => (first..first + count).contains(&u64::from(id)),
        _ => false,
    })
}

/// Gives up what [`User`] left, in this thread and those that it starts.
///
/// # Errors
/// When the kernel refuses.
pub fn give_up_capabilities() -> Result<(), ConfineError> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|errno| ConfineError::Capabilities(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_mapped_or_not() {
        assert!(maps("         0          0 4294967295\n", DEFAULT_USER));
        assert!(!maps("         0       1000          1\n", DEFAULT_USER));
        assert!(maps("0 1000 1\n1 100000 65536\n", DEFAULT_USER));
        assert!(!maps("", DEFAULT_USER));
    }
}
