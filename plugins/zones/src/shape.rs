//! Points, polygons and lines, in shares of the frame.

use framehook_sdk::{
    Bbox,
    geometry::{self, Crossing},
};
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) type Point = [f32; 2];

/// The point of a box that tells where its object is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Anchor {
    /// Where somebody stands.
    #[default]
    BottomCenter,
    Center,
}

impl Anchor {
    pub(crate) fn of(self, bbox: &Bbox) -> Point {
        let down = match self {
            Self::BottomCenter => bbox.height,
            Self::Center => bbox.height / 2.0,
        };
        [bbox.x + bbox.width / 2.0, bbox.y + down]
    }
}

/// Whether a point is inside of a polygon: a ray from it to the right crosses the outline an odd number of
/// times.
pub(crate) fn contains(polygon: &[Point], [x, y]: Point) -> bool {
    let ends = polygon.iter().cycle().skip(1);
    let crosses =
        |([ax, ay], [bx, by]): (&Point, &Point)| (*ay > y) != (*by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax;
    polygon.iter().zip(ends).filter(|edge| crosses(*edge)).count() % 2 == 1
}

/// Twice the area is enough to tell that there is none.
pub(crate) fn is_flat(polygon: &[Point]) -> bool {
    let ends = polygon.iter().cycle().skip(1);
    let doubled: f32 = polygon.iter().zip(ends).map(|([ax, ay], [bx, by])| ax * by - bx * ay).sum();
    // Less than a pixel of the largest pictures.
    doubled.abs() < 1e-7
}

/// Whether the step from `from` to `to` crosses the line, and which way.
pub(crate) fn crossing(line: [Point; 2], from: Point, to: Point) -> Option<Crossing> {
    let point = |[x, y]: Point| framehook_sdk::Point { x, y };
    geometry::crossing(line.map(point), point(from), point(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polygon_has_an_inside() {
        // An L: the upper right quarter is outside.
        let shape = [[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]];
        for (point, expected) in [
            ([0.25, 0.25], true),
            ([0.75, 0.75], true),
            ([0.75, 0.25], false),
            ([-0.1, 0.5], false),
            ([0.5, 1.1], false),
        ] {
            assert_eq!(contains(&shape, point), expected, "{point:?}");
        }
        assert!(!is_flat(&shape));
        assert!(is_flat(&[[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]));
    }

    #[test]
    fn an_anchor_is_a_point_of_the_box() {
        let bbox = Bbox { x: 0.25, y: 0.5, width: 0.5, height: 0.25 };
        assert_eq!((Anchor::BottomCenter.of(&bbox), Anchor::Center.of(&bbox)), ([0.5, 0.75], [0.5, 0.625]));
    }
}
