//! Draws predictions on their video, for people to look at.
//!
//! Invariants: a frame and its prediction meet by frame number; a frame without one has no drawing. What
//! hooks marked as private is hidden before anything is drawn.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::BufRead,
    iter::repeat_n,
    path::Path,
};

use framehook_core::{
    job::DEFAULT_PICTURE_SIDE,
    prediction::{Detection, Event, Mask, Position, Prediction},
};
use opencv::{
    core::{Point, Rect, Scalar, Vector},
    imgproc,
    prelude::*,
};

use crate::{
    hide::Hidden,
    image::{Converter, Image, ImageError},
    resize::{self, Canvas},
    source::{self, SourceError},
    video_writer::VideoWriter,
};

/// Why no annotated video could be made.
#[derive(Debug, thiserror::Error)]
pub enum AnnotateError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the predictions cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error(
        "line {line} of the predictions is no prediction: {why}; give what `GET /prediction/{{id}}` answers as application/x-ndjson"
    )]
    NotAPrediction { line: usize, why: serde_json::Error },
    #[error(
        "the annotated video cannot be written: {0}; its disk must have room, and FFmpeg an H.264 or MPEG-4 encoder"
    )]
    NotWritable(#[from] ffmpeg_next::Error),
    #[error("a frame cannot be shown: {0}")]
    Image(#[from] ImageError),
    #[error("OpenCV failed: {0}")]
    OpenCv(#[from] opencv::Error),
}

/// Writes an MP4 video into `out`, an empty file, calling `progress` with the frames written and declared.
/// Its frames have the times of those in `video`; it has the size of the first.
///
/// # Errors
/// When one of the three files cannot be used.
pub fn annotate(
    video: &Path,
    predictions: impl BufRead,
    beside: Option<impl BufRead>,
    out: File,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<u64, AnnotateError> {
    let mut sides = vec![Side::new(predictions, if beside.is_some() { "before" } else { "" })?];
    sides.extend(beside.map(|beside| Side::new(beside, "after")).transpose()?);
    let mut source = source::open(video, DEFAULT_PICTURE_SIDE)?;
    let (fps, declared) = (source.info().fps, source.info().frames);
    let (mut image, mut converter, mut both) = (Image::default(), Converter::default(), Image::default());
    let mut writer = None;
    let mut written = 0;
    while let Some(Position { pts_us, frame }) = source.advance()? {
        source.picture(&mut image)?;
        for side in &mut sides {
            converter.to_bgr(&image, &mut side.picture)?;
            side.draw(frame, pts_us)?;
        }
        let picture = match &sides[..] {
            [left, right] => {
                both.put_side_by_side(&left.picture, &right.picture)?;
                &both
            }
            _ => &sides[0].picture,
        };
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(VideoWriter::new(&out, picture.width(), picture.height(), fps)?),
        };
        writer.write(picture, pts_us)?;
        written += 1;
        progress(written, declared);
    }
    writer.map_or(Ok(()), VideoWriter::finish)?;
    Ok(written)
}

/// One set of predictions, and the picture that they are drawn on.
struct Side {
    predictions: BTreeMap<u64, Prediction>,
    /// What stands in the corner of the picture; empty: nothing.
    name: &'static str,
    picture: Image,
    captions: Captions,
    hidden: Hidden,
}

impl Side {
    fn new(predictions: impl BufRead, name: &'static str) -> Result<Self, AnnotateError> {
        let predictions = read_predictions(predictions)?;
        let (picture, captions, hidden) = (Image::default(), Captions::default(), Hidden::default());
        Ok(Self { predictions, name, picture, captions, hidden })
    }

    fn draw(&mut self, frame: u64, pts_us: i64) -> Result<(), AnnotateError> {
        let prediction = self.predictions.remove(&frame);
        self.captions.add(prediction.as_ref());
        self.hidden.follow(prediction.as_ref());
        let mut canvas = resize::drawable(&mut self.picture)?;
        self.hidden.draw(&mut canvas)?;
        draw(&mut canvas, prediction.as_ref(), &self.captions, frame, pts_us)?;
        if !self.name.is_empty() {
            let at = Point::new(canvas.cols() - 8 * self.name.len() as i32 - 4, 12);
            write(&mut canvas, self.name, at, YELLOW)?;
        }
        Ok(())
    }
}

fn read_predictions(lines: impl BufRead) -> Result<BTreeMap<u64, Prediction>, AnnotateError> {
    let mut predictions = BTreeMap::new();
    for (index, line) in lines.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let prediction: Prediction =
            serde_json::from_str(&line).map_err(|why| AnnotateError::NotAPrediction { line: index + 1, why })?;
        predictions.insert(prediction.frame, prediction);
    }
    Ok(predictions)
}

/// Events stay readable for a second at 25 frames a second.
const CAPTION_FRAMES: u32 = 25;
/// More lines than this would cover the picture.
const CAPTION_LINES: usize = 4;

/// The newest events, as lines at the bottom.
#[derive(Default)]
struct Captions(VecDeque<(String, u32)>);

impl Captions {
    fn add(&mut self, prediction: Option<&Prediction>) {
        for (_, age) in &mut self.0 {
            *age += 1;
        }
        self.0.retain(|(_, age)| *age < CAPTION_FRAMES);
        let events = prediction.iter().flat_map(|p| p.events.iter().map(|event| caption(event, &p.detections)));
        self.0.extend(events.map(|line| (line, 0)));
        let surplus = self.0.len().saturating_sub(CAPTION_LINES);
        self.0.drain(..surplus);
    }
}

/// `line_crossed car #7 direction=left`
fn caption(event: &Event, detections: &[Detection]) -> String {
    let subjects = event.subjects.iter().filter_map(|index| detections.get(*index as usize)).map(title);
    let attributes = event.attributes.iter().map(|(key, value)| format!("{key}={value}"));
    std::iter::once(event.kind.clone()).chain(subjects).chain(attributes).collect::<Vec<_>>().join(" ")
}

/// `car #7`
fn title(detection: &Detection) -> String {
    let class = detection.label.clone().unwrap_or_else(|| format!("class {}", detection.class_id));
    match detection.track_id {
        Some(track) => format!("{class} #{track}"),
        None => class,
    }
}

fn draw(
    picture: &mut Canvas<'_>,
    prediction: Option<&Prediction>,
    captions: &Captions,
    frame: u64,
    pts_us: i64,
) -> opencv::Result<()> {
    for detection in prediction.iter().flat_map(|p| &p.detections) {
        draw_detection(picture, detection)?;
    }
    let mut status = format!("frame {frame}  {:.2} s", pts_us as f64 / 1e6);
    if let Some(skipped) = prediction.and_then(|p| p.skipped.as_ref()) {
        status += &format!("  skipped by {}", skipped.by);
    }
    write(picture, &status, Point::new(4, 12), WHITE)?;
    for (line, (text, _)) in (0..).zip(captions.0.iter().rev()) {
        write(picture, text, Point::new(4, picture.rows() - 6 - 14 * line), YELLOW)?;
    }
    Ok(())
}

fn draw_detection(picture: &mut Canvas<'_>, detection: &Detection) -> opencv::Result<()> {
    let (width, height) = (picture.cols() as f32, picture.rows() as f32);
    let [x, y, w, h] = detection.bbox;
    let pixel = |v: f32, side: f32| (v * side).round() as i32;
    let frame = Rect::new(pixel(x, width), pixel(y, height), pixel(w, width), pixel(h, height));
    let colour = COLOURS[detection.class_id as usize % COLOURS.len()];
    imgproc::rectangle(picture, frame, colour, 2, imgproc::LINE_8, 0)?;
    let point = |[x, y]: &[f32; 2]| Point::new(pixel(*x, width), pixel(*y, height));
    if !detection.polygon.is_empty() {
        let outline: Vector<Point> = detection.polygon.iter().map(point).collect();
        imgproc::polylines(picture, &outline, true, colour, 1, imgproc::LINE_AA, 0)?;
    }
    if let Some(mask) = &detection.mask {
        tint(picture, frame, mask, colour)?;
    }
    for centre in detection.keypoints.iter().map(point) {
        imgproc::circle(picture, centre, 2, colour, imgproc::FILLED, imgproc::LINE_AA, 0)?;
    }
    let text = format!("{} {:.2}", title(detection), detection.score);
    // Above the box, or inside where it touches the upper edge.
    let baseline = if frame.y > 14 { frame.y - 4 } else { frame.y + 12 };
    write(picture, &text, Point::new(frame.x.max(2), baseline), colour)
}

/// Colours every other pixel of what a mask has inside, in both directions, so that the object can still be
/// seen.
fn tint(picture: &mut Canvas<'_>, frame: Rect, mask: &Mask, colour: Scalar) -> opencv::Result<()> {
    let [columns, rows] = mask.grid.map(|side| side as usize);
    let runs = mask.runs.iter().zip([false, true].into_iter().cycle());
    let cells: Vec<bool> = runs.flat_map(|(run, is_inside)| repeat_n(is_inside, *run as usize)).collect();
    for (y, x) in (0..frame.height).step_by(2).flat_map(|y| (0..frame.width).step_by(2).map(move |x| (y, x))) {
        let cell = |at: i32, side: i32, cells: usize| at as usize * cells / side as usize;
        let is_inside = cells.get(cell(y, frame.height, rows) * columns + cell(x, frame.width, columns));
        let (x, y) = (frame.x + x, frame.y + y);
        if is_inside == Some(&true) && (0..picture.cols()).contains(&x) && (0..picture.rows()).contains(&y) {
            imgproc::line(picture, Point::new(x, y), Point::new(x, y), colour, 1, imgproc::LINE_8, 0)?;
        }
    }
    Ok(())
}

/// A letter is some 7 pixels wide, so that a picture of 8,192 pixels shows no more.
const LONGEST_TEXT: usize = 1_200;

/// Small text with a dark rim, readable on any ground. Hershey fonts have ASCII only.
pub(crate) fn write(picture: &mut Canvas<'_>, text: &str, at: Point, colour: Scalar) -> opencv::Result<()> {
    // Letters beside the picture take time as well.
    let text: String = text.chars().take(LONGEST_TEXT).map(|c| if c.is_ascii() { c } else { '?' }).collect();
    for (colour, thickness) in [(BLACK, 3), (colour, 1)] {
        imgproc::put_text(
            picture,
            &text,
            at,
            imgproc::FONT_HERSHEY_SIMPLEX,
            0.4,
            colour,
            thickness,
            imgproc::LINE_AA,
            false,
        )?;
    }
    Ok(())
}

const fn bgr(blue: u8, green: u8, red: u8) -> Scalar {
    opencv::core::VecN([blue as f64, green as f64, red as f64, 0.0])
}

const BLACK: Scalar = bgr(0, 0, 0);
pub(crate) const WHITE: Scalar = bgr(255, 255, 255);
const YELLOW: Scalar = bgr(0, 255, 255);
/// One a class, far apart for eyes of every kind (Okabe and Ito, 2008).
const COLOURS: [Scalar; 7] = [
    bgr(0, 159, 230),
    bgr(233, 180, 86),
    bgr(115, 158, 0),
    bgr(66, 228, 240),
    bgr(178, 114, 0),
    bgr(0, 94, 213),
    bgr(167, 121, 204),
];

#[cfg(test)]
mod tests {
    use framehook_core::prediction::{Attribute, Severity};

    use super::*;

    #[test]
    fn captions_name_the_subjects() {
        let car = Detection { label: Some("car".into()), track_id: Some(7), ..Detection::default() };
        let event = Event {
            kind: "line_crossed".into(),
            severity: Severity::Info,
            subjects: vec![0, 9],
            attributes: [("direction".to_owned(), Attribute::Text("left".to_owned()))].into(),
            episode: None,
        };
        assert_eq!(caption(&event, &[car]), "line_crossed car #7 direction=left");
        assert_eq!(title(&Detection { class_id: 3, ..Detection::default() }), "class 3");
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = read_predictions(&b"\n{\"frame\": 1}\n"[..]).unwrap_err();
        assert!(error.to_string().starts_with("line 2 "), "{error}");
    }
}
