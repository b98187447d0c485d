//! The parts of a map that hang together.

use crate::rect::Point;

/// For each region above `threshold` (pixels that touch, if only by a corner), the first and the last pixel
/// of each of its rows, from the top: its convex hull is that of these. At most `limit` regions, from the top
/// left on.
pub(crate) fn regions(values: &[f32], width: usize, threshold: f32, limit: usize) -> Vec<Vec<Point>> {
    let mut is_open: Vec<bool> = values.iter().map(|value| *value > threshold).collect();
    let mut found = Vec::new();
    let mut waiting = Vec::new();
    for start in 0..values.len() {
        if !is_open[start] {
            continue;
        }
        if found.len() == limit {
            break;
        }
        // The first pixel of a region is in its first row.
        let top = start / width;
        let mut rows: Vec<[usize; 2]> = Vec::new();
        is_open[start] = false;
        waiting.push(start);
        while let Some(pixel) = waiting.pop() {
            let (x, y) = (pixel % width, pixel / width);
            rows.resize(rows.len().max(y - top + 1), [usize::MAX, 0]);
            let [first, last] = &mut rows[y - top];
            (*first, *last) = (x.min(*first), x.max(*last));
            for row in y.saturating_sub(1)..=y + 1 {
                for column in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    let neighbour = row * width + column;
                    if is_open.get(neighbour) == Some(&true) {
                        is_open[neighbour] = false;
                        waiting.push(neighbour);
                    }
                }
            }
        }
        found.push((top..).zip(rows).flat_map(|(y, [a, b])| [[a as f32, y as f32], [b as f32, y as f32]]).collect());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_is_one_region() {
        let picture = "
            ##...#
            ..#..#
            .#...#
            ......";
        let values: Vec<f32> =
            picture.chars().filter(|c| !c.is_whitespace()).map(|c| f32::from(u8::from(c == '#'))).collect();
        let found = regions(&values, 6, 0.5, 9);
        assert_eq!(found[0], [[0.0, 0.0], [1.0, 0.0], [2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]]);
        assert_eq!(found[1], [[5.0, 0.0], [5.0, 0.0], [5.0, 1.0], [5.0, 1.0], [5.0, 2.0], [5.0, 2.0]]);
        assert_eq!(found.len(), 2);
        assert_eq!(regions(&values, 6, 0.5, 1).len(), 1);
        assert!(regions(&[f32::NAN; 4], 2, 0.5, 9).is_empty());
    }
}
