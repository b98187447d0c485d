//! A picture for people of what a model's input looks like: on the left a frame, on the right what
//! the model gets.
//!
//! Invariant: the right side is made of the tensor itself, by the code that makes it for a model.
//! Its planes are shown as red, green and blue in their order, and its values as 0 to 255 by one
//! rule for all planes ([`InputSpec::range`]).

use std::path::Path;

use ffmpeg_next::{
    Error, Packet, Rational, codec, encoder, ffi,
    format::Pixel,
    frame,
    software::scaling::{self, Flags},
};
use framehook_core::{
    input::{Channels, Element, InputSpec, Layout},
    prediction::Position,
    probe::{Finding, MAX_PREVIEW_SIDE, NO_SUCH_FRAME},
};
use framehook_engine::media::{Region, Size};
use opencv::core::Point;

use crate::{
    annotate::{WHITE, write},
    feed,
    image::{BGR_PIXEL, Bgr, BgrCache, Image, ImageError},
    preprocess::Preprocessor,
    resize::{Method, Target, drawable, resize},
    source::{self, FrameSource, SourceError},
};

/// Pixels between the two pictures.
const GAP: u32 = 8;
/// Pixels of two lines of text below them.
const TEXT_HEIGHT: u32 = 34;
/// The lines have some 50 letters of 7 pixels.
const TEXT_WIDTH: u32 = 360;
/// On libav's scale from 2, the best, to 31: the picture is for looking at single pixels, too.
const QUALITY: i32 = 2;

#[derive(Debug, thiserror::Error)]
enum PreviewError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the video has no frame at {at_us} us or later; {last}")]
    NoFrame { at_us: i64, last: String },
    #[error("the frame cannot be shown: {0}")]
    Image(#[from] ImageError),
    #[error("the picture cannot be drawn: {0}")]
    OpenCv(#[from] opencv::Error),
    #[error("the picture cannot be written: {0}")]
    Encoder(#[from] Error),
}

/// A JPEG of the first frame at `at_us` or later, and of what `spec` makes of it.
///
/// # Errors
/// When there is no such frame, or it cannot be shown.
pub fn preview(video: &Path, at_us: i64, max_side: u32, spec: &InputSpec) -> Result<Vec<u8>, Finding> {
    draw(video, at_us, max_side, spec).map_err(|error| {
        let code = match &error {
            PreviewError::Source(error) => error.code(),
            PreviewError::NoFrame { .. } => NO_SUCH_FRAME,
            PreviewError::Image(_) | PreviewError::OpenCv(_) | PreviewError::Encoder(_) => "not_shown",
        };
        Finding::new(code, &error.to_string())
    })
}

fn draw(video: &Path, at_us: i64, max_side: u32, spec: &InputSpec) -> Result<Vec<u8>, PreviewError> {
    let mut source = source::open(video, max_side)?;
    let position = go_to(&mut *source, at_us)?;
    let mut image = Image::default();
    source.picture(&mut image)?;
    let (mut cache, mut tensor) = (BgrCache::default(), Vec::new());
    Preprocessor::new(spec, image.width(), image.height()).fill_whole(&image, &mut cache, &mut tensor)?;
    tensor.iter_mut().for_each(|value| *value = feed::rounded(spec.element, *value));
    let pixels = shown(spec, &tensor);
    let (stride, width, height) = (spec.width as usize * BGR_PIXEL, spec.width, spec.height);
    let input = Bgr { data: &pixels, stride, width, height };
    let text = [about_frame(position, &image), about_tensor(spec, &tensor)];
    Ok(jpeg(&side_by_side(cache.get(&image)?, input, &text)?)?)
}

fn go_to(source: &mut dyn FrameSource, at_us: i64) -> Result<Position, PreviewError> {
    let (mut last, mut next) = (None, source.begin_at(at_us, &mut || true)?);
    while let Some(position) = next {
        if position.pts_us >= at_us {
            return Ok(position);
        }
        last = Some(position.pts_us);
        next = source.advance()?;
    }
    let last = last.map_or("it has none at all".to_owned(), |last| format!("its last one is at {last} us"));
    Err(PreviewError::NoFrame { at_us, last })
}

/// BGR pixels of a tensor of planes.
fn shown(spec: &InputSpec, tensor: &[f32]) -> Vec<u8> {
    let [low, high] = spec.range();
    let byte = |value: f32| ((value - low) / (high - low) * 255.0).round() as u8;
    let plane = spec.width as usize * spec.height as usize;
    // Grey has one plane for all three; a fourth one, which is the same everywhere, is not shown.
    let planes = if spec.planes == 1 { [0, 0, 0] } else { [2, 1, 0] };
    (0..plane).flat_map(|at| planes.map(|number| byte(tensor[number * plane + at]))).collect()
}

fn about_frame(Position { frame, pts_us }: Position, image: &Image) -> String {
    format!("frame {frame} at {pts_us} us, {}x{}", image.width(), image.height())
}

/// Its form, and the values that it really has.
fn about_tensor(spec: &InputSpec, tensor: &[f32]) -> String {
    let element = match spec.element {
        Element::Float32 => "float32",
        Element::Float16 => "float16",
        Element::Uint8 => "uint8",
        Element::Int8 => "int8",
    };
    let layout = if spec.layout == Layout::Nchw { "nchw" } else { "nhwc" };
    let channels = match (spec.planes, spec.channels) {
        (1, _) => "grey",
        (_, Channels::Rgb) => "rgb",
        (_, Channels::Bgr) => "bgr",
    };
    let [low, high] = tensor.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[a, b], v| [a.min(*v), b.max(*v)]);
    format!("{element} {layout} {channels} {}x{}, values {low:.3} to {high:.3}", spec.width, spec.height)
}

/// The frame as high as the input, then the input, then the text.
fn side_by_side(frame: Bgr<'_>, input: Bgr<'_>, text: &[String; 2]) -> Result<Image, PreviewError> {
    let right = within(input, Size { width: MAX_PREVIEW_SIDE, height: MAX_PREVIEW_SIDE });
    let left = within(frame, Size { width: MAX_PREVIEW_SIDE, height: right.height });
    let (width, height) = (left.width + GAP + right.width, right.height + TEXT_HEIGHT);
    let mut canvas = Image::default();
    canvas.reset(Pixel::BGR24, width.max(TEXT_WIDTH), height)?;
    let stride = canvas.0.stride(0);
    canvas.0.data_mut(0).fill(0);
    for (picture, size, x) in [(frame, left, 0), (input, right, left.width + GAP)] {
        let whole = Region { x: 0, y: 0, width: picture.width, height: picture.height };
        let method = if size.width <= picture.width { Method::Area } else { Method::Linear };
        let data = &mut canvas.0.data_mut(0)[x as usize * BGR_PIXEL..];
        resize(picture, whole, Target { data, stride, size }, method)?;
    }
    let mut drawing = drawable(&mut canvas)?;
    for (line, text) in (0..).zip(text) {
        write(&mut drawing, text, Point::new(2, right.height.cast_signed() + 13 + 15 * line), WHITE)?;
    }
    drop(drawing);
    Ok(canvas)
}

/// The largest size with the sides of `picture` that fits into `most`; an input that fits stays as
/// it is.
fn within(picture: Bgr<'_>, most: Size) -> Size {
    let [width, height] = [picture.width, picture.height].map(f64::from);
    let scale = (f64::from(most.width) / width).min(f64::from(most.height) / height).min(1.0);
    let side = |side: f64| ((side * scale).round() as u32).max(1);
    Size { width: side(width), height: side(height) }
}

fn jpeg(bgr: &Image) -> Result<Vec<u8>, Error> {
    let (width, height) = (bgr.width(), bgr.height());
    // With colours as sharp as brightness.
    let format = Pixel::YUVJ444P;
    let found = encoder::find(codec::Id::MJPEG).ok_or(Error::EncoderNotFound)?;
    let mut picture = codec::context::Context::new_with_codec(found).encoder().video()?;
    picture.set_width(width);
    picture.set_height(height);
    picture.set_format(format);
    picture.set_time_base(Rational(1, 1));
    picture.set_flags(codec::Flags::QSCALE);
    picture.set_global_quality(QUALITY * ffi::FF_QP2LAMBDA);
    let mut encoder = picture.open()?;
    let mut converted = frame::Video::new(format, width, height);
    scaling::Context::get(Pixel::BGR24, width, height, format, width, height, Flags::BICUBIC)?
        .run(&bgr.0, &mut converted)?;
    encoder.send_frame(&converted)?;
    encoder.send_eof()?;
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet)?;
    Ok(packet.data().unwrap_or_default().to_vec())
}
