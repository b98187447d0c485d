//! Creating, reading, wishing.

use framehook_core::{
    ids::ScenarioId,
    message::Message,
    planner::Action,
    reason::{Reason, ReasonCode},
    state::{Desired, ScenarioState, WorkerState},
};
use framehook_infra::store::{Created, HistoryEntry, Limit, Rows, ScenarioFilter, SharedStore};
use tokio::task::JoinSet;

use crate::fixtures::{StoreBackend, World, move_worker, reason, rows, scenario, with_key};

async fn history(store: &SharedStore, id: ScenarioId) -> Vec<HistoryEntry> {
    store.history(id, None, 1000).await.unwrap()
}

pub(crate) async fn creating_writes_scenario_history_and_wake_up(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let new = scenario("crossing");
    let Created::New(record) = store.create_scenario(new.clone()).await.unwrap() else { panic!("not new") };
    assert_eq!((record.id, &record.spec, &record.resolved), (new.id, &new.spec, &new.resolved));
    assert_eq!((record.desired, record.state, record.revision), (Desired::Running, ScenarioState::Pending, 1));
    assert_eq!((record.generation, record.stored), (0, None));
    assert!(record.reason.is_none() && record.worker.is_none());

    let read = store.scenario(new.id).await.unwrap().unwrap();
    assert_eq!(format!("{read:?}"), format!("{record:?}"));
    assert_eq!((read.created_at, read.updated_at), (record.created_at, record.created_at));
    assert_eq!((read.spec, read.resolved), (new.spec, new.resolved));

    let [line] = &history(&store, new.id).await[..] else { panic!("one line of history") };
    assert_eq!((line.from, line.to, line.desired), (None, ScenarioState::Pending, Desired::Running));
    assert_eq!((line.at, line.generation), (record.created_at, 0));

    let [wake_up] = &store.outbox(10).await.unwrap()[..] else { panic!("one message") };
    assert_eq!(wake_up.message, Message::ScenarioChanged { scenario_id: new.id });
    assert_eq!(wake_up.traceparent, new.traceparent);
}

pub(crate) async fn an_idempotency_key_makes_one_scenario(backend: &impl StoreBackend) {
    let store = backend.store().await;
    // All at once: I1, one scenario an idempotency key.
    let mut attempts = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        attempts.spawn(async move { store.create_scenario(with_key("same", "key", 1)).await.unwrap() });
    }
    let (mut new, mut repeated) = (vec![], vec![]);
    for created in attempts.join_all().await {
        match created {
            Created::New(record) => new.push(record.id),
            Created::Repeated(record) => repeated.push(record.id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((new.len(), repeated), (1, vec![new[0]; 7]));
    let asked = async |request| {
        let idempotency = with_key("any", "key", request).idempotency.unwrap();
        store.created_before(&idempotency).await.unwrap()
    };
    assert!(matches!(asked(1).await, Some(Created::Repeated(record)) if record.id == new[0]));
    assert!(matches!(asked(2).await, Some(Created::KeyReused)));
    assert!(store.created_before(&with_key("any", "no such key", 1).idempotency.unwrap()).await.unwrap().is_none());
    let reused = store.create_scenario(with_key("other", "key", 2)).await.unwrap();
    assert!(matches!(reused, Created::KeyReused), "{reused:?}");
    assert!(matches!(store.create_scenario(with_key("other", "key 2", 2)).await.unwrap(), Created::New(_)));
    assert_eq!(store.outbox(10).await.unwrap().len(), 2);
    assert_eq!(history(&store, new[0]).await.len(), 1);
}

pub(crate) async fn pages_are_newest_first_and_filtered(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let mut ids = vec![];
    for name in ["a", "b", "a", "b", "a"] {
        ids.push(world.create(name).await.id);
    }
    ids.reverse();
    let store = &world.store;
    let page = async |filter: ScenarioFilter, after, limit| {
        let records = store.scenarios(filter, after, rows(limit)).await.unwrap().rows;
        records.into_iter().map(|r| r.id).collect::<Vec<_>>()
    };
    assert_eq!(page(ScenarioFilter::default(), None, 2).await, ids[..2]);
    assert_eq!(page(ScenarioFilter::default(), Some(ids[1]), 2).await, ids[2..4]);
    assert_eq!(page(ScenarioFilter::default(), Some(ids[3]), 2).await, ids[4..]);
    assert_eq!(page(ScenarioFilter::default(), Some(ids[4]), 2).await, []);
    let named = |name: &str| ScenarioFilter { name: Some(name.into()), ..Default::default() };
    assert_eq!(page(named("b"), None, 10).await, [ids[1], ids[3]]);
    assert_eq!(page(named("c"), None, 10).await, []);
    world.done(world.deploy(ids[1], ScenarioState::Pending, 1)).await;
    let deploying = ScenarioFilter { state: Some(ScenarioState::Deploying), ..Default::default() };
    assert_eq!(page(deploying, None, 10).await, [ids[1]]);
    store.set_desired(ids[0], Desired::Deleted).await.unwrap();
    assert_eq!(page(ScenarioFilter::default(), None, 10).await, ids[1..]);
}

pub(crate) async fn a_page_of_scenarios_is_bounded_by_bytes(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let mut ids = vec![];
    let mut size = 0;
    for _ in 0..4 {
        let record = world.create("any").await;
        ids.push(record.id);
        let (spec, resolved) = (serde_json::to_string(&record.spec), serde_json::to_string(&record.resolved));
        size = (spec.unwrap().len() + resolved.unwrap().len()) as u64;
    }
    ids.reverse();
    let page = async |rows, bytes, after| {
        let limit = Limit { rows, bytes };
        let Rows { rows, has_more } = world.store.scenarios(ScenarioFilter::default(), after, limit).await.unwrap();
        (rows.into_iter().map(|r| r.id).collect::<Vec<_>>(), has_more)
    };
    assert_eq!(page(9, 2 * size, None).await, (ids[..2].to_vec(), true), "to the last byte");
    assert_eq!(page(9, 2 * size - 1, None).await, (ids[..1].to_vec(), true), "and one less");
    assert_eq!(page(9, 1, Some(ids[1])).await, (ids[2..3].to_vec(), true), "the first one comes whatever it holds");
    assert_eq!(page(9, 2 * size, Some(ids[1])).await, (ids[2..].to_vec(), false));
    assert_eq!(page(4, u64::MAX, None).await, (ids.clone(), false));
    assert_eq!(page(3, u64::MAX, None).await, (ids[..3].to_vec(), true));
}

pub(crate) async fn wishing_twice_is_wishing_once(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let new = scenario("any");
    store.create_scenario(new.clone()).await.unwrap();
    let mut lines = 1;
    for desired in [Desired::Stopped, Desired::Running, Desired::Deleted] {
        lines += 1;
        for _ in 0..2 {
            let record = store.set_desired(new.id, desired).await.unwrap().unwrap();
            assert_eq!((record.desired, record.state), (desired, ScenarioState::Pending));
            let history = history(&store, new.id).await;
            assert_eq!(history.len(), lines);
            let last = history.last().unwrap();
            assert_eq!((last.from, last.to, last.desired), (Some(record.state), record.state, desired));
            assert!(history.is_sorted_by(|a, b| a.sequence < b.sequence));
        }
    }
    // Creation and six wishes: each wakes the orchestrator.
    assert_eq!(store.outbox(100).await.unwrap().len(), 7);
    let lines = history(&store, new.id).await;
    assert_eq!(store.history(new.id, Some(lines[1].sequence), 1).await.unwrap(), lines[2..3]);
}

pub(crate) async fn wishing_from_every_state(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    for &state in ScenarioState::ALL {
        for desired in [Desired::Running, Desired::Stopped, Desired::Deleted] {
            let before = world.in_state(state).await;
            assert_eq!(before.state, state);
            let restarts = matches!(state, ScenarioState::Stopped | ScenarioState::Failed);
            let expected = if restarts && desired == Desired::Running { ScenarioState::Pending } else { state };
            for attempt in 1..=2 {
                let after = world.store.set_desired(before.id, desired).await.unwrap().unwrap();
                assert_eq!((after.desired, after.state), (desired, expected), "{state}, attempt {attempt}");
                if state != expected {
                    assert_eq!(after.reason, None);
                    let last = history(&world.store, before.id).await.pop().unwrap();
                    assert_eq!((last.from, last.to), (Some(state), expected));
                } else {
                    assert_eq!(after.reason, before.reason);
                }
            }
        }
    }
}

/// A user, or a program, that stops and starts without end.
pub(crate) async fn wishes_that_come_again_and_again_are_counted(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let new = scenario("any");
    store.create_scenario(new.clone()).await.unwrap();
    let mut all = history(&store, new.id).await;
    for desired in [Desired::Stopped, Desired::Running].into_iter().cycle().take(100) {
        store.set_desired(new.id, desired).await.unwrap();
        all.extend(history(&store, new.id).await.pop());
    }
    let lines = history(&store, new.id).await;
    assert!(lines.len() <= 10, "{lines:#?}");
    assert_eq!(kept_and_folded(&lines), 101, "each change is there, or counted");
    assert_eq!((&lines[..4], &lines[lines.len() - 1]), (&all[..4], &all[100]), "the first time and the last");
}

/// Deployed, running, lost, in generations and words that differ.
pub(crate) async fn crashes_that_come_again_and_again_are_counted(backend: &impl StoreBackend) {
    use ScenarioState as S;
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let mut before = S::Pending;
    for generation in 1..=40 {
        let reason = Some(Reason::new(ReasonCode::WorkerCrash, format!("crash {generation}")));
        world.done(world.deploy(id, before, generation)).await;
        world.done(Action::MoveScenario { scenario_id: id, from: S::Deploying, to: S::Running, reason: None }).await;
        world.done(Action::MoveScenario { scenario_id: id, from: S::Running, to: S::Recovering, reason }).await;
        world.done(move_worker(id, generation, WorkerState::Pending, WorkerState::Lost)).await;
        before = S::Recovering;
    }
    let lines = history(&world.store, id).await;
    assert!(lines.len() <= 12, "{lines:#?}");
    assert_eq!(kept_and_folded(&lines), 121);
    let words = |line: &HistoryEntry| line.reason.as_ref().map(|reason| reason.message.clone());
    assert_eq!((words(&lines[3]), words(&lines[lines.len() - 1])), (Some("crash 1".into()), Some("crash 40".into())));
    // Another reason is another change.
    let reason = Some(Reason::new(ReasonCode::OutOfMemory, ""));
    world.done(world.deploy(id, before, 41)).await;
    world.done(Action::MoveScenario { scenario_id: id, from: S::Deploying, to: S::Recovering, reason }).await;
    let lines = history(&world.store, id).await;
    assert_eq!(kept_and_folded(&lines), 123);
    let [.., crash, _, other] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!((words(crash), words(other)), (Some("crash 40".into()), Some(String::new())));
}

fn kept_and_folded(lines: &[HistoryEntry]) -> u64 {
    lines.len() as u64 + lines.iter().map(|line| line.folded).sum::<u64>()
}

/// A sequence of three letters in which no part is followed by itself: nothing repeats.
fn without_repetition() -> impl Iterator<Item = usize> {
    // Differences of the Thue-Morse sequence.
    let thue_morse = |n: usize| n.count_ones() as usize % 2;
    (0..).map(move |n| (3 + thue_morse(n + 1) - thue_morse(n)) % 3)
}

pub(crate) async fn a_long_history_keeps_its_beginning_and_its_end(backend: &impl StoreBackend) {
    let world = World::on(backend.store_with(60).await).await;
    let id = world.create("any").await.id;
    let state = ScenarioState::Pending;
    world.done(Action::Explain { scenario_id: id, state, reason: reason(ReasonCode::WorkerCrash) }).await;
    let mut cursor = None;
    for (n, letter) in without_repetition().take(300).enumerate() {
        let code = [ReasonCode::NoCapacity, ReasonCode::PluginError, ReasonCode::OutOfMemory][letter];
        world.done(Action::Explain { scenario_id: id, state, reason: reason(code) }).await;
        if n == 40 {
            cursor = history(&world.store, id).await.last().map(|line| line.sequence);
        }
        if n % 20 == 10 {
            let lines = history(&world.store, id).await;
            assert!(lines.len() <= 61, "{}", lines.len());
            assert!(lines.is_sorted_by(|a, b| a.sequence < b.sequence));
            assert_eq!(kept_and_folded(&lines), 3 + n as u64, "each change is there, or counted");
        }
    }
    let lines = history(&world.store, id).await;
    assert_eq!((lines[0].from, lines[0].to), (None, state));
    assert!(lines[..10].iter().chain(&lines[11..]).all(|line| line.folded == 0) && lines[10].folded > 200);
    // Whoever had read to a line that is gone goes on behind it.
    let rest = world.store.history(id, cursor, 1000).await.unwrap();
    assert_eq!(rest, lines[10..]);
}

pub(crate) async fn deleted_stays_deleted(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let new = with_key("any", "key", 1);
    store.create_scenario(new.clone()).await.unwrap();
    for desired in [Desired::Deleted, Desired::Deleted, Desired::Running, Desired::Stopped] {
        let record = store.set_desired(new.id, desired).await.unwrap().unwrap();
        assert_eq!((record.id, record.desired), (new.id, Desired::Deleted));
        assert!(store.scenario(new.id).await.unwrap().is_none());
    }
    assert_eq!(history(&store, new.id).await.len(), 2);
    match store.create_scenario(with_key("any", "key", 1)).await.unwrap() {
        Created::Deleted(id) => assert_eq!(id, new.id),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn unknown_scenarios_are_not_found(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let id = ScenarioId::generate();
    assert!(store.scenario(id).await.unwrap().is_none());
    assert!(store.set_desired(id, Desired::Stopped).await.unwrap().is_none());
    assert!(history(&store, id).await.is_empty());
    assert!(store.outbox(10).await.unwrap().is_empty());
    store.ping().await.unwrap();
}
