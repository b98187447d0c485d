//! What a file itself says, before any decoder sees it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use framehook_formats::{
    cut::{self, Cut},
    isobmff::{self, Outline},
};

use super::SourceError;

/// Long enough for every signature, and for telling text from a container.
const HEAD: u64 = 4096;

/// The first word of a video of raw pictures, whose head is a line of text.
const Y4M: &[u8] = b"YUV4MPEG2 ";

/// What was seen.
pub(super) struct Inspected {
    pub(super) file: File,
    /// What an MP4 or QuickTime file has.
    pub(super) outline: Option<Outline>,
    /// Where the file was cut off, whatever it is.
    pub(super) cut: Option<Cut>,
}

/// Looks at the file itself, before any decoder does.
pub(super) fn inspect(path: &Path) -> Result<Inspected, SourceError> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SourceError::Missing,
        _ => SourceError::Unreadable(error),
    })?;
    let metadata = file.metadata().map_err(SourceError::Unreadable)?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile);
    }
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head).map_err(SourceError::Unreadable)?;
    if head.is_empty() {
        return Err(SourceError::Empty);
    }
    if let Some(format) = image_format(&head) {
        return Err(SourceError::Image(format));
    }
    if let Some(format) = foreign_format(&head) {
        return Err(SourceError::Foreign(format));
    }
    // A short picture of flat colours behind the first line may look like text.
    if is_text(&head) && !head.starts_with(Y4M) {
        return Err(SourceError::Text);
    }
    let outline = isobmff::read(&mut file).map_err(SourceError::Unreadable)?;
    let Some(outline) = outline else {
        let cut = cut::read(&mut file).map_err(SourceError::Unreadable)?;
        return Ok(Inspected { file, outline: None, cut });
    };
    let cut = outline.cut.clone();
    if !outline.has_moov {
        // `moov` may lie behind what is missing.
        return Err(cut.map_or(SourceError::NoMoov, SourceError::Truncated));
    }
    // A cut `moov` may have lost the track.
    if !outline.has_video && cut.is_none() {
        return Err(if outline.has_audio { SourceError::AudioOnly } else { SourceError::NoVideoTrack });
    }
    Ok(Inspected { file, outline: Some(outline), cut })
}

/// An image as messages name it: still, unless its format may hold an animation.
pub(super) fn image(format: &str) -> String {
    match format {
        "GIF" | "PNG" | "WebP" | "JPEG XL" | "HEIC" | "HEIF" => format!("a {format} image"),
        "AVIF" => format!("an {format} image"),
        _ => format!("a still {format} image"),
    }
}

/// FFmpeg opens an image as a video of one frame, which nobody means.
fn image_format(head: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 21] = [
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"BM", "BMP"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"II+\0", "TIFF"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"8BPS", "Photoshop"),
        (b"qoif", "QOI"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"SDPX", "DPX"),
        (b"XPDS", "DPX"),
        (b"DDS ", "DirectDraw"),
        (b"#?RADIANCE", "Radiance"),
        (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
        (b"\x0a\x05\x01\x08", "PCX"),
    ];
    /// Files with boxes, by the brand that they name first.
    const BRANDS: [(&[u8], &str); 13] = [
        (b"avif", "AVIF"),
        (b"avis", "AVIF"),
        (b"heic", "HEIC"),
        (b"heix", "HEIC"),
        (b"heim", "HEIC"),
        (b"heis", "HEIC"),
        (b"hevc", "HEIC"),
        (b"hevx", "HEIC"),
        (b"mif1", "HEIF"),
        (b"msf1", "HEIF"),
        (b"mif2", "HEIF"),
        (b"avci", "HEIF"),
        (b"crx ", "Canon raw"),
    ];
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some("WebP");
    }
    if head.get(4..8) == Some(b"ftyp") {
        let brand = head.get(8..12)?;
        return BRANDS.iter().find(|(known, _)| *known == brand).map(|(_, format)| *format);
    }
    // `P6`, a line's end or a space, and numbers.
    if let [b'P', b'1'..=b'7' | b'F' | b'f', b'\n' | b'\r' | b' ', ..] = head {
        return Some("Netpbm");
    }
    SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)).map(|(_, format)| *format)
}

/// What people upload by mistake, and containers that are not taken.
fn foreign_format(head: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(&[u8], &str); 32] = [
        (b"nut/multimedia container\0", "a NUT file"),
        (b".RMF", "a RealMedia file"),
        (b"\x1f\x07\x00", "a DV stream without a container"),
        (b"\x12\x00\x0a", "an AV1 stream without a container"),
        (b"BBCD", "a Dirac stream"),
        (b"\0\0\0\0\x01\xbc\0", "a GXF file"),
        (b"\xb7\xd8\x00\x20\x37\x49\xda\x11", "a WTV file"),
        (b"FWS", "a Flash animation"),
        (b"CWS", "a Flash animation"),
        (b"ZWS", "a Flash animation"),
        (b"BIK", "a Bink video"),
        (b"SMK", "a Smacker video"),
        (b"\x84\x10\xff\xff\xff\xff", "a RoQ video"),
        (b"NSV", "a Nullsoft video"),
        (b"caff", "a CAF file, which has no video track"),
        (b"\xff\xf1", "an AAC file, which has no video track"),
        (b"\xff\xf9", "an AAC file, which has no video track"),
        (b"ID3", "an MP3 file, which has no video track"),
        (b"fLaC", "a FLAC file, which has no video track"),
        (b"#!AMR", "an AMR file, which has no video track"),
        (b"MThd", "a MIDI file, which has no video track"),
        (b"PK\x03\x04", "a ZIP archive; unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
        (b"Rar!", "a RAR archive; unpack it"),
        (b"\x1f\x8b", "compressed by gzip; unpack it"),
        (b"BZh", "compressed by bzip2; unpack it"),
        (b"\xfd7zXZ\0", "compressed by xz; unpack it"),
        (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it"),
        (b"#EXTM3U", "a playlist (M3U); give the video itself"),
        (b"%PDF", "a PDF document"),
        (b"\x7fELF", "a program"),
        (b"SQLite format 3\0", "a database of SQLite"),
    ];
    if (head.starts_with(b"RIFF") || head.starts_with(b"RF64")) && head.get(8..12) == Some(b"WAVE") {
        return Some("a WAV file, which has no video track");
    }
    if head.get(TAR_AT..TAR_AT + 5) == Some(b"ustar") {
        return Some("a tar archive; unpack it");
    }
    SIGNATURES.iter().find(|(signature, _)| head.starts_with(signature)).map(|(_, format)| *format)
}

/// Where the head of a tar archive says so: behind the name and what belongs to it.
const TAR_AT: usize = 257;

/// A playlist is text too: FFmpeg would follow what it names, so it must never get one.
fn is_text(head: &[u8]) -> bool {
    let printable = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e) || *b >= 0x80;
    // A multi-byte character may be cut at the end of `head`.
    let utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    utf8 && head.iter().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_images_are_recognised() {
        assert!(is_text(b"#EXTM3U\nhttp://example.org/a.ts\n") && is_text("grüße".as_bytes()));
        assert!(is_text(&"ü".as_bytes()[..1]));
        assert!(!is_text(b"\0\0\0\x20ftypisom") && !is_text(&[0xff, 0xfe, 0x41]));
        assert_eq!(image_format(b"\xff\xd8\xff\xe0rest"), Some("JPEG"));
        assert_eq!(image_format(b"RIFF\0\0\0\0WEBPVP8 "), Some("WebP"));
        assert_eq!(image_format(b"RIFF\0\0\0\0AVI LIST"), None);
        assert_eq!(image_format(b"\0\0\0\x20ftypavif\0\0\0\0"), Some("AVIF"));
        assert_eq!(image_format(b"\0\0\0\x18ftypheic"), Some("HEIC"));
        assert_eq!(image_format(b"\0\0\0\x20ftypisom\0\0\0\0avif"), None);
    }
}
