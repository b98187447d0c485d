//! Which frames of a source a scenario asks for.
//!
//! Invariant: whether a frame is taken depends on its own number and time and on the time of the
//! last one that was taken, so a run that goes on behind a stored frame takes the same ones.

use framehook_core::{
    prediction::Position,
    spec::{Sampling, TimeRange},
};

#[derive(Clone)]
pub struct Selection {
    sampling: Option<Sampling>,
    range: TimeRange,
    last: Option<Position>,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is one of those that are asked for, so many behind the last.
    Take {
        left_out: u64,
    },
    Leave,
    /// Neither it nor any later one is asked for; so many that are not lie behind the last.
    End {
        left_out: u64,
    },
}

impl Selection {
    /// Behind `last`, which was taken.
    #[must_use]
    pub fn new(sampling: Option<Sampling>, range: Option<TimeRange>, last: Option<Position>) -> Self {
        Self { sampling, range: range.unwrap_or_default(), last }
    }

    /// Whether most frames may be left.
    #[must_use]
    pub const fn is_sparse(&self) -> bool {
        self.sampling.is_some()
    }

    /// How many frames lie between the last one that was taken and that of number `frame`.
    #[must_use]
    pub fn behind_last(&self, frame: u64) -> u64 {
        self.last.map_or(frame, |last| frame.saturating_sub(last.frame + 1))
    }

    pub fn choose(&mut self, at: Position) -> Choice {
        let left_out = self.behind_last(at.frame);
        if self.range.until_us.is_some_and(|until| at.pts_us >= until) {
            return Choice::End { left_out };
        }
        let begun = self.range.from_us.is_none_or(|from| at.pts_us >= from);
        if !begun || !self.is_sample(at) {
            return Choice::Leave;
        }
        self.last = Some(at);
        Choice::Take { left_out }
    }

    fn is_sample(&self, at: Position) -> bool {
        match self.sampling {
            None => true,
            Some(Sampling::Every(n)) => at.frame.is_multiple_of(u64::from(n)),
            // The first frame of each span of 1/fps seconds.
            Some(Sampling::Fps(fps)) => {
                let span = |position: Position| (position.pts_us as f64 * fps / 1e6).floor();
                self.last.is_none_or(|last| span(at) > span(last))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Those of 20 frames, 40 ms apart from 100 ms on.
    fn positions() -> impl Iterator<Item = Position> {
        (0..20).map(|frame: u64| Position { pts_us: 100_000 + 40_000 * frame as i64, frame })
    }

    fn taken(selection: &mut Selection, frames: impl Iterator<Item = Position>) -> Vec<(Position, u64)> {
        let chosen = frames.map(|at| (at, selection.choose(at)));
        let chosen = chosen.take_while(|(_, choice)| !matches!(choice, Choice::End { .. }));
        chosen
            .filter_map(|(at, choice)| if let Choice::Take { left_out } = choice { Some((at, left_out)) } else { None })
            .collect()
    }

    fn check(sampling: Option<Sampling>, range: Option<TimeRange>, frames: &[u64]) {
        let mut selection = Selection::new(sampling, range, None);
        let taken = taken(&mut selection, positions());
        assert_eq!(taken.iter().map(|(at, _)| at.frame).collect::<Vec<_>>(), frames);
        let left_out: u64 = taken.iter().map(|(_, left_out)| left_out).sum();
        assert_eq!(left_out + taken.len() as u64, frames.last().map_or(0, |last| last + 1), "all are accounted for");
        let until = range.and_then(|range| range.until_us).unwrap_or(i64::MAX);
        let passed = positions().filter(|at| at.pts_us < until).count() as u64;
        let behind = selection.behind_last(passed);
        assert_eq!(left_out + taken.len() as u64 + behind, passed, "and those behind the last");
        if let Some(at) = positions().find(|at| at.pts_us >= until) {
            assert_eq!(selection.choose(at), Choice::End { left_out: behind });
        }
    }

    #[test]
    fn frames_are_taken_by_number_or_by_time() {
        check(Some(Sampling::Every(7)), None, &[0, 7, 14]);
        // 100, 220, 420 and 620 ms are the first from 0, 200, 400, 600 ms on.
        check(Some(Sampling::Fps(5.0)), None, &[0, 3, 8, 13, 18]);
        check(Some(Sampling::Fps(1000.0)), Some(TimeRange { from_us: Some(780_000), until_us: None }), &[17, 18, 19]);
        check(None, Some(TimeRange { from_us: Some(180_000), until_us: Some(300_000) }), &[2, 3, 4]);
        check(Some(Sampling::Every(2)), Some(TimeRange { from_us: None, until_us: Some(100_000) }), &[]);
    }

    proptest! {
        #[test]
        fn a_run_that_goes_on_takes_the_same(fps in 0.5..40.0f64, every in 1..6u32, by_time in any::<bool>(), stop in 0..5usize) {
            let sampling = Some(if by_time { Sampling::Fps(fps) } else { Sampling::Every(every) });
            let whole = taken(&mut Selection::new(sampling, None, None), positions());
            let (stored, _) = whole[stop.min(whole.len() - 1)];
            let rest = taken(&mut Selection::new(sampling, None, Some(stored)), positions().skip(stored.frame as usize + 1));
            prop_assert_eq!(&whole[whole.len() - rest.len()..], &rest[..]);
            prop_assert_eq!(whole.len() - rest.len(), stop.min(whole.len() - 1) + 1);
        }
    }
}
