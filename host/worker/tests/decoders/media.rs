//! What `docs/media.md` lists is taken, entry by entry, and gives what ffprobe and ffmpeg say.

use std::{fs, path::Path, process::Command};

use framehook_core::job::DEFAULT_PICTURE_SIDE;
use framehook_worker::{
    image::{BgrCache, Image},
    source::{self, SourceError},
};

use crate::judge;

/// The first and the last cell of each row of the tables below `heading`.
fn entries(heading: &str) -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/media.md");
    let text = fs::read_to_string(file).unwrap();
    let part = text.split("\n## ").find(|part| part.starts_with(heading)).unwrap();
    let rows = part.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.map(|cells| (cells[0].to_owned(), cells.last().unwrap().trim_matches('`').to_owned())).collect()
}

/// A test pattern, coded with `options`; its name says nothing, as that of a blob.
fn make(folder: &Path, options: &str) -> std::path::PathBuf {
    let file = folder.join("blob");
    let mut command = Command::new("ffmpeg");
    command.args("-v error -y -f lavfi -i testsrc2=s=176x144:r=25:d=1 -frames:v 8 -strict -2".split(' '));
    let output = command.args(options.split(' ')).arg(&file).output().unwrap();
    assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr));
    file
}

fn check(entry: &str, file: &Path) {
    let right = judge::judge(file);
    let mut source = source::open(file, DEFAULT_PICTURE_SIDE).unwrap_or_else(|e| panic!("{entry}: {e}"));
    let (mut image, mut bgr, mut pictures) = (Image::default(), BgrCache::default(), Vec::new());
    let mut times = Vec::new();
    while let Some(position) = source.advance().unwrap() {
        source.picture(&mut image).unwrap();
        bgr.clear();
        let pixels = bgr.get(&image).unwrap();
        for row in pixels.data.chunks(pixels.stride).take(pixels.height as usize) {
            pictures.extend_from_slice(&row[..pixels.width as usize * 3]);
        }
        times.push(position.pts_us);
    }
    assert_eq!(times.len(), right.times.len(), "{entry}");
    assert_eq!(judge::wrong_time(&times, &right.times), None, "{entry}");
    assert!(pictures == right.pictures, "{entry}: other pictures than ffmpeg's");
    assert!(source.check_end().unwrap().is_none() && source.damaged() == 0, "{entry}");
}

#[test]
fn each_container_and_codec_of_the_list_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let listed: Vec<_> = ["Containers", "Codecs"].into_iter().flat_map(entries).collect();
    assert!(listed.len() > 45, "the tables were not found");
    for (entry, options) in listed {
        check(&entry, &make(folder.path(), &options));
    }
}

#[test]
fn what_is_not_on_the_list_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (options, words) in [
        ("-c:v snow -f avi", "coded as snow"),
        ("-c:v asv1 -f avi", "coded as asv1"),
        ("-c:v libx264 -f nut", "it is a NUT file"),
        ("-c:v rv20 -f rm", "it is a RealMedia file"),
        ("-c:v apng -f apng", "PNG image"),
        ("-c:v libwebp -frames:v 1 -f webp", "WebP image"),
        ("-c:v libx264 -f hls -hls_flags single_file", "playlist (M3U)"),
    ] {
        let refused = source::open(&make(folder.path(), options), DEFAULT_PICTURE_SIDE);
        let message = refused.err().as_ref().map(SourceError::to_string).unwrap_or_default();
        assert!(message.contains(words), "{options}: {message}");
    }
}
