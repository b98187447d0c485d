//! Who may run a worker: as many as there are slots, and no more memory than there is.
//!
//! The orchestrator places by the same numbers. It may be behind, of another release or not alone, so they
//! hold here too.

use std::{fs, path::Path};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Three quarters for the workers: the rest is for the platform, for two uploads that are looked at, and for
/// the cache that videos and models are read through.
const SHARE: (u64, u64) = (3, 4);

pub(crate) struct Admission {
    /// One permit a worker process.
    slots: Semaphore,
    /// One permit a MiB, and how many there are; `None`: as much as they want.
    memory: Option<(Semaphore, u32)>,
}

/// A place for one worker, for as long as it lives.
pub(crate) struct Place<'a> {
    _memory: Option<SemaphorePermit<'a>>,
    _slot: SemaphorePermit<'a>,
}

impl Admission {
    pub(crate) fn new(slots: u32, memory_mib: Option<u32>) -> Self {
        Self {
            slots: Semaphore::new(slots as usize),
            memory: memory_mib.map(|mib| (Semaphore::new(mib as usize), mib)),
        }
    }

    /// Whether the next one has to wait.
    pub(crate) fn is_full(&self, memory_mib: u32) -> bool {
        let needed = |(memory, all): &(Semaphore, u32)| memory.available_permits() < memory_mib.min(*all) as usize;
        self.slots.available_permits() == 0 || self.memory.as_ref().is_some_and(needed)
    }

    /// Waits for a place. One that needs more memory than there is gets all of it. Cancel-safe.
    pub(crate) async fn enter(&self, memory_mib: u32) -> Place<'_> {
        const OPEN: &str = "nobody closes these semaphores";
        // Memory first: a deployment that waits for it holds no slot meanwhile.
        let memory = match &self.memory {
            Some((memory, all)) => Some(memory.acquire_many(memory_mib.min(*all)).await.expect(OPEN)),
            None => None,
        };
        Place { _memory: memory, _slot: self.slots.acquire().await.expect(OPEN) }
    }
}

/// Memory for workers, in MiB: a share of what this machine has, or of what its container may use.
pub(crate) fn memory_of_machine() -> Option<u32> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let groups =
        groups.into_iter().filter(|path| Path::new(path).exists()).filter_map(|path| read(path).trim().parse().ok());
    share(groups.chain(total(&read("/proc/meminfo"))).min()?)
}

fn share(bytes: u64) -> Option<u32> {
    u32::try_from(bytes / SHARE.1 * SHARE.0 / (1 << 20)).ok().filter(|mib| *mib > 0)
}

/// Bytes that the kernel says the machine has.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use super::*;

    #[tokio::test]
    async fn a_place_takes_a_slot_and_memory_and_gives_both_back() {
        let admission = Admission::new(2, Some(1000));
        let first = admission.enter(600).await;
        assert!(admission.is_full(401) && !admission.is_full(400));
        let mut large = pin!(admission.enter(5000));
        assert!(matches!(futures::poll!(&mut large), Poll::Pending));
        drop(first);
        let large = large.await;
        assert!(admission.is_full(1), "it has all there is");
        drop(large);
        let (_a, _b) = (admission.enter(1).await, admission.enter(1).await);
        assert!(admission.is_full(1), "both slots are taken");
        assert!(matches!(futures::poll!(pin!(admission.enter(1))), Poll::Pending));
    }

    #[tokio::test]
    async fn without_a_limit_only_slots_count() {
        let admission = Admission::new(1, None);
        assert!(!admission.is_full(u32::MAX));
        let _one = admission.enter(u32::MAX).await;
        assert!(admission.is_full(0));
    }

    #[test]
    fn the_machine_has_what_the_kernel_says() {
        assert_eq!(total("MemTotal:       16326852 kB\nMemFree: 1 kB\n").and_then(share), Some(11_958));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        // An unlimited group of version 1.
        assert_eq!(share(9_223_372_036_854_771_712), None);
        assert!(memory_of_machine().is_some_and(|mib| mib > 100));
    }
}
