//! What hooks keep: stored with the rows it belongs to, and given to the next deployment.

use framehook_core::{
    hook_state::{HookState, Value},
    ids::{Generation, ScenarioId},
    message::{DeployOrder, Message},
    planner::Action,
    state::{Desired, ScenarioState, WorkerState},
};
use framehook_infra::store::{ResultBatch, StoreOutcome};

use crate::{
    fixtures::{StoreBackend, World, batch, move_scenario, move_worker, position, predictions},
    lifecycle::purge,
};

const HOOK: &str = "post/line-counter";

fn kept<const N: usize>(keys: [(&str, Option<&[u8]>); N]) -> HookState {
    let mut state = HookState::default();
    for (key, value) in keys {
        state.set(HOOK, key.to_owned(), value.map(Value::new));
    }
    state
}

fn count(n: u8) -> HookState {
    kept([("n", Some(&[n]))])
}

/// Deploys the scenario anew, and gives the order.
async fn deploy(world: &World, id: ScenarioId, generation: Generation) -> DeployOrder {
    use ScenarioState as S;
    let mut from = S::Pending;
    if generation > 1 {
        world.done(move_worker(id, generation - 1, WorkerState::Pending, WorkerState::Lost)).await;
        world.done(move_scenario(id, S::Deploying, S::Recovering)).await;
        from = S::Recovering;
    }
    world.done(world.deploy(id, from, generation)).await;
    let orders = world.outbox().await.into_iter().filter_map(|envelope| match envelope.message {
        Message::Deploy(order) if (order.scenario_id, order.generation) == (id, generation) => Some(*order),
        _ => None,
    });
    orders.collect::<Vec<_>>().pop().unwrap()
}

pub(crate) async fn a_deployment_gets_the_state_of_the_frame_it_goes_on_behind(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (id, other) = (world.create("any").await.id, world.create("other").await.id);
    let first = deploy(&world, id, 1).await;
    assert_eq!((first.resume_after, first.state), (None, HookState::default()));
    deploy(&world, other, 1).await;
    world.store_state(predictions(other, 1, 0..1), [count(77)]).await;

    let odd = kept([("\0\u{1f600}", Some(&[0, 255])), ("empty", Some(&[])), ("gone", Some(b"x"))]);
    world.store_state(predictions(id, 1, 0..3), [count(1), odd, count(3)]).await;
    world.store_state(predictions(id, 1, 3..5), [HookState::default(), kept([("gone", None), ("never", None)])]).await;
    let expected = kept([("\0\u{1f600}", Some(&[0, 255])), ("empty", Some(&[])), ("n", Some(&[3]))]);
    let second = deploy(&world, id, 2).await;
    assert_eq!((second.resume_after, second.state), (Some(position(4)), expected.clone()));
    // The order is repeated word for word.
    world.publish_outbox().await;
    world.done(Action::RepeatDeploy { scenario_id: id, generation: 2 }).await;
    let [again] = &world.outbox().await[..] else { panic!("one order") };
    let Message::Deploy(again) = &again.message else { panic!("{again:?}") };
    assert_eq!(again.state, expected);
}

pub(crate) async fn a_record_that_comes_again_changes_no_state(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    deploy(&world, id, 1).await;
    world.store_state(predictions(id, 1, 0..3), [count(1), count(2), count(3)]).await;
    // A publication that was not acknowledged, and did arrive.
    world.store_state(predictions(id, 1, 0..2), [count(1), count(2)]).await;
    // What a hook says at the end comes with the last frame once more.
    world.store_state(predictions(id, 1, 2..3), [count(9)]).await;
    let order = deploy(&world, id, 2).await;
    assert_eq!((order.resume_after, order.state), (Some(position(2)), count(9)));
}

/// A worker that was replaced may still give frames. They are rows like others, but the worker that goes on
/// computes them again, so what hooks counted on them must not be there already.
pub(crate) async fn a_deployment_that_was_replaced_changes_no_state(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    deploy(&world, id, 1).await;
    world.store_state(predictions(id, 1, 0..2), [count(1), count(2)]).await;
    let second = deploy(&world, id, 2).await;
    assert_eq!((second.resume_after, second.state), (Some(position(1)), count(2)));
    world.store_state(predictions(id, 1, 2..5), [count(3), count(4), count(5)]).await;
    assert_eq!(world.record(id).await.stored, Some(position(4)), "the rows count");
    let mixed = [predictions(id, 2, 2..3), predictions(id, 1, 5..6)].concat();
    world.store_state(mixed, [count(3), count(6)]).await;
    let third = deploy(&world, id, 3).await;
    assert_eq!((third.resume_after, third.state), (Some(position(2)), count(3)));
    assert_eq!(world.stored(id).await.len(), 6);
}

pub(crate) async fn state_is_stored_with_its_rows_or_not_at_all(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    deploy(&world, id, 1).await;
    world.store_state(predictions(id, 1, 0..1), [count(1)]).await;
    let state = [(0, count(2))].into();
    let ahead = ResultBatch { state, ..batch(7, 8, predictions(id, 1, 1..2)) };
    assert_eq!(world.store.store_results(&ahead).await.unwrap(), StoreOutcome::OffsetMoved);
    assert_eq!(deploy(&world, id, 2).await.state, count(1));
}

pub(crate) async fn nothing_is_left_of_a_deleted_scenario(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    // Its generation is 0 until it is deployed.
    world.store_state(predictions(id, 0, 0..1), [count(1)]).await;
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    world.store_state(predictions(id, 0, 1..2), [count(2)]).await;
    world.done(move_scenario(id, ScenarioState::Pending, ScenarioState::Stopped)).await;
    assert!(purge(&world, id).await >= 1);
    assert!(world.store.is_purged(id).await.unwrap());
}
