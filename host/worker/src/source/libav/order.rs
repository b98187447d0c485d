//! Where packets belong in the order of presentation, found as they are read in that of decoding.
//!
//! Invariant: a time is given only if nothing that may still come goes before it.

use std::{cmp::Reverse, collections::BinaryHeap};

use ffmpeg_next::{Packet, ffi, packet::Ref as _};

/// More frames than any codec reorders.
pub(super) const REORDERED: usize = 64;

/// Frames that a codec holds back at most. A time that moves its frame further is wrong.
const HELD_BACK: u64 = 16;

/// Packets that each have a presentation time of their own, and decoding times that increase.
#[derive(Default)]
pub(super) struct Order {
    decoding: Option<i64>,
    /// Presentation times that a packet to come might still go before, and the places of their packets.
    ahead: BinaryHeap<Reverse<(i64, u64)>>,
    admitted: u64,
    /// How many were given, and the last one.
    given: u64,
    shown: Option<i64>,
}

/// The packets do not say where each frame belongs.
#[derive(Debug)]
pub(super) struct Unordered;

impl Order {
    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.shown.is_none()
    }

    /// Takes one packet more; gives the time of the frame that comes next, once it is known.
    pub(super) fn admit(&mut self, packet: &Packet) -> Result<Option<i64>, Unordered> {
        let goes_back = packet.dts().is_some_and(|time| self.decoding.is_some_and(|before| time <= before));
        if packet.is_corrupt() || goes_back {
            return Err(Unordered);
        }
        self.decoding = packet.dts().or(self.decoding);
        self.expect(packet.pts().ok_or(Unordered)?);
        if self.ahead.len() <= REORDERED { Ok(None) } else { self.next() }
    }

    /// A frame of this time is to come.
    pub(super) fn expect(&mut self, time: i64) {
        self.ahead.push(Reverse((time, self.admitted)));
        self.admitted += 1;
    }

    /// The time of the frame that comes next, when there are no more packets.
    pub(super) fn next(&mut self) -> Result<Option<i64>, Unordered> {
        let Some(Reverse((time, place))) = self.ahead.pop() else { return Ok(None) };
        if self.shown.is_some_and(|shown| time <= shown) || place.abs_diff(self.given) > HELD_BACK {
            return Err(Unordered);
        }
        (self.given, self.shown) = (self.given + 1, Some(time));
        Ok(Some(time))
    }
}

/// An edit list may want a frame decoded and not shown.
pub(super) fn is_shown(packet: &Packet) -> bool {
    // SAFETY: the packet is valid.
    unsafe { (*packet.as_ptr()).flags & ffi::AV_PKT_FLAG_DISCARD == 0 }
}
