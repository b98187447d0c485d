//! Where frames come from.
//!
//! Invariants: frames come in the order of presentation, with strictly increasing times that are
//! the same on every run of the same file. A file is opened through FFmpeg only: OpenCV would
//! otherwise read what FFmpeg refuses as a GStreamer pipeline. Whatever a file may be, opening it
//! gives a source or a [`SourceError`] that says what it is instead.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use framehook_core::{
    artifact::VideoManifest,
    prediction::Position,
    reason::{Reason, ReasonCode},
};
use framehook_formats::isobmff::{self, Cut, Outline};
use opencv::{
    core::{CV_8UC3, Mat},
    prelude::*,
    videoio::{self, VideoCapture},
};

use crate::{process, timestamps::TimestampGuard};

/// Delivers the frames of one video, one after the other.
pub trait FrameSource: Send {
    /// What the container declares.
    fn info(&self) -> &VideoManifest;

    /// Goes on to the next frame; `None` at the end.
    ///
    /// # Errors
    /// When the source failed.
    fn advance(&mut self) -> Result<Option<Position>, SourceError>;

    /// Puts the picture of the frame that [`FrameSource::advance`] went to into `picture`, as
    /// 8-bit BGR. A frame whose picture nobody asks for costs only its decoding.
    ///
    /// # Errors
    /// When the video is damaged, or changes in a way that cannot be followed.
    fn picture(&mut self, picture: &mut Mat) -> Result<(), SourceError>;

    /// Whether a source that ended was really at its end.
    ///
    /// # Errors
    /// When less came than was declared.
    fn check_end(&self) -> Result<(), SourceError>;
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
    #[error("the video file is empty (0 bytes); upload it again")]
    Empty,
    #[error("the file is a {0} image, not a video; give a video file, such as MP4 with H.264")]
    Image(&'static str),
    #[error("the file is text, not a video; give a video file, such as MP4 with H.264")]
    Text,
    #[error(
        "the MP4 file has no `moov` box, so nothing says how to decode it: the recording or the upload was not finished; repair it or upload it again"
    )]
    NoMoov,
    #[error("the MP4 file is truncated: its `{}` box ends at byte {}, but the file has {} bytes; upload it again", .0.kind, .0.needs, .0.has)]
    Truncated(Cut),
    #[error("the file has sound but no video track; give a file with a video track")]
    AudioOnly,
    #[error("the file has no video track; give a file with a video track")]
    NoVideoTrack,
    #[error(
        "the file cannot be opened as a video: it is damaged, has no video track or is in no format that FFmpeg decodes; try converting it to MP4 with H.264"
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
    #[error("the video ended after {came} of {declared} frames: truncated or damaged; the predictions so far are kept")]
    EndedEarly { came: u64, declared: u64 },
    #[error(
        "the video ended after {came:.1} of {declared:.1} seconds: truncated or damaged; the predictions so far are kept"
    )]
    EndedShort { came: f64, declared: f64 },
    #[error("OpenCV failed: {0}")]
    OpenCv(#[from] opencv::Error),
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
            Self::Text | Self::NotAVideo => "not_a_video",
            Self::NoMoov => "no_moov",
            Self::Truncated(_) | Self::EndedEarly { .. } | Self::EndedShort { .. } => "truncated",
            Self::AudioOnly | Self::NoVideoTrack => "no_video_track",
            Self::NoSize { .. } => "no_picture_size",
            Self::PictureTooLarge { .. } => "picture_too_large",
            Self::NoFrame | Self::NoPicture { .. } | Self::SizeChanged { .. } | Self::OpenCv(_) => "not_decodable",
        }
    }

    /// The same as the reason of a scenario.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let code = match self {
            Self::Missing | Self::Unreadable(_) | Self::NotAFile => ReasonCode::SourceUnreachable,
            _ => ReasonCode::DecodeError,
        };
        Reason::new(code, self.to_string())
    }
}

/// A video file, decoded by FFmpeg through OpenCV.
pub struct VideoFile {
    capture: VideoCapture,
    info: VideoManifest,
    outline: Option<Outline>,
    /// The length of the longest track, in seconds.
    duration: Option<f64>,
    guard: TimestampGuard,
    /// Frames grabbed so far.
    count: u64,
    last_pts_us: i64,
    /// Size of the first picture.
    size: Option<(i32, i32)>,
    max_side: u32,
}

impl VideoFile {
    /// Opens a file whose pictures have sides of at most `max_side` pixels.
    ///
    /// # Errors
    /// When it is no video. A truncated one is opened: its frames are worth having.
    pub fn open(path: &Path, max_side: u32) -> Result<Self, SourceError> {
        let outline = inspect(path)?;
        // Before FFmpeg, which decodes a picture while it opens the file.
        if let Some([width, height]) = outline.as_ref().and_then(|outline| outline.picture) {
            check_size(width, height, max_side)?;
        }
        process::limit_ffmpeg(max_side);
        // Absolute, so that FFmpeg cannot read the name as a protocol or a pattern's address.
        let path = path.canonicalize().map_err(SourceError::Unreadable)?;
        let name = path.to_str().ok_or(SourceError::NotAVideo)?;
        let capture = VideoCapture::from_file(name, videoio::CAP_FFMPEG)?;
        if !capture.is_opened()? {
            // What is missing may be what FFmpeg needs to open it.
            let cut = outline.and_then(|outline| outline.cut);
            return Err(cut.map_or(SourceError::NotAVideo, SourceError::Truncated));
        }
        let whole = |property| -> Result<i64, opencv::Error> { Ok(capture.get(property)? as i64) };
        let (width, height) = (whole(videoio::CAP_PROP_FRAME_WIDTH)?, whole(videoio::CAP_PROP_FRAME_HEIGHT)?);
        let (Some(w), Some(h)) = (positive(width), positive(height)) else {
            return Err(SourceError::NoSize { width, height });
        };
        check_size(w, h, max_side)?;
        let fps = Some(capture.get(videoio::CAP_PROP_FPS)?).filter(|fps| fps.is_finite() && *fps > 0.0);
        let fps = fps.unwrap_or_default();
        let count = whole(videoio::CAP_PROP_FRAME_COUNT)?;
        let frames = plausible_count(count, fps, outline.as_ref());
        // Where no count is declared, OpenCV multiplies duration and rate: this undoes it.
        let estimated = Some(count as f64 / fps).filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        let duration = outline.as_ref().and_then(|outline| outline.duration).or(estimated);
        let info = VideoManifest { width: w, height: h, fps, frames };
        let guard = TimestampGuard::new(fps);
        Ok(Self { capture, info, outline, duration, guard, count: 0, last_pts_us: 0, size: None, max_side })
    }

    /// Where the file was cut off, if its boxes say so.
    #[must_use]
    pub fn cut(&self) -> Option<&Cut> {
        self.outline.as_ref()?.cut.as_ref()
    }

    fn check_picture(&mut self, picture: &Mat, frame: u64) -> Result<(), SourceError> {
        if picture.empty() || picture.typ() != CV_8UC3 {
            return Err(SourceError::NoPicture { frame });
        }
        let now = (picture.cols(), picture.rows());
        check_size(now.0.cast_unsigned(), now.1.cast_unsigned(), self.max_side)?;
        let first = *self.size.get_or_insert(now);
        if now != first {
            let text = |(w, h): (i32, i32)| format!("{w}x{h}");
            return Err(SourceError::SizeChanged { frame, from: text(first), to: text(now) });
        }
        Ok(())
    }
}

impl FrameSource for VideoFile {
    fn info(&self) -> &VideoManifest {
        &self.info
    }

    fn advance(&mut self) -> Result<Option<Position>, SourceError> {
        if !self.capture.grab()? {
            return Ok(None);
        }
        let pts_us = self.guard.next(self.capture.get(videoio::CAP_PROP_POS_MSEC)?);
        let frame = self.count;
        self.count += 1;
        self.last_pts_us = pts_us;
        Ok(Some(Position { pts_us, frame }))
    }

    fn picture(&mut self, picture: &mut Mat) -> Result<(), SourceError> {
        let frame = self.count.saturating_sub(1);
        if !self.capture.retrieve_def(picture)? {
            return Err(SourceError::NoPicture { frame });
        }
        self.check_picture(picture, frame)
    }

    fn check_end(&self) -> Result<(), SourceError> {
        if self.count == 0 {
            return Err(SourceError::NoFrame);
        }
        let came = self.last_pts_us as f64 / 1e6;
        let is_short = |least: f64| self.duration.is_none_or(|duration| came < duration * least);
        let counted = self.outline.as_ref().is_some_and(|outline| !outline.fragmented);
        match (self.info.frames, self.duration) {
            // An edit list may drop frames that are declared; then the time is full, though the count is not.
            (Some(declared), _) if counted && self.count < fewest_frames(declared) && is_short(COMPLETE) => {
                Err(SourceError::EndedEarly { came: self.count, declared })
            }
            (_, Some(declared)) if !counted && is_short(LONG_ENOUGH) && declared - came > TOLERANCE => {
                Err(SourceError::EndedShort { came, declared })
            }
            _ => Ok(()),
        }
    }
}

/// Encoders and muxers disagree about the last frames; more than 5 % missing is damage.
const COMPLETE: f64 = 0.95;

/// Where only a duration is declared, it is that of the longest track: sound may go on for a while.
const LONG_ENOUGH: f64 = 0.9;
/// Seconds; the last frame of a short clip is shown for a part of it.
const TOLERANCE: f64 = 1.0;

/// With how many frames a video that declares so many counts as whole. A short one may miss two.
fn fewest_frames(declared: u64) -> u64 {
    let most = (declared as f64 * COMPLETE).ceil() as u64;
    most.min(declared.saturating_sub(2))
}

fn check_size(width: u32, height: u32, most: u32) -> Result<(), SourceError> {
    if width.max(height) > most { Err(SourceError::PictureTooLarge { width, height, most }) } else { Ok(()) }
}

fn positive(n: i64) -> Option<u32> {
    u32::try_from(n).ok().filter(|n| *n > 0)
}

/// MP4 declares its count of frames. For other containers OpenCV multiplies duration and rate,
/// which is nonsense where the rate is a time base: beyond 240 a second nobody films by accident.
fn plausible_count(count: i64, fps: f64, outline: Option<&Outline>) -> Option<u64> {
    let declared = outline.is_some_and(|outline| !outline.fragmented);
    let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
    (declared || (fps > 0.0 && fps <= 240.0)).then_some(count)
}

/// Long enough for every signature, and for telling text from a container.
const HEAD: u64 = 4096;

/// Looks at the file itself, before any decoder does.
fn inspect(path: &Path) -> Result<Option<Outline>, SourceError> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SourceError::Missing,
        _ => SourceError::Unreadable(error),
    })?;
    let metadata = file.metadata().map_err(SourceError::Unreadable)?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile);
    }
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head).map_err(SourceError::Unreadable)?;
    if head.is_empty() {
        return Err(SourceError::Empty);
    }
    if let Some(format) = image_format(&head) {
        return Err(SourceError::Image(format));
    }
    if is_text(&head) {
        return Err(SourceError::Text);
    }
    let outline = isobmff::read(&mut file).map_err(SourceError::Unreadable)?;
    match &outline {
        Some(o) if !o.has_moov => match o.cut.clone() {
            // `moov` may lie behind what is missing.
            Some(cut) => Err(SourceError::Truncated(cut)),
            None => Err(SourceError::NoMoov),
        },
        // A cut `moov` may have lost the track.
        Some(o) if !o.has_video && o.cut.is_none() => {
            Err(if o.has_audio { SourceError::AudioOnly } else { SourceError::NoVideoTrack })
        }
        _ => Ok(outline),
    }
}

/// FFmpeg opens a still image as a video of one frame, which nobody means.
fn image_format(head: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 7] = [
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
    ];
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some("WebP");
    }
    SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)).map(|(_, format)| *format)
}

/// A playlist is text too: FFmpeg would follow what it names, so it must never get one.
fn is_text(head: &[u8]) -> bool {
    let printable = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e) || *b >= 0x80;
    // A multi-byte character may be cut at the end of `head`.
    let utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    utf8 && head.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_videos_may_miss_two_frames_and_long_ones_five_percent() {
        for (declared, fewest) in [(1, 0), (2, 0), (3, 1), (10, 8), (40, 38), (100, 95), (500, 475)] {
            assert_eq!(fewest_frames(declared), fewest, "{declared}");
        }
    }

    #[test]
    fn a_time_base_is_no_frame_rate() {
        let mp4 = Outline { has_moov: true, ..Outline::default() };
        assert_eq!(plausible_count(500, 25.0, None), Some(500));
        assert_eq!(plausible_count(20_000, 1000.0, None), None);
        assert_eq!(plausible_count(20_000, 1000.0, Some(&mp4)), Some(20_000));
        assert_eq!(plausible_count(-1, 25.0, Some(&mp4)), None);
        assert_eq!(plausible_count(0, 25.0, None), None);
    }

    #[test]
    fn text_and_images_are_recognised() {
        assert!(is_text(b"#EXTM3U\nhttp://example.org/a.ts\n") && is_text("grüße".as_bytes()));
        assert!(is_text(&"ü".as_bytes()[..1]));
        assert!(!is_text(b"\0\0\0\x20ftypisom") && !is_text(&[0xff, 0xfe, 0x41]));
        assert_eq!(image_format(b"\xff\xd8\xff\xe0rest"), Some("JPEG"));
        assert_eq!(image_format(b"RIFF\0\0\0\0WEBPVP8 "), Some("WebP"));
        assert_eq!(image_format(b"RIFF\0\0\0\0AVI LIST"), None);
    }
}
