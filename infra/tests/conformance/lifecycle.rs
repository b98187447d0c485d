//! Actions, outbox and history: scenarios from creation to purge.

use std::time::Duration;

use framehook_core::{
    ids::{Generation, ScenarioId},
    invariants,
    message::{Message, WorkerPhase, WorkerStatus},
    planner::Action,
    reason::{Reason, ReasonCode},
    state::{Desired, SCENARIO_TRANSITIONS, ScenarioState, WORKER_TRANSITIONS, WorkerState},
};
use framehook_infra::store::{Created, Fenced, Keep, StoreError};

use crate::fixtures::{
    CONSUMER, StoreBackend, TOPIC, World, dead_letter, move_scenario, move_worker, position, predictions, published,
    reason, with_key,
};

async fn lines(world: &World, id: ScenarioId) -> Vec<(Option<ScenarioState>, ScenarioState, Generation)> {
    let history = world.store.history(id, None, 1000).await.unwrap();
    history.iter().map(|line| (line.from, line.to, line.generation)).collect()
}

pub(crate) async fn from_deploy_to_completed(backend: &impl StoreBackend) {
    use ScenarioState as S;
    let world = World::new(backend).await;
    let created = world.create("any").await;
    let id = created.id;
    world.publish_outbox().await;
    world.done(world.deploy(id, S::Pending, 1)).await;
    let [order] = &world.outbox().await[..] else { panic!("one order") };
    let Message::Deploy(deploy) = &order.message else { panic!("{order:?}") };
    assert_eq!((deploy.scenario_id, deploy.generation, deploy.revision), (id, 1, 1));
    assert_eq!((&deploy.runner_id, deploy.incarnation), (&world.heartbeat.runner_id, world.heartbeat.incarnation));
    assert_eq!((deploy.created_at, &deploy.scenario), (created.created_at, &created.resolved));
    assert_eq!(deploy.resume_after, None);
    assert!(order.traceparent.is_some());

    let record = world.record(id).await;
    assert_eq!((record.state, record.generation, record.reason), (S::Deploying, 1, None));
    let worker = record.worker.unwrap();
    assert_eq!((worker.generation, worker.state, worker.status), (1, WorkerState::Pending, None));
    assert_eq!((worker.runner_id, worker.incarnation), (deploy.runner_id.clone(), deploy.incarnation));

    world.done(move_worker(id, 1, WorkerState::Pending, WorkerState::Running)).await;
    world.done(move_scenario(id, S::Deploying, S::Running)).await;
    world.done(move_scenario(id, S::Running, S::Completed)).await;
    world.done(move_worker(id, 1, WorkerState::Running, WorkerState::Finished)).await;
    let record = world.record(id).await;
    assert_eq!((record.state, record.reason), (S::Completed, reason(ReasonCode::WorkerCrash)));
    assert_eq!(record.worker.unwrap().state, WorkerState::Finished);
    assert!(record.updated_at >= record.created_at);
    let expected = [
        (None, S::Pending, 0),
        (Some(S::Pending), S::Deploying, 1),
        (Some(S::Deploying), S::Running, 1),
        (Some(S::Running), S::Completed, 1),
    ];
    assert_eq!(lines(&world, id).await, expected);
    assert!(world.snapshot().await.scenarios.is_empty() && world.snapshot().await.workers.is_empty());
}

pub(crate) async fn a_deployed_worker_is_marked_with_its_order(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let mut ids = vec![];
    for name in ["a", "b", "c"] {
        ids.push(world.create(name).await.id);
    }
    for id in &ids {
        world.done(world.deploy(*id, ScenarioState::Pending, 1)).await;
    }
    let all = world.outbox().await;
    assert_eq!(all.len(), 6);
    let orders: Vec<_> = all[3..].iter().map(|e| (e.key(), e.topic())).collect();
    assert!(orders.iter().all(|o| *o == orders[0]));
    assert_eq!(world.store.outbox(2).await.unwrap(), all[..2], "oldest first");
    let states = async || {
        let mut states = vec![];
        for id in &ids {
            states.push(world.record(*id).await.worker.unwrap().state);
        }
        states
    };
    // The second one has been reported before its order was marked.
    world.done(move_worker(ids[1], 1, WorkerState::Pending, WorkerState::Running)).await;
    for _ in 0..2 {
        world.store.mark_published(&[all[3].id, all[4].id, all[0].id]).await.unwrap();
        assert_eq!(states().await, [WorkerState::Deployed, WorkerState::Running, WorkerState::Pending]);
        let left: Vec<_> = world.outbox().await.iter().map(|e| e.id).collect();
        assert_eq!(left, [all[1].id, all[2].id, all[5].id]);
    }
    world.store.mark_published(&[]).await.unwrap();
    assert_eq!(world.outbox().await.len(), 3);
}

pub(crate) async fn stale_actions_change_nothing(backend: &impl StoreBackend) {
    use ScenarioState as S;
    let world = World::new(backend).await;
    let running = world.in_state(S::Running).await.id;
    let pending = world.create("pending").await.id;
    let stopped_wish = world.create("stopped").await.id;
    world.store.set_desired(stopped_wish, Desired::Stopped).await.unwrap();
    let (completed, unknown) = (world.in_state(S::Completed).await.id, ScenarioId::generate());
    world.publish_outbox().await;
    let before = format!("{:?}", world.store.history(running, None, 100).await.unwrap());

    let stale = [
        world.deploy(pending, S::Recovering, 1),
        world.deploy(pending, S::Pending, 2),
        world.deploy(pending, S::Pending, 0),
        world.deploy(stopped_wish, S::Pending, 1),
        world.deploy(running, S::Recovering, 2),
        world.deploy(unknown, S::Pending, 1),
        Action::RepeatDeploy { scenario_id: running, generation: 2 },
        Action::RepeatDeploy { scenario_id: completed, generation: 1 },
        move_worker(running, 1, WorkerState::Running, WorkerState::Finished),
        move_worker(running, 2, WorkerState::Pending, WorkerState::Running),
        move_scenario(running, S::Deploying, S::Degraded),
        move_scenario(unknown, S::Pending, S::Stopped),
        Action::Explain { scenario_id: running, state: S::Degraded, reason: None },
        Action::Purge { scenario_id: completed },
        Action::Purge { scenario_id: unknown },
    ];
    for action in stale {
        assert_eq!(world.apply(action.clone()).await, Fenced::Stale, "{action:?}");
    }
    assert!(world.outbox().await.is_empty());
    assert_eq!(format!("{:?}", world.store.history(running, None, 100).await.unwrap()), before);
    assert_eq!(world.record(pending).await.generation, 0);
}

pub(crate) async fn illegal_transitions_are_errors(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    for &from in ScenarioState::ALL {
        let id = world.in_state(from).await.id;
        for &to in ScenarioState::ALL {
            let is_legal = SCENARIO_TRANSITIONS.iter().any(|(a, b, _)| (*a, *b) == (from, to));
            if !is_legal {
                let refused = world.store.apply(world.epoch, &move_scenario(id, from, to)).await;
                assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{from} to {to}: {refused:?}");
                assert_eq!(world.record(id).await.state, from);
            }
        }
    }
    for &from in WorkerState::ALL {
        for &to in WorkerState::ALL {
            let is_legal = WORKER_TRANSITIONS.iter().any(|(a, b, _)| (*a, *b) == (from, to));
            let id = ScenarioId::generate();
            let outcome = world.store.apply(world.epoch, &move_worker(id, 1, from, to)).await;
            assert_eq!(outcome.is_ok(), is_legal, "{from} to {to}: {outcome:?}");
        }
    }
}

/// I3.
pub(crate) async fn one_live_worker_and_growing_generations(backend: &impl StoreBackend) {
    use ScenarioState as S;
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let (mut workers, mut from) = (vec![], S::Pending);
    for generation in 1..=4 {
        world.done(world.deploy(id, from, generation)).await;
        if generation == 1 {
            world.store(predictions(id, 1, 0..2)).await;
        }
        world.done(move_scenario(id, S::Deploying, S::Recovering)).await;
        // The scenario may be placed again, its worker is still live.
        assert_eq!(world.apply(world.deploy(id, S::Recovering, generation + 1)).await, Fenced::Stale);
        let snapshot = world.snapshot().await;
        let [worker] = &snapshot.workers[..] else { panic!("one live worker: {snapshot:?}") };
        assert_eq!((worker.scenario_id, worker.generation), (id, generation));
        assert!(!worker.stop_ordered && worker.order.at_us <= snapshot.now_us);
        world.done(move_worker(id, generation, WorkerState::Pending, WorkerState::Lost)).await;
        workers.push((id, generation, WorkerState::Lost));
        from = S::Recovering;
    }
    invariants::one_live_generation(&workers).unwrap();
    let generations: Vec<_> = world
        .outbox()
        .await
        .into_iter()
        .filter_map(|envelope| match envelope.message {
            Message::Deploy(order) => Some((order.generation, order.resume_after)),
            _ => None,
        })
        .collect();
    let resumed = Some(position(1));
    assert_eq!(generations, [(1, None), (2, resumed), (3, resumed), (4, resumed)]);
}

pub(crate) async fn repeating_and_stopping(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    let first = world.publish_outbox().await.pop().unwrap();
    let ordered = world.snapshot().await.workers[0].order.at_us;

    world.done(Action::RepeatDeploy { scenario_id: id, generation: 1 }).await;
    let [again] = &world.outbox().await[..] else { panic!("one order") };
    assert_eq!(again.message, first.message);
    assert_ne!(again.id, first.id);
    let worker = &world.snapshot().await.workers[0];
    assert!(worker.order.at_us >= ordered && !worker.stop_ordered);
    assert_eq!(worker.state, WorkerState::Deployed);
    world.publish_outbox().await;

    for _ in 0..2 {
        world.done(world.stop(id, 1)).await;
        assert!(world.snapshot().await.workers[0].stop_ordered);
    }
    // One that the store does not know, or not there: the order goes out all the same.
    world.done(world.stop(id, 7)).await;
    world.done(world.stop(ScenarioId::generate(), 1)).await;
    let stops: Vec<_> = world.outbox().await.into_iter().map(|envelope| envelope.message).collect();
    assert_eq!(stops.len(), 4);
    let Message::Stop(stop) = &stops[0] else { panic!("{stops:?}") };
    assert_eq!((stop.scenario_id, stop.generation, stop.incarnation), (id, 1, world.heartbeat.incarnation));
    assert_eq!(stops[0], stops[1]);
}

pub(crate) async fn an_explanation_adds_history_when_its_code_changes(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let explain = |reason| Action::Explain { scenario_id: id, state: ScenarioState::Pending, reason };
    let failing = |n| Some(Reason::new(ReasonCode::PluginError, format!("{n} failures")));
    for (reason, expected) in
        [(reason(ReasonCode::NoCapacity), 2), (failing(1), 3), (failing(2), 3), (None, 4), (None, 4)]
    {
        world.done(explain(reason.clone())).await;
        assert_eq!(world.record(id).await.reason, reason);
        let history = world.store.history(id, None, 100).await.unwrap();
        assert_eq!(history.len(), expected);
    }
}

pub(crate) async fn purge(world: &World, id: ScenarioId) -> usize {
    let mut steps = 0;
    while world.snapshot().await.scenarios.iter().any(|s| s.id == id) {
        world.done(Action::Purge { scenario_id: id }).await;
        steps += 1;
    }
    steps
}

pub(crate) async fn a_deleted_scenario_is_purged_but_keeps_its_key(backend: &impl StoreBackend) {
    use ScenarioState as S;
    let world = World::new(backend).await;
    let id = world.create_new(with_key("any", "key", 1)).await.id;
    let other = world.create("other").await.id;
    world.store([predictions(id, 1, 0..10), predictions(other, 1, 0..10)].concat()).await;
    world.done(world.deploy(id, S::Pending, 1)).await;
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    assert_eq!(world.apply(Action::Purge { scenario_id: id }).await, Fenced::Stale, "it is still running");
    world.done(move_scenario(id, S::Deploying, S::Stopping)).await;
    world.done(move_scenario(id, S::Stopping, S::Stopped)).await;
    assert_eq!(world.apply(Action::Purge { scenario_id: id }).await, Fenced::Stale, "its worker is live");
    world.done(move_worker(id, 1, WorkerState::Pending, WorkerState::Stopped)).await;
    assert_eq!(purge(&world, id).await, 1);
    assert_eq!(world.apply(Action::Purge { scenario_id: id }).await, Fenced::Stale);
    assert!(world.stored(id).await.is_empty());
    assert_eq!(world.stored(other).await.len(), 10);
    match world.store.create_scenario(with_key("any", "key", 1)).await.unwrap() {
        Created::Deleted(deleted) => assert_eq!(deleted, id),
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.store.create_scenario(with_key("any", "key", 2)).await.unwrap(), Created::KeyReused));
    assert!(world.store.set_desired(id, Desired::Deleted).await.unwrap().is_none());
    assert!(world.store.is_purged(id).await.unwrap() && !world.store.is_purged(other).await.unwrap());
    assert!(world.store.history(id, None, 100).await.unwrap().is_empty());
    let left: Vec<_> = world.outbox().await.iter().filter_map(|e| Some(e.subject()?.0)).filter(|s| *s == id).collect();
    assert!(!left.is_empty(), "what is not published yet stays");
}

pub(crate) async fn a_long_scenario_is_purged_in_steps(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("long").await.id;
    world.store(predictions(id, 1, 0..12_000)).await;
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    world.done(move_scenario(id, ScenarioState::Pending, ScenarioState::Stopped)).await;
    assert!(purge(&world, id).await >= 1);
    assert!(world.stored(id).await.is_empty());
}

/// I8: planner and store together bring every wish to its end, whatever the order of events.
pub(crate) async fn the_planner_settles_everything(backend: &impl StoreBackend) {
    /// Rounds of planning and reporting: far more than a scenario has states.
    const ROUNDS: usize = 60;
    let mut world = World::new(backend).await;
    world.heartbeat.capacity = 2;
    world.report(vec![]).await;
    let mut ids = vec![];
    for name in ["finishes", "finishes", "stops", "is deleted", "finishes"] {
        ids.push((world.create(name).await.id, name));
    }
    world.store.set_desired(ids[2].0, Desired::Stopped).await.unwrap();
    for round in 0..ROUNDS {
        if round == 10 {
            world.store.set_desired(ids[3].0, Desired::Deleted).await.unwrap();
        }
        for action in world.plan().await {
            // An earlier action of the same plan may have moved on what a later one starts from.
            assert_ne!(world.apply(action).await, Fenced::NotLeader);
        }
        let live = world.snapshot().await.workers;
        assert!(live.len() <= 2, "never more than the runner has room for");
        let mut reports = vec![];
        for worker in live {
            let (id, generation) = (worker.scenario_id, worker.generation);
            world.store(predictions(id, generation, 0..3)).await;
            let phase = if worker.stop_ordered { WorkerPhase::Stopped } else { WorkerPhase::Finished };
            reports.push(published(id, generation, phase, 2));
        }
        world.publish_outbox().await;
        world.report(reports).await;
    }
    let snapshot = world.snapshot().await;
    assert!(snapshot.scenarios.is_empty() && snapshot.workers.is_empty(), "{snapshot:?}");
    for (id, name) in ids {
        let expected = match name {
            "finishes" => Some(ScenarioState::Completed),
            "stops" => Some(ScenarioState::Stopped),
            _ => None,
        };
        assert_eq!(world.store.scenario(id).await.unwrap().map(|r| r.state), expected, "{name}");
        for (from, to, _) in lines(&world, id).await {
            assert!(from.is_none_or(|from| from == to || from.may_become(to).is_ok()), "{from:?} to {to}");
        }
        let rows = world.stored(id).await;
        let frames = if name == "finishes" { 3 } else { 0 };
        invariants::every_frame_once(&rows, frames).unwrap();
    }
}

pub(crate) async fn an_unreadable_last_frame_keeps_nothing_from_completing(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    world.publish_outbox().await;
    world.store(predictions(id, 1, 0..2)).await;
    world.report(vec![published(id, 1, WorkerPhase::Finished, 2)]).await;
    let settle = async |world: &World| {
        for action in world.plan().await {
            world.done(action).await;
        }
        world.record(id).await.state
    };
    // Garbage may have been anything.
    world.store_with(vec![], vec![dead_letter(id, None)]).await;
    assert_eq!(settle(&world).await, ScenarioState::Deploying, "a frame is under way");
    world.store_with(vec![], vec![dead_letter(id, Some(2))]).await;
    assert_eq!(settle(&world).await, ScenarioState::Completed);
    let delivery = world.delivery(id).await;
    assert_eq!((delivery.decoded, delivery.stored, delivery.dropped.unreadable), (3, 2, 1));
    invariants::delivery_balances(&delivery, ScenarioState::Completed).unwrap();
}

pub(crate) async fn the_outbox_wakes_its_relay(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    // It happened before the call.
    world.store.outbox_filled().await;
    let store = world.store.clone();
    let waiting = tokio::spawn(async move { store.outbox_filled().await });
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    waiting.await.unwrap();
    for action in [world.stop(id, 1), Action::RepeatDeploy { scenario_id: id, generation: 1 }] {
        world.done(action).await;
        world.store.outbox_filled().await;
    }
    world.store.set_desired(id, Desired::Stopped).await.unwrap();
    world.store.outbox_filled().await;
}

pub(crate) async fn trimming_keeps_what_is_needed(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (kept, gone) = (world.create("kept").await.id, world.create("gone").await.id);
    world.publish_outbox().await;
    world.store.set_desired(gone, Desired::Deleted).await.unwrap();
    world.done(move_scenario(gone, ScenarioState::Pending, ScenarioState::Stopped)).await;
    purge(&world, gone).await;
    world.store_with(vec![], vec![dead_letter(kept, None)]).await;
    for age in [Duration::from_secs(3600), Duration::ZERO] {
        world.store.trim(Keep { published: age, ..Keep::default() }).await.unwrap();
        assert_eq!(world.store.history(kept, None, 100).await.unwrap().len(), 1);
        assert!(world.store.is_purged(gone).await.unwrap(), "for a day");
        assert_eq!(world.outbox().await.len(), 1, "the last wake-up is not published yet");
        assert_eq!(world.store.runners().await.unwrap().len(), 1, "the newest life stays");
        assert_eq!(world.delivery(kept).await.inbox.unreadable, 1, "for a month");
    }
    world.store.trim(Keep { dead_letters: Duration::ZERO, ..Keep::default() }).await.unwrap();
    assert_eq!(world.delivery(kept).await.inbox.unreadable, 0);
}

pub(crate) async fn everything_survives_reopening(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let id = world.create_new(with_key("any", "key", 1)).await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    world.report(vec![WorkerStatus::new(id, 1, WorkerPhase::Running)]).await;
    world.store(predictions(id, 1, 0..70)).await;
    let before = (
        format!("{:?}", world.record(id).await),
        format!("{:?}", world.store.history(id, None, 100).await.unwrap()),
        format!("{:?}", world.store.runners().await.unwrap()),
        world.outbox().await,
        world.store.predictions(id, crate::fixtures::all()).await.unwrap(),
    );
    let (holder, epoch) = (world.holder, world.epoch);
    drop(world);

    let store = backend.store().await;
    assert_eq!(store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap(), 1);
    assert_eq!(store.lead(holder, true, Duration::ZERO, Duration::ZERO).await.unwrap(), Some(epoch + 1));
    assert!(
        matches!(store.create_scenario(with_key("any", "key", 1)).await.unwrap(), Created::Repeated(r) if r.id == id)
    );
    let after = (
        format!("{:?}", store.scenario(id).await.unwrap().unwrap()),
        format!("{:?}", store.history(id, None, 100).await.unwrap()),
        format!("{:?}", store.runners().await.unwrap()),
        store.outbox(1000).await.unwrap(),
        store.predictions(id, crate::fixtures::all()).await.unwrap(),
    );
    assert_eq!(after, before);
}
