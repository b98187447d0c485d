//! Leaves frames undecoded that nobody asks for and that no other frame refers to.
//!
//! Invariants: whether a frame is decoded changes neither the number nor the picture of another.
//! Numbers are those that frames have when all are decoded: packets count frames, if they did so
//! where all were decoded, and from where packets say too little, all are decoded.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use ffmpeg_next::{Discard, Packet, Rational};
use framehook_core::prediction::Position;

use super::{
    micros,
    order::{Order, Unordered, is_shown},
    scan::MOST_KEPT,
};
use crate::selection::{Choice, Selection};

pub(super) struct Thin {
    selection: Selection,
    base: Rational,
    order: Order,
    /// Packets that were read and not given to the decoder.
    queue: VecDeque<Packet>,
    bytes: usize,
    /// Whether the frame of a packet is asked for, by the packet's time.
    wanted: BTreeMap<i64, bool>,
    /// The numbers of frames to come, by their times in microseconds.
    numbers: BTreeMap<i64, u64>,
    next: u64,
    proof: Proof,
}

/// Whether a packet is a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// After so many frames more, [`PROOF`] at first.
    Open(u32),
    Given,
    /// Frames that packets do not count come behind so many.
    GivenUp {
        behind: u64,
    },
}

/// As many frames as the codecs that are thinned can hold back: by then all that is odd at a
/// beginning has shown.
pub(super) const PROOF: u32 = 16;

impl Thin {
    /// For frames from number `next` on. Those at the times `sent` are in the decoder already.
    pub(super) fn new(selection: Selection, base: Rational, next: u64, sent: &[i64], proof: Proof) -> Self {
        let mut order = Order::default();
        sent.iter().for_each(|time| order.expect(*time));
        let (wanted, numbers) = (BTreeMap::new(), BTreeMap::new());
        Self { selection, base, order, queue: VecDeque::new(), bytes: 0, wanted, numbers, next, proof }
    }

    /// Whether the next packet can be given to the decoder before another is read.
    pub(super) fn is_ready(&self) -> bool {
        let is_decided = |time| self.wanted.contains_key(&time);
        self.queue.front().is_some_and(|packet| self.gave_up() || packet.pts().is_some_and(is_decided))
    }

    pub(super) fn push(&mut self, packet: Packet) {
        self.bytes += packet.size();
        let known = if self.gave_up() { Ok(()) } else { self.admit(&packet) };
        self.queue.push_back(packet);
        if known.is_err() || self.bytes > MOST_KEPT {
            self.give_up();
        }
    }

    fn admit(&mut self, packet: &Packet) -> Result<(), Unordered> {
        if !is_shown(packet) {
            return Err(Unordered);
        }
        let time = self.order.admit(packet)?;
        time.map_or(Ok(()), |time| self.decide(time))
    }

    /// There are no more packets.
    pub(super) fn end(&mut self) {
        while !self.gave_up() {
            match self.order.next().and_then(|time| time.map(|time| self.decide(time)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(Unordered) => self.give_up(),
            }
        }
    }

    fn decide(&mut self, time: i64) -> Result<(), Unordered> {
        let pts_us = micros(time, self.base).ok_or(Unordered)?;
        if self.numbers.insert(pts_us, self.next).is_some() {
            return Err(Unordered);
        }
        // Where a range ends is told by the first frame behind it.
        let choice = self.selection.choose(Position { pts_us, frame: self.next });
        self.wanted.insert(time, choice != Choice::Leave);
        self.next += 1;
        Ok(())
    }

    /// The next packet, and which frames the decoder may leave.
    pub(super) fn pop(&mut self) -> Option<(Packet, Discard)> {
        let packet = self.queue.pop_front()?;
        self.bytes -= packet.size();
        let is_wanted = packet.pts().and_then(|time| self.wanted.remove(&time)).unwrap_or(true);
        let may_leave = self.proof == Proof::Given && !is_wanted;
        Some((packet, if may_leave { Discard::NonReference } else { Discard::Default }))
    }

    /// The number of a frame that came out of the decoder; `counted` if none before it was left.
    pub(super) fn number(&mut self, pts_us: i64, counted: u64) -> u64 {
        let later = self.numbers.split_off(&pts_us.saturating_add(1));
        let known = mem::replace(&mut self.numbers, later).remove(&pts_us);
        // A time that was wrong has no number, and those behind it would have one too low.
        let from = |least: u64| known.map_or(least, |known| known.max(counted));
        match self.proof {
            Proof::Open(more) => {
                match (known == Some(counted), more) {
                    (false, _) => self.give_up(),
                    (true, 1) => self.proof = Proof::Given,
                    (true, _) => self.proof = Proof::Open(more - 1),
                }
                counted
            }
            Proof::Given => from(counted),
            Proof::GivenUp { behind } => from(counted.max(behind)),
        }
    }

    /// Frames of a video that ended, decoded or not.
    pub(super) fn frames(&self) -> u64 {
        match self.proof {
            Proof::Open(_) => 0,
            Proof::Given => self.next,
            Proof::GivenUp { behind } => behind,
        }
    }

    fn gave_up(&self) -> bool {
        matches!(self.proof, Proof::GivenUp { .. })
    }

    fn give_up(&mut self) {
        // What was not proved is no number.
        let behind = if self.proof == Proof::Given { self.next } else { 0 };
        if behind == 0 {
            self.numbers.clear();
        }
        self.proof = Proof::GivenUp { behind };
    }
}
