//! How good predictions are: mean average precision at IoU 0.5 (all-point interpolation), as in the PASCAL
//! VOC challenge from 2010 on. Objects under 30 % visible neither count as missed nor as false alarms.

use framehook_core::prediction::Prediction;
use serde_json::Value;

/// Below this share visible an object is ignored.
const MIN_VISIBLE: f64 = 0.3;
const MIN_IOU: f64 = 0.5;

/// An object of the ground truth. The box is `[x0, y0, x1, y1]`, normalised.
struct Object {
    class: u32,
    bbox: [f64; 4],
    counts: bool,
    found: bool,
}

/// mAP50 of `predictions` (one a frame) against the text of `demo1.json`.
#[must_use]
pub fn map50(predictions: &[Prediction], truth: &str) -> f64 {
    let truth: Value = serde_json::from_str(truth).expect("the ground truth is JSON");
    let classes = truth["names"].as_array().expect("names").len();
    let total: f64 = (0..classes).map(|class| average_precision(predictions, &truth, class as u32)).sum();
    total / classes as f64
}

fn average_precision(predictions: &[Prediction], truth: &Value, class: u32) -> f64 {
    let (width, height) = (truth["width"].as_f64().expect("width"), truth["height"].as_f64().expect("height"));
    let mut frames: Vec<Vec<Object>> = truth["frames"]
        .as_array()
        .expect("frames")
        .iter()
        .map(|frame| objects(frame, width, height).filter(|o| o.class == class).collect())
        .collect();
    let positives = frames.iter().flatten().filter(|o| o.counts).count();

    let mut found: Vec<(f32, usize, [f64; 4])> = predictions
        .iter()
        .flat_map(|p| p.detections.iter().filter(|d| d.class_id == class).map(move |d| (d, p.frame)))
        .map(|(d, frame)| (d.score, usize::try_from(frame).expect("a frame number fits"), corners(d.bbox)))
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));

    let hits: Vec<bool> = found.iter().filter_map(|(_, frame, bbox)| judge(&mut frames[*frame], bbox)).collect();
    area_under_curve(&hits, positives)
}

/// True: an object found. False: a false alarm. None: an object that does not count, or found before.
fn judge(objects: &mut [Object], bbox: &[f64; 4]) -> Option<bool> {
    let mut candidates: Vec<_> = objects.iter_mut().filter(|o| !o.found && iou(&o.bbox, bbox) >= MIN_IOU).collect();
    candidates.sort_by(|a, b| iou(&b.bbox, bbox).total_cmp(&iou(&a.bbox, bbox)));
    if candidates.is_empty() {
        return Some(false);
    }
    let index = candidates.iter().position(|o| o.counts);
    candidates[index.unwrap_or(0)].found = true;
    index.map(|_| true)
}

fn area_under_curve(hits: &[bool], positives: usize) -> f64 {
    let mut true_positives = 0;
    let mut points: Vec<(f64, f64)> = hits
        .iter()
        .enumerate()
        .map(|(rank, hit)| {
            true_positives += usize::from(*hit);
            (true_positives as f64 / positives as f64, true_positives as f64 / (rank + 1) as f64)
        })
        .collect();
    for i in (1..points.len()).rev() {
        points[i - 1].1 = points[i - 1].1.max(points[i].1);
    }
    let mut recall = 0.0;
    points.iter().fold(0.0, |area, (next, precision)| {
        let step = next - recall;
        recall = *next;
        area + step * precision
    })
}

/// Rows are `[id, class, x0, y0, x1, y1, visible]` in pixels.
fn objects(frame: &Value, width: f64, height: f64) -> impl Iterator<Item = Object> {
    frame.as_array().expect("a frame is a list").iter().map(move |row| {
        let number = |i: usize| row[i].as_f64().expect("a row holds numbers");
        Object {
            class: number(1) as u32,
            bbox: [number(2) / width, number(3) / height, number(4) / width, number(5) / height],
            counts: number(6) >= MIN_VISIBLE,
            found: false,
        }
    })
}

fn corners([x, y, width, height]: [f32; 4]) -> [f64; 4] {
    [x.into(), y.into(), (x + width).into(), (y + height).into()]
}

fn iou(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |r: &[f64; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    let both = width * height;
    both / (area(a) + area(b) - both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_of_perfect_late_and_false_hits() {
        for (hits, positives, area) in [
            (&[true, true][..], 2, 1.0),
            (&[true], 2, 0.5),
            (&[false, true], 1, 0.5),
            (&[true, false, true], 2, 0.5 + 0.5 * 2.0 / 3.0),
            (&[], 3, 0.0),
        ] {
            assert!((area_under_curve(hits, positives) - area).abs() < 1e-9, "{hits:?}");
        }
    }

    #[test]
    fn overlap_is_shared_area_over_all_area() {
        assert!((iou(&[0.0, 0.0, 1.0, 1.0], &[0.5, 0.0, 1.5, 1.0]) - 1.0 / 3.0).abs() < 1e-9);
        assert!(iou(&[0.0, 0.0, 0.1, 0.1], &[0.5, 0.5, 1.0, 1.0]).abs() < 1e-9);
    }
}
