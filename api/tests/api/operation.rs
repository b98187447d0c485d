use std::{collections::BTreeMap, time::Duration};

use framehook_core::{
    execution::{Precision, Provider, ProviderStatus},
    ids::{Incarnation, RunnerId, ScenarioId},
    message::{Confinement, Progress, RunnerStatus},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{TestApp, eventually};

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let app = TestApp::new().await;
    let problem = app.get("/nothing").await.problem(404, "route_not_found");
    assert!(problem["detail"].as_str().unwrap().contains("/nothing"));
    let answer = app.call("PUT", "/scenario").await;
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.headers["allow"], "GET,HEAD");
    app.call("DELETE", "/healthz").await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn health_runners_and_metrics() {
    let app = TestApp::stocked().await;
    assert_eq!(app.get("/healthz").await.ok(200)["status"], "ok");
    assert_eq!(app.get("/readyz").await.ok(200), json!({"status": "ready", "runners_alive": 0}));
    assert_eq!(app.get("/runner").await.ok(200)["items"], json!([]));

    let second = Duration::from_secs(60);
    let epoch = app.store.lead(Uuid::new_v4(), true, second, second).await.unwrap().unwrap();
    let mut status = RunnerStatus {
        runner_id: RunnerId("r1".into()),
        incarnation: Incarnation::generate(),
        sequence: 1,
        capacity: 4,
        memory_mib: Some(3000),
        draining: false,
        version: "0.1.0".into(),
        labels: BTreeMap::from([("site".into(), "north".into())]),
        confinement: vec![Confinement { name: "files".into(), on: false, why: "no Landlock".into() }],
        providers: vec![ProviderStatus {
            provider: Provider::Openvino,
            precisions: vec![Precision::F32],
            why: "1.24".into(),
        }],
        workers: vec![],
    };
    app.store.record_heartbeats(epoch, std::slice::from_ref(&status), 0, second).await.unwrap();
    let runner = &app.get("/runner").await.ok(200)["items"][0];
    assert_eq!((&runner["id"], &runner["alive"], &runner["capacity"]), (&json!("r1"), &json!(true), &json!(4)));
    assert_eq!(app.get("/readyz").await.ok(200)["runners_alive"], 1);
    let one = app.get("/runner/r1").await.ok(200);
    assert_eq!(&one, runner);
    assert_eq!(
        (&one["free"], &one["labels"], &one["version"]),
        (&json!(4), &json!({"site": "north"}), &json!("0.1.0"))
    );
    assert_eq!(one["confinement"], json!([{"name": "files", "on": false, "why": "no Landlock"}]));
    assert_eq!(one["providers"], json!([{"provider": "openvino", "precisions": ["f32"], "why": "1.24"}]));
    let problem = app.get("/runner/r%2F2").await.problem(404, "runner_not_found");
    assert!(problem["detail"].as_str().unwrap().contains("`r/2`"), "{problem}");

    let id = ScenarioId::generate();
    let worker = |phase| json!({"scenario_id": id, "generation": 1, "phase": phase, "attempt": 0, "progress": Progress::default()});
    for (phase, draining, free) in [("running", false, 3), ("finished", false, 4), ("finished", true, 0)] {
        status.sequence += 1;
        (status.workers, status.draining) = (vec![serde_json::from_value(worker(phase)).unwrap()], draining);
        app.store.record_heartbeats(epoch, std::slice::from_ref(&status), 0, second).await.unwrap();
        assert_eq!(app.get("/runner/r1").await.ok(200)["free"], free, "{phase}, draining: {draining}");
    }

    app.scenario().await;
    app.get("/scenario/not-an-id").await;
    let text = app.get("/metrics").await;
    for line in [
        r#"framehook_scenarios{state="pending"} 1"#,
        r#"framehook_runners{state="alive"} 1"#,
        "framehook_outbox_messages 1",
        "framehook_outbox_oldest_age_seconds",
        r#"framehook_uploads_total{kind="model",outcome="created"}"#,
        r#"framehook_http_requests_total{method="GET",route="/scenario/{id}",status="400"}"#,
        r#"framehook_http_request_duration_seconds_bucket{le="0.0005",method="GET",route="/healthz"}"#,
        "# EOF",
    ] {
        assert!(text.text().contains(line), "{line} is not in\n{}", text.text());
    }
}

#[tokio::test]
async fn the_server_answers_over_tcp_and_ends_when_told() {
    let app = TestApp::stocked().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let cancel = CancellationToken::new();
    let (store, bus, blobs) = (app.store.clone(), app.bus.clone(), app.blobs.clone());
    let draining = framehook_api::App::new(app.config.clone(), store, bus, blobs, None, cancel.clone());
    let server = tokio::spawn(framehook_api::serve(draining, listener));
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // A client that goes away in the middle of its upload leaves nothing.
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection
        .write_all(b"POST /video?name=gone HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        .await
        .unwrap();
    let before = 4;
    eventually("the upload's beginning", async || (app.blob_files() == before + 1).then_some(())).await;
    drop(connection);
    eventually("the upload's end", async || (app.blob_files() == before).then_some(())).await;

    cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), server).await.expect("it ends");
    ended.unwrap();
}
