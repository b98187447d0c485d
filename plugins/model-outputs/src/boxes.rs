//! Boxes in the forms that models give, and what is the same for all that find boxes.

use framehook_sdk::{Bbox, Detection, Error, geometry::box_to_frame};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{View, classes::Scored};

/// What the four numbers of a box are.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Left, top, right, bottom.
    Xyxy,
    /// Centre x, centre y, width, height.
    Cxcywh,
    /// Left, top, width, height.
    Xywh,
}

impl Format {
    /// All, in the order in which messages name them.
    pub const ALL: [Self; 3] = [Self::Xyxy, Self::Cxcywh, Self::Xywh];

    /// As it is set.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xyxy => "xyxy",
            Self::Cxcywh => "cxcywh",
            Self::Xywh => "xywh",
        }
    }

    #[must_use]
    pub fn corners(self, [a, b, c, d]: [f32; 4]) -> [f32; 4] {
        match self {
            Self::Xyxy => [a, b, c, d],
            Self::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
            Self::Xywh => [a, b, a + c, b + d],
        }
    }
}

/// What a box is measured in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// Pixels of the model's input.
    Pixels,
    /// Shares of the model's input, 0 to 1.
    Normalised,
    /// Pixels of the original frame, for a model that is given the frame's size.
    Frame,
}

impl View {
    /// Corners in these units as a box on the frame. `None` if nothing of it lies on the frame, or
    /// a number is not finite.
    #[must_use]
    pub fn bbox(&self, units: Units, corners: [f32; 4]) -> Option<Bbox> {
        let [x0, y0, x1, y1] = corners;
        match units {
            Units::Pixels => box_to_frame(&self.geometry, self.frame, corners),
            Units::Normalised => {
                let (width, height) = (self.input.width as f32, self.input.height as f32);
                box_to_frame(&self.geometry, self.frame, [x0 * width, y0 * height, x1 * width, y1 * height])
            }
            Units::Frame => {
                let as_is = framehook_sdk::Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };
                box_to_frame(&as_is, self.frame, corners)
            }
        }
    }
}

/// A box that may be a little outside of the input still has numbers up to this in shares.
const LARGEST_SHARE: f32 = 1.5;

/// Whether no finite number of the boxes is larger than a share of 0 to 1 can be. `None` if all are
/// 0.
#[must_use]
pub fn look_normalised(numbers: impl Iterator<Item = f32>) -> Option<bool> {
    let largest = numbers.filter(|n| n.is_finite()).fold(0f32, |largest, n| largest.max(n.abs()));
    (largest > 0.0).then_some(largest <= LARGEST_SHARE)
}

/// What speaks against boxes being in this form and these units.
///
/// # Errors
/// When something does: what to set.
pub fn check(format: Format, units: Units, boxes: &[f32]) -> Result<(), Error> {
    let refused = |message: &str| Err(Error::InvalidConfig(message.into()));
    match (look_normalised(boxes.iter().copied()), units) {
        (Some(true), Units::Pixels | Units::Frame) => {
            return refused("`units`: no number of the boxes is larger than 1.5, so they are `normalised`, not pixels");
        }
        (Some(false), Units::Normalised) => {
            return refused("`units`: some numbers of the boxes are larger than 1.5, so they are not `normalised`");
        }
        _ => {}
    }
    let inside_out = |b: &[f32]| b[2] < b[0] || b[3] < b[1];
    if format == Format::Xyxy && boxes.chunks_exact(4).any(inside_out) {
        return refused(
            "`format`: the right of a box lies left of its left, so they are not `xyxy`: `cxcywh` or `xywh`?",
        );
    }
    Ok(())
}

/// Detections from the best classes of boxes and the numbers of those boxes, and how many boxes
/// cannot be used.
#[must_use]
pub fn detections(
    scored: &Scored,
    numbers: &[f32],
    (format, units): (Format, Units),
    view: &View,
) -> (Vec<Detection>, usize) {
    let (mut found, mut unusable) = (Vec::new(), scored.unusable);
    for (candidate, b) in scored.candidates.iter().zip(numbers.chunks_exact(4)) {
        if b.iter().all(|n| n.is_finite()) {
            let bbox = view.bbox(units, format.corners([b[0], b[1], b[2], b[3]]));
            found.extend(bbox.map(|bbox| detection(candidate.class_id, candidate.score, bbox)));
        } else {
            unusable += 1;
        }
    }
    (found, unusable)
}

#[must_use]
pub fn detection(class_id: u32, score: f32, bbox: Bbox) -> Detection {
    Detection::new(class_id, score, bbox)
}

/// The `max` with the highest scores, by falling score; equal scores keep their order.
#[must_use]
pub fn highest(mut detections: Vec<Detection>, max: usize) -> Vec<Detection> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    detections.truncate(max);
    detections
}

#[cfg(test)]
mod tests {
    use framehook_sdk::{Geometry, Size};

    use super::*;

    #[test]
    fn one_box_in_every_form_is_the_same() {
        // 640x360 in 320x192: halved, 6 pixels of padding above and below.
        let view = View {
            geometry: Geometry { scale_x: 0.5, scale_y: 0.5, pad_x: 0.0, pad_y: 6.0 },
            frame: Size { width: 640, height: 360 },
            input: Size { width: 320, height: 192 },
        };
        for (format, numbers) in [
            (Format::Xyxy, [80.0, 51.0, 160.0, 141.0]),
            (Format::Cxcywh, [120.0, 96.0, 80.0, 90.0]),
            (Format::Xywh, [80.0, 51.0, 80.0, 90.0]),
        ] {
            let corners = format.corners(numbers);
            let shares = [corners[0] / 320.0, corners[1] / 192.0, corners[2] / 320.0, corners[3] / 192.0];
            for (units, corners) in
                [(Units::Pixels, corners), (Units::Normalised, shares), (Units::Frame, [160.0, 90.0, 320.0, 270.0])]
            {
                let b = view.bbox(units, corners).unwrap();
                let numbers = [b.x, b.y, b.width, b.height];
                assert!(numbers.iter().zip([0.25, 0.25, 0.25, 0.5]).all(|(a, b)| (a - b).abs() < 1e-6), "{units:?}");
            }
        }
    }

    #[test]
    fn shares_are_told_from_pixels() {
        assert_eq!(look_normalised([0.2, 1.1, f32::NAN].into_iter()), Some(true));
        assert_eq!(look_normalised([0.2, 30.0].into_iter()), Some(false));
        assert_eq!(look_normalised([0.0, f32::INFINITY].into_iter()), None);
    }

    #[test]
    fn boxes_in_another_form_than_set_are_refused() {
        for (format, units, numbers, words) in [
            (Format::Xyxy, Units::Pixels, [10.0, 10.0, 90.0, 50.0], None),
            (Format::Xyxy, Units::Pixels, [0.1, 0.1, 0.9, 0.5], Some("so they are `normalised`")),
            (Format::Cxcywh, Units::Normalised, [10.0, 10.0, 90.0, 50.0], Some("not `normalised`")),
            (Format::Xyxy, Units::Pixels, [90.0, 50.0, 40.0, 20.0], Some("not `xyxy`")),
            (Format::Cxcywh, Units::Pixels, [90.0, 50.0, 40.0, 20.0], None),
            (Format::Xyxy, Units::Normalised, [0.0, 0.0, 0.0, 0.0], None),
        ] {
            match (check(format, units, &numbers), words) {
                (Ok(()), None) => {}
                (Err(Error::InvalidConfig(message)), Some(words)) => assert!(message.contains(words), "{message}"),
                (other, _) => panic!("{format:?} {units:?} {numbers:?}: {other:?}"),
            }
        }
    }
}
