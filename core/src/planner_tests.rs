//! The planner against a small world: a store that executes actions as an adapter must, and runners whose
//! orders and heartbeats are lost, late and repeated at random.

use proptest::prelude::*;

use super::*;
use crate::{
    execution::{Precision, Provider},
    fences::{Fences, Verdict},
    invariants::one_live_generation,
    noted::noted,
    revision::RolledBack,
};

const SECOND: i64 = 1_000_000;
const LEASE: i64 = 10 * SECOND;
const FRAMES: u64 = 5;
/// This scenario asks for the label that only this runner has.
const PICKY: usize = 3;
const NORTHERN: usize = 1;

/// Memory of a runner, and of each scenario's worker: two fit, as two slots do.
const MEMORY_MIB: u32 = 1000;
const NEED_MIB: u32 = 500;

fn north() -> Labels {
    Labels::from([("site".into(), "north".into())])
}

#[derive(Clone)]
struct StoredWorker {
    facts: WorkerFacts,
}

struct StoredScenario {
    facts: ScenarioFacts,
    purged: bool,
}

/// One life of a runner process.
struct Process {
    id: RunnerId,
    incarnation: Incarnation,
    alive: bool,
    labels: Labels,
    orders: Vec<Action>,
    fences: Fences,
    workers: Vec<WorkerStatus>,
}

struct World {
    now_us: i64,
    hearing: Hearing,
    scenarios: Vec<StoredScenario>,
    workers: Vec<StoredWorker>,
    runners: Vec<RunnerFacts>,
    processes: Vec<Process>,
    starts: u128,
}

impl World {
    fn new(scenarios: usize, runners: usize) -> Self {
        let mut world = Self {
            now_us: 0,
            hearing: Hearing::since(0),
            scenarios: vec![],
            workers: vec![],
            runners: vec![],
            processes: vec![],
            starts: 0,
        };
        for n in 0..scenarios {
            let facts = ScenarioFacts {
                id: ScenarioId(uuid::Uuid::from_u128(n as u128 + 1)),
                desired: Desired::Running,
                state: ScenarioState::Pending,
                reason: None,
                generation: 0,
                stored: None,
                execution: None,
                placement: if n == PICKY { north() } else { Labels::new() },
                memory_mib: NEED_MIB,
                is_fetched: false,
                revision: Default::default(),
                traceparent: None,
            };
            world.scenarios.push(StoredScenario { facts, purged: false });
        }
        for n in 0..runners {
            world.start_runner(n);
        }
        world
    }

    fn start_runner(&mut self, n: usize) {
        let id = RunnerId(format!("runner-{n}"));
        for process in self.processes.iter_mut().filter(|p| p.id == id) {
            process.alive = false;
        }
        self.starts += 1;
        let incarnation = Incarnation(uuid::Uuid::from_u128(self.starts));
        let labels = if n == NORTHERN { north() } else { Labels::new() };
        let (orders, fences, workers) = (vec![], Fences::default(), vec![]);
        self.processes.push(Process { id, incarnation, alive: true, labels, orders, fences, workers });
        self.heartbeat(self.processes.len() - 1);
    }

    fn heartbeat(&mut self, process: usize) {
        let process = &self.processes[process];
        let facts = RunnerFacts {
            id: process.id.clone(),
            incarnation: process.incarnation,
            expires_at_us: self.now_us + LEASE,
            capacity: 2,
            memory_mib: Some(MEMORY_MIB),
            draining: false,
            labels: process.labels.clone(),
            arrived_after_us: self.hearing.until_us(),
            workers: process.workers.clone(),
        };
        let is_replaced = self.runners.iter().any(|r| r.id == facts.id && r.incarnation > facts.incarnation);
        match self.runners.iter_mut().find(|r| r.incarnation == process.incarnation) {
            Some(known) => *known = facts,
            // New, or written off and back: unless another life of the same runner has begun since.
            None if is_replaced => {}
            None => self.runners.push(facts),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let at_rest = |s: &StoredScenario| match (s.facts.state, s.facts.desired) {
            (_, Desired::Deleted) => s.purged,
            (ScenarioState::Stopped, Desired::Running) => false,
            (state, _) => state.is_ended(),
        };
        Snapshot {
            now_us: self.now_us,
            scenarios: self.scenarios.iter().filter(|s| !at_rest(s)).map(|s| s.facts.clone()).collect(),
            workers: self.workers.iter().map(|w| w.facts.clone()).filter(|w| w.state.is_live()).collect(),
            runners: self.runners.clone(),
        }
    }

    fn plan(&self) -> Vec<Action> {
        plan(&self.snapshot(), &self.hearing, Timing::default())
    }

    /// The leader has read all heartbeats there are.
    fn catch_up(&mut self) {
        if self.hearing.is_gap(self.now_us, Duration::from_micros(LEASE.cast_unsigned())) {
            self.runners.iter_mut().for_each(|r| r.expires_at_us = r.expires_at_us.max(self.now_us + LEASE));
        }
        self.hearing.advance(self.now_us);
    }

    fn scenario(&mut self, id: ScenarioId) -> &mut StoredScenario {
        self.scenarios.iter_mut().find(|s| s.facts.id == id).expect("the planner names only known scenarios")
    }

    /// Executes an action as the store does; true if the world changed.
    fn apply(&mut self, action: Action) -> bool {
        let now_us = self.now_us;
        match action.clone() {
            Action::Deploy(Deploy { scenario_id, from, generation, runner_id, incarnation, .. }) => {
                let scenario = &mut self.scenario(scenario_id).facts;
                assert_eq!((scenario.state, scenario.generation + 1), (from, generation));
                assert_eq!(scenario.desired, Desired::Running);
                let is_wanted = scenario.placement.is_empty() || runner_id.0 == format!("runner-{NORTHERN}");
                assert!(is_wanted, "{runner_id} lacks {:?}", scenario.placement);
                scenario.state.may_become(ScenarioState::Deploying).unwrap();
                scenario.state = ScenarioState::Deploying;
                scenario.generation = generation;
                let facts = WorkerFacts {
                    scenario_id,
                    generation,
                    runner_id,
                    incarnation,
                    memory_mib: scenario.memory_mib,
                    // Published at once.
                    state: WorkerState::Deployed,
                    order: Order { at_us: now_us, repeats: 0 },
                    stop_ordered: false,
                };
                let of_runner = |w: &&StoredWorker| w.facts.incarnation == incarnation && w.facts.state.is_live();
                let used: u32 = self.workers.iter().filter(of_runner).map(|w| w.facts.memory_mib).sum();
                assert!(used + facts.memory_mib <= MEMORY_MIB, "more memory is given away than there is");
                self.workers.push(StoredWorker { facts });
                self.order(incarnation, action);
                true
            }
            Action::RepeatDeploy { scenario_id, generation } => {
                let worker = self.worker(scenario_id, generation);
                worker.facts.order = Order { at_us: now_us, repeats: worker.facts.order.repeats + 1 };
                let WorkerFacts { runner_id, incarnation, .. } = worker.facts.clone();
                let from = ScenarioState::Pending;
                self.order(
                    incarnation,
                    Action::Deploy(Deploy { scenario_id, from, generation, runner_id, incarnation, execution: None }),
                );
                false
            }
            Action::Stop(StopOrder { scenario_id, generation, incarnation, .. }) => {
                if let Some(worker) = self
                    .workers
                    .iter_mut()
                    .find(|w| (w.facts.scenario_id, w.facts.generation) == (scenario_id, generation))
                {
                    let repeats = if worker.facts.stop_ordered { worker.facts.order.repeats + 1 } else { 0 };
                    worker.facts.order = Order { at_us: now_us, repeats };
                    worker.facts.stop_ordered = true;
                }
                self.hearing.told((scenario_id, generation, incarnation), now_us, Timing::default().resend_after);
                self.order(incarnation, action);
                false
            }
            Action::MoveWorker { scenario_id, generation, from, to, .. } => {
                let worker = self.worker(scenario_id, generation);
                assert_eq!(worker.facts.state, from);
                from.may_become(to).unwrap();
                worker.facts.state = to;
                true
            }
            Action::MoveScenario { scenario_id, from, to, reason } => {
                let scenario = &mut self.scenario(scenario_id).facts;
                assert_eq!(scenario.state, from);
                from.may_become(to).unwrap();
                (scenario.state, scenario.reason) = (to, reason);
                true
            }
            Action::Explain { scenario_id, state, reason } => {
                let scenario = &mut self.scenario(scenario_id).facts;
                assert_eq!(scenario.state, state);
                assert_ne!(scenario.reason, reason);
                scenario.reason = reason;
                true
            }
            Action::LoseRunner { incarnation, .. } => {
                self.runners.retain(|r| r.incarnation != incarnation);
                true
            }
            Action::NoteRevision { .. } | Action::RollBack { .. } => unreachable!("no worker told of a revision"),
            Action::Purge { scenario_id } => {
                let scenario = self.scenario(scenario_id);
                assert_eq!(scenario.facts.desired, Desired::Deleted);
                scenario.purged = true;
                true
            }
        }
    }

    fn worker(&mut self, id: ScenarioId, generation: Generation) -> &mut StoredWorker {
        let key = (id, generation);
        self.workers
            .iter_mut()
            .find(|w| (w.facts.scenario_id, w.facts.generation) == key)
            .expect("the planner names only known workers")
    }

    fn order(&mut self, incarnation: Incarnation, order: Action) {
        if let Some(process) = self.processes.iter_mut().find(|p| p.incarnation == incarnation) {
            process.orders.push(order);
        }
    }

    /// Plans until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            let actions = self.plan();
            let mut changed = false;
            for action in actions {
                changed |= self.apply(action);
            }
            let workers: Vec<_> =
                self.workers.iter().map(|w| (w.facts.scenario_id, w.facts.generation, w.facts.state)).collect();
            one_live_generation(&workers).unwrap();
            if !changed {
                return;
            }
        }
        panic!("the planner does not come to rest: {:?}", self.plan());
    }

    /// A runner takes its orders as a runner must: by generation, whatever their order.
    fn take_orders(&mut self, process: usize) {
        let process = &mut self.processes[process];
        for order in std::mem::take(&mut process.orders) {
            let (id, generation, verdict) = match order {
                Action::Deploy(Deploy { scenario_id, generation, .. }) => {
                    (scenario_id, generation, process.fences.deploy(scenario_id, generation))
                }
                Action::Stop(StopOrder { scenario_id, generation, .. }) => {
                    (scenario_id, generation, process.fences.stop(scenario_id, generation))
                }
                _ => unreachable!("not an order"),
            };
            let phase = if verdict == Verdict::Start { WorkerPhase::Running } else { WorkerPhase::Stopped };
            match (verdict, process.workers.iter_mut().find(|w| w.scenario_id == id)) {
                (Verdict::Start | Verdict::StopUnknown, Some(older)) => {
                    *older = WorkerStatus::new(id, generation, phase)
                }
                (Verdict::Stop, Some(known)) if !known.phase.is_ended() => known.phase = phase,
                (Verdict::Outdated, _) | (_, Some(_)) => {}
                // New; or noted, and ordered once more: it must not stay silent.
                (_, None) => process.workers.push(WorkerStatus::new(id, generation, phase)),
            }
        }
    }

    /// Runners hear which ends are noted, unless that is lost.
    fn note(&mut self) {
        for noted in noted(&self.snapshot()) {
            let process = self.processes.iter_mut().find(|p| p.incarnation == noted.incarnation).unwrap();
            let is_noted = |w: &WorkerStatus| {
                noted.workers.iter().any(|n| (n.scenario_id, n.generation) == (w.scenario_id, w.generation))
            };
            assert!(process.workers.iter().all(|w| w.phase.is_ended() || !is_noted(w)), "it runs: {noted:?}");
            process.workers.retain(|w| !is_noted(w));
        }
    }

    /// Each running worker of a runner publishes a frame; the inbox may store it later.
    fn work(&mut self, process: usize, ends_as: WorkerPhase) {
        for worker in self.processes[process].workers.iter_mut().filter(|w| !w.phase.is_ended()) {
            let frame = worker.progress.published.map_or(0, |p| p.frame + 1);
            let position = Position { pts_us: i64::try_from(frame).unwrap(), frame };
            worker.progress.published = Some(position);
            if frame + 1 >= FRAMES {
                worker.phase = ends_as;
            }
        }
    }

    fn store_results(&mut self) {
        let published = self.processes.iter().flat_map(|p| &p.workers);
        let published: Vec<_> = published.filter_map(|w| Some((w.scenario_id, w.progress.published?))).collect();
        for (id, position) in published {
            let facts = &mut self.scenario(id).facts;
            // As the store does: nobody reads them any more.
            if facts.desired != Desired::Deleted {
                facts.stored = facts.stored.max(Some(position));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Wish(usize, Desired),
    KillRunner(usize),
    StartRunner(usize),
    Heartbeat(usize),
    TakeOrders(usize),
    LoseOrders(usize),
    Work(usize, WorkerPhase),
    Recover(usize),
    CatchUp,
    StoreResults,
    Wait(i64),
    Note,
    Plan,
    /// A plan of which only the first actions were executed: the store failed, or the leader died.
    PlanInPart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let desired = prop_oneof![3 => Just(Desired::Running), 2 => Just(Desired::Stopped), 1 => Just(Desired::Deleted)];
    let end = prop_oneof![4 => Just(WorkerPhase::Finished), 1 => Just(WorkerPhase::Failed)];
    prop_oneof![
        2 => (0..4usize, desired).prop_map(|(n, d)| Event::Wish(n, d)),
        1 => (0..8usize).prop_map(Event::KillRunner),
        1 => (0..2usize).prop_map(Event::StartRunner),
        6 => (0..8usize).prop_map(Event::Heartbeat),
        4 => (0..8usize).prop_map(Event::TakeOrders),
        1 => (0..8usize).prop_map(Event::LoseOrders),
        4 => ((0..8usize), end).prop_map(|(n, e)| Event::Work(n, e)),
        1 => (0..8usize).prop_map(Event::Recover),
        3 => Just(Event::CatchUp),
        2 => Just(Event::StoreResults),
        2 => (1..6i64).prop_map(Event::Wait),
        2 => Just(Event::Note),
        5 => Just(Event::Plan),
        2 => (0..6usize).prop_map(Event::PlanInPart),
    ]
}

fn happen(world: &mut World, event: Event) {
    let alive = |world: &World, n: usize| (n < world.processes.len() && world.processes[n].alive).then_some(n);
    match event {
        Event::Wish(n, desired) => wish(&mut world.scenarios[n].facts, desired),
        Event::KillRunner(n) => {
            if let Some(n) = alive(world, n) {
                world.processes[n].alive = false;
            }
        }
        Event::StartRunner(n) => world.start_runner(n),
        Event::Heartbeat(n) => {
            if let Some(n) = alive(world, n) {
                world.heartbeat(n);
            }
        }
        Event::TakeOrders(n) => {
            if let Some(n) = alive(world, n) {
                world.take_orders(n);
            }
        }
        Event::LoseOrders(n) => {
            if let Some(n) = alive(world, n) {
                world.processes[n].orders.clear();
            }
        }
        Event::Work(n, end) => {
            if let Some(n) = alive(world, n) {
                world.work(n, end);
            }
        }
        Event::Recover(n) => {
            if let Some(worker) = alive(world, n).and_then(|n| world.processes[n].workers.first_mut())
                && !worker.phase.is_ended()
            {
                worker.phase = WorkerPhase::Recovering;
            }
        }
        Event::CatchUp => world.catch_up(),
        Event::StoreResults => world.store_results(),
        Event::Wait(seconds) => world.now_us += seconds * SECOND,
        Event::Note => world.note(),
        Event::Plan => world.settle(),
        Event::PlanInPart(count) => {
            let actions = world.plan();
            for action in actions.into_iter().take(count) {
                world.apply(action);
            }
        }
    }
}

/// What the API does to a scenario.
fn wish(scenario: &mut ScenarioFacts, desired: Desired) {
    if scenario.desired == Desired::Deleted {
        return;
    }
    scenario.desired = desired;
    if desired == Desired::Running
        && scenario.state.may_become(ScenarioState::Pending).is_ok()
        && scenario.state.is_ended()
    {
        scenario.state = ScenarioState::Pending;
    }
}

/// Without faults, time goes by and everybody does their work.
fn calm_down(world: &mut World) {
    for n in 0..2 {
        if !world.processes.iter().any(|p| p.alive && p.id.0 == format!("runner-{n}")) {
            world.start_runner(n);
        }
    }
    for _ in 0..60 {
        world.now_us += SECOND;
        world.catch_up();
        for n in 0..world.processes.len() {
            if world.processes[n].alive {
                world.take_orders(n);
                world.work(n, WorkerPhase::Finished);
                world.heartbeat(n);
            }
        }
        world.store_results();
        world.settle();
        world.note();
    }
    // The last heartbeats, which know what was noted.
    (0..world.processes.len()).filter(|n| world.processes[*n].alive).collect::<Vec<_>>().into_iter().for_each(|n| {
        world.heartbeat(n);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// I3 holds throughout, every transition is legal, and I8: once faults stop, every scenario is as
    /// desired.
    #[test]
    fn any_history_is_safe_and_converges(events in proptest::collection::vec(event(), 1..120)) {
        let mut world = World::new(4, 2);
        for event in events {
            happen(&mut world, event);
        }
        calm_down(&mut world);
        for scenario in &world.scenarios {
            let ScenarioFacts { desired, state, stored, .. } = &scenario.facts;
            let is_settled = match desired {
                Desired::Running => matches!(state, ScenarioState::Completed | ScenarioState::Failed),
                Desired::Stopped => state.is_ended(),
                Desired::Deleted => scenario.purged,
            };
            prop_assert!(is_settled, "desired {desired}, but {state}");
            // Nothing is stored any more of a deleted one.
            if *state == ScenarioState::Completed && *desired != Desired::Deleted {
                prop_assert_eq!(stored.map(|s| s.frame), Some(FRAMES - 1), "completed before its last frame was stored");
            }
        }
        prop_assert!(world.plan().is_empty());
        let strays = world.processes.iter().filter(|p| p.alive).flat_map(|p| &p.workers).filter(|w| !w.phase.is_ended());
        prop_assert_eq!(strays.count(), 0);
        let still_told = world.processes.iter().filter(|p| p.alive).flat_map(|p| &p.workers);
        prop_assert_eq!(still_told.count(), 0, "every end is noted");
    }
}

#[test]
fn a_scenario_without_room_waits_and_says_so_and_the_oldest_goes_first() {
    let mut world = World::new(3, 1);
    world.settle();
    let states: Vec<_> = world.scenarios.iter().map(|s| s.facts.state).collect();
    assert_eq!(states, [ScenarioState::Deploying, ScenarioState::Deploying, ScenarioState::Pending]);
    assert_eq!(world.scenarios[2].facts.reason.as_ref().unwrap().code, ReasonCode::NoCapacity);
    calm_down(&mut world);
    assert!(world.scenarios.iter().all(|s| s.facts.state == ScenarioState::Completed));
}

#[test]
fn scenarios_are_spread_over_runners() {
    let mut world = World::new(2, 2);
    world.settle();
    let runners: BTreeSet<_> = world.workers.iter().map(|w| w.facts.runner_id.clone()).collect();
    assert_eq!(runners.len(), 2);
}

#[test]
fn a_scenario_that_no_runner_suits_waits_for_one_that_does() {
    let mut world = World::new(1, 1);
    world.scenarios[0].facts.placement = north();
    world.settle();
    let facts = &world.scenarios[0].facts;
    let reason = facts.reason.as_ref().unwrap();
    assert_eq!((facts.state, reason.code), (ScenarioState::Pending, ReasonCode::NoCapacity));
    assert!(reason.message.contains("no runner has `site=north`"), "{}", reason.message);
    world.start_runner(NORTHERN);
    world.settle();
    assert_eq!(world.scenarios[0].facts.state, ScenarioState::Deploying);
    assert_eq!(world.workers[0].facts.runner_id.0, "runner-1");
}

#[test]
fn what_ran_a_scenario_before_must_be_where_it_goes_on() {
    let bf16 = Execution { provider: Provider::Openvino, precision: Precision::Bf16 };
    let mut world = World::new(1, 1);
    world.scenarios[0].facts.execution = Some(bf16);
    world.settle();
    let facts = &world.scenarios[0].facts;
    assert_eq!(facts.state, ScenarioState::Pending);
    let message = &facts.reason.as_ref().unwrap().message;
    assert!(message.contains("no runner has `provider.openvino.bf16=true`"), "{message}");
    assert!(facts.placement.is_empty(), "nobody asked for it");
    world.runners[0].labels.extend(bf16.label().map(provided));
    let deployed = world.plan().into_iter().find_map(|action| match action {
        Action::Deploy(deploy) => Some(deploy.execution),
        _ => None,
    });
    assert_eq!(deployed, Some(Some(bf16)));
}

/// Times at which the leader has heard everything, up to `until` seconds; nobody says anything.
fn silence(world: &mut World, until: i64) {
    while world.now_us < until * SECOND {
        world.now_us += SECOND;
        world.catch_up();
    }
}

fn lost(world: &World) -> usize {
    world.plan().iter().filter(|a| matches!(a, Action::LoseRunner { .. })).count()
}

#[test]
fn a_scenario_that_needs_more_memory_than_there_is_waits_and_says_so() {
    let mut world = World::new(2, 1);
    world.scenarios[0].facts.memory_mib = MEMORY_MIB;
    world.scenarios[1].facts.memory_mib = MEMORY_MIB + 1;
    world.settle();
    assert_eq!(world.scenarios[0].facts.state, ScenarioState::Deploying);
    let facts = &world.scenarios[1].facts;
    let reason = facts.reason.as_ref().unwrap();
    assert_eq!((facts.state, reason.code), (ScenarioState::Pending, ReasonCode::NoCapacity));
    assert!(reason.message.contains("needs 1001 MiB") && reason.message.contains("has 1000 MiB"), "{}", reason.message);
}

#[test]
fn a_mass_expiry_is_held_back_but_not_for_ever() {
    let mut world = World::new(2, 2);
    world.settle();
    silence(&mut world, 39);
    assert_eq!(lost(&world), 0);
    silence(&mut world, 40);
    assert_eq!(lost(&world), 2);
}

#[test]
fn a_runner_alone_that_expires_is_written_off_once_its_silence_was_heard() {
    let mut world = World::new(1, 1);
    world.settle();
    silence(&mut world, 9);
    // Whatever the clock says: it may have said something that was not read yet.
    world.now_us = 3600 * SECOND;
    assert_eq!(world.plan(), []);
    world.now_us = 10 * SECOND;
    world.catch_up();
    let actions = world.plan();
    assert!(matches!(actions[..], [Action::LoseRunner { .. }, Action::MoveWorker { .. }, Action::MoveScenario { .. }]));
}

#[test]
fn after_a_time_in_which_nobody_could_be_heard_every_lease_begins_anew() {
    let mut world = World::new(1, 1);
    world.settle();
    silence(&mut world, 9);
    world.now_us = 60 * SECOND;
    world.catch_up();
    assert_eq!(world.plan(), []);
    silence(&mut world, 69);
    assert_eq!(world.plan(), []);
    silence(&mut world, 70);
    assert_eq!(lost(&world), 1);
}

#[test]
fn an_order_is_repeated_only_for_a_heartbeat_that_came_behind_it_and_ever_more_rarely() {
    let mut world = World::new(1, 1);
    world.settle();
    let repeats = |world: &mut World| {
        let actions = world.plan();
        actions.into_iter().filter(|a| matches!(a, Action::RepeatDeploy { .. })).map(|a| world.apply(a)).count()
    };
    // Read late: they may have been sent before the order was.
    world.now_us = 4 * SECOND;
    world.heartbeat(0);
    assert_eq!(repeats(&mut world), 0);
    let mut times = vec![];
    for second in 5..60 {
        world.now_us = second * SECOND;
        world.catch_up();
        world.heartbeat(0);
        times.extend((0..repeats(&mut world)).map(|_| second));
    }
    assert_eq!(times, [5, 9, 17, 33]);
    // Still in the outbox: nobody can have answered.
    world.workers[0].facts.state = WorkerState::Pending;
    world.now_us = 600 * SECOND;
    world.catch_up();
    world.heartbeat(0);
    assert_eq!(repeats(&mut world), 0);
}

#[test]
fn a_stray_is_stopped_once_and_again_only_if_it_stays() {
    let mut world = World::new(0, 1);
    world.processes[0].workers.push(WorkerStatus::new(ScenarioId::generate(), 1, WorkerPhase::Running));
    world.heartbeat(0);
    let mut times = vec![];
    for second in 0..20 {
        world.now_us = second * SECOND;
        world.catch_up();
        world.heartbeat(0);
        for action in world.plan() {
            assert!(matches!(action, Action::Stop(_)));
            world.apply(action);
            times.push(second);
        }
    }
    assert_eq!(times, [0, 2, 6, 14]);
}

#[test]
fn a_new_incarnation_replaces_the_old_one_before_its_lease_ends() {
    let mut world = World::new(1, 1);
    world.settle();
    world.start_runner(0);
    world.settle();
    let workers: Vec<_> = world.workers.iter().map(|w| (w.facts.generation, w.facts.state)).collect();
    assert_eq!(workers, [(1, WorkerState::Lost), (2, WorkerState::Deployed)]);
}

#[test]
fn one_damaged_frame_is_told_as_one() {
    let finished = WorkerPhase::Finished;
    for (damaged, phase, words) in [
        (0, finished, "the end"),
        (1, finished, "the end; 1 frame was damaged"),
        (2, finished, "the end; 2 frames were damaged"),
        (1, WorkerPhase::Failed, "the end"),
    ] {
        let reason = Some(Reason::new(ReasonCode::StoppedByUser, "the end"));
        let progress = Progress { damaged, ..Progress::default() };
        let report = WorkerStatus {
            reason,
            progress,
            ..WorkerStatus::new(ScenarioId(uuid::Uuid::nil()), Generation::default(), phase)
        };
        assert_eq!(last_words(&report).unwrap().message, words);
    }
}

#[test]
fn failed_hooks_are_told_once() {
    for (code, words) in [
        (ReasonCode::EndOfStream, "the end; 1 frame was damaged; hooks failed on 2 of 9 frames"),
        (ReasonCode::HooksFailed, "the end; 1 frame was damaged"),
    ] {
        let reason = Some(Reason::new(code, "the end"));
        let progress = Progress { damaged: 1, hook_failures: 2, frames: 9, ..Progress::default() };
        let base = WorkerStatus::new(ScenarioId(uuid::Uuid::nil()), Generation::default(), WorkerPhase::Finished);
        assert_eq!(last_words(&WorkerStatus { reason, progress, ..base }).unwrap().message, words);
    }
}

#[test]
fn a_worker_is_told_of_a_revision_until_it_runs_or_has_failed() {
    let told = |wanted: RevisionFacts, revision: Option<RevisionStatus>, since: Duration| {
        let mut world = World::new(1, 1);
        world.settle();
        world.take_orders(0);
        world.heartbeat(0);
        world.settle();
        world.processes[0].workers[0].revision = revision;
        world.now_us += i64::try_from(since.as_micros()).unwrap();
        world.catch_up();
        world.heartbeat(0);
        world.scenarios[0].facts.revision = wanted;
        world.plan()
    };
    let (id, generation) = (ScenarioId(uuid::Uuid::from_u128(1)), 1);
    let (soon, late) = (Duration::from_millis(100), Duration::from_secs(10));
    let wants = |number, is_pending, rolled_back| RevisionFacts { number, is_pending, rolled_back };
    let runs = |running| Some(RevisionStatus { running, from_frame: Some(9), rolled_back: None });
    let reason = Reason::new(ReasonCode::PluginTrap, "why");
    let failed = |running, revision| {
        let rolled_back = Some(RolledBack { revision, reason: reason.clone() });
        Some(RevisionStatus { running, from_frame: None, rolled_back })
    };
    let note = Action::NoteRevision { scenario_id: id, generation, revision: 2, from_frame: Some(9) };
    let back = Action::RollBack { scenario_id: id, generation, revision: 2, running: 1, reason: reason.clone() };
    let repeat = Action::RepeatDeploy { scenario_id: id, generation };
    for (wanted, says, since, expected) in [
        (wants(1, false, 0), runs(1), late, None),
        (wants(2, true, 0), runs(1), soon, None),
        (wants(2, true, 0), runs(1), late, Some(repeat.clone())),
        (wants(2, true, 0), runs(2), late, Some(note)),
        (wants(2, false, 0), runs(2), late, None),
        // It has no frame yet.
        (wants(2, true, 0), Some(RevisionStatus { running: 2, from_frame: None, rolled_back: None }), late, None),
        (wants(2, true, 0), failed(1, 2), late, Some(back.clone())),
        // It was changed once more meanwhile.
        (wants(3, true, 0), failed(1, 2), late, Some(back)),
        (wants(3, true, 2), failed(1, 2), late, Some(repeat)),
        (wants(1, false, 2), failed(1, 2), late, None),
        // A runner of an earlier release.
        (wants(2, true, 0), None, late, None),
    ] {
        let actions = told(wanted, says.clone(), since);
        assert_eq!(actions, expected.into_iter().collect::<Vec<_>>(), "{wanted:?} {says:?} {since:?}");
    }
}
