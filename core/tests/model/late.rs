//! A leader that is late by any time, and a runner that is well all the while: I10.
//!
//! The other world (`world`) has no time; this one has little else. Its leader, relay and bus may
//! hang for as long as the clock goes, between any two of their steps. The runner takes its orders
//! and tells of itself at every tick at which the bus works, and is written off, stopped or told a
//! third time by nobody: if only it dies, its silence is noticed.
//!
//! Deliberately absent: what is in the other world.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use framehook_core::{
    evidence::{Hearing, Order},
    ids::{Incarnation, RunnerId, ScenarioId},
    message::{WorkerPhase, WorkerStatus},
    planner::{Action, RunnerFacts, ScenarioFacts, Snapshot, Timing, WorkerFacts, plan},
    state::{Desired, ScenarioState, WorkerState},
};
use uuid::Uuid;

use crate::{
    ALL,
    guard::{Broken, Guard, Without},
    search::{Model, search},
};

/// Ticks; two heartbeats a tick would show nothing more. Between a term and an order's patience lie
/// all ways of being late.
const TERM: i64 = 4;
const TIMING: Timing = Timing { resend_after: Duration::from_micros(1), mass_expiry_grace: Duration::ZERO };
/// Long enough for a lease to end while something hangs, and for an order to be given three times.
const END: i64 = 6;

#[derive(Clone, Copy, Debug)]
enum Event {
    Tick,
    /// The bus hangs, or goes on: once.
    Freeze,
    Thaw,
    /// The relay publishes what is in the outbox, and marks it.
    Publish,
    /// The leader asks where the heartbeats end, after a look at the clock.
    Ask,
    /// The bus answers a question that it was asked while it hung.
    Answer,
    /// It reads a heartbeat and records it.
    Read,
    Reconcile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    state: WorkerState,
    at: i64,
    repeats: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    asked: i64,
    answered: Option<i64>,
    /// Heartbeats before its answer that are still unread.
    unread: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: i64,
    is_frozen: bool,
    freezes: u8,
    // ----- the runner -----
    is_alive: bool,
    runs: bool,
    /// A heartbeat that waits for the bus, as it was when it was written.
    held: Option<bool>,
    // ----- the bus: heartbeats by whether they show the worker -----
    unread: VecDeque<bool>,
    orders: bool,
    // ----- the store -----
    outbox: bool,
    state: ScenarioState,
    worker: Option<Worker>,
    shows: bool,
    arrived_after: i64,
    expires: i64,
    is_lost: bool,
    // ----- the leader -----
    heard_until: i64,
    question: Option<Question>,
    broken: Vec<Broken>,
}

impl World {
    fn new() -> Self {
        Self {
            now: 0,
            is_frozen: false,
            freezes: 1,
            is_alive: true,
            runs: false,
            held: None,
            unread: VecDeque::new(),
            orders: false,
            outbox: false,
            state: ScenarioState::Pending,
            worker: None,
            shows: false,
            arrived_after: 0,
            expires: TERM,
            is_lost: false,
            heard_until: 0,
            question: None,
            broken: vec![],
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        if !self.is_alive {
            return;
        }
        if self.is_frozen {
            self.held.get_or_insert(self.runs);
            return;
        }
        self.unread.extend(self.held.take());
        self.runs |= std::mem::take(&mut self.orders);
        self.unread.push_back(self.runs);
    }

    fn publish(&mut self) {
        self.orders |= std::mem::take(&mut self.outbox);
        if let Some(worker) = self.worker.as_mut().filter(|w| w.state == WorkerState::Pending) {
            (worker.state, worker.at) = (WorkerState::Deployed, self.now);
        }
    }

    fn read(&mut self, without: Without, count: usize) {
        for shows in self.unread.drain(..count) {
            self.shows = shows;
            self.arrived_after = if without.has(Guard::ArrivedAfter) { self.heard_until } else { self.now };
            (self.expires, self.is_lost) = (self.now + TERM, false);
        }
        if let Some(question) = &mut self.question {
            question.unread = question.unread.saturating_sub(count);
        }
        self.conclude(without);
    }

    fn ask(&mut self) {
        self.question.get_or_insert(Question { asked: self.now, answered: None, unread: 0 });
    }

    fn answer(&mut self, without: Without) {
        let (answered, unread) = (Some(self.now), self.unread.len());
        self.question = self.question.map(|question| match question.answered {
            None => Question { answered, unread, ..question },
            Some(_) => question,
        });
        self.conclude(without);
    }

    /// As `Listener::record` of the orchestrator.
    fn conclude(&mut self, without: Without) {
        let Some(Question { asked, answered: Some(answered), unread: 0 }) = self.question else { return };
        self.question = None;
        let mut hearing = Hearing::since(self.heard_until);
        let lease_time = Duration::from_micros(TERM.cast_unsigned());
        if without.has(Guard::LeaseAfterGap) && hearing.is_gap(answered, lease_time) {
            self.expires = self.expires.max(self.now + TERM);
        }
        hearing.advance(asked);
        self.heard_until = hearing.until_us();
    }

    /// As `reconcile` of the orchestrator.
    fn reconcile(&mut self, without: Without) {
        let until = if without.has(Guard::HeardUntil) { self.heard_until } else { self.now };
        loop {
            let actions = plan(&self.snapshot(without), &Hearing::since(until), TIMING);
            let mut moved = false;
            for action in &actions {
                moved |= self.apply(action);
            }
            if !moved {
                return;
            }
        }
    }

    fn apply(&mut self, action: &Action) -> bool {
        match action {
            Action::Deploy(_) => {
                self.worker = Some(Worker { state: WorkerState::Pending, at: self.now, repeats: 0 });
                (self.state, self.outbox) = (ScenarioState::Deploying, true);
                true
            }
            Action::RepeatDeploy { .. } => {
                let worker = self.worker.as_mut().expect("the planner names only known workers");
                (worker.at, worker.repeats) = (self.now, worker.repeats + 1);
                self.outbox = true;
                if worker.repeats > 1 {
                    self.broken.push(Broken::OrderedAgain);
                }
                false
            }
            Action::MoveWorker { to, .. } => {
                let worker = self.worker.as_mut().expect("the planner names only known workers");
                worker.state = *to;
                self.worker = self.worker.filter(|w| w.state.is_live());
                true
            }
            Action::MoveScenario { to, .. } => {
                self.state = *to;
                true
            }
            Action::LoseRunner { .. } => {
                self.is_lost = true;
                if self.is_alive {
                    self.broken.push(Broken::HealthyLost);
                }
                true
            }
            Action::Stop(_) => {
                self.broken.push(Broken::HealthyStopped);
                false
            }
            Action::Explain { .. } | Action::Purge { .. } | Action::NoteRevision { .. } | Action::RollBack { .. } => {
                false
            }
        }
    }

    fn snapshot(&self, without: Without) -> Snapshot {
        let (scenario_id, incarnation) = (ScenarioId(Uuid::from_u128(1)), Incarnation(Uuid::from_u128(2)));
        let id = RunnerId("well".into());
        let scenario = ScenarioFacts {
            id: scenario_id,
            desired: Desired::Running,
            state: self.state,
            reason: None,
            generation: i64::from(self.worker.is_some()),
            stored: None,
            placement: BTreeMap::new(),
            execution: None,
            memory_mib: 1,
            is_fetched: false,
            revision: Default::default(),
            traceparent: None,
        };
        let is_taken_for_published = !without.has(Guard::PublishedFirst);
        let shown = |Worker { state, at, repeats }: Worker| WorkerFacts {
            scenario_id,
            generation: 1,
            runner_id: id.clone(),
            incarnation,
            state: if state == WorkerState::Pending && is_taken_for_published { WorkerState::Deployed } else { state },
            memory_mib: 1,
            order: Order { at_us: at, repeats },
            stop_ordered: false,
        };
        let report = WorkerStatus::new(scenario_id, 1, WorkerPhase::Running);
        let runner = RunnerFacts {
            id: id.clone(),
            incarnation,
            expires_at_us: self.expires,
            capacity: 1,
            memory_mib: None,
            draining: false,
            labels: BTreeMap::new(),
            arrived_after_us: self.arrived_after,
            workers: if self.shows { vec![report] } else { vec![] },
        };
        Snapshot {
            now_us: self.now,
            scenarios: vec![scenario],
            workers: self.worker.map(shown).into_iter().collect(),
            runners: if self.is_lost { vec![] } else { vec![runner] },
        }
    }

    /// A leader that is on time from now on writes the runner off within two terms of its death:
    /// one may be given anew.
    fn notices_death(mut self) -> bool {
        (self.is_alive, self.is_frozen) = (false, false);
        for _ in 0..2 * TERM + 1 {
            self.happen(ALL, Event::Tick);
            self.read(ALL, self.unread.len());
            self.ask();
            self.answer(ALL);
            self.reconcile(ALL);
        }
        self.is_lost
    }
}

impl Model for World {
    type Event = Event;

    fn events(&self, _: Without) -> Vec<Event> {
        let mut events = vec![Event::Publish, Event::Ask, Event::Reconcile];
        if self.now < END {
            events.push(Event::Tick);
        }
        if self.is_frozen {
            events.push(Event::Thaw);
        } else {
            events.extend([Event::Answer, Event::Read]);
            events.extend((self.freezes > 0).then_some(Event::Freeze));
        }
        let is_possible = |event: &Event| match event {
            Event::Publish => self.outbox && !self.is_frozen,
            Event::Ask => self.question.is_none(),
            Event::Answer => self.question.is_some_and(|q| q.answered.is_none()),
            Event::Read => !self.unread.is_empty(),
            _ => true,
        };
        events.retain(is_possible);
        events
    }

    fn happen(&mut self, without: Without, event: Event) {
        self.broken.clear();
        match event {
            Event::Tick => self.tick(),
            Event::Freeze => (self.is_frozen, self.freezes) = (true, self.freezes - 1),
            Event::Thaw => self.is_frozen = false,
            Event::Publish => self.publish(),
            Event::Ask => {
                self.ask();
                if !self.is_frozen {
                    self.answer(without);
                }
            }
            Event::Answer => self.answer(without),
            Event::Read => self.read(without, 1),
            Event::Reconcile => self.reconcile(without),
        }
    }

    fn broken(&mut self) -> &mut Vec<Broken> {
        &mut self.broken
    }
}

#[test]
fn a_leader_however_late_harms_no_runner_and_notices_a_dead_one() {
    let mut turn = 0;
    let found = search(World::new(), ALL, None, |world| {
        // Neighbours differ little, and this takes far longer than a step.
        turn = (turn + 1) % 16;
        assert!(turn > 0 || world.clone().notices_death(), "its death is not noticed: {world:#?}");
    });
    println!("{} states", found.states);
    assert!(found.violation.is_none(), "{:#?}", found.violation);
    assert!(found.states > 100_000, "only {} states", found.states);
}

#[test]
fn without_a_guard_a_late_leader_harms_somebody() {
    for (out, wanted) in [
        (&[Guard::HeardUntil][..], Broken::HealthyLost),
        // A worker of one that was written off is where it should not be once it is back.
        (&[Guard::HeardUntil], Broken::HealthyStopped),
        (&[Guard::LeaseAfterGap], Broken::HealthyLost),
        (&[Guard::ArrivedAfter], Broken::OrderedAgain),
        (&[Guard::PublishedFirst], Broken::OrderedAgain),
    ] {
        let found = search(World::new(), Without(out), Some(wanted), |_| {});
        let Some((broken, trace)) = found.violation else { panic!("{wanted:?} holds without {out:?}") };
        println!("without {out:?}: {broken:?}, after {} states, by", found.states);
        trace.iter().for_each(|event| println!("    {event:?}"));
    }
}
