//! Which runner takes a scenario: one that has every label the scenario asks for, and of those the one with the most
//! room, so that scenarios are spread.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use crate::{
    ids::{Incarnation, RunnerId},
    planner::{RunnerFacts, Snapshot},
};

/// What a runner has or a scenario asks for, such as `gpu=true` or `site=north`.
pub type Labels = BTreeMap<String, String>;

const MAX_LABELS: usize = 64;
/// A word, and a sentence.
const MAX_LABEL: usize = 63;
const MAX_LABEL_VALUE: usize = 255;

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
    used: u32,
}

impl<'a> Room<'a> {
    pub(crate) fn of(snapshot: &Snapshot, alive: &HashMap<Incarnation, &'a RunnerFacts>) -> Self {
        let used = |runner: &RunnerFacts| {
            let workers = snapshot.workers.iter().filter(|w| w.incarnation == runner.incarnation);
            u32::try_from(workers.count()).unwrap_or(u32::MAX)
        };
        let takes_work = alive.values().filter(|r| !r.draining);
        let mut places: Vec<_> = takes_work.map(|&runner| Place { runner, used: used(runner) }).collect();
        places.sort_by_key(|p| &p.runner.id);
        Self(places)
    }

    /// Takes a place on a runner with all of these labels.
    ///
    /// # Errors
    /// Why there is none, in words for the scenario's user.
    pub(crate) fn take(&mut self, wanted: &Labels) -> Result<(RunnerId, Incarnation), String> {
        let fitting = self.0.iter_mut().filter(|p| p.has(wanted) && p.free() > 0);
        match fitting.min_by(|a, b| a.by_room(b)) {
            Some(place) => {
                place.used += 1;
                Ok((place.runner.id.clone(), place.runner.incarnation))
            }
            None => Err(self.refusal(wanted)),
        }
    }

    fn refusal(&self, wanted: &Labels) -> String {
        let is_nowhere =
            |&(key, value): &(&String, &String)| !self.0.iter().any(|p| p.runner.labels.get(key) == Some(value));
        let missing = list(wanted.iter().filter(is_nowhere));
        let all = list(wanted.iter());
        if self.0.is_empty() {
            "no runner is there; it starts as soon as one is".to_owned()
        } else if !missing.is_empty() {
            format!("no runner has {missing}; it starts as soon as one with {all} is there")
        } else if !self.0.iter().any(|p| p.has(wanted)) {
            format!("no single runner has all of {all}; it starts as soon as one has")
        } else if wanted.is_empty() {
            "every worker of every runner is busy; it starts as soon as one is free".to_owned()
        } else {
            format!("every worker of every runner with {all} is busy; it starts as soon as one is free")
        }
    }
}

impl Place<'_> {
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

    fn labels(text: &str) -> Labels {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// One a line: id, used of capacity, labels.
    fn runners(table: &str) -> Vec<(RunnerFacts, u32)> {
        let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
        let read = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let id = RunnerId(words.next().unwrap().to_owned());
            let (used, capacity) = words.next().unwrap().split_once('/').unwrap();
            let facts = RunnerFacts {
                id,
                incarnation: Incarnation::generate(),
                expires_at_us: i64::MAX,
                capacity: capacity.parse().unwrap(),
                draining: false,
                labels: labels(words.next().unwrap_or_default()),
                seen_at_us: 0,
                workers: vec![],
            };
            (facts, used.parse().unwrap())
        };
        lines.map(read).collect()
    }

    /// Places scenarios that ask for `wanted` until no runner takes one any more: where they went, and why not further.
    fn fill(table: &str, wanted: &str) -> (String, String) {
        let runners = runners(table);
        let mut room = Room(runners.iter().map(|(runner, used)| Place { runner, used: *used }).collect());
        let mut order = vec![];
        loop {
            match room.take(&labels(wanted)) {
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
