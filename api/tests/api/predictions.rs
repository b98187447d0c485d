use axum::{body::Body, http::Request};
use framehook_core::{
    ids::ScenarioId,
    prediction::{Attribute, Prediction},
};
use serde_json::{Value, json};

use crate::app::{TestApp, prediction};

async fn with_frames(frames: u64) -> (TestApp, ScenarioId) {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    app.store((0..frames).map(|n| prediction(id, n)).collect()).await;
    (app, id)
}

fn frames(page: &Value) -> Vec<u64> {
    page["items"].as_array().unwrap().iter().map(|p| p["frame"].as_u64().unwrap()).collect()
}

/// All frames, page by page.
async fn walk(app: &TestApp, uri: &str) -> Vec<u64> {
    let mut all = Vec::new();
    let mut page = app.get(uri).await.ok(200);
    loop {
        all.extend(frames(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { return all };
        page = app.get(&format!("{uri}&cursor={cursor}")).await.ok(200);
    }
}

async fn lines(app: &TestApp, uri: &str) -> Vec<Prediction> {
    let request = Request::get(uri).header("Accept", "application/x-ndjson").body(Body::empty()).unwrap();
    let answer = app.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn pages_come_in_order_and_miss_nothing() {
    let (app, id) = with_frames(1203).await;
    let uri = format!("/prediction/{id}");
    let first = app.get(&uri).await.ok(200);
    assert_eq!(frames(&first), (0..100).collect::<Vec<_>>());
    let one: Prediction = serde_json::from_value(first["items"][3].clone()).unwrap();
    assert_eq!(one, prediction(id, 3));
    for limit in [7, 500, 1000] {
        assert_eq!(walk(&app, &format!("{uri}?limit={limit}")).await, (0..1203).collect::<Vec<_>>(), "{limit}");
    }
    let exact = app.get(&format!("{uri}?from_us=40000&until_us=160000&limit=3")).await.ok(200);
    assert_eq!(frames(&exact), [1, 2, 3]);
    assert_eq!(exact["next_cursor"], Value::Null);
    assert_eq!(frames(&app.get(&format!("{uri}?from_us=40000&until_us=40000")).await.ok(200)), [0; 0]);
    for route in [uri.clone(), format!("{uri}/export")] {
        let problem = app.get(&format!("{route}?from_us=40001&until_us=40000")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], "until_us", "{problem}");
    }
    assert_eq!(app.get(&format!("/scenario/{id}")).await.ok(200)["progress"]["frames"], 1203);
}

/// A row of the release before, which had no limit.
fn large(id: ScenarioId, frame: u64) -> Prediction {
    let attributes = [("text".to_owned(), Attribute::Text("x".repeat(5 << 20)))].into();
    let mut prediction = prediction(id, frame);
    prediction.events[0].attributes = attributes;
    prediction
}

#[tokio::test]
async fn a_page_has_room_for_so_many_bytes() {
    let (mut app, id) = with_frames(10).await;
    let size = |frame| serde_json::to_string(&prediction(id, frame)).unwrap().len() as u64;
    let (three, uri) = (size(0) + size(1) + size(2), format!("/prediction/{id}"));
    for (page_bytes, expected) in [(three, vec![0, 1, 2]), (three - 1, vec![0, 1]), (1, vec![0])] {
        app = app.with(|config| config.limits.page_bytes = page_bytes);
        assert_eq!(frames(&app.get(&uri).await.ok(200)), expected);
        assert_eq!(walk(&app, &format!("{uri}?limit=1000")).await, (0..10).collect::<Vec<_>>());
        assert_eq!(walk(&app, &format!("{uri}?label=person")).await, [0, 2, 4, 6, 8]);
    }
}

#[tokio::test]
async fn rows_of_any_size_can_be_read() {
    let (app, id) = with_frames(0).await;
    for frame in 0..4 {
        app.store(vec![large(id, frame)]).await;
    }
    let uri = format!("/prediction/{id}");
    let first = app.get(&uri).await;
    assert!(first.body.len() < 8 << 20, "{}", first.body.len());
    assert_eq!(frames(&first.ok(200)), [0]);
    assert_eq!(walk(&app, &format!("{uri}?limit=1000")).await, [0, 1, 2, 3]);
    assert_eq!(lines(&app, &uri).await.len(), 4);
}

#[tokio::test]
async fn filters_keep_matching_detections_and_their_events() {
    let (app, id) = with_frames(1001).await;
    let uri = format!("/prediction/{id}");
    let even: Vec<_> = (0..1001).step_by(2).collect();
    assert_eq!(walk(&app, &format!("{uri}?label=person&limit=33")).await, even);
    assert_eq!(walk(&app, &format!("{uri}?label=person&min_score=0.6&limit=10")).await, Vec::<u64>::new());
    assert_eq!(walk(&app, &format!("{uri}?min_score=0.6&limit=1000")).await.len(), 1001);

    let page = app.get(&format!("{uri}?label=car&limit=1")).await.ok(200);
    let detections = page["items"][0]["detections"].as_array().unwrap();
    assert_eq!((detections.len(), &detections[0]["label"]), (1, &json!("car")));
    // The car was the second of two; the event that named both names the one that is left by its new place.
    assert_eq!(page["items"][0]["events"][0]["subjects"], json!([0]));
}

#[tokio::test]
async fn events_are_asked_for_by_kind() {
    let (app, id) = with_frames(0).await;
    let row = |frame: u64| {
        let mut row = prediction(id, frame);
        row.events[0].kind = if frame.is_multiple_of(5) { "line_crossed" } else { "dwell" }.into();
        row
    };
    app.store((0..40).map(row).collect()).await;
    let uri = format!("/prediction/{id}");
    let crossed: Vec<_> = (0..40).step_by(5).collect();
    assert_eq!(walk(&app, &format!("{uri}?event=line_crossed&limit=3")).await, crossed);
    assert_eq!(walk(&app, &format!("{uri}?event=LINE_CROSSED")).await, Vec::<u64>::new());
    // Nothing else is left out of a frame in the answer.
    let page = app.get(&format!("{uri}?event=line_crossed&limit=1")).await.ok(200);
    let one: Prediction = serde_json::from_value(page["items"][0].clone()).unwrap();
    assert_eq!(one, row(0));
    // Filters narrow together.
    assert_eq!(walk(&app, &format!("{uri}?event=line_crossed&label=person")).await, [0, 10, 20, 30]);
    let exported = app.get(&format!("{uri}/export?event=line_crossed")).await;
    let frames = exported.text().lines().map(|line| serde_json::from_str::<Prediction>(line).unwrap().frame);
    assert_eq!(frames.collect::<Vec<_>>(), crossed);
}

#[tokio::test]
async fn an_answer_has_a_format_that_the_client_takes() {
    let (app, id) = with_frames(2).await;
    let uri = format!("/prediction/{id}");
    let with =
        async |accept: &str| app.send(Request::get(&uri).header("Accept", accept).body(Body::empty()).unwrap()).await;
    for taken in ["*/*", "application/json", "text/csv, */*;q=0.1", "application/*", "application/x-ndjson", ""] {
        let answer = with(taken).await;
        assert_eq!(answer.status, 200, "{taken}");
        assert!(answer.headers.get_all("vary").iter().any(|by| by == "accept"), "{taken}: {:?}", answer.headers);
    }
    let problem = app.get(&format!("{uri}?min_score=2")).await.problem(400, "invalid_parameter");
    assert_eq!(problem["detail"], "`min_score` is 2; expected 0 to 1");
    let problem = with("text/csv").await.problem(406, "not_acceptable");
    assert!(problem["detail"].as_str().unwrap().contains("application/x-ndjson"), "{problem}");
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_ask() {
    let (app, id) = with_frames(1203).await;
    for path in ["", "/export"] {
        let uri = format!("/prediction/{id}{path}");
        let plain = app.get(&uri).await;
        assert!(!plain.headers.contains_key("content-encoding"));
        let request = Request::get(&uri).header("Accept-Encoding", "gzip").body(Body::empty()).unwrap();
        let packed = app.send(request).await;
        assert_eq!(packed.headers["content-encoding"], "gzip", "{path}");
        assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() * 5 < plain.body.len(), "{path}");
    }
    // What is small stays as it is.
    let request = Request::get("/healthz").header("Accept-Encoding", "gzip").body(Body::empty()).unwrap();
    assert!(!app.send(request).await.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn a_stream_has_everything() {
    let (app, id) = with_frames(1203).await;
    let uri = format!("/prediction/{id}");
    let all = lines(&app, &uri).await;
    assert_eq!(all, (0..1203).map(|n| prediction(id, n)).collect::<Vec<_>>());
    assert_eq!(lines(&app, &format!("{uri}?label=person")).await.len(), 602);
    assert_eq!(lines(&app, &format!("{uri}?from_us=40000&limit=600")).await.last().unwrap().frame, 600);
    let nothing = app.scenario().await;
    assert_eq!(lines(&app, &format!("/prediction/{nothing}")).await, vec![]);
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let (app, id) = with_frames(0).await;
    for (query, field) in [
        ("cursor=s1", "cursor"),
        ("limit=0", "limit"),
        ("from_us=now", "from_us"),
        ("min_score=2", "min_score"),
        ("min_score=NaN", "min_score"),
        ("class=1", "class"),
    ] {
        let problem = app.get(&format!("/prediction/{id}?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], field, "{problem}");
    }
    let nobody = ScenarioId::generate();
    app.get(&format!("/prediction/{nobody}")).await.problem(404, "scenario_not_found");
}
