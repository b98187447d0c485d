//! Whether boxes are in the form that is set, by the first frames on which something is found. Only
//! what is certain is refused: numbers that fit two forms are taken for those that are set.

use framehook_sdk::Error;
use serde::{Deserialize, Serialize};

use crate::{
    View,
    boxes::{Format, Units, check},
};

/// Frames on which something is found that are looked at together: a single one may show nothing
/// but an object most of which is outside of the picture.
const FRAMES: u32 = 3;
/// Detectors give boxes that reach over an edge, but not by so large a share of the picture.
const FAR: f32 = 0.25;

/// What was seen so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FormCheck {
    frames: u32,
    /// The four numbers of each box, as shares of the picture.
    boxes: Vec<[f32; 4]>,
}

impl FormCheck {
    /// Whether nothing was found before.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.frames == 0
    }

    /// Looks at the boxes of what a frame's candidates are.
    ///
    /// # Errors
    /// When something speaks against this form and these units: what to set.
    pub fn check(&mut self, format: Format, units: Units, numbers: &[f32], view: &View) -> Result<(), Error> {
        if self.is_new() {
            check(format, units, numbers)?;
        }
        if numbers.is_empty() || self.frames >= FRAMES {
            return Ok(());
        }
        let (width, height) = match units {
            Units::Pixels => (view.input.width as f32, view.input.height as f32),
            Units::Frame => (view.frame.width as f32, view.frame.height as f32),
            Units::Normalised => (1.0, 1.0),
        };
        let finite = numbers.chunks_exact(4).filter(|b| b.iter().all(|n| n.is_finite()));
        self.boxes.extend(finite.map(|b| [b[0] / width, b[1] / height, b[2] / width, b[3] / height]));
        self.frames += 1;
        if self.frames < FRAMES { Ok(()) } else { outside(format, &std::mem::take(&mut self.boxes)) }
    }
}

/// An error if most boxes lie far outside in this form, and all are in the picture in another one.
fn outside(format: Format, boxes: &[[f32; 4]]) -> Result<(), Error> {
    let corners = |format: Format| boxes.iter().map(move |b| format.corners(*b));
    let is_far = |[x0, y0, x1, y1]: [f32; 4]| x0.min(y0) < -FAR || x1.max(y1) > 1.0 + FAR;
    let is_box = |[x0, y0, x1, y1]: [f32; 4]| x0 <= x1 && y0 <= y1;
    let far = corners(format).filter(|b| is_far(*b)).count();
    let fits = |other: &Format| corners(*other).all(|b| is_box(b) && !is_far(b));
    let others: Vec<_> = Format::ALL.into_iter().filter(fits).map(|other| format!("`{}`", other.name())).collect();
    if far * 2 <= boxes.len() || others.is_empty() {
        return Ok(());
    }
    Err(Error::InvalidConfig(format!(
        "`format`: most boxes reach beyond an edge of the picture by more than a quarter of it, so they are not `{}`: \
         {}?",
        format.name(),
        others.join(" or ")
    )))
}

#[cfg(test)]
mod tests {
    use framehook_sdk::{Geometry, Size};

    use super::*;

    /// A frame of 640x360 in an input of 320x320.
    const VIEW: View = View {
        geometry: Geometry { scale_x: 0.5, scale_y: 0.5, pad_x: 0.0, pad_y: 70.0 },
        frame: Size { width: 640, height: 360 },
        input: Size { width: 320, height: 320 },
    };

    /// What the boxes, given as shares, are told on the last frame that is looked at.
    fn told(format: Format, units: Units, shares: &[[f32; 4]]) -> Option<String> {
        let (width, height) = match units {
            Units::Pixels => (320.0, 320.0),
            Units::Frame => (640.0, 360.0),
            Units::Normalised => (1.0, 1.0),
        };
        let numbers: Vec<_> =
            shares.iter().flat_map(|[a, b, c, d]| [a * width, b * height, c * width, d * height]).collect();
        let mut form = FormCheck::default();
        for _ in 1..FRAMES {
            form.check(format, units, &numbers, &VIEW).unwrap();
            // Frames on which nothing is found do not count.
            form.check(format, units, &[], &VIEW).unwrap();
        }
        let last = form.check(format, units, &numbers, &VIEW);
        assert!(form.check(format, units, &numbers, &VIEW).is_ok());
        last.err().map(|error| match error {
            Error::InvalidConfig(message) => message,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn boxes_far_outside_are_in_another_form() {
        use Format::{Cxcywh, Xywh, Xyxy};
        let one = [0.7, 0.1, 0.9, 0.4];
        for (format, boxes, expected) in [
            // Corners, read as something else.
            (Xywh, &[one][..], Some("not `xywh`: `xyxy` or `cxcywh`?")),
            (Cxcywh, &[[0.8, 0.1, 0.95, 0.4]], Some("not `cxcywh`: `xyxy`?")),
            (Xywh, &[one, [0.1, 0.7, 0.2, 0.95], [0.1, 0.1, 0.2, 0.2]], Some("not `xywh`: `xyxy` or `cxcywh`?")),
            (Xywh, &[[0.05, 0.6, 0.2, 0.9]], Some("not `xywh`: `xyxy`")),
            // Centres, read as left and top.
            (Xywh, &[[0.8, 0.3, 0.5, 0.2]], Some("not `xywh`: `cxcywh`?")),
            // Only one half, or a little.
            (Xywh, &[one, [0.1, 0.1, 0.2, 0.2]], None),
            (Xywh, &[[0.7, 0.1, 0.5, 0.4]], None),
            // What cannot be anything else: an object most of which is outside.
            (Xywh, &[[0.9, 0.1, 0.8, 0.4]], None),
            (Cxcywh, &[[1.1, 0.5, 0.8, 0.9]], None),
            // Plausible, though it may be wrong.
            (Cxcywh, &[one], None),
            (Xyxy, &[one], None),
            (Xyxy, &[[-0.2, -0.2, 1.2, 1.2]], None),
        ] {
            for units in [Units::Pixels, Units::Normalised, Units::Frame] {
                let told = told(format, units, boxes);
                assert_eq!(told.is_some(), expected.is_some(), "{format:?} {units:?} {boxes:?}: {told:?}");
                assert!(told.as_ref().is_none_or(|told| told.contains(expected.unwrap())), "{boxes:?}: {told:?}");
            }
        }
    }

    #[test]
    fn one_odd_frame_is_not_enough() {
        let mut form = FormCheck::default();
        for numbers in [[0.7f32, 0.1, 0.9, 0.4], [0.1, 0.1, 0.2, 0.2], [0.2, 0.1, 0.2, 0.2], [0.7, 0.1, 0.9, 0.4]] {
            assert!(form.check(Format::Xywh, Units::Normalised, &numbers, &VIEW).is_ok());
        }
        let mut form = FormCheck::default();
        let nan = [f32::NAN, 0.1, 0.9, 0.4];
        assert!((0..4).all(|_| form.check(Format::Xywh, Units::Normalised, &nan, &VIEW).is_ok()));
    }
}
