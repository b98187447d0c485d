//! Which recorded outputs are in the blob store: each part once, the newest of a scenario, and no blob for
//! longer than somebody needs it.

use std::time::Duration;

use framehook_core::{
    ids::{Generation, ScenarioId},
    prediction::Position,
    recorded::{Part, RecordedPart, Replay, ReplayFrom, ReplayedPart},
    state::Desired,
};
use framehook_infra::store::{Created, NewScenario, ResultBatch, StoreOutcome};
use jiff::Timestamp;

use crate::fixtures::{CONSUMER, StoreBackend, World, batch, digest, resolved, scenario};

const TOPIC: &str = "scenario_logs";
/// Nothing is as old.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// 100 bytes, ten frames.
fn part(generation: Generation, number: u32) -> Part {
    let at = |frame| Position { pts_us: frame as i64 * 40_000, frame };
    let first = u64::from(number) * 10;
    Part {
        generation,
        number,
        digest: digest(10 * generation as u8 + number as u8),
        bytes: 100,
        frames: 10,
        first: at(first),
        last: at(first + 9),
        after: first.checked_sub(1).map(at),
    }
}

async fn store(world: &World, id: ScenarioId, keep_bytes: u64, parts: &[Part]) {
    let offset = world.store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap();
    let recorded = parts.iter().map(|part| RecordedPart { scenario_id: id, part: part.clone(), keep_bytes }).collect();
    let batch = ResultBatch { topic: TOPIC.into(), recorded, ..batch(offset, offset + 1, vec![]) };
    assert_eq!(world.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
}

pub(crate) async fn parts_come_back_once_and_in_order(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (id, other) = (world.create("any").await.id, world.create("other").await.id);
    assert_eq!(world.store.outputs(id).await.unwrap(), []);
    store(&world, id, 1000, &[part(2, 0), part(1, 0), part(1, 1)]).await;
    store(&world, id, 1000, &[part(1, 1), part(2, 1)]).await;
    let all = [part(1, 0), part(1, 1), part(2, 0), part(2, 1)];
    assert_eq!(world.store.outputs(id).await.unwrap(), all);
    assert_eq!(world.store.outputs(other).await.unwrap(), []);
    store(&world, ScenarioId::generate(), 1000, &[part(3, 0)]).await;
    assert_eq!(world.store.live_digests().await.unwrap(), all.map(|part| part.digest));
    assert_eq!(world.store.drop_outputs(FOR_EVER).await.unwrap(), []);
}

pub(crate) async fn the_oldest_parts_are_given_up(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    store(&world, id, 250, &[part(1, 0), part(1, 1), part(1, 2)]).await;
    assert_eq!(world.store.outputs(id).await.unwrap(), [part(1, 1), part(1, 2)]);
    store(&world, id, 250, &[part(2, 0)]).await;
    assert_eq!(world.store.outputs(id).await.unwrap(), [part(1, 2), part(2, 0)]);
    // What comes again of them stays given up.
    store(&world, id, 1000, &[part(1, 1)]).await;
    assert_eq!(world.store.outputs(id).await.unwrap(), [part(1, 2), part(2, 0)]);
    let mut dropped = world.store.drop_outputs(FOR_EVER).await.unwrap();
    dropped.sort();
    assert_eq!(dropped, [digest(10), digest(11)]);
    assert_eq!(world.store.drop_outputs(FOR_EVER).await.unwrap(), []);
    // One that is too large alone leaves nothing.
    store(&world, id, 99, &[part(3, 0)]).await;
    assert_eq!(world.store.outputs(id).await.unwrap(), []);
    assert_eq!(world.store.drop_outputs(FOR_EVER).await.unwrap().len(), 3);
    store(&world, id, 1000, &[part(4, 0)]).await;
    assert_eq!(world.store.drop_outputs(Duration::ZERO).await.unwrap(), [digest(40)], "all are older than that");
    assert_eq!(world.store.live_digests().await.unwrap(), []);
}

pub(crate) async fn a_replay_keeps_what_it_reads(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    store(&world, id, 1000, &[part(1, 0), part(1, 1)]).await;
    let parts = vec![ReplayedPart { digest: digest(11), until_us: Some(7) }];
    let replay = Replay { of: id, from: ReplayFrom::Outputs, created_at: Timestamp::UNIX_EPOCH, parts };
    let resolved = framehook_core::spec::ResolvedScenario { replay: Some(replay.clone()), ..resolved() };
    let new = NewScenario { resolved, ..scenario("replay") };
    let Created::New(made) = world.store.create_scenario(new).await.unwrap() else { panic!("it is new") };
    assert_eq!(made.resolved.replay, Some(replay));
    assert_eq!(world.store.outputs(made.id).await.unwrap(), [], "it has none of its own");
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    assert_eq!(world.store.outputs(id).await.unwrap(), []);
    store(&world, id, 1000, &[part(1, 2)]).await;
    assert_eq!(world.store.drop_outputs(FOR_EVER).await.unwrap(), [digest(10)]);
    assert_eq!(world.store.live_digests().await.unwrap(), [digest(11)]);
    world.store.set_desired(made.id, Desired::Deleted).await.unwrap();
    assert_eq!(world.store.drop_outputs(FOR_EVER).await.unwrap(), [digest(11)]);
    assert_eq!(world.store.live_digests().await.unwrap(), []);
}
