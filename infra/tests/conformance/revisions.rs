//! Revisions: changed from what was seen, told to the worker that runs, noted and rolled back.

use framehook_core::{
    artifact::ArtifactKind,
    hook_state::{HookState, Value},
    ids::ScenarioId,
    message::{DeployOrder, Message},
    planner::Action,
    reason::{Reason, ReasonCode},
    revision::{Begin, RevisionState},
    state::{Desired, ScenarioState, WorkerState},
};
use framehook_infra::store::{
    Artifact, ArtifactSummary, Fenced, Limit, NewRevision, PutArtifact, Revised, RevisionEntry, ScenarioRecord,
};

use crate::{
    artifacts::artifact,
    fixtures::{StoreBackend, World, digest, move_scenario, move_worker, predictions, resolved, scenario},
    lifecycle::purge,
};

/// A change with another threshold.
fn change(based_on: i64, min_score: f64) -> NewRevision {
    let mut resolved = resolved();
    resolved.post[0].config = serde_json::json!({ "min_score": min_score });
    let spec = framehook_core::spec::ScenarioSpec { name: format!("at {min_score}"), ..scenario("any").spec };
    NewRevision { based_on, spec, resolved, begin: Begin::Keep, what: "plugins".into(), refused: None }
}

async fn revise(world: &World, id: ScenarioId, new: NewRevision) -> ScenarioRecord {
    match world.store.revise(id, &new).await.unwrap() {
        Revised::Done(record) => *record,
        other => panic!("{other:?}"),
    }
}

async fn revisions(world: &World, id: ScenarioId) -> Vec<RevisionEntry> {
    world.store.revisions(id, 0, Limit { rows: 1000, bytes: 1 << 20 }).await.unwrap().rows
}

async fn states(world: &World, id: ScenarioId) -> Vec<(i64, RevisionState)> {
    revisions(world, id).await.iter().map(|entry| (entry.revision, entry.state)).collect()
}

/// The newest order to deploy.
async fn order(world: &World, id: ScenarioId) -> DeployOrder {
    let mut orders = world.outbox().await.into_iter().filter_map(|envelope| match envelope.message {
        Message::Deploy(order) if order.scenario_id == id => Some(*order),
        _ => None,
    });
    orders.next_back().expect("an order")
}

fn note(scenario_id: ScenarioId, revision: i64) -> Action {
    Action::NoteRevision { scenario_id, generation: 1, revision, from_frame: Some(7) }
}

fn roll_back(scenario_id: ScenarioId, revision: i64, running: i64) -> Action {
    let reason = Reason::new(ReasonCode::PluginTrap, "why");
    Action::RollBack { scenario_id, generation: 1, revision, running, reason }
}

pub(crate) async fn a_change_starts_from_what_was_seen(backend: &impl StoreBackend) {
    use RevisionState as R;
    let world = World::new(backend).await;
    let id = world.create("first").await.id;
    assert!(revisions(&world, id).await.is_empty());
    let changed = revise(&world, id, change(1, 0.5)).await;
    assert_eq!((changed.revision, changed.spec.name.as_str()), (2, "at 0.5"));
    let conflict = world.store.revise(id, &change(1, 0.6)).await.unwrap();
    assert!(matches!(conflict, Revised::Conflict { current: 2 }), "{conflict:?}");
    assert_eq!(states(&world, id).await, [(1, R::Active), (2, R::Pending)]);
    let all = revisions(&world, id).await;
    assert_eq!((all[0].spec.name.as_str(), all[0].resolved == resolved()), ("first", true));
    assert_eq!(all[1].resolved, change(1, 0.5).resolved);
    let history = world.store.history(id, None, 100).await.unwrap();
    let last = history.last().unwrap();
    assert_eq!((last.from, last.to), (Some(ScenarioState::Pending), ScenarioState::Pending));
    assert_eq!(last.reason, Some(Reason::new(ReasonCode::Revised, "revision 2: plugins")));
    // The next one takes the place of one that never ran.
    revise(&world, id, change(2, 0.7)).await;
    assert_eq!(states(&world, id).await, [(1, R::Active), (2, R::Superseded), (3, R::Pending)]);
    let unknown = world.store.revise(ScenarioId::generate(), &change(1, 0.5)).await.unwrap();
    assert!(matches!(unknown, Revised::NotFound));
    let ended = world.in_state(ScenarioState::Completed).await.id;
    assert!(matches!(world.store.revise(ended, &change(1, 0.5)).await.unwrap(), Revised::Ended));
    let page = world.store.revisions(id, 1, Limit { rows: 1, bytes: 1 }).await.unwrap();
    assert_eq!((page.rows[0].revision, page.rows.len(), page.has_more), (2, 1, true));
}

pub(crate) async fn the_worker_that_runs_is_told(backend: &impl StoreBackend) {
    use RevisionState as R;
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    assert_eq!((order(&world, id).await.revision, order(&world, id).await.fresh), (1, false));
    revise(&world, id, NewRevision { begin: Begin::Fresh, ..change(1, 0.5) }).await;
    let told = order(&world, id).await;
    assert_eq!((told.generation, told.revision, told.fresh), (1, 2, true));
    assert_eq!(told.scenario, change(1, 0.5).resolved);
    let repeat = Action::RepeatDeploy { scenario_id: id, generation: 1 };
    world.done(repeat).await;
    assert_eq!(order(&world, id).await, told);
    let facts = world.snapshot().await.scenarios[0].revision;
    assert_eq!((facts.number, facts.is_pending, facts.rolled_back), (2, true, 0));
    assert_eq!(world.apply(note(id, 1)).await, Fenced::Stale);
    world.done(note(id, 2)).await;
    let all = revisions(&world, id).await;
    assert_eq!(states(&world, id).await, [(1, R::Superseded), (2, R::Active)]);
    assert_eq!((all[0].from_frame, all[1].from_frame), (None, Some(7)));
    assert!(!world.snapshot().await.scenarios[0].revision.is_pending);
}

pub(crate) async fn a_revision_that_failed_is_rolled_back(backend: &impl StoreBackend) {
    use RevisionState as R;
    let world = World::new(backend).await;
    let id = world.create("first").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    revise(&world, id, change(1, 0.5)).await;
    world.done(roll_back(id, 2, 1)).await;
    assert_eq!(world.apply(roll_back(id, 2, 1)).await, Fenced::Stale);
    let record = world.record(id).await;
    assert_eq!((record.revision, record.spec.name.as_str()), (1, "first"));
    assert_eq!(record.resolved, resolved());
    assert_eq!(states(&world, id).await, [(1, R::Active), (2, R::RolledBack)]);
    assert_eq!(revisions(&world, id).await[1].reason, Some(Reason::new(ReasonCode::PluginTrap, "why")));
    let facts = world.snapshot().await.scenarios[0].revision;
    assert_eq!((facts.number, facts.is_pending, facts.rolled_back), (1, false, 2));
    let last = world.store.history(id, None, 100).await.unwrap().pop().unwrap();
    let told = Reason::new(ReasonCode::RolledBack, "revision 2: why; revision 1 goes on");
    assert_eq!(last.reason, Some(told));
    // Its number is not given again; what is changed meanwhile stays wanted.
    assert_eq!(revise(&world, id, change(1, 0.6)).await.revision, 3);
    assert_eq!(revise(&world, id, change(3, 0.7)).await.revision, 4);
    world.done(roll_back(id, 3, 1)).await;
    assert_eq!(world.record(id).await.revision, 4);
    // Nobody ran the one before: whoever runs is told of it.
    revise(&world, id, change(4, 0.8)).await;
    world.done(roll_back(id, 5, 1)).await;
    assert_eq!(world.record(id).await.revision, 4);
    assert_eq!(states(&world, id).await[3..], [(4, R::Pending), (5, R::RolledBack)]);
    world.done(Action::RepeatDeploy { scenario_id: id, generation: 1 }).await;
    assert_eq!(order(&world, id).await.revision, 4);
    // One that cannot be used is on record, and nothing else.
    let refused = Some(Reason::new(ReasonCode::PluginIncompatible, "no"));
    assert_eq!(revise(&world, id, NewRevision { refused, ..change(4, 0.9) }).await.revision, 4);
    assert_eq!(states(&world, id).await.last(), Some(&(6, R::RolledBack)));
}

pub(crate) async fn what_begins_anew_keeps_nothing(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    let mut state = HookState::default();
    state.set("post/yolo", "n".into(), Some(Value::new(&[1])));
    world.store_state(predictions(id, 1, 0..1), [state.clone()]).await;
    let lose = async |generation| {
        world.done(move_worker(id, generation, WorkerState::Pending, WorkerState::Lost)).await;
        world.done(move_scenario(id, ScenarioState::Deploying, ScenarioState::Recovering)).await;
    };
    lose(1).await;
    revise(&world, id, change(1, 0.5)).await;
    world.done(world.deploy(id, ScenarioState::Recovering, 2)).await;
    assert_eq!((order(&world, id).await.revision, order(&world, id).await.state), (2, state));
    lose(2).await;
    revise(&world, id, NewRevision { begin: Begin::Fresh, ..change(2, 0.6) }).await;
    world.done(world.deploy(id, ScenarioState::Recovering, 3)).await;
    assert_eq!((order(&world, id).await.revision, order(&world, id).await.state), (3, HookState::default()));
    // With its scenario, all of it goes.
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    world.done(move_worker(id, 3, WorkerState::Pending, WorkerState::Stopped)).await;
    world.done(move_scenario(id, ScenarioState::Deploying, ScenarioState::Stopping)).await;
    world.done(move_scenario(id, ScenarioState::Stopping, ScenarioState::Stopped)).await;
    purge(&world, id).await;
    assert!(revisions(&world, id).await.is_empty());
}

pub(crate) async fn a_plugin_in_development_is_replaced(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let put = async |version: &str, byte| {
        world.store.put_artifact(artifact(ArtifactKind::Plugin, "yolo", version, byte)).await.unwrap()
    };
    assert_eq!(put("0.1.0", 3).await, PutArtifact::Created);
    assert_eq!(put("dev", 4).await, PutArtifact::Created);
    assert_eq!(put("dev", 5).await, PutArtifact::Replaced);
    assert!(matches!(put("dev", 5).await, PutArtifact::Unchanged(Artifact { .. })));
    assert!(matches!(put("0.1.0", 6).await, PutArtifact::Conflict(_)));
    let newest = world.store.artifact(ArtifactKind::Plugin, &"yolo".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((newest.version.as_str(), newest.digest), ("0.1.0", digest(3)));
    let listed = world.store.artifacts(ArtifactKind::Plugin, Default::default()).await.unwrap();
    assert!(listed.iter().all(|ArtifactSummary { version, .. }| version == "dev" || version == "0.1.0"));
    // What a scenario may still run is kept, though nothing names it any more.
    let id = world.create("any").await.id;
    assert_eq!(world.store.users_of("yolo", "0.1.0").await.unwrap(), [id]);
    let mut new = change(1, 0.5);
    new.resolved.post[0].identity.digest = digest(9);
    new.resolved.post[0].identity.version = "dev".into();
    revise(&world, id, new).await;
    assert_eq!(world.store.users_of("yolo", "dev").await.unwrap(), [id]);
    let live = world.store.live_digests().await.unwrap();
    assert!(live.contains(&digest(9)) && live.contains(&digest(5)) && !live.contains(&digest(4)), "{live:?}");
}
