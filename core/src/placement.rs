//! Which runner takes a scenario: one that has every label the scenario asks for and the memory that its
//! worker may use, and of those the one with the most room, so that scenarios are spread.
//!
//! A deployment whose recording is still being fetched has no worker: it takes neither a slot nor memory,
//! so that a slow server delays other fetches only.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, HashSet},
};

use crate::{
    ids::{Incarnation, RunnerId},
    planner::{RunnerFacts, Snapshot, WorkerFacts},
};

/// What a runner has or a scenario asks for, such as `gpu=true` or `site=north`.
pub type Labels = BTreeMap<String, String>;

pub(crate) const MAX_LABELS: usize = 64;
/// A word, and a sentence.
pub(crate) const MAX_LABEL: usize = 63;
pub(crate) const MAX_LABEL_VALUE: usize = 255;

/// How a list of labels begins that has one of a provider in front.
const PROVIDED: &str = "`provider.";
const ABOUT_PROVIDER: &str = "; `GET /runner` says of each provider why it cannot be used (`providers`); with \
                              `provider_fallback` the model would run on the processor";

/// A label that says what a runner can.
pub fn provided(label: String) -> (String, String) {
    (label, "true".to_owned())
}

/// # Errors
/// When there are too many of them, or one cannot be a label.
pub fn check_labels(labels: &Labels) -> Result<(), String> {
    let count = labels.len();
    if count > MAX_LABELS {
        return Err(format!("there are {count} labels; at most {MAX_LABELS} are allowed"));
    }
    let is_fine = |(key, value): (&String, &String)| {
        (1..=MAX_LABEL).contains(&key.chars().count()) && value.chars().count() <= MAX_LABEL_VALUE
    };
    if labels.iter().all(is_fine) {
        return Ok(());
    }
    Err(format!("a label has 1 to {MAX_LABEL} characters, its value at most {MAX_LABEL_VALUE}"))
}

/// The runners that take work, in the order of their ids, and the room they have.
pub(crate) struct Room<'a>(Vec<Place<'a>>);

struct Place<'a> {
    runner: &'a RunnerFacts,
    /// Slots and memory in use.
    used: u32,
    used_mib: u64,
    fetching: usize,
}

/// Recordings that one runner fetches at a time: each has a connection, a buffer of a megabyte and a file.
const FETCHING: usize = 32;

impl<'a> Room<'a> {
    pub(crate) fn of(snapshot: &Snapshot, alive: &HashMap<Incarnation, &'a RunnerFacts>) -> Self {
        let mut workers: HashMap<_, Vec<_>> = HashMap::new();
        snapshot.workers.iter().for_each(|w| workers.entry(w.incarnation).or_default().push(w));
        let takes_work = alive.values().filter(|r| !r.draining);
        let of = |runner: &RunnerFacts| workers.get(&runner.incarnation).map_or(&[][..], Vec::as_slice);
        let mut places: Vec<_> = takes_work.map(|&runner| Place::of(runner, of(runner))).collect();
        places.sort_by_key(|p| &p.runner.id);
        Self(places)
    }

    /// Takes a place on a runner with all of these labels and this much memory.
    ///
    /// # Errors
    /// Why there is none, in words for the scenario's user.
    pub(crate) fn take(
        &mut self,
        wanted: &Labels,
        memory_mib: u32,
        is_fetched: bool,
    ) -> Result<(RunnerId, Incarnation), String> {
        let fitting = self.0.iter_mut().filter(|p| p.has(wanted) && p.has_room(memory_mib));
        match fitting.filter(|p| !is_fetched || p.fetching < FETCHING).min_by(|a, b| a.by_room(b)) {
            Some(place) => {
                place.used += 1;
                place.used_mib += u64::from(memory_mib);
                place.fetching += usize::from(is_fetched);
                Ok((place.runner.id.clone(), place.runner.incarnation))
            }
            None => Err(self.refusal(wanted, memory_mib)),
        }
    }

    fn refusal(&self, wanted: &Labels, memory_mib: u32) -> String {
        let is_nowhere =
            |&(key, value): &(&String, &String)| !self.0.iter().any(|p| p.runner.labels.get(key) == Some(value));
        let missing = list(wanted.iter().filter(is_nowhere));
        let all = list(wanted.iter());
        let with = if wanted.is_empty() { String::new() } else { format!(" with {all}") };
        let mut suitable = self.0.iter().filter(|p| p.has(wanted));
        let largest = suitable.clone().map(|p| p.runner.memory_mib.unwrap_or(u32::MAX)).max().unwrap_or_default();
        if self.0.is_empty() {
            "no runner is there; it starts as soon as one is".to_owned()
        } else if !missing.is_empty() {
            let about_provider = if missing.starts_with(PROVIDED) { ABOUT_PROVIDER } else { "" };
            format!("no runner has {missing}; it starts as soon as one with {all} is there{about_provider}")
        } else if !self.0.iter().any(|p| p.has(wanted)) {
            format!("no single runner has all of {all}; it starts as soon as one has")
        } else if largest < memory_mib {
            format!(
                "its worker needs {memory_mib} MiB of memory, and the largest runner{with} has {largest} MiB for workers; it \
                 starts as soon as a larger one is there; a scenario may ask for less with `memory_mib`"
            )
        } else if self.0.iter().any(|p| p.has(wanted) && p.has_room(memory_mib)) {
            format!(
                "{FETCHING} recordings at a time are fetched by every runner{with}; it starts as soon as one is here"
            )
        } else if suitable.any(|p| p.free() > 0) {
            format!(
                "its worker needs {memory_mib} MiB of memory, and the workers of every runner{with} leave less than that; it \
                 starts as soon as enough is free"
            )
        } else {
            format!("every worker of every runner{with} is busy; it starts as soon as one is free")
        }
    }
}

impl<'a> Place<'a> {
    fn of(runner: &'a RunnerFacts, workers: &[&WorkerFacts]) -> Self {
        let reports = runner.workers.iter().filter(|w| w.progress.fetching.is_some());
        let fetching: HashSet<_> = reports.map(|w| (w.scenario_id, w.generation)).collect();
        let counted = workers.iter().filter(|w| !fetching.contains(&(w.scenario_id, w.generation)));
        let used = u32::try_from(counted.clone().count()).unwrap_or(u32::MAX);
        let used_mib = counted.map(|w| u64::from(w.memory_mib)).sum();
        Self { runner, used, used_mib, fetching: fetching.len() }
    }

    fn has_room(&self, memory_mib: u32) -> bool {
        let needed = self.used_mib + u64::from(memory_mib);
        self.free() > 0 && self.runner.memory_mib.is_none_or(|all| needed <= u64::from(all))
    }

    fn has(&self, wanted: &Labels) -> bool {
        wanted.iter().all(|(key, value)| self.runner.labels.get(key) == Some(value))
    }

    fn free(&self) -> u32 {
        self.runner.capacity.saturating_sub(self.used)
    }

    /// Less: more of it is free, or as much and it runs less.
    fn by_room(&self, other: &Self) -> Ordering {
        // Fractions are compared without dividing: `a / b > c / d` is `a * d > c * b`.
        let share = |a: &Self, b: &Self| u64::from(a.free()) * u64::from(b.runner.capacity);
        share(other, self).cmp(&share(self, other)).then(self.used.cmp(&other.used))
    }
}

fn list<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    labels.map(|(key, value)| format!("`{key}={value}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::Order,
        ids::ScenarioId,
        message::{Fetching, Progress, WorkerPhase, WorkerStatus},
        state::WorkerState,
    };

    fn labels(text: &str) -> Labels {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// One a line: id, used of capacity, labels; `mib=N` of them is its memory.
    fn runners(table: &str) -> Vec<(RunnerFacts, u32)> {
        let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let read = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let id = RunnerId(words.next().unwrap().to_owned());
            let (used, capacity) = words.next().unwrap().split_once('/').unwrap();
            let mut labels = labels(words.next().unwrap_or_default());
            let memory_mib = labels.remove("mib").map(|mib| mib.parse().unwrap());
            let facts = RunnerFacts {
                id,
                incarnation: Incarnation::generate(),
                expires_at_us: i64::MAX,
                capacity: capacity.parse().unwrap(),
                memory_mib,
                draining: false,
                labels,
                arrived_after_us: 0,
                workers: vec![],
            };
            (facts, used.parse().unwrap())
        };
        lines.map(read).collect()
    }

    /// Places scenarios that ask for `wanted` until no runner takes one any more: where they went, and why
    /// not further.
    fn fill(table: &str, wanted: &str) -> (String, String) {
        fill_with(table, wanted, 100)
    }

    fn fill_with(table: &str, wanted: &str, memory_mib: u32) -> (String, String) {
        let runners = runners(table);
        let place = |(runner, used): &'_ (RunnerFacts, u32)| (runner.clone(), *used);
        let runners: Vec<_> = runners.iter().map(place).collect();
        let places = runners.iter().map(|(runner, used)| Place {
            runner,
            used: *used,
            used_mib: u64::from(*used) * 100,
            fetching: 0,
        });
        let mut room = Room(places.collect());
        let mut order = vec![];
        loop {
            match room.take(&labels(wanted), memory_mib, false) {
                Ok((id, _)) => order.push(id.0),
                Err(why) => return (order.join(" "), why),
            }
        }
    }

    #[test]
    fn the_most_room_relative_to_capacity_comes_first() {
        let check = |table, expected: &str| assert_eq!(fill(table, "").0, expected, "{table}");
        check("a 0/2 \n b 0/2", "a b a b");
        check("a 1/2 \n b 0/2", "b a b");
        // Half of four is as free as half of two; the one with fewer workers is first.
        check("a 2/4 \n b 1/2", "b a a");
        check("a 0/4 \n b 0/1", "a b a a a");
        check("a 3/2 \n b 1/1 \n c 0/0", "");
        check("b 0/1 \n a 0/1", "b a");
    }

    #[test]
    fn every_label_must_match() {
        let check = |wanted, expected: &str, words: &str| {
            let table = "a 0/1 gpu=true site=south \n b 0/1 site=north \n c 0/2";
            let (order, why) = fill(table, wanted);
            assert_eq!(order, expected, "{wanted}");
            assert!(why.contains(words), "{wanted}: {why}");
        };
        check("", "a b c c", "every worker of every runner is busy");
        check("site=north", "b", "every runner with `site=north` is busy");
        check("gpu=true", "a", "is busy");
        check(
            "gpu=true site=west zone=1",
            "",
            "no runner has `site=west`, `zone=1`; it starts as soon as one with `gpu=true`,",
        );
        check("gpu=true site=north", "", "no single runner has all of `gpu=true`, `site=north`");
        assert!(fill("", "gpu=true").1.contains("no runner is there"));
    }

    #[test]
    fn a_provider_that_nobody_has_is_explained() {
        let why = fill("a 0/1", "provider.cuda.f32=true site=north").1;
        assert!(why.contains("no runner has `provider.cuda.f32=true`, `site=north`"), "{why}");
        assert!(why.contains("`GET /runner` says of each provider") && why.contains("`provider_fallback`"), "{why}");
        assert!(!fill("a 0/1", "site=north").1.contains("provider"));
    }

    #[test]
    fn what_does_not_fit_waits_with_what_it_needs_and_the_largest_there_is() {
        let check = |memory_mib, wanted, expected: &str, words: &str| {
            let table = "a 0/4 mib=1000 site=north \n b 1/4 mib=700 \n c 0/1";
            let (order, why) = fill_with(table, wanted, memory_mib);
            assert_eq!(order, expected, "{memory_mib}");
            assert!(why.contains(words), "{memory_mib}: {why}");
        };
        check(100, "", "a c a b a b a b", "is busy");
        check(300, "", "a c a b a b", "needs 300 MiB of memory, and the workers of every runner leave less");
        check(800, "", "a c", "leave less than that");
        check(2000, "", "c", "leave less than that");
        check(1001, "site=north", "", "and the largest runner with `site=north` has 1000 MiB for workers");
        check(1000, "site=north", "a", "runner with `site=north` leave less");
    }

    #[test]
    fn who_only_fetches_takes_no_slot_and_no_memory() {
        let (mut runner, _) = runners("a 0/2 mib=1000").remove(0);
        let worker = |n: u128| WorkerFacts {
            scenario_id: ScenarioId(uuid::Uuid::from_u128(n)),
            generation: 2,
            runner_id: runner.id.clone(),
            incarnation: runner.incarnation,
            state: WorkerState::Running,
            memory_mib: 300,
            order: Order { at_us: 0, repeats: 0 },
            stop_ordered: false,
        };
        let status = |worker: &WorkerFacts, generation, is_fetching: bool| WorkerStatus {
            progress: Progress { fetching: is_fetching.then(Fetching::default), ..Progress::default() },
            ..WorkerStatus::new(worker.scenario_id, generation, WorkerPhase::Starting)
        };
        let workers: Vec<_> = (0..40).map(worker).collect();
        let mut used = |count: usize, report: &dyn Fn(&WorkerFacts) -> Option<WorkerStatus>| {
            runner.workers = workers[..count].iter().filter_map(report).collect();
            let place = Place::of(&runner, &workers[..count].iter().collect::<Vec<_>>());
            (place.used, place.used_mib, place.fetching)
        };
        assert_eq!(used(3, &|_| None), (3, 900, 0));
        assert_eq!(used(3, &|w| Some(status(w, 2, false))), (3, 900, 0));
        assert_eq!(used(3, &|w| Some(status(w, 2, true))), (0, 0, 3));
        assert_eq!(used(3, &|w| Some(status(w, 1, true))).0, 3, "of another generation");
        assert_eq!(used(40, &|w| Some(status(w, 2, true))), (0, 0, 40));
    }

    #[test]
    fn who_wants_to_fetch_waits_for_those_who_fetch_and_nobody_else_does() {
        let (runner, _) = runners("a 0/4 mib=1000").remove(0);
        let mut room = Room(vec![Place { runner: &runner, used: 0, used_mib: 0, fetching: FETCHING - 1 }]);
        let any = Labels::new();
        assert!(room.take(&any, 100, true).is_ok());
        let why = room.take(&any, 100, true).unwrap_err();
        assert!(why.contains("32 recordings at a time are fetched by every runner"), "{why}");
        for _ in 0..3 {
            assert!(room.take(&any, 100, false).is_ok());
        }
        for is_fetched in [true, false] {
            assert!(room.take(&any, 100, is_fetched).unwrap_err().contains("is busy"));
        }
    }

    #[test]
    fn labels_have_bounds() {
        check_labels(&labels("gpu=true site=")).unwrap();
        let many = (0..=MAX_LABELS).map(|n| (n.to_string(), String::new())).collect();
        for (bad, words) in [
            (many, "there are 65 labels"),
            (Labels::from([(String::new(), "x".into())]), "1 to 63"),
            (Labels::from([("k".repeat(64), "x".into())]), "1 to 63"),
            (Labels::from([("k".into(), "x".repeat(256))]), "at most 255"),
        ] {
            assert!(check_labels(&bad).unwrap_err().contains(words), "{bad:?}");
        }
    }
}
