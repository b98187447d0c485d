//! Finds where to begin to decode so that a frame of a certain time comes out as it does from the
//! front.
//!
//! Packets are read from the front, which costs a small part of decoding, and those since the last
//! key frame are kept. A seek would be quicker still, but it cannot tell whether what it finds is
//! the frame that was stored: times repeat in joined recordings, and what a decoder makes of a time
//! may depend on the times before.
//!
//! Invariant: packets are given only if nothing in the part before could have changed what comes
//! behind: each packet has a presentation time of its own, and decoding times increase. Otherwise
//! the video must be decoded from the front.

use std::collections::VecDeque;

use ffmpeg_next::Packet;

use super::{
    micros,
    order::{Order, REORDERED, is_shown},
    reader::Reader,
};

/// Bytes of packets between two key frames. Beyond it they are decoded as they are read.
pub(super) const MOST_KEPT: usize = 64 << 20;

/// What gives a frame of a certain time.
pub(super) struct Scanned {
    /// They begin with the last key frame that is shown no later, and reach behind it.
    pub(super) packets: VecDeque<Packet>,
    /// Packets before these.
    pub(super) before: u64,
    /// Whether each packet so far is decoded from the front on, and shown.
    pub(super) all_shown: bool,
}

/// `None` if there are no packets that are sure to give the same frames.
pub(super) fn scan(reader: &mut Reader, until_us: i64, go_on: &mut dyn FnMut() -> bool) -> Option<Scanned> {
    let base = reader.time_base();
    let (mut order, mut bytes) = (Order::default(), 0);
    let mut found = Scanned { packets: VecDeque::new(), before: 0, all_shown: true };
    let mut behind = 0;
    while let Some(packet) = reader.read() {
        let time = packet.pts().and_then(|time| micros(time, base))?;
        // An edit list may want a frame decoded and not shown.
        found.all_shown &= is_shown(&packet) && (packet.is_key() || !order.is_empty());
        order.admit(&packet).ok()?;
        if !go_on() {
            return None;
        }
        if packet.is_key() && time <= until_us {
            found.before += found.packets.len() as u64;
            found.packets.clear();
            bytes = 0;
        }
        behind += usize::from(time > until_us);
        bytes += packet.size();
        found.packets.push_back(packet);
        // Frames that go before come within as many packets.
        if behind > REORDERED {
            break;
        }
        if bytes > MOST_KEPT {
            return None;
        }
    }
    while order.next().ok()?.is_some() {}
    Some(found)
}
