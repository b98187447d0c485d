//! When the world is looked at: at once when it was quiet, and else for half of the time at most,
//! so that heartbeats are read and recorded meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Between two looks at what heartbeats say: a start is several of them in a row, and states are
/// for people to see.
const BREATH: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Pace {
    due: Option<Instant>,
    /// When the last look ended, and how long it took.
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// Heartbeats were recorded, or it is time for a scan.
    pub(crate) fn on_heartbeats(&mut self) {
        self.at(|took| took.max(BREATH));
    }

    /// Somebody waits for a scenario.
    pub(crate) fn on_hint(&mut self) {
        self.at(|took| took);
    }

    fn at(&mut self, pause: impl FnOnce(Duration) -> Duration) {
        let at = self.last.map_or_else(Instant::now, |(end, took)| end + pause(took));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Waits until there is a reason to look, and it is time. Cancel-safe.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// It looked from `begin` until now, and found an end or goes on in a moment.
    pub(crate) fn ran(&mut self, begin: Instant, is_at_rest: bool) {
        self.last = Some((Instant::now(), begin.elapsed()));
        self.due = None;
        if !is_at_rest {
            self.on_hint();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(took: Duration) -> (Pace, Instant) {
        let end = Instant::now();
        (Pace { due: None, last: Some((end, took)) }, end)
    }

    #[test]
    fn it_rests_as_long_as_it_looked_and_a_hint_shortens_the_rest() {
        let [short, long] = [5, 300].map(Duration::from_millis);
        let (mut pace, end) = after(short);
        pace.on_heartbeats();
        assert_eq!(pace.due, Some(end + BREATH));
        pace.on_hint();
        assert_eq!(pace.due, Some(end + short));
        pace.on_heartbeats();
        assert_eq!(pace.due, Some(end + short), "what comes later does not put it off");
        let (mut pace, end) = after(long);
        pace.on_heartbeats();
        assert_eq!(pace.due, Some(end + long));
    }

    #[test]
    fn it_looks_at_once_for_the_first_time_and_goes_on_where_it_found_no_end() {
        let mut pace = Pace::default();
        pace.on_heartbeats();
        assert!(pace.due.is_some_and(|due| due <= Instant::now()));
        pace.ran(Instant::now(), true);
        assert_eq!(pace.due, None);
        pace.ran(Instant::now(), false);
        assert!(pace.due.is_some());
    }
}
