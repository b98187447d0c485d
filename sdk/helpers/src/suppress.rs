//! Suppression of duplicates, natively: a plugin with thousands of boxes spends its deadline elsewhere.
//!
//! Source of the overlap of turned boxes: the polygon of the intersection by Sutherland and Hodgman (1974),
//! its area by the shoelace formula.

/// A box that may be turned; any unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredBox {
    pub center: [f32; 2],
    pub size: [f32; 2],
    /// Clockwise in a picture whose y points down, in radians.
    pub angle: f32,
    pub class_id: u32,
    pub score: f32,
}

/// Boxes that are compared. The cost grows with their square, to some 20 ms; a plugin cannot be interrupted
/// here.
const MOST: usize = 3_000;
/// Where some are turned: an overlap takes fifty times as long.
const MOST_TURNED: usize = 500;

/// Indices of the boxes that stay, by falling score; equal scores keep their order. What has a number that is
/// not finite never stays.
pub fn greedy(boxes: &[ScoredBox], max_overlap: f32, across_classes: bool, limit: usize) -> Vec<u32> {
    let is_usable = |b: &ScoredBox| {
        let ScoredBox { center, size, angle, score, .. } = b;
        center.iter().chain(size).chain([angle, score]).all(|n| n.is_finite())
    };
    let mut order: Vec<_> = (0..boxes.len() as u32).filter(|i| is_usable(&boxes[*i as usize])).collect();
    order.sort_by(|a, b| boxes[*b as usize].score.total_cmp(&boxes[*a as usize].score));
    order.truncate(if boxes.iter().all(|b| b.angle == 0.0) { MOST } else { MOST_TURNED });
    let mut kept: Vec<u32> = Vec::new();
    for index in order {
        if kept.len() == limit {
            break;
        }
        let this = &boxes[index as usize];
        let is_duplicate = |other: &u32| {
            let other = &boxes[*other as usize];
            (across_classes || other.class_id == this.class_id) && overlap(other, this) > max_overlap
        };
        if !kept.iter().any(is_duplicate) {
            kept.push(index);
        }
    }
    kept
}

/// Area of the intersection over area of the union; 0 for empty boxes.
pub fn overlap(a: &ScoredBox, b: &ScoredBox) -> f32 {
    let both = if a.angle == 0.0 && b.angle == 0.0 { upright(a, b) } else { turned(a, b) };
    let area = |b: &ScoredBox| b.size[0].max(0.0) * b.size[1].max(0.0);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}

fn upright(a: &ScoredBox, b: &ScoredBox) -> f32 {
    let side = |axis: usize| {
        let ends = |b: &ScoredBox| (b.center[axis] - b.size[axis] / 2.0, b.center[axis] + b.size[axis] / 2.0);
        let ((a0, a1), (b0, b1)) = (ends(a), ends(b));
        (a1.min(b1) - a0.max(b0)).max(0.0)
    };
    side(0) * side(1)
}

type Point = [f32; 2];

fn turned(a: &ScoredBox, b: &ScoredBox) -> f32 {
    // Far apart, which is the usual case.
    let reach = |b: &ScoredBox| b.size[0].hypot(b.size[1]) / 2.0;
    let distance = (a.center[0] - b.center[0]).hypot(a.center[1] - b.center[1]);
    if distance >= reach(a) + reach(b) {
        return 0.0;
    }
    let clip = corners(b);
    let mut polygon = corners(a).to_vec();
    for (from, to) in (0..4).map(|k| (clip[k], clip[(k + 1) % 4])) {
        polygon = cut(&polygon, from, to);
    }
    area(&polygon)
}

/// In the order of a clock's hand.
fn corners(b: &ScoredBox) -> [Point; 4] {
    let (sin, cos) = b.angle.sin_cos();
    let [w, h] = [b.size[0].max(0.0) / 2.0, b.size[1].max(0.0) / 2.0];
    let corner = |x: f32, y: f32| [b.center[0] + x * cos - y * sin, b.center[1] + x * sin + y * cos];
    [corner(-w, -h), corner(w, -h), corner(w, h), corner(-w, h)]
}

/// What of a polygon lies right of the way from `from` to `to`, in a picture whose y points down.
fn cut(polygon: &[Point], from: Point, to: Point) -> Vec<Point> {
    let side = |p: Point| (to[0] - from[0]) * (p[1] - from[1]) - (to[1] - from[1]) * (p[0] - from[0]);
    let mut left = Vec::with_capacity(polygon.len() + 1);
    for (k, &point) in polygon.iter().enumerate() {
        let before = polygon[(k + polygon.len() - 1) % polygon.len()];
        let (here, there) = (side(point), side(before));
        if (here >= 0.0) != (there >= 0.0) {
            let share = there / (there - here);
            left.push([before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])]);
        }
        if here >= 0.0 {
            left.push(point);
        }
    }
    left
}

fn area(polygon: &[Point]) -> f32 {
    let Some(&origin) = polygon.first() else { return 0.0 };
    let at = |k: usize| [polygon[k][0] - origin[0], polygon[k][1] - origin[1]];
    let twice: f32 = (1..polygon.len().saturating_sub(1))
        .map(|k| {
            let (a, b) = (at(k), at(k + 1));
            a[0] * b[1] - a[1] * b[0]
        })
        .sum();
    twice.abs() / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(x: f32, angle: f32, class_id: u32, score: f32) -> ScoredBox {
        ScoredBox { center: [x, 0.0], size: [2.0, 1.0], angle, class_id, score }
    }

    #[test]
    fn the_best_of_what_overlaps_stays() {
        let boxes = [at(0.0, 0.0, 0, 0.5), at(0.1, 0.0, 0, 0.9), at(0.1, 0.0, 1, 0.4), at(5.0, 0.0, 0, 0.3)];
        assert_eq!(greedy(&boxes, 0.5, false, 9), [1, 2, 3]);
        assert_eq!(greedy(&boxes, 0.5, true, 9), [1, 3]);
        assert_eq!(greedy(&boxes, 0.5, true, 1), [1]);
        assert_eq!(greedy(&boxes, 1.0, true, 9).len(), 4);
        let unusable = [at(f32::NAN, 0.0, 0, 0.5), at(0.0, f32::INFINITY, 0, 0.5), at(0.0, 0.0, 0, f32::NAN)];
        assert!(greedy(&unusable, 0.5, false, 9).is_empty());
    }

    #[test]
    fn overlaps_of_turned_boxes_are_those_of_geometry() {
        let quarter = std::f32::consts::FRAC_PI_2;
        // A cross of two boxes of 2 x 1 has 1 x 1 in common.
        assert!((overlap(&at(0.0, 0.0, 0, 1.0), &at(0.0, quarter, 0, 1.0)) - 1.0 / 3.0).abs() < 1e-5);
        // A square and the same turned by an eighth share a regular octagon.
        let square = |angle| ScoredBox { size: [2.0, 2.0], ..at(0.0, angle, 0, 1.0) };
        let octagon = 8.0 * (2f32.sqrt() - 1.0);
        let expected = octagon / (8.0 - octagon);
        assert!((overlap(&square(0.0), &square(quarter / 2.0)) - expected).abs() < 1e-5);
        assert_eq!(overlap(&at(0.0, 0.3, 0, 1.0), &at(3.0, 0.4, 0, 1.0)), 0.0);
        let empty = ScoredBox { size: [0.0, 1.0], ..at(0.0, 0.1, 0, 1.0) };
        assert_eq!(overlap(&empty, &empty), 0.0);
    }

    proptest! {
        #[test]
        fn an_overlap_is_a_share_and_the_same_both_ways(
            a in (-3f32..3.0, -3f32..3.0, 0.1f32..4.0, 0.1f32..4.0, -4f32..4.0),
            b in (-3f32..3.0, -3f32..3.0, 0.1f32..4.0, 0.1f32..4.0, -4f32..4.0),
        ) {
            let of = |(x, y, w, h, angle)| {
                ScoredBox { center: [x, y], size: [w, h], angle, class_id: 0, score: 1.0 }
            };
            let (a, b) = (of(a), of(b));
            let (there, back) = (overlap(&a, &b), overlap(&b, &a));
            prop_assert!((-1e-4..=1.0001).contains(&there) && (there - back).abs() < 1e-3, "{there} {back}");
            prop_assert!((overlap(&a, &a) - 1.0).abs() < 1e-3);
            // Turning both changes nothing.
            let whole = |b: ScoredBox| ScoredBox { angle: b.angle + std::f32::consts::TAU, ..b };
            prop_assert!((overlap(&whole(a), &whole(b)) - there).abs() < 1e-3);
        }
    }
}
