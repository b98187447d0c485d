//! What scenarios log: from the bus into the store, and out of it in pages, as lines, and as lines that go
//! on.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use framehook_api::inbox;
use framehook_core::{
    ids::{Generation, ScenarioId},
    message::{Envelope, Message},
    planner::Action,
    scenario_log::LoggedLines,
    size::MAX_PREDICTION,
    state::ScenarioState,
    topic::Topic,
};
use framehook_infra::bus::Record;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::app::{TestApp, eventually};

/// Lines `first..` of a deployment: level, plugin and message of each.
fn logged(scenario_id: ScenarioId, generation: Generation, first: u64, lines: &[(&str, &str, &str)]) -> LoggedLines {
    let line = |(level, plugin, message): &(&str, &str, &str)| {
        serde_json::from_value(json!({"at": "2026-11-27T03:04:05.678Z", "frame": 7, "level": level, "plugin": plugin,
            "target": "t", "message": message, "fields": {"zone": "door"}}))
        .unwrap()
    };
    LoggedLines { scenario_id, generation, first, lines: lines.iter().map(line).collect() }
}

fn record(logged: LoggedLines) -> Record {
    Record::try_from(&Envelope::new(Message::Logged(logged), Timestamp::now())).unwrap()
}

const LINES: [(&str, &str, &str); 5] = [
    ("info", "yolo@0.1.0", "one"),
    ("warn", "yolo@0.2.0", "two"),
    ("debug", "yolo-face@0.1.0", "three"),
    ("error", "framehook", "four"),
    ("info", "yolo@0.1.0", "five"),
];

fn messages(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap()).collect()
}

async fn with_lines() -> (TestApp, ScenarioId) {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    app.log(vec![logged(id, 1, 0, &LINES)]).await;
    (app, id)
}

#[tokio::test]
async fn pages_are_filtered_by_plugin_and_level() {
    let (app, id) = with_lines().await;
    let uri = format!("/scenario/{id}/logs");
    let page = app.get(&uri).await.ok(200);
    assert_eq!(
        page["items"][1],
        json!({"sequence": 2, "generation": 1, "at": "2026-11-27T03:04:05.678Z", "frame": 7,
        "level": "warn", "plugin": "yolo@0.2.0", "target": "t", "message": "two", "fields": {"zone": "door"}})
    );
    for (query, expected) in [
        ("", &["one", "two", "three", "four", "five"][..]),
        ("plugin=yolo", &["one", "two", "five"]),
        ("plugin=yolo@0.2.0", &["two"]),
        ("plugin=framehook", &["four"]),
        ("level=trace", &["one", "two", "three", "four", "five"]),
        ("level=info", &["one", "two", "four", "five"]),
        ("level=warn", &["two", "four"]),
        ("level=warn&plugin=yolo", &["two"]),
        ("follow=false&level=error", &["four"]),
    ] {
        assert_eq!(messages(&app.get(&format!("{uri}?{query}")).await.ok(200)), expected, "{query}");
    }
    let first = app.get(&format!("{uri}?limit=2&plugin=yolo")).await.ok(200);
    assert_eq!(messages(&first), ["one", "two"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app.get(&format!("{uri}?limit=2&plugin=yolo&cursor={cursor}")).await.ok(200);
    assert_eq!((messages(&second), &second["next_cursor"]), (vec!["five"], &Value::Null));

    let request = Request::get(format!("{uri}?limit=3")).header("Accept", "application/x-ndjson");
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (answer.headers["content-type"].to_str().unwrap(), answer.text().lines().count()),
        ("application/x-ndjson", 3)
    );
    assert_eq!(serde_json::from_str::<Value>(answer.text().lines().nth(1).unwrap()).unwrap(), page["items"][1]);
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let (app, id) = with_lines().await;
    let uri = format!("/scenario/{id}/logs");
    for (query, field) in [
        ("levels=info", "levels"),
        ("level=loud", "level"),
        ("plugin=yol", "plugin"),
        ("plugin=yolo@0.2", "plugin"),
        ("follow=1", "follow"),
        ("limit=0", "limit"),
        ("follow=true&limit=1001", "limit"),
        ("cursor=h0000000000000001", "cursor"),
    ] {
        let problem = app.get(&format!("{uri}?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], field, "{problem}");
    }
    let request = Request::get(&uri).header("Accept", "text/html").body(Body::empty()).unwrap();
    app.send(request).await.problem(406, "not_acceptable");
    for query in ["", "?follow=true"] {
        let unknown = format!("/scenario/{}/logs{query}", ScenarioId::generate());
        app.get(&unknown).await.problem(404, "scenario_not_found");
    }
    app.call("DELETE", &format!("/scenario/{id}")).await.ok(204);
    app.get(&uri).await.problem(404, "scenario_not_found");
}

#[tokio::test]
async fn lines_come_from_the_bus_once_each_and_poison_does_not_stop_them() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let poison = Record { key: id.to_string(), payload: b"not json".to_vec(), ..Record::default() };
    let large = logged(id, 1, 9, &[("info", "p@1", &"x".repeat(2 << 20))]);
    let again = record(logged(id, 1, 0, &LINES[..3]));
    let records = vec![again.clone(), poison, again, record(large), record(logged(id, 1, 3, &LINES[3..]))];
    app.bus.publish(Topic::ScenarioLogs, records).await.unwrap();
    let cancel = CancellationToken::new();
    let inbox = tokio::spawn(inbox::run(app.store.clone(), app.bus.clone(), MAX_PREDICTION, cancel.clone()));
    let uri = format!("/scenario/{id}/logs");
    let page = eventually("all lines", async || {
        let page = app.get(&uri).await.ok(200);
        (page["items"].as_array().unwrap().len() >= LINES.len()).then_some(page)
    })
    .await;
    assert_eq!(messages(&page), LINES.map(|(.., message)| message));
    let delivery = app.get(&format!("/scenario/{id}/delivery")).await.ok(200);
    assert_eq!(delivery["inbox"], json!({"frames": 0, "unreadable": 0}), "a line is no frame");
    cancel.cancel();
    inbox.await.unwrap();
}

/// The body of an answer that goes on.
async fn follow(app: &TestApp, uri: &str) -> BodyDataStream {
    let request = Request::get(uri).header("host", "localhost").header("accept-encoding", "gzip");
    let response = app.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    assert!(!response.headers().contains_key("content-encoding"), "a line would wait for the next ones");
    response.into_body().into_data_stream()
}

/// The messages of the lines that come next; none at the end.
async fn next(body: &mut BodyDataStream) -> Vec<String> {
    let piece = tokio::time::timeout(Duration::from_secs(60), body.next()).await.expect("in time");
    let piece = piece.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap()).unwrap_or_default();
    let lines = piece.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn who_follows_gets_the_lines_so_far_and_then_new_ones_until_the_end() {
    let (app, id) = with_lines().await;
    let uri = format!("/scenario/{id}/logs?follow=true");
    let mut all = follow(&app, &uri).await;
    let mut loud = follow(&app, &format!("{uri}&level=warn")).await;
    let mut two = follow(&app, &format!("{uri}&limit=2")).await;
    assert_eq!(next(&mut all).await, LINES.map(|(.., message)| message));
    assert_eq!(next(&mut loud).await, ["two", "four"]);
    assert_eq!((next(&mut two).await, next(&mut two).await), (vec!["one".to_owned(), "two".to_owned()], vec![]));
    app.log(vec![logged(id, 1, 5, &[("info", "p@1", "six"), ("warn", "p@1", "seven")])]).await;
    assert_eq!(next(&mut all).await, ["six", "seven"]);
    assert_eq!(next(&mut loud).await, ["seven"]);

    let long = Duration::from_secs(3600);
    let epoch = app.store.lead(Uuid::now_v7(), true, long, long).await.unwrap().unwrap();
    let (from, to) = (ScenarioState::Pending, ScenarioState::Stopped);
    app.store.apply(epoch, &Action::MoveScenario { scenario_id: id, from, to, reason: None }).await.unwrap();
    app.log(vec![logged(id, 1, 7, &[("info", "p@1", "last")])]).await;
    assert_eq!(next(&mut all).await, ["last"]);
    assert_eq!(next(&mut all).await, [""; 0]);
    assert_eq!(next(&mut loud).await, [""; 0]);
}

#[tokio::test]
async fn a_deleted_scenario_is_followed_no_longer_and_there_is_room_for_so_many() {
    let (app, id) = with_lines().await;
    let uri = format!("/scenario/{id}/logs?follow=true");
    let mut followers = Vec::new();
    for _ in 0..64 {
        let mut body = follow(&app, &uri).await;
        assert_eq!(next(&mut body).await.len(), LINES.len());
        followers.push(body);
    }
    let problem = app.get(&uri).await.problem(429, "too_busy");
    assert!(problem["detail"].as_str().unwrap().contains("64 requests"), "{problem}");
    // One goes, and another comes in its place.
    followers.pop();
    followers.push(follow(&app, &uri).await);
    app.call("DELETE", &format!("/scenario/{id}")).await.ok(204);
    assert_eq!(next(&mut followers[0]).await, [""; 0]);
}
