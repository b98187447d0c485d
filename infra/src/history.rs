//! How much of a scenario's history is kept: which of its lines go, and which line counts them. Pure; the
//! statements are those of each adapter.
//!
//! Invariants: lines go in one piece, and the line behind them counts them (`folded`), so lines and counts
//! together are always all changes there were. The first lines and the last ones stay.

use crate::store::HistoryEntry;

/// Lines at most, if nobody says otherwise: some 200 kB. A scenario whose changes are never quite the same
/// again would write without end.
pub const HISTORY_LINES: u32 = 600;

/// Fewer would not hold what is compared to find repetitions.
pub const LEAST_HISTORY_LINES: u32 = 60;

/// A history that is too long keeps a sixth as its beginning, and then two thirds as its end.
const BEGINNING: i64 = 6;
const END: (i64, i64) = (2, 3);

/// When something is written, and how many lines of history it may leave.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub now: i64,
    pub most: u32,
}

/// This many are always kept: an uneventful scenario has half as many, and costs no look back.
pub(crate) const WHOLE: i64 = 8;

/// Changes of the longest cycle that is looked for: to be stopped, started and to lose two workers takes a
/// scenario twelve.
const CYCLE: usize = 12;

/// As many of the newest lines as [`repeated`] wants to see.
pub(crate) const RECENT: u32 = 3 * CYCLE as u32;

/// How many lines to leave out, and behind how many, of a history of `lines` that may have `most`. Not one at
/// a time.
pub(crate) fn too_many(lines: i64, most: u32) -> Option<(i64, i64)> {
    let most = i64::from(most);
    let (beginning, end) = (most / BEGINNING, most * END.0 / END.1);
    (lines > most).then_some((beginning, lines - beginning - end))
}

/// The first and the last line of those that only say what the lines on both sides of them say, too: changes
/// that came three times in a row. `newest` are the newest lines, the newest first.
pub(crate) fn repeated(newest: &[HistoryEntry]) -> Option<(i64, i64)> {
    // When, in which generation and in which words is what differs each time.
    let change =
        |line: &HistoryEntry| (line.from, line.to, line.desired, line.reason.as_ref().map(|reason| reason.code));
    let is_same = |(a, b): (&HistoryEntry, &HistoryEntry)| change(a) == change(b);
    (1..=newest.len() / 3).find_map(|cycle| {
        let (earlier, later) = (&newest[cycle..3 * cycle], &newest[..2 * cycle]);
        let middle = &newest[cycle..2 * cycle];
        let is_repeated = earlier.iter().zip(later).all(is_same);
        is_repeated.then(|| (middle[cycle - 1].sequence, middle[0].sequence))
    })
}

#[cfg(test)]
mod tests {
    use framehook_core::{
        reason::{Reason, ReasonCode},
        state::{Desired, ScenarioState},
    };
    use jiff::Timestamp;

    use super::*;

    /// Lines with these letters as reasons, numbered from one; the newest first.
    fn newest(letters: &str) -> Vec<HistoryEntry> {
        let line = |(index, letter)| HistoryEntry {
            sequence: index as i64 + 1,
            at: Timestamp::UNIX_EPOCH,
            generation: index as i64,
            from: Some(ScenarioState::Running),
            to: ScenarioState::Running,
            desired: if letter == 'd' { Desired::Stopped } else { Desired::Running },
            reason: match letter {
                'a' => None,
                'b' => Some(Reason::new(ReasonCode::WorkerCrash, format!("crash {index}"))),
                _ => Some(Reason::new(ReasonCode::NoCapacity, "")),
            },
            folded: 0,
        };
        let mut lines: Vec<_> = letters.chars().enumerate().map(line).collect();
        lines.reverse();
        lines
    }

    #[test]
    fn what_came_three_times_is_listed_twice() {
        for (letters, expected) in [
            ("", None),
            ("bb", None),
            ("bbb", Some((2, 2))),
            ("bbba", None),
            ("abab", None),
            ("ababa", None),
            ("ababab", Some((3, 4))),
            ("cababab", Some((4, 5))),
            ("abcabcab", None),
            ("abcabcabc", Some((4, 6))),
            ("cdcdcc", None),
            ("abcdabcdabcd", Some((5, 8))),
        ] {
            assert_eq!(repeated(&newest(letters)), expected, "{letters}");
        }
        let longest = "abbbbbbbbbbc".repeat(3);
        assert_eq!(longest.len(), RECENT as usize);
        assert_eq!(repeated(&newest(&longest)), Some((13, 24)));
    }

    #[test]
    fn a_long_history_keeps_both_ends() {
        assert_eq!(too_many(600, 600), None);
        assert_eq!(too_many(601, 600), Some((100, 101)));
        assert_eq!(too_many(900, 60), Some((10, 850)));
    }
}
