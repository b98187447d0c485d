//! A ring of one scenario: numbered items of its deployments, of which the newest are kept.
//!
//! Invariants: each item of a deployment has a number, and its place in the ring is behind that of every item
//! with a lower generation or number. So an item that comes again, and one of a deployment that was replaced
//! by one that has added something since, are recognised by what is stored, and change nothing.

use serde::Serialize;

use crate::{ids::Generation, size::json_bytes};

/// How much is kept of one scenario.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    pub items: i64,
    /// Bytes of JSON, give or take one item.
    pub bytes: i64,
}

/// Items of one deployment, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a, T> {
    pub generation: Generation,
    /// The number of the first one among those of its deployment, from 0; the others follow.
    pub first: u64,
    pub items: &'a [T],
}

/// Where an item stands in its scenario's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Among all items of the scenario, from 1.
    pub sequence: i64,
    /// Bytes of JSON of all items up to this one.
    pub bytes: i64,
    pub generation: Generation,
    /// Among those of its deployment, from 0.
    pub number: u64,
}

/// Those of the items that belong behind the newest one that is stored, and their places.
#[must_use]
pub fn behind<'a, T: Serialize + 'a>(
    newest: Option<Place>,
    batches: impl IntoIterator<Item = impl Into<Batch<'a, T>>>,
) -> Vec<(Place, &'a T)> {
    let (mut newest, mut new) = (newest, Vec::new());
    for batch in batches {
        let Batch { generation, first, items } = batch.into();
        for (number, item) in (first..).zip(items) {
            if newest.is_some_and(|newest| (generation, number) <= (newest.generation, newest.number)) {
                continue;
            }
            let (sequence, bytes) = newest.map_or((0, 0), |newest| (newest.sequence, newest.bytes));
            let size = i64::try_from(json_bytes(item)).unwrap_or(i64::MAX);
            let (sequence, bytes) = (sequence + 1, bytes.saturating_add(size));
            let place = Place { sequence, bytes, generation, number };
            newest = Some(place);
            new.push((place, item));
        }
    }
    new
}

impl Place {
    /// With this item as the newest one, items up to this sequence go, and those up to these bytes.
    #[must_use]
    pub const fn gone(self, ring: Ring) -> (i64, i64) {
        (self.sequence - ring.items, self.bytes - ring.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::ScenarioId,
        job::LogLevel,
        scenario_log::{LogLine, LoggedLines, RING},
    };

    fn line(message: &str) -> LogLine {
        LogLine {
            at: jiff::Timestamp::UNIX_EPOCH,
            frame: None,
            level: LogLevel::Info,
            plugin: "p@1".into(),
            target: "t".into(),
            message: message.into(),
            fields: std::collections::BTreeMap::new(),
            shadow: false,
        }
    }

    fn logged(generation: Generation, numbers: std::ops::Range<u64>) -> LoggedLines {
        let lines = numbers.clone().map(|number| line(&format!("{generation}.{number}"))).collect();
        LoggedLines { scenario_id: ScenarioId(uuid::Uuid::nil()), generation, first: numbers.start, lines }
    }

    fn said(new: &[(Place, &LogLine)]) -> Vec<String> {
        new.iter().map(|(_, line)| line.message.clone()).collect()
    }

    #[test]
    fn lines_follow_each_other_and_those_that_come_again_or_too_late_do_not() {
        let stored = Place { sequence: 7, bytes: 700, generation: 2, number: 1 };
        for (newest, batches, expected) in [
            (None, vec![logged(1, 0..2)], vec!["1.0", "1.1"]),
            (None, vec![logged(1, 0..2), logged(1, 0..3)], vec!["1.0", "1.1", "1.2"]),
            (Some(stored), vec![logged(2, 0..4)], vec!["2.2", "2.3"]),
            (Some(stored), vec![logged(2, 5..6), logged(2, 3..6)], vec!["2.5"]),
            (Some(stored), vec![logged(1, 0..9)], vec![]),
            (Some(stored), vec![logged(3, 0..1), logged(2, 2..3)], vec!["3.0"]),
        ] {
            let new = behind(newest, &batches);
            assert_eq!(said(&new), expected);
            let sequences: Vec<_> = new.iter().map(|(place, _)| place.sequence).collect();
            let begin = newest.map_or(0, |place| place.sequence);
            assert_eq!(sequences, (begin + 1..).take(new.len()).collect::<Vec<_>>());
        }
        let one = logged(2, 2..3);
        let (place, line) = behind(Some(stored), [&one])[0];
        assert_eq!(place.bytes, 700 + i64::try_from(serde_json::to_string(line).unwrap().len()).unwrap());
    }

    #[test]
    fn a_full_ring_loses_its_oldest_lines() {
        let newest = Place { sequence: 2_001, bytes: RING.bytes + 30, generation: 1, number: 0 };
        assert_eq!(newest.gone(RING), (1, 30));
        assert!(Place { sequence: 2_000, bytes: RING.bytes, ..newest }.gone(RING) <= (0, 0), "it is just full");
    }

    proptest! {
        /// However batches are cut, repeated and delayed, each line is there at most once, in the order of
        /// its deployment.
        #[test]
        fn no_line_is_there_twice(batches in prop::collection::vec((1_i64..4, 0_u64..20, 0_u64..6), 0..20)) {
            let batches: Vec<_> = batches.into_iter().map(|(of, first, count)| logged(of, first..first + count)).collect();
            let mut newest = None;
            let mut all = Vec::new();
            for batch in &batches {
                let new = behind(newest, [batch]);
                newest = new.last().map(|(place, _)| *place).or(newest);
                all.extend(new.into_iter().map(|(place, _)| place));
            }
            prop_assert!(all.is_sorted_by(|a, b| (a.generation, a.number) < (b.generation, b.number) && a.bytes < b.bytes));
            let at_once: Vec<_> = behind(None, &batches).into_iter().map(|(place, _)| place).collect();
            prop_assert_eq!(at_once, all);
        }
    }
}
