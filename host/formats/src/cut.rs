//! Where a file would end, as its container declares it: a file that is shorter was cut off.
//!
//! Deliberately absent: containers that do not say how long they are, such as MPEG transport
//! streams.

use std::io::{self, Read, Seek, SeekFrom};

/// A part of a file that is longer than what is left of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The container's own name for it.
    pub kind: String,
    /// Where the file would end if the part were whole.
    pub needs: u64,
    pub has: u64,
}

/// Where a Matroska, WebM, AVI or Flash file was cut off; `None` for a whole one, and for any other
/// file.
///
/// # Errors
/// When `file` cannot be read.
pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Option<Cut>> {
    let has = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head)?;
    let declared = match head.get(..4) {
        Some([0x1a, 0x45, 0xdf, 0xa3]) => segment_end(&head).map(|end| ("Segment", end)),
        Some(b"RIFF") => Some(("RIFF", riff_end(file, has)?)),
        Some(b"FLV\x01") => Some(("tag", flash_end(file, &head, has)?)),
        _ => None,
    };
    let cut = declared.filter(|(_, end)| *end > has);
    Ok(cut.map(|(kind, needs)| Cut { kind: kind.to_owned(), needs, has }))
}

/// The header before a segment has some forty bytes.
const HEAD: u64 = 4096;

/// From the header of a Matroska file: behind it comes the segment, which is all the rest. A
/// recorder that could not go back leaves its size open.
fn segment_end(head: &[u8]) -> Option<u64> {
    let (header, length) = size(head.get(4..)?)?;
    let at = 4 + length + usize::try_from(header?).ok()?;
    let segment = head.get(at..)?.strip_prefix(&[0x18, 0x53, 0x80, 0x67])?;
    let (body, length) = size(segment)?;
    (at as u64 + 4 + length as u64).checked_add(body?)
}

/// A size of EBML and the bytes that it takes: as many as the first one has zeros before its first
/// one. All ones: unknown.
fn size(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    let value = bytes.get(..length)?.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    // More than eight bytes are none of Matroska's.
    let mask = 1u64.checked_shl(u32::try_from(7 * length).ok()?).filter(|_| length <= 8)? - 1;
    Some((Some(value & mask).filter(|size| *size != mask), length))
}

/// A large AVI file is several RIFF chunks, one behind the other.
fn riff_end(file: &mut (impl Read + Seek), has: u64) -> io::Result<u64> {
    let mut end = 0;
    let mut header = [0; 8];
    while end + 8 <= has {
        file.seek(SeekFrom::Start(end))?;
        file.read_exact(&mut header)?;
        let [b'R', b'I', b'F', b'F', size @ ..] = header else { break };
        // Chunks begin at even places.
        let size = u64::from(u32::from_le_bytes(size));
        end += 8 + size + size % 2;
    }
    Ok(end)
}

/// A Flash file is a row of tags, of which each says how long it is: sound, picture or script.
/// Where it was cut between two of them, nothing tells.
fn flash_end(file: &mut (impl Read + Seek), head: &[u8], has: u64) -> io::Result<u64> {
    let Some(begins) = head.get(5..9) else { return Ok(0) };
    // Behind the file's own header, and each tag, is the size of the tag before.
    let mut end = u64::from(begins.iter().fold(0, |size: u32, byte| size << 8 | u32::from(*byte)));
    let mut header = [0; 11];
    while end + 4 + header.len() as u64 <= has {
        file.seek(SeekFrom::Start(end + 4))?;
        file.read_exact(&mut header)?;
        let [8 | 9 | 18, s2, s1, s0, ..] = header else { break };
        end += 4 + header.len() as u64 + u64::from(u32::from_be_bytes([0, s2, s1, s0]));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn cut(bytes: &[u8]) -> Option<(String, u64, u64)> {
        read(&mut Cursor::new(bytes)).unwrap().map(|cut| (cut.kind, cut.needs, cut.has))
    }

    /// An empty EBML header, and a segment that declares 100 bytes.
    fn matroska(size: &[u8], body: usize) -> Vec<u8> {
        [&[0x1a, 0x45, 0xdf, 0xa3, 0x80, 0x18, 0x53, 0x80, 0x67][..], size, &vec![0; body]].concat()
    }

    #[test]
    fn a_segment_says_where_it_ends() {
        assert_eq!(cut(&matroska(&[0x80 | 100], 100)), None);
        assert_eq!(cut(&matroska(&[0x80 | 100], 99)), Some(("Segment".into(), 110, 109)));
        assert_eq!(cut(&matroska(&[0x40, 100], 99)), Some(("Segment".into(), 111, 110)));
        assert_eq!(cut(&matroska(&[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 5)), None, "unknown");
    }

    #[test]
    fn riff_chunks_follow_each_other() {
        let chunk = |size: u32, body: usize| [b"RIFF", &size.to_le_bytes()[..], &vec![7; body]].concat();
        assert_eq!(cut(&chunk(40, 40)), None);
        assert_eq!(cut(&[chunk(41, 42), chunk(40, 30)].concat()), Some(("RIFF".into(), 98, 88)));
        assert_eq!(cut(&[chunk(40, 40), b"trailing text of a vendor".to_vec()].concat()), None);
        assert_eq!(cut(&chunk(0, 99)), None, "a recorder that was never closed");
    }

    #[test]
    fn tags_follow_each_other() {
        let tag = |kind: u8, body: u8| [&[0, 0, 0, 0, kind, 0, 0, body][..], &[0; 7], &vec![7; body.into()]].concat();
        let whole = [b"FLV\x01\x05\0\0\0\x09".to_vec(), tag(18, 40), tag(9, 60), vec![0; 4]].concat();
        assert_eq!(cut(&whole), None);
        assert_eq!(cut(&whole[..whole.len() - 4]), None, "not every recorder writes the last size");
        assert_eq!(cut(&whole[..138]), Some(("tag".into(), 139, 138)));
        assert_eq!(cut(&[&whole[..], b"trailing text of a vendor"].concat()), None);
        assert_eq!(cut(&whole[..70]), None, "between two tags");
    }

    #[test]
    fn other_files_and_damaged_ones_say_nothing() {
        for bytes in [
            &b""[..],
            b"FLV\x01",
            b"FLV\x01\x05\0\0\0\x09\0\0\0\0",
            b"RIF",
            b"RIFF",
            &[0x1a, 0x45, 0xdf, 0xa3],
            &[0x1a, 0x45, 0xdf, 0xa3, 0],
            b"hello, world",
        ] {
            assert_eq!(cut(bytes), None, "{bytes:?}");
        }
        let whole = matroska(&[0x40, 100], 10);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            cut(&damaged);
        }
    }
}
