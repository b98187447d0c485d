//! The outline of an MP4 or QuickTime file: its top-level boxes, and what `moov` declares.
//!
//! FFmpeg opens a damaged file as far as it goes and says nothing; the outline tells exactly where
//! and by how much a file is short. Nothing is read but headers: `mdat` is passed over.

use std::io::{self, Read, Seek, SeekFrom};

use crate::cut::Cut;

/// What the boxes of a file say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    pub has_moov: bool,
    /// Fragments follow: the counts in `moov` are not the whole file.
    pub fragmented: bool,
    /// A track of pictures is declared. Meaningless without `moov`.
    pub has_video: bool,
    pub has_audio: bool,
    /// The widest and the highest picture that a track of pictures declares.
    pub picture: Option<[u32; 2]>,
    /// Seconds, if `moov` declares them.
    pub duration: Option<f64>,
    /// The first box that reaches past the end of the file.
    pub cut: Option<Cut>,
}

/// A box is never shorter than its size and type.
const HEADER: u64 = 8;
/// `moov` holds tables of a few bytes a sample: 64 MiB is several days of video.
const MAX_MOOV: u64 = 64 << 20;

/// Boxes of the top level. What is none of them behind the last is what a vendor put there, text often, and
/// not a box that was cut off.
const KNOWN: [&[u8; 4]; 16] = [
    b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx", b"mfra", b"meta", b"uuid",
    b"udta", b"pnot", b"pdin", b"emsg",
];

/// Reads the outline; `None` if `file` does not begin like an MP4 or QuickTime file.
///
/// # Errors
/// When `file` cannot be read.
pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Option<Outline>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut outline = Outline::default();
    let mut at = 0;
    while length.saturating_sub(at) >= HEADER {
        file.seek(SeekFrom::Start(at))?;
        let Some(header) = BoxHeader::read(file, length - at)? else { break };
        if at == 0 && !matches!(&header.kind, b"ftyp" | b"moov" | b"mdat" | b"free" | b"skip" | b"wide" | b"styp") {
            return Ok(None);
        }
        let end = at.saturating_add(header.size);
        if end > length && KNOWN.contains(&&header.kind) {
            outline.cut = Some(Cut { kind: header.kind.escape_ascii().to_string(), needs: end, has: length });
        }
        match &header.kind {
            b"moov" => {
                outline.has_moov = true;
                let body = header.size.min(length - at).saturating_sub(header.length).min(MAX_MOOV);
                let mut moov = Vec::new();
                file.by_ref().take(body).read_to_end(&mut moov)?;
                outline.read_moov(&moov);
            }
            b"moof" => outline.fragmented = true,
            _ => {}
        }
        at = end;
    }
    Ok((length >= HEADER && at > 0).then_some(outline))
}

struct BoxHeader {
    kind: [u8; 4],
    /// With the header.
    size: u64,
    length: u64,
}

impl BoxHeader {
    /// `None` for what cannot be a box; `left` bytes remain in the file.
    fn read(file: &mut impl Read, left: u64) -> io::Result<Option<Self>> {
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let [s0, s1, s2, s3, kind @ ..] = head;
        let (size, length) = match u32::from_be_bytes([s0, s1, s2, s3]) {
            // The last box may leave its size open.
            0 => (left, HEADER),
            1 if left >= 16 => {
                let mut large = [0; 8];
                file.read_exact(&mut large)?;
                (u64::from_be_bytes(large), 16)
            }
            size => (u64::from(size), HEADER),
        };
        let plausible = size >= length && kind.iter().all(|b| b.is_ascii_graphic() || matches!(b, b' ' | 0xa9));
        Ok(plausible.then_some(Self { kind, size, length }))
    }
}

impl Outline {
    fn read_moov(&mut self, moov: &[u8]) {
        for (kind, body) in children(moov) {
            match kind {
                b"mvhd" => self.duration = movie_duration(body),
                b"mvex" => self.fragmented = true,
                b"trak" => {
                    let media = child(body, b"mdia").unwrap_or_default();
                    // Version, flags and a reserved word lie before the handler's type.
                    match child(media, b"hdlr").and_then(|hdlr| hdlr.get(8..12)) {
                        Some(b"vide") => {
                            self.has_video = true;
                            self.read_pictures(media);
                        }
                        Some(b"soun") => self.has_audio = true,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// A table of samples may describe several kinds of picture; the decoder takes its sizes from here.
    fn read_pictures(&mut self, media: &[u8]) {
        let table = child(media, b"minf").and_then(|minf| child(minf, b"stbl")).and_then(|stbl| child(stbl, b"stsd"));
        // Version, flags and the number of entries.
        let entries = table.and_then(|stsd| stsd.get(8..)).unwrap_or_default();
        for (_, entry) in children(entries) {
            if let Some([w1, w0, h1, h0]) = entry.get(24..28) {
                let [width, height] = self.picture.unwrap_or_default();
                let declared = [[*w1, *w0], [*h1, *h0]].map(|side| u32::from(u16::from_be_bytes(side)));
                self.picture = Some([width.max(declared[0]), height.max(declared[1])]);
            }
        }
    }
}

fn child<'a>(body: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    children(body).find(|(kind, _)| *kind == wanted).map(|(_, body)| body)
}

/// The boxes inside a box, as far as they are whole.
fn children(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (size, tail) = rest.split_first_chunk::<4>()?;
        let (kind, _) = tail.split_first_chunk::<4>()?;
        let size = u32::from_be_bytes(*size) as usize;
        let body = rest.get(8..size)?;
        rest = &rest[size..];
        Some((kind, body))
    })
}

/// From `mvhd`: version 1 has 64-bit times and duration, version 0 has 32-bit ones.
fn movie_duration(body: &[u8]) -> Option<f64> {
    let u32_at = |at: usize| body.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (timescale, duration) = match body.first()? {
        0 => (u32_at(12)?, u64::from(u32_at(16)?)),
        _ => (u32_at(20)?, u64::from(u32_at(24)?) << 32 | u64::from(u32_at(28)?)),
    };
    (timescale > 0 && duration > 0).then(|| duration as f64 / f64::from(timescale))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 8).unwrap();
        [&size.to_be_bytes()[..], kind, body].concat()
    }

    fn movie(handler: &[u8; 4]) -> Vec<u8> {
        let hdlr = boxed(b"hdlr", &[&[0; 8][..], handler, &[0; 12]].concat());
        let entry = |width: u16, height: u16| {
            boxed(b"avc1", &[&[0; 24][..], &width.to_be_bytes(), &height.to_be_bytes(), &[0; 50]].concat())
        };
        let stsd = boxed(b"stsd", &[&[0; 8][..], &entry(640, 480), &entry(320, 700)].concat());
        let minf = boxed(b"minf", &boxed(b"stbl", &stsd));
        let trak = boxed(b"trak", &boxed(b"mdia", &[hdlr, minf].concat()));
        let mut mvhd = vec![0; 100];
        mvhd[12..16].copy_from_slice(&1000u32.to_be_bytes());
        mvhd[16..20].copy_from_slice(&2500u32.to_be_bytes());
        boxed(b"moov", &[boxed(b"mvhd", &mvhd), trak].concat())
    }

    fn outline(bytes: &[u8]) -> Option<Outline> {
        read(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn a_whole_file_is_read_to_its_end() {
        let file = [boxed(b"ftyp", b"isom"), movie(b"vide"), boxed(b"mdat", &[0; 500])].concat();
        let picture = Some([640, 700]);
        let expected = Outline { has_moov: true, has_video: true, duration: Some(2.5), picture, ..Outline::default() };
        assert_eq!(outline(&file), Some(expected));
    }

    #[test]
    fn every_cut_is_found_to_the_byte() {
        let file = [boxed(b"ftyp", b"isom"), movie(b"vide"), boxed(b"mdat", &[0; 500])].concat();
        for has in file.len() - 500..file.len() {
            let cut = outline(&file[..has]).unwrap().cut;
            let expected = Cut { kind: "mdat".into(), needs: file.len() as u64, has: has as u64 };
            assert_eq!(cut, Some(expected), "{has}");
        }
    }

    #[test]
    fn what_a_vendor_wrote_behind_the_last_box_is_no_cut() {
        let file = [boxed(b"ftyp", b"isom"), movie(b"vide"), boxed(b"mdat", &[0; 500])].concat();
        let trailed = [&file[..], b"GPSINFO v2 lat=0.0000 lon=0.0000 speed=0\n"].concat();
        assert_eq!(outline(&trailed), outline(&file));
    }

    #[test]
    fn a_box_may_reach_past_every_number() {
        let endless = [&1u32.to_be_bytes()[..], b"moov", &u64::MAX.to_be_bytes(), &[0; 40]].concat();
        let file = [boxed(b"ftyp", b"isom"), endless].concat();
        let cut = Cut { kind: "moov".into(), needs: u64::MAX, has: file.len() as u64 };
        assert_eq!(outline(&file).unwrap().cut, Some(cut));
    }

    #[test]
    fn sound_only_and_no_moov() {
        let sound = outline(&[boxed(b"ftyp", b"M4A "), movie(b"soun")].concat()).unwrap();
        assert!(sound.has_audio && !sound.has_video && sound.picture.is_none());
        assert!(!outline(&[boxed(b"ftyp", b"isom"), boxed(b"mdat", b"1234")].concat()).unwrap().has_moov);
    }

    #[test]
    fn other_files_have_no_outline() {
        for other in [&b""[..], b"short", b"hello world, this is text", &[0xff; 64], b"\x1a\x45\xdf\xa3matroska"] {
            assert_eq!(outline(other), None, "{other:?}");
        }
    }

    #[test]
    fn damage_inside_never_panics() {
        let file = [boxed(b"ftyp", b"isom"), movie(b"vide"), boxed(b"mdat", &[0; 5])].concat();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0xff;
            outline(&damaged);
        }
    }
}
