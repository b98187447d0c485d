//! Boxes: from a model's input back to the frame, overlap, and suppression of duplicates.
//! Plain code, so it can be tested natively.

use crate::{Bbox, Detection, Geometry, Point, Size};

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
}
