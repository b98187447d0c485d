//! One worker process ahead of its job, with the runner's own decoder: until a worker can read one it has
//! loaded some hundred libraries, which takes longer than anything else between an order and its first frame.
//!
//! Invariants: a pre-warmed worker has no job and takes no slot, so nobody counts it; it goes with the runner
//! as every worker does. One that died costs the next worker the time it would have saved, and nothing else:
//! so nobody watches it, and a worker that cannot even start is tried no more often than it has jobs.

use std::{io, sync::Arc, time::Duration};

use framehook_core::spec::Decoder;
use parking_lot::Mutex;
use tokio::{process::Child, sync::Notify, time::sleep};

use crate::{config::RunnerConfig, process};

/// Until a pre-warmed worker that was taken is replaced: by then whoever waits for the first frames of its
/// job has them, and does not share the processor with the next one's start.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Prewarmed {
    config: Arc<RunnerConfig>,
    waiting: Mutex<Option<Child>>,
    taken: Notify,
}

impl Prewarmed {
    pub(crate) fn new(config: Arc<RunnerConfig>) -> Self {
        Self { config, waiting: Mutex::default(), taken: Notify::new() }
    }

    /// A process for a job with this decoder: the pre-warmed one if it has it and still lives, or else a new
    /// one.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn take(&self, decoder: Decoder) -> io::Result<Child> {
        if decoder != self.config.decoder {
            return process::start(&self.config, decoder);
        }
        let prewarmed = self.waiting.lock().take();
        self.taken.notify_one();
        if let Some(mut child) = prewarmed
            && child.try_wait()?.is_none()
        {
            return Ok(child);
        }
        process::start(&self.config, decoder)
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
        if waiting.is_none() {
            let started = process::start(&self.config, self.config.decoder);
            *waiting =
                started.inspect_err(|error| tracing::warn!(%error, "no pre-warmed worker could be started")).ok();
        }
    }
}
