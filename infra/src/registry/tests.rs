//! Registries that ask, lie, lead astray and never end; what a real one says is tested end to end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::stream;
use tokio::net::TcpListener;

use super::*;

/// What a server was asked, each as `METHOD /path Authorization`.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server on a port of its own, for as long as the test runs.
async fn serve(answer: impl Fn(&Request) -> Response + Clone + Send + Sync + 'static) -> (String, Asked) {
    let asked = Asked::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let log = Arc::clone(&asked);
    let app = Router::new().fallback(move |request: Request| {
        let authorization = request.headers().get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
        log.lock().unwrap().push(format!("{} {} {authorization}", request.method(), request.uri()).trim().to_owned());
        let answer = answer(&request);
        async { answer }
    });
    tokio::spawn(async { axum::serve(listener, app).await });
    (host, asked)
}

/// Answers by path.
async fn fixed(answers: &[(&str, Vec<u8>)]) -> (String, Asked) {
    let answers: HashMap<String, Vec<u8>> =
        answers.iter().map(|(path, bytes)| ((*path).into(), bytes.clone())).collect();
    serve(move |request| match answers.get(request.uri().path()) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
    .await
}

fn component() -> Component {
    let names = || vec!["a:b/c@1.0.0".to_owned()];
    Component { wasm: b"\0asm of a plugin".to_vec(), imports: names(), exports: names(), signature: None }
}

fn packed() -> manifest::Packed {
    pack(component())
}

fn blob(bytes: &[u8]) -> String {
    format!("/v2/a/b/blobs/{}", digest(bytes))
}

fn listed(hosts: &[&str]) -> Registries {
    Registries::listed(hosts.iter().map(|host| host.parse().unwrap()).collect(), Credentials::None)
}

/// All of a plugin's bytes.
async fn whole(registries: &Registries, reference: &str) -> Result<Vec<u8>, RegistryError> {
    let mut pulled = registries.pull(&reference.parse().unwrap()).await?;
    let mut whole = Vec::new();
    while let Some(bytes) = pulled.chunk().await? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole)
}

fn found(location: &str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location.to_owned())]).into_response()
}

#[tokio::test]
async fn what_was_asked_for_is_what_comes_or_nothing() {
    let good = packed();
    let (manifest, layer) = (good.manifest.clone(), good.layer.clone());
    let by_digest = format!("/v2/a/b/manifests/{}", digest(&manifest));
    let other = digest(b"something else");
    let (at_other, at_tag) = (format!("/v2/a/b/manifests/{other}"), "/v2/a/b/manifests/1".to_owned());
    let blob = blob(&layer);
    for (case, path, asked, answers, expected) in [
        ("by tag", &at_tag, ":1".to_owned(), layer.clone(), Ok(())),
        ("by digest", &by_digest, format!("@{}", digest(&manifest)), layer.clone(), Ok(())),
        ("a tag moves, a digest does not", &by_digest, format!(":1@{}", digest(&manifest)), layer.clone(), Ok(())),
        ("another manifest", &at_other, format!("@{other}"), layer.clone(), Err("was asked for")),
        ("a changed byte", &at_tag, ":1".to_owned(), b"\0asm of a plugiN".to_vec(), Err("was asked for")),
        ("less", &at_tag, ":1".to_owned(), layer[1..].to_vec(), Err("another number of bytes")),
        ("more", &at_tag, ":1".to_owned(), [&layer[..], b"x"].concat(), Err("another number of bytes")),
        ("nothing there", &at_tag, ":2".to_owned(), layer.clone(), Err("has no oci://")),
    ] {
        let (host, _) = fixed(&[(path.as_str(), manifest.clone()), (blob.as_str(), answers)]).await;
        let outcome = whole(&listed(&[&host]), &format!("oci://{host}/a/b{asked}")).await;
        match (outcome, expected) {
            (Ok(bytes), Ok(())) => assert_eq!(bytes, layer, "{case}"),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{case}: {error}"),
            (outcome, _) => panic!("{case}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_without_an_end_has_one() {
    let endless =
        || Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]))));
    let (host, _) = serve(move |_| endless().into_response()).await;
    let error = whole(&listed(&[&host]), &format!("oci://{host}/a/b:1")).await.unwrap_err();
    assert!(error.to_string().contains("more than 65536 bytes"), "{error}");

    let manifest = packed().manifest;
    let (host, _) = serve(move |request| match request.uri().path() {
        "/v2/a/b/manifests/1" => manifest.clone().into_response(),
        _ => endless().into_response(),
    })
    .await;
    let error = whole(&listed(&[&host]), &format!("oci://{host}/a/b:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Length(_)), "{error}");
}

#[tokio::test]
async fn a_list_of_registries_is_where_connections_go() {
    let good = packed();
    let (inside, asked_inside) = fixed(&[("/secret", good.layer.clone())]).await;
    let target = format!("http://{inside}/secret");
    let manifest = good.manifest.clone();
    let (host, _) = serve(move |request| match request.uri().path() {
        "/v2/a/b/manifests/1" => manifest.clone().into_response(),
        "/v2/loop/manifests/1" => found("/v2/loop/manifests/1"),
        "/v2/odd/manifests/1" => found("file:///etc/passwd"),
        _ => found(&target),
    })
    .await;
    let reference = format!("oci://{host}/a/b:1");
    let error = whole(&listed(&[]), &reference).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotListed { .. }), "{error}");
    let error = whole(&listed(&["ghcr.io"]), &reference).await.unwrap_err();
    assert!(error.to_string().contains("those are `ghcr.io`"), "{error}");
    let error = whole(&listed(&[&host]), &reference).await.unwrap_err();
    assert!(matches!(error, RegistryError::Elsewhere), "{error}");
    assert!(asked_inside.lock().unwrap().is_empty());
    // What is named is allowed, and whoever asks on their own machine goes anywhere.
    assert_eq!(whole(&listed(&[&host, &inside]), &reference).await.unwrap(), good.layer);
    assert_eq!(whole(&Registries::any(false, Credentials::None), &reference).await.unwrap(), good.layer);
    for (repository, words) in [("loop", "more than 3 times"), ("odd", "redirects nowhere")] {
        let error = whole(&listed(&[&host]), &format!("oci://{host}/{repository}:1")).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// A folder with Docker's file, which holds `me:pw` for a host.
fn docker(host: &str) -> (tempfile::TempDir, Credentials) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths": {{"{host}": {{"auth": "bWU6cHc="}}}}}}"#)).unwrap();
    (folder, Credentials::Docker(Some(file)))
}

const BASIC: &str = "Basic bWU6cHc=";

#[tokio::test]
async fn a_password_goes_to_the_registry_and_to_its_token_server_and_nowhere_else() {
    let good = packed();
    let (mirror, asked_mirror) = fixed(&[("/layer", good.layer.clone())]).await;
    for by_token in [false, true] {
        let (manifest, layer) = (good.manifest.clone(), format!("http://{mirror}/layer"));
        let expected = if by_token { "Bearer t0ken" } else { BASIC };
        let (host, asked) = serve(move |request| {
            let challenge = match by_token {
                false => "Basic realm=\"r\"",
                true => "Bearer realm=\"/token\",service=\"s\",scope=\"repository:a/b:pull\"",
            };
            let authorization = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
            match request.uri().path() {
                "/token" => r#"{"token": "t0ken"}"#.into_response(),
                _ if authorization != Some(expected) => {
                    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
                }
                "/v2/a/b/manifests/1" => manifest.clone().into_response(),
                _ => found(&layer),
            }
        })
        .await;
        let reference = format!("oci://{host}/a/b:1");
        let (_folder, credentials) = docker(&host);
        let registries = Registries::any(false, credentials);
        assert_eq!(whole(&registries, &reference).await.unwrap(), good.layer);
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked[0], "GET /v2/a/b/manifests/1", "nothing before it is asked for");
        let of_token = asked.iter().find(|line| line.contains("/token"));
        let expected_of_token = format!("GET /token?service=s&scope=repository%3Aa%2Fb%3Apull {BASIC}");
        assert_eq!(of_token, by_token.then_some(&expected_of_token));
        assert_eq!(*asked_mirror.lock().unwrap().last().unwrap(), "GET /layer", "not the password");
        let error = whole(&Registries::any(false, Credentials::None), &reference).await;
        assert_eq!(error.is_ok(), by_token, "this token server gives one to anybody");
    }
}

#[tokio::test]
async fn a_token_server_inside_is_not_asked_and_one_without_tls_gets_no_password() {
    let (inside, asked) = fixed(&[("/token", br#"{"token": "t"}"#.to_vec())]).await;
    for (realm, words) in [(format!("http://{inside}/token"), "not public"), ("ftp://a.example/".into(), "no TLS")] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let (host, _) =
            serve(move |_| (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge.clone())]).into_response())
                .await;
        let (_folder, credentials) = docker(&host);
        let registries = Registries::listed(vec![host.parse().unwrap()], credentials);
        let error = whole(&registries, &format!("oci://{host}/a/b:1")).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(asked.lock().unwrap().is_empty());
}

/// What a refusal names is not enough for all that follows.
#[tokio::test]
async fn a_push_asks_for_all_rights_at_once_and_uploads_what_is_not_there() {
    let there = blob(&packed().config);
    let (host, asked) = serve(move |request| {
        let is_authorized = request.headers().contains_key(header::AUTHORIZATION);
        let challenge = "Bearer realm=\"/token\",scope=\"repository:a/b:pull\"";
        match (request.method(), request.uri().path()) {
            (_, "/token") => r#"{"access_token": "t0ken"}"#.into_response(),
            _ if !is_authorized => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response(),
            (&Method::HEAD, path) if path == there => StatusCode::OK.into_response(),
            (&Method::POST, _) => (StatusCode::ACCEPTED, [(header::LOCATION, "/up?state=7")]).into_response(),
            (&Method::PUT, _) => StatusCode::CREATED.into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    })
    .await;
    let to = format!("oci://{host}/a/b:1").parse().unwrap();
    let pushed = Registries::any(false, Credentials::None).push(&to, component()).await.unwrap();
    assert_eq!(pushed, digest(&packed().manifest));
    let (layer, config) = (digest(&packed().layer), digest(&packed().config));
    let with = |line: String| format!("{line} Bearer t0ken");
    assert_eq!(
        *asked.lock().unwrap(),
        [
            format!("HEAD /v2/a/b/blobs/{layer}"),
            "GET /token?scope=repository%3Aa%2Fb%3Apull%2Cpush".to_owned(),
            with(format!("HEAD /v2/a/b/blobs/{layer}")),
            with("POST /v2/a/b/blobs/uploads/".to_owned()),
            with(format!("PUT /up?state=7&digest={}", layer.as_str().replace(':', "%3A"))),
            with(format!("HEAD /v2/a/b/blobs/{config}")),
            with("PUT /v2/a/b/manifests/1".to_owned()),
        ]
    );
}

#[tokio::test]
async fn a_push_needs_a_tag() {
    let reference = format!("oci://127.0.0.1:1/a@{}", digest(b"")).parse().unwrap();
    let error = Registries::any(false, Credentials::None).push(&reference, component()).await.unwrap_err();
    assert!(error.to_string().contains("no tag"), "{error}");
}
