//! Somebody who runs the demo scenario again and again, and looks at every row.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use framehook_tests::{
    client::{Client, light_scenario},
    cluster::{FRAMES, found},
};

/// As long as four endless models may hold every slot, and some runs behind it on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Neighbour {
    leaves: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Neighbour {
    /// Its first run, with nobody beside it, is what all others are compared with.
    pub(super) fn moves_in(url: &str) -> Self {
        let client = Client::new(vec![url.to_owned()], PATIENCE, PATIENCE);
        let run = move || found(&client.completed(&client.post_scenario(&light_scenario()), FRAMES));
        let undisturbed = run();
        let leaves = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let leaves = leaves.clone();
            move || {
                let mut runs = 0;
                while !leaves.load(Ordering::Relaxed) {
                    assert!(run() == undisturbed, "run {runs} of the neighbour has other rows");
                    runs += 1;
                }
                runs
            }
        });
        Self { leaves, thread: Some(thread) }
    }

    /// How often it ran; panics when a run was not like the first.
    pub(super) fn moves_out(mut self) -> usize {
        self.leaves.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it moves out once");
        thread.join().expect("every run of the neighbour is like the first")
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.leaves.store(true, Ordering::Relaxed);
    }
}
