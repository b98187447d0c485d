//! Files that somebody or something has damaged: whatever they are, a source ends within its time,
//! with frames, with a word about what is missing, or with an error that says what is wrong.
//!
//! All of it runs in this process, so a crash of a codec fails the test. A worker that crashes is
//! started again by its runner, and given up; that is tested where runners are.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use framehook_core::job::DEFAULT_PICTURE_SIDE;
use framehook_worker::{image::Image, source};

use crate::judge::clips;

/// They take some seconds.
const FILES: usize = 2_000;

/// A clip is decoded in a tenth of a second. A machine that does other things as well is slower.
const PATIENCE: Duration = Duration::from_secs(20);

/// One a container.
const CLIPS: [&str; 13] = [
    "plain.mp4",
    "frag.mp4",
    "rot270_10bit.mov",
    "bframes.mkv",
    "recorder.webm",
    "h264.avi",
    "changes_format.avi",
    "longaudio.ts",
    "grows.mpg",
    "h264.flv",
    "raw.h264",
    "raw.y4m",
    "prores.mov",
];

/// Numbers that are the same on each run (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// The damage of file `number`: cut off, bits flipped anywhere, a head of noise, or a part that is
/// zero.
fn damaged(clip: &[u8], number: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = clip.to_vec();
    match number % 4 {
        0 => bytes.truncate(997 * dice.below(clip.len() / 997 + 1)),
        1 => (0..1 + dice.below(200)).for_each(|_| {
            let at = dice.below(clip.len());
            bytes[at] ^= 1 << dice.below(8);
        }),
        2 => {
            // Behind the signature, so that the container is still known by it.
            let end = 64 + dice.below(2_000);
            bytes.iter_mut().take(end).skip(12).for_each(|byte| *byte = dice.below(256) as u8);
        }
        _ => {
            let at = dice.below(clip.len());
            bytes.iter_mut().skip(at).take(4_096).for_each(|byte| *byte = 0);
        }
    }
    bytes
}

/// What came of a file: frames, or a sentence.
fn outcome(file: &Path) -> Result<u64, String> {
    let mut source = source::open(file, DEFAULT_PICTURE_SIDE).map_err(|error| error.to_string())?;
    let (mut image, mut frames) = (Image::default(), 0);
    while let Some(position) = source.advance().map_err(|error| error.to_string())? {
        assert_eq!(position.frame, frames);
        source.picture(&mut image).map_err(|error| error.to_string())?;
        frames += 1;
    }
    source.check_end().map_err(|error| error.to_string())?;
    Ok(frames)
}

#[test]
fn damaged_files_end_in_time_and_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (file, mut dice) = (folder.path().join("hostile"), Dice(0x2545_f491_4f6c_dd1d));
    let whole = CLIPS.map(|clip| fs::read(clips().join(clip)).unwrap());
    let (mut refused, mut came) = (0, 0);
    for number in 0..FILES {
        fs::write(&file, damaged(&whole[number / 4 % CLIPS.len()], number, &mut dice)).unwrap();
        let started = Instant::now();
        match outcome(&file) {
            Ok(frames) => came += u64::from(frames > 0),
            Err(message) => {
                assert!(message.len() > 10, "{number}: {message}");
                refused += 1;
            }
        }
        assert!(started.elapsed() < PATIENCE, "file {number} took {:?}", started.elapsed());
    }
    println!("{FILES} files: {came} gave frames, {refused} a reason");
    assert!(came > 0 && refused > 0, "not all of them, and not none");
}
