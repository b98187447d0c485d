use std::{collections::BTreeSet, fs};

use framehook_core::{delivery::Delivery, error_code::ErrorCode, ids::ScenarioId, invariants, state::ScenarioState};
use framehook_tests::root;
use serde_json::Value;

use crate::app::TestApp;

/// The API as it was agreed. Whoever adds a route adds it here.
const ROUTES: &str = "
    post /scenario/init
    post /scenario/check
    get /scenario
    get /scenario/{id}
    delete /scenario/{id}
    post /scenario/{id}/stop
    post /scenario/{id}/start
    get /scenario/{id}/history
    get /scenario/{id}/logs
    get /scenario/{id}/delivery
    get /scenario/{id}/plugins
    post /scenario/{id}/replay
    get /scenario/{id}/outputs
    get /scenario/{id}/comparison
    get /scenario/{id}/shadow
    post /scenario/{id}/shadow/promote
    get /scenario/{id}/revisions
    patch /scenario/{id}
    get /prediction/{id}
    get /prediction/{id}/export
    post /plugin
    post /plugin/import
    get /plugin
    get /plugin/{name}/{version}
    delete /plugin/{name}/{version}
    post /model
    get /model
    get /model/{name}/{version}
    delete /model/{name}/{version}
    get /model/{name}/{version}/preview.jpg
    post /video
    get /video
    get /video/{name}/{version}
    delete /video/{name}/{version}
    get /runner
    get /runner/{id}
    get /healthz
    get /readyz
    get /metrics
";

fn routes(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &Value)| -> Vec<String> {
        item.as_object().unwrap().keys().map(|method| format!("{method} {path}")).collect()
    };
    paths.iter().flat_map(methods).collect()
}

#[tokio::test]
async fn every_route_is_documented_and_every_documented_route_is_there() {
    let app = TestApp::new().await;
    let document = app.get("/openapi.json").await.ok(200);
    assert_eq!(routes(&document), ROUTES.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect());
    for route in routes(&document) {
        let (method, path) = route.split_once(' ').unwrap();
        let path = path.replace("{id}", "x").replace("{name}", "x").replace("{version}", "x");
        let answer = app.call(&method.to_uppercase(), &path).await;
        assert!(!answer.text().contains("route_not_found") && answer.status != 405, "{route}: {}", answer.text());
    }
}

/// A parameter that a route does not have is a mistake of its client, and no route keeps it to itself.
#[tokio::test]
async fn every_route_refuses_a_parameter_that_it_does_not_have() {
    let app = TestApp::new().await;
    let document = app.get("/openapi.json").await.ok(200);
    let id = ScenarioId::generate().to_string();
    let operation = ["/healthz", "/readyz", "/metrics"];
    for route in routes(&document) {
        let (method, path) = route.split_once(' ').unwrap();
        if operation.contains(&path) {
            continue;
        }
        let path = path.replace("{id}", &id).replace("{name}", "x").replace("{version}", "1");
        let answer = app.call(&method.to_uppercase(), &format!("{path}?colour=red")).await;
        assert!(answer.status == 400 && answer.text().contains("colour"), "{route}: {}", answer.text());
    }
}

/// Clients are generated from it: what differs here differs for them.
#[test]
fn a_diff_in_the_api_is_a_decision() {
    let file = root().join("docs/openapi.json");
    let text = serde_json::to_string_pretty(&framehook_api::openapi()).unwrap() + "\n";
    if std::env::var_os("FRAMEHOOK_UPDATE_DOCS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    let differs = text.lines().zip(there.lines()).find(|(new, old)| new != old);
    assert!(
        there == text,
        "the API is not what docs/openapi.json says. A diff in the API is a decision: if clients of older releases go on \
         working, run `make docs` and say in CHANGELOG.md what is new; first difference: {differs:?}"
    );
}

#[tokio::test]
async fn every_error_code_and_schema_is_documented() {
    let document = serde_json::to_value(framehook_api::openapi()).unwrap();
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|c| Value::from(c.as_str())).collect();
    assert_eq!(document["components"]["schemas"]["ErrorCode"]["enum"], Value::from(codes));
    let states: Vec<_> = ScenarioState::ALL.iter().map(|s| Value::from(s.as_str())).collect();
    assert_eq!(document["components"]["schemas"]["ScenarioState"]["enum"], Value::from(states));
    // Whatever is referred to is there.
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    let operations = document["paths"].as_object().unwrap().values().flat_map(|p| p.as_object().unwrap().values());
    let ids: Vec<_> = operations.map(|o| o["operationId"].to_string()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[test]
fn the_example_of_a_delivery_balances() {
    let document = serde_json::to_value(framehook_api::openapi()).unwrap();
    let answer =
        &document["paths"]["/scenario/{id}/delivery"]["get"]["responses"]["200"]["content"]["application/json"];
    let delivery: Delivery = serde_json::from_value(answer["example"].clone()).unwrap();
    assert!(delivery.inbox.frames > 0, "it is worked in the middle of a run");
    invariants::delivery_balances(&delivery, ScenarioState::Running).unwrap();
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let app = TestApp::new().await;
    let page = app.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("swagger-ui"));
    assert!(!page.text().contains("https://"), "{}", page.text());
    for file in ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"] {
        assert_eq!(app.get(&format!("/docs/{file}")).await.status, 200, "{file}");
    }
    assert!(app.get("/docs/swagger-initializer.js").await.text().contains("/openapi.json"));
    assert_eq!(app.get("/docs").await.status, 303);
    let root = app.get("/").await;
    assert_eq!((root.status.as_u16(), &root.headers["location"]), (303, &"/docs/".parse().unwrap()));
}
