//! Sources behind a URL: what is secret about them goes in and does not come out.

use axum::{body::Body, http::Request};
use framehook_api::ApiConfig;
use framehook_core::spec::ResolvedSource;
use framehook_infra::seal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::app::{Answer, TestApp};

const ADDRESS: &str = "https://cameras.example/clip.mp4";
const WHOLE: &str = "https://me:s3cret@cameras.example/clip.mp4?token=s3cret";

fn spec(url: &str) -> Value {
    json!({"source": {"url": url}, "model": "m"})
}

async fn init_with_key(app: &TestApp, key: &str, spec: &Value) -> Answer {
    let request = Request::post("/scenario/init").header("Idempotency-Key", key);
    app.send(request.body(Body::from(spec.to_string())).unwrap()).await
}

/// Every byte below the data folder.
fn stored(app: &TestApp) -> Vec<u8> {
    fn read(dir: &std::path::Path, all: &mut Vec<u8>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { read(&path, all) } else { all.extend(std::fs::read(&path).unwrap()) }
        }
    }
    let mut all = Vec::new();
    read(app.dir.path(), &mut all);
    all
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn the_secret_of_a_url_is_sealed_and_never_shown() {
    let app = TestApp::stocked().await;
    let view = init_with_key(&app, "k", &spec(WHOLE)).await.ok(200);
    assert_eq!(view["spec"]["source"], json!({"url": ADDRESS}));
    assert_eq!(view["resolved"]["source"]["url"]["address"], ADDRESS);
    let id = view["id"].as_str().unwrap();
    for uri in ["/scenario".into(), format!("/scenario/{id}"), format!("/scenario/{id}/history")] {
        let answer = app.get(&uri).await;
        answer.ok(200);
        assert!(!answer.text().contains("s3cret"), "{uri}: {}", answer.text());
    }
    let checked = app.post("/scenario/check", spec(WHOLE).to_string()).await.ok(200).to_string();
    assert!(checked.contains(ADDRESS) && !format!("{checked}{view}").contains("s3cret"), "{checked}");

    let all = stored(&app);
    assert!(contains(&all, ADDRESS) && !contains(&all, "s3cret"));
    // A plain digest would tell whether a guess is right.
    let plain = Sha256::digest(format!(r#"{{"model":"m","source":{{"url":"{WHOLE}"}}}}"#));
    let plain: String = plain.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!contains(&all, &plain));

    let record = app.store.scenario(id.parse().unwrap()).await.unwrap().unwrap();
    let ResolvedSource::Url(sealed) = record.resolved.source else { panic!("another source") };
    assert_eq!(seal::open(app.config.key.as_ref(), &sealed).unwrap().expose().as_str(), WHOLE);
}

#[tokio::test]
async fn a_repetition_is_the_same_secret_too() {
    let app = TestApp::stocked().await;
    let id = init_with_key(&app, "k", &spec(WHOLE)).await.ok(200)["id"].clone();
    assert_eq!(init_with_key(&app, "k", &spec(WHOLE)).await.ok(200)["id"], id);
    for other in [ADDRESS.to_owned(), WHOLE.replace("me:s3cret", "me:s4cret"), format!("{WHOLE}4")] {
        init_with_key(&app, "k", &spec(&other)).await.problem(409, "idempotency_key_reused");
    }
}

#[tokio::test]
async fn without_a_key_only_a_url_that_hides_nothing_is_accepted() {
    let mut app = TestApp::stocked().await;
    let config = ApiConfig { key: None, ..app.config.clone() };
    app.router = crate::app::router(config, app.store.clone(), app.bus.clone(), app.blobs.clone(), None);
    for url in [WHOLE, "https://s3cret@cameras.example/", "https://cameras.example/?s3cret"] {
        let checked = app.post("/scenario/check", spec(url).to_string()).await;
        for answer in [app.init(&spec(url)).await, init_with_key(&app, "k", &spec(url)).await, checked] {
            let problem = answer.problem(422, "secret_not_accepted");
            assert_eq!(problem["field"], "source.url");
            let text = problem.to_string();
            assert!(text.contains("FRAMEHOOK_KEY") && !text.contains("s3cret"), "{text}");
        }
    }
    let view = init_with_key(&app, "k", &spec(ADDRESS)).await.ok(200);
    assert_eq!(view["resolved"]["source"], json!({"url": {"address": ADDRESS}}));
}
