//! Writes pictures as an MP4 video, by libav.
//!
//! Invariant: each picture has the time that it was given, to the microsecond.

use std::fs::File;

use ffmpeg_next::{
    Dictionary, Error, Packet, Rational, codec, color, encoder, ffi,
    format::{
        self, Pixel,
        context::{Output, StreamIo},
    },
    frame,
    software::scaling::{self, Flags},
};

use crate::image::Image;

/// Times are microseconds.
const TIME_BASE: Rational = Rational(1, 1_000_000);
/// The quality of an encoder that has no constant one of its own: 2 is the best, 31 the worst.
const MPEG4_QUALITY: usize = 3;

/// Dropping it without [`VideoWriter::finish`] leaves a file that no player opens.
pub(crate) struct VideoWriter {
    output: Output,
    encoder: encoder::Video,
    scaler: scaling::Context,
    /// The picture in the encoder's format and size.
    frame: frame::Video,
    packet: Packet,
    /// That of a picture, which the last one has no next for.
    duration: i64,
}

impl VideoWriter {
    /// Into an empty file; with pictures of about this size, of which about `fps` come a second.
    ///
    /// # Errors
    /// When libav has no encoder that takes them.
    pub(crate) fn new(file: &File, width: u32, height: u32, fps: f64) -> Result<Self, Error> {
        // 25 is as good as any where the container declares nothing.
        let fps = if fps > 0.0 { fps } else { 25.0 };
        // Colours have half the size.
        let (width, height) = ((width & !1).max(2), (height & !1).max(2));
        // H.264 plays everywhere; MPEG-4 part 2 is what every libav has.
        let h264 = Self::with(codec::Id::H264, file, width, height, fps);
        h264.or_else(|_| Self::with(codec::Id::MPEG4, file, width, height, fps))
    }

    fn with(codec: codec::Id, file: &File, width: u32, height: u32, fps: f64) -> Result<Self, Error> {
        let file = file.set_len(0).and_then(|()| file.try_clone()).map_err(|_| Error::External)?;
        let mut output = format::output_to_stream(StreamIo::from_write_seek(file)?, None, Some("mp4"))?;
        let found = encoder::find(codec).ok_or(Error::EncoderNotFound)?;
        let mut video = codec::context::Context::new_with_codec(found).encoder().video()?;
        video.set_width(width);
        video.set_height(height);
        video.set_format(Pixel::YUV420P);
        // What libswscale makes where nothing else is asked for.
        video.set_colorspace(color::Space::SMPTE170M);
        video.set_color_range(color::Range::MPEG);
        video.set_time_base(TIME_BASE);
        video.set_frame_rate(Some(Rational::from(fps)));
        let mut flags = codec::Flags::GLOBAL_HEADER;
        if codec == codec::Id::MPEG4 {
            flags |= codec::Flags::QSCALE;
            video.set_global_quality(MPEG4_QUALITY as i32 * ffi::FF_QP2LAMBDA);
        }
        video.set_flags(flags);
        let encoder = video.open()?;
        output.add_stream(found)?.set_parameters(&encoder);
        output.write_header_with(Dictionary::new())?;
        let scaler = scaling::Context::get(Pixel::BGR24, width, height, Pixel::YUV420P, width, height, Flags::BICUBIC)?;
        let frame = frame::Video::new(Pixel::YUV420P, width, height);
        let duration = (f64::from(TIME_BASE.denominator()) / fps) as i64;
        Ok(Self { output, encoder, scaler, frame, packet: Packet::empty(), duration })
    }

    /// A picture of 8-bit BGR; one of another size is scaled to that of the video.
    ///
    /// # Errors
    /// When the encoder fails, or the file cannot take more.
    pub(crate) fn write(&mut self, bgr: &Image, pts_us: i64) -> Result<(), Error> {
        let (width, height) = (self.frame.width(), self.frame.height());
        self.scaler.cached(Pixel::BGR24, bgr.width(), bgr.height(), Pixel::YUV420P, width, height, Flags::BICUBIC);
        // The encoder may still look at the last one.
        self.frame = frame::Video::new(Pixel::YUV420P, width, height);
        self.scaler.run(&bgr.0, &mut self.frame)?;
        self.frame.set_pts(Some(pts_us));
        self.encoder.send_frame(&self.frame)?;
        self.write_packets()
    }

    /// Writes what the encoder still has, and the index.
    ///
    /// # Errors
    /// When the file cannot take it.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.encoder.send_eof()?;
        self.write_packets()?;
        self.output.write_trailer()
    }

    fn write_packets(&mut self) -> Result<(), Error> {
        let time_base = self.output.stream(0).ok_or(Error::StreamNotFound)?.time_base();
        // Until the encoder wants another picture.
        while self.encoder.receive_packet(&mut self.packet).is_ok() {
            self.packet.set_stream(0);
            self.packet.set_duration(self.duration);
            self.packet.rescale_ts(TIME_BASE, time_base);
            self.packet.write_interleaved(&mut self.output)?;
        }
        Ok(())
    }
}
