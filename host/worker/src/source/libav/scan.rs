//! Finds where to begin to decode so that a stored frame comes out again.
//!
//! Packets are read from the front, which costs a small part of decoding, and those since the last
//! key frame are kept. A seek would be quicker still, but it cannot tell whether what it finds is
//! the frame that was stored: times repeat in joined recordings, and what a decoder makes of a time
//! may depend on the times before.
//!
//! Invariant: packets are given only if nothing in the part before could have changed what comes
//! behind: each packet has a presentation time of its own, and decoding times increase. Otherwise
//! the video must be decoded from the front.

use std::{cmp::Reverse, collections::BinaryHeap, collections::VecDeque};

use ffmpeg_next::Packet;

use super::{micros, reader::Reader};

/// More frames than any codec reorders.
const REORDERED: usize = 64;

/// Bytes of packets between two key frames. Beyond it they are decoded as they are read.
const MOST_KEPT: usize = 64 << 20;

/// Packets that begin with the last key frame which is shown no later than `stored_us`, and reach
/// behind it. `None` if there are none that are sure to give the same frames.
pub(super) fn scan(reader: &mut Reader, stored_us: i64, go_on: &mut dyn FnMut() -> bool) -> Option<VecDeque<Packet>> {
    let base = reader.time_base();
    let (mut order, mut kept, mut bytes) = (Order::default(), VecDeque::new(), 0);
    while let Some(packet) = reader.read() {
        let time = packet.pts().and_then(|time| micros(time, base))?;
        if !order.admits(&packet) || !go_on() {
            return None;
        }
        if packet.is_key() && time <= stored_us {
            kept.clear();
            bytes = 0;
        }
        let is_behind = packet.dts().and_then(|time| micros(time, base)).is_some_and(|time| time > stored_us);
        bytes += packet.size();
        kept.push_back(packet);
        if is_behind {
            break;
        }
        if bytes > MOST_KEPT {
            return None;
        }
    }
    order.ends_well().then_some(kept)
}

/// Whether all packets so far have times that say where each frame belongs.
#[derive(Default)]
struct Order {
    decoding: Option<i64>,
    /// Presentation times that a packet to come might still go before.
    ahead: BinaryHeap<Reverse<i64>>,
    shown: Option<i64>,
}

impl Order {
    fn admits(&mut self, packet: &Packet) -> bool {
        if packet.is_corrupt() || packet.dts().is_some_and(|time| self.decoding.is_some_and(|before| time <= before)) {
            return false;
        }
        self.decoding = packet.dts().or(self.decoding);
        self.ahead.extend(packet.pts().map(Reverse));
        if self.ahead.len() <= REORDERED {
            return true;
        }
        let next = self.ahead.pop().map(|Reverse(time)| time);
        let increases = next > self.shown;
        self.shown = next;
        increases
    }

    /// Whether the times that are left increase as well.
    fn ends_well(mut self) -> bool {
        while let Some(Reverse(time)) = self.ahead.pop() {
            if self.shown.is_some_and(|shown| time <= shown) {
                return false;
            }
            self.shown = Some(time);
        }
        true
    }
}
