//! Detections from an output whose head is known. A pure function of the output: the same tensor
//! gives the same detections.

use framehook_sdk::{Bbox, Candidate, Detection, Error, Point, geometry::to_frame};
use model_outputs::{
    Outputs, View,
    boxes::{Format, Units, detection},
    scores::{best, score},
};

use crate::head::{BOX, Head, Kind};

/// Boxes that go into the suppression, whose cost grows with their square.
pub(crate) const MAX_CANDIDATES: u32 = 3_000;

#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) detections: Vec<Detection>,
    /// Boxes with NaN, infinite values, or a score outside of 0 to 1.
    pub(crate) unusable: usize,
}

pub(crate) fn decode(outputs: &impl Outputs, output: u32, head: Head, min_score: f32) -> Result<Found, Error> {
    let candidates = outputs.argmax_rows(output, head.compared(), min_score, MAX_CANDIDATES)?;
    let needed = head.needed();
    let elements = head.grid().elements(candidates.iter().map(|c| c.row), &needed);
    let numbers = outputs.gather(output, &elements)?;
    let view = outputs.view();
    let mut found = Found::default();
    for (candidate, row) in candidates.iter().zip(numbers.chunks_exact(needed.len())) {
        match class_and_score(head, candidate, row) {
            Some((class, score)) if row.iter().all(|n| n.is_finite()) => {
                let read_from = head.has_coefficients().then_some(u64::from(candidate.row));
                let detection = || Some(Detection { track_id: read_from, ..shape(head, class, score, row, &view)? });
                found.detections.extend((score >= min_score).then(detection).flatten());
            }
            _ => found.unusable += 1,
        }
    }
    Ok(found)
}

/// `None` if the score is none.
fn class_and_score(head: Head, candidate: &Candidate, row: &[f32]) -> Option<(u32, f32)> {
    match head.kind {
        Kind::V5 => {
            let (class, probability) = best(&row[head.first_score() as usize..])?;
            Some((class as u32, score(candidate.score)? * score(probability)?))
        }
        Kind::End2End => {
            let class = row[BOX as usize + 1];
            let is_id = class >= 0.0 && class.fract() == 0.0 && class < u32::MAX as f32;
            is_id.then_some((class as u32, score(candidate.score)?))
        }
        _ => Some((candidate.class_id, score(candidate.score)?)),
    }
}

/// `None` if nothing of it lies on the frame.
fn shape(head: Head, class: u32, score: f32, row: &[f32], view: &View) -> Option<Detection> {
    let [a, b, c, d, rest @ ..] = row else { return None };
    let numbers = [*a, *b, *c, *d];
    let point = |x: f32, y: f32| to_frame(&view.geometry, view.frame, x, y);
    let format = if head.kind == Kind::End2End { Format::Xyxy } else { Format::Cxcywh };
    let boxed = |corners| view.bbox(Units::Pixels, corners);
    if head.kind == Kind::Obb {
        let corners = rotated(numbers, rest[0]);
        let polygon: Vec<_> = corners.iter().map(|[x, y]| point(*x, *y)).collect();
        let turned = detection(class, score, boxed(around(&corners))?).with("angle", rest[0]);
        return Some(Detection { polygon, ..turned });
    }
    let bbox: Bbox = boxed(format.corners(numbers))?;
    let points = if head.kind == Kind::End2End { rest.get(2..)? } else { rest };
    let keypoints: Vec<Point> = match head.point as usize {
        0 => Vec::new(),
        length => points.chunks_exact(length).map(|p| point(p[0], p[1])).collect(),
    };
    Some(Detection { keypoints, ..detection(class, score, bbox) })
}

/// The corners of a box that is turned by `angle` around its centre.
fn rotated([cx, cy, width, height]: [f32; 4], angle: f32) -> [[f32; 2]; 4] {
    let (sin, cos) = angle.sin_cos();
    [(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0)].map(|(along, across)| {
        let (x, y) = (along * width / 2.0, across * height / 2.0);
        [cx + x * cos - y * sin, cy + x * sin + y * cos]
    })
}

fn around(corners: &[[f32; 2]; 4]) -> [f32; 4] {
    let [x0, y0] = corners[0];
    corners.iter().fold([x0, y0, x0, y0], |[left, top, right, bottom], [x, y]| {
        [left.min(*x), top.min(*y), right.max(*x), bottom.max(*y)]
    })
}
