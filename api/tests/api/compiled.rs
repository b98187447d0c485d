//! How often a plugin is compiled, by a plugin host that writes down what it is asked for.

use std::{fs, path::PathBuf};

use framehook_confine::{Piece, Sandbox};
use serde_json::json;

use crate::app::{TestApp, compiled_plugins, plugin, smallest};

/// What the plugin host was asked for since the last time.
fn asked(app: &TestApp) -> Vec<String> {
    let journal = app.dir.path().join("journal");
    let text = fs::read_to_string(&journal).unwrap_or_default();
    fs::remove_file(journal).ok();
    text.lines().map(str::to_owned).collect()
}

/// An app with a model, a video and a plugin `yolo`, and the folder of its only compiled plugin.
async fn with_journal() -> (TestApp, PathBuf) {
    // The script writes a file.
    let sandbox = [Piece::Limits, Piece::User].into_iter().fold(Sandbox::default(), Sandbox::without);
    let host = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api/journal-probe.sh");
    let app = TestApp::stocked().await;
    let compiled = compiled_plugins(app.dir.path(), &host, &sandbox);
    let folder = compiled.folder().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let app = app.with(|config| {
        config.plugin_host.clone_from(&host);
        (config.sandbox, config.compiled) = (sandbox, compiled);
    });
    app.call("DELETE", "/plugin/yolo/1.0.0").await.ok(204);
    app.upload("/plugin", &plugin("yolo", false, true, json!({}))).await.ok(201);
    assert_eq!(asked(&app), ["compile", "describe"]);
    (app, folder)
}

/// Checks a scenario whose configuration nobody has asked for before.
async fn check(app: &TestApp, min_score: f64) {
    let mut scenario = smallest();
    scenario["plugins"] = json!({"post": [{"use": "yolo", "config": {"min_score": min_score}}]});
    app.post("/scenario/check", scenario.to_string()).await.ok(200);
}

#[tokio::test]
async fn a_plugin_is_compiled_when_it_is_uploaded_and_not_again() {
    let (app, _) = with_journal().await;
    for min_score in [0.1, 0.2] {
        check(&app, min_score).await;
        assert_eq!(asked(&app), ["validate-config"]);
    }
    app.upload("/plugin", &plugin("yolo", false, true, json!({}))).await.ok(200);
    assert_eq!(asked(&app), ["describe"]);
}

#[tokio::test]
async fn what_is_not_there_or_was_changed_is_compiled_when_it_is_asked() {
    let (app, folder) = with_journal().await;
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    for (n, bytes) in [&flipped[..], &whole[..whole.len() - 1], b""].into_iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        check(&app, 0.1 * n as f64).await;
        assert_eq!(
            (asked(&app), fs::read(&file).unwrap() == whole),
            (vec!["compile".into(), "validate-config".into()], true)
        );
    }
    fs::remove_file(&file).unwrap();
    check(&app, 0.9).await;
    assert_eq!(asked(&app), ["compile", "validate-config"]);
}

#[tokio::test]
async fn a_plugin_that_is_refused_now_cannot_judge_and_says_why() {
    let (app, folder) = with_journal().await;
    fs::remove_dir_all(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    let host = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api/stern-host.sh");
    let sandbox = app.config.sandbox.clone();
    let compiled = compiled_plugins(app.dir.path(), &host, &sandbox);
    let app = app.with(|config| config.compiled = compiled);
    let mut scenario = smallest();
    scenario["plugins"] = json!({"post": [{"use": "yolo", "config": {}}]});
    let problem = app.post("/scenario/check", scenario.to_string()).await.problem(422, "invalid_plugin_config");
    assert_eq!(problem["detail"], "it imports `acme:gpu`", "{problem}");
}
