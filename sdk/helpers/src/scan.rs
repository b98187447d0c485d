//! The best class of every row of a score tensor: the hot loop of most detectors.
//!
//! Source of the method: almost all scores are below the threshold, so a block of them is compared
//! at once (which vectorises) and looked at one by one only when some are not.

/// Where the scores lie: that of class `c` in row `r` is `offset + r * row_stride + c * class_stride`.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub rows: usize,
    pub classes: usize,
    pub offset: usize,
    pub row_stride: usize,
    pub class_stride: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub row: u32,
    pub class_id: u32,
    pub score: f32,
}

/// Scores compared at once: four vectors of four.
const BLOCK: usize = 16;

/// Candidates by row: every row whose best score is at least `threshold`; at most `limit` of them,
/// those with the highest scores. Equal scores: the lower class, the lower row. A score that is not
/// a number is never one. `None` if the layout reaches outside of `data`.
pub fn argmax_rows(data: &[f32], layout: &Layout, threshold: f32, limit: usize) -> Option<Vec<Candidate>> {
    if layout.rows == 0 || layout.classes == 0 {
        return Some(Vec::new());
    }
    let last_row = (layout.rows - 1).checked_mul(layout.row_stride)?;
    let last_class = (layout.classes - 1).checked_mul(layout.class_stride)?;
    let end = last_row.checked_add(last_class)?.checked_add(layout.offset)?.checked_add(1)?;
    let scores = data.get(layout.offset..end)?;
    // A stride of 0 would let a short tensor stand for any number of rows.
    if layout.rows.checked_mul(layout.classes)? > data.len() {
        return None;
    }
    let mut found =
        if layout.row_stride == 1 { by_class(scores, layout, threshold) } else { by_row(scores, layout, threshold) };
    if found.len() > limit {
        found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        found.truncate(limit);
        found.sort_unstable_by_key(|c| c.row);
    }
    Some(found)
}

/// The highest of all scores; none if none is a number. For a layout that [`argmax_rows`] took.
#[must_use]
pub fn best(data: &[f32], layout: &Layout) -> Option<f32> {
    // A layout without rows may have any number of classes.
    if layout.rows == 0 || layout.classes == 0 {
        return None;
    }
    let is_flat = layout.row_stride == 1;
    let (outer, inner) = if is_flat { (layout.classes, layout.rows) } else { (layout.rows, layout.classes) };
    let (step, stride) = if is_flat { (layout.class_stride, 1) } else { (layout.row_stride, layout.class_stride) };
    let mut best = f32::NEG_INFINITY;
    for at in (0..outer).map(|n| layout.offset + n * step) {
        // `max` gives the other one where one is not a number.
        best = data.get(at..)?.iter().step_by(stride.max(1)).take(inner).fold(best, |best, score| best.max(*score));
    }
    best.is_finite().then_some(best)
}

/// The `k` highest values, the highest first, with their places. Equal values: the lower place. What is not a
/// number is none of them.
pub fn highest(data: &[f32], k: usize) -> Vec<(u32, f32)> {
    let by_height = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut all: Vec<_> = (0..).zip(data.iter().copied()).filter(|(_, value)| !value.is_nan()).collect();
    if k < all.len() {
        if k > 0 {
            all.select_nth_unstable_by(k - 1, by_height);
        }
        all.truncate(k);
    }
    all.sort_unstable_by(by_height);
    all
}

/// For `[classes, rows]`: each class is a contiguous run of rows.
fn by_class(scores: &[f32], layout: &Layout, threshold: f32) -> Vec<Candidate> {
    let mut best = vec![(f32::NEG_INFINITY, 0u32); layout.rows];
    for class in 0..layout.classes {
        let row = &scores[class * layout.class_stride..][..layout.rows];
        for (at, block) in row.chunks(BLOCK).enumerate() {
            if !block.iter().fold(false, |any, score| any | (*score >= threshold)) {
                continue;
            }
            for (best, score) in best[at * BLOCK..].iter_mut().zip(block) {
                if *score >= threshold && *score > best.0 {
                    *best = (*score, class as u32);
                }
            }
        }
    }
    let candidate = |(row, (score, class_id)): (usize, (f32, u32))| Candidate { row: row as u32, class_id, score };
    best.into_iter().enumerate().filter(|(_, (score, _))| *score > f32::NEG_INFINITY).map(candidate).collect()
}

/// For `[rows, classes]` and anything else.
fn by_row(scores: &[f32], layout: &Layout, threshold: f32) -> Vec<Candidate> {
    let mut found = Vec::new();
    for row in 0..layout.rows {
        let mut best: Option<(f32, usize)> = None;
        for class in 0..layout.classes {
            let score = scores[row * layout.row_stride + class * layout.class_stride];
            if score >= threshold && best.is_none_or(|(high, _)| score > high) {
                best = Some((score, class));
            }
        }
        found.extend(best.map(|(score, class)| Candidate { row: row as u32, class_id: class as u32, score }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 37;
    const CLASSES: usize = 5;

    /// Repeatable scores in 0..1, some of them equal, one not a number.
    fn score(row: usize, class: usize) -> f32 {
        if row == 3 && class == 2 {
            return f32::NAN;
        }
        ((row * 7919 + class * 104_729) % 97) as f32 / 97.0
    }

    fn expected(threshold: f32) -> Vec<Candidate> {
        (0..N)
            .filter_map(|row| {
                let mut best: Option<(usize, f32)> = None;
                for class in 0..CLASSES {
                    let s = score(row, class);
                    if s >= threshold && best.is_none_or(|(_, b)| s > b) {
                        best = Some((class, s));
                    }
                }
                best.map(|(class, score)| Candidate { row: row as u32, class_id: class as u32, score })
            })
            .collect()
    }

    #[test]
    fn both_layouts_find_the_same() {
        let columns: Vec<f32> = (0..CLASSES * N).map(|i| score(i % N, i / N)).collect();
        let rows: Vec<f32> = (0..CLASSES * N).map(|i| score(i / CLASSES, i % CLASSES)).collect();
        let by_columns = Layout { rows: N, classes: CLASSES, offset: 0, row_stride: 1, class_stride: N };
        let by_rows = Layout { rows: N, classes: CLASSES, offset: 0, row_stride: CLASSES, class_stride: 1 };
        for threshold in [0.0, 0.5, 0.9, 2.0] {
            let want = expected(threshold);
            assert_eq!(argmax_rows(&columns, &by_columns, threshold, N), Some(want.clone()), "{threshold}");
            assert_eq!(argmax_rows(&rows, &by_rows, threshold, N), Some(want), "{threshold}");
        }
    }

    #[test]
    fn the_highest_of_all_is_the_best_of_the_best() {
        let columns: Vec<f32> = (0..CLASSES * N).map(|i| score(i % N, i / N)).collect();
        let by_columns = Layout { rows: N, classes: CLASSES, offset: 0, row_stride: 1, class_stride: N };
        let by_rows = Layout { row_stride: CLASSES, class_stride: 1, ..by_columns };
        let expected = expected(0.0).iter().map(|c| c.score).reduce(f32::max);
        assert_eq!((best(&columns, &by_columns), best(&columns, &by_rows)), (expected, expected));
        assert_eq!(best(&columns, &Layout { rows: 0, classes: usize::MAX, class_stride: 0, ..by_columns }), None);
        assert_eq!(best(&[f32::NAN], &Layout { rows: 1, classes: 1, ..by_columns }), None);
    }

    #[test]
    fn a_limit_keeps_the_highest() {
        let data = [0.1, 0.9, 0.5, 0.8];
        let layout = Layout { rows: 4, classes: 1, offset: 0, row_stride: 1, class_stride: 4 };
        let rows: Vec<u32> = argmax_rows(&data, &layout, 0.0, 2).unwrap().iter().map(|c| c.row).collect();
        assert_eq!(rows, [1, 3]);
    }

    #[test]
    fn what_reaches_outside_is_refused() {
        let data = [0.0; 12];
        let fits = Layout { rows: 4, classes: 3, offset: 0, row_stride: 1, class_stride: 4 };
        assert!(argmax_rows(&data, &fits, 0.5, 9).is_some());
        for bad in [
            Layout { offset: 1, ..fits },
            Layout { rows: 5, ..fits },
            Layout { classes: 4, ..fits },
            Layout { row_stride: 0, class_stride: 0, rows: 1 << 30, ..fits },
            Layout { class_stride: usize::MAX, ..fits },
        ] {
            assert_eq!(argmax_rows(&data, &bad, 0.5, 9), None, "{bad:?}");
        }
    }
}
