//! Recorded outputs: what the model of a scenario gave for each frame, kept so that its post hooks can be run
//! again without decoder and model.
//!
//! A worker sends the outputs of a frame before the frame's prediction. Its runner gathers them into *parts*
//! of some MiB, each a blob that is named in the store. What is in a part is a worker's business
//! (`framehook_formats::outputs`); here is what the others need to know: where a part lies in its stream,
//! which parts make up the whole, and where frames are missing.
//!
//! Invariant: nothing is hidden. A frame that was stored and not recorded is in a [`Gap`].

use std::io::{self, Write};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{Digest, Generation, ScenarioId},
    job::MAX_RECORD,
    prediction::Position,
    state::words,
};

words! {
    /// What is kept of a scenario besides its predictions.
    Record {
        None = "none",
        /// What the model gave for each frame, so that other post hooks can be tried on it.
        Outputs = "outputs",
    }
}

words! {
    /// What a replay reads.
    ReplayFrom {
        /// The recorded outputs: nothing is decoded and no model runs. Pre hooks do not run either.
        Outputs = "outputs",
        /// The source, once more.
        Source = "source",
    }
}

#[expect(clippy::derivable_impls, reason = "`words` derives for all")]
impl Default for Record {
    fn default() -> Self {
        Self::None
    }
}

impl Record {
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Bytes at which a part is finished: some hundred frames of a small detector. Two of them wait in the memory
/// of a runner at most, for each scenario that records.
pub const PART_BYTES: usize = 4 << 20;

/// Parts of a scenario that are kept, whatever their size: a replay names all that it reads.
pub const MAX_PARTS: u32 = 1_000;

/// Bytes of what a stream says of itself, at the beginning of each part: names of classes are most of it.
pub const MAX_OPENING: usize = 256 << 10;

/// A blob with the outputs of consecutive frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// The deployment that recorded it.
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// Place among the parts of that deployment, from 0.
    pub number: u32,
    pub digest: Digest,
    pub bytes: u64,
    pub frames: u64,
    pub first: Position,
    pub last: Position,
    /// The frame of the scenario before the first one; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
}

/// "These outputs are in the blob store": a part, of which scenario, and how much of them that may keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordedPart {
    pub scenario_id: ScenarioId,
    #[serde(flatten)]
    pub part: Part,
    /// Bytes of all parts of the scenario, at most: the oldest go.
    pub keep_bytes: u64,
}

/// What a scenario that is a replay repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replay {
    /// The scenario whose frames these are.
    pub of: ScenarioId,
    pub from: ReplayFrom,
    /// When that scenario was created: times of capture count from it.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Recorded outputs, in the order in which they are read; empty where it reads the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ReplayedPart>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplayedPart {
    pub digest: Digest,
    /// Frames from this time on are not read from it: a later deployment recorded them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_us: Option<i64>,
}

/// Frames between two positions whose outputs are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// The last frame before it; absent: it is at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
    /// Its last frame.
    pub last: Position,
}

/// What is used of the parts of a scenario, in the order of its frames: a deployment that goes on behind a
/// stored frame records those behind it again, and what it recorded counts.
#[must_use]
pub fn in_order(mut parts: Vec<Part>) -> Vec<(Part, Option<i64>)> {
    parts.sort_by_key(|part| (part.generation, part.number));
    let mut used = Vec::with_capacity(parts.len());
    // The first frame of all later deployments.
    let mut until = None::<i64>;
    let mut of = None;
    let mut first = None::<i64>;
    for part in parts.into_iter().rev() {
        if of != Some(part.generation) {
            until = until.into_iter().chain(first).min();
            (of, first) = (Some(part.generation), None);
        }
        first = first.into_iter().chain([part.first.pts_us]).min();
        if until.is_none_or(|until| part.first.pts_us < until) {
            let cut = until.filter(|until| part.last.pts_us >= *until);
            used.push((part, cut));
        }
    }
    used.reverse();
    used
}

/// Where frames are missing, of a scenario whose last stored frame is `stored`. `used` is what [`in_order`]
/// gives.
#[must_use]
pub fn gaps(used: &[(Part, Option<i64>)], stored: Option<Position>) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut seen = None::<Position>;
    for (at, (part, cut)) in used.iter().enumerate() {
        if let Some(after) = part.after.filter(|after| Some(*after) > seen) {
            gaps.push(Gap { after: seen, last: after });
        }
        // One that is cut is used up to the next one's first frame.
        let next = used.get(at + 1).and_then(|(next, _)| next.after);
        seen =
            seen.max(Some(if cut.is_some() { next.map_or(part.last, |next| next.min(part.last)) } else { part.last }));
    }
    if let Some(stored) = stored.filter(|stored| Some(*stored) > seen) {
        gaps.push(Gap { after: seen, last: stored });
    }
    gaps
}

/// What a worker sends of its outputs, among its reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent<'a> {
    /// What the stream says of itself; once, before any frame.
    Opening(&'a [u8]),
    /// The outputs of a frame, before its prediction; empty if they are too large, and so not recorded.
    Frame(Position, &'a [u8]),
}

/// How such a record begins: JSON begins with neither.
const OPENING: u8 = 1;
const FRAME: u8 = 2;
/// A kind, and the position of a frame.
const BEFORE_FRAME: usize = 1 + 8 + 8;

/// Bytes of a frame's outputs that one record has room for.
pub const MAX_FRAME: usize = MAX_RECORD - BEFORE_FRAME;

impl<'a> Sent<'a> {
    /// Whether a record is one of these.
    #[must_use]
    pub fn is(record: &[u8]) -> bool {
        matches!(record.first(), Some(&(OPENING | FRAME)))
    }

    /// `None`: it is cut off, or something else.
    #[must_use]
    pub fn read(record: &'a [u8]) -> Option<Self> {
        let (kind, rest) = record.split_first()?;
        match *kind {
            OPENING => Some(Self::Opening(rest)),
            FRAME => {
                let (pts_us, rest) = rest.split_first_chunk()?;
                let (frame, rest) = rest.split_first_chunk()?;
                let position = Position { pts_us: i64::from_le_bytes(*pts_us), frame: u64::from_le_bytes(*frame) };
                Some(Self::Frame(position, rest))
            }
            _ => None,
        }
    }

    /// Writes it as a record, with its length before it.
    ///
    /// # Errors
    /// When the pipe is closed, or it is longer than a record may be.
    pub fn write(self, out: &mut impl Write) -> io::Result<()> {
        let (kind, position, body) = match self {
            Self::Opening(body) => (OPENING, None, body),
            Self::Frame(position, body) => (FRAME, Some(position), body),
        };
        let before = if position.is_some() { BEFORE_FRAME } else { 1 };
        let length = u32::try_from(before + body.len()).ok().filter(|length| *length as usize <= MAX_RECORD);
        let length = length.ok_or_else(|| io::Error::other("outputs of more bytes than a record may have"))?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&[kind])?;
        if let Some(Position { pts_us, frame }) = position {
            out.write_all(&pts_us.to_le_bytes())?;
            out.write_all(&frame.to_le_bytes())?;
        }
        out.write_all(body)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(frame: u64) -> Position {
        Position { pts_us: frame as i64 * 40_000, frame }
    }

    fn part(generation: Generation, number: u32, frames: std::ops::RangeInclusive<u64>, after: Option<u64>) -> Part {
        Part {
            generation,
            number,
            digest: Digest::from_bytes(&[number as u8; 32]),
            bytes: 1,
            frames: frames.clone().count() as u64,
            first: at(*frames.start()),
            last: at(*frames.end()),
            after: after.map(at),
        }
    }

    fn gap(after: Option<u64>, last: u64) -> Gap {
        Gap { after: after.map(at), last: at(last) }
    }

    #[test]
    fn gaps_are_told_wherever_they_are() {
        for (parts, stored, cuts, expected) in [
            (vec![], None, vec![], vec![]),
            (vec![], Some(3), vec![], vec![gap(None, 3)]),
            (vec![part(1, 0, 0..=4, None), part(1, 1, 5..=9, Some(4))], Some(9), vec![None, None], vec![]),
            // The oldest went.
            (vec![part(1, 1, 5..=9, Some(4))], Some(9), vec![None], vec![gap(None, 4)]),
            // One in the middle is missing, and the end.
            (
                vec![part(1, 0, 0..=4, None), part(1, 2, 8..=9, Some(7))],
                Some(12),
                vec![None, None],
                vec![gap(Some(4), 7), gap(Some(9), 12)],
            ),
            // A later deployment went on behind frame 6, of which what the first recorded behind it is of no
            // use.
            (
                vec![part(1, 0, 0..=4, None), part(1, 1, 5..=9, Some(4)), part(2, 0, 7..=12, Some(6))],
                Some(12),
                vec![None, Some(7), None],
                vec![],
            ),
            // It went on behind frame 7, and the first had recorded up to 4 alone.
            (
                vec![part(2, 0, 8..=12, Some(7)), part(1, 0, 0..=4, None)],
                Some(12),
                vec![None, None],
                vec![gap(Some(4), 7)],
            ),
            // What the first recorded is of no use at all.
            (vec![part(1, 0, 0..=4, None), part(2, 0, 0..=9, None)], Some(9), vec![None], vec![]),
        ] {
            let used = in_order(parts.clone());
            let found: Vec<_> = used.iter().map(|(_, cut)| cut.map(|us| us / 40_000)).collect();
            assert_eq!(found, cuts, "{parts:?}");
            assert_eq!(gaps(&used, stored.map(at)), expected, "{parts:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_sent_is_read(pts_us: i64, frame: u64, body: Vec<u8>, cut in 0..1000usize) {
            for sent in [Sent::Opening(&body), Sent::Frame(Position { pts_us, frame }, &body)] {
                let mut record = Vec::new();
                sent.write(&mut record).unwrap();
                let (length, record) = record.split_first_chunk().unwrap();
                prop_assert_eq!(u32::from_le_bytes(*length) as usize, record.len());
                prop_assert!(Sent::is(record));
                prop_assert_eq!(Sent::read(record), Some(sent));
                // Whatever is left of it, it does not panic.
                std::hint::black_box(Sent::read(&record[..cut.min(record.len())]));
            }
            let is_one = [&b"{}"[..], b"\"alive\""].map(Sent::is);
            prop_assert_eq!(is_one, [false, false]);
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_not_begun() {
        let mut out = Vec::new();
        let body = vec![0; MAX_FRAME + 1];
        assert!(Sent::Frame(at(0), &body).write(&mut out).is_err() && out.is_empty());
        Sent::Frame(at(0), &body[1..]).write(&mut out).unwrap();
    }
}
