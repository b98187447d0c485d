//! Rectangles that may be turned: the smallest around a set of points, and what lies in it.

pub(crate) type Point = [f32; 2];

/// A rectangle with sides along the unit vector `along` and across it. Pixels of the map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rect {
    along: Point,
    /// Where it begins and ends, along and across.
    from: Point,
    to: Point,
}

impl Rect {
    /// The one with the least area: a side of it lies on a side of the convex hull (Freeman and Shapira,
    /// "Determining the Minimum-Area Encasing Rectangle for an Arbitrary Closed Curve", 1975). `None` if all
    /// points are in one line.
    pub(crate) fn around(hull: &[Point]) -> Option<Self> {
        let ends = hull.iter().cycle().skip(1);
        let rects = hull.iter().zip(ends).filter_map(|(a, b)| {
            let length = (b[0] - a[0]).hypot(b[1] - a[1]);
            (length > 0.0).then(|| Self::along([(b[0] - a[0]) / length, (b[1] - a[1]) / length], hull))
        });
        rects.min_by(|a, b| a.area().total_cmp(&b.area())).filter(|rect| rect.area() > 0.0)
    }

    fn along(along: Point, points: &[Point]) -> Self {
        let (mut from, mut to) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
        for [x, y] in points {
            for (axis, n) in [x * along[0] + y * along[1], y * along[0] - x * along[1]].into_iter().enumerate() {
                (from[axis], to[axis]) = (from[axis].min(n), to[axis].max(n));
            }
        }
        Self { along, from, to }
    }

    pub(crate) fn sides(&self) -> [f32; 2] {
        [self.to[0] - self.from[0], self.to[1] - self.from[1]]
    }

    fn area(&self) -> f32 {
        let [a, b] = self.sides();
        a * b
    }

    /// A model is taught text that is shrunk by `area * ratio / perimeter` on each side, and this undoes it.
    /// A rectangle grown with round corners has as its smallest rectangle the one that is grown on each side.
    pub(crate) fn unclipped(&self, ratio: f32) -> Self {
        let [a, b] = self.sides();
        let by = self.area() * ratio / (2.0 * (a + b));
        Self { from: self.from.map(|n| n - by), to: self.to.map(|n| n + by), ..*self }
    }

    /// From the top left on, clockwise; of a rectangle that is turned, the upper one of the two that are
    /// furthest left is the top left.
    pub(crate) fn corners(&self) -> [Point; 4] {
        let ([c, s], from, to) = (self.along, self.from, self.to);
        let corners = [[from[0], from[1]], [to[0], from[1]], [to[0], to[1]], [from[0], to[1]]];
        let mut corners = corners.map(|[u, v]| [u * c - v * s, u * s + v * c]);
        corners.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let [a, b, c, d] = corners;
        let (top_left, bottom_left) = if b[1] > a[1] { (a, b) } else { (b, a) };
        let (top_right, bottom_right) = if d[1] > c[1] { (c, d) } else { (d, c) };
        [top_left, top_right, bottom_right, bottom_left]
    }

    /// The mean of the values of a map in it.
    pub(crate) fn mean(&self, values: &[f32], width: usize) -> f32 {
        let corners = self.corners();
        let ys = corners.map(|corner| corner[1]);
        let (top, bottom) = (ys.into_iter().fold(f32::MAX, f32::min), ys.into_iter().fold(f32::MIN, f32::max));
        let (mut sum, mut count) = (0.0f64, 0usize);
        let last_row = (values.len() / width).saturating_sub(1);
        for y in (top - TOLERANCE).ceil().max(0.0) as usize..=((bottom + TOLERANCE).floor() as usize).min(last_row) {
            let (left, right) = span(&corners, y as f32);
            let (left, right) = ((left - TOLERANCE).ceil().max(0.0) as usize, (right + TOLERANCE).floor());
            let Some(row) = (right >= 0.0).then(|| left..(right as usize + 1).min(width)) else { continue };
            for value in values.get(y * width + row.start..y * width + row.end.max(row.start)).unwrap_or_default() {
                sum += f64::from(if value.is_finite() { *value } else { 0.0 });
                count += 1;
            }
        }
        if count == 0 { 0.0 } else { (sum / count as f64) as f32 }
    }
}

/// A pixel on an edge belongs to the rectangle, however the numbers are rounded.
const TOLERANCE: f32 = 1e-3;

/// From where to where a row crosses a convex shape.
fn span(corners: &[Point; 4], y: f32) -> (f32, f32) {
    let ends = corners.iter().cycle().skip(1);
    let edges = corners.iter().zip(ends).filter_map(|([ax, ay], [bx, by])| {
        let (low, high) = (ay.min(*by), ay.max(*by));
        if y < low - TOLERANCE || y > high + TOLERANCE {
            return None;
        }
        let share = if high > low { ((y - ay) / (by - ay)).clamp(0.0, 1.0) } else { 0.0 };
        let x = ax + (bx - ax) * share;
        // An edge along the row is in it from end to end.
        Some(if high - low < TOLERANCE { (ax.min(*bx), ax.max(*bx)) } else { (x, x) })
    });
    edges.fold((f32::INFINITY, f32::NEG_INFINITY), |(left, right), (a, b)| (left.min(a), right.max(b)))
}

/// The convex hull (Andrew's monotone chain) of points by rising y, and those of one y by rising x.
pub(crate) fn hull(points: &[Point]) -> Vec<Point> {
    let turns = |a: Point, b: Point, c: Point| (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
    let half = |points: &mut dyn Iterator<Item = &Point>| {
        let mut chain: Vec<Point> = Vec::new();
        for point in points {
            while chain.len() >= 2 && turns(chain[chain.len() - 2], chain[chain.len() - 1], *point) >= 0.0 {
                chain.pop();
            }
            chain.push(*point);
        }
        chain.pop();
        chain
    };
    [half(&mut points.iter()), half(&mut points.iter().rev())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hull_has_corners_only() {
        let points = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [1.0, 2.0]];
        let hull = hull(&points);
        assert_eq!(hull.len(), 4, "{hull:?}");
        let rect = Rect::around(&hull).unwrap();
        assert!((rect.area() - 2.0).abs() < 1e-5, "the square that stands on its corner: {rect:?}");
        assert!(Rect::around(&self::hull(&[[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])).is_none());
        assert!(Rect::around(&self::hull(&[[5.0, 5.0]])).is_none());
    }

    #[test]
    fn an_upright_rectangle_grows_and_has_its_corners_in_order() {
        let rect = Rect::around(&hull(&[[2.0, 1.0], [12.0, 1.0], [2.0, 5.0], [12.0, 5.0]])).unwrap();
        assert_eq!(rect.corners(), [[2.0, 1.0], [12.0, 1.0], [12.0, 5.0], [2.0, 5.0]]);
        // 40 / 28 of a pixel.
        let grown = rect.unclipped(1.0).corners();
        assert!((grown[0][0] - (2.0 - 40.0 / 28.0)).abs() < 1e-5, "{grown:?}");
    }

    #[test]
    fn a_mean_has_the_pixels_on_the_edge() {
        let values: Vec<f32> = (0..48).map(|n| n as f32).collect();
        let rect = Rect::around(&hull(&[[1.0, 1.0], [3.0, 1.0], [1.0, 2.0], [3.0, 2.0]])).unwrap();
        // Columns 1 to 3 of rows 1 and 2, of 8 columns.
        assert_eq!(rect.mean(&values, 8), (9.0 + 10.0 + 11.0 + 17.0 + 18.0 + 19.0) / 6.0);
    }
}
