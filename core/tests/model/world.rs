//! The world of the model: the store, the bus, two orchestrators, runners and inboxes, and
//! everything that may happen next.
//!
//! The bus is a set of orders and a log of results that never forget: any runner may take any order
//! at any time, again and again or never, so late, repeated, reordered and lost messages cost no
//! steps of their own. A heartbeat is the runner's report, and a leader may hear any later one than
//! the last. What a process does without being interrupted is one step; being interrupted is a
//! fault.
//!
//! Deliberately absent: time (a lease may end at any moment, an order is always overdue), several
//! scenarios (they share nothing but room), and a worker that crashes while its runner lives (its
//! frames land on their own rows). What a leader concludes from time is checked in a world of its
//! own (`late`).

use std::{collections::BTreeSet, iter, time::Duration};

use framehook_core::{
    ids::{Epoch, Generation},
    noted::noted,
    planner::{Action, Timing, plan},
    state::{Desired, ScenarioState},
};

use crate::{
    guard::{Broken, Guard, Without},
    host::Host,
    search::Model,
    store::{FRAMES, Fenced, Order, Record, Report, Store, hearing, host},
};

/// How much may go wrong in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) faults: u8,
    /// So many of them end a runner, or its lease: these multiply the states most.
    pub(crate) of_runners: u8,
    /// Changes of mind of the user.
    pub(crate) wishes: u8,
}

/// Two runners, and one of them started again.
const HOSTS: usize = 3;
/// Deployments: the first, the one that fences it, and one after both.
const GENERATIONS: Generation = 3;
/// An order is overdue at once, and no lease is honoured longer than it lasts.
const TIMING: Timing = Timing { resend_after: Duration::ZERO, mass_expiry_grace: Duration::ZERO };

#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    // ----- what everybody does -----
    /// A leader hears a heartbeat, perhaps, and brings what runs to what is desired. If it is paused, that is
    /// a fault: it stops after so many actions of its plan, and goes on later without looking again.
    Lead {
        leader: usize,
        heard: Option<Heard>,
        pause: Option<usize>,
    },
    Resume(usize),
    Mark,
    Take(usize, Order),
    /// A runner hears that the end of its worker is noted.
    Forget(usize, Generation),
    Work(usize),
    /// A frame is on its way to the bus while the worker goes on; only where a guard does not wait for it.
    Hold(usize),
    Release(usize),
    Store,
    Restart(usize),
    // ----- what goes wrong -----
    Wish(Desired),
    TakeOver(usize),
    /// A relay dies between publishing and marking: until another does it, nothing is marked.
    RelayDies,
    Expire(usize),
    Die(usize),
    /// An inbox that loses its partition with a batch in hand.
    Read,
    StoreLate,
    /// An inbox dies between offset and rows; only where they are not one transaction.
    StoreHalf,
}

impl Event {
    const fn is_of_runner(&self) -> bool {
        matches!(self, Self::Die(_) | Self::Expire(_))
    }
}

/// The heartbeat of a host, by its place behind the one heard before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    host: usize,
    ahead: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Leader {
    /// It believes to lead under this one; 0: it stands by.
    epoch: Epoch,
    plan: Vec<Action>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) store: Store,
    orders: BTreeSet<Order>,
    /// Ends that a leader called noted: by runner and generation.
    noted: BTreeSet<(usize, Generation)>,
    results: Vec<Record>,
    leaders: [Leader; 2],
    hosts: Vec<Host>,
    /// Every generation that a runner started.
    started: Vec<Generation>,
    late_batch: Option<(usize, usize)>,
    /// What is published is marked later.
    marks_late: bool,
    budget: Budget,
}

impl Model for World {
    type Event = Event;

    /// Everything that may happen now. More than makes a difference: what changes nothing leads to a known
    /// state.
    fn events(&self, without: Without) -> Vec<Event> {
        self.all_events(without)
    }

    fn happen(&mut self, without: Without, event: Event) {
        self.let_happen(without, event);
    }

    fn broken(&mut self) -> &mut Vec<Broken> {
        &mut self.store.broken
    }
}

impl World {
    pub(crate) fn new(budget: Budget) -> Self {
        let mut leaders = [Leader::default(), Leader::default()];
        leaders[0].epoch = 1;
        Self {
            store: Store::new(2),
            orders: BTreeSet::new(),
            noted: BTreeSet::new(),
            results: vec![],
            leaders,
            hosts: vec![Host::new(0), Host::new(1)],
            started: vec![],
            late_batch: None,
            marks_late: false,
            budget,
        }
    }

    fn all_events(&self, without: Without) -> Vec<Event> {
        if self.store.generation > GENERATIONS {
            return vec![];
        }
        let mut events = vec![];
        events.push(if self.marks_late { Event::Mark } else { Event::RelayDies });
        if self.store.offset < self.results.len() {
            events.extend([Event::Store, Event::Read]);
            if !without.has(Guard::OffsetWithRows) {
                events.push(Event::StoreHalf);
            }
        }
        events.extend(self.late_batch.map(|_| Event::StoreLate));
        events.extend(self.noted.iter().map(|&(host, generation)| Event::Forget(host, generation)));
        for leader in 0..self.leaders.len() {
            self.leader_events(leader, without, &mut events);
        }
        for host in 0..self.hosts.len() {
            self.host_events(host, without, &mut events);
        }
        if self.budget.wishes > 0 && self.store.desired != Desired::Deleted {
            let wishes = Desired::ALL.iter().filter(|&&wish| wish != self.store.desired);
            events.extend(wishes.map(|&wish| Event::Wish(wish)));
        }
        let Budget { faults, of_runners, .. } = self.budget;
        events.retain(|event| {
            let is_affordable = faults > 0 && (of_runners > 0 || !event.is_of_runner());
            is_affordable || !self.is_fault(event)
        });
        events
    }

    fn host_events(&self, at: usize, without: Without, events: &mut Vec<Event>) {
        let host = &self.hosts[at];
        if self.store.runners.get(at).and_then(Option::as_ref).is_some_and(|r| !r.lost && !r.expired) {
            events.push(Event::Expire(at));
        }
        if !host.alive {
            if self.hosts.len() < HOSTS {
                events.push(Event::Restart(at));
            }
            return;
        }
        events.push(Event::Die(at));
        let is_taken = |order: &&Order| order.host == at || !without.has(Guard::IncarnationOfOrder);
        events.extend(self.orders.iter().filter(is_taken).map(|&order| Event::Take(at, order)));
        if host.worker().is_some() {
            events.push(Event::Work(at));
            if host.held.is_some() {
                events.push(Event::Release(at));
            } else if !without.has(Guard::PublishedInOrder) || !without.has(Guard::FinishedWhenPublished) {
                events.push(Event::Hold(at));
            }
        }
    }

    fn leader_events(&self, leader: usize, without: Without, events: &mut Vec<Event>) {
        let Leader { epoch, plan: held } = &self.leaders[leader];
        if !held.is_empty() {
            return events.push(Event::Resume(leader));
        }
        if *epoch != self.store.epoch {
            events.push(Event::TakeOver(leader));
        }
        if *epoch == 0 {
            return;
        }
        let hosts = self.hosts.iter().enumerate();
        let heard = hosts.flat_map(|(host, Host { reports, alive, .. })| {
            // One that was heard before is sent again by the living, as a sign of life.
            let first = usize::from(!alive && self.store.runners.get(host).is_some_and(Option::is_some));
            (first..reports.len()).map(move |ahead| Heard { host, ahead })
        });
        for heard in iter::once(None).chain(heard.map(Some)) {
            events.push(Event::Lead { leader, heard, pause: None });
            if self.budget.faults > 0 {
                let mut world = self.clone();
                world.hear(without, leader, heard);
                let planned = plan(&world.store.snapshot(), &hearing(), TIMING).len();
                events.extend((0..planned).map(|after| Event::Lead { leader, heard, pause: Some(after) }));
            }
        }
    }

    fn is_fault(&self, event: &Event) -> bool {
        match event {
            Event::TakeOver(_) | Event::RelayDies | Event::Die(_) | Event::Read => true,
            // The lease of a dead one ends of itself.
            Event::Expire(host) => self.hosts[*host].alive,
            // A heartbeat may be overtaken by what it does not know of.
            Event::Lead { heard, pause, .. } => {
                pause.is_some() || heard.is_some_and(|h| h.ahead + 1 < self.hosts[h.host].reports.len())
            }
            _ => false,
        }
    }

    fn let_happen(&mut self, without: Without, event: Event) {
        self.store.broken.clear();
        let is_fault = self.is_fault(&event);
        self.budget.faults -= u8::from(is_fault);
        self.budget.of_runners -= u8::from(is_fault && event.is_of_runner());
        match event {
            Event::Lead { leader, heard, pause } => {
                self.hear(without, leader, heard);
                match pause {
                    None => self.reconcile(without, leader),
                    Some(after) => self.reconcile_in_part(without, leader, after),
                }
            }
            Event::RelayDies => self.marks_late = true,
            Event::Mark => {
                self.marks_late = false;
                self.relay(without);
            }
            Event::Take(host, order) => self.take(without, host, order),
            Event::Forget(host, generation) => self.hosts[host].forget(generation),
            Event::Work(host) => self.work(without, host),
            Event::Hold(host) => self.hosts[host].hold(),
            Event::Release(host) => {
                if let Some(frame) = self.hosts[host].held.take() {
                    self.publish(host, frame);
                }
            }
            Event::Store => self.store_results(without, true),
            Event::StoreHalf => self.store_results(without, false),
            Event::Read => self.late_batch = Some((self.store.offset, self.results.len())),
            Event::StoreLate => {
                if let Some(batch) = self.late_batch.take() {
                    self.store.store_results(without, &mut self.results, batch, true);
                    self.forget_stored();
                }
            }
            Event::Wish(desired) => {
                self.budget.wishes -= 1;
                self.store.set_desired(desired);
            }
            Event::TakeOver(leader) => {
                let epoch = self.store.lead(without);
                self.leaders[leader].epoch = epoch;
                self.store.expect(Broken::Epochs, self.leaders[0].epoch != self.leaders[1].epoch);
            }
            Event::Resume(leader) => {
                self.resume(without, leader);
            }
            Event::Expire(host) => {
                self.store.runners.get_mut(host).into_iter().flatten().for_each(|r| r.expired = true);
            }
            Event::Die(host) => self.hosts[host].die(),
            Event::Restart(host) => self.restart(host),
        }
        let hosts = &self.hosts;
        self.noted.retain(|(host, generation)| hosts[*host].tells_the_end_of(*generation));
        let of_orders = [Guard::GenerationOfOrder, Guard::StopRemembered, Guard::IncarnationOfOrder];
        if of_orders.into_iter().all(|guard| without.has(guard)) {
            self.forget_orders();
        }
    }

    /// With the runners' guards, an order that changes nothing now never will: generations only grow. So
    /// histories that differ in nothing else are one state.
    fn forget_orders(&mut self) {
        let hosts = &self.hosts;
        self.orders.retain(|order| !hosts[order.host].is_deaf_to(*order));
    }

    // ----- orchestrator -----

    /// As `reconcile` of the orchestrator: plans until a plan moves nothing any more.
    fn reconcile(&mut self, without: Without, leader: usize) {
        loop {
            self.leaders[leader].plan = plan(&self.store.snapshot(), &hearing(), TIMING);
            if !self.resume(without, leader) {
                return self.note();
            }
        }
    }

    /// As `Answers` of the orchestrator: whatever its epoch, and heard at any time or never.
    fn note(&mut self) {
        for noted in noted(&self.store.snapshot()) {
            let generations = noted.workers.iter().map(|worker| worker.generation);
            self.noted.extend(generations.map(|generation| (host(noted.incarnation), generation)));
        }
    }

    fn reconcile_in_part(&mut self, without: Without, leader: usize, after: usize) {
        let mut now = plan(&self.store.snapshot(), &hearing(), TIMING);
        let later = now.split_off(after);
        self.leaders[leader].plan = now;
        self.resume(without, leader);
        // One that was told that it does not lead drops its plan.
        if self.leaders[leader].epoch > 0 {
            self.leaders[leader].plan = later;
        }
    }

    /// Executes the plan in hand; true if it moved a state, or was out of date.
    fn resume(&mut self, without: Without, leader: usize) -> bool {
        let mut moved = false;
        for action in std::mem::take(&mut self.leaders[leader].plan) {
            match self.store.apply(without, self.leaders[leader].epoch, &action) {
                Fenced::Done => moved |= !matches!(action, Action::Stop(_) | Action::RepeatDeploy { .. }),
                Fenced::Stale => {
                    moved = true;
                    break;
                }
                Fenced::NotLeader => {
                    (self.leaders[leader].epoch, moved) = (0, false);
                    break;
                }
            }
        }
        self.relay(without);
        moved
    }

    /// At once: an order that goes out later is one that is taken later.
    fn relay(&mut self, without: Without) {
        self.orders.extend(&self.store.outbox);
        if !self.marks_late {
            self.store.mark_published(without);
        }
    }

    fn hear(&mut self, without: Without, leader: usize, heard: Option<Heard>) {
        let Some(Heard { host, ahead }) = heard else { return };
        self.store.runners.resize(self.hosts.len(), None);
        let Host { name, reports, .. } = &mut self.hosts[host];
        let epoch = self.leaders[leader].epoch;
        match self.store.record_heartbeat(without, epoch, (host, *name), reports[ahead]) {
            // Older ones change nothing from here on.
            Fenced::Done if without.has(Guard::SequenceOfHeartbeat) => drop(reports.drain(..ahead)),
            Fenced::Done | Fenced::Stale => {}
            Fenced::NotLeader => self.leaders[leader].epoch = 0,
        }
    }

    // ----- runners -----

    fn restart(&mut self, host: usize) {
        let name = self.hosts[host].name;
        if self.hosts.iter().all(|h| h.name != name || !h.alive) {
            self.hosts.push(Host::new(name));
        }
    }

    fn take(&mut self, without: Without, host: usize, order: Order) {
        if order.host != host && without.has(Guard::IncarnationOfOrder) {
            return;
        }
        if let Some(started) = self.hosts[host].take(without, order) {
            let is_first = !self.started.contains(&started) && started > self.hosts[host].stopped;
            self.started.push(started);
            self.store.expect(Broken::StartsOnce, is_first);
        }
    }

    fn work(&mut self, without: Without, host: usize) {
        if let Some(frame) = self.hosts[host].work(without) {
            self.publish(host, frame);
        }
    }

    fn publish(&mut self, host: usize, frame: u64) {
        let host = &mut self.hosts[host];
        if let Some(Report { generation, .. }) = host.worker() {
            host.count += 1;
            self.results.push(Record { generation, frame, count: host.count, effects: 0 });
            host.published = host.published.max(Some(frame));
        }
    }

    // ----- inbox -----

    fn store_results(&mut self, without: Without, with_rows: bool) {
        let batch = (self.store.offset, self.results.len());
        self.store.store_results(without, &mut self.results, batch, with_rows);
        self.forget_stored();
    }

    /// Offsets are counted from the oldest record that an inbox could still ask for, so that histories that
    /// differ only in what is long stored are one state.
    fn forget_stored(&mut self) {
        let oldest = self.late_batch.map_or(self.store.offset, |(expected, _)| expected.min(self.store.offset));
        self.results.drain(..oldest);
        self.store.offset -= oldest;
        self.late_batch = self.late_batch.map(|(expected, next)| (expected - oldest, next - oldest));
    }

    // ----- after all faults -----

    /// Whether the world comes to what is desired once nothing goes wrong any more; `lost`: all orders that
    /// are on their way now are lost.
    pub(crate) fn converges(mut self, without: Without, lost: bool) -> bool {
        if lost {
            self.orders.clear();
            self.store.mark_published(without);
        }
        self.marks_late = false;
        (0..self.hosts.len()).filter(|&h| !self.hosts[h].alive).for_each(|h| {
            self.store.runners.get_mut(h).into_iter().flatten().for_each(|r| r.expired = true);
        });
        (0..self.hosts.len()).for_each(|host| self.restart(host));
        let leader = self.leaders.iter().position(|l| l.epoch == self.store.epoch).unwrap_or(0);
        self.leaders = Default::default();
        self.leaders[leader].epoch = self.store.lead(without);
        // Longer than the longest way through all generations.
        for _ in 0..16 {
            self.calm_round(without, leader);
            if self.is_settled() {
                return true;
            }
        }
        false
    }

    fn calm_round(&mut self, without: Without, leader: usize) {
        for host in (0..self.hosts.len()).filter(|&h| self.hosts[h].alive).collect::<Vec<_>>() {
            self.hear(without, leader, Some(Heard { host, ahead: self.hosts[host].reports.len() - 1 }));
        }
        self.reconcile(without, leader);
        for (host, generation) in std::mem::take(&mut self.noted) {
            self.hosts[host].forget(generation);
        }
        for order in std::mem::take(&mut self.orders) {
            if self.hosts[order.host].alive {
                self.take(without, order.host, order);
            }
        }
        for at in 0..self.hosts.len() {
            let Some(Report { generation, .. }) = self.hosts[at].worker() else { continue };
            // What shall be stopped does not end by itself, as a camera would not: so a lost stop is missed.
            if (self.store.desired, self.store.generation) == (Desired::Running, generation) {
                let held = self.hosts[at].held.take();
                held.into_iter().for_each(|frame| self.publish(at, frame));
                (0..=FRAMES).for_each(|_| self.work(without, at));
            }
        }
        self.store_results(without, true);
    }

    fn is_settled(&self) -> bool {
        let Store { desired, state, purged, .. } = &self.store;
        let is_as_desired = match desired {
            Desired::Running => *state == ScenarioState::Completed,
            Desired::Stopped => state.is_ended(),
            Desired::Deleted => *purged,
        };
        let strays = self.hosts.iter().filter_map(Host::worker).count();
        is_as_desired && strays == 0 && plan(&self.store.snapshot(), &hearing(), TIMING).is_empty()
    }
}
