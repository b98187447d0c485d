//! Overlap of rotated boxes, whose corners are the outlines of their detections.
//!
//! Source of the method: Sutherland and Hodgman, "Reentrant polygon clipping", 1974.

use framehook_sdk::{Detection, Point};

/// Area of the intersection over area of the union; 0 for empty boxes.
pub(crate) fn iou(a: &Detection, b: &Detection) -> f32 {
    let both = area(&clip(&a.polygon, &b.polygon)).abs();
    let either = area(&a.polygon).abs() + area(&b.polygon).abs() - both;
    if either > 0.0 { both / either } else { 0.0 }
}

/// By the shoelace formula; negative for the other direction around.
fn area(polygon: &[Point]) -> f32 {
    let next = polygon.iter().cycle().skip(1);
    polygon.iter().zip(next).map(|(a, b)| a.x * b.y - b.x * a.y).sum::<f32>() / 2.0
}

/// What of a polygon lies in a convex one.
fn clip(polygon: &[Point], convex: &[Point]) -> Vec<Point> {
    let direction = area(convex).signum();
    let edges = convex.iter().zip(convex.iter().cycle().skip(1));
    edges.fold(polygon.to_vec(), |rest, (from, to)| {
        let side = |p: &Point| direction * ((to.x - from.x) * (p.y - from.y) - (to.y - from.y) * (p.x - from.x));
        let next = rest.iter().cycle().skip(1);
        let inside = rest.iter().zip(next).flat_map(|(a, b)| {
            let (at_a, at_b) = (side(a), side(b));
            let crossing = ((at_a < 0.0) != (at_b < 0.0)).then(|| {
                let share = at_a / (at_a - at_b);
                Point { x: a.x + share * (b.x - a.x), y: a.y + share * (b.y - a.y) }
            });
            (at_a >= 0.0).then_some(*a).into_iter().chain(crossing)
        });
        inside.collect()
    })
}

#[cfg(test)]
mod tests {
    use framehook_sdk::Bbox;

    use super::*;

    fn quad(corners: [[f32; 2]; 4]) -> Detection {
        let polygon = corners.map(|[x, y]| Point { x, y }).to_vec();
        let bbox = Bbox { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        Detection { polygon, ..Detection::new(0, 1.0, bbox) }
    }

    #[test]
    fn overlap_is_that_of_the_polygons() {
        let square = quad([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
        let backwards = quad([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]);
        let half = quad([[0.5, 0.0], [1.5, 0.0], [1.5, 1.0], [0.5, 1.0]]);
        // A diamond that touches the middles of the square's sides: half its area.
        let diamond = quad([[0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.0, 0.5]]);
        let far = quad([[5.0, 5.0], [6.0, 5.0], [6.0, 6.0], [5.0, 6.0]]);
        let empty = quad([[0.5, 0.5]; 4]);
        for (other, expected) in
            [(&square, 1.0), (&backwards, 1.0), (&half, 1.0 / 3.0), (&diamond, 0.5), (&far, 0.0), (&empty, 0.0)]
        {
            assert!((iou(&square, other) - expected).abs() < 1e-6, "{other:?}: {}", iou(&square, other));
            assert!((iou(other, &square) - expected).abs() < 1e-6, "{other:?}: {}", iou(other, &square));
        }
    }
}
