//! Leases, heartbeats, fencing, the snapshot.

use std::{collections::BTreeMap, time::Duration};

use framehook_core::{
    delivery::OutboxLag,
    execution::{Execution, Precision, Provider, ProviderChoice, ProviderStatus},
    hook_stats::{HookStage, HookStats},
    ids::{Incarnation, RunnerId},
    memory::UNKNOWN_MIB,
    message::{RunnerStatus, WorkerPhase, WorkerStatus},
    planner::Action,
    source_url::SealedUrl,
    spec::ResolvedSource,
    state::{Desired, ScenarioState, WorkerState},
};
use framehook_infra::store::{Fenced, ScenarioFilter};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::fixtures::{
    ARRIVED_AFTER, LONG, StoreBackend, World, move_scenario, move_worker, predictions, rows, scenario,
};

pub(crate) async fn one_leads_and_epochs_grow(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let [a, b] = [Uuid::now_v7(), Uuid::now_v7()];
    let lead = async |holder, fresh, lease_time| store.lead(holder, fresh, lease_time, LONG).await.unwrap();
    let first = lead(a, true, LONG).await.expect("nobody leads");
    assert_eq!(lead(a, false, LONG).await, Some(first), "a renewal keeps the epoch");
    assert_eq!(lead(b, true, LONG).await, None);
    assert_eq!(lead(b, false, LONG).await, None);
    assert_eq!(lead(a, true, LONG).await, Some(first + 1), "a fresh process is a new leader");
    assert_eq!(lead(a, false, Duration::ZERO).await, Some(first + 1));
    assert_eq!(lead(a, false, Duration::ZERO).await, Some(first + 2), "the lease had expired");
    assert_eq!(lead(b, false, LONG).await, Some(first + 3), "the holder changed");
    store.resign(a).await.unwrap();
    assert_eq!(lead(a, true, LONG).await, None, "only the holder can give the lease up");
    store.resign(b).await.unwrap();
    assert_eq!(lead(a, true, LONG).await, Some(first + 4));
}

pub(crate) async fn a_new_epoch_extends_the_leases_of_runners(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    world.heartbeat.sequence += 1;
    let heartbeat = [world.heartbeat.clone()];
    world.store.record_heartbeats(world.epoch, &heartbeat, ARRIVED_AFTER, Duration::ZERO).await.unwrap();
    let expires = async |world: &World| world.snapshot().await.runners[0].expires_at_us;
    let expired = expires(&world).await;
    let now = world.snapshot().await.now_us;
    assert!(expired <= now);
    let lease_time = Duration::from_secs(60);
    world.store.lead(world.holder, false, LONG, lease_time).await.unwrap().unwrap();
    assert_eq!(expires(&world).await, expired, "a renewal extends nothing");
    world.store.lead(world.holder, true, LONG, lease_time).await.unwrap().unwrap();
    let extended = expires(&world).await;
    assert!((now + 60_000_000..now + 120_000_000).contains(&extended));
    world.store.lead(world.holder, true, LONG, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(expires(&world).await, extended, "a lease is never shortened");
}

pub(crate) async fn every_write_checks_the_epoch(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let pending = world.create("pending").await.id;
    let running = world.in_state(ScenarioState::Running).await.id;
    let deleted = world.in_state(ScenarioState::Stopped).await.id;
    world.store.set_desired(deleted, Desired::Deleted).await.unwrap();
    let RunnerStatus { runner_id, incarnation, .. } = world.heartbeat.clone();
    let actions = [
        Action::Explain { scenario_id: pending, state: ScenarioState::Pending, reason: None },
        world.deploy(pending, ScenarioState::Pending, 1),
        Action::RepeatDeploy { scenario_id: running, generation: 1 },
        world.stop(running, 1),
        move_worker(running, 1, WorkerState::Deployed, WorkerState::Lost),
        move_scenario(running, ScenarioState::Running, ScenarioState::Recovering),
        Action::LoseRunner { runner_id, incarnation },
        Action::Purge { scenario_id: deleted },
    ];
    world.publish_outbox().await;
    let before = format!("{:?}", facts(&world).await);
    let real = world.epoch;
    for epoch in [real - 1, real + 1] {
        for action in &actions {
            assert_eq!(world.store.apply(epoch, action).await.unwrap(), Fenced::NotLeader, "{action:?}");
        }
        world.heartbeat.sequence += 1;
        let heartbeat = [world.heartbeat.clone()];
        let recorded = world.store.record_heartbeats(epoch, &heartbeat, ARRIVED_AFTER, LONG).await.unwrap();
        assert_eq!(recorded, Fenced::NotLeader);
    }
    assert_eq!(format!("{:?}", facts(&world).await), before);
    assert!(world.outbox().await.is_empty());
    for action in &actions {
        assert_eq!(world.store.apply(real, action).await.unwrap(), Fenced::Done, "{action:?}");
    }
}

/// The snapshot without its clock.
async fn facts(world: &World) -> framehook_core::planner::Snapshot {
    framehook_core::planner::Snapshot { now_us: 0, ..world.snapshot().await }
}

pub(crate) async fn heartbeats_in_any_order(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    world.report(vec![WorkerStatus::new(id, 1, WorkerPhase::Running)]).await;
    let newest = world.heartbeat.clone();
    let phase = async |world: &World| world.record(id).await.worker.unwrap().status.map(|s| s.phase);
    assert_eq!(phase(&world).await, Some(WorkerPhase::Running));

    for sequence in [newest.sequence, newest.sequence - 1] {
        let late =
            RunnerStatus { sequence, workers: vec![WorkerStatus::new(id, 1, WorkerPhase::Failed)], ..newest.clone() };
        assert_eq!(world.hear(&[late]).await, Fenced::Done);
        assert_eq!(world.store.runner(&newest.runner_id).await.unwrap().unwrap().status, newest);
        assert_eq!(phase(&world).await, Some(WorkerPhase::Running));
    }
    // Another generation, and the same generation reported by another runner, are not this worker.
    world.report(vec![WorkerStatus::new(id, 2, WorkerPhase::Failed)]).await;
    let (runner_id, incarnation) = (RunnerId("elsewhere".into()), Incarnation::generate());
    let workers = vec![WorkerStatus::new(id, 1, WorkerPhase::Failed)];
    let stranger = RunnerStatus { runner_id, incarnation, workers, ..newest };
    world.hear(std::slice::from_ref(&stranger)).await;
    assert_eq!(phase(&world).await, Some(WorkerPhase::Running));

    let snapshot = world.snapshot().await;
    let here = snapshot.runners.iter().find(|r| r.id == world.heartbeat.runner_id).unwrap();
    assert_eq!((here.incarnation, here.capacity, here.draining), (world.heartbeat.incarnation, 100, false));
    assert_eq!(here.workers, world.heartbeat.workers);
    assert_eq!(here.arrived_after_us, ARRIVED_AFTER);
    assert!(snapshot.now_us < here.expires_at_us);
    let listed: Vec<_> = world.store.runners().await.unwrap().into_iter().map(|r| (r.id, r.lost)).collect();
    assert_eq!(listed, [(stranger.runner_id, false), (world.heartbeat.runner_id.clone(), false)]);
}

pub(crate) async fn what_is_told_of_hooks_stays_until_more_is_told(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    let hooks = async |world: &World| world.record(id).await.worker.unwrap().hooks;
    assert_eq!(hooks(&world).await, []);
    let told = |calls| HookStats { calls, ..HookStats::new("p@1".into(), HookStage::Post) };
    let running =
        |hooks: &[HookStats]| WorkerStatus { hooks: hooks.to_vec(), ..WorkerStatus::new(id, 1, WorkerPhase::Running) };
    // Workers take turns, so a heartbeat may say nothing of them.
    for (said, kept) in [(vec![told(1)], 1), (vec![], 1), (vec![told(2)], 2), (vec![], 2)] {
        world.report(vec![running(&said)]).await;
        assert_eq!(hooks(&world).await, [told(kept)]);
        assert_eq!(world.record(id).await.worker.unwrap().status, Some(running(&[])));
    }
    world.report(vec![running(&[told(3)])]).await;
    let runner = world.store.runner(&world.heartbeat.runner_id).await.unwrap().unwrap();
    assert_eq!(runner.status.workers, [running(&[])], "it is kept in one place");
    let listed = world.store.scenarios(ScenarioFilter::default(), None, rows(10)).await.unwrap().rows;
    assert_eq!(listed[0].worker.as_ref().unwrap().hooks, [], "lists do without");
}

pub(crate) async fn of_a_batch_the_newest_of_each_incarnation_counts(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    let here = world.heartbeat.clone();
    let beat = |sequence: u64, phase| RunnerStatus {
        sequence: here.sequence + sequence,
        workers: vec![WorkerStatus::new(id, 1, phase)],
        ..here.clone()
    };
    let phase = async || world.record(id).await.worker.unwrap().status.map(|s| s.phase);
    let row = async |id: &RunnerId| world.store.runner(id).await.unwrap();
    world.hear(&[]).await;

    // In whatever order they come, and with others between them.
    let stranger = |name: &str, incarnation, sequence| RunnerStatus {
        runner_id: RunnerId(name.into()),
        incarnation,
        sequence,
        workers: vec![],
        ..here.clone()
    };
    let [old, new] = [Incarnation::generate(), Incarnation::generate()];
    let batch = [
        beat(1, WorkerPhase::Starting),
        stranger("there", old, 7),
        beat(3, WorkerPhase::Running),
        stranger("elsewhere", Incarnation::generate(), 1),
        beat(2, WorkerPhase::Recovering),
    ];
    assert_eq!(world.hear(&batch).await, Fenced::Done);
    assert_eq!(phase().await, Some(WorkerPhase::Running));
    assert_eq!(row(&here.runner_id).await.unwrap().status.sequence, here.sequence + 3);
    assert_eq!(world.snapshot().await.runners.len(), 3);

    // One that is past takes nothing from the others of its batch, and a life that ended is heard before the
    // next.
    let batch = [beat(2, WorkerPhase::Failed), stranger("there", new, 1), stranger("there", old, 8)];
    assert_eq!(world.hear(&batch).await, Fenced::Done);
    assert_eq!(phase().await, Some(WorkerPhase::Running));
    assert_eq!(row(&RunnerId("there".into())).await.unwrap().incarnation, new);
    let there: Vec<_> = world.snapshot().await.runners.into_iter().filter(|r| r.id.0 == "there").collect();
    assert_eq!(there.iter().map(|r| r.incarnation).collect::<Vec<_>>(), [old, new], "until one is written off");

    // From now on the older one is replaced, in a batch too.
    world.done(Action::LoseRunner { runner_id: RunnerId("there".into()), incarnation: old }).await;
    let batch = [stranger("there", old, 9), beat(4, WorkerPhase::Degraded)];
    assert_eq!(world.hear(&batch).await, Fenced::Done);
    assert_eq!(phase().await, Some(WorkerPhase::Degraded));
    assert_eq!(world.snapshot().await.runners.len(), 3);
}

pub(crate) async fn orders_are_counted_from_when_they_were_published(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    let order = async || world.snapshot().await.workers[0].order;
    let written = order().await;
    assert_eq!(written.repeats, 0);
    let before = world.store.now_us().await.unwrap();
    assert!(written.at_us <= before);
    world.publish_outbox().await;
    let published = order().await;
    assert!(published.at_us >= before && published.repeats == 0, "{published:?}");
    for repeats in 1..3 {
        world.done(Action::RepeatDeploy { scenario_id: id, generation: 1 }).await;
        assert_eq!(order().await.repeats, repeats);
        assert!(order().await.at_us >= published.at_us);
    }
    // Another order, counted anew.
    for repeats in 0..3 {
        world.done(world.stop(id, 1)).await;
        assert_eq!(order().await.repeats, repeats);
    }
}

pub(crate) async fn a_written_off_incarnation_gets_nothing_until_it_is_heard_of_again(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let RunnerStatus { runner_id, incarnation, .. } = world.heartbeat.clone();
    let lose = Action::LoseRunner { runner_id: runner_id.clone(), incarnation };
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    world.done(lose.clone()).await;
    assert_eq!(world.apply(lose).await, Fenced::Stale);
    assert!(world.snapshot().await.runners.is_empty());
    assert!(world.store.runner(&runner_id).await.unwrap().unwrap().lost);
    world.done(move_worker(id, 1, WorkerState::Pending, WorkerState::Lost)).await;
    world.done(move_scenario(id, ScenarioState::Deploying, ScenarioState::Recovering)).await;
    assert_eq!(world.apply(world.deploy(id, ScenarioState::Recovering, 2)).await, Fenced::Stale);
    // It was only cut off: it is back, and its stray worker shows.
    world.report(vec![WorkerStatus::new(id, 1, WorkerPhase::Running)]).await;
    let snapshot = world.snapshot().await;
    assert_eq!(snapshot.runners[0].workers.len(), 1);
    assert!(snapshot.workers.is_empty());
    assert!(!world.store.runner(&runner_id).await.unwrap().unwrap().lost);
    world.done(world.deploy(id, ScenarioState::Recovering, 2)).await;
}

pub(crate) async fn a_newer_incarnation_replaces_an_older_one(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let old = world.heartbeat.clone();
    world.heartbeat.incarnation = Incarnation::generate();
    world.heartbeat.sequence = 0;
    world.report(vec![]).await;
    // Both are there until the planner writes the older one off ...
    let present: Vec<_> = world.snapshot().await.runners.iter().map(|r| r.incarnation).collect();
    assert_eq!(present, [old.incarnation, world.heartbeat.incarnation]);
    // ... which cannot renew its lease any more.
    let late = RunnerStatus { sequence: 99, draining: true, ..old.clone() };
    assert_eq!(world.hear(&[late]).await, Fenced::Done);
    assert!(world.snapshot().await.runners.iter().all(|r| !r.draining));
    world.done(Action::LoseRunner { runner_id: old.runner_id.clone(), incarnation: old.incarnation }).await;
    let runner = world.store.runner(&old.runner_id).await.unwrap().unwrap();
    assert_eq!((runner.incarnation, runner.lost), (world.heartbeat.incarnation, false));
    assert_eq!(world.store.runners().await.unwrap().len(), 1);
    // An older incarnation heard of for the first time, after a newer one.
    let older = RunnerStatus { incarnation: Incarnation(Uuid::nil()), ..old };
    world.hear(&[older]).await;
    assert_eq!(world.snapshot().await.runners.len(), 1);
    assert!(world.store.runner(&RunnerId("nobody".into())).await.unwrap().is_none());
}

pub(crate) async fn the_snapshot_shows_what_is_not_at_rest(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let mut expected = vec![];
    for &state in ScenarioState::ALL {
        for desired in [Desired::Running, Desired::Stopped, Desired::Deleted] {
            let id = world.in_state(state).await.id;
            let record = match desired {
                // Wishing would take a failed or stopped one to pending.
                Desired::Running => world.record(id).await,
                other => world.store.set_desired(id, other).await.unwrap().unwrap(),
            };
            // `stopped` while `running` is desired: started again while it was stopping.
            let is_at_rest = match (state, desired) {
                (_, Desired::Deleted) | (ScenarioState::Stopped, Desired::Running) => false,
                (state, _) => state.is_ended(),
            };
            if !is_at_rest {
                expected.push((record.id, record.desired, record.state, record.generation));
            }
        }
    }
    let snapshot = world.snapshot().await;
    let shown: Vec<_> = snapshot.scenarios.iter().map(|s| (s.id, s.desired, s.state, s.generation)).collect();
    assert_eq!(shown, expected, "oldest first");
    assert!(snapshot.scenarios.iter().all(|s| s.traceparent.is_some()));
    assert!(snapshot.workers.iter().all(|w| w.state.is_live() && !w.stop_ordered));
    assert!(snapshot.workers.iter().all(|w| w.incarnation == world.heartbeat.incarnation));
    let live = ScenarioState::ALL.iter().filter(|s| s.is_live()).count();
    assert_eq!(snapshot.workers.len(), 3 * live);

    let mut states = BTreeMap::new();
    for scenario in snapshot.scenarios {
        *states.entry(scenario.state.as_str()).or_insert(0) += 1;
    }
    let counts = world.store.counts().await.unwrap();
    assert_eq!(
        counts.unsettled.iter().map(|(state, count)| (state.as_str(), *count)).collect::<BTreeMap<_, _>>(),
        states
    );
    assert_eq!(counts.outbox.messages, world.outbox().await.len() as u64);
    assert!(counts.outbox.oldest_age_ms.is_some());
    world.publish_outbox().await;
    assert_eq!(world.store.counts().await.unwrap().outbox, OutboxLag::default());
}

pub(crate) async fn the_snapshot_shows_memory_of_scenarios_workers_and_runners(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let mut large = scenario("large");
    large.resolved.memory_mib = Some(1500);
    let large = world.create_new(large).await.id;
    let old = world.create("made by a release that did not estimate").await.id;
    let scenarios = world.snapshot().await.scenarios;
    assert_eq!(scenarios.iter().map(|s| s.memory_mib).collect::<Vec<_>>(), [1500, UNKNOWN_MIB]);
    for id in [large, old] {
        world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    }
    let workers = world.snapshot().await.workers;
    assert_eq!(workers.iter().map(|w| w.memory_mib).collect::<Vec<_>>(), [1500, UNKNOWN_MIB]);
    let memory = async |world: &World| world.snapshot().await.runners[0].memory_mib;
    assert_eq!(memory(&world).await, None);
    world.heartbeat.memory_mib = Some(4000);
    world.report(vec![]).await;
    assert_eq!(memory(&world).await, Some(4000));
}

pub(crate) async fn the_snapshot_shows_labels_on_both_sides(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let north = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
    let mut picky = scenario("picky");
    picky.spec.placement = north.clone();
    let record = world.create_new(picky).await;
    assert_eq!(record.spec.placement, north);
    world.create("any").await;
    let mut far = scenario("far");
    far.resolved.source = ResolvedSource::Url(SealedUrl { address: "http://camera/a.mp4".into(), sealed: None });
    world.create_new(far).await;
    let fetched: Vec<_> = world.snapshot().await.scenarios.iter().map(|s| s.is_fetched).collect();
    assert_eq!(fetched, [false, false, true]);
    let placements =
        async |world: &World| -> Vec<_> { world.snapshot().await.scenarios.into_iter().map(|s| s.placement).collect() };
    assert_eq!(placements(&world).await, [north.clone(), BTreeMap::new(), BTreeMap::new()]);
    let labels = async |world: &World| world.snapshot().await.runners[0].labels.clone();
    assert_eq!(labels(&world).await, BTreeMap::new());
    world.heartbeat.labels = north.clone();
    world.report(vec![]).await;
    assert_eq!(labels(&world).await, north);
}

pub(crate) async fn what_ran_the_stored_frames_is_wanted_again(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let bf16 = Execution { provider: Provider::Openvino, precision: Precision::Bf16 };
    let mut asking = scenario("asking");
    asking.resolved.provider = Some(ProviderChoice::Openvino);
    let asking = world.create_new(asking).await.id;
    let (new, old) = (world.create("new").await.id, world.create("old").await.id);
    world.create("none").await;
    let mut rows = predictions(new, 1, 0..3);
    rows.iter_mut().for_each(|row| row.provenance.execution = Some(bf16));
    rows[0].provenance.execution = None;
    // A release that did not say had nothing else.
    rows.extend(predictions(old, 1, 0..2));
    world.store(rows).await;
    let facts = world.snapshot().await.scenarios;
    let executions: Vec<_> = facts.iter().map(|facts| facts.execution).collect();
    assert_eq!(executions, [None, Some(bf16), Some(Execution::default()), None]);
    let label = |execution: Execution| BTreeMap::from([(execution.label().unwrap(), "true".to_owned())]);
    let f32 = Execution { precision: Precision::F32, ..bf16 };
    assert_eq!((facts[0].id, &facts[0].placement), (asking, &label(f32)));

    let status = |precisions| ProviderStatus { provider: Provider::Openvino, precisions, why: String::new() };
    world.heartbeat.providers = vec![status(vec![Precision::Bf16])];
    world.report(vec![]).await;
    let snapshot = world.snapshot().await;
    assert_eq!(snapshot.runners[0].labels, label(bf16));
    // Its order says what to go on with.
    let deployed = |action| match action {
        Action::Deploy(deploy) => Some((deploy.scenario_id, deploy.execution)),
        _ => None,
    };
    let orders: Vec<_> = world.plan().await.into_iter().filter_map(deployed).collect();
    assert!(orders.contains(&(new, Some(bf16))) && !orders.iter().any(|(id, _)| *id == asking), "{orders:?}");
}

pub(crate) async fn competing_leaders_get_different_epochs(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let mut candidates = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        candidates.spawn(async move {
            let mut epochs = vec![];
            for _ in 0..5 {
                epochs.extend(store.lead(Uuid::now_v7(), true, Duration::ZERO, LONG).await.unwrap());
            }
            epochs
        });
    }
    let won = candidates.join_all().await;
    assert!(won.iter().all(|epochs| epochs.is_sorted()), "I2: epochs never decrease");
    let mut all = won.concat();
    all.sort_unstable();
    assert!(all.is_sorted_by(|a, b| a < b), "an epoch has one holder: {all:?}");
    assert!(!all.is_empty());
}
