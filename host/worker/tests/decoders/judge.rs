//! What is right about a clip, from ffprobe and ffmpeg alone.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

pub(crate) struct Judged {
    /// Microseconds, as the stream says them.
    pub(crate) times: Vec<Option<i64>>,
    /// All pictures as BGR, one behind the other.
    pub(crate) pictures: Vec<u8>,
}

/// The folder of the clips, which `tests/clips.py` makes.
pub(crate) fn clips() -> &'static Path {
    static CLIPS: OnceLock<PathBuf> = OnceLock::new();
    CLIPS.get_or_init(|| {
        // Clips of one's own are judged as well.
        if let Some(folder) = std::env::var_os("FRAMEHOOK_CLIPS") {
            return folder.into();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clips.py");
        let printed = output("python3", [script.as_os_str()]);
        String::from_utf8(printed).unwrap().trim().into()
    })
}

pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(clips()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.filter(|name| name.contains('.')).collect();
    names.sort();
    names
}

pub(crate) fn judge(clip: &Path) -> Judged {
    let path = clip.to_str().unwrap();
    let entries = ["-v", "fatal", "-select_streams", "V:0", "-show_entries"];
    let asked = ["frame=best_effort_timestamp:stream=time_base", "-of", "csv=p=0", path];
    let printed = String::from_utf8(output("ffprobe", entries.into_iter().chain(asked))).unwrap();
    // A base is two numbers, a time is one or `N/A`.
    let is_base = |line: &&str| line.contains('/') && !line.contains('N');
    let base = printed.lines().find(is_base).unwrap().split_once('/').unwrap();
    let [above, below] = [base.0, base.1].map(|number| number.trim_end_matches(',').parse::<i128>().unwrap());
    let micros = |line: &str| {
        let time = line.trim_end_matches(',').parse::<i128>().ok()?;
        Some((2 * time * above * 1_000_000 + below).div_euclid(2 * below) as i64)
    };
    let lines = printed.lines().filter(|line| !line.is_empty() && !is_base(line));
    // Each frame with the size that it has: no scaler is put behind a change. What is lost is
    // concealed by other means if several threads decode.
    let options =
        ["-v", "fatal", "-threads", "1", "-i", path, "-map", "0:V:0", "-fps_mode", "passthrough", "-autoscale", "0"];
    let raw = ["-pix_fmt", "bgr24", "-f", "rawvideo", "-"];
    Judged { times: lines.map(micros).collect(), pictures: output("ffmpeg", options.into_iter().chain(raw)) }
}

/// Each good time of the stream is that of its frame, and what is missing or repeated lies between.
pub(crate) fn wrong_time(got: &[i64], said: &[Option<i64>]) -> Option<String> {
    let increases = got.windows(2).all(|pair| pair[0] < pair[1]);
    // A time that a later frame has too, or that lies before an earlier one's, belongs to no frame
    // alone. Neither does one that leaps ahead of all eight behind it, which go on where those before it
    // were.
    let mut latest = i64::MIN;
    let good = said.iter().enumerate().map(|(frame, time)| {
        let mut behind = said[frame + 1..].iter().take(8).flatten();
        let goes_on = said.get(frame + 1).copied().flatten().is_some_and(|next| next > latest);
        let mut leaps = |time: i64| goes_on && behind.all(|behind| *behind < time);
        let good = time.filter(|time| *time > latest).filter(|time| !leaps(*time));
        latest = latest.max(good.unwrap_or(latest));
        good
    });
    let differs = got.iter().zip(good).position(|(got, good)| good.is_some_and(|good| good != *got));
    match differs {
        Some(frame) => Some(format!("frame {frame} is at {} us, not at {:?}", got[frame], said[frame])),
        None => (!increases).then(|| "times do not increase".to_owned()),
    }
}

fn output(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup.sh --tests"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
