//! Keeps the answers of `GET /scenario/{id}` and of pages of `GET /prediction/{id}` for a second.
//!
//! Invariants: an answer is at most [`FRESH`] old, whatever the cache does, if the machines' clocks agree. A
//! client that changes a scenario through this process reads the change here. Nothing but these two answers
//! is read from the cache; without a cache everything is the same, only slower.

use std::{
    collections::HashMap,
    future::Future,
    time::{Duration, Instant},
};

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use framehook_core::ids::ScenarioId;
use framehook_infra::cache::{Cache, Cached};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::{http::problem::Problem, metrics};

/// Short enough for a progress bar; many clients that poll the same scenario still cost one read a second.
pub(crate) const FRESH: Duration = Duration::from_secs(1);

/// Below this nobody would profit.
const MIN_KEPT: Duration = Duration::from_millis(10);

/// A page of a thousand frames; a larger one is read anew, so that Redis answers others in time.
const MAX_BODY: usize = 4 << 20;

#[derive(Default)]
pub(crate) struct ResponseCache {
    cache: Option<Cache>,
    /// Scenarios that were changed here within the last [`FRESH`]: what others may have cached of them is
    /// from before.
    changed: Mutex<HashMap<ScenarioId, Instant>>,
}

impl ResponseCache {
    pub(crate) fn new(cache: Option<Cache>) -> Self {
        Self { cache, changed: Mutex::default() }
    }

    /// From now on readers here see the scenario as it is.
    pub(crate) fn changed(&self, id: ScenarioId) {
        if self.cache.is_some() {
            let mut changed = self.changed.lock();
            changed.retain(|_, at| at.elapsed() <= FRESH);
            changed.insert(id, Instant::now());
        }
    }

    /// The answer called `key`, from the cache or from `read`, which gives JSON.
    pub(crate) async fn answer(
        &self,
        id: ScenarioId,
        what: &'static str,
        key: &str,
        read: impl Future<Output = Result<Vec<u8>, Problem>>,
    ) -> Result<Response, Problem> {
        let Some(cache) = self.cache.as_ref().filter(|_| !self.was_changed(id)) else {
            return Ok(json(read.await?, None));
        };
        let key = format!("{what}:{id}:{key}");
        let outcome = match cache.get(&key).await {
            Ok(Some(cached)) => match age(&cached) {
                // It may have been changed while Redis answered.
                Some(age) if !self.was_changed(id) => {
                    metrics::global().cached(what, "hit");
                    return Ok(json(cached.body, Some(age)));
                }
                _ => "miss",
            },
            Ok(None) => "miss",
            Err(_) => "unavailable",
        };
        metrics::global().cached(what, outcome);
        let ours = Cached { read_at: Timestamp::now(), body: read.await? };
        let mut theirs = None;
        // What took long to read is of use for so much less.
        let left = FRESH.saturating_sub(age(&ours).unwrap_or(FRESH));
        if outcome == "miss" && ours.body.len() <= MAX_BODY && left >= MIN_KEPT {
            // That it fails was said where it did.
            theirs = cache.keep(&key, &ours, left).await.ok().flatten();
        }
        // Others answer from what is kept there: with ours, which may be newer, a client would see time go
        // back.
        match theirs.and_then(|theirs| Some((age(&theirs)?, theirs.body))) {
            Some((age, body)) if !self.was_changed(id) => Ok(json(body, Some(age))),
            _ => Ok(json(ours.body, None)),
        }
    }

    fn was_changed(&self, id: ScenarioId) -> bool {
        let changed = self.changed.lock();
        changed.get(&id).is_some_and(|at| at.elapsed() <= FRESH)
    }
}

/// `None`: too old, or of a clock that is ahead of ours.
fn age(cached: &Cached) -> Option<Duration> {
    let age = Duration::try_from(Timestamp::now().duration_since(cached.read_at)).ok()?;
    (age <= FRESH).then_some(age)
}

fn json(body: Vec<u8>, age: Option<Duration>) -> Response {
    let age = age.map(|age| [(header::AGE, age.as_secs())]);
    ([(header::CONTENT_TYPE, "application/json")], age, body).into_response()
}
