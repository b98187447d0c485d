//! Sources behind a URL, on servers that want credentials, lead elsewhere, break off or never end.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use framehook_core::{
    ids::ScenarioId,
    message::{Message, WorkerPhase as P, WorkerStatus},
    reason::{Reason, ReasonCode},
    spec::ResolvedSource,
};
use framehook_infra::seal::{self, Key};
use framehook_runner::RunnerConfig;
use futures::stream::{self, Stream, StreamExt as _};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    numbers,
    support::{Clip, World, eventually},
};

/// `me:s3cret`
const CREDENTIALS: &str = "Basic bWU6czNjcmV0";

fn key() -> Key {
    Key::parse(&"ab".repeat(32)).unwrap()
}

/// With everything that reaching the server of a test takes.
fn online(config: &mut RunnerConfig) {
    config.source_networks = vec!["127.0.0.0/8".parse().unwrap()];
    config.max_recording_bytes = 1000;
    config.key = Some(key());
}

/// What a server saw and shall serve.
#[derive(Default)]
struct Site {
    /// The recording: a plan for the worker that is a script.
    plan: String,
    /// The target of the path that leads elsewhere.
    elsewhere: Mutex<String>,
    served: AtomicUsize,
    asked: AtomicUsize,
}

impl Site {
    async fn start(plan: serde_json::Value) -> (Arc<Self>, String) {
        let site = Arc::new(Self { plan: plan.to_string(), ..Self::default() });
        let routes = Router::new()
            .route("/clip", get(clip))
            .route("/open", get(async |State(site): State<Arc<Self>>, headers| open(&site, &headers)))
            .route("/moved", get(async || Redirect::temporary("/clip?token=s3cret")))
            .route("/round", get(async || Redirect::temporary("/round")))
            .route("/inside", get(async || Redirect::temporary("http://169.254.169.254/latest/?s3cret")))
            .route("/scheme", get(async || Redirect::temporary("file:///etc/hostname")))
            .route("/elsewhere", get(elsewhere))
            .route("/large", get(async || Body::from_stream(stream::repeat_with(|| piece(100)))))
            .route("/busy", get(busy))
            .route("/trickle", get(async || Body::from_stream(trickle())))
            .route("/silent", get(async || Body::from_stream(stream::iter([piece(1)]).chain(stream::pending()))))
            .with_state(site.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (site, address.to_string())
    }
}

/// A byte now and then, for ever: never silent, and never done.
fn trickle() -> impl Stream<Item = io::Result<Bytes>> {
    let ticks = tokio::time::interval(Duration::from_millis(20));
    stream::unfold(ticks, async |mut ticks| {
        ticks.tick().await;
        Some((piece(1), ticks))
    })
}

fn piece(length: usize) -> io::Result<Bytes> {
    Ok(vec![b'x'; length].into())
}

async fn clip(State(site): State<Arc<Site>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let knows = headers.get(header::AUTHORIZATION).is_some_and(|value| value == CREDENTIALS);
    if !knows || query.as_deref() != Some("token=s3cret") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    site.served.fetch_add(1, Ordering::Relaxed);
    site.plan.clone().into_response()
}

/// Refuses whoever brings credentials along that are not for this server.
fn open(site: &Site, headers: &HeaderMap) -> Response {
    if headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::REFERER) {
        return StatusCode::IM_A_TEAPOT.into_response();
    }
    site.plan.clone().into_response()
}

async fn elsewhere(State(site): State<Arc<Site>>) -> Redirect {
    Redirect::temporary(&site.elsewhere.lock().unwrap())
}

async fn busy(State(site): State<Arc<Site>>) -> Response {
    match site.asked.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        // Breaks off in the middle.
        1 => (
            [(header::CONTENT_LENGTH, "100")],
            Body::from_stream(stream::iter([piece(1), Err(io::Error::other("torn"))])),
        )
            .into_response(),
        _ => site.plan.clone().into_response(),
    }
}

/// Deploys a scenario with this source, sealed with the key of all tests.
async fn deploy(world: &World, url: &str) -> Clip {
    let clip = Clip { id: ScenarioId::generate(), path: PathBuf::new() };
    let mut order = world.order(&clip, 1);
    order.scenario.source = ResolvedSource::Url(seal::seal(Some(&key()), &url.parse().unwrap()).unwrap());
    world.send(Message::Deploy(Box::new(order))).await;
    clip
}

/// The recordings on the runner's disk, without what the script that is their worker writes beside them.
fn recordings(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&world.config.recordings_dir).unwrap().map(|entry| entry.unwrap().path());
    // Workers have folders there, too.
    let entries = entries.filter(|path| path.is_file());
    entries.filter(|path| path.extension().is_none_or(|extension| extension != "journal")).collect()
}

/// The clip with the place where it was worked on.
fn worked_on(world: &World, clip: &Clip) -> Clip {
    let mut entries = std::fs::read_dir(&world.config.recordings_dir).unwrap().map(|entry| entry.unwrap().path());
    let journal = entries.find(|path| path.to_str().unwrap().contains(&clip.id.to_string())).unwrap();
    Clip { id: clip.id, path: journal.with_extension("") }
}

async fn failed(world: &World, clip: &Clip) -> Reason {
    world.phase(clip, 1, P::Failed).await.reason.unwrap()
}

#[tokio::test]
async fn a_recording_is_fetched_once_for_all_workers_and_removed_at_the_end() {
    let (site, server) = Site::start(json!({"frames": 20, "crash_at": [5], "hold_at": 10})).await;
    let world = World::start(online).await;
    let clip = deploy(&world, &format!("http://me:s3cret@{server}/clip?token=s3cret")).await;
    world.published(&clip, 10).await;
    assert_eq!(recordings(&world).len(), 1);
    assert_eq!((worked_on(&world, &clip).starts(), site.served.load(Ordering::Relaxed)), (vec![0, 5], 1));
    world.stop(&clip, 1).await;
    world.phase(&clip, 1, P::Stopped).await;
    assert!(recordings(&world).is_empty());
    assert!(!world.bus.text().contains("s3cret"));
}

#[tokio::test]
async fn redirects_are_followed_and_credentials_stay_where_they_belong() {
    let plan = json!({"frames": 5});
    let ((site, server), (_, other)) = (Site::start(plan.clone()).await, Site::start(plan).await);
    let world = World::start(online).await;
    // The same machine by another name and another port is another server.
    *site.elsewhere.lock().unwrap() = format!("http://{}/open", other.replace("127.0.0.1", "localhost"));
    for path in ["moved", "elsewhere"] {
        let clip = deploy(&world, &format!("http://me:s3cret@{server}/{path}?s3cret")).await;
        world.phase(&clip, 1, P::Finished).await;
        assert_eq!(world.frames(&clip), numbers(5));
    }
    assert!(recordings(&world).is_empty());
}

#[tokio::test]
async fn what_no_other_try_helps_fails_at_once_with_its_reason() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let world = World::start(online).await;
    for (path, code, words) in [
        ("clip?token=s3cret", ReasonCode::SourceAuth, "answers 401 Unauthorized"),
        ("round?s3cret", ReasonCode::SourceUnreachable, "more than 5 times"),
        ("inside?s3cret", ReasonCode::SourceUnreachable, "leads to an address that is not public"),
        ("scheme?s3cret", ReasonCode::SourceUnreachable, "away from `http`"),
        ("large?s3cret", ReasonCode::SourceUnreachable, "larger than the 1000 bytes"),
    ] {
        let clip = deploy(&world, &format!("http://you:s3cret@{server}/{path}")).await;
        let reason = failed(&world, &clip).await;
        assert_eq!(reason.code, code, "{reason:?}");
        assert!(reason.message.contains(words) && reason.message.contains(&server), "{}", reason.message);
        assert!(world.history(&clip, 1).iter().all(|s| s.attempt == 0));
    }
    assert!(recordings(&world).is_empty());
    assert!(!world.bus.text().contains("s3cret"));
}

#[tokio::test]
async fn what_breaks_off_is_fetched_again() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let world = World::start(online).await;
    let clip = deploy(&world, &format!("http://{server}/busy")).await;
    world.phase(&clip, 1, P::Finished).await;
    assert_eq!(world.frames(&clip), numbers(5));
    let history = world.history(&clip, 1);
    let reasons: Vec<_> =
        history.iter().filter(|s| s.phase == P::Recovering).filter_map(|s| s.reason.clone()).collect();
    for words in ["answers 503", "cannot be fetched"] {
        assert!(reasons.iter().any(|r| r.message.contains(words)), "{words}: {reasons:?}");
    }
}

#[tokio::test]
async fn a_source_that_is_not_there_is_given_up() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = World::start(online).await;
    for (url, words) in [
        (format!("http://{server}/nothing?s3cret"), "answers 404"),
        (format!("http://me:s3cret@{gone}/clip"), "cannot be fetched: no connection could be made"),
        ("http://s3cret@cameras.invalid/clip".into(), "its host, or one it leads to, is not known"),
    ] {
        let clip = deploy(&world, &url).await;
        let reason = failed(&world, &clip).await;
        assert_eq!(reason.code, ReasonCode::SourceUnreachable, "{reason:?}");
        assert!(reason.message.contains(words) && reason.message.contains("gave up after 3"), "{}", reason.message);
    }
    assert!(!world.bus.text().contains("s3cret"));
}

#[tokio::test]
async fn a_source_that_falls_silent_is_given_up() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let world = World::start(|config| {
        online(config);
        config.frame_timeout = Duration::from_millis(200);
    })
    .await;
    let clip = deploy(&world, &format!("http://{server}/silent?s3cret")).await;
    let reason = failed(&world, &clip).await;
    assert_eq!(reason.code, ReasonCode::SourceStalled, "{reason:?}");
    assert!(reason.message.contains("delivered nothing for 200ms"), "{}", reason.message);
    assert!(recordings(&world).is_empty());
    assert!(!world.bus.text().contains("s3cret"));
}

#[tokio::test]
async fn a_source_that_trickles_keeps_no_slot_and_is_given_up() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let world = World::start(|config| {
        online(config);
        config.max_workers = 1;
        // Whether it is too slow is seen at the end of a window, which a test must be able to wait for.
        config.rate_window = Duration::from_secs(3);
    })
    .await;
    let slow = deploy(&world, &format!("http://{server}/trickle")).await;
    let fetching = |s: &WorkerStatus| s.progress.fetching.is_some_and(|f| f.bytes > 0);
    world.status(&slow, 1, fetching).await;
    let neighbour = world.clip(json!({"frames": 5}));
    world.deploy(&neighbour, 1).await;
    world.phase(&neighbour, 1, P::Finished).await;
    assert!(world.history(&slow, 1).iter().all(|s| !s.phase.is_ended()), "the neighbour waited for it");
    let last = world.phase(&slow, 1, P::Failed).await;
    let reason = last.reason.unwrap();
    assert_eq!(reason.code, ReasonCode::SourceStalled, "{reason:?}");
    assert!(
        reason.message.contains("less than 16 KiB a second") && reason.message.contains("1 restarts"),
        "{reason:?}"
    );
    assert!(recordings(&world).is_empty());
}

#[tokio::test]
async fn a_source_that_takes_longer_than_it_may_is_given_up() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let world = World::start(|config| {
        online(config);
        (config.fetch_timeout, config.least_rate) = (Duration::from_secs(1), 1);
    })
    .await;
    let clip = deploy(&world, &format!("http://{server}/trickle")).await;
    let reason = failed(&world, &clip).await;
    assert_eq!(reason.code, ReasonCode::SourceStalled, "{reason:?}");
    assert!(reason.message.contains("not fetched within 1 s"), "{}", reason.message);
    assert!(world.history(&clip, 1).iter().all(|s| s.attempt == 0));
}

#[tokio::test]
async fn a_recording_waits_for_a_slot_once_it_is_here() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let world = World::start(|config| {
        online(config);
        config.max_workers = 1;
    })
    .await;
    let first = world.clip(json!({"frames": 20, "hold_at": 10}));
    world.deploy(&first, 1).await;
    world.published(&first, 10).await;
    let clip = deploy(&world, &format!("http://me:s3cret@{server}/clip?token=s3cret")).await;
    let waits = |s: &WorkerStatus| s.reason.is_some() && s.progress.fetching.is_none();
    eventually("the recording", || !recordings(&world).is_empty()).await;
    let waiting = world.status(&clip, 1, waits).await;
    assert_eq!((waiting.phase, waiting.reason.unwrap().code), (P::Starting, ReasonCode::NoCapacity));
    world.stop(&first, 1).await;
    world.phase(&clip, 1, P::Finished).await;
    assert_eq!(world.frames(&clip), numbers(5));
}

#[tokio::test]
async fn a_stop_ends_a_fetch() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let world = World::start(online).await;
    let clip = deploy(&world, &format!("http://{server}/silent")).await;
    eventually("the recording's beginning", || !recordings(&world).is_empty()).await;
    world.stop(&clip, 1).await;
    world.phase(&clip, 1, P::Stopped).await;
    assert!(recordings(&world).is_empty());
}

#[tokio::test]
async fn a_runner_that_may_not_or_cannot_says_so() {
    let (_, server) = Site::start(json!({"frames": 5})).await;
    let whole = format!("http://me:s3cret@{server}/clip?token=s3cret");
    for (key, networks, code, words) in [
        (Some(key()), vec![], ReasonCode::SourceUnreachable, "`source_networks`"),
        (None, vec!["127.0.0.0/8".parse().unwrap()], ReasonCode::SourceAuth, "FRAMEHOOK_KEY"),
        (Key::parse(&"cd".repeat(32)).ok(), vec![], ReasonCode::SourceAuth, "another key"),
    ] {
        let world = World::start(|config| {
            config.key = key;
            config.source_networks = networks;
        })
        .await;
        let clip = deploy(&world, &whole).await;
        let reason = failed(&world, &clip).await;
        assert_eq!(reason.code, code, "{reason:?}");
        assert!(reason.message.contains(words) && !reason.message.contains("s3cret"), "{}", reason.message);
    }
}
