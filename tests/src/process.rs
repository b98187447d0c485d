//! Looking at processes and sending them signals.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::{DEADLINE, wait_for};

/// Sends a signal to a process that a test started. One that is told to stop in its tracks has done so when
/// this returns: on a busy machine its threads go on until one of them was given a processor to hear of it.
///
/// # Panics
/// When that is no process number.
pub fn signal(pid: u32, signal: Signal) {
    let to = Pid::from_raw(i32::try_from(pid).expect("a pid fits")).expect("a pid is not 0");
    // It may have ended by itself meanwhile.
    let _gone = kill_process(to, signal);
    if signal == Signal::STOP {
        wait_for("a process to stop in its tracks", DEADLINE, || {
            threads_of(pid).iter().all(|state| ['T', 'Z', 'X'].contains(state)).then_some(())
        });
    }
}

/// The state of each thread of a process; none once it is gone.
fn threads_of(pid: u32) -> Vec<char> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}

#[must_use]
pub fn is_alive(pid: u32) -> bool {
    // A zombie has ended; only its parent has not noticed yet.
    state_of(pid).is_some_and(|(_, _, state)| state != 'Z')
}

/// The worker processes of a process that have a job; a pre-warmed one has none, and its executable's name.
#[must_use]
pub fn workers_of(parent: u32) -> Vec<u32> {
    let is_worker = |pid: &u32| state_of(*pid).is_some_and(|(name, ..)| name == "framehook-job");
    children_of(parent).into_iter().filter(is_worker).collect()
}

/// # Panics
/// Without `/proc`.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| state_of(*pid).is_some_and(|(_, owner, state)| owner == parent && state != 'Z')).collect()
}

/// Name, parent and state of a process.
fn state_of(pid: u32) -> Option<(String, u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((name, fields.next()?.parse().ok()?, state))
}
