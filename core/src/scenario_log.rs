//! What a scenario logs: the lines of its hooks, and what the platform says of them. The newest are kept.
//!
//! Invariants: each line of a deployment has a number, and its place in the scenario's log is behind that of
//! every line with a lower generation or number. So a line that comes again, and one of a deployment that was
//! replaced by one that has logged since, are recognised by what is stored, and change nothing.
//!
//! Deliberately absent: a promise that a line arrives. What a runner has not published when it dies is lost.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{Generation, ScenarioId},
    job::LogLevel,
    prediction::Attribute,
    size::json_bytes,
};

/// Lines of one scenario that are kept: forty seconds of as many as it may log by default, and a day of one a
/// minute.
pub const MAX_LINES: i64 = 2_000;
/// Bytes of JSON of one scenario's lines, give or take one line: as many lines of 260 bytes, which is a long
/// sentence with its names. The API reads all of it at a time.
pub const MAX_BYTES: i64 = 512 << 10;

/// Bytes of JSON of one line. A hook may log 1 KiB at a time, which JSON makes six of at worst; the rest is
/// for times and names.
pub const MAX_LINE: usize = 8 << 10;

/// Who a line is of that no hook wrote.
pub const PLATFORM: &str = "framehook";

/// A line of a scenario's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When its runner heard it.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The frame that the hook was last called for; absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    pub level: LogLevel,
    /// The plugin, as `name@version`; `framehook`: the platform says it.
    pub plugin: String,
    /// Where in the plugin it comes from; `stdout` and `stderr`: it was printed; `panic`: a panic said it;
    /// `framehook`: the platform says it of the plugin.
    pub target: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Attribute>,
}

/// Lines that one deployment of a scenario logged, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LoggedLines {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// The number of the first line among those of this deployment, from 0; the others follow.
    pub first: u64,
    pub lines: Vec<LogLine>,
}

/// Where a line stands in its scenario's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Among all lines of the scenario, from 1.
    pub sequence: i64,
    /// Bytes of JSON of all lines up to this one.
    pub bytes: i64,
    pub generation: Generation,
    /// Among those of its deployment, from 0.
    pub number: u64,
}

/// Those of the lines that belong behind the newest one that is stored, and their places.
#[must_use]
pub fn behind<'a>(
    newest: Option<Place>,
    logged: impl IntoIterator<Item = &'a LoggedLines>,
) -> Vec<(Place, &'a LogLine)> {
    let (mut newest, mut new) = (newest, Vec::new());
    for LoggedLines { generation, first, lines, .. } in logged {
        for (number, line) in (*first..).zip(lines) {
            if newest.is_some_and(|newest| (*generation, number) <= (newest.generation, newest.number)) {
                continue;
            }
            let (sequence, bytes) = newest.map_or((0, 0), |newest| (newest.sequence, newest.bytes));
            let size = i64::try_from(json_bytes(line)).unwrap_or(i64::MAX);
            let (sequence, bytes) = (sequence + 1, bytes.saturating_add(size));
            let place = Place { sequence, bytes, generation: *generation, number };
            newest = Some(place);
            new.push((place, line));
        }
    }
    new
}

impl Place {
    /// With this line as the newest one, lines up to this sequence go, and those up to these bytes.
    #[must_use]
    pub const fn gone(self) -> (i64, i64) {
        (self.sequence - MAX_LINES, self.bytes - MAX_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(message: &str) -> LogLine {
        LogLine {
            at: Timestamp::UNIX_EPOCH,
            frame: None,
            level: LogLevel::Info,
            plugin: "p@1".into(),
            target: "t".into(),
            message: message.into(),
            fields: BTreeMap::new(),
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
        let newest = Place { sequence: 2_001, bytes: MAX_BYTES + 30, generation: 1, number: 0 };
        assert_eq!(newest.gone(), (1, 30));
        assert!(Place { sequence: 2_000, bytes: MAX_BYTES, ..newest }.gone() <= (0, 0), "it is just full");
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
