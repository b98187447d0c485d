//! What pages in a browser can do, and what every answer tells the browser.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures::stream;

use crate::app::{TestApp, model, smallest, video};

fn with(method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_not_answered() {
    let app = TestApp::stocked().await;
    for host in
        ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "a@localhost"]
    {
        for uri in ["/healthz", "/scenario", "/metrics", "/docs/", "/openapi.json", "/nowhere"] {
            let forwarded = [("host", host), ("x-forwarded-host", "localhost"), ("x-host", "localhost")];
            let problem = app.send(with("GET", uri, &forwarded, "")).await.problem(421, "host_not_allowed");
            assert_eq!(problem["field"], "Host");
        }
        let upload =
            with("POST", "/video?name=w", &[("host", host), ("content-type", "video/mp4")], video(1).to_string());
        app.send(upload).await.problem(421, "host_not_allowed");
        app.send(with("DELETE", "/video/v/1", &[("host", host)], "")).await.problem(421, "host_not_allowed");
    }
    app.get("/video/v/1").await.ok(200);
    let absolute = with("GET", "http://evil.example/scenario", &[("host", "localhost")], "");
    app.send(absolute).await.problem(421, "host_not_allowed");
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let app = TestApp::stocked().await;
    let id = app.scenario().await;
    let foreign = [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:8081"),
        ("origin", "https://localhost"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    let form = format!("--X\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{}\r\n--X--\r\n", video(1));
    for mark in foreign {
        for (method, uri, kind, body) in [
            ("POST", "/scenario/init".to_owned(), "application/json", smallest().to_string()),
            ("POST", "/scenario/init".to_owned(), "text/plain", smallest().to_string()),
            ("POST", "/scenario/check".to_owned(), "application/x-www-form-urlencoded", smallest().to_string()),
            ("POST", "/video?name=w".to_owned(), "multipart/form-data; boundary=X", form.clone()),
            ("POST", "/video?name=w".to_owned(), "video/mp4", video(1).to_string()),
            ("POST", format!("/scenario/{id}/stop"), "text/plain", String::new()),
            ("DELETE", format!("/scenario/{id}"), "text/plain", String::new()),
            ("DELETE", "/plugin/yolo/1.0.0".to_owned(), "text/plain", String::new()),
        ] {
            let headers = [mark, ("content-type", kind)];
            let problem = app.send(with(method, &uri, &headers, body)).await.problem(403, "cross_site");
            assert!(problem["field"].as_str().unwrap().eq_ignore_ascii_case(mark.0), "{problem}");
        }
    }
    assert_eq!(app.get("/scenario").await.ok(200)["items"].as_array().unwrap().len(), 1);
    assert_eq!(app.get(&format!("/scenario/{id}")).await.ok(200)["desired"], "running");
    app.get("/video/w/1").await.problem(404, "artifact_not_found");
    // Its own page may.
    let own = [("origin", "http://localhost"), ("sec-fetch-site", "same-origin"), ("content-type", "video/mp4")];
    app.send(with("POST", "/video?name=w", &own, video(1).to_string())).await.ok(201);
}

#[tokio::test]
async fn a_body_says_what_it_is() {
    let app = TestApp::stocked().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=X", "text/json", ""]
    {
        let request = with("POST", "/scenario/init", &[("content-type", kind)], smallest().to_string());
        app.send(request).await.problem(415, "unsupported_media_type");
        // As curl sends a file if nobody says what it is.
        let careless = !kind.starts_with("multipart") && kind != "text/json";
        let request = with("POST", "/model?name=n", &[("content-type", kind)], model(&[1, 3, 8, 8]).to_string());
        let answer = app.send(request).await;
        assert_eq!(careless, answer.status.is_success(), "{kind}: {}", answer.text());
        let page = [("content-type", kind), ("sec-fetch-site", "same-origin"), ("origin", "http://localhost")];
        let request = with("POST", "/model?name=n", &page, model(&[1, 3, 8, 8]).to_string());
        assert!(app.send(request).await.status.is_client_error(), "{kind}");
    }
}

#[tokio::test]
async fn every_answer_tells_a_browser_what_it_may_not() {
    let app = TestApp::new().await;
    for uri in ["/healthz", "/nowhere", "/scenario/x", "/docs/", "/docs/swagger-ui.css", "/openapi.json", "/metrics"] {
        let headers = app.get(uri).await.headers;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{uri}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{uri}");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin", "{uri}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{uri}: {policy}"
        );
        assert_eq!(policy.contains("script-src"), uri.starts_with("/docs"), "{uri}: {policy}");
        assert!(!policy.contains("script-src 'self' 'unsafe"), "{policy}");
        assert!(headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "{uri}");
    }
    let refused = app.send(with("GET", "/docs/", &[("host", "evil.example")], "")).await;
    assert!(refused.headers.contains_key("content-security-policy"));
}

#[tokio::test]
async fn a_request_has_one_number_in_its_answer_and_its_problem() {
    let app = TestApp::new().await;
    let id_of = async |given: Option<&str>| {
        let headers: Vec<_> = given.iter().map(|id| ("x-request-id", *id)).collect();
        let answer = app.send(with("GET", "/nowhere", &headers, "")).await;
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(answer.json()["request_id"], id.as_str());
        id
    };
    assert_eq!(id_of(Some("client-7.a")).await, "client-7.a");
    assert_ne!(id_of(None).await, id_of(None).await);
    for bad in ["a b", "a\"b", "a,b", &"a".repeat(65)] {
        let id = id_of(Some(bad)).await;
        assert!(id.len() == 36 && id != bad, "{bad}: {id}");
    }
    assert!(app.get("/healthz").await.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn what_a_client_invents_is_short_in_a_problem_and_no_label() {
    let app = TestApp::new().await;
    for number in 0..30_000 {
        let method = format!("M{number}");
        assert!(app.send(with(&method, "/healthz", &[], "")).await.status.is_client_error());
    }
    let long = "x".repeat(60_000);
    for uri in
        [format!("/{long}"), format!("/scenario?{long}=1"), format!("/model?name={long}"), format!("/scenario/{long}")]
    {
        let answer = app.get(&uri).await;
        assert!(answer.status.is_client_error() && answer.body.len() < 20_000, "{} bytes", answer.body.len());
    }
    let names: serde_json::Map<_, _> = (0..20_000).map(|n| (format!("unknown-{n}"), n.into())).collect();
    let answer = app.post("/scenario/init", serde_json::to_string(&names).unwrap()).await;
    assert!(answer.status.is_client_error() && answer.body.len() < 20_000, "{} bytes", answer.body.len());
    let metrics = app.get("/metrics").await;
    assert!(metrics.text().contains(r#"method="other""#) && metrics.text().len() < 200_000);
    assert!(!metrics.text().contains("M29999"));
}

/// What never ends, and how much of it was taken.
fn endless(beginning: &'static str, again: &'static [u8]) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let chunks = std::iter::once(beginning.as_bytes()).chain(std::iter::repeat(again));
    let body = Body::from_stream(stream::iter(chunks.map(move |chunk| {
        let before = counter.fetch_add(chunk.len(), Ordering::Relaxed);
        assert!(before < 64 << 20, "it is read without an end");
        Ok::<_, std::io::Error>(Bytes::from_static(chunk))
    })));
    (body, taken)
}

#[tokio::test]
async fn a_form_without_an_end_is_not_read_on() {
    const SOME: &[u8] = &[b'a'; 16 << 10];
    let app = TestApp::new().await;
    let file = "--X\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";
    let cases: [(&str, &'static str, &'static [u8], u16); 10] = [
        ("a preamble", "", SOME, 400),
        ("a preamble of almost boundaries", "", b"\r\n--Y\r\n--".repeat(1000).leak(), 400),
        ("a header", "--X\r\nContent-Disposition: form-data; name=\"", SOME, 400),
        ("headers", "--X\r\n", b"A: b\r\n".repeat(1000).leak(), 400),
        ("padding", "--X", &[b' '; 4096], 400),
        ("a name", "--X\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\n", SOME, 400),
        ("a file", file, SOME, 413),
        ("a file of line ends", file, &[b'\r'; 4096], 413),
        ("parts", "", b"--X\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\na\r\n".repeat(10).leak(), 400),
        ("unknown parts", "", b"--X\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\na\r\n".repeat(10).leak(), 400),
    ];
    for (what, beginning, again, status) in cases {
        let (body, taken) = endless(beginning, again);
        // Whoever asks first is not read from after the refusal.
        let headers = [("content-type", "multipart/form-data; boundary=X"), ("expect", "100-continue")];
        let answer = app.send(with("POST", "/video?name=v", &headers, body)).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text());
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken < 1 << 20, "{what}: {taken} bytes were read");
    }
    assert_eq!(app.blob_files(), 0);
}
