//! Hides what hooks marked as private, in pictures for people.
//!
//! A detection is marked by the attribute `privacy` with the value `blur`; `plugins/privacy-blur` sets it.
//! What is hidden is its outline if it has one, else its box and a little more. Nothing is left there but a
//! few colours: a blur that only smears could be undone.
//!
//! Invariant: a frame that nobody looked at (without a prediction, skipped, or failed) hides what the frame
//! before it hid, and what it marks itself.

use framehook_core::prediction::{Attribute, Detection, Prediction};
use opencv::{
    core::{CV_8UC1, Mat, Point, Rect, Scalar, Size, Vector},
    imgproc,
    prelude::*,
};

use crate::resize::Canvas;

/// The attribute and the value that mark a detection.
const KEY: &str = "privacy";
const VALUE: &str = "blur";
/// Colours that are left in each direction: nobody is known by so few.
const COLOURS: i32 = 6;
/// How much of its sides a box is grown by: a detector's box may cut off a chin, an outline that somebody
/// drew not.
const MARGIN: f32 = 0.1;

/// An outline in shares of the frame.
type Outline = Vec<[f32; 2]>;

/// What is hidden on the present frame.
#[derive(Default)]
pub(crate) struct Hidden {
    /// On the last frame that was looked at.
    before: Vec<Outline>,
    now: Vec<Outline>,
}

impl Hidden {
    /// The next frame.
    pub(crate) fn follow(&mut self, prediction: Option<&Prediction>) {
        let was_seen = prediction.is_some_and(|p| p.skipped.is_none() && p.hook_failures.is_empty());
        self.take(was_seen, prediction.map_or(&[], |p| &p.detections[..]));
    }

    fn take(&mut self, was_seen: bool, detections: &[Detection]) {
        self.now = detections.iter().filter(|detection| is_marked(detection)).map(outline).collect();
        if was_seen {
            self.before = std::mem::take(&mut self.now);
        }
    }

    pub(crate) fn draw(&self, picture: &mut Canvas<'_>) -> opencv::Result<()> {
        self.before.iter().chain(&self.now).try_for_each(|outline| hide(picture, outline))
    }
}

fn is_marked(detection: &Detection) -> bool {
    matches!(detection.attributes.get(KEY), Some(Attribute::Text(value)) if value == VALUE)
}

fn outline(detection: &Detection) -> Outline {
    if !detection.polygon.is_empty() {
        return detection.polygon.clone();
    }
    let [x, y, w, h] = detection.bbox;
    let ([left, right], [top, bottom]) = (grown(x, w), grown(y, h));
    vec![[left, top], [right, top], [right, bottom], [left, bottom]]
}

fn grown(from: f32, length: f32) -> [f32; 2] {
    [from - length * MARGIN, from + length * (1.0 + MARGIN)]
}

fn hide(picture: &mut Canvas<'_>, outline: &[[f32; 2]]) -> opencv::Result<()> {
    let (width, height) = (picture.cols(), picture.rows());
    let pixel = |share: f32, side: i32| (share * side as f32).round() as i32;
    let points: Vector<Point> = outline.iter().map(|[x, y]| Point::new(pixel(*x, width), pixel(*y, height))).collect();
    let bounds = imgproc::bounding_rect(&points)? & Rect::new(0, 0, width, height);
    if bounds.width <= 0 || bounds.height <= 0 {
        return Ok(());
    }
    let mut part = Mat::roi_mut(picture, bounds)?;
    let (mut few, mut hidden) = (Mat::default(), Mat::default());
    let colours = Size::new(bounds.width.min(COLOURS), bounds.height.min(COLOURS));
    imgproc::resize(&part, &mut few, colours, 0.0, 0.0, imgproc::INTER_AREA)?;
    imgproc::resize(&few, &mut hidden, bounds.size(), 0.0, 0.0, imgproc::INTER_LINEAR)?;
    let mut inside = Mat::new_size_with_default(bounds.size(), CV_8UC1, Scalar::all(0.0))?;
    let corner = Point::new(-bounds.x, -bounds.y);
    imgproc::fill_poly(&mut inside, &points, Scalar::all(255.0), imgproc::LINE_8, 0, corner)?;
    hidden.copy_to_masked(&mut part, &inside)
}

#[cfg(test)]
mod tests {
    use ffmpeg_next::format::Pixel;

    use super::*;
    use crate::{
        image::{BGR_PIXEL, Image},
        resize::drawable,
    };

    const WIDTH: usize = 320;
    const HEIGHT: usize = 200;

    /// A chessboard with fields of one pixel.
    fn chessboard() -> Image {
        let mut image = Image::default();
        image.reset(Pixel::BGR24, WIDTH as u32, HEIGHT as u32).unwrap();
        let stride = image.0.stride(0);
        for (y, row) in image.0.data_mut(0).chunks_mut(stride).enumerate() {
            for (x, pixel) in row[..WIDTH * BGR_PIXEL].chunks_exact_mut(BGR_PIXEL).enumerate() {
                pixel.fill(if (x + y) % 2 == 0 { 255 } else { 0 });
            }
        }
        image
    }

    fn at(image: &Image, x: usize, y: usize) -> u8 {
        image.0.data(0)[y * image.0.stride(0) + x * BGR_PIXEL]
    }

    fn marked(bbox: [f32; 4]) -> Detection {
        let attributes = [(KEY.to_owned(), Attribute::Text(VALUE.to_owned()))].into();
        Detection { bbox, attributes, ..Detection::default() }
    }

    fn draw(image: &mut Image, detections: &[Detection]) {
        let mut hidden = Hidden::default();
        hidden.take(true, detections);
        hidden.draw(&mut drawable(image).unwrap()).unwrap();
    }

    #[test]
    fn what_is_marked_has_no_detail_and_the_rest_is_as_it_was() {
        let (mut image, before) = (chessboard(), chessboard());
        let triangle = Detection { polygon: vec![[0.6, 0.1], [0.9, 0.1], [0.6, 0.9]], ..marked([0.6, 0.1, 0.3, 0.8]) };
        let unmarked = Detection { bbox: [0.0, 0.8, 0.2, 0.2], ..Detection::default() };
        draw(&mut image, &[marked([0.1, 0.1, 0.3, 0.3]), triangle, unmarked]);
        // A box with its margin, and the half of another.
        let is_in_box = |x: usize, y: usize| (22..=138).contains(&x) && (14..=86).contains(&y);
        let is_in_triangle = |x: f32, y: f32| x > 0.6 && y > 0.1 && (x - 0.6) / 0.3 + (y - 0.1) / 0.8 < 1.0;
        let is_near = |x: f32, y: f32| x > 0.59 && y > 0.09 && (x - 0.6) / 0.3 + (y - 0.1) / 0.8 < 1.03;
        let mut count = 0;
        for (x, y) in (1..WIDTH).flat_map(|x| (1..HEIGHT).map(move |y| (x, y))) {
            let (fx, fy) = (x as f32 / WIDTH as f32, y as f32 / HEIGHT as f32);
            if (25..137).contains(&x) && (16..85).contains(&y)
                || is_in_triangle(fx, fy) && is_in_triangle(fx - 0.01, fy - 0.01)
            {
                // A chessboard is grey where nothing of it is left.
                assert!((90..=165).contains(&at(&image, x, y)), "{x}, {y}: {}", at(&image, x, y));
                count += 1;
            } else if !is_in_box(x, y) && !is_near(fx, fy) {
                assert_eq!(at(&image, x, y), at(&before, x, y), "{x}, {y}");
            }
        }
        assert!(count > 10_000, "{count}");
    }

    #[test]
    fn what_lies_outside_of_the_picture_does_no_harm() {
        let mut image = chessboard();
        let outside = [[-0.5, -0.5, 0.2, 0.2], [0.95, 0.95, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0]];
        draw(&mut image, &outside.map(marked));
        assert!((90..=165).contains(&at(&image, WIDTH - 1, HEIGHT - 1)));
    }

    #[test]
    fn a_frame_that_nobody_looked_at_hides_what_the_one_before_hid() {
        let mut hidden = Hidden::default();
        let mut count = |was_seen, detections: &[Detection]| {
            hidden.take(was_seen, detections);
            hidden.before.len() + hidden.now.len()
        };
        let one = [marked([0.1, 0.1, 0.3, 0.3])];
        let counts = [count(true, &one), count(false, &[]), count(false, &one), count(false, &[]), count(true, &[])];
        assert_eq!(counts, [1, 1, 2, 1, 0]);
    }
}
