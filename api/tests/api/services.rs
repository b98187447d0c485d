//! The outbox relay and the results inbox, through faults.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use framehook_api::{inbox, relay};
use framehook_core::{
    delivery::{Delivery, InboxLag},
    ids::ScenarioId,
    message::{Envelope, Message},
    size::MAX_PREDICTION,
    topic::Topic,
};
use framehook_infra::{
    bus::{Bus, BusError, Delivered, Ends, Record, Result, SharedBus, Subscription, Tail},
    store::{Limit, PredictionQuery, ResultBatch, StoreOutcome},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::app::{TestApp, eventually, prediction};

/// A bus that publishes and then says that it did not, a number of times: what a process that died between
/// publishing and marking leaves behind.
struct Doubtful {
    bus: SharedBus,
    doubts: AtomicUsize,
    /// Payload and reason of each.
    dead_letters: Mutex<Vec<(Vec<u8>, String)>>,
}

#[async_trait]
impl Bus for Doubtful {
    async fn publish(&self, topic: Topic, records: Vec<Record>) -> Result<()> {
        self.bus.publish(topic, records).await?;
        let doubt = self.doubts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        doubt.map_or(Ok(()), |_| Err(BusError::Unavailable("the answer was lost".into())))
    }
    async fn tail(&self, topic: Topic) -> Result<Box<dyn Tail>> {
        self.bus.tail(topic).await
    }
    async fn subscribe(&self, group: &str, topic: Topic) -> Result<Box<dyn Subscription>> {
        self.bus.subscribe(group, topic).await
    }
    async fn end_offset(&self, topic: Topic, partition: i32) -> Result<i64> {
        self.bus.end_offset(topic, partition).await
    }
    async fn ends(&self, topic: Topic) -> Result<Ends> {
        self.bus.ends(topic).await
    }
    async fn forget(&self, topic: Topic, partition: i32, offset: i64) -> Result<()> {
        self.bus.forget(topic, partition, offset).await
    }
    async fn dead_letter(&self, topic: Topic, record: &Delivered, reason: &str) -> Result<()> {
        self.dead_letters.lock().unwrap().push((record.payload.clone(), reason.to_owned()));
        self.bus.dead_letter(topic, record, reason).await
    }
    async fn ping(&self) -> Result<()> {
        if self.doubts.load(Ordering::SeqCst) > 0 {
            return Err(BusError::Unavailable("nobody answers".into()));
        }
        self.bus.ping().await
    }
}

fn result(id: ScenarioId, frame: u64) -> Record {
    let envelope = Envelope::new(Message::Result((&prediction(id, frame)).into()), Timestamp::now());
    Record::try_from(&envelope).unwrap()
}

const ALL: Limit = Limit { rows: u32::MAX, bytes: u64::MAX };

async fn stored(app: &TestApp, id: ScenarioId) -> Vec<u64> {
    let query = PredictionQuery { after_pts_us: None, from_pts_us: None, until_pts_us: None, limit: ALL };
    let rows = app.store.predictions(id, query).await.unwrap().unwrap().rows;
    rows.iter().map(|row| row.read().unwrap().frame).collect()
}

async fn offset(app: &TestApp) -> i64 {
    app.store.consumer_offset(inbox::CONSUMER, "results", 0).await.unwrap()
}

#[tokio::test]
async fn the_relay_empties_the_outbox_in_order_and_is_woken_at_once() {
    let app = TestApp::stocked().await;
    let mut tail = app.bus.tail(Topic::InitScenario).await.unwrap();
    let before = app.scenario().await;
    let cancel = CancellationToken::new();
    let relay = tokio::spawn(relay::run(app.store.clone(), app.bus.clone(), cancel.clone()));
    let mut ids = vec![before];
    for _ in 0..5 {
        ids.push(app.scenario().await);
    }
    let mut seen = Vec::new();
    while seen.len() < ids.len() {
        for record in tail.next(100).await.unwrap() {
            let Message::ScenarioChanged { scenario_id } = Envelope::parse(&record.payload).unwrap().message else {
                panic!("another message");
            };
            assert_eq!(record.key, scenario_id.to_string());
            seen.push(scenario_id);
        }
    }
    assert_eq!(seen, ids);
    eventually("an empty outbox", async || app.store.outbox(1).await.unwrap().is_empty().then_some(())).await;
    cancel.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn what_was_published_but_not_marked_is_published_again_with_the_same_id() {
    let app = TestApp::stocked().await;
    let mut tail = app.bus.tail(Topic::InitScenario).await.unwrap();
    app.scenario().await;
    let id = app.store.outbox(1).await.unwrap()[0].id;
    let bus = Arc::new(Doubtful { bus: app.bus.clone(), doubts: AtomicUsize::new(2), dead_letters: Mutex::default() });
    let cancel = CancellationToken::new();
    let relay = tokio::spawn(relay::run(app.store.clone(), bus, cancel.clone()));
    eventually("an empty outbox", async || app.store.outbox(1).await.unwrap().is_empty().then_some(())).await;
    let mut copies = Vec::new();
    while copies.len() < 3 {
        let records = tail.next(100).await.unwrap();
        copies.extend(records.iter().map(|r| Envelope::parse(&r.payload).unwrap().id));
    }
    assert_eq!(copies, [id; 3]);
    cancel.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn results_become_rows_and_poison_does_not_stop_them() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let poison = |payload: &[u8]| Record { key: id.to_string(), payload: payload.to_vec(), ..Record::default() };
    let wrong_type = Envelope::new(Message::ScenarioChanged { scenario_id: id }, Timestamp::now());
    let mut records = vec![poison(b"not json"), poison(br#"{"version": 9}"#)];
    records.extend((0..700).map(|n| result(id, n)));
    records.insert(350, poison(&serde_json::to_vec(&wrong_type).unwrap()));
    records.push(poison(&[0xff, 0xfe]));
    let count = i64::try_from(records.len()).unwrap();
    app.bus.publish(Topic::Results, records).await.unwrap();

    let cancel = CancellationToken::new();
    let inbox = tokio::spawn(inbox::run(app.store.clone(), app.bus.clone(), MAX_PREDICTION, cancel.clone()));
    eventually("the end of the topic", async || (offset(&app).await == count).then_some(())).await;
    assert_eq!(stored(&app, id).await, (0..700).collect::<Vec<_>>());
    let delivery = app.get(&format!("/scenario/{id}/delivery")).await.ok(200);
    let expected = json!({"decoded": 700, "stored": 700, "skipped": 0, "left_out": 0, "damaged": 0, "dropped": {"unreadable": 0},
        "inbox": {"frames": 0, "unreadable": 4}, "outbox": delivery["outbox"]});
    assert_eq!(delivery, expected);
    let metrics = app.get("/metrics").await;
    let dead = metrics.text().lines().find_map(|l| l.strip_prefix("framehook_inbox_dead_letters_total ")).unwrap();
    assert!(dead.parse::<u64>().unwrap() >= 4, "{dead}");
    assert!(metrics.text().contains(r#"framehook_inbox_lag{partition="0"}"#));

    // What comes later is read without waiting for a period.
    app.bus.publish(Topic::Results, vec![result(id, 700)]).await.unwrap();
    eventually("the new row", async || (stored(&app, id).await.len() == 701).then_some(())).await;
    cancel.cancel();
    inbox.await.unwrap();
}

/// From another release, or from somebody else who may write to the topic.
#[tokio::test]
async fn a_message_that_is_too_large_is_a_dead_letter_of_which_little_is_kept() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let padded = |frame, bytes: usize| {
        let mut record = result(id, frame);
        record.payload.resize(bytes, b' ');
        record
    };
    let most = MAX_PREDICTION + 1024;
    let records = vec![padded(0, most), padded(1, most + 1), padded(2, 5 << 20)];
    app.bus.publish(Topic::Results, records).await.unwrap();
    let bus = Doubtful { bus: app.bus.clone(), doubts: AtomicUsize::new(0), dead_letters: Mutex::default() };
    let bus = Arc::new(bus);
    let cancel = CancellationToken::new();
    let inbox = tokio::spawn(inbox::run(app.store.clone(), bus.clone(), MAX_PREDICTION, cancel.clone()));
    eventually("the end of the topic", async || (offset(&app).await == 3).then_some(())).await;
    assert_eq!(stored(&app, id).await, [0]);
    let delivery = app.get(&format!("/scenario/{id}/delivery")).await.ok(200);
    assert_eq!((&delivery["decoded"], &delivery["dropped"]), (&json!(3), &json!({"unreadable": 2})), "none vanished");
    let letters = std::mem::take(&mut *bus.dead_letters.lock().unwrap());
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|(payload, reason)| payload.len() == 64 << 10 && reason.contains("max_prediction_kib")));
    cancel.cancel();
    inbox.await.unwrap();
}

#[tokio::test]
async fn an_unreadable_frame_is_a_drop_until_it_comes_again() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    // JSON has no such number, so `null` is written, which is none.
    let mut broken = prediction(id, 2);
    broken.detections[0].score = f32::NAN;
    let broken = Envelope::new(Message::Result((&broken).into()), Timestamp::now());
    let broken = Record::try_from(&broken).unwrap();
    let foreign = Record { key: ScenarioId::generate().to_string(), ..broken.clone() };
    let cancel = CancellationToken::new();
    let inbox = tokio::spawn(inbox::run(app.store.clone(), app.bus.clone(), MAX_PREDICTION, cancel.clone()));
    for (record, (decoded, stored, unreadable)) in [
        (result(id, 0), (1, 1, 0)),
        (result(id, 1), (2, 2, 0)),
        (foreign, (2, 2, 0)),
        (broken.clone(), (3, 2, 1)),
        (broken, (3, 2, 1)),
        (result(id, 2), (3, 3, 0)),
    ] {
        app.bus.publish(Topic::Results, vec![record]).await.unwrap();
        let end = app.bus.end_offset(Topic::Results, 0).await.unwrap();
        eventually("the end of the topic", async || (offset(&app).await == end).then_some(())).await;
        let Delivery { decoded: d, stored: s, dropped, inbox, .. } = app.store.delivery(id).await.unwrap().unwrap();
        assert_eq!((d, s, dropped.unreadable, inbox), (decoded, stored, unreadable, InboxLag::default()));
    }
    cancel.cancel();
    inbox.await.unwrap();
}

#[tokio::test]
async fn an_inbox_that_ends_anywhere_goes_on_where_its_rows_end() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let mut published = 0;
    for round in 1..=10 {
        let cancel = CancellationToken::new();
        let inbox = tokio::spawn(inbox::run(app.store.clone(), app.bus.clone(), MAX_PREDICTION, cancel.clone()));
        let records: Vec<_> = (published..published + 100).map(|n| result(id, n)).collect();
        for some in records.chunks(10) {
            app.bus.publish(Topic::Results, some.to_vec()).await.unwrap();
        }
        published += 100;
        if round % 2 == 0 {
            // As a process that is killed: nothing is finished.
            inbox.abort();
            assert!(inbox.await.is_err_and(|e| e.is_cancelled()));
        } else {
            cancel.cancel();
            inbox.await.unwrap();
        }
        // A commit that was under way ends all the same, perhaps between the two reads.
        eventually("the offset to be that of the rows", async || {
            let offset = usize::try_from(offset(&app).await).unwrap();
            (stored(&app, id).await.len() == offset).then_some(())
        })
        .await;
    }
    let cancel = CancellationToken::new();
    let inbox = tokio::spawn(inbox::run(app.store.clone(), app.bus.clone(), MAX_PREDICTION, cancel.clone()));
    eventually("all rows", async || (stored(&app, id).await.len() == 1000).then_some(())).await;
    assert_eq!(stored(&app, id).await, (0..1000).collect::<Vec<_>>());
    cancel.cancel();
    inbox.await.unwrap();
}

#[tokio::test]
async fn an_inbox_whose_offset_was_moved_by_another_follows() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let cancel = CancellationToken::new();
    let inbox = tokio::spawn(inbox::run(app.store.clone(), app.bus.clone(), MAX_PREDICTION, cancel.clone()));
    app.bus.publish(Topic::Results, vec![result(id, 0)]).await.unwrap();
    eventually("the first row", async || (stored(&app, id).await == [0]).then_some(())).await;

    // Another consumer took record 1 before this one sees it.
    let (consumer, topic) = (inbox::CONSUMER.to_owned(), "results".to_owned());
    let rows = vec![(&prediction(id, 1)).into()];
    let batch = ResultBatch { consumer, topic, expected: 1, next: 2, rows, ..ResultBatch::default() };
    assert_eq!(app.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
    // Several batches: those behind the refused one may have been read by then, and must not be stored before
    // it.
    app.bus.publish(Topic::Results, (1..1200).map(|n| result(id, n)).collect()).await.unwrap();
    eventually("the other rows", async || (stored(&app, id).await.len() == 1200).then_some(())).await;
    assert_eq!(stored(&app, id).await, (0..1200).collect::<Vec<_>>());
    assert_eq!(offset(&app).await, 1200);
    cancel.cancel();
    inbox.await.unwrap();
}

#[tokio::test]
async fn two_inboxes_share_the_work_and_one_takes_over() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let start = || {
        let cancel = CancellationToken::new();
        (tokio::spawn(inbox::run(app.store.clone(), app.bus.clone(), MAX_PREDICTION, cancel.clone())), cancel)
    };
    let (first, first_cancel) = start();
    let (second, second_cancel) = start();
    app.bus.publish(Topic::Results, (0..50).map(|n| result(id, n)).collect()).await.unwrap();
    eventually("the rows", async || (stored(&app, id).await.len() == 50).then_some(())).await;
    first_cancel.cancel();
    first.await.unwrap();
    app.bus.publish(Topic::Results, (50..100).map(|n| result(id, n)).collect()).await.unwrap();
    eventually("the rest", async || (stored(&app, id).await.len() == 100).then_some(())).await;
    second_cancel.cancel();
    second.await.unwrap();
}

#[tokio::test]
async fn a_service_without_its_bus_is_ready_says_so_and_takes_scenarios() {
    let app = TestApp::stocked().await;
    let bus = Arc::new(Doubtful { bus: app.bus.clone(), doubts: AtomicUsize::new(1), dead_letters: Mutex::default() });
    let router = crate::app::router(app.config.clone(), app.store.clone(), bus.clone(), app.blobs.clone(), None);
    let app = TestApp { router, ..app };
    app.get("/healthz").await.ok(200);
    let ready = app.get("/readyz").await.ok(200);
    // What it says itself stays in the log.
    let bus_is = ready["bus"].as_str().unwrap();
    assert!(bus_is.contains("the message bus is not available") && !bus_is.contains("nobody answers"), "{ready}");
    app.scenario().await;
    bus.doubts.store(0, Ordering::SeqCst);
    assert_eq!(app.get("/readyz").await.ok(200)["bus"], Value::Null);
}
