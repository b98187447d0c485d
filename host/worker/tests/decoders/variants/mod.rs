//! Further clips of each kind that people have, made by ffmpeg and judged by it: other containers,
//! other codecs, other places.
//!
//! A line of a table is a clip: its name, how it is made, and what is special about the end.
//! Nothing else about it is kept here: how many frames it has, at what times and with which
//! pictures, ffprobe and ffmpeg say. Each clip is also gone on with behind some of its frames.

mod bytes;
mod ends;
mod pictures;
mod refused;
mod samples;
mod times;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use framehook_core::job::DEFAULT_PICTURE_SIDE;
use framehook_worker::source::{self, SourceError};

use crate::{TOLERANCE, begins_anywhere, decode_file, differences, judge::judge, rest, samples};

/// How a clip is made: see [`step`].
pub(crate) struct Variant {
    /// The last step's file, whose extension says the container.
    name: &'static str,
    steps: &'static [&'static str],
    edit: fn(&mut Vec<u8>),
    /// Words of what is missing at the end; empty if nothing is.
    lacks: &'static str,
    damage: Damage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    None,
    /// Frames are counted.
    Told,
    /// Whether the codec notices depends on which bits are wrong.
    Unsure,
}

pub(crate) const fn clip(name: &'static str, steps: &'static [&'static str]) -> Variant {
    Variant { name, steps, edit: |_| (), lacks: "", damage: Damage::None }
}

impl Variant {
    /// Changes bytes of the file that ffmpeg made.
    const fn edited(self, edit: fn(&mut Vec<u8>)) -> Self {
        Self { edit, ..self }
    }

    const fn lacks(self, words: &'static str) -> Self {
        Self { lacks: words, ..self }
    }

    /// With bit errors, or a last frame that is not whole. What is lost is made up by the codec,
    /// from whatever was in its buffers before.
    const fn damaged(self) -> Self {
        Self { damage: Damage::Told, ..self }
    }

    const fn maybe_damaged(self) -> Self {
        Self { damage: Damage::Unsure, ..self }
    }

    pub(crate) fn make(&self, folder: &Path) -> PathBuf {
        let (last, before) = self.steps.split_last().unwrap();
        before.iter().for_each(|line| step(folder, line));
        step(folder, &format!("{last} {}", self.name));
        let file = folder.join(self.name);
        let mut bytes = fs::read(&file).unwrap();
        (self.edit)(&mut bytes);
        fs::write(&file, bytes).unwrap();
        file
    }

    /// What is wrong with what is decoded.
    fn complaint(&self, file: &Path) -> Result<(), String> {
        let decoded = decode_file(file, source::open).map_err(|error| error.to_string())?;
        let tolerance = if self.damage == Damage::None { 0.0 } else { TOLERANCE };
        differences(&decoded, &judge(file), tolerance)?;
        let missing = decoded.missing.as_deref().unwrap_or_default();
        if !missing.contains(self.lacks) || missing.is_empty() != self.lacks.is_empty() {
            return Err(format!("at the end it says `{missing}`, not `{}`", self.lacks));
        }
        if self.damage != Damage::Unsure && (decoded.damaged > 0) != (self.damage == Damage::Told) {
            return Err(format!("{} frames are damaged", decoded.damaged));
        }
        let frames = decoded.positions.len();
        for stored in (0..frames).step_by(frames.div_ceil(3)) {
            if rest(file, source::open, decoded.positions[stored]).0 != decoded.positions[stored + 1..] {
                return Err(format!("other frames come behind frame {stored} if it goes on there"));
            }
        }
        // Elsewhere no frame is left, which the clips from the field show.
        if ["mp4", "mov", "mkv"].iter().any(|container| self.name.ends_with(container)) {
            samples(file, &decoded)?;
        }
        // Frames that are lost have no number, and what lies before a part is not decoded.
        if self.damage == Damage::None { begins_anywhere(file, &decoded) } else { Ok(()) }
    }
}

/// Makes and checks each clip, and names all that are not right.
fn check(variants: &[Variant]) {
    check_each(variants, Variant::complaint);
}

fn check_each(variants: &[Variant], complaint: impl Fn(&Variant, &Path) -> Result<(), String>) {
    let folder = tempfile::tempdir().unwrap();
    let wrong: Vec<_> = variants
        .iter()
        .filter_map(|clip| {
            let complaint = complaint(clip, &clip.make(folder.path())).err()?;
            Some(format!("{}: {complaint}", clip.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Checks that each file is refused, with these words.
fn refuse(files: &[(Variant, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let wrong: Vec<_> = files
        .iter()
        .filter_map(|(clip, words)| {
            let refused = source::open(&clip.make(folder.path()), DEFAULT_PICTURE_SIDE).err();
            let message = refused.as_ref().map(SourceError::to_string).unwrap_or_default();
            (!message.contains(words)).then(|| format!("{}: `{message}`, not `{words}`", clip.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Does one line: options of ffmpeg with the file that it writes at the end, or `cat` or `list`
/// with files to be joined, byte by byte or by ffmpeg, and that file.
///
/// `@96x64*20` is a moving test pattern of 20 frames, 25 of them a second unless `/30` says another
/// rate; `~4` is a tone of 4 seconds.
fn step(folder: &Path, line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    match words.split_first().unwrap() {
        (&"cat", files) => {
            let (to, from) = files.split_last().unwrap();
            let parts: Vec<_> = from.iter().map(|part| fs::read(folder.join(part)).unwrap()).collect();
            fs::write(folder.join(to), parts.concat()).unwrap();
        }
        (&"srt", files) => {
            let lines = (0..8).map(|n| format!("{n}\n00:00:{:02},000 --> 00:00:{:02},500\nline\n\n", 9 * n, 9 * n));
            fs::write(folder.join(files[0]), lines.collect::<String>()).unwrap();
        }
        (&"list", files) => {
            let (to, from) = files.split_last().unwrap();
            let lines: String = from.iter().map(|part| format!("file '{part}'\n")).collect();
            fs::write(folder.join("list.txt"), lines).unwrap();
            ffmpeg(folder, ["-f", "concat", "-i", "list.txt", "-c", "copy", to].map(str::to_owned));
        }
        _ => ffmpeg(folder, words.iter().flat_map(|word| pattern(word).unwrap_or_else(|| vec![(*word).to_owned()]))),
    }
}

/// The pattern or the tone that a word stands for, as options of ffmpeg.
fn pattern(word: &str) -> Option<Vec<String>> {
    let source = if let Some(seconds) = word.strip_prefix('~') {
        format!("sine=d={seconds}:r=44100")
    } else {
        let (size, count) = word.strip_prefix('@')?.split_once('*')?;
        let (count, rate) = count.split_once('/').unwrap_or((count, "25"));
        let (above, below) = rate.split_once('/').unwrap_or((rate, "1"));
        let [count, above, below] = [count, above, below].map(|number| number.parse::<f64>().unwrap());
        // The first frame that is not shown is half a frame away.
        format!("testsrc2=s={size}:r={rate}:d={}", (count - 0.5) * below / above)
    };
    Some(["-f", "lavfi", "-i", &source].map(str::to_owned).to_vec())
}

fn ffmpeg(folder: &Path, arguments: impl IntoIterator<Item = String>) {
    let mut command = Command::new("ffmpeg");
    command.current_dir(folder).args(["-v", "error", "-y", "-nostdin"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
