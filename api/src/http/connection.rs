//! Connections, and which one is closed when there is no more room.
//!
//! Invariants: there are never more connections than the limits say. A connection whose request is being
//! worked on is never closed for another. Among those that wait for their peer, the slowest in bytes a second
//! is closed first. So a client that holds a thousand connections open and sends a byte now and then only
//! loses its own.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{http::limits::HttpLimits, metrics};

/// Counts as moved already, so that a new connection is not slow yet: about one head.
const CREDIT: u64 = 1024;
/// A client may read slowly, or pause; one that takes nothing for this long is gone. As in
/// `deploy/haproxy.cfg`.
const READER_SILENCE: Duration = Duration::from_secs(300);

/// Answers that nobody reads, in all: thirty of the largest pages. Those who do read have theirs within
/// milliseconds.
const MAX_UNREAD: u64 = 256 << 20;
/// Smaller answers are no danger, however many: there are only so many connections.
const LARGE: u64 = 256 << 10;

/// What a peer moved, and how long it was waited for meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    waited: Duration,
    since: Option<Instant>,
    pub(crate) bytes: u64,
}

impl Pace {
    fn waiting(now: Instant) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    pub(crate) fn wait(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    pub(crate) fn moved(&mut self, now: Instant, bytes: usize) {
        self.waited = self.waited(now);
        self.since = None;
        self.bytes += bytes as u64;
    }

    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.waited + self.since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Bytes a second; `None` while the peer is not waited for.
    fn rate(&self, now: Instant) -> Option<f64> {
        self.since?;
        // A nanosecond stands for no time at all.
        Some((CREDIT + self.bytes) as f64 / self.waited(now).as_secs_f64().max(1e-9))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing came since the last answer.
    Idle,
    Head,
    Request,
}

/// What one connection waits for.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Head and body of the request.
    sent: Pace,
    /// What we write, and the peer reads.
    taken: Pace,
    /// Bytes of the answer, which are in memory until they are written.
    answer: u64,
}

impl Meter {
    fn new(now: Instant) -> Self {
        let (sent, taken) = (Pace::waiting(now), Pace::default());
        Self(Mutex::new(State { phase: Phase::Head, sent, taken, answer: 0 }))
    }

    /// Bytes came on the wire. Those of a body are counted where they are asked for.
    pub(crate) fn read(&self, bytes: usize) {
        let (mut state, now) = (self.0.lock(), Instant::now());
        if state.phase == Phase::Idle {
            state.phase = Phase::Head;
            state.sent = Pace::waiting(now);
        }
        if state.phase == Phase::Head {
            state.sent.moved(now, bytes);
            state.sent.wait(now);
        }
    }

    /// A head is complete, and somebody works on an answer.
    pub(crate) fn began(&self) {
        let mut state = self.0.lock();
        *state = State { phase: Phase::Request, sent: Pace::default(), taken: Pace::default(), answer: 0 };
    }

    /// How the body comes in.
    pub(crate) fn body(&self, pace: Pace) {
        self.0.lock().sent = pace;
    }

    /// The answer is complete, if not written.
    pub(crate) fn answered(&self) {
        let mut state = self.0.lock();
        (state.phase, state.sent) = (Phase::Idle, Pace::waiting(Instant::now()));
    }

    /// The peer has not read enough for us to write on.
    pub(crate) fn write_stalls(&self) {
        self.0.lock().taken.wait(Instant::now());
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.0.lock().taken.moved(Instant::now(), bytes);
    }

    /// Whether the peer had its time.
    pub(crate) fn is_overdue(&self, limits: &HttpLimits) -> bool {
        let (state, now) = (self.0.lock(), Instant::now());
        if let Some(since) = state.taken.since {
            return now.duration_since(since) >= READER_SILENCE;
        }
        match state.phase {
            Phase::Idle => state.sent.waited(now) >= limits.keep_alive,
            Phase::Head => state.sent.waited(now) >= limits.head,
            Phase::Request => false,
        }
    }

    /// Whether nothing came since the last answer, and that is all out.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.0.lock();
        let fresh = state.phase == Phase::Idle || (state.phase == Phase::Head && state.sent.bytes == 0);
        fresh && state.taken.since.is_none()
    }

    /// What of its answer a peer that does not read keeps in memory.
    fn unread(&self) -> u64 {
        let state = self.0.lock();
        if state.taken.since.is_some() { state.answer.saturating_sub(state.taken.bytes) } else { 0 }
    }

    /// `None`: we work, and the peer waits.
    fn rate(&self, now: Instant) -> Option<f64> {
        let state = self.0.lock();
        state.taken.rate(now).or_else(|| state.sent.rate(now))
    }
}

/// All connections of a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    most: usize,
    most_of_peer: usize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    by_number: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    meter: Arc<Meter>,
    closes: CancellationToken,
}

/// One connection's place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    pub(crate) connections: Arc<Connections>,
    pub(crate) meter: Arc<Meter>,
    /// Cancelled when another needs the place.
    pub(crate) closes: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.all.lock().by_number.remove(&self.number);
    }
}

impl Connections {
    pub(crate) fn new(limits: &HttpLimits) -> Arc<Self> {
        let (most, most_of_peer) = (limits.connections, limits.connections_per_peer);
        Arc::new(Self { most, most_of_peer, all: Mutex::default() })
    }

    /// A place for a connection from `peer`, if need be that of the slowest; `None`: everybody there is being
    /// served.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = shared_by_one(peer);
        let mut all = self.all.lock();
        let of_peer = |entry: &Entry| entry.peer == peer;
        let is_full =
            !peer.is_loopback() && all.by_number.values().filter(|entry| of_peer(entry)).count() >= self.most_of_peer;
        if is_full {
            all.close_slowest(of_peer)?;
        } else if all.by_number.len() >= self.most {
            all.close_slowest(|_| true)?;
        }
        let (number, meter, closes) = (all.next, Arc::new(Meter::new(Instant::now())), CancellationToken::new());
        all.next += 1;
        all.by_number.insert(number, Entry { peer, meter: Arc::clone(&meter), closes: closes.clone() });
        Some(Place { number, connections: Arc::clone(self), meter, closes })
    }

    /// An answer of so many bytes is about to be written to a connection.
    pub(crate) fn answers(&self, to: &Meter, bytes: u64) {
        to.0.lock().answer = bytes;
        if bytes < LARGE {
            return;
        }
        let mut all = self.all.lock();
        while all.by_number.values().map(|entry| entry.meter.unread()).sum::<u64>() + bytes > MAX_UNREAD {
            if all.close_slowest(|entry| entry.meter.unread() > 0).is_none() {
                return;
            }
        }
    }

    /// For a descriptor.
    pub(crate) fn close_slowest(&self) -> Option<()> {
        self.all.lock().close_slowest(|_| true)
    }
}

impl All {
    fn close_slowest(&mut self, eligible: impl Fn(&Entry) -> bool) -> Option<()> {
        let now = Instant::now();
        let rates = self.by_number.iter().filter(|(_, entry)| eligible(entry));
        let rates = rates.filter_map(|(number, entry)| Some((*number, entry.meter.rate(now)?)));
        let (slowest, _) = rates.min_by(|a, b| a.1.total_cmp(&b.1))?;
        self.by_number.remove(&slowest)?.closes.cancel();
        metrics::global().connections_closed.inc();
        Some(())
    }
}

/// Whoever has one IPv6 address usually has 2^64 of them.
fn shared_by_one(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn connections(most: usize, of_peer: usize) -> Arc<Connections> {
        let limits = HttpLimits { connections: most, connections_per_peer: of_peer, ..HttpLimits::default() };
        Connections::new(&limits)
    }

    #[test]
    fn the_one_that_gave_least_for_the_time_it_was_waited_for_makes_room() {
        let connections = connections(3, 9);
        let places: Vec<_> = (0..3).map(|_| connections.admit(HERE).unwrap()).collect();
        places[0].meter.began();
        places[1].meter.read(100_000);
        let new = connections.admit(HERE).unwrap();
        assert!(places[2].closes.is_cancelled() && !places[1].closes.is_cancelled());
        // What is worked on stays, whatever happens.
        new.meter.began();
        let third = connections.admit(HERE).unwrap();
        assert!(places[1].closes.is_cancelled());
        third.meter.began();
        assert!(connections.admit(HERE).is_none());
        drop(third);
        assert!(connections.admit(HERE).is_some());
        assert!(!places[0].closes.is_cancelled() && !new.closes.is_cancelled());
    }

    #[test]
    fn a_peer_has_its_share_and_drives_out_its_own() {
        let connections = connections(9, 2);
        let far: Vec<_> = (0..2).map(|_| connections.admit(FAR).unwrap()).collect();
        let other = connections.admit(OTHER).unwrap();
        let here: Vec<_> = (0..4).map(|_| connections.admit(HERE).unwrap()).collect();
        let mapped = connections.admit("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(far[0].closes.is_cancelled() && !far[1].closes.is_cancelled());
        assert!(!other.closes.is_cancelled() && here.iter().all(|place| !place.closes.is_cancelled()));
        mapped.meter.began();
        far[1].meter.began();
        assert!(connections.admit(FAR).is_none());
        let nets = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|address| address.parse().unwrap());
        assert!(shared_by_one(nets[0]) == shared_by_one(nets[1]) && shared_by_one(nets[0]) != shared_by_one(nets[2]));
    }

    #[test]
    fn answers_that_nobody_reads_have_an_end() {
        let connections = connections(99, 99);
        let large = MAX_UNREAD / 8;
        let places: Vec<_> = (0..20).map(|_| connections.admit(HERE).unwrap()).collect();
        for place in &places {
            place.meter.began();
            connections.answers(&place.meter, large);
            place.meter.write_stalls();
        }
        let open = places.iter().filter(|place| !place.closes.is_cancelled()).count();
        assert!((7..=8).contains(&open), "{open}");
        // Whoever reads is not in question, and who has read all but a little neither.
        let reader = places.iter().rfind(|place| !place.closes.is_cancelled()).unwrap();
        reader.meter.wrote(usize::try_from(large).unwrap());
        for _ in 0..20 {
            let place = connections.admit(HERE).unwrap();
            place.meter.began();
            connections.answers(&place.meter, MAX_UNREAD);
        }
        assert!(!reader.closes.is_cancelled());
    }

    #[test]
    fn whoever_waits_for_us_is_not_slow() {
        let meter = Meter::new(Instant::now());
        assert!(meter.is_idle() && meter.rate(Instant::now()).is_some());
        meter.read(10);
        assert!(!meter.is_idle());
        meter.began();
        assert!(meter.rate(Instant::now()).is_none());
        meter.write_stalls();
        assert!(meter.rate(Instant::now()).is_some());
        meter.wrote(1);
        assert!(meter.rate(Instant::now()).is_none());
        meter.answered();
        assert!(meter.is_idle());
    }

    #[test]
    fn each_phase_has_its_time() {
        let limits = |head: u64, keep_alive: u64| HttpLimits {
            head: Duration::from_secs(head),
            keep_alive: Duration::from_secs(keep_alive),
            ..HttpLimits::default()
        };
        let meter = Meter::new(Instant::now());
        assert!(meter.is_overdue(&limits(0, 9)) && !meter.is_overdue(&limits(9, 0)));
        meter.read(1);
        assert!(meter.is_overdue(&limits(0, 9)) && !meter.is_overdue(&limits(9, 0)));
        meter.began();
        assert!(!meter.is_overdue(&limits(0, 0)));
        meter.answered();
        assert!(!meter.is_overdue(&limits(0, 9)) && meter.is_overdue(&limits(9, 0)));
    }
}
