//! Somebody who looks at the database all the time, and remembers.
//!
//! What must never happen may be gone again when a test ends: a second live worker, an epoch or an offset
//! that went back, a row of an older generation.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use framehook_core::{
    ids::{Generation, ScenarioId},
    invariants,
    state::WorkerState,
};

use crate::servers::Session;

/// Between two looks; what lasts shorter is seen in what it leaves behind.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Witness {
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    stop: bool,
    looks: u64,
    broken: Vec<String>,
    /// What only grows: its name and its value at the last look.
    growing: BTreeMap<String, i64>,
    generations: BTreeMap<(ScenarioId, i64), Generation>,
    /// Kafka lost what it had: from then on offsets are of another log.
    is_log_lost: bool,
}

/// How the name of an offset begins, below.
const OFFSET: &str = "the offset";

/// Epoch, offsets and stored positions.
const GROWING: &str = "
    SELECT 'the epoch', epoch FROM leader_lease
    UNION ALL SELECT concat('the offset of ', topic, ' ', partition), next_offset FROM consumer_offsets
    UNION ALL SELECT concat('the stored position of ', scenario_id), pts_us FROM scenario_progress
    UNION ALL SELECT concat('the generation of ', id), generation FROM scenarios";
const WORKERS: &str = "SELECT scenario_id, generation, state FROM workers ORDER BY created_at, generation";
const ROWS: &str = "SELECT scenario_id, pts_us, generation FROM scenario_results";

impl Witness {
    #[must_use]
    pub fn start(url: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let thread = thread::spawn({
            let (seen, url) = (seen.clone(), url.to_owned());
            move || watch(&seen, &url)
        });
        Self { seen, thread: Some(thread) }
    }

    /// Offsets may begin anew.
    pub fn expect_another_log(&self) {
        self.seen().is_log_lost = true;
    }

    /// # Panics
    /// When something was broken since it started, or it could not look since the last check.
    pub fn check(&self) {
        let looks = self.seen().looks;
        crate::wait_for("the witness to look again", crate::DEADLINE, || (self.seen().looks > looks + 1).then_some(()));
        let broken = self.seen().broken.clone();
        assert!(broken.is_empty(), "invariants were broken:\n{}", broken.join("\n"));
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.seen().stop = true;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn watch(seen: &Mutex<Seen>, url: &str) {
    let mut session = None;
    loop {
        let facts = look(session.get_or_insert_with(|| Session::open(url)));
        // The server may be down on purpose.
        if facts.is_none() {
            session = None;
        }
        {
            let mut seen = seen.lock();
            if seen.stop {
                return;
            }
            if let Some([growing, workers, rows]) = facts {
                seen.looks += 1;
                seen.compare(&growing, &workers, &rows);
            }
        }
        thread::park_timeout(PERIOD);
    }
}

fn look(session: &mut Session) -> Option<[Vec<String>; 3]> {
    Some([session.try_query(GROWING)?, session.try_query(WORKERS)?, session.try_query(ROWS)?])
}

impl Seen {
    fn compare(&mut self, growing: &[String], workers: &[String], rows: &[String]) {
        for row in growing {
            let (name, value) = row.split_once('\t').expect("two columns");
            let value = value.parse().expect("a number");
            let before = self.growing.insert(name.to_owned(), value);
            let may_fall = self.is_log_lost && name.starts_with(OFFSET);
            if let Some(before) = before.filter(|before| *before > value && !may_fall) {
                self.broken.push(format!("{name} went from {before} back to {value}"));
            }
        }
        let workers: Vec<_> = workers.iter().map(|row| worker(row).expect("a worker")).collect();
        self.broken.extend(invariants::one_live_generation(&workers).err());

        let after = rows.iter().map(|row| generation(row).expect("a row")).collect();
        self.broken.extend(invariants::no_row_goes_back(&self.generations, &after).err());
        self.generations = after;
    }
}

fn worker(row: &str) -> Option<(ScenarioId, Generation, WorkerState)> {
    let mut columns = row.split('\t');
    let id = ScenarioId(columns.next()?.parse().ok()?);
    Some((id, columns.next()?.parse().ok()?, columns.next()?.parse().ok()?))
}

fn generation(row: &str) -> Option<((ScenarioId, i64), Generation)> {
    let mut columns = row.split('\t');
    let id = ScenarioId(columns.next()?.parse().ok()?);
    Some(((id, columns.next()?.parse().ok()?), columns.next()?.parse().ok()?))
}
