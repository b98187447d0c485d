//! The cache on a real Redis: what it saves, and what it must never do.

use std::{
    mem::swap,
    time::{Duration, Instant},
};

use framehook_core::{ids::ScenarioId, state::Desired};
use framehook_infra::cache::{Cache, Cached};
use framehook_tests::servers::{Redis, redis_url};
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use crate::app::{Answer, TestApp, eventually, prediction};

/// The stated time; a test needs no other way to know it than a client has.
const FRESH: Duration = Duration::from_secs(1);

/// A call to a cache that hangs, and a busy machine.
const PROMPT: Duration = Duration::from_millis(500);

/// Two instances on one store and one Redis.
async fn two(url: &str) -> (TestApp, axum::Router) {
    let app = TestApp::stocked().await;
    let router = || {
        let cache = Some(Cache::new(url).unwrap());
        crate::app::router(app.config.clone(), app.store.clone(), app.bus.clone(), app.blobs.clone(), cache)
    };
    let (one, other) = (router(), router());
    (TestApp { router: one, ..app }, other)
}

async fn ours() -> Redis {
    spawn_blocking(Redis::start).await.unwrap()
}

fn is_hit(answer: &Answer) -> bool {
    answer.headers.contains_key("age")
}

/// Asks until the answer comes from the cache.
async fn hit(app: &TestApp, uri: &str) -> Answer {
    eventually("an answer from the cache", async || Some(app.get(uri).await).filter(is_hit)).await
}

async fn count(app: &TestApp, what: &str, outcome: &str) -> u64 {
    let line = format!(r#"framehook_cache_requests_total{{what="{what}",outcome="{outcome}"}} "#);
    app.get("/metrics").await.text().lines().find_map(|l| l.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

fn desired(answer: &Answer) -> String {
    answer.ok(200)["desired"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_second_reader_hits_and_sees_the_same() {
    let (mut app, mut other) = two(&spawn_blocking(redis_url).await.unwrap()).await;
    let id = app.scenario().await;
    app.store((0..30).map(|n| prediction(id, n)).collect()).await;
    let (hits, misses) = (count(&app, "prediction", "hit").await, count(&app, "prediction", "miss").await);
    for uri in [format!("/scenario/{id}"), format!("/prediction/{id}?limit=7")] {
        let first = app.get(&uri).await;
        assert!(!is_hit(&first));
        let second = hit(&app, &uri).await;
        assert_eq!((second.status, &second.headers["content-type"]), (first.status, &first.headers["content-type"]));
        assert_eq!(second.json(), first.json());
        swap(&mut app.router, &mut other);
        assert_eq!(hit(&app, &uri).await.json(), first.json(), "the other instance has it too");
    }
    // Another page is another answer, and nobody's mistake is kept.
    assert_eq!(app.get(&format!("/prediction/{id}?limit=8")).await.ok(200)["items"].as_array().unwrap().len(), 8);
    let nobody = ScenarioId::generate();
    for _ in 0..2 {
        app.get(&format!("/scenario/{nobody}")).await.problem(404, "scenario_not_found");
    }
    assert!(count(&app, "prediction", "hit").await > hits && count(&app, "prediction", "miss").await > misses);
}

#[tokio::test]
async fn who_changes_a_scenario_sees_it_at_once_and_everybody_within_the_stated_time() {
    let (mut app, mut other) = two(&spawn_blocking(redis_url).await.unwrap()).await;
    let id = app.scenario().await;
    let uri = format!("/scenario/{id}");
    assert_eq!(desired(&hit(&app, &uri).await), "running");
    for (call, method, uri_of_call) in
        [("stopped", "POST", format!("{uri}/stop")), ("running", "POST", format!("{uri}/start"))]
    {
        app.call(method, &uri_of_call).await.ok(200);
        assert_eq!(desired(&app.get(&uri).await), call);
    }
    app.call("DELETE", &uri).await.ok(204);
    let deleted = Instant::now();
    app.get(&uri).await.problem(404, "scenario_not_found");
    app.get(&format!("/prediction/{id}")).await.problem(404, "scenario_not_found");

    // The other may still have it, but never for longer than it says.
    swap(&mut app.router, &mut other);
    eventually("the other instance to see it", async || {
        let asked = deleted.elapsed();
        let is_gone = app.get(&uri).await.status == 404;
        assert!(is_gone || asked <= FRESH, "{asked:?} after");
        is_gone.then_some(())
    })
    .await;
}

/// What one reader was told, another that read at the same time is told, too: for a client of both, time
/// never goes back.
#[tokio::test]
async fn who_comes_first_is_answered_and_the_others_with_it() {
    let url = spawn_blocking(redis_url).await.unwrap();
    let cache = Cache::new(&url).unwrap();
    // It keeps microseconds.
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
    let of = |body: &str| Cached { read_at: now, body: body.into() };
    let (key, first, second) = (format!("test:{}", uuid::Uuid::now_v7()), of("first"), of("second"));
    // Whether a call that was too late for us was executed all the same, the next one tells.
    let keep = async |value, time| eventually("the cache", async || cache.keep(&key, value, time).await.ok()).await;
    keep(&first, Duration::from_secs(60)).await;
    assert_eq!(keep(&second, Duration::from_secs(60)).await, Some(first));
    let short = format!("{key}:short");
    eventually("the cache", async || cache.keep(&short, &second, FRESH).await.ok()).await;
    eventually("its time to be over", async || (cache.get(&short).await == Ok(None)).then_some(())).await;
}

/// As a Redis would that executes a write late, or has restored a file.
#[tokio::test]
async fn what_is_too_old_is_not_served_whoever_kept_it() {
    let url = spawn_blocking(redis_url).await.unwrap();
    let (app, _) = two(&url).await;
    let cache = Cache::new(&url).unwrap();
    let body = br#"{"desired": "from the cache"}"#.to_vec();
    // The answer about a scenario of which this is kept.
    let answer = async |read_at| {
        let (id, cached) = (app.scenario().await, Cached { read_at, body: body.clone() });
        let key = format!("scenario:{id}:");
        let kept = async || cache.keep(&key, &cached, Duration::from_secs(60)).await.ok();
        eventually("a write to the cache", kept).await;
        app.get(&format!("/scenario/{id}")).await
    };
    let answer_of_now = answer(Timestamp::now()).await;
    // The key is the right one; a busy machine may have taken a second.
    assert!(!is_hit(&answer_of_now) || desired(&answer_of_now) == "from the cache");
    for read_at in [Timestamp::now() - FRESH - Duration::from_millis(1), Timestamp::now() + Duration::from_secs(5)] {
        let answer = answer(read_at).await;
        assert!(!is_hit(&answer) && desired(&answer) == "running", "{read_at}");
    }
}

#[tokio::test]
async fn a_redis_that_dies_or_hangs_costs_nothing_and_is_used_again() {
    let mut redis = ours().await;
    let (app, _) = two(&redis.url()).await;
    let id = app.scenario().await;
    let uri = format!("/scenario/{id}");
    hit(&app, &uri).await;

    redis.hang();
    let unavailable = count(&app, "scenario", "unavailable").await;
    let hung = Instant::now();
    app.store.set_desired(id, Desired::Stopped).await.unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let begin = Instant::now();
        assert_eq!(desired(&app.get(&uri).await), "stopped");
        slowest = slowest.max(begin.elapsed());
    }
    assert!(slowest < PROMPT, "{slowest:?}");
    assert!(count(&app, "scenario", "unavailable").await >= unavailable + 100);
    println!("100 answers beside a hanging Redis: {:?}, the slowest {slowest:?}", hung.elapsed());
    redis.resume();
    assert_eq!(desired(&hit(&app, &uri).await), "stopped");

    let mut redis = spawn_blocking(move || (redis.kill(), redis).1).await.unwrap();
    for _ in 0..100 {
        assert_eq!(desired(&app.get(&uri).await), "stopped");
    }
    let _redis = spawn_blocking(move || (redis.start_again(), redis).1).await.unwrap();
    assert_eq!(desired(&hit(&app, &uri).await), "stopped");
}

#[tokio::test]
async fn a_cache_may_be_encrypted() {
    let (_redis, url) = spawn_blocking(Redis::start_encrypted).await.unwrap();
    let (app, _) = two(&url).await;
    let id = app.scenario().await;
    hit(&app, &format!("/scenario/{id}")).await;
}

#[tokio::test]
async fn an_address_that_cannot_be_is_refused_without_being_shown() {
    let error = Cache::new("http://me:hunter2@nowhere").err().unwrap().to_string();
    assert!(error.contains("redis://") && !error.contains("hunter2"), "{error}");
}
