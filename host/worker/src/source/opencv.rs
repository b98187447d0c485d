//! Decodes by FFmpeg through OpenCV 4.6, as releases before libav did.
//!
//! Invariants: a file is opened through FFmpeg only: OpenCV would otherwise read what FFmpeg
//! refuses as a GStreamer pipeline. Pictures are 8-bit BGR.
//!
//! It cannot say what the stream says: its times have a millisecond and follow a declared rate
//! where frames are flushed, a picture that changes its size is an error, and colours are those of
//! BT.601.

use std::path::Path;

use ffmpeg_next::format::Pixel;
use framehook_core::{artifact::VideoManifest, prediction::Position};
use framehook_formats::{cut::Cut, isobmff::Outline};
use opencv::{
    core::{CV_8UC3, Mat},
    prelude::*,
    videoio::{self, VideoCapture},
};

use super::{
    FrameSource, Missing, SourceError, check_size,
    inspect::{Inspected, inspect},
    opencv_times::TimestampGuard,
    positive,
};
use crate::{
    image::{BGR_PIXEL, Image},
    process,
};

/// A video file, decoded by FFmpeg through OpenCV.
pub(super) struct OpenCv {
    capture: VideoCapture,
    info: VideoManifest,
    outline: Option<Outline>,
    cut: Option<Cut>,
    /// The length of the longest track, in seconds.
    duration: Option<f64>,
    guard: TimestampGuard,
    /// Frames grabbed so far.
    count: u64,
    last_pts_us: i64,
    /// Size of the first picture.
    size: Option<(i32, i32)>,
    /// What OpenCV fills.
    scratch: Mat,
    max_side: u32,
}

impl OpenCv {
    /// Opens a file whose pictures have sides of at most `max_side` pixels.
    ///
    /// # Errors
    /// When it is no video. A truncated one is opened: its frames are worth having.
    pub(super) fn open(path: &Path, max_side: u32) -> Result<Self, SourceError> {
        let Inspected { outline, cut, .. } = inspect(path)?;
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
        Ok(Self {
            capture,
            info,
            outline,
            cut,
            duration,
            guard,
            count: 0,
            last_pts_us: 0,
            size: None,
            scratch: Mat::default(),
            max_side,
        })
    }

    fn check_picture(&mut self, frame: u64) -> Result<(), SourceError> {
        let picture = &self.scratch;
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

impl FrameSource for OpenCv {
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

    fn picture(&mut self, picture: &mut Image) -> Result<(), SourceError> {
        let frame = self.count.saturating_sub(1);
        if !self.capture.retrieve_def(&mut self.scratch)? {
            return Err(SourceError::NoPicture { frame });
        }
        self.check_picture(frame)?;
        let (width, height) = (self.scratch.cols().cast_unsigned(), self.scratch.rows().cast_unsigned());
        picture.reset(Pixel::BGR24, width, height).map_err(|why| SourceError::Unshown { frame, why })?;
        let (stride, row) = (picture.0.stride(0), width as usize * BGR_PIXEL);
        let rows = self.scratch.data_bytes()?.chunks_exact(row);
        picture.0.data_mut(0).chunks_mut(stride).zip(rows).for_each(|(to, from)| to[..row].copy_from_slice(from));
        Ok(())
    }

    fn frames(&self) -> u64 {
        self.count
    }

    fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref().filter(|_| self.outline.is_some())
    }

    fn check_end(&self) -> Result<Option<Missing>, SourceError> {
        if self.count == 0 {
            return Err(SourceError::NoFrame);
        }
        let came = self.last_pts_us as f64 / 1e6;
        let is_short = |least: f64| self.duration.is_none_or(|duration| came < duration * least);
        let counted = self.outline.as_ref().is_some_and(|outline| !outline.fragmented);
        match (self.info.frames, self.duration) {
            // An edit list may drop frames that are declared; then the time is full, though the
            // count is not.
            (Some(declared), _) if counted && self.count < fewest_frames(declared) && is_short(COMPLETE) => {
                Ok(Some(Missing::Frames { came: self.count, declared }))
            }
            (_, Some(declared)) if !counted && is_short(LONG_ENOUGH) && declared - came > TOLERANCE => {
                Ok(Some(Missing::Seconds { came, declared }))
            }
            _ => Ok(None),
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

/// MP4 declares its count of frames. For other containers OpenCV multiplies duration and rate,
/// which is nonsense where the rate is a time base: beyond 240 a second nobody films by accident.
fn plausible_count(count: i64, fps: f64, outline: Option<&Outline>) -> Option<u64> {
    let declared = outline.is_some_and(|outline| !outline.fragmented);
    let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
    (declared || (fps > 0.0 && fps <= 240.0)).then_some(count)
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
}
