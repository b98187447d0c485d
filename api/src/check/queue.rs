//! Turns for what costs a process: probes of uploads, and checks of configurations.
//!
//! Invariants: at most [`AT_ONCE`] checks have a turn, and [`SLOW`] more go on without one. None waits longer
//! than the patience, and one that finds no place is refused at once. A client, which is an address (behind a
//! balancer all are one), has at most half of the places. A check that takes long while others wait gives its
//! turn back, so that quick ones are done within seconds.

use std::{net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::{sleep, timeout},
};

use crate::http::limits::HttpLimits;

/// Each loads a whole model or compiles a plugin: memory, not time, is what this bounds.
const AT_ONCE: usize = 2;
/// How many go on that gave their turn back. Two large models can be judged while small ones pass by.
const SLOW: usize = 2;
/// Ten times what a usual model, plugin or clip takes.
const SLICE: Duration = Duration::from_secs(3);

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) client: Option<IpAddr>,
    /// A kind of file, or the plugin that is asked: so that a plugin that answers slowly is waited for by
    /// those who use it.
    pub(crate) subject: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Busy {
    #[error("{0} checks wait already (setting `max_waiting_checks`)")]
    Full(usize),
    #[error("half of the {0} checks that may wait (setting `max_waiting_checks`) are from this client already")]
    FullOfYours(usize),
    #[error("there was no turn within {} s (setting `check_wait_s`)", .0.as_secs())]
    TooLate(Duration),
    #[error("it takes longer than {} s, and others wait", SLICE.as_secs())]
    TooLong,
}

#[derive(Debug)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
    places: usize,
    patience: Duration,
    slice: Duration,
    slow: Semaphore,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody began to wait.
    arrival: Notify,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<Claim>,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    turn: oneshot::Sender<Turn>,
}

/// Dropping it is the next one's turn.
#[derive(Debug)]
struct Turn {
    claim: Claim,
    shared: Arc<Shared>,
}

impl Queue {
    pub(crate) fn new(limits: &HttpLimits) -> Self {
        let (places, patience) = (limits.waiting_checks, limits.check_patience);
        Self { shared: Arc::default(), places, patience, slice: SLICE, slow: Semaphore::new(SLOW) }
    }

    /// Does `work` when it is its turn.
    pub(crate) async fn run<T>(&self, claim: Claim, work: impl Future<Output = T>) -> Result<T, Busy> {
        let turn = self.turn(claim).await?;
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return Ok(done),
            () = self.wanted() => {}
        }
        let Ok(_place) = self.slow.try_acquire() else { return Err(Busy::TooLong) };
        drop(turn);
        Ok(work.await)
    }

    async fn turn(&self, claim: Claim) -> Result<Turn, Busy> {
        let (turn, coming) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            if state.running.len() < AT_ONCE {
                state.running.push(claim.clone());
                return Ok(Turn { claim, shared: Arc::clone(&self.shared) });
            }
            // Whoever gave up has no place.
            state.waiting.retain(|waiting| !waiting.turn.is_closed());
            let of_client = state.waiting.iter().filter(|waiting| waiting.claim.client == claim.client).count();
            if state.waiting.len() >= self.places {
                return Err(Busy::Full(self.places));
            }
            if of_client >= self.places.div_ceil(2) {
                return Err(Busy::FullOfYours(self.places));
            }
            state.waiting.push(Waiting { claim, turn });
        }
        self.shared.arrival.notify_waiters();
        // The other end goes with the state, which is ours.
        timeout(self.patience, coming).await.ok().and_then(Result::ok).ok_or(Busy::TooLate(self.patience))
    }

    /// Returns when a turn has had its slice and somebody waits.
    async fn wanted(&self) {
        sleep(self.slice).await;
        loop {
            let arrival = self.shared.arrival.notified();
            if self.shared.state.lock().waiting.iter().any(|waiting| !waiting.turn.is_closed()) {
                return;
            }
            arrival.await;
        }
    }
}

impl State {
    /// The next: of the client with the fewest turns, then of the subject with the fewest, the one that came
    /// first.
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        let turns = |claim: &Claim| {
            let of_client = self.running.iter().filter(|running| running.client == claim.client).count();
            let of_subject = self.running.iter().filter(|running| running.subject == claim.subject).count();
            (of_client, of_subject)
        };
        let (first, _) = self.waiting.iter().enumerate().min_by_key(|(_, waiting)| turns(&waiting.claim))?;
        Some(self.waiting.remove(first))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let Some(place) = state.running.iter().position(|running| *running == self.claim) {
            state.running.swap_remove(place);
        }
        // One that gives up at this very moment drops its turn in here again.
        while state.running.len() < AT_ONCE
            && let Some(Waiting { claim, turn }) = state.next()
        {
            state.running.push(claim.clone());
            let given = turn.send(Turn { claim, shared: Arc::clone(&self.shared) });
            drop(state);
            drop(given);
            state = self.shared.state.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, net::Ipv4Addr};

    use tokio::task::JoinHandle;

    use super::*;

    fn queue(places: usize) -> Arc<Queue> {
        let limits = HttpLimits { waiting_checks: places, ..HttpLimits::default() };
        Arc::new(Queue { slice: Duration::from_millis(20), ..Queue::new(&limits) })
    }

    fn claim(client: u8, subject: &str) -> Claim {
        Claim { client: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, client))), subject: subject.into() }
    }

    fn endless(queue: &Arc<Queue>, client: u8, subject: &str) -> JoinHandle<Result<(), Busy>> {
        let (queue, claim) = (Arc::clone(queue), claim(client, subject));
        tokio::spawn(async move { queue.run(claim, pending()).await })
    }

    async fn until(queue: &Queue, running: usize, waiting: usize) {
        loop {
            let is = {
                let state = queue.shared.state.lock();
                (state.running.len(), state.waiting.len())
            };
            if is == (running, waiting) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn one_client_cannot_fill_it_and_is_told_so_at_once() {
        let limits = HttpLimits { waiting_checks: 4, ..HttpLimits::default() };
        let queue = Arc::new(Queue::new(&limits));
        let _flood: Vec<_> = (0..AT_ONCE + 2).map(|_| endless(&queue, 1, "model")).collect();
        until(&queue, AT_ONCE, 2).await;
        assert_eq!(queue.run(claim(1, "model"), async {}).await, Err(Busy::FullOfYours(4)));
        let other = endless(&queue, 2, "model");
        let third = endless(&queue, 3, "model");
        until(&queue, AT_ONCE, 4).await;
        assert_eq!(queue.run(claim(4, "model"), async {}).await, Err(Busy::Full(4)));
        other.abort();
        third.abort();
    }

    #[tokio::test]
    async fn what_is_quick_gets_through_beside_what_never_ends() {
        let queue = queue(16);
        let flood: Vec<_> = (0..AT_ONCE + SLOW + 4).map(|_| endless(&queue, 1, "model")).collect();
        until(&queue, AT_ONCE, SLOW + 4).await;
        // Another client, and then another subject, before more of the same.
        assert_eq!(queue.run(claim(2, "model"), async { 7 }).await, Ok(7));
        assert_eq!(queue.run(claim(1, "video"), async { 8 }).await, Ok(8));
        // The first went on without a turn, and those behind them made room.
        assert_eq!(queue.run(claim(1, "model"), async { 9 }).await, Ok(9));
        let ended = flood.iter().filter(|task| task.is_finished()).count();
        assert!(ended >= 2, "{ended}");
        flood.iter().for_each(JoinHandle::abort);
    }

    #[tokio::test]
    async fn nobody_who_takes_long_is_disturbed_while_nobody_waits() {
        let queue = queue(4);
        let long = queue.run(claim(1, "model"), sleep(queue.slice * 3));
        assert_eq!(long.await, Ok(()));
    }

    #[tokio::test]
    async fn patience_ends_and_whoever_gave_up_takes_no_turn() {
        let patience = Duration::from_millis(20);
        let queue = Arc::new(Queue { patience, ..Queue::new(&HttpLimits::default()) });
        let quick = claim(2, "model");
        let turns = [queue.turn(quick.clone()).await.unwrap(), queue.turn(quick).await.unwrap()];
        let gone = endless(&queue, 1, "model");
        until(&queue, AT_ONCE, 1).await;
        gone.abort();
        assert_eq!(queue.run(claim(3, "model"), async {}).await, Err(Busy::TooLate(patience)));
        drop(turns);
        assert_eq!(queue.run(claim(3, "model"), async {}).await, Ok(()));
        until(&queue, 0, 0).await;
    }
}
