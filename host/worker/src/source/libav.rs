//! Decodes by FFmpeg's own libraries: what the stream says is what comes out.
//!
//! Invariants: the time of a frame is the stream's (`best_effort_timestamp`), to the microsecond;
//! see [`times`] for those that are missing. Each picture has its own size, format and colours, and
//! is upright. Damage ends nothing: decoding goes on at the next frame that can be decoded. One
//! thread decodes, because that is what most streams together want.

mod order;
mod orientation;
mod reader;
mod scan;
mod thin;
mod times;

use std::{collections::VecDeque, fs::File, mem, path::Path};

use ffmpeg_next::{Packet, Rational, codec::packet::side_data::Type, frame, picture};
use framehook_core::{artifact::VideoManifest, prediction::Position};
use framehook_formats::{cut::Cut, isobmff::Outline};

use self::{
    orientation::{Orientation, can_turn},
    reader::{Reader, is_damaged},
    scan::{Scanned, scan},
    thin::{PROOF, Proof, Thin},
    times::Said,
};
use super::{
    FrameSource, Missing, SourceError, check_size,
    inspect::{Inspected, inspect},
    pass_over,
};
use crate::{
    image::{BgrCache, Image},
    process,
    selection::Selection,
};

pub(super) struct Libav {
    /// Kept, because a file cannot be opened any more once a worker has confined itself.
    file: File,
    reader: Reader,
    info: VideoManifest,
    cut: Option<Cut>,
    is_mp4: bool,
    /// What the container says for all frames.
    orientation: Orientation,
    /// For how long a frame is shown that does not say so, in microseconds.
    usual_duration: i64,
    max_side: u32,
    /// Decoded frames with their times, in order.
    ready: VecDeque<(frame::Video, i64)>,
    /// Decoded frames whose times are not known yet.
    waiting: Vec<(frame::Video, Said)>,
    /// Decoded frames behind those, which were looked at only.
    ahead: VecDeque<(frame::Video, Said)>,
    /// Frames whose buffers can be used again.
    spare: Vec<frame::Video>,
    current: Image,
    /// For pictures that must be converted before they are turned.
    bgr: BgrCache,
    /// The number of the next frame.
    count: u64,
    /// Frames that are asked for, if those that are not may be left.
    selection: Option<Selection>,
    previous: Option<i64>,
    /// A presentation time was wrong, for which FFmpeg would take decoding times from then on.
    had_wrong: bool,
}

/// How many frames without a good time, or behind one that may be wrong, are decoded to find one that has it.
/// Two parts of a recording that overlap do so by a few frames; more would be memory.
const LOOK_AHEAD: usize = 8;

/// Used if the container declares no frame rate: 25 frames a second.
const DEFAULT_DURATION_US: i64 = 40_000;

/// Further from zero are no times: 29,000 years.
const LATEST_US: i64 = i64::MAX / 10;

impl Libav {
    pub(super) fn open(path: &Path, max_side: u32) -> Result<Self, SourceError> {
        let Inspected { file, outline, cut } = inspect(path)?;
        // Before FFmpeg, which decodes a picture while it opens the file.
        if let Some([width, height]) = outline.as_ref().and_then(|outline| outline.picture) {
            check_size(width, height, max_side)?;
        }
        process::limit_ffmpeg(max_side);
        let mut reader = Reader::open(&file, max_side).map_err(|error| match (error, &cut) {
            // What is missing may be what FFmpeg needs to open it.
            (SourceError::NotAVideo, Some(cut)) => SourceError::Truncated(cut.clone()),
            (error, _) => error,
        })?;
        let video = reader.video();
        let matrix = video.side_data().find(|data| data.kind() == Type::DisplayMatrix);
        let orientation = matrix.map_or(Orientation::UPRIGHT, |data| Orientation::of_matrix(data.data()));
        let fps = f64::from(video.avg_frame_rate());
        let fps = if fps.is_finite() && fps > 0.0 { fps } else { 0.0 };
        let (width, height) = picture_size(&mut reader, &file, max_side)?;
        let (width, height) = orientation.size(width, height);
        let info = VideoManifest { width, height, fps, frames: declared_frames(&reader, outline.as_ref(), fps) };
        check_size(info.width, info.height, max_side)?;
        // A rate beyond 100,000 frames a second is damage, not a rate.
        let usual_duration = if (1e-3..=1e5).contains(&fps) { (1e6 / fps) as i64 } else { DEFAULT_DURATION_US };
        Ok(Self {
            file,
            reader,
            info,
            cut,
            is_mp4: outline.is_some(),
            orientation,
            usual_duration,
            max_side,
            ready: VecDeque::new(),
            waiting: Vec::new(),
            ahead: VecDeque::new(),
            spare: Vec::new(),
            current: Image::default(),
            bgr: BgrCache::default(),
            count: 0,
            selection: None,
            previous: None,
            had_wrong: false,
        })
    }

    /// Decodes until at least one frame has a time, or the video ends.
    fn decode_ahead(&mut self) -> Result<(), SourceError> {
        let mut next = None;
        while next.is_none() && self.waiting.len() < LOOK_AHEAD {
            let Some((frame, said)) = self.ahead.pop_front().map_or_else(|| self.decode(), |frame| Ok(Some(frame)))?
            else {
                break;
            };
            match said.time.filter(|time| times::follows(*time, self.previous, self.waiting.len())) {
                Some(time) if !self.is_wrong(said, time)? => next = Some((frame, time)),
                _ => self.waiting.push((frame, said)),
            }
        }
        if !self.waiting.is_empty() {
            let mut said: Vec<_> = self.waiting.iter().map(|(_, said)| *said).collect();
            if next.is_none() && said.len() == LOOK_AHEAD {
                times::squeeze(self.previous, &mut said);
            }
            let filled = times::fill(self.previous, &said, next.as_ref().map(|(_, time)| *time));
            self.ready.extend(self.waiting.drain(..).map(|(frame, _)| frame).zip(filled));
        }
        self.ready.extend(next);
        self.previous = self.ready.back().map(|(_, time)| *time).or(self.previous);
        Ok(())
    }

    /// Decodes the next frame; `None` at the end.
    fn decode(&mut self) -> Result<Option<(frame::Video, Said)>, SourceError> {
        let mut frame = self.spare.pop().unwrap_or_else(frame::Video::empty);
        let came = self.reader.decode(&mut frame)?;
        let said = self.said(&frame, self.had_wrong);
        Ok(came.then_some((frame, said)))
    }

    /// Whether a time is one that no frame behind it goes on from, but all of them from the one before.
    fn is_wrong(&mut self, frame: Said, time: i64) -> Result<bool, SourceError> {
        if !self.waiting.is_empty() || !times::is_leap(self.previous, frame, time, LOOK_AHEAD) {
            return Ok(false);
        }
        loop {
            if self.ahead.iter().any(|(_, behind)| behind.time > Some(time)) {
                return Ok(false);
            }
            let next = if self.ahead.len() < LOOK_AHEAD { self.decode()? } else { None };
            let Some(next) = next else { break };
            self.ahead.push_back(next);
        }
        let behind: Vec<_> = self.ahead.iter().map(|(frame, _)| self.said(frame, true)).collect();
        let is_wrong = times::is_wrong(self.previous, time, &behind);
        if is_wrong {
            self.had_wrong = true;
            self.ahead.iter_mut().zip(behind).for_each(|((_, said), own)| *said = own);
        }
        Ok(is_wrong)
    }

    /// The first frame at or behind `time_us`, with its time and its number, without decoding what
    /// lies before its key frame. `None` if it cannot be found for sure; this is at no certain
    /// frame then.
    fn find(&mut self, time_us: i64, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Found>, SourceError> {
        self.reader.thin = None;
        let Some(Scanned { packets, before, all_shown }) = scan(&mut self.reader, time_us, go_on) else {
            return Ok(None);
        };
        let base = self.reader.time_base();
        let units: Vec<_> = packets.iter().filter_map(Packet::pts).collect();
        let times: Vec<_> = units.iter().filter_map(|time| micros(*time, base)).collect();
        let Some(key_time) = times.first().copied() else { return Ok(None) };
        self.reader.queue = packets;
        let (mut frame, mut shown) = (frame::Video::empty(), 0);
        while self.reader.decode(&mut frame)? && go_on() {
            let Some(time) = self.said(&frame, self.had_wrong).time else { break };
            // Those before lack what they refer to.
            if time < key_time {
                continue;
            }
            if shown == 0 && !(time == key_time && is_clean_key(&frame)) {
                break;
            }
            if time >= time_us {
                let earlier = times.iter().filter(|earlier| **earlier < time).count() as u64;
                let leading = times.iter().filter(|earlier| **earlier < key_time).count() as u64;
                // Packets count frames only if they do so where frames can be seen.
                let counts = all_shown && earlier == leading + shown && self.reader.shows_each_packet();
                let number = counts.then_some(before + earlier);
                let sent = units[..units.len() - self.reader.queue.len()].iter().copied();
                let sent = sent.filter(|sent| micros(*sent, base).is_some_and(|sent| sent > time)).collect();
                return Ok(Some(Found { frame, time, number, sent }));
            }
            shown += 1;
        }
        Ok(None)
    }

    /// Goes back to before the first frame.
    fn rewind(&mut self) -> Result<(), SourceError> {
        self.reader = Reader::open(&self.file, self.max_side)?;
        self.ready.clear();
        self.waiting.clear();
        self.ahead.clear();
        (self.count, self.previous, self.had_wrong) = (0, None, false);
        self.thin_out(self.selection.clone(), 0, &[], Proof::Open(PROOF));
        Ok(())
    }

    /// From frame `next` on leaves what `selection` does not ask for.
    fn thin_out(&mut self, selection: Option<Selection>, next: u64, sent: &[i64], proof: Proof) {
        let base = self.reader.time_base();
        self.reader.thin = selection.map(|selection| Thin::new(selection, base, next, sent, proof));
    }

    /// What the stream says of a frame, by its presentation time alone if `by_presentation`.
    fn said(&self, frame: &frame::Video, by_presentation: bool) -> Said {
        let base = self.reader.time_base();
        let duration = micros(frame.packet().duration, base).filter(|duration| *duration > 0);
        let time = frame.pts().filter(|_| by_presentation).or_else(|| frame.timestamp());
        Said {
            time: time.and_then(|time| micros(time, base)),
            duration: duration.unwrap_or(self.usual_duration).max(1),
        }
    }

    fn turn(&mut self, orientation: Orientation, picture: &mut Image) -> Result<(), SourceError> {
        let turned = if can_turn(&self.current) {
            orientation.apply(&self.current, picture)
        } else {
            self.bgr.clear();
            self.bgr.image(&self.current).and_then(|bgr| orientation.apply(bgr, picture))
        };
        turned.map_err(|why| self.unshown(why))
    }

    fn unshown(&self, why: crate::image::ImageError) -> SourceError {
        SourceError::Unshown { frame: self.count.saturating_sub(1), why }
    }
}

impl FrameSource for Libav {
    fn info(&self) -> &VideoManifest {
        &self.info
    }

    fn advance(&mut self) -> Result<Option<Position>, SourceError> {
        if self.ready.is_empty() {
            self.decode_ahead()?;
        }
        let Some((frame, pts_us)) = self.ready.pop_front() else { return Ok(None) };
        self.spare.push(mem::replace(&mut self.current.0, frame));
        check_size(self.current.width(), self.current.height(), self.max_side)?;
        let frame = self.reader.thin.as_mut().map_or(self.count, |thin| thin.number(pts_us, self.count));
        self.count = frame + 1;
        Ok(Some(Position { pts_us, frame }))
    }

    fn leave_all_but(&mut self, selection: &Selection) {
        self.selection = self.reader.can_thin().then(|| selection.clone());
        self.thin_out(self.selection.clone(), 0, &[], Proof::Open(PROOF));
    }

    fn begin_at(&mut self, from_us: i64, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Position>, SourceError> {
        match self.find(from_us, go_on)? {
            Some(Found { frame, time, number: Some(number), sent }) => {
                let mut selection = self.selection.clone();
                if let Some(selection) = &mut selection {
                    selection.choose(Position { pts_us: time, frame: number });
                }
                self.thin_out(selection, number + 1, &sent, Proof::Given);
                (self.previous, self.count) = (Some(time), number);
                self.ready.push_back((frame, time));
            }
            _ => self.rewind()?,
        }
        self.advance()
    }

    fn resume(&mut self, stored: Position, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Position>, SourceError> {
        // What was damaged before is in the account of the run that went there.
        match self.find(stored.pts_us, go_on)? {
            // Frames are left only if packets count them, as they did before: that is known from the numbers,
            // once it was proved.
            Some(Found { time, number, sent, .. })
                if time == stored.pts_us
                    && (self.selection.is_none() || (number.is_some() && stored.frame >= u64::from(PROOF))) =>
            {
                let selection = self.selection.clone().filter(|_| number == Some(stored.frame));
                self.thin_out(selection, stored.frame + 1, &sent, Proof::Given);
                (self.previous, self.count) = (Some(time), stored.frame + 1);
                self.reader.damaged = 0;
                self.advance()
            }
            _ => {
                self.rewind()?;
                let mut before = 0;
                let next = pass_over(self, stored, &mut |source| {
                    before = source.damaged();
                    go_on()
                })?;
                self.reader.damaged -= before;
                Ok(next)
            }
        }
    }

    fn picture(&mut self, picture: &mut Image) -> Result<(), SourceError> {
        let orientation = Orientation::of_frame(&self.current.0).unwrap_or(self.orientation);
        if orientation == Orientation::UPRIGHT {
            mem::swap(picture, &mut self.current);
            return Ok(());
        }
        self.turn(orientation, picture)
    }

    fn check_end(&self) -> Result<Option<Missing>, SourceError> {
        let came = self.frames();
        if came == 0 {
            return Err(SourceError::NoFrame);
        }
        Ok(match (self.reader.indexed(), &self.cut) {
            (Some((all, _)), _) if self.reader.packets >= all => None,
            (Some((_, declared)), _) => Some(Missing::Frames { came, declared }),
            (None, Some(cut)) => Some(Missing::Bytes { came, cut: cut.clone() }),
            (None, None) => None,
        })
    }

    fn frames(&self) -> u64 {
        self.reader.thin.as_ref().map_or(0, Thin::frames).max(self.count)
    }

    fn damaged(&self) -> u64 {
        self.reader.damaged
    }

    fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref().filter(|_| self.is_mp4)
    }
}

/// A frame that [`Libav::find`] went to.
struct Found {
    frame: frame::Video,
    time: i64,
    /// If it is known without decoding those before.
    number: Option<u64>,
    /// The times of frames behind it that are in the decoder, in units of the stream.
    sent: Vec<i64>,
}

/// Whether decoding can begin here. Some streams have no whole picture, but refresh one part after
/// the other; they call the first of these frames a key frame.
fn is_clean_key(frame: &frame::Video) -> bool {
    frame.is_key() && frame.kind() == picture::Type::I && !is_damaged(frame)
}

/// What the container declares. If the first packet of the video lies behind all that FFmpeg looks
/// at when it opens a file, as with a picture every minute among sound, it is what the first frame
/// has.
fn picture_size(reader: &mut Reader, file: &File, max_side: u32) -> Result<(u32, u32), SourceError> {
    let (width, height) = reader.declared_size();
    if let (Some(width), Some(height)) = (super::positive(width), super::positive(height)) {
        return Ok((width, height));
    }
    let mut first = frame::Video::empty();
    if !reader.decode(&mut first)? {
        return Err(SourceError::NoSize { width, height });
    }
    *reader = Reader::open(file, max_side)?;
    Ok((first.width(), first.height()))
}

fn declared_frames(reader: &Reader, outline: Option<&Outline>, fps: f64) -> Option<u64> {
    let is_whole = outline.is_some_and(|outline| !outline.fragmented);
    if is_whole { reader.indexed().map(|(_, shown)| shown) } else { estimated_frames(reader, fps) }
}

/// From the duration, which is nonsense where the rate is a time base: beyond 240 a second nobody
/// films by accident.
fn estimated_frames(reader: &Reader, fps: f64) -> Option<u64> {
    let video = reader.video();
    // AVI counts in units of its time base, also those that have no frame, and FFmpeg makes the
    // duration of a file that was cut shorter. Elsewhere there are fewer frames than units.
    let units = video.duration().max(video.frames());
    let own = micros(units, video.time_base()).filter(|duration| *duration > 0);
    let seconds = own.map(|duration| duration as f64 / 1e6).or_else(|| reader.declared_seconds())?;
    let frames = (seconds * fps).round();
    (fps <= 240.0 && frames >= 1.0).then_some(frames as u64)
}

/// A time in units of `base`, in microseconds, rounded to the nearest.
fn micros(time: i64, base: Rational) -> Option<i64> {
    let (numerator, denominator) = (i128::from(base.numerator()), i128::from(base.denominator()));
    if numerator <= 0 || denominator <= 0 || time == i64::MIN {
        return None;
    }
    let scaled = i128::from(time) * numerator * 1_000_000;
    let rounded = (2 * scaled + denominator).div_euclid(2 * denominator);
    i64::try_from(rounded).ok().filter(|micros| micros.abs() < LATEST_US)
}
