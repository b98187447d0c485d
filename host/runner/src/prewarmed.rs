//! One worker process ahead of its job, of the kind that was asked for last: until a worker can read a job it
//! has loaded its libraries, which takes longer than most between an order and its first frame.
//!
//! Invariants: a pre-warmed worker has no job and takes no slot, so nobody counts it; it goes with the runner
//! as every worker does. One that died costs the next worker the time it would have saved, and nothing else:
//! so nobody watches it, and a worker that cannot even start is tried no more often than it has jobs.

use std::{io, sync::Arc, time::Duration};

use framehook_core::execution::Provider;
use parking_lot::Mutex;
use tokio::{process::Child, sync::Notify, time::sleep};

use crate::{
    config::RunnerConfig,
    process::{self, Kind},
};

/// Until a pre-warmed worker that was taken is replaced: by then whoever waits for the first frames of its
/// job has them, and does not share the processor with the next one's start.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Prewarmed {
    config: Arc<RunnerConfig>,
    waiting: Mutex<Waiting>,
    taken: Notify,
}

#[derive(Debug)]
struct Waiting {
    kind: Kind,
    child: Option<Child>,
}

impl Prewarmed {
    pub(crate) fn new(config: Arc<RunnerConfig>) -> Self {
        let provider = config.provider.provider().unwrap_or(Provider::Cpu);
        let kind = Kind { decoder: config.decoder, provider };
        Self { config, waiting: Mutex::new(Waiting { kind, child: None }), taken: Notify::new() }
    }

    /// A process for a job of this kind: the pre-warmed one if it is of that kind and still lives, or else a
    /// new one.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn take(&self, kind: Kind) -> io::Result<Child> {
        let prewarmed = {
            let mut waiting = self.waiting.lock();
            let fits = waiting.kind == kind;
            waiting.kind = kind;
            // One of another kind ends with this.
            waiting.child.take().filter(|_| fits)
        };
        self.taken.notify_one();
        if let Some(mut child) = prewarmed
            && child.try_wait()?.is_none()
        {
            return Ok(child);
        }
        process::start(&self.config, kind)
    }

    /// Sees to it that there is one, for ever.
    pub(crate) async fn keep(&self) {
        loop {
            self.refill();
            self.taken.notified().await;
            sleep(SETTLE).await;
        }
    }

    fn refill(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.child.is_none() {
            let started = process::start(&self.config, waiting.kind);
            waiting.child =
                started.inspect_err(|error| tracing::warn!(%error, "no pre-warmed worker could be started")).ok();
        }
    }
}
