//! Presentation times that can identify a frame, from what a stream says.
//!
//! Invariants: times are strictly increasing. A time that the stream gives and that comes after the
//! one before is taken as it is, so an error of one frame never moves the frames behind it. Times
//! that are missing or repeated lie between their neighbours.

/// What a stream says about a frame, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) time: Option<i64>,
    /// For how long it is shown, at least one.
    pub(super) duration: i64,
}

/// By so much at most the parts of a recording overlap, where a recorder began one before it ended
/// the last. Where times go back by more, a clock was set, or another recording follows.
const OVERLAP_US: i64 = 2_000_000;

/// Moves frames of a part that overlaps the one before close together, because more of them follow
/// than are looked at. So those behind the overlap have their own times again.
pub(super) fn squeeze(previous: Option<i64>, frames: &mut [Said]) {
    let times: Option<Vec<_>> = frames.iter().map(|frame| frame.time).collect();
    let (Some(previous), Some(times)) = (previous, times) else { return };
    let is_near = times.iter().all(|time| previous.saturating_sub(*time) <= OVERLAP_US);
    // A clock that stands still says nothing about where it will go on.
    if is_near && times.first() < times.last() {
        // Small beside the time between two frames, however many are squeezed.
        frames.iter_mut().for_each(|frame| frame.duration = (frame.duration / 1_000).max(1));
    }
}

/// Whether `time` lies so far ahead that it may be wrong: further than the frames that are looked at to find
/// out fill.
pub(super) fn is_leap(previous: Option<i64>, frame: Said, time: i64, looked_at: usize) -> bool {
    let usual = frame.duration.saturating_mul(looked_at as i64);
    previous.is_none_or(|previous| time.saturating_sub(previous) > usual)
}

/// Whether the time that leaps is wrong: all frames behind it go on where the one before it was.
pub(super) fn is_wrong(previous: Option<i64>, leap: i64, behind: &[Said]) -> bool {
    let times: Option<Vec<_>> = behind.iter().map(|frame| frame.time).collect();
    // One frame alone may be the one that is wrong.
    let fewest = if previous.is_some() { 1 } else { 2 };
    let Some(times) = times.filter(|times| times.len() >= fewest) else { return false };
    let (first, last) = (times[0], times[times.len() - 1]);
    let increases = times.windows(2).all(|pair| pair[0] < pair[1]);
    // Nearer to those before than to the leap.
    let from = previous.unwrap_or(first);
    let goes_on = first >= from && first.saturating_sub(from) < leap.saturating_sub(last);
    increases && goes_on && previous.is_none_or(|previous| first > previous)
}

/// Whether a frame that says `time` can have it, `skipped` frames without a time behind `previous`.
pub(super) fn follows(time: i64, previous: Option<i64>, skipped: usize) -> bool {
    // A microsecond is left to each frame between.
    previous.is_none_or(|previous| time > previous.saturating_add(skipped as i64))
}

/// Times for `frames` which have none that follows `previous`, before `next`.
pub(super) fn fill(previous: Option<i64>, frames: &[Said], next: Option<i64>) -> Vec<i64> {
    let spans = frames.iter().map(|frame| frame.duration);
    let total = spans.clone().fold(0, i64::saturating_add);
    let sums = spans.scan(0, |sum: &mut i64, span| {
        let before = *sum;
        *sum = sum.saturating_add(span);
        Some((before, *sum))
    });
    match (previous, next) {
        // Too little room for their durations.
        (Some(previous), Some(next)) if previous.saturating_add(total) >= next => {
            let (room, parts) = (i128::from(next) - i128::from(previous), frames.len() as i128 + 1);
            (1..parts).map(|part| previous + (room * part / parts) as i64).collect()
        }
        (Some(previous), _) => sums.map(|(_, end)| previous.saturating_add(end)).collect(),
        (None, Some(next)) => sums.map(|(start, _)| next.saturating_sub(total).saturating_add(start)).collect(),
        (None, None) => sums.map(|(start, _)| start).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(count: usize) -> Vec<Said> {
        vec![Said { time: None, duration: 40 }; count]
    }

    #[test]
    fn durations_count_where_there_is_room_for_them() {
        assert_eq!(fill(Some(100), &frames(2), Some(221)), [140, 180]);
        assert_eq!(fill(Some(100), &frames(2), None), [140, 180]);
        assert_eq!(fill(None, &frames(2), Some(100)), [20, 60]);
        assert_eq!(fill(None, &frames(2), None), [0, 40]);
    }

    #[test]
    fn neighbours_count_where_there_is_none() {
        assert_eq!(fill(Some(2_240_000), &frames(3), Some(2_240_100)), [2_240_025, 2_240_050, 2_240_075]);
        assert_eq!(fill(Some(100), &frames(1), Some(140)), [120]);
        assert_eq!(fill(Some(0), &frames(2), Some(3)), [1, 2]);
    }

    #[test]
    fn each_frame_between_needs_a_time() {
        assert!(follows(1, Some(0), 0) && !follows(0, Some(0), 0));
        assert!(follows(3, Some(0), 2) && !follows(2, Some(0), 2));
        assert!(follows(-5, None, 0));
    }

    #[test]
    fn parts_that_overlap_are_squeezed_and_others_are_not() {
        let squeezed = |previous, times: [i64; 3]| {
            let mut frames = times.map(|time| Said { time: Some(time), duration: 40_000 });
            squeeze(Some(previous), &mut frames);
            frames.iter().all(|frame| frame.duration == 40)
        };
        assert!(squeezed(2_000_000, [1_000_000, 1_040_000, 1_080_000]));
        assert!(!squeezed(2_000_000, [1_000_000, 1_000_000, 1_000_000]), "it stands still");
        assert!(!squeezed(4_000_000, [0, 40_000, 80_000]), "it begins again");
        let mut unknown = frames(3);
        squeeze(Some(0), &mut unknown);
        assert_eq!(unknown, frames(3));
    }

    proptest! {
        #[test]
        fn what_is_filled_increases(
            previous in -1_000..1_000i64,
            room in 1..200i64,
            durations in proptest::collection::vec(1..60i64, 1..9),
        ) {
            let next = previous + room + durations.len() as i64;
            prop_assert!(follows(next, Some(previous), durations.len()));
            let frames: Vec<_> = durations.into_iter().map(|duration| Said { time: None, duration }).collect();
            let times = fill(Some(previous), &frames, Some(next));
            let all = [&[previous], &*times, &[next]].concat();
            prop_assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
        }
    }
}
