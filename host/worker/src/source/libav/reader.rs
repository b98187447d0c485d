//! From a file to decoded frames: the only place that calls demuxer and decoder.
//!
//! Invariants: damage ends nothing but the packet or frame that it is in. A file is opened as what
//! the head of the file is, with the demuxers and codecs that `docs/media.md` lists, and never as a
//! list of others.

use std::{collections::VecDeque, fs::File, hint, io::Seek as _};

use ffmpeg_next::{
    self as ffmpeg, Dictionary, Discard, Error, Packet, Rational, codec,
    codec::Id,
    decoder, ffi,
    format::context::{Input, StreamIo},
    format::stream::Disposition,
    frame, media,
};

use super::thin::Thin;
use crate::source::SourceError;

/// Demuxers that FFmpeg may choose from. Missing are those that read other files or the network,
/// and those that take anything for a video, such as text.
const CONTAINERS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,h264,hevc,m4v,\
                          mpegvideo,ivf,mxf,live_flv,yuv4mpegpipe";

/// Codecs that decode videos; those that `docs/media.md` lists. FFmpeg has three hundred more, of
/// games and of the nineties.
const CODECS: [Id; 37] = [
    Id::H264,
    Id::HEVC,
    Id::AV1,
    Id::VP8,
    Id::VP9,
    Id::MPEG1VIDEO,
    Id::MPEG2VIDEO,
    Id::MPEG4,
    Id::MSMPEG4V2,
    Id::MSMPEG4V3,
    Id::H263,
    Id::H263P,
    Id::FLV1,
    Id::WMV1,
    Id::WMV2,
    Id::WMV3,
    Id::VC1,
    Id::THEORA,
    Id::MJPEG,
    Id::JPEG2000,
    Id::PRORES,
    Id::DNXHD,
    Id::CFHD,
    Id::DVVIDEO,
    Id::FFV1,
    Id::HUFFYUV,
    Id::FFVHUFF,
    Id::UTVIDEO,
    Id::MAGICYUV,
    Id::PNG,
    Id::QTRLE,
    Id::CINEPAK,
    Id::SVQ1,
    Id::SVQ3,
    Id::VP6F,
    Id::V210,
    Id::RAWVIDEO,
];

/// Bytes of a pixel with 16 bits a sample and its colours at full size.
const PICTURE_PIXEL: usize = 6;

pub(super) struct Reader {
    input: Input,
    decoder: decoder::Video,
    stream: usize,
    /// Packets that were read ahead.
    pub(super) queue: VecDeque<Packet>,
    pub(super) thin: Option<Thin>,
    is_drained: bool,
    /// Packets of the video that were read.
    pub(super) packets: u64,
    /// Frames that were lost, or are damaged.
    pub(super) damaged: u64,
}

impl Reader {
    pub(super) fn open(file: &File, max_side: u32) -> Result<Self, SourceError> {
        let input = open_input(file)?;
        let video = input.streams().find(|stream| {
            let is_cover = stream.disposition().contains(Disposition::ATTACHED_PIC);
            stream.parameters().medium() == media::Type::Video && !is_cover
        });
        let Some(video) = video else {
            let sound = input.streams().any(|stream| stream.parameters().medium() == media::Type::Audio);
            return Err(if sound { SourceError::AudioOnly } else { SourceError::NoVideoTrack });
        };
        let (stream, time_base) = (video.index(), video.time_base());
        let decoder = open_decoder(video.parameters(), time_base, max_side)?;
        let mut reader = Self {
            input,
            decoder,
            stream,
            queue: VecDeque::new(),
            thin: None,
            is_drained: false,
            packets: 0,
            damaged: 0,
        };
        reader.discard_others();
        Ok(reader)
    }

    pub(super) fn video(&self) -> ffmpeg::Stream<'_> {
        self.input.stream(self.stream).expect("a file loses no stream while it is open")
    }

    pub(super) fn time_base(&self) -> Rational {
        self.video().time_base()
    }

    /// Whether each packet of a whole file is one frame, so that packets count frames. VP8 has
    /// packets that are not shown, and codecs of the MPEG-4 family some that hold no picture.
    pub(super) fn shows_each_packet(&self) -> bool {
        const CODECS: [Id; 7] = [Id::H264, Id::HEVC, Id::AV1, Id::VP9, Id::MPEG2VIDEO, Id::MJPEG, Id::PRORES];
        CODECS.contains(&self.decoder.id())
    }

    /// Whether a decoder may leave frames, and packets count them then: where a container cuts the
    /// stream into pictures, rather than FFmpeg's parsers.
    pub(super) fn can_thin(&self) -> bool {
        let format = self.input.format();
        let has_pictures = ["mov,", "matroska,"].iter().any(|name| format.name().starts_with(name));
        has_pictures && matches!(self.decoder.id(), Id::H264 | Id::HEVC)
    }

    /// Width and height of a picture; without a sense if the container does not say them.
    pub(super) fn declared_size(&self) -> (i64, i64) {
        // SAFETY: the parameters belong to the open input.
        let parameters = unsafe { &*self.video().parameters().as_ptr() };
        (i64::from(parameters.width), i64::from(parameters.height))
    }

    /// Seconds that the container declares for the whole file.
    pub(super) fn declared_seconds(&self) -> Option<f64> {
        let duration = self.input.duration();
        (duration > 0).then(|| duration as f64 / f64::from(ffi::AV_TIME_BASE))
    }

    /// Samples that the container's own index has of the video, and how many of them it shows; only
    /// where it has one of all samples.
    pub(super) fn indexed(&self) -> Option<(u64, u64)> {
        if !self.input.format().name().starts_with("mov,") {
            return None;
        }
        // SAFETY: the stream belongs to the open input; an entry is read before the next is asked
        // for.
        unsafe {
            let stream = self.video().as_ptr().cast_mut();
            let count = ffi::avformat_index_get_entries_count(stream);
            let is_shown = |at| {
                let entry = ffi::avformat_index_get_entry(stream, at);
                !entry.is_null() && (*entry).flags() & ffi::AVINDEX_DISCARD_FRAME == 0
            };
            let shown = (0..count).filter(|at| is_shown(*at)).count() as u64;
            u64::try_from(count).ok().filter(|count| *count > 0).map(|count| (count, shown))
        }
    }

    /// The next packet of the video; `None` at the end of the file, which is also where it cannot
    /// be read on.
    pub(super) fn read(&mut self) -> Option<Packet> {
        let mut packet = Packet::empty();
        loop {
            match packet.read(&mut self.input) {
                Ok(()) if packet.stream() == self.stream => {
                    self.packets += 1;
                    return Some(packet);
                }
                Ok(()) => {}
                Err(_) => return None,
            }
        }
    }

    /// Decodes the next frame into `frame`; false at the end.
    pub(super) fn decode(&mut self, frame: &mut frame::Video) -> Result<bool, SourceError> {
        loop {
            match self.decoder.receive_frame(frame) {
                Ok(()) if is_damaged(frame) => return self.count_damage().map(|()| true),
                Ok(()) => return Ok(true),
                Err(Error::Eof) => return Ok(false),
                Err(Error::Other { errno: ffmpeg::error::EAGAIN }) if self.is_drained => return Ok(false),
                Err(Error::Other { errno: ffmpeg::error::EAGAIN }) => self.feed()?,
                Err(error) => self.note(error)?,
            }
        }
    }

    /// Gives the decoder one packet, or the word that no more will come.
    fn feed(&mut self) -> Result<(), SourceError> {
        let sent = match self.next_packet() {
            Some((packet, left)) => {
                self.decoder.skip_frame(left);
                self.decoder.send_packet(&packet)
            }
            None => {
                self.is_drained = true;
                self.decoder.send_eof()
            }
        };
        sent.or_else(|error| self.note(error))
    }

    /// The next packet for the decoder, and which frames it may leave.
    fn next_packet(&mut self) -> Option<(Packet, Discard)> {
        let Some(mut thin) = self.thin.take() else {
            return self.read_queued().map(|packet| (packet, Discard::Default));
        };
        while !thin.is_ready() {
            let Some(packet) = self.read_queued() else {
                thin.end();
                break;
            };
            thin.push(packet);
        }
        let next = thin.pop();
        self.thin = Some(thin);
        next
    }

    fn read_queued(&mut self) -> Option<Packet> {
        self.queue.pop_front().or_else(|| self.read())
    }

    fn note(&mut self, error: Error) -> Result<(), SourceError> {
        match error {
            Error::Other { errno: ffmpeg::error::ENOMEM } => Err(SourceError::NoMemory),
            // The packet is lost, and with it a frame.
            _ => self.count_damage(),
        }
    }

    /// One frame more is damaged, unless what it lacks is memory: codecs call that damage, too.
    fn count_damage(&mut self) -> Result<(), SourceError> {
        let pixels = self.decoder.width() as usize * self.decoder.height() as usize;
        let mut picture = Vec::<u8>::new();
        // Looked at, or it would not even be asked for.
        let has_memory = hint::black_box(&mut picture).try_reserve_exact(pixels * PICTURE_PIXEL).is_ok();
        self.damaged += u64::from(has_memory);
        if has_memory { Ok(()) } else { Err(SourceError::NoMemory) }
    }

    /// Sound and subtitles are not even read where a container allows it.
    fn discard_others(&mut self) {
        for index in 0..self.input.nb_streams() as usize {
            if index != self.stream {
                // SAFETY: the array has as many streams, and nobody else uses them.
                unsafe { (**(*self.input.as_mut_ptr()).streams.add(index)).discard = ffi::AVDiscard::AVDISCARD_ALL };
            }
        }
    }
}

pub(super) fn is_damaged(frame: &frame::Video) -> bool {
    frame.is_corrupt() || frame.has_decode_errors()
}

/// FFmpeg is given the bytes of the file, and opens nothing itself.
fn open_input(file: &File) -> Result<Input, SourceError> {
    // Lines about damage would fill the log; the damage is counted.
    ffmpeg::log::set_level(ffmpeg::log::Level::Fatal);
    let file = file.try_clone().and_then(|mut file| file.rewind().map(|()| file)).map_err(SourceError::Unreadable)?;
    let mut options = Dictionary::new();
    options.set("protocol_whitelist", "none");
    options.set("format_whitelist", CONTAINERS);
    let opened = StreamIo::from_read_seek(file)
        .and_then(|stream| ffmpeg::format::input_from_stream(stream, None, Some(options)));
    opened.map_err(|error| match error {
        Error::Other { errno: ffmpeg::error::ENOMEM } => SourceError::NoMemory,
        _ => SourceError::NotAVideo,
    })
}

fn open_decoder(
    parameters: codec::Parameters,
    time_base: Rational,
    max_side: u32,
) -> Result<decoder::Video, SourceError> {
    let codec = parameters.id().name();
    let failed = |_| SourceError::Codec(codec.to_owned());
    if !CODECS.contains(&parameters.id()) {
        return Err(SourceError::Codec(codec.to_owned()));
    }
    let mut context = codec::Context::from_parameters(parameters).map_err(failed)?;
    // SAFETY: the context is not open yet.
    unsafe { (*context.as_mut_ptr()).max_pixels = i64::from(max_side) * i64::from(max_side) };
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(time_base);
    decoder.video().map_err(failed)
}
