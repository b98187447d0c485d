//! Ends the worker when its model gives no answer in time: nothing can interrupt ONNX Runtime inside an
//! operator.
//!
//! Time is counted in ticks of the watching thread, not on a clock: a process or a machine that was frozen
//! for a while has not ticked, and its model is not blamed for it.
//!
//! Deliberately absent: any word about the source and the hooks. Hooks have deadlines of their own, and a
//! source that is silent is for the runner, which sees that no frame comes.

use std::{sync::Arc, thread, time::Duration};

use parking_lot::Mutex;

use framehook_core::{
    job::{Outcome, Report},
    reason::{Reason, ReasonCode},
};

use crate::{process, report::Reporter};

/// Short beside the shortest limit, which is that of a frame timeout of one second; nothing beside a core's
/// work.
const TICK: Duration = Duration::from_millis(100);

/// What the model is at in each lane, for as long as it is. A place that is free is used again.
#[derive(Default)]
pub struct Watch(Mutex<Vec<Option<Work>>>);

struct Work {
    what: &'static str,
    limit: Duration,
    waited: Duration,
}

impl Watch {
    /// A watch whose thread runs as long as the process.
    #[must_use]
    pub fn start(reporter: Arc<Reporter>) -> Arc<Self> {
        let watch = Arc::new(Self::default());
        let watching = Arc::clone(&watch);
        thread::spawn(move || {
            loop {
                thread::sleep(TICK);
                watching.tick(|reason| {
                    reporter.send(&Report::Ended { outcome: Outcome::Retry, reason });
                    process::exit_now(0)
                });
            }
        });
        watch
    }

    /// Does `work`, which must not take longer than `limit_ms`.
    pub fn during<T>(&self, what: &'static str, limit_ms: u64, work: impl FnOnce() -> T) -> T {
        let place = self.begin(Work { what, limit: Duration::from_millis(limit_ms), waited: Duration::ZERO });
        let done = work();
        self.0.lock()[place] = None;
        done
    }

    fn begin(&self, work: Work) -> usize {
        let mut places = self.0.lock();
        let place = places.iter().position(Option::is_none).unwrap_or_else(|| {
            places.push(None);
            places.len() - 1
        });
        places[place] = Some(work);
        place
    }

    /// What ended meanwhile is not blamed: the lock is held from the look to the end.
    fn tick(&self, late: impl FnOnce(Reason)) {
        let mut places = self.0.lock();
        for Work { what, limit, waited } in places.iter_mut().flatten() {
            *waited += TICK;
            if waited >= limit {
                let message = format!("{what} took longer than {:.1} s", limit.as_secs_f64());
                return late(Reason::new(ReasonCode::ModelStalled, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_under_way_for_too_long_is_late() {
        let watch = Watch::default();
        let ticks = |times: u32| {
            let mut said = None;
            (0..times).for_each(|_| watch.tick(|reason| said = Some(reason)));
            said
        };
        assert_eq!(ticks(100), None, "nothing is under way");
        watch.during("an inference", 1000, || assert_eq!(ticks(9), None));
        watch.during("an inference", 1000, || {
            assert_eq!(ticks(9), None, "the time of another is not its own");
            let reason = ticks(1).expect("it is late");
            assert_eq!(reason, Reason::new(ReasonCode::ModelStalled, "an inference took longer than 1.0 s"));
        });
        assert_eq!(ticks(100), None);
        watch.during("the first lane", 1000, || {
            assert_eq!(ticks(9), None);
            watch.during("the second", 1000, || assert!(ticks(1).unwrap().message.starts_with("the first lane")));
        });
        watch.during("an inference", 1000, || assert_eq!(ticks(9), None, "a place is empty when it is used again"));
        assert_eq!(watch.0.lock().len(), 2);
    }
}
