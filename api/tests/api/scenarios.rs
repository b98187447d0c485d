use std::time::Duration;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::app::{Answer, TestApp, model, smallest, video};

async fn init_with_key(app: &TestApp, key: &str, body: &str) -> Answer {
    let request = Request::post("/scenario/init").header("Idempotency-Key", key);
    app.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn a_scenario_is_created_read_and_listed() {
    let app = TestApp::stocked().await;
    let spec = json!({
        "name": "crossing", "source": {"video": "v"}, "model": "m",
        "plugins": {"pre": [{"use": "gate"}], "post": [{"use": "yolo@1.0.0", "config": {"min_score": 0.3}}]},
        "input": {"pad": 9}, "labels": {"site": "north"}, "placement": {"gpu": "true"}
    });
    let view = app.init(&spec).await.ok(200);
    assert_eq!(view["state"], "pending");
    assert_eq!(view["desired"], "running");
    assert_eq!(view["name"], "crossing");
    assert_eq!(view["spec"]["placement"], json!({"gpu": "true"}));
    assert_eq!(view["resolved"]["source"]["video"]["version"], "1");
    // The scenario's pad wins over the plugin's, the plugin's scale over the default, the model fixes the
    // size.
    let input = &view["resolved"]["input"];
    assert_eq!((&input["pad"], &input["scale"], &input["width"]), (&json!(9), &json!(1.0), &json!(64)));
    assert_eq!(view["resolved"]["post"][0]["config"], json!({"min_score": 0.3}));
    for absent in ["reason", "retry_at", "runner", "fps", "timings"] {
        assert_eq!(view[absent], Value::Null, "{absent}");
    }
    assert_eq!(view["progress"], json!({"frames": 0, "frames_total": null, "percent": null, "published": 0}));

    let id = view["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("/scenario/{id}")).await.ok(200), view);
    let history = app.get(&format!("/scenario/{id}/history")).await.ok(200);
    assert_eq!(history["items"][0]["from"], Value::Null);
    assert_eq!(history["items"][0]["to"], "pending");
    let outbox = app.store.outbox(10).await.unwrap();
    assert_eq!(outbox.len(), 1);
}

#[tokio::test]
async fn a_check_says_what_would_run_and_creates_nothing() {
    let app = TestApp::stocked().await;
    let checked = app.post("/scenario/check", smallest().to_string()).await.ok(200);
    assert_eq!(checked["resolved"]["model"]["name"], "m");
    app.post("/scenario/check", r#"{"model": "m"}"#).await.problem(422, "invalid_scenario");
    assert_eq!(app.get("/scenario").await.ok(200)["items"], json!([]));
}

#[tokio::test]
async fn the_trace_of_the_request_goes_with_the_wake_up() {
    let app = TestApp::stocked().await;
    let trace = format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16));
    let request = Request::post("/scenario/init").header("traceparent", &trace);
    app.send(request.body(Body::from(smallest().to_string())).unwrap()).await.ok(200);
    assert_eq!(app.store.outbox(1).await.unwrap()[0].traceparent, Some(trace));
}

#[tokio::test]
async fn a_wrong_body_is_a_clear_problem() {
    let app = TestApp::stocked().await;
    for (body, status, code, field, words) in [
        ("not json", 400, "invalid_json", Value::Null, "line 1 column"),
        ("", 400, "invalid_json", Value::Null, "empty"),
        (r#"{"source": {"video": "v"}}"#, 422, "invalid_scenario", "model".into(), "missing field"),
        (r#"{"source": {"video": "v"}, "model": 1}"#, 422, "invalid_scenario", "model".into(), "expected a string"),
        (
            r#"{"source": {"video": "v"}, "model": "m", "modle": 1}"#,
            422,
            "invalid_scenario",
            "modle".into(),
            "unknown field",
        ),
    ] {
        let problem = app.post("/scenario/init", body).await.problem(status, code);
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(1 << 20));
    let problem = app.post("/scenario/init", large.clone()).await.problem(413, "upload_too_large");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("1048576 bytes") && detail.contains("`max_configs_kib`"), "{detail}");
    // The limit follows the setting.
    let app = app.with(|config| config.limits.configs_bytes = 1 << 20);
    app.post("/scenario/init", large).await.problem(422, "invalid_scenario");
}

#[tokio::test]
async fn a_query_parameter_that_a_route_does_not_have_is_refused() {
    let app = TestApp::stocked().await;
    let id = app.post("/scenario/init", smallest().to_string()).await.ok(200)["id"].as_str().unwrap().to_owned();
    let of_scenario = format!("/scenario/{id}");
    let part = |part: &str| format!("{of_scenario}/{part}");
    for (method, path) in [
        ("POST", "/scenario/init"),
        ("POST", "/scenario/check"),
        ("GET", &of_scenario),
        ("GET", &part("delivery")),
        ("GET", &part("plugins")),
        ("POST", &part("stop")),
        ("POST", &part("start")),
        ("DELETE", &of_scenario),
        ("GET", "/runner/r"),
        ("GET", "/model/m/1"),
        ("DELETE", "/model/m/1"),
    ] {
        let problem = app.call(method, &format!("{path}?limit=1")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], "limit", "{method} {path}: {problem}");
    }
    assert_eq!(app.get(&of_scenario).await.ok(200)["desired"], "running");
}

#[tokio::test]
async fn where_everything_was_deleted_nothing_is_said_to_have_never_been() {
    let app = TestApp::new().await;
    app.upload("/model?name=m", &model(&[1, 3, 32, 64])).await.ok(201);
    app.call("DELETE", "/model/m/1").await.ok(204);
    let problem = app.post("/scenario/init", smallest().to_string()).await.problem(422, "unknown_video");
    let model = problem["errors"].as_array().unwrap().iter().find(|error| error["field"] == "model").unwrap();
    assert_eq!(model["message"], "there is no model `m@1`; there is none now, see POST /model");
}

#[tokio::test]
async fn what_does_not_exist_or_fit_is_named_with_its_field() {
    let app = TestApp::stocked().await;
    app.upload("/model?name=open", &model(&[1, 3, -1, -1])).await.ok(201);
    let post =
        |hook: Value| json!({"source": {"video": "v"}, "model": "m", "plugins": {"post": [{"use": "yolo"}, hook]}});
    for (spec, code, field, words) in [
        (json!({"source": {"video": "v"}, "model": "none"}), "unknown_model", "model", "`m@1`"),
        (json!({"source": {"video": "v@2"}, "model": "m"}), "unknown_video", "source.video", "`v@1`"),
        (post(json!({"use": "none@1"})), "unknown_plugin", "plugins.post[1].use", "`gate@1.0.0`, `yolo@1.0.0`"),
        (post(json!({"use": "gate"})), "plugin_hook_mismatch", "plugins.post[1].use", "plugins.pre"),
        (
            post(json!({"use": "yolo", "config": {"min_score": 3}})),
            "invalid_plugin_config",
            "plugins.post[1].config.min_score",
            "maximum",
        ),
        (
            post(json!({"use": "yolo", "config": {"labels": ["a", "refuse"]}})),
            "invalid_plugin_config",
            "plugins.post[1].config.labels[1]",
            "refused by the plugin",
        ),
        (
            post(json!({"use": "yolo", "config": {"labels": ["trap"]}})),
            "invalid_plugin_config",
            "plugins.post[1].config",
            "signal: 9",
        ),
        (
            json!({"source": {"video": "v"}, "model": "m", "input": {"size": [100, 100]}}),
            "model_input_mismatch",
            "input.size",
            "fixed to 64",
        ),
        (json!({"source": {"video": "v"}, "model": "open"}), "model_input_mismatch", "input.size", "give `input.size`"),
        (json!({"source": {"file": "/etc/hostname"}, "model": "m"}), "source_not_allowed", "source.file", "/videos"),
        (json!({"source": {"file": "v.mp4"}, "model": "m"}), "invalid_scenario", "source.file", "absolute"),
        (json!({"name": "n".repeat(201), "source": {"video": "v"}, "model": "m"}), "invalid_scenario", "name", "200"),
        (json!({"source": {"video": "v"}, "model": "m", "labels": {"": "x"}}), "invalid_scenario", "labels", "1 to 63"),
        (
            json!({"source": {"video": "v"}, "model": "m", "placement": {"gpu": "x".repeat(256)}}),
            "invalid_scenario",
            "placement",
            "at most 255",
        ),
        (
            json!({"source": {"video": "v"}, "model": "m", "plugins": {"pre": vec![json!({"use": "gate"}); 17]}}),
            "invalid_scenario",
            "plugins.pre",
            "at most 16",
        ),
    ] {
        let problem = app.init(&spec).await.problem(422, code);
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    assert_eq!(app.get("/scenario").await.ok(200)["items"], json!([]), "nothing was created");
}

#[tokio::test]
async fn everything_wrong_is_reported_at_once() {
    let app = TestApp::stocked().await;
    let spec =
        json!({"source": {"video": "x"}, "model": "y", "plugins": {"pre": [{"use": "yolo"}], "post": [{"use": "z"}]}});
    let problem = app.init(&spec).await.problem(422, "unknown_video");
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["source.video", "model", "plugins.pre[0].use", "plugins.post[0].use"]);
    assert_eq!(problem["field"], "source.video");
}

#[tokio::test]
async fn a_file_of_an_allowed_folder_is_probed_and_used() {
    let app = TestApp::stocked().await;
    let folder = &app.config.source_dirs[0];
    std::fs::write(folder.join("good.mp4"), video(10).to_string()).unwrap();
    let bad = json!({"findings": [{"code": "no_frame", "message": "it holds no picture"}]});
    std::fs::write(folder.join("bad.mp4"), bad.to_string()).unwrap();
    let spec = |name: &str| json!({"source": {"file": folder.join(name)}, "model": "m"});
    let view = app.init(&spec("good.mp4")).await.ok(200);
    assert_eq!(view["resolved"]["source"]["file"], json!(folder.canonicalize().unwrap().join("good.mp4")));
    let problem = app.init(&spec("bad.mp4")).await.problem(422, "invalid_video");
    assert_eq!(problem["field"], "source.file");
    assert!(problem["detail"].as_str().unwrap().contains("no picture"));
    let problem = app.init(&spec("none.mp4")).await.problem(422, "invalid_scenario");
    assert_eq!(problem["field"], "source.file");
}

#[tokio::test]
async fn an_idempotency_key_makes_one_scenario() {
    let app = TestApp::stocked().await;
    let first = init_with_key(&app, "k-1", r#"{"source": {"video": "v"}, "model": "m"}"#).await.ok(200);
    // The same request, whatever its blanks and the order of its keys.
    let again = init_with_key(&app, "k-1", r#"{"model":"m","source":{"video":"v"}}"#).await.ok(200);
    assert_eq!(first["id"], again["id"]);
    let other = init_with_key(&app, "k-1", r#"{"model": "m@1", "source": {"video": "v"}}"#).await;
    assert_eq!(other.problem(409, "idempotency_key_reused")["field"], "Idempotency-Key");
    // A request with a used key is not resolved at all.
    let other = init_with_key(&app, "k-1", r#"{"model": "no-such-model", "source": {"video": "v"}}"#).await;
    other.problem(409, "idempotency_key_reused");
    init_with_key(&app, "k-2", r#"{"model": "m@1", "source": {"video": "v"}}"#).await.ok(200);
    let bad = init_with_key(&app, "with blank", "{}").await;
    assert_eq!(bad.status, 422, "the body is read first");
    let bad = init_with_key(&app, "with blank", &smallest().to_string()).await;
    assert_eq!(bad.problem(400, "invalid_parameter")["field"], "Idempotency-Key");
    assert_eq!(app.get("/scenario").await.ok(200)["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn racing_requests_with_one_key_make_one_scenario() {
    let app = TestApp::stocked().await;
    let body = smallest().to_string();
    let answers = futures::future::join_all((0..16).map(|_| init_with_key(&app, "race", &body))).await;
    let ids: std::collections::HashSet<_> = answers.iter().map(|a| a.ok(200)["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn stop_start_and_delete_are_idempotent() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    for (verb, desired) in [("stop", "stopped"), ("stop", "stopped"), ("start", "running"), ("start", "running")] {
        let view = app.call("POST", &format!("/scenario/{id}/{verb}")).await.ok(200);
        assert_eq!(view["desired"], desired);
    }
    for _ in 0..2 {
        app.call("DELETE", &format!("/scenario/{id}")).await.ok(204);
    }
    for (method, rest) in [
        ("GET", ""),
        ("POST", "/stop"),
        ("POST", "/start"),
        ("GET", "/history"),
        ("GET", "/delivery"),
        ("GET", "/plugins"),
    ] {
        app.call(method, &format!("/scenario/{id}{rest}")).await.problem(404, "scenario_not_found");
    }
    app.get(&format!("/prediction/{id}")).await.problem(404, "scenario_not_found");
    let nobody = "/scenario/00000000-0000-7000-8000-000000000000";
    app.call("DELETE", nobody).await.problem(404, "scenario_not_found");
    app.call("POST", &format!("{nobody}/stop")).await.problem(404, "scenario_not_found");
    let problem = app.get("/scenario/7").await.problem(400, "invalid_parameter");
    assert_eq!(problem["field"], "id");
}

#[tokio::test]
async fn a_scenario_that_did_not_run_has_its_hooks_and_hints_of_its_specification() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let none = json!({"generation": 0, "hooks": []});
    assert_eq!(app.get(&format!("/scenario/{id}/plugins")).await.ok(200), none);
    let view = app.get(&format!("/scenario/{id}")).await.ok(200);
    assert_eq!(view["hints"][0]["code"], "no_post_hook", "{view}");
    let listed = app.get("/scenario").await.ok(200);
    assert_eq!(listed["items"][0]["hints"], view["hints"]);

    let mut spec = smallest();
    spec["plugins"] = json!({"pre": [{"use": "gate"}], "post": [{"use": "yolo"}]});
    let view = app.init(&spec).await.ok(200);
    assert!(view.get("hints").is_none(), "{view}");
    let plugins = app.get(&format!("/scenario/{}/plugins", view["id"].as_str().unwrap())).await.ok(200);
    let told = |at: usize| ["plugin", "stage", "calls", "p99_us"].map(|key| plugins["hooks"][at][key].clone());
    assert_eq!(told(0), [json!("gate@1.0.0"), json!("pre"), json!(0), json!(0)]);
    assert_eq!(told(1), [json!("yolo@1.0.0"), json!("post"), json!(0), json!(0)]);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let app = TestApp::stocked().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let spec = json!({"name": if n == 3 { "special" } else { "" }, "source": {"video": "v"}, "model": "m"});
        ids.push(app.init(&spec).await.ok(200)["id"].clone());
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut uri = "/scenario?limit=2".to_owned();
    loop {
        let page = app.get(&uri).await.ok(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|s| s["id"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("/scenario?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ids);
    let special = app.get("/scenario?name=special&state=pending").await.ok(200);
    assert_eq!(special["items"].as_array().unwrap().len(), 1);
    assert_eq!(app.get("/scenario?state=running").await.ok(200)["items"], json!([]));

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("state=asleep", "state"),
        ("page=2", "page"),
    ] {
        let problem = app.get(&format!("/scenario?{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["field"], field, "{problem}");
    }
    let history = format!("/scenario/{}/history", ids[0].as_str().unwrap());
    app.get(&format!("{history}?cursor=p0000000000000000")).await.problem(400, "invalid_parameter");
    app.call("POST", &history.replace("history", "stop")).await.ok(200);
    let first = app.get(&format!("{history}?limit=1")).await.ok(200);
    let rest = app.get(&format!("{history}?cursor={}", first["next_cursor"].as_str().unwrap())).await.ok(200);
    assert_eq!(rest["items"][0]["desired"], "stopped");
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_page_of_scenarios_has_room_for_so_many_bytes() {
    let app = TestApp::stocked().await.with(|config| config.limits.page_bytes = 1);
    let mut ids: Vec<_> = Vec::new();
    for _ in 0..3 {
        ids.insert(0, app.scenario().await.to_string());
    }
    let (mut seen, mut uri) = (Vec::new(), "/scenario".to_owned());
    loop {
        let page = app.get(&uri).await.ok(200);
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
        seen.push(page["items"][0]["id"].as_str().unwrap().to_owned());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("/scenario?cursor={cursor}");
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn configurations_have_a_size() {
    let app = TestApp::stocked().await.with(|config| {
        config.limits.config_bytes = 40;
        config.limits.configs_bytes = 75;
    });
    // {"labels":["xx"]} has 15 bytes beside the label.
    let hook = |bytes: usize| json!({"use": "yolo@1.0.0", "config": {"labels": ["x".repeat(bytes - 15)]}});
    let with = |post: Value| json!({"source": {"video": "v@1"}, "model": "m@1", "plugins": {"post": post}});
    for route in ["/scenario/check", "/scenario/init"] {
        let check = async |post: Value| app.post(route, with(post).to_string()).await;
        check(json!([hook(40), hook(35)])).await.ok(200);
        let problem = check(json!([hook(16), hook(41)])).await.problem(422, "invalid_plugin_config");
        assert_eq!(problem["field"], "plugins.post[1].config");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("41 bytes") && detail.contains("40") && detail.contains("max_config_kib"), "{detail}");
        let problem = check(json!([hook(40), hook(36)])).await.problem(422, "invalid_plugin_config");
        assert_eq!(problem["field"], "plugins");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("76 bytes") && detail.contains("75") && detail.contains("max_configs_kib"), "{detail}");
    }
}

#[tokio::test]
async fn names_without_versions_are_refused_where_that_is_wanted() {
    let app = TestApp::stocked().await;
    app.upload("/model?name=m&version=9.9.9", &model(&[1, 3, 16, 16])).await.ok(201);
    let spec = |source: &str, model: &str, hook: &str| json!({"source": {"video": source}, "model": model, "plugins": {"post": [{"use": hook}]}});
    let unpinned = spec("v", "m", "yolo");
    let taken = app.init(&unpinned).await.ok(200);
    assert_eq!(taken["resolved"]["model"]["version"], "9.9.9", "the answer says what a name was taken for");
    assert_eq!(taken["resolved"]["post"][0]["version"], "1.0.0");
    let app = app.with(|config| config.require_versions = true);
    let problem = app.init(&unpinned).await.problem(422, "invalid_scenario");
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["source.video", "model", "plugins.post[0].use"]);
    let model = problem["errors"][1]["message"].as_str().unwrap();
    assert!(model.contains("require_versions") && model.contains("`m@9.9.9`, `m@1`"), "{model}");
    let digest = taken["resolved"]["post"][0]["digest"].as_str().unwrap();
    app.init(&spec("v@1", "m@1", digest)).await.ok(200);
}

#[tokio::test]
async fn a_problem_lists_few_of_many_names() {
    let app = TestApp::stocked().await;
    for version in 2..30 {
        app.upload(&format!("/video?name=v&version={version}"), &video(version)).await.ok(201);
    }
    let hooks: Vec<_> = (0..16).map(|n| json!({"use": format!("nothing-{}", n % 2)})).collect();
    let spec = json!({"source": {"video": "v@77"}, "model": "m@1", "plugins": {"post": hooks}});
    let problem = app.init(&spec).await.problem(422, "unknown_video");
    assert!(problem["detail"].as_str().unwrap().contains("`v@20` and more, see GET /video"), "{problem}");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 17);
    assert!(problem.to_string().len() < 8192, "{problem}");
}

#[tokio::test]
async fn a_scenario_is_not_stopped_and_started_without_end() {
    let app = TestApp::stocked().await;
    let (id, other) = (app.scenario().await, app.scenario().await);
    let wish = async |id, wish: &str| app.call("POST", &format!("/scenario/{id}/{wish}")).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(wish(id, "stop").await);
        answers.push(wish(id, "start").await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    // Ten at once, and one a second that this took.
    assert!(refused.len() > 10, "{}", refused.len());
    assert_eq!(refused[0].headers["retry-after"], "1", "as its text says");
    let problem = refused[0].problem(429, "too_busy");
    assert!(problem["detail"].as_str().unwrap().ends_with("try again in 1 s"), "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().contains("more than 60 times a minute (`max_starts_min`)"),
        "{problem}"
    );
    wish(other, "stop").await.ok(200);
    app.call("DELETE", &format!("/scenario/{id}")).await.ok(204);
}

/// Each of them within its own time; all together hold a request, and its turns, no longer than a scenario
/// may take.
#[tokio::test]
async fn plugins_that_judge_slowly_are_judged_together() {
    let limit = Duration::from_millis(500);
    let app = TestApp::stocked().await.with(|config| config.limits.configs_time = limit);
    let slow = |plugin: &str| json!([{"use": plugin, "config": {"min_score": 0.5}}, {"use": plugin, "config": {"slow": true}}]);
    let mut scenario = smallest();
    scenario["plugins"] = json!({"pre": slow("gate"), "post": slow("yolo")});
    for path in ["/scenario/check", "/scenario/init"] {
        let answer = app.post(path, scenario.to_string()).await;
        let problem = answer.problem(429, "too_busy");
        assert!(answer.headers.contains_key("retry-after"));
        assert_eq!(problem["field"], "plugins");
        assert!(problem["detail"].as_str().unwrap().contains("500ms to judge their configurations (`max_configs_s`)"));
    }
    // Its own time is the plugin's fault, that of all is not.
    scenario["plugins"] = json!({"post": [{"use": "yolo", "config": {"min_score": 3}}]});
    app.post("/scenario/check", scenario.to_string()).await.problem(422, "invalid_plugin_config");
}
