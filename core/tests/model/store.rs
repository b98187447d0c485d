//! The store of the model: one scenario, its workers, runners, rows and offset, with the writes that infra's
//! adapters promise. Each method is one transaction, and decides by the functions of `core::writes`. Every
//! write that breaks an invariant says so in `broken`.

use std::collections::{BTreeMap, BTreeSet};

use framehook_core::{
    evidence::{self, Hearing},
    ids::{Digest, Epoch, Generation, Incarnation, RunnerId, ScenarioId},
    invariants::{every_frame_once, generations, no_row_goes_back, one_live_generation},
    message::{Progress, StopOrder, WorkerPhase, WorkerStatus},
    planner::{Action, Deploy, RunnerFacts, ScenarioFacts, Snapshot, WorkerFacts},
    prediction::{FrameTimings, Position, Prediction, Provenance},
    reason::{Reason, ReasonCode},
    state::{Desired, ScenarioState, WorkerState},
    writes::{Deployment, Lease, goes_on_behind, may_purge, set_desired},
};
use uuid::Uuid;

use crate::guard::{Broken, Guard, Without};

/// Two are enough for a gap, for a worker that is half done, and for one that has nothing left to do.
pub(crate) const FRAMES: u64 = 2;
pub(crate) const SCENARIO: ScenarioId = ScenarioId(Uuid::from_u128(1));

/// What a heartbeat says of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Report {
    pub(crate) generation: Generation,
    pub(crate) phase: WorkerPhase,
    pub(crate) published: Option<u64>,
}

/// Deploy or stop. `host` is the incarnation, by its place in the list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Order {
    pub(crate) host: usize,
    pub(crate) generation: Generation,
    pub(crate) is_stop: bool,
    pub(crate) resume_after: Option<u64>,
    /// What the hooks keep as of that frame: how many frames they have seen.
    pub(crate) count: u64,
}

/// A result on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) generation: Generation,
    pub(crate) frame: u64,
    /// What the hooks keep behind this frame.
    pub(crate) count: u64,
    /// How often it took effect.
    pub(crate) effects: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Worker {
    pub(crate) order: Order,
    pub(crate) state: WorkerState,
    stop_ordered: bool,
    /// A heartbeat of its runner came after the last order.
    pub(crate) heard: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Runner {
    pub(crate) name: usize,
    report: Option<Report>,
    pub(crate) lost: bool,
    pub(crate) expired: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fenced {
    Done,
    Stale,
    NotLeader,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) desired: Desired,
    pub(crate) state: ScenarioState,
    /// Only that there is no room; the other reasons do not come back to the planner.
    reason: Option<Reason>,
    pub(crate) generation: Generation,
    pub(crate) purged: bool,
    pub(crate) workers: Vec<Worker>,
    pub(crate) runners: Vec<Option<Runner>>,
    pub(crate) epoch: Epoch,
    /// The highest epoch that a write was committed under.
    written: Epoch,
    pub(crate) outbox: BTreeSet<Order>,
    pub(crate) offset: usize,
    /// The generation of each frame's row.
    rows: BTreeMap<u64, Generation>,
    stored: Option<u64>,
    /// Where the next deployment goes on, and what hooks keep as of then.
    resume_after: Option<u64>,
    count: u64,
    pub(crate) broken: Vec<Broken>,
}

impl Store {
    pub(crate) fn new(runners: usize) -> Self {
        let runner = |name| Runner { name, report: None, lost: false, expired: false };
        Self {
            desired: Desired::Running,
            state: ScenarioState::Pending,
            reason: None,
            generation: 0,
            purged: false,
            workers: vec![],
            runners: (0..runners).map(|name| Some(runner(name))).collect(),
            epoch: 1,
            written: 1,
            outbox: BTreeSet::new(),
            offset: 0,
            rows: BTreeMap::new(),
            stored: None,
            resume_after: None,
            count: 0,
            broken: vec![],
        }
    }

    pub(crate) fn expect(&mut self, broken: Broken, holds: bool) {
        if !holds && !self.broken.contains(&broken) {
            self.broken.push(broken);
        }
    }

    pub(crate) fn set_desired(&mut self, desired: Desired) {
        let change = set_desired(self.desired, self.state, desired);
        if change.is_new {
            self.desired = desired;
        }
        if change.restarts {
            self.move_state(ScenarioState::Pending, None);
        }
    }

    /// The lease changes hands; the runners' leases begin anew.
    pub(crate) fn lead(&mut self, without: Without) -> Epoch {
        // The clock is past every lease's end, and whoever asks is another than the holder.
        let lease = Lease { epoch: self.epoch, ..Lease::default() };
        let granted = lease.grant(Uuid::max(), true, NOW).filter(|_| without.has(Guard::EpochGrows));
        self.epoch = granted.map_or(self.epoch, |granted| granted.epoch);
        self.runners.iter_mut().flatten().filter(|r| !r.lost).for_each(|r| r.expired = false);
        self.epoch
    }

    pub(crate) fn record_heartbeat(
        &mut self,
        without: Without,
        epoch: Epoch,
        (host, name): (usize, usize),
        report: Option<Report>,
    ) -> Fenced {
        if without.has(Guard::EpochOfHeartbeat) && epoch != self.epoch {
            return Fenced::NotLeader;
        }
        let is_replaced = self.runners.iter().skip(host + 1).flatten().any(|r| r.name == name);
        if is_replaced && without.has(Guard::ReplacedIncarnation) {
            return Fenced::Stale;
        }
        self.commit(epoch);
        self.runners[host] = Some(Runner { name, report, lost: false, expired: false });
        self.workers.iter_mut().filter(|w| w.order.host == host).for_each(|w| w.heard = true);
        Fenced::Done
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let at_rest = match (self.state, self.desired) {
            (_, Desired::Deleted) => self.purged,
            (ScenarioState::Stopped, Desired::Running) => false,
            (state, _) => state.is_ended(),
        };
        let scenario = ScenarioFacts {
            id: SCENARIO,
            desired: self.desired,
            state: self.state,
            reason: self.reason.clone(),
            generation: self.generation,
            stored: self.stored.map(position),
            placement: BTreeMap::new(),
            execution: None,
            memory_mib: 1,
            is_fetched: false,
            revision: Default::default(),
            traceparent: None,
        };
        let present = self.runners.iter().enumerate().filter_map(|(n, r)| Some((n, r.as_ref().filter(|r| !r.lost)?)));
        Snapshot {
            now_us: NOW,
            scenarios: if at_rest { vec![] } else { vec![scenario] },
            workers: self.workers.iter().filter(|w| w.state.is_live()).map(|w| self.worker_facts(w)).collect(),
            runners: present.map(|(host, runner)| runner_facts(host, runner)).collect(),
        }
    }

    fn worker_facts(&self, worker: &Worker) -> WorkerFacts {
        let name = self.runners[worker.order.host].as_ref().map_or(0, |r| r.name);
        WorkerFacts {
            scenario_id: SCENARIO,
            generation: worker.order.generation,
            runner_id: runner_id(name),
            incarnation: incarnation(worker.order.host),
            state: worker.state,
            memory_mib: 1,
            // Before or after the runner was seen, and overdue: the model's timing waits for nothing.
            order: evidence::Order { at_us: if worker.heard { NOW - 2 } else { NOW }, repeats: 0 },
            stop_ordered: worker.stop_ordered,
        }
    }

    pub(crate) fn apply(&mut self, without: Without, epoch: Epoch, action: &Action) -> Fenced {
        if without.has(Guard::EpochOfAction) && epoch != self.epoch {
            return Fenced::NotLeader;
        }
        if !self.execute(without, action) {
            return Fenced::Stale;
        }
        self.commit(epoch);
        let at_rest = self.state.is_ended() && self.has_live_worker();
        self.expect(Broken::WorkerAtRest, !at_rest);
        Fenced::Done
    }

    fn has_live_worker(&self) -> bool {
        self.workers.iter().any(|w| w.state.is_live())
    }

    fn commit(&mut self, epoch: Epoch) {
        self.expect(Broken::Epochs, epoch >= self.written);
        self.written = self.written.max(epoch);
    }

    fn execute(&mut self, without: Without, action: &Action) -> bool {
        let is_from = |now: ScenarioState, from: ScenarioState| now == from || !without.has(Guard::StateOfAction);
        match action {
            Action::Deploy(Deploy { from, generation, incarnation, .. }) => {
                is_from(self.state, *from) && self.deploy(without, *generation, host(*incarnation))
            }
            Action::RepeatDeploy { generation, .. } => {
                let live = self.workers.iter_mut().find(|w| w.order.generation == *generation && w.state.is_live());
                let Some(worker) = live else { return false };
                if without.has(Guard::OrdersRepeated) {
                    worker.heard = false;
                    self.outbox.insert(worker.order);
                }
                true
            }
            Action::Stop(StopOrder { generation, incarnation, .. }) => {
                self.stop(without, *generation, host(*incarnation));
                true
            }
            Action::MoveWorker { generation, from, to, .. } => {
                let is_from = |state| state == *from || !without.has(Guard::StateOfAction);
                let of_order = |w: &Worker| w.order.generation == *generation && is_from(w.state);
                let Some(at) = self.workers.iter().position(of_order) else { return false };
                self.move_worker(without, at, *to);
                true
            }
            Action::MoveScenario { from, .. } | Action::Explain { state: from, .. } if !is_from(self.state, *from) => {
                false
            }
            Action::MoveScenario { to, reason, .. } => {
                self.move_state(*to, reason.as_ref());
                true
            }
            Action::Explain { reason, .. } => {
                self.explain(reason.as_ref());
                true
            }
            Action::LoseRunner { incarnation, .. } => {
                let present = self.runners[host(*incarnation)].as_mut().filter(|r| !r.lost);
                present.map(|r| r.lost = true).is_some()
            }
            Action::Purge { .. } => self.purge(),
            // Its workers say nothing of revisions.
            Action::NoteRevision { .. } | Action::RollBack { .. } => false,
        }
    }

    fn deploy(&mut self, without: Without, generation: Generation, host: usize) -> bool {
        let now = Deployment {
            desired: self.desired,
            generation: if without.has(Guard::NextGeneration) { self.generation } else { generation - 1 },
            has_live_worker: without.has(Guard::OneLiveWorker) && self.has_live_worker(),
            is_runner_present: self.runners[host].as_ref().is_some_and(|r| !r.lost),
        };
        if !now.may_begin(generation) {
            return false;
        }
        let Self { resume_after, count, .. } = *self;
        let order = Order { host, generation, is_stop: false, resume_after, count };
        self.workers.push(Worker { order, state: WorkerState::Pending, stop_ordered: false, heard: false });
        self.generation = generation;
        self.move_state(ScenarioState::Deploying, None);
        self.outbox.insert(order);
        self.check_workers();
        true
    }

    fn stop(&mut self, without: Without, generation: Generation, host: usize) {
        let live = |w: &&mut Worker| (w.order.host, w.order.generation) == (host, generation) && w.state.is_live();
        if let Some(worker) = self.workers.iter_mut().find(live) {
            if worker.stop_ordered && !without.has(Guard::OrdersRepeated) {
                return;
            }
            (worker.stop_ordered, worker.heard) = (true, false);
        }
        self.outbox.insert(Order { host, generation, is_stop: true, resume_after: None, count: 0 });
    }

    fn purge(&mut self) -> bool {
        if self.purged || !may_purge(self.desired, self.state, self.has_live_worker()) {
            return false;
        }
        (self.rows, self.stored, self.purged) = (BTreeMap::new(), None, true);
        (self.resume_after, self.count) = (None, 0);
        self.workers.clear();
        true
    }

    /// The relay's mark: the order is published.
    pub(crate) fn mark_published(&mut self, without: Without) {
        for order in std::mem::take(&mut self.outbox) {
            let of_order = |w: &Worker| w.order == order;
            if let Some(at) = self.workers.iter().position(of_order)
                && (self.workers[at].state == WorkerState::Pending || !without.has(Guard::MarkOnlyPending))
            {
                self.move_worker(without, at, WorkerState::Deployed);
            }
        }
    }

    fn move_worker(&mut self, without: Without, at: usize, to: WorkerState) {
        let others = self.workers.iter().enumerate().any(|(n, w)| n != at && w.state.is_live());
        if to.is_live() && others && without.has(Guard::OneLiveWorker) {
            return;
        }
        let from = self.workers[at].state;
        self.expect(Broken::IllegalTransition, from == to || from.may_become(to).is_ok());
        self.workers[at].state = to;
        if !to.is_live() {
            // Asked of the living only: two ends are one state.
            (self.workers[at].stop_ordered, self.workers[at].heard) = (false, true);
        }
        self.check_workers();
    }

    fn check_workers(&mut self) {
        let workers: Vec<_> = self.workers.iter().map(|w| (SCENARIO, w.order.generation, w.state)).collect();
        self.expect(Broken::OneLiveGeneration, one_live_generation(&workers).is_ok());
    }

    fn move_state(&mut self, to: ScenarioState, reason: Option<&Reason>) {
        self.expect(Broken::IllegalTransition, self.state.may_become(to).is_ok());
        self.state = to;
        self.explain(reason);
        let is_complete = to != ScenarioState::Completed || self.desired == Desired::Deleted;
        self.expect(Broken::FrameLost, is_complete || every_frame_once(&self.predictions(), FRAMES).is_ok());
    }

    fn explain(&mut self, reason: Option<&Reason>) {
        self.reason = reason.filter(|r| r.code == ReasonCode::NoCapacity).cloned();
    }

    /// One batch of the inbox, read from `expected` up to `next`. `with_rows`: it did not die between the two
    /// writes, which only matters where they are not one.
    pub(crate) fn store_results(
        &mut self,
        without: Without,
        log: &mut [Record],
        (expected, next): (usize, usize),
        with_rows: bool,
    ) {
        if without.has(Guard::OffsetCompared) && self.offset != expected {
            return;
        }
        self.offset = next;
        let before = generations(&self.predictions());
        for record in log[expected..next].iter_mut().filter(|_| with_rows) {
            record.effects += 1;
            if self.desired == Desired::Deleted && without.has(Guard::DeletedDropped) {
                continue;
            }
            let row = self.rows.entry(record.frame).or_insert(record.generation);
            if !without.has(Guard::GenerationOfRow) || record.generation >= *row {
                *row = record.generation;
            }
            self.stored = self.stored.max(Some(record.frame));
            let (before, row) = (self.resume_after.map(position), position(record.frame));
            if goes_on_behind(before, self.generation, record.generation, row) || !without.has(Guard::GenerationOfState)
            {
                (self.resume_after, self.count) = (self.resume_after.max(Some(record.frame)), record.count);
            }
        }
        self.expect(Broken::CountedTwice, self.count == self.resume_after.map_or(0, |frame| frame + 1));
        self.expect(Broken::RowWentBack, no_row_goes_back(&before, &generations(&self.predictions())).is_ok());
        self.expect(Broken::LeftOver, !self.purged || self.rows.is_empty());
        let is_once = log.iter().enumerate().all(|(n, r)| r.effects == u8::from(n < self.offset));
        self.expect(Broken::OffsetAndRows, is_once);
        // A file resumes after `stored`, so all up to there must be there; and so must all that the offset
        // has passed.
        let has_row = |frame: u64| self.rows.contains_key(&frame);
        let is_whole = self.stored.is_none_or(|stored| (0..=stored).all(has_row))
            && log[..self.offset].iter().all(|r| has_row(r.frame));
        self.expect(Broken::FrameLost, is_whole || self.desired == Desired::Deleted);
    }

    fn predictions(&self) -> Vec<Prediction> {
        self.rows.iter().map(|(frame, generation)| prediction(*frame, *generation)).collect()
    }
}

/// Later than every time in a snapshot that has passed.
const NOW: i64 = 10;

/// Everything was heard.
pub(crate) fn hearing() -> Hearing {
    Hearing::since(NOW)
}

fn position(frame: u64) -> Position {
    Position { pts_us: frame.cast_signed(), frame }
}

pub(crate) fn incarnation(host: usize) -> Incarnation {
    Incarnation(Uuid::from_u128(host as u128))
}

pub(crate) fn host(incarnation: Incarnation) -> usize {
    incarnation.0.as_u128() as usize
}

fn runner_id(name: usize) -> RunnerId {
    RunnerId(name.to_string())
}

fn runner_facts(host: usize, runner: &Runner) -> RunnerFacts {
    let status = |report: Report| WorkerStatus {
        progress: Progress { published: report.published.map(position), ..Progress::default() },
        ..WorkerStatus::new(SCENARIO, report.generation, report.phase)
    };
    RunnerFacts {
        id: runner_id(runner.name),
        incarnation: incarnation(host),
        expires_at_us: if runner.expired { NOW } else { NOW + 1 },
        capacity: 1,
        memory_mib: None,
        draining: false,
        labels: BTreeMap::new(),
        arrived_after_us: NOW - 1,
        workers: runner.report.map(status).into_iter().collect(),
    }
}

fn prediction(frame: u64, generation: Generation) -> Prediction {
    Prediction {
        scenario_id: SCENARIO,
        generation,
        pts_us: position(frame).pts_us,
        frame,
        left_out: 0,
        size: None,
        captured_at: jiff::Timestamp::UNIX_EPOCH,
        detections: vec![],
        events: vec![],
        skipped: None,
        hook_failures: vec![],
        timings: FrameTimings::default(),
        provenance: Provenance {
            model: Digest::from_bytes(&[0; 32]),
            models: Default::default(),
            plugins: vec![],
            revision: 1,
            decoder: None,
            execution: None,
        },
    }
}
