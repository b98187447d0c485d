//! What shadows found: the newest summary of each scenario, and a ring of differences.

use framehook_core::{
    compare::{Comparison, FrameDifference},
    ids::{Generation, ScenarioId},
    prediction::Skipped,
    shadow::{RING, ShadowCounts, ShadowDifference, ShadowFindings, ShadowSummary},
    state::{Desired, ScenarioState},
};
use framehook_infra::store::{ResultBatch, ShadowRecord, StoreOutcome, StoredSummary};

use crate::{
    fixtures::{CONSUMER, StoreBackend, World, batch, move_scenario},
    lifecycle::purge,
};

const TOPIC: &str = "scenario_logs";

fn summary(frames: u64, different: u64) -> ShadowSummary {
    let comparison =
        Comparison { compared: frames - 1, equal: frames - 1 - different, different, ..Comparison::default() };
    let counts = ShadowCounts { comparison, not_compared: 1 };
    ShadowSummary { revision: 1, plugins: vec![], counts, starts: 1, ended: None }
}

fn difference(frame: u64, reason: &str) -> ShadowDifference {
    let skipped = Skipped { by: "yolo@2".into(), reason: reason.into() };
    let difference = FrameDifference { frame, skipped_after: Some(skipped), ..FrameDifference::default() };
    ShadowDifference { revision: 1, difference }
}

/// What a deployment found that has seen as many frames as the last of the numbers, and one more.
fn found(scenario_id: ScenarioId, generation: Generation, numbers: std::ops::Range<u64>) -> ShadowFindings {
    let (first, end) = (numbers.start, numbers.end);
    let differences = numbers.map(|number| difference(number, "\u{0}why")).collect();
    ShadowFindings { scenario_id, generation, summary: summary(end + 1, end), first, differences }
}

async fn store(world: &World, found: Vec<ShadowFindings>) {
    let offset = world.store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap();
    let batch = ResultBatch { topic: TOPIC.into(), found, ..batch(offset, offset + 1, vec![]) };
    assert_eq!(world.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
}

async fn read(world: &World, id: ScenarioId, after: i64) -> ShadowRecord {
    world.store.shadow(id, after).await.unwrap().expect("the scenario is visible")
}

fn frames(record: &ShadowRecord) -> Vec<(i64, u64)> {
    record.differences.iter().map(|entry| (entry.generation, entry.difference.difference.frame)).collect()
}

pub(crate) async fn what_a_shadow_found_comes_back_as_stored(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (id, other) = (world.create("any").await.id, world.create("other").await.id);
    assert_eq!(read(&world, id, 0).await, ShadowRecord { summary: None, differences: vec![] });
    store(&world, vec![found(id, 1, 0..2), found(other, 1, 0..1), found(id, 1, 2..3)]).await;
    let record = read(&world, id, 0).await;
    assert_eq!(record.summary, Some(StoredSummary { generation: 1, kept: 3, summary: summary(4, 3) }));
    assert_eq!(frames(&record), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(record.differences[2].difference, difference(2, "\u{0}why"));
    let rest = read(&world, id, 2).await;
    assert_eq!((frames(&rest), rest.summary), (vec![(1, 2)], record.summary));
    assert_eq!(frames(&read(&world, other, 0).await), [(1, 0)]);
    assert_eq!(world.store.shadow(ScenarioId::generate(), 0).await.unwrap(), None);
}

pub(crate) async fn what_a_shadow_found_before_changes_nothing(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let once = [found(id, 1, 0..3), found(id, 1, 3..5), found(id, 3, 0..2)];
    for findings in once.iter().chain(&once).cloned().chain([found(id, 2, 0..9)]) {
        store(&world, vec![findings]).await;
    }
    let record = read(&world, id, 0).await;
    assert_eq!(record.summary, Some(StoredSummary { generation: 3, kept: 2, summary: summary(3, 2) }));
    assert_eq!(frames(&record), [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (3, 0), (3, 1)]);
    // A deployment that found nothing new tells how far it is.
    let further = ShadowFindings { summary: summary(9, 2), first: 2, differences: vec![], ..found(id, 3, 0..0) };
    store(&world, vec![further, found(id, 3, 0..2)]).await;
    assert_eq!(read(&world, id, 0).await.summary.unwrap().summary, summary(9, 2));
}

pub(crate) async fn the_oldest_differences_go(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let most = u64::try_from(RING.items).unwrap();
    store(&world, vec![found(id, 1, 0..most), found(id, 1, most..most + 2)]).await;
    let record = read(&world, id, 0).await;
    assert_eq!((record.differences.len() as u64, record.differences[0].sequence), (most, 3));
    assert_eq!(record.summary.unwrap().kept, most);
    let long = vec![difference(0, &"x".repeat(4_000)); 300];
    store(&world, vec![ShadowFindings { differences: long, first: most + 2, ..found(id, 1, 0..0) }]).await;
    let bytes: usize = read(&world, id, 0)
        .await
        .differences
        .iter()
        .map(|entry| serde_json::to_string(&entry.difference).unwrap().len())
        .sum();
    let room = usize::try_from(RING.bytes).unwrap();
    assert!((room..room + 5_000).contains(&bytes), "{bytes}");
}

pub(crate) async fn nothing_is_left_of_what_a_shadow_found(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    store(&world, vec![found(id, 0, 0..3)]).await;
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    assert_eq!(world.store.shadow(id, 0).await.unwrap(), None);
    store(&world, vec![found(id, 0, 3..4), found(ScenarioId::generate(), 0, 0..1)]).await;
    world.done(move_scenario(id, ScenarioState::Pending, ScenarioState::Stopped)).await;
    assert!(purge(&world, id).await >= 1);
    assert!(world.store.is_purged(id).await.unwrap());
}
