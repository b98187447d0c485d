//! Boxes: from a model's input back to the frame, overlap, and suppression of duplicates. Zones and lines:
//! what lies inside, and what crosses. Points are normalised to 0..1 of the frame, `y` points down.

use crate::{Bbox, Detection, Geometry, Point, Rect, Size};

/// A point of the model's input (pixels) on the original frame (0..1), not clipped.
#[must_use]
pub fn to_frame(geometry: &Geometry, frame: Size, x: f32, y: f32) -> Point {
    Point {
        x: (x - geometry.pad_x) / geometry.scale_x / frame.width as f32,
        y: (y - geometry.pad_y) / geometry.scale_y / frame.height as f32,
    }
}

/// A box of the model's input (corners in pixels) on the original frame (0..1), clipped to it.
/// `None` if nothing of it lies on the frame, or a number is not finite.
#[must_use]
pub fn box_to_frame(geometry: &Geometry, frame: Size, corners: [f32; 4]) -> Option<Bbox> {
    let [x0, y0, x1, y1] = corners;
    let (a, b) = (to_frame(geometry, frame, x0, y0), to_frame(geometry, frame, x1, y1));
    if ![a.x, a.y, b.x, b.y].iter().all(|n| n.is_finite()) {
        return None;
    }
    let (x, y) = (a.x.clamp(0.0, 1.0), a.y.clamp(0.0, 1.0));
    let (width, height) = (b.x.clamp(0.0, 1.0) - x, b.y.clamp(0.0, 1.0) - y);
    (width > 0.0 && height > 0.0).then_some(Bbox { x, y, width, height })
}

/// Area of the intersection over area of the union; 0 for empty boxes.
#[must_use]
pub fn iou(a: &Bbox, b: &Bbox) -> f32 {
    let overlap = |a0: f32, a_len: f32, b0: f32, b_len: f32| ((a0 + a_len).min(b0 + b_len) - a0.max(b0)).max(0.0);
    let both = overlap(a.x, a.width, b.x, b.width) * overlap(a.y, a.height, b.y, b.height);
    let either = a.width * a.height + b.width * b.height - both;
    if either > 0.0 { both / either } else { 0.0 }
}

/// Greedy non-maximum suppression, class by class: the detection with the highest score stays, what
/// overlaps it by more than `max_iou` goes. By falling score; at most `max` remain. Equal scores
/// keep their order, so the result depends on the input only.
#[must_use]
pub fn nms(detections: Vec<Detection>, max_iou: f32, max: usize) -> Vec<Detection> {
    nms_by(detections, max_iou, max, |a, b| iou(&a.bbox, &b.bbox))
}

/// The same with another measure of overlap, 0 to 1, such as that of rotated boxes.
#[must_use]
pub fn nms_by(
    mut detections: Vec<Detection>,
    max_overlap: f32,
    max: usize,
    overlap: impl Fn(&Detection, &Detection) -> f32,
) -> Vec<Detection> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for detection in detections {
        if kept.len() == max {
            break;
        }
        let duplicate = |k: &Detection| k.class_id == detection.class_id && overlap(k, &detection) > max_overlap;
        if !kept.iter().any(duplicate) {
            kept.push(detection);
        }
    }
    kept
}

/// The middle of a box.
#[must_use]
pub fn center(bbox: &Bbox) -> Point {
    Point { x: bbox.x + bbox.width / 2.0, y: bbox.y + bbox.height / 2.0 }
}

/// Whether a point lies inside of a polygon, whose last point is joined to its first. Of one that crosses
/// itself, what is covered twice is outside (even-odd rule).
#[must_use]
pub fn contains(polygon: &[Point], point: Point) -> bool {
    let ends = polygon.iter().zip(polygon.iter().cycle().skip(1));
    let is_left_of = |(a, b): (&Point, &Point)| {
        // A corner belongs to the edge below it, so that it counts once.
        (a.y > point.y) != (b.y > point.y) && point.x < a.x + (point.y - a.y) / (b.y - a.y) * (b.x - a.x)
    };
    ends.filter(|edge| is_left_of(*edge)).count() % 2 == 1
}

/// On which side of the line from the first to the second point another one lies: above 0 on the right, below
/// 0 on the left, 0 on the line.
#[must_use]
pub fn side([from, to]: [Point; 2], point: Point) -> f32 {
    (to.x - from.x) * (point.y - from.y) - (to.y - from.y) * (point.x - from.x)
}

/// How something crosses a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// From its left to its right, as one looks from its first point to its second.
    ToRight,
    ToLeft,
}

/// Whether the way from one point to another crosses the line between two others. A point on the line is on
/// its right: so what goes on from frame to frame crosses a line once, wherever it stops.
#[must_use]
pub fn crossing(line: [Point; 2], from: Point, to: Point) -> Option<Crossing> {
    let is_left = |line: [Point; 2], point: Point| side(line, point) < 0.0;
    let (before, after) = (is_left(line, from), is_left(line, to));
    // Its ends lie on different sides of the way.
    let is_between = is_left([from, to], line[0]) != is_left([from, to], line[1]);
    let way = if before { Crossing::ToRight } else { Crossing::ToLeft };
    (before != after && is_between).then_some(way)
}

/// The pixels of a frame that a part of it covers, cut to the frame; one at least.
#[must_use]
pub fn region(frame: Size, part: &Bbox) -> Rect {
    let side = |start: f32, length: f32, pixels: u32| {
        let at = |share: f32| (share * pixels as f32).clamp(0.0, pixels as f32);
        let first = (at(start).floor() as u32).min(pixels.saturating_sub(1));
        (first, (at(start + length).ceil() as u32).max(first + 1) - first)
    };
    let ((x, width), (y, height)) = (side(part.x, part.width, frame.width), side(part.y, part.height, frame.height));
    Rect { x, y, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(class_id: u32, score: f32, x: f32) -> Detection {
        let bbox = Bbox { x, y: 0.0, width: 0.2, height: 0.2 };
        Detection::new(class_id, score, bbox)
    }

    #[test]
    fn a_letterbox_is_undone() {
        // 640x360 in 320x192: halved, 6 pixels of padding above and below.
        let geometry = Geometry { scale_x: 0.5, scale_y: 0.5, pad_x: 0.0, pad_y: 6.0 };
        let frame = Size { width: 640, height: 360 };
        let b = box_to_frame(&geometry, frame, [80.0, 51.0, 160.0, 141.0]).unwrap();
        assert_eq!((b.x, b.y, b.width, b.height), (0.25, 0.25, 0.25, 0.5));
        let clipped = box_to_frame(&geometry, frame, [-20.0, 0.0, 400.0, 192.0]).unwrap();
        assert_eq!((clipped.x, clipped.y, clipped.width, clipped.height), (0.0, 0.0, 1.0, 1.0));
        assert!(box_to_frame(&geometry, frame, [-20.0, 0.0, -10.0, 192.0]).is_none());
        assert!(box_to_frame(&geometry, frame, [f32::NAN, 0.0, 1.0, 1.0]).is_none());
    }

    #[test]
    fn overlap_is_a_share() {
        let b = |x, width| Bbox { x, y: 0.0, width, height: 1.0 };
        assert_eq!(iou(&b(0.0, 1.0), &b(0.0, 1.0)), 1.0);
        assert_eq!(iou(&b(0.0, 0.5), &b(0.5, 0.5)), 0.0);
        assert!((iou(&b(0.0, 0.5), &b(0.25, 0.5)) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(iou(&b(0.0, 0.0), &b(0.0, 0.0)), 0.0);
    }

    #[test]
    fn duplicates_of_one_class_go() {
        let input =
            vec![detection(0, 0.5, 0.01), detection(0, 0.9, 0.0), detection(1, 0.4, 0.0), detection(0, 0.3, 0.5)];
        let kept: Vec<_> = nms(input.clone(), 0.45, 9).iter().map(|d| (d.class_id, d.score)).collect();
        assert_eq!(kept, [(0, 0.9), (1, 0.4), (0, 0.3)]);
        assert_eq!(nms(input, 0.45, 1).len(), 1);
    }

    fn point(x: f32, y: f32) -> Point {
        Point { x, y }
    }

    #[test]
    fn a_zone_contains_what_lies_inside() {
        let notched = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.0, 1.0)].map(|(x, y)| point(x, y));
        for (x, y, is_inside) in [(0.1, 0.8, true), (0.9, 0.8, true), (0.5, 0.4, true), (0.5, 0.8, false)] {
            assert_eq!(contains(&notched, point(x, y)), is_inside, "{x} {y}");
        }
        assert!(!contains(&notched, point(1.5, 0.5)) && !contains(&notched, point(-0.5, 0.5)));
        assert!(!contains(&notched[..2], point(0.5, 0.0)) && !contains(&[], point(0.0, 0.0)));
    }

    #[test]
    fn a_line_is_crossed_between_its_ends_and_not_beside_them() {
        // Downwards in the middle: its right is the left of the picture.
        let line = [point(0.5, 0.2), point(0.5, 0.8)];
        let way = |from: (f32, f32), to: (f32, f32)| crossing(line, point(from.0, from.1), point(to.0, to.1));
        assert_eq!(way((0.9, 0.5), (0.1, 0.5)), Some(Crossing::ToRight));
        assert_eq!(way((0.1, 0.5), (0.9, 0.6)), Some(Crossing::ToLeft));
        for (from, to) in [((0.1, 0.9), (0.9, 0.9)), ((0.1, 0.5), (0.4, 0.5)), ((0.1, 0.5), (0.5, 0.5))] {
            assert_eq!(way(from, to), None);
        }
        // What stops on the line crosses it once.
        assert_eq!(way((0.9, 0.5), (0.5, 0.5)), Some(Crossing::ToRight));
        assert_eq!(way((0.5, 0.5), (0.1, 0.5)), None);
        assert_eq!(way((0.5, 0.5), (0.9, 0.5)), Some(Crossing::ToLeft));
    }

    #[test]
    fn a_part_of_a_frame_is_a_region_inside_it() {
        let frame = Size { width: 640, height: 360 };
        let of = |x, y, width, height| {
            let Rect { x, y, width, height } = region(frame, &Bbox { x, y, width, height });
            [x, y, width, height]
        };
        assert_eq!(of(0.25, 0.5, 0.5, 0.25), [160, 180, 320, 90]);
        assert_eq!(of(0.0, 0.0, 1.0, 1.0), [0, 0, 640, 360]);
        assert_eq!(of(-1.0, 0.9999, 3.0, 1.0), [0, 359, 640, 1]);
        assert_eq!(of(2.0, 2.0, 1.0, 1.0), [639, 359, 1, 1]);
    }
}
