//! One suite for both decoders: clips of the kinds that people have, judged by ffprobe and ffmpeg.
//!
//! A clip must give each frame once, with the stream's own time and ffmpeg's own picture. What
//! OpenCV cannot do stands in [`OPENCV_CANNOT`] by name, and is tried there as well: a line that is
//! no longer true fails.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "decoders/hostile.rs"]
mod hostile;
#[path = "decoders/judge.rs"]
mod judge;
#[path = "decoders/media.rs"]
mod media;
#[path = "decoders/variants/mod.rs"]
mod variants;

use std::{iter, path::Path};

use framehook_core::{
    job::DEFAULT_PICTURE_SIDE,
    prediction::Position,
    spec::{Sampling, TimeRange},
};
use framehook_worker::{
    image::{BgrCache, Image},
    selection::{Choice, Selection},
    source::{self, Open, SourceError},
};
use judge::{Judged, clips, judge, wrong_time};

/// Clips whose pictures need not be ffmpeg's to the bit: where data is lost, decoders of several
/// threads conceal it by other means than one thread does, and what is turned as BGR has had its
/// colours scaled before.
const APPROXIMATE: [&str; 1] = ["rot270_10bit."];

/// In the mean, of 255.
const TOLERANCE: f64 = 3.0;

/// What less of a video came than its container declares.
const INCOMPLETE: [(&str, &str); 6] = [
    ("cut_bframes.mkv", "its `Segment` ends at byte"),
    ("cut_frag.mp4", "after 27 of 30 frames"),
    ("cut_front.mp4", "after 21 of 60 frames"),
    ("cut_h264.avi", "its `RIFF` ends at byte"),
    ("cut_h264.flv", "its `tag` ends at byte"),
    // A transport stream does not say how long it is, and neither does what is left of the file.
    ("cut_longaudio.ts", ""),
];

/// What OpenCV 4.6 gets wrong.
const OPENCV_CANNOT: [(&str, &[&str]); 8] = [
    (
        "a video's own beginning: it says 0",
        &[
            "frag.mp4",
            "h264.flv",
            "h264.mpg",
            "interlaced.mpg",
            "interlaced.ts",
            "latevideo.mkv",
            "longaudio.mkv",
            "longaudio.ts",
        ],
    ),
    ("microseconds", &["fast.mp4", "ntsc.mp4", "vfr.mp4"]),
    ("times that a rate does not foretell", &["gapdup.mkv", "gapend.mp4", "overlap.ts", "recorder.webm"]),
    (
        "orientation",
        &["flip.mp4", "mirror.mp4", "rot270.mp4", "rot270_10bit.mov", "rot90.mp4", "rot90_odd.mp4", "transpose.mp4"],
    ),
    ("a picture that changes", &["changes_format.avi", "grows.mpg", "grows.ts", "shrinks.ts"]),
    ("colours that are not BT.601's", &["bt2020.mkv", "bt709.mp4", "bt709_720p.mkv", "hevc10.mp4"]),
    (
        "the end of the video, rather than of the file",
        &["elst.mp4", "frag_unknown_duration.mp4", "slow.mkv", "sparse_audio.mp4", "sparse_audio.ts"],
    ),
    (
        "damage: it ends there, or a few frames before",
        &[
            "bit_errors.mkv",
            "bit_errors.mp4",
            "bit_errors.ts",
            "cut_bframes.mkv",
            "cut_frag.mp4",
            "cut_front.mp4",
            "cut_h264.avi",
            "cut_h264.flv",
            "cut_longaudio.ts",
        ],
    ),
];

/// What a decoder made of a clip.
struct Decoded {
    positions: Vec<Position>,
    /// All pictures as BGR, one behind the other.
    pictures: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    damaged: u64,
    missing: Option<String>,
}

fn decode(clip: &str, open: Open) -> Result<Decoded, SourceError> {
    decode_file(&clips().join(clip), open)
}

fn decode_file(file: &Path, open: Open) -> Result<Decoded, SourceError> {
    let mut source = open(file, DEFAULT_PICTURE_SIDE)?;
    let mut image = Image::default();
    let (mut positions, mut pictures, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(position) = source.advance()? {
        source.picture(&mut image)?;
        pictures.extend(as_bgr(&image));
        ends.push(pictures.len());
        positions.push(position);
    }
    let missing = source.check_end()?.map(|missing| missing.to_string());
    assert_eq!(source.frames(), positions.len() as u64);
    Ok(Decoded { positions, pictures, ends, damaged: source.damaged(), missing })
}

fn as_bgr(image: &Image) -> Vec<u8> {
    let mut bgr = BgrCache::default();
    let pixels = bgr.get(image).unwrap();
    let rows = pixels.data.chunks(pixels.stride).take(pixels.height as usize);
    rows.flat_map(|row| &row[..pixels.width as usize * 3]).copied().collect()
}

impl Decoded {
    fn picture(&self, frame: usize) -> &[u8] {
        let start = frame.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.pictures[start..self.ends[frame]]
    }
}

/// Why what was decoded is not right, if so.
fn complaint(clip: &str, decoded: &Decoded, right: &Judged, tolerance: f64) -> Result<(), String> {
    differences(decoded, right, tolerance)?;
    let expected = INCOMPLETE.iter().find(|(name, _)| *name == clip).map_or("", |(_, words)| words);
    match &decoded.missing {
        None if expected.is_empty() => Ok(()),
        Some(said) if !expected.is_empty() && said.contains(expected) => Ok(()),
        said => Err(format!("at the end it says {said:?}, not `{expected}`")),
    }
}

/// In what the frames differ from those that are right.
fn differences(decoded: &Decoded, right: &Judged, tolerance: f64) -> Result<(), String> {
    let numbers = decoded.positions.iter().map(|position| position.frame);
    if !numbers.eq(0..right.times.len() as u64) {
        return Err(format!("{} frames of {}", decoded.positions.len(), right.times.len()));
    }
    let times: Vec<_> = decoded.positions.iter().map(|position| position.pts_us).collect();
    if let Some(wrong) = wrong_time(&times, &right.times) {
        return Err(wrong);
    }
    if decoded.pictures.len() != right.pictures.len() {
        return Err(format!("{} bytes of pictures, not {}", decoded.pictures.len(), right.pictures.len()));
    }
    let differences = decoded.pictures.iter().zip(&right.pictures).map(|(a, b)| u64::from(a.abs_diff(*b)));
    let mean = differences.sum::<u64>() as f64 / right.pictures.len() as f64;
    if mean > tolerance {
        return Err(format!("pictures differ by {mean:.3} of 255 in the mean"));
    }
    Ok(())
}

fn videos() -> impl Iterator<Item = String> {
    judge::names().into_iter().filter(|name| name != "still.avif")
}

#[test]
fn libav_gives_what_ffmpeg_gives() {
    for clip in videos() {
        let tolerance = if APPROXIMATE.iter().any(|name| clip.starts_with(name)) { TOLERANCE } else { 0.0 };
        let decoded = decode(&clip, source::open).unwrap_or_else(|error| panic!("{clip}: {error}"));
        complaint(&clip, &decoded, &judge(&clips().join(&clip)), tolerance)
            .unwrap_or_else(|wrong| panic!("{clip}: {wrong}"));
    }
}

#[test]
fn opencv_gives_the_same_but_for_what_it_cannot_do() {
    for clip in videos() {
        let decoded = decode(&clip, source::open_with_opencv).map_err(|error| error.to_string());
        let judged = decoded.and_then(|decoded| complaint(&clip, &decoded, &judge(&clips().join(&clip)), TOLERANCE));
        match OPENCV_CANNOT.iter().find(|(_, clips)| clips.contains(&clip.as_str())) {
            Some((what, _)) => assert!(judged.is_err(), "{clip}: OpenCV can do it after all ({what})"),
            None => judged.unwrap_or_else(|wrong| panic!("{clip}: {wrong}")),
        }
    }
}

/// What comes behind a stored frame, with the first picture.
fn rest(file: &Path, open: Open, stored: Position) -> (Vec<Position>, Vec<u8>) {
    let mut source = open(file, DEFAULT_PICTURE_SIDE).unwrap();
    let mut positions: Vec<_> = source.resume(stored, &mut || true).unwrap().into_iter().collect();
    let mut image = Image::default();
    let mut picture = Vec::new();
    if !positions.is_empty() {
        source.picture(&mut image).unwrap();
        picture = as_bgr(&image);
    }
    while let Some(position) = source.advance().unwrap() {
        positions.push(position);
    }
    (positions, picture)
}

#[test]
fn a_video_goes_on_behind_any_frame_as_if_it_had_never_stopped() {
    for clip in videos() {
        let whole = decode(&clip, source::open).unwrap();
        let frames = whole.positions.len();
        for stored in (0..frames).step_by(frames.div_ceil(12)).chain([frames - 1]) {
            let (positions, picture) = rest(&clips().join(&clip), source::open, whole.positions[stored]);
            assert_eq!(positions, whole.positions[stored + 1..], "{clip} after frame {stored}");
            if stored + 1 < frames {
                assert!(picture == whole.picture(stored + 1), "{clip}: the picture after frame {stored} is another");
            }
        }
    }
}

/// A part has the frames that it has in the whole.
fn begins_anywhere(file: &Path, whole: &Decoded) -> Result<(), String> {
    let frames = whole.positions.len();
    for from in (0..frames).step_by(frames.div_ceil(4)).chain([frames - 1]) {
        // Just behind the frame before, and just at it.
        for from_us in [whole.positions[from].pts_us, whole.positions[from.saturating_sub(1)].pts_us + 1] {
            let mut source = source::open(file, DEFAULT_PICTURE_SIDE).unwrap();
            let first = source.begin_at(from_us, &mut || true).unwrap();
            let part: Vec<_> = first.into_iter().chain(iter::from_fn(|| source.advance().unwrap())).collect();
            let expected = whole.positions.iter().filter(|at| at.pts_us >= from_us);
            if !part.iter().filter(|at| at.pts_us >= from_us).eq(expected) {
                return Err(format!("other frames come if a part begins at {from_us} us: {:?}", part.first()));
            }
        }
    }
    Ok(())
}

#[test]
fn a_part_of_a_video_is_what_it_is_in_the_whole() {
    let mut skipped = 0;
    for clip in videos().filter(|clip| !clip.starts_with("bit_errors")) {
        let whole = decode(&clip, source::open).unwrap();
        begins_anywhere(&clips().join(&clip), &whole).unwrap_or_else(|wrong| panic!("{clip}: {wrong}"));
        let last = *whole.positions.last().unwrap();
        let mut source = source::open(&clips().join(&clip), DEFAULT_PICTURE_SIDE).unwrap();
        skipped += usize::from(source.begin_at(last.pts_us, &mut || true).unwrap() == Some(last));
    }
    assert!(skipped > 20, "only {skipped} clips were not decoded from the front");
}

/// Which frames are asked for.
type Asked = (Sampling, Option<TimeRange>);

/// Those frames of a file that are asked for, behind `stored`; checks that each has the picture that it has
/// in the whole. And how many frames were decoded.
fn sampled(
    file: &Path,
    whole: &Decoded,
    asked @ (sampling, range): Asked,
    stored: Option<Position>,
) -> Result<(Vec<Position>, u64), String> {
    let mut selection = Selection::new(Some(sampling), range, stored);
    let mut source = source::open(file, DEFAULT_PICTURE_SIDE).unwrap();
    source.leave_all_but(&selection);
    let first = match (stored, range.and_then(|range| range.from_us)) {
        (Some(stored), _) => source.resume(stored, &mut || true),
        (None, Some(from_us)) => source.begin_at(from_us, &mut || true),
        (None, None) => source.advance(),
    };
    let (mut next, mut taken, mut decoded, mut image) = (first.unwrap(), Vec::new(), 0, Image::default());
    while let Some(at) = next {
        decoded += 1;
        if matches!(selection.choose(at), Choice::Take { .. }) {
            source.picture(&mut image).unwrap();
            if whole.damaged == 0 && as_bgr(&image) != whole.picture(at.frame as usize) {
                return Err(format!("{asked:?}: the picture of frame {} is another", at.frame));
            }
            taken.push(at);
        }
        next = source.advance().unwrap();
    }
    let all = whole.positions.len() as u64;
    if whole.damaged == 0 && source.frames() != all {
        return Err(format!("{asked:?}: {} frames of {all} are counted", source.frames()));
    }
    Ok((taken, decoded))
}

/// Frames that are asked for are what they are in the whole, however many others are left, and also if it
/// goes on behind one of them. Gives how many frames were never decoded.
fn samples(file: &Path, whole: &Decoded) -> Result<u64, String> {
    let mut left = 0;
    let middle = whole.positions[whole.positions.len() / 2].pts_us;
    let behind = TimeRange { from_us: Some(middle), until_us: None };
    for asked in [(Sampling::Every(3), None), (Sampling::Fps(4.0), None), (Sampling::Every(2), Some(behind))] {
        // What lies before a part is not decoded, so its damage is not known.
        if asked.1.is_some() && whole.damaged > 0 {
            continue;
        }
        let (taken, decoded) = sampled(file, whole, asked, None)?;
        let mut selection = Selection::new(Some(asked.0), asked.1, None);
        let is_taken = |at: &&Position| matches!(selection.choose(**at), Choice::Take { .. });
        let expected: Vec<_> = whole.positions.iter().filter(is_taken).copied().collect();
        // Numbers count frames that were lost, where others are left.
        if whole.damaged == 0 && taken != expected {
            return Err(format!("{asked:?} gives {taken:?}, not {expected:?}"));
        }
        left += if asked.1.is_none() { whole.positions.len() as u64 - decoded } else { 0 };
        for (stored, at) in taken.iter().enumerate().step_by(3) {
            let (rest, _) = sampled(file, whole, asked, Some(*at))?;
            if rest != taken[stored + 1..] {
                return Err(format!("{asked:?} gives {rest:?} where it goes on behind {at:?}"));
            }
        }
    }
    Ok(left)
}

#[test]
fn frames_that_are_left_change_no_other() {
    let mut thinned = 0;
    for clip in videos() {
        let whole = decode(&clip, source::open).unwrap();
        let left = samples(&clips().join(&clip), &whole).unwrap_or_else(|wrong| panic!("{clip}: {wrong}"));
        thinned += usize::from(left > 0);
        println!("{clip}: {left} of 2 * {} frames were not decoded", whole.positions.len());
    }
    assert!(thinned >= 5, "only {thinned} clips have frames that were not decoded");
}

#[test]
fn what_a_cut_file_declares_is_what_the_whole_one_had() {
    let declared = |clip| source::open(&clips().join(clip), DEFAULT_PICTURE_SIDE).unwrap().info().frames;
    assert_eq!(declared("cut_h264.avi"), declared("h264.avi"));
    assert_eq!(declared("cut_front.mp4"), declared("bframes.mp4"));
}

#[test]
fn damage_is_counted() {
    // Frames that come count, and those that do not.
    let damaged = |clip| decode(clip, source::open).unwrap().damaged;
    assert_eq!(damaged("bframes.mp4"), 0);
    assert!((2..20).contains(&damaged("bit_errors.mp4")), "{}", damaged("bit_errors.mp4"));
    assert_eq!(damaged("cut_front.mp4"), 1);
}

/// Behind each frame, whoever goes on there counts what nobody counted before.
#[test]
fn damage_is_counted_once_where_a_video_goes_on() {
    for clip in videos().filter(|clip| clip.starts_with("bit_errors") || clip.starts_with("cut_")) {
        let open = || source::open(&clips().join(&clip), DEFAULT_PICTURE_SIDE).unwrap();
        let mut source = open();
        let mut so_far = Vec::new();
        while let Some(at) = source.advance().unwrap() {
            so_far.push((at, source.damaged()));
        }
        let all = source.damaged();
        for (stored, before) in so_far {
            let mut source = open();
            let mut next = source.resume(stored, &mut || true).unwrap();
            while next.is_some() {
                next = source.advance().unwrap();
            }
            assert_eq!(before + source.damaged(), all, "{clip} behind {stored:?}, with {before} before");
        }
    }
}
