//! The lines that scenarios log: a ring of each, which nothing gets into twice.

use framehook_core::{
    ids::{Generation, ScenarioId},
    scenario_log::{LogLine, LoggedLines, MAX_BYTES, MAX_LINES},
    state::{Desired, ScenarioState},
};
use framehook_infra::store::{LogEntry, ResultBatch, StoreOutcome};
use serde_json::json;

use crate::{
    fixtures::{CONSUMER, StoreBackend, World, batch, move_scenario},
    lifecycle::purge,
};

const TOPIC: &str = "scenario_logs";

fn line(message: &str) -> LogLine {
    serde_json::from_value(
        json!({"at": "2026-11-27T03:04:05.678901Z", "level": "info", "plugin": "yolo@0.1.0", "target": "yolo",
        "message": message}),
    )
    .unwrap()
}

fn logged(scenario_id: ScenarioId, generation: Generation, numbers: std::ops::Range<u64>) -> LoggedLines {
    let lines = numbers.clone().map(|number| line(&format!("{generation}.{number}"))).collect();
    LoggedLines { scenario_id, generation, first: numbers.start, lines }
}

/// Behind everything before.
async fn store(world: &World, logged: Vec<LoggedLines>) {
    let offset = world.store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap();
    let batch = ResultBatch { topic: TOPIC.into(), logged, ..batch(offset, offset + 1, vec![]) };
    assert_eq!(world.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
}

async fn read(world: &World, id: ScenarioId, after: i64) -> Vec<LogEntry> {
    world.store.log(id, after).await.unwrap().expect("the scenario is visible")
}

fn messages(entries: &[LogEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.line.message.as_str()).collect()
}

pub(crate) async fn lines_come_back_as_stored_and_in_order(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (id, other) = (world.create("any").await.id, world.create("other").await.id);
    assert_eq!(read(&world, id, 0).await, []);
    // Its text has a NUL, which no column of PostgreSQL takes outside of JSON.
    let mut odd = line("\u{0}\u{1f600}\"\\u0000");
    odd.fields = serde_json::from_value(json!({"zone": "a\u{0}b", "n": 2.5, "all": [1, 2]})).unwrap();
    odd.frame = Some(7);
    let odd = LoggedLines { scenario_id: id, generation: 1, first: 2, lines: vec![odd] };
    store(&world, vec![logged(id, 1, 0..2), logged(other, 1, 0..1), odd.clone()]).await;
    store(&world, vec![logged(id, 2, 0..1)]).await;
    let all = read(&world, id, 0).await;
    assert_eq!(
        all.iter().map(|entry| (entry.sequence, entry.generation)).collect::<Vec<_>>(),
        [(1, 1), (2, 1), (3, 1), (4, 2)]
    );
    assert_eq!(all[2].line, odd.lines[0]);
    assert_eq!((messages(&all[..2]), messages(&all[3..])), (vec!["1.0", "1.1"], vec!["2.0"]));
    assert_eq!(messages(&read(&world, id, 3).await), ["2.0"]);
    assert_eq!(read(&world, id, 4).await, []);
    assert_eq!(messages(&read(&world, other, 0).await), ["1.0"]);
    assert_eq!(world.store.log(ScenarioId::generate(), 0).await.unwrap(), None);
}

/// A publication that was not acknowledged and did arrive, a log that is read again from its beginning, a
/// deployment that was replaced.
pub(crate) async fn a_line_that_comes_again_or_too_late_changes_nothing(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let once = [logged(id, 1, 0..3), logged(id, 1, 2..5), logged(id, 3, 0..2)];
    for batch in once.iter().chain(&once).cloned().chain([logged(id, 2, 0..9)]) {
        store(&world, vec![batch]).await;
    }
    store(&world, once.to_vec()).await;
    let all = read(&world, id, 0).await;
    assert_eq!(messages(&all), ["1.0", "1.1", "1.2", "1.3", "1.4", "3.0", "3.1"]);
    assert_eq!(all.last().unwrap().sequence, 7);

    // With the offset or not at all.
    let ahead = ResultBatch { topic: TOPIC.into(), logged: vec![logged(id, 3, 2..9)], ..batch(99, 100, vec![]) };
    assert_eq!(world.store.store_results(&ahead).await.unwrap(), StoreOutcome::OffsetMoved);
    assert_eq!(read(&world, id, 7).await, []);
}

pub(crate) async fn the_oldest_lines_go(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (id, long) = (world.create("any").await.id, world.create("long").await.id);
    let most = u64::try_from(MAX_LINES).unwrap();
    // More than the ring holds at once, and then line by line.
    store(&world, vec![logged(id, 1, 0..most + 3), logged(long, 1, 0..2)]).await;
    store(&world, vec![logged(id, 1, most + 3..most + 4)]).await;
    let all = read(&world, id, 0).await;
    assert_eq!((all.len(), all[0].sequence, &*all[0].line.message), (2_000, 5, "1.4"));
    assert!(all.is_sorted_by(|a, b| a.sequence + 1 == b.sequence));

    let size = |line: &LogLine| i64::try_from(serde_json::to_string(line).unwrap().len()).unwrap();
    let lines = vec![line(&"x".repeat(4_000)); 150];
    store(&world, vec![LoggedLines { scenario_id: long, generation: 1, first: 2, lines: lines.clone() }]).await;
    let all = read(&world, long, 0).await;
    let bytes: i64 = all.iter().map(|entry| size(&entry.line)).sum();
    assert!((MAX_BYTES..MAX_BYTES + size(&lines[0])).contains(&bytes), "{bytes}");
    assert_eq!(all.last().unwrap().sequence, 152);
}

pub(crate) async fn a_deleted_scenario_has_no_log(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    store(&world, vec![logged(id, 0, 0..3)]).await;
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    assert_eq!(world.store.log(id, 0).await.unwrap(), None);
    store(&world, vec![logged(id, 0, 3..4), logged(ScenarioId::generate(), 0, 0..1)]).await;
    world.done(move_scenario(id, ScenarioState::Pending, ScenarioState::Stopped)).await;
    assert!(purge(&world, id).await >= 1);
    assert!(world.store.is_purged(id).await.unwrap());
}
