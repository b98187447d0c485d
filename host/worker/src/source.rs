//! Where frames come from.
//!
//! Invariants: frames come in the order of presentation, with strictly increasing times that are
//! the same on every run of the same file. Whatever a file may be, opening it gives a source or a
//! [`SourceError`] that says what it is instead. What a decoder is and can do is known below here
//! only.

mod inspect;
mod libav;
mod opencv;
mod opencv_times;

use std::{io, path::Path};

use framehook_core::{
    artifact::VideoManifest,
    prediction::Position,
    reason::{Reason, ReasonCode},
};
use framehook_formats::cut::Cut;

use self::{libav::Libav, opencv::OpenCv};
use crate::{
    image::{Image, ImageError},
    selection::Selection,
};

/// Delivers the frames of one video, one after the other.
pub trait FrameSource: Send {
    /// What the container declares.
    fn info(&self) -> &VideoManifest;

    /// Goes on to the next frame; `None` at the end.
    ///
    /// # Errors
    /// When the source failed.
    fn advance(&mut self) -> Result<Option<Position>, SourceError>;

    /// Puts the picture of the frame that [`FrameSource::advance`] went to into `picture`; once a
    /// frame. A frame whose picture nobody asks for costs only its decoding.
    ///
    /// # Errors
    /// When the video is damaged, or changes in a way that cannot be followed.
    fn picture(&mut self, picture: &mut Image) -> Result<(), SourceError>;

    /// What a source that ended still owes, if its container declares more than came.
    ///
    /// # Errors
    /// When nothing came.
    fn check_end(&self) -> Result<Option<Missing>, SourceError>;

    /// Frames of a source that ended, those that were left as well.
    fn frames(&self) -> u64;

    /// Called before all others: frames that are not one of these need not come. Each that comes has
    /// the number and the picture that it has when all do.
    fn leave_all_but(&mut self, _selection: &Selection) {}

    /// Frames so far that were damaged: lost, or with a picture that is not what was recorded. A
    /// decoder that does not say so has none.
    fn damaged(&self) -> u64 {
        0
    }

    /// Where an MP4 file was cut off: what its boxes declare and no upload of a whole file lacks.
    fn cut(&self) -> Option<&Cut>;

    /// Goes to the first frame at or behind `from_us`, or to the first one of all if that is not
    /// found without decoding what lies before; each has the number that it has from the front.
    /// `go_on` as in [`FrameSource::resume`].
    ///
    /// # Errors
    /// When the source failed.
    fn begin_at(&mut self, _from_us: i64, _go_on: &mut dyn FnMut() -> bool) -> Result<Option<Position>, SourceError> {
        self.advance()
    }

    /// Goes on to the first frame behind `stored`, as in a run that was not interrupted. Gives up,
    /// with `None`, once `go_on` answers no; that is asked between frames.
    ///
    /// # Errors
    /// When the source failed.
    fn resume(&mut self, stored: Position, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Position>, SourceError> {
        pass_over(self, stored, &mut |_| go_on())
    }
}

/// Decodes from where `source` is to the first frame behind `stored`; `go_on` is asked at each before.
fn pass_over<S: FrameSource + ?Sized>(
    source: &mut S,
    stored: Position,
    go_on: &mut dyn FnMut(&S) -> bool,
) -> Result<Option<Position>, SourceError> {
    while let Some(position) = source.advance()? {
        // Times are compared, because they are the identity of a row.
        if position.pts_us > stored.pts_us {
            return Ok(Some(position));
        }
        if !go_on(source) {
            break;
        }
    }
    Ok(None)
}

/// Opens a video file whose pictures have sides of at most so many pixels.
pub type Open = fn(&Path, u32) -> Result<Box<dyn FrameSource>, SourceError>;

/// With libav.
///
/// # Errors
/// When it is no video. A truncated one is opened: its frames are worth having.
pub fn open(path: &Path, max_side: u32) -> Result<Box<dyn FrameSource>, SourceError> {
    Ok(Box::new(Libav::open(path, max_side)?))
}

/// With OpenCV. Only what names this function is linked with the libraries of its decoder.
///
/// # Errors
/// As [`open`].
pub fn open_with_opencv(path: &Path, max_side: u32) -> Result<Box<dyn FrameSource>, SourceError> {
    Ok(Box::new(OpenCv::open(path, max_side)?))
}

/// By how much less came than the container declares.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("the video ended after {came} of {declared} frames: it is truncated or damaged")]
    Frames { came: u64, declared: u64 },
    #[error("the video ended after {came:.1} of {declared:.1} seconds: it is truncated or damaged")]
    Seconds { came: f64, declared: f64 },
    #[error("the video ended after {came} frames, because the file is truncated: its `{}` ends at byte {}, but the file has {} bytes", .cut.kind, .cut.needs, .cut.has)]
    Bytes { came: u64, cut: Cut },
}

/// Why a source gives no frames, or no more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the video file does not exist; check its path, or upload it again")]
    Missing,
    #[error("the video file cannot be read: {0}; check its permissions")]
    Unreadable(io::Error),
    #[error("the video path is a folder, not a file")]
    NotAFile,
    #[error("the video file is empty (0 bytes); get the whole file again")]
    Empty,
    #[error("the file is {}, not a video; give a video file, such as MP4 with H.264", inspect::image(.0))]
    Image(&'static str),
    #[error("the file is text, not a video; give a video file, such as MP4 with H.264")]
    Text,
    #[error(
        "the MP4 file has no `moov` box, so nothing says how to decode it: it was not recorded or copied to its end; repair it, or get the whole file again"
    )]
    NoMoov,
    #[error("the file is truncated: its `{}` ends at byte {}, but the file has {} bytes; get the whole file again", .0.kind, .0.needs, .0.has)]
    Truncated(Cut),
    #[error("the file has sound but no video track; give a file with a video track")]
    AudioOnly,
    #[error("the file has no video track; give a file with a video track")]
    NoVideoTrack,
    #[error(
        "the file cannot be opened as a video: it is {0}; taken are MP4, QuickTime, Matroska, WebM, AVI, MPEG-TS and others, see docs/media.md"
    )]
    Foreign(&'static str),
    #[error(
        "the file cannot be opened as a video: it is damaged, has no video track or is in a format that is not taken; taken are MP4, QuickTime, Matroska, WebM, AVI, MPEG-TS and others, see docs/media.md"
    )]
    NotAVideo,
    #[error("the video declares a picture of {width}x{height} pixels; it is damaged")]
    NoSize { width: i64, height: i64 },
    #[error(
        "the video has a picture of {width}x{height} pixels, but at most {most}x{most} are decoded (--max-picture-side); scale it down first"
    )]
    PictureTooLarge { width: u32, height: u32, most: u32 },
    #[error("not even the first frame could be decoded; the video is damaged, or its codec is not supported")]
    NoFrame,
    #[error("frame {frame} could not be decoded into a picture; the video is damaged")]
    NoPicture { frame: u64 },
    #[error("the picture changes from {from} to {to} at frame {frame}; convert the video to one size first")]
    SizeChanged { frame: u64, from: String, to: String },
    #[error("there is no memory for the next frame of the video")]
    NoMemory,
    #[error("the video is coded as {0}, which is not decoded here; see docs/media.md, or convert it to MP4 with H.264")]
    Codec(String),
    #[error("frame {frame} cannot be shown: {why}")]
    Unshown { frame: u64, why: ImageError },
    #[error("OpenCV failed: {0}")]
    OpenCv(#[from] ::opencv::Error),
}

impl SourceError {
    /// A stable code for an upload's verdict.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "not_found",
            Self::Unreadable(_) | Self::NotAFile => "unreadable",
            Self::Empty => "empty_file",
            Self::Image(_) => "image_not_video",
            Self::Text | Self::Foreign(_) | Self::NotAVideo => "not_a_video",
            Self::NoMoov => "no_moov",
            Self::Truncated(_) => "truncated",
            Self::AudioOnly | Self::NoVideoTrack => "no_video_track",
            Self::NoSize { .. } => "no_picture_size",
            Self::PictureTooLarge { .. } => "picture_too_large",
            Self::NoFrame
            | Self::NoPicture { .. }
            | Self::SizeChanged { .. }
            | Self::NoMemory
            | Self::Codec(_)
            | Self::Unshown { .. }
            | Self::OpenCv(_) => "not_decodable",
        }
    }

    /// The same as the reason of a scenario.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let code = match self {
            Self::Missing | Self::Unreadable(_) | Self::NotAFile => ReasonCode::SourceUnreachable,
            Self::NoMemory | Self::Unshown { why: ImageError::NoMemory, .. } => ReasonCode::OutOfMemory,
            _ => ReasonCode::DecodeError,
        };
        Reason::new(code, self.to_string())
    }
}

fn check_size(width: u32, height: u32, most: u32) -> Result<(), SourceError> {
    if width.max(height) > most { Err(SourceError::PictureTooLarge { width, height, most }) } else { Ok(()) }
}

fn positive(n: i64) -> Option<u32> {
    u32::try_from(n).ok().filter(|n| *n > 0)
}
