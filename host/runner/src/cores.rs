//! Shares the cores of this machine among the workers that run.
//!
//! Each has the same number of lanes, rounded up: lanes beyond the cores share these evenly, and no core is
//! left over.

use framehook_core::spec::{Lanes, MAX_LANES};
use tokio::sync::watch;

pub(crate) struct Cores {
    /// Inferences that have a core for each of their threads.
    inferences: u32,
    /// Workers that run.
    busy: watch::Sender<u32>,
}

/// The share of one worker, for as long as it runs.
pub(crate) struct Share {
    wanted: Lanes,
    inferences: u32,
    busy: watch::Sender<u32>,
    changes: watch::Receiver<u32>,
    lanes: u32,
}

impl Cores {
    pub(crate) fn new(cores: usize, intra_threads: usize) -> Self {
        let inferences = u32::try_from(cores / intra_threads.max(1)).unwrap_or(u32::MAX);
        Self { inferences, busy: watch::Sender::new(0) }
    }

    /// For one worker more.
    pub(crate) fn enter(&self, wanted: Lanes) -> Share {
        self.busy.send_modify(|busy| *busy += 1);
        let (busy, changes) = (self.busy.clone(), self.busy.subscribe());
        let mut share = Share { wanted, inferences: self.inferences, busy, changes, lanes: 0 };
        share.lanes = share.now();
        share
    }
}

impl Share {
    /// What the worker was told last.
    pub(crate) const fn lanes(&self) -> u32 {
        self.lanes
    }

    fn now(&mut self) -> u32 {
        let busy = *self.changes.borrow_and_update();
        match self.wanted {
            Lanes::Auto => self.inferences.div_ceil(busy).clamp(1, MAX_LANES),
            Lanes::Fixed(lanes) => lanes.clamp(1, MAX_LANES),
        }
    }

    /// Waits until it is another one. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> u32 {
        loop {
            let now = self.now();
            if now != self.lanes {
                self.lanes = now;
                return now;
            }
            if self.changes.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.busy.send_modify(|busy| *busy -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn told(share: &mut Share) -> Option<u32> {
        share.changed().now_or_never()
    }

    #[test]
    fn cores_are_shared_and_what_one_leaves_the_others_get() {
        let cores = Cores::new(5, 1);
        let mut first = cores.enter(Lanes::Auto);
        assert_eq!((first.lanes(), told(&mut first)), (5, None));
        let mut second = cores.enter(Lanes::Auto);
        assert_eq!((second.lanes(), told(&mut first), told(&mut second)), (3, Some(3), None));
        let fixed = cores.enter(Lanes::Fixed(7));
        assert_eq!((fixed.lanes(), told(&mut first), told(&mut second)), (7, Some(2), Some(2)));
        let many: Vec<_> = (0..9).map(|_| cores.enter(Lanes::Auto)).collect();
        assert_eq!((told(&mut first), many[8].lanes()), (Some(1), 1));
        drop((many, fixed, second));
        assert_eq!(told(&mut first), Some(5));
    }

    #[test]
    fn lanes_stay_within_their_limits() {
        assert_eq!(Cores::new(2, 4).enter(Lanes::Auto).lanes(), 1);
        assert_eq!(Cores::new(8, 4).enter(Lanes::Auto).lanes(), 2);
        assert_eq!(Cores::new(1000, 1).enter(Lanes::Auto).lanes(), MAX_LANES);
        assert_eq!(Cores::new(1, 1).enter(Lanes::Fixed(0)).lanes(), 1);
    }
}
