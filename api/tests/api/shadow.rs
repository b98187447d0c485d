//! A scenario's shadow: taken with the scenario, and what it found, in pages and as lines.

use axum::{body::Body, http::Request};
use framehook_core::{ids::ScenarioId, shadow::ShadowFindings};
use serde_json::{Value, json};

use crate::app::{TestApp, smallest};

fn with_shadow(shadow: &Value) -> Value {
    let mut scenario = smallest();
    scenario["shadow"] = shadow.clone();
    scenario
}

/// What was found on `frames` frames, the last of which differ.
fn found(scenario_id: ScenarioId, first: u64, differences: u64, frames: u64) -> ShadowFindings {
    let last = first + differences;
    let difference = |frame: u64| {
        json!({"revision": 1, "pts_us": frame * 40_000, "frame": frame, "counts": {"added": 1},
            "added": [{"class_id": 2, "label": "car", "score": 0.5, "box": [0.1, 0.2, 0.3, 0.4]}]})
    };
    serde_json::from_value(json!({
        "scenario_id": scenario_id, "generation": 1, "first": first,
        "summary": {"revision": 1, "plugins": [], "compared": frames - 1, "equal": frames - 1 - last,
            "different": last, "counts": {"added": last}, "not_compared": 1, "starts": 1},
        "differences": (first..last).map(difference).collect::<Vec<_>>(),
    }))
    .unwrap()
}

#[tokio::test]
async fn a_shadow_is_resolved_and_judged_as_hooks_are() {
    let app = TestApp::stocked().await;
    let hook = |config: Value| json!({"post": [{"use": "yolo", "config": config}]});
    let view = app.init(&with_shadow(&hook(json!({})))).await.ok(200);
    let shadow = &view["resolved"]["shadow"];
    assert_eq!((&shadow[0]["name"], &shadow[0]["config"]), (&json!("yolo"), &json!({})), "{view:#}");
    let without = app.init(&smallest()).await.ok(200);
    assert!(without["resolved"]["shadow"].is_null() && without["spec"]["shadow"].is_null(), "{without:#}");
    let memory = |view: &Value| view["resolved"]["memory_mib"].as_u64().unwrap();
    assert!(memory(&view) > memory(&without) + 64, "{} {}", memory(&view), memory(&without));
    for (shadow, field) in [
        (json!({"post": []}), "shadow.post"),
        (json!({"post": [{"use": "none@1"}]}), "shadow.post[0].use"),
        (hook(json!({"min_score": 3})), "shadow.post[0].config.min_score"),
        (json!({"post": vec![json!({"use": "yolo"}); 17]}), "shadow.post"),
    ] {
        let answer = app.init(&with_shadow(&shadow)).await;
        assert_eq!(answer.status.as_u16(), 422, "{}", answer.text());
        let problem: Value = answer.json();
        assert!(problem["field"].as_str().unwrap().starts_with(field), "{problem:#}");
    }
    let pre = app.init(&with_shadow(&json!({"post": [{"use": "yolo"}], "pre": []}))).await;
    assert_eq!(pre.problem(422, "invalid_scenario")["field"], "shadow.pre");
}

#[tokio::test]
async fn what_a_shadow_found_is_read_in_pages_and_as_lines() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let uri = format!("/scenario/{id}/shadow");
    let nothing = json!({"summary": null, "items": [], "next_cursor": null});
    assert_eq!(app.get(&uri).await.ok(200), nothing);
    app.find(found(id, 0, 3, 10)).await;
    // Some between were too many at once.
    app.find(found(id, 7, 2, 20)).await;
    let page = app.get(&format!("{uri}?limit=3")).await.ok(200);
    let summary = &page["summary"];
    assert_eq!(
        (&summary["compared"], &summary["not_compared"], &summary["different"]),
        (&json!(19), &json!(1), &json!(9))
    );
    assert_eq!(
        (&summary["left_out"], &summary["generation"], &summary["counts"]["added"]),
        (&json!(4), &json!(1), &json!(9))
    );
    let frames = |page: &Value| -> Vec<u64> {
        page["items"].as_array().unwrap().iter().map(|item| item["frame"].as_u64().unwrap()).collect()
    };
    assert_eq!(frames(&page), [0, 1, 2]);
    assert_eq!(page["items"][1]["added"][0]["label"], "car");
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = app.get(&format!("{uri}?limit=3&cursor={cursor}")).await.ok(200);
    assert_eq!((frames(&rest), &rest["next_cursor"], &rest["summary"]), (vec![7, 8], &Value::Null, summary));

    let request = Request::get(format!("{uri}?limit=4")).header("Accept", "application/x-ndjson");
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    let text = answer.text();
    assert_eq!((answer.headers["content-type"].to_str().unwrap(), text.lines().count()), ("application/x-ndjson", 4));
    assert_eq!(serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap(), page["items"][0]);

    for (query, field) in [("limit=0", "limit"), ("cursor=l0000000000000001", "cursor"), ("follow=true", "follow")] {
        let problem = app.get(&format!("{uri}?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], field, "{problem}");
    }
    app.get(&format!("/scenario/{}/shadow", ScenarioId::generate())).await.problem(404, "scenario_not_found");
}

#[tokio::test]
async fn a_shadow_takes_the_place_of_the_hooks() {
    let app = TestApp::stocked().await;
    let hook = |label: &str| json!({"use": "yolo", "config": {"labels": [label]}});
    let mut scenario = with_shadow(&json!({"post": [hook("b")]}));
    scenario["plugins"] = json!({"post": [hook("a")]});
    let id = app.init(&scenario).await.ok(200)["id"].as_str().unwrap().to_owned();
    let promote = async |revision: &str| {
        let request = Request::post(format!("/scenario/{id}/shadow/promote")).header("If-Match", revision);
        app.send(request.body(Body::empty()).unwrap()).await
    };
    app.post(&format!("/scenario/{id}/shadow/promote"), "").await.problem(428, "precondition_required");
    promote("\"7\"").await.problem(412, "revision_conflict");
    let view = promote("\"1\"").await.ok(200);
    assert_eq!(view["revision"], 2);
    assert_eq!(view["resolved"]["post"][0]["config"], json!({"labels": ["b"]}));
    assert!(view["resolved"]["shadow"].is_null() && view["spec"]["shadow"].is_null(), "{view:#}");
    assert_eq!(view["spec"]["plugins"]["post"][0]["use"], "yolo@1.0.0");
    assert_eq!(promote("\"2\"").await.problem(422, "not_changeable")["field"], "shadow");
}
