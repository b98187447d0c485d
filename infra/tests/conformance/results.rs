//! The inbox's writes and the reading of predictions.

use framehook_core::{
    delivery::{Delivery, OutboxLag},
    ids::ScenarioId,
    invariants,
    message::WorkerPhase,
    prediction::{Position, Prediction, Skipped},
    state::{Desired, ScenarioState},
};
use framehook_infra::store::{DeadLetter, Limit, PredictionQuery, ResultBatch, Rows, StoreOutcome};
use tokio::task::JoinSet;

use crate::fixtures::{
    CONSUMER, StoreBackend, TOPIC, World, all, batch, dead_letter, position, prediction, predictions, published, rows,
};

fn frames(rows: &[Prediction]) -> Vec<u64> {
    rows.iter().map(|row| row.frame).collect()
}

pub(crate) async fn predictions_come_back_as_stored_and_in_order(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (one, other) = (world.create("one").await.id, world.create("other").await.id);
    let mut shuffled = predictions(one, 1, 0..200);
    shuffled.rotate_left(67);
    shuffled.extend(predictions(other, 1, 0..3));
    // Delivered twice, also within one batch.
    shuffled.extend(predictions(one, 1, 0..10));
    for _ in 0..2 {
        world.store(shuffled.clone()).await;
    }
    let stored = world.stored(one).await;
    assert_eq!(stored, predictions(one, 1, 0..200));
    invariants::every_frame_once(&stored, 200).unwrap();
    assert_eq!(world.stored(other).await, predictions(other, 1, 0..3));
    assert_eq!(world.record(one).await.stored, Some(Position { pts_us: 199 * 40_000, frame: 199 }));
}

pub(crate) async fn ranges_and_cursors(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.store(predictions(id, 1, 0..10)).await;
    let query = |after, from, until, limit| PredictionQuery {
        after_pts_us: after,
        from_pts_us: from,
        until_pts_us: until,
        limit: rows(limit),
    };
    let cases = [
        (all(), (0..10).collect::<Vec<u64>>()),
        (query(None, Some(80_000), None, 100), (2..10).collect()),
        (query(None, None, Some(80_000), 100), vec![0, 1]),
        (query(None, Some(80_000), Some(80_001), 100), vec![2]),
        (query(Some(80_000), None, None, 2), vec![3, 4]),
        (query(Some(80_000), Some(0), Some(200_000), 100), vec![3, 4]),
        (query(Some(0), Some(200_000), None, 1), vec![5]),
        (query(None, None, None, 0), vec![]),
        (query(Some(i64::MAX), None, None, 9), vec![]),
        (query(None, None, Some(i64::MIN), 9), vec![]),
        (query(Some(i64::MIN), Some(i64::MIN), Some(i64::MAX), 1), vec![0]),
    ];
    for (query, expected) in cases {
        assert_eq!(frames(&world.read(id, query.clone()).await.rows), expected, "{query:?}");
    }
    assert_eq!(world.store.predictions(ScenarioId::generate(), all()).await.unwrap(), None);
}

pub(crate) async fn a_read_is_bounded_by_bytes(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let rows = predictions(id, 1, 0..5);
    let size = |frame: usize| serde_json::to_string(&rows[frame]).unwrap().len() as u64;
    world.store(rows.clone()).await;
    let read = async |rows, bytes, after| {
        let query = PredictionQuery { limit: Limit { rows, bytes }, after_pts_us: after, ..all() };
        let Rows { rows, has_more } = world.read(id, query).await;
        (frames(&rows), has_more)
    };
    let three = size(0) + size(1) + size(2);
    assert_eq!(read(9, three, None).await, (vec![0, 1, 2], true), "to the last byte");
    assert_eq!(read(9, three - 1, None).await, (vec![0, 1], true), "and one less");
    assert_eq!(read(2, three, None).await, (vec![0, 1], true));
    assert_eq!(read(9, 1, None).await, (vec![0], true), "the first one comes whatever it holds");
    assert_eq!(read(9, 1, Some(160_000 - 1)).await, (vec![4], false));
    assert_eq!(read(5, u64::MAX, None).await, (vec![0, 1, 2, 3, 4], false));
    assert_eq!(read(4, u64::MAX, None).await, (vec![0, 1, 2, 3], true));
}

pub(crate) async fn the_offset_moves_only_from_where_it_is(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let store = &world.store;
    let offset = async || store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap();
    assert_eq!(offset().await, 0);
    let first = batch(0, 5, predictions(id, 1, 0..5));
    assert_eq!(store.store_results(&first).await.unwrap(), StoreOutcome::Stored);
    assert_eq!(offset().await, 5);

    let letter =
        DeadLetter { offset: 4, key: "k".into(), payload: vec![1], reason: "unreadable".into(), position: None };
    let late = ResultBatch { dead_letters: vec![letter], ..batch(0, 9, predictions(id, 2, 3..9)) };
    let ahead = batch(6, 9, predictions(id, 2, 3..9));
    for moved in [first, late, ahead] {
        assert_eq!(store.store_results(&moved).await.unwrap(), StoreOutcome::OffsetMoved);
        assert_eq!(offset().await, 5);
        assert_eq!(world.stored(id).await, predictions(id, 1, 0..5));
        assert_eq!(world.record(id).await.stored.unwrap().frame, 4);
    }
    // An empty range (gaps, or records of nobody) moves the offset too.
    assert_eq!(store.store_results(&batch(5, 8, vec![])).await.unwrap(), StoreOutcome::Stored);
    assert_eq!(offset().await, 8);
}

pub(crate) async fn a_lower_generation_changes_nothing(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    world.store(predictions(id, 2, 0..10)).await;
    let before = world.stored(id).await;
    // A straggler of generation 1 may fill what is missing, and nothing else.
    world.store(predictions(id, 1, 5..12)).await;
    let after = world.stored(id).await;
    invariants::no_row_goes_back(&invariants::generations(&before), &invariants::generations(&after)).unwrap();
    assert_eq!(after[..10], before);
    assert_eq!(after[10..], predictions(id, 1, 10..12));
    // The same generation again, and a newer one, replace; in one batch the newest wins, whatever the order.
    world.store([predictions(id, 3, 0..12), predictions(id, 2, 0..12)].concat()).await;
    assert_eq!(world.stored(id).await, predictions(id, 3, 0..12));
    let again = Prediction { detections: vec![], ..prediction(id, 3, 0) };
    world.store(vec![again.clone()]).await;
    assert_eq!(world.stored(id).await[0], again);
}

pub(crate) async fn the_stored_position_never_goes_back(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    for (range, last) in [(0..5, 4), (2..4, 4), (5..9, 8), (0..1, 8)] {
        world.store(predictions(id, 1, range)).await;
        let expected = Some(Position { pts_us: last * 40_000, frame: last.unsigned_abs() });
        assert_eq!(world.record(id).await.stored, expected);
        assert_eq!(world.snapshot().await.scenarios[0].stored, expected);
    }
}

pub(crate) async fn results_of_deleted_and_unknown_scenarios_are_dropped(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let (kept, deleted) = (world.create("kept").await.id, world.create("deleted").await.id);
    world.store(predictions(deleted, 1, 0..2)).await;
    world.store.set_desired(deleted, Desired::Deleted).await.unwrap();
    let unknown = ScenarioId::generate();
    world
        .store([predictions(deleted, 1, 0..5), predictions(unknown, 1, 0..5), predictions(kept, 1, 0..5)].concat())
        .await;
    assert_eq!(world.stored(kept).await.len(), 5);
    let before_the_purge = world.store.set_desired(deleted, Desired::Deleted).await.unwrap().unwrap();
    assert_eq!(before_the_purge.stored, Some(Position { pts_us: 40_000, frame: 1 }));
    for id in [deleted, unknown] {
        assert_eq!(world.store.predictions(id, all()).await.unwrap(), None);
    }
    assert_eq!(world.store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap(), 2);
}

pub(crate) async fn dead_letters_move_the_offset(backend: &impl StoreBackend) {
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let letter = DeadLetter {
        offset: 1,
        key: "k".into(),
        payload: vec![0, 159, 146, 150],
        reason: "not JSON".into(),
        position: None,
    };
    let poisoned = ResultBatch { dead_letters: vec![letter], ..batch(0, 3, predictions(id, 1, 0..2)) };
    assert_eq!(world.store.store_results(&poisoned).await.unwrap(), StoreOutcome::Stored);
    assert_eq!(world.store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap(), 3);
    assert_eq!(world.stored(id).await.len(), 2);
}

/// I9: by its identity each frame is stored, skipped, dropped or under way, however often it comes.
pub(crate) async fn every_frame_is_accounted_for_once(backend: &impl StoreBackend) {
    let mut world = World::new(backend).await;
    let id = world.create("any").await.id;
    let other = world.create("other").await.id;
    world.store(predictions(other, 1, 0..3)).await;
    let by = || Some(Skipped { by: "gate@1.0.0".into(), reason: "still".into() });
    let skipped = |generation, frame| Prediction { skipped: by(), ..prediction(id, generation, frame) };
    let expect = async |world: &World, (decoded, stored, skipped, unreadable, under_way)| {
        let delivery = world.delivery(id).await;
        let Delivery { inbox, dropped, .. } = delivery;
        let counts = (delivery.decoded, delivery.stored, delivery.skipped, dropped.unreadable, inbox.frames);
        assert_eq!(counts, (decoded, stored, skipped, unreadable, under_way));
        invariants::delivery_balances(&delivery, ScenarioState::Running).unwrap();
    };
    expect(&world, (0, 0, 0, 0, 0)).await;
    world.done(world.deploy(id, ScenarioState::Pending, 1)).await;
    world.report(vec![published(id, 1, WorkerPhase::Running, 9)]).await;
    expect(&world, (10, 0, 0, 0, 10)).await;
    for _ in 0..2 {
        let rows = predictions(id, 1, 0..10).into_iter().filter(|p| p.frame / 2 != 2);
        world.store(rows.chain([skipped(1, 4), skipped(1, 5), skipped(1, 4)]).collect()).await;
        expect(&world, (10, 8, 2, 0, 0)).await;
    }
    // Ahead of the heartbeat, computed again without being skipped, and late.
    world.store(vec![prediction(id, 1, 10), prediction(id, 2, 4)]).await;
    expect(&world, (11, 10, 1, 0, 0)).await;
    world.store(vec![skipped(1, 4), skipped(2, 10), prediction(id, 2, 10)]).await;
    expect(&world, (11, 10, 1, 0, 0)).await;

    let letters = |frames: &[Option<u64>]| frames.iter().map(|frame| dead_letter(id, *frame)).collect::<Vec<_>>();
    // Twice the same frame, one that is stored, and one that does not say which.
    world.store_with(vec![], letters(&[Some(11), Some(11), Some(3), None])).await;
    expect(&world, (12, 10, 1, 1, 0)).await;
    assert_eq!(world.record(id).await.stored, Some(position(11)));
    world.store_with(predictions(id, 2, 13..14), letters(&[Some(12)])).await;
    expect(&world, (14, 11, 1, 2, 0)).await;
    world.store(predictions(id, 2, 11..12)).await;
    expect(&world, (14, 12, 1, 1, 0)).await;
    assert_eq!(world.delivery(id).await.inbox.unreadable, 1);

    // Frames that nobody asked for count with the one behind them, and once.
    for generation in [2, 2, 3, 1] {
        world.store(vec![Prediction { left_out: 6, ..prediction(id, generation, 20) }]).await;
        expect(&world, (21, 13, 1, 1, 0)).await;
        assert_eq!(world.delivery(id).await.left_out, 6);
    }

    assert_eq!((world.delivery(other).await.decoded, world.delivery(other).await.stored), (3, 3));
    let lag = world.delivery(id).await.outbox;
    assert_eq!((lag.messages, lag.oldest_age_ms.is_some()), (2, true), "the wake-up and the order");
    world.publish_outbox().await;
    assert_eq!(world.delivery(id).await.outbox, OutboxLag::default());
    assert_eq!(world.store.delivery(ScenarioId::generate()).await.unwrap(), None);
    world.store.set_desired(id, Desired::Deleted).await.unwrap();
    assert_eq!(world.store.delivery(id).await.unwrap(), None);
}

pub(crate) async fn consumers_have_offsets_of_their_own(backend: &impl StoreBackend) {
    let store = backend.store().await;
    let empty = |consumer: &str, topic: &str, partition, next| ResultBatch {
        consumer: consumer.into(),
        topic: topic.into(),
        partition,
        ..batch(0, next, vec![])
    };
    let all = [("a", "t", 0, 1), ("b", "t", 0, 2), ("a", "u", 0, 3), ("a", "t", 1, 4)];
    for (consumer, topic, partition, next) in all {
        let stored = store.store_results(&empty(consumer, topic, partition, next)).await.unwrap();
        assert_eq!(stored, StoreOutcome::Stored);
    }
    for (consumer, topic, partition, next) in all {
        assert_eq!(store.consumer_offset(consumer, topic, partition).await.unwrap(), next);
    }
}

/// I7: zombies and their successors read the same log; every batch is stored by exactly one of them.
pub(crate) async fn competing_inboxes_store_each_batch_once(backend: &impl StoreBackend) {
    /// Records a batch, and batches in the log.
    const SIZE: i64 = 4;
    const BATCHES: i64 = 20;
    let world = World::new(backend).await;
    let id = world.create("any").await.id;
    let mut inboxes = JoinSet::new();
    for _ in 0..4 {
        let store = world.store.clone();
        inboxes.spawn(async move {
            let mut stored = 0;
            loop {
                let from = store.consumer_offset(CONSUMER, TOPIC, 0).await.unwrap();
                if from >= SIZE * BATCHES {
                    return stored;
                }
                let rows = predictions(id, 1, from.unsigned_abs()..(from + SIZE).unsigned_abs());
                let outcome = store.store_results(&batch(from, from + SIZE, rows)).await.unwrap();
                stored += i64::from(outcome == StoreOutcome::Stored);
            }
        });
    }
    assert_eq!(inboxes.join_all().await.iter().sum::<i64>(), BATCHES);
    invariants::every_frame_once(&world.stored(id).await, (SIZE * BATCHES).unsigned_abs()).unwrap();
    assert_eq!(world.delivery(id).await.stored, (SIZE * BATCHES).unsigned_abs());
}
