//! Changes of the bytes of a file that no option of ffmpeg makes.

use std::ops::Range;

/// Where the first `needle` begins.
pub(super) fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).unwrap()
}

pub(super) fn set(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// The first four numbers of a display matrix that says where steps go, as 16.16 fixed point
/// numbers times 65,536: right (x, y), down (x, y).
pub(super) fn matrix(bytes: &mut [u8], [a, b, c, d]: [i32; 4]) {
    let track = find(bytes, b"tkhd") + 4;
    let at = track + if bytes[track] == 0 { 40 } else { 52 };
    for (number, value) in [a, b, 0, c, d, 0, 0, 0, 1 << 30].into_iter().enumerate() {
        set(bytes, at + 4 * number, &value.to_be_bytes());
    }
}

/// Flips one bit of each `step` bytes in this part of a file, in thousandths.
pub(super) fn flip_bits(bytes: &mut [u8], part: Range<usize>, step: usize) {
    let range = bytes.len() * part.start / 1000..bytes.len() * part.end / 1000;
    for at in range.step_by(step) {
        bytes[at] ^= 1 << (at % 8);
    }
}

/// Leaves out all behind this share, in thousandths.
pub(super) fn cut(bytes: &mut Vec<u8>, share: usize) {
    bytes.truncate(bytes.len() * share / 1000);
}

/// Gives the first track of a file whose `moov` comes last an edit list of these parts: for how
/// long, in thousandths of a second, and from where in the track, in the same; -1 is a pause.
pub(super) fn edit_list(bytes: &mut Vec<u8>, parts: &[(u32, i32)]) {
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let media = find(bytes, b"mdhd") + 4;
    let scale = word(bytes, media + if bytes[media] == 0 { 12 } else { 20 });
    let mut body = [0_u32.to_be_bytes(), (parts.len() as u32).to_be_bytes()].concat();
    for (length, from) in parts {
        let from = if *from < 0 { -1 } else { (i64::from(*from) * i64::from(scale) / 1000) as i32 };
        // One entry: its length in the movie's scale, which is thousandths, and its rate.
        body.extend([length.to_be_bytes(), from.to_be_bytes(), (1_u32 << 16).to_be_bytes()].concat());
    }
    let boxed = |kind: &[u8; 4], body: &[u8]| [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat();
    let edits = boxed(b"edts", &boxed(b"elst", &body));
    let old = find(bytes, b"edts") - 4;
    let length = word(bytes, old) as usize;
    let grown = edits.len() as u32;
    bytes.splice(old..old + length, edits);
    for kind in [b"moov", b"trak"] {
        let at = find(bytes, kind) - 4;
        let size = word(bytes, at) + grown - length as u32;
        set(bytes, at, &size.to_be_bytes());
    }
}

/// Changes all bytes in this part of a file, in thousandths.
pub(super) fn edit_all(bytes: &mut [u8], part: Range<usize>, edit: fn(&mut u8)) {
    let range = bytes.len() * part.start / 1000..bytes.len() * part.end / 1000;
    bytes[range].iter_mut().for_each(edit);
}
