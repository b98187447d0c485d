//! A client of the REST API, and what tests ask of scenarios.
//!
//! It knows the addresses of one API or of several, as a load balancer would: where one does not answer it
//! asks the next, until the deadline. So what it posts must be such that posting it twice is posting it once.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use framehook_core::{delivery::Delivery, invariants, prediction::Prediction, state::ScenarioState};
use serde_json::{Value, json};
use ureq::{Agent, Body, http::Response};

use crate::{DEADLINE, asset, onnx, plugin, wait_for};

pub struct Client {
    urls: Vec<String>,
    agent: Agent,
    turn: AtomicUsize,
    deadline: Duration,
}

/// An answer: status and JSON body (`Null` where there is none).
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Client {
    /// A client of one API: whoever has no other waits for the answer.
    #[must_use]
    pub fn of(url: &str) -> Self {
        Self::new(vec![url.to_owned()], DEADLINE, DEADLINE)
    }

    /// A client of several, each of which has `patience` for an answer; a condition has been waited for in
    /// vain after `deadline`.
    ///
    /// # Panics
    /// Without a URL.
    #[must_use]
    pub fn new(urls: Vec<String>, patience: Duration, deadline: Duration) -> Self {
        assert!(!urls.is_empty(), "there is an API to ask");
        let agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(patience)).build().new_agent();
        Self { urls, agent, turn: AtomicUsize::new(0), deadline }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.urls[0]
    }

    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.ask(|agent, url| answer(agent.get(format!("{url}{path}")).call()?))
    }

    /// What is no text: its content type, and its bytes.
    ///
    /// # Panics
    /// When the answer is a problem.
    #[must_use]
    pub fn get_bytes(&self, path: &str) -> (String, Vec<u8>) {
        self.ask(|agent, url| {
            let mut response = agent.get(format!("{url}{path}")).call()?;
            let kind = response.headers()["content-type"].to_str().expect("it is ASCII").to_owned();
            let bytes = response.body_mut().read_to_vec()?;
            assert_eq!(response.status(), 200, "{path}: {}", String::from_utf8_lossy(&bytes));
            Ok((kind, bytes))
        })
    }

    #[must_use]
    pub fn delete(&self, path: &str) -> Answer {
        self.ask(|agent, url| answer(agent.delete(format!("{url}{path}")).call()?))
    }

    /// Sends bytes with a content type.
    #[must_use]
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        self.ask(|agent, url| answer(agent.post(format!("{url}{path}")).content_type(content_type).send(body)?))
    }

    /// Sends a merge patch for one revision.
    #[must_use]
    pub fn patch(&self, path: &str, if_match: Option<&str>, patch: &Value) -> Answer {
        let patch = patch.to_string();
        self.ask(|agent, url| {
            let request = agent.patch(format!("{url}{path}")).content_type("application/merge-patch+json");
            let request = if_match.into_iter().fold(request, |request, value| request.header("If-Match", value));
            answer(request.send(patch.as_bytes())?)
        })
    }

    #[must_use]
    pub fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    #[must_use]
    pub fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.ask(|agent, url| {
            let request = agent.post(format!("{url}{path}")).content_type("application/json");
            answer(request.header("Idempotency-Key", key).send(body.as_bytes())?)
        })
    }

    /// Uploads a file that must be accepted.
    ///
    /// # Panics
    /// When it is not.
    pub fn upload(&self, path: &str, file: &Path) -> Value {
        self.upload_bytes(path, &fs::read(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display())))
    }

    /// # Panics
    /// When it is refused.
    pub fn upload_bytes(&self, path: &str, bytes: &[u8]) -> Value {
        let answer = self.post(path, "application/octet-stream", bytes);
        assert!(matches!(answer.status, 200 | 201), "{path}: {answer:?}");
        answer.body
    }

    /// Uploads the demo model, the light one, the clip and the plugins.
    pub fn upload_demo(&self) {
        self.upload("/model?name=street&version=1", &asset("street.onnx"));
        self.upload_bytes("/model?name=mosaic&version=1", &onnx::mosaic());
        self.upload("/video?name=street&version=1", &asset("demo1.mp4"));
        for name in ["yolo", "line-counter", "motion-gate", "misbehave"] {
            self.upload("/plugin", &plugin(name));
        }
    }

    /// All predictions, as NDJSON.
    ///
    /// # Panics
    /// When a line is no prediction.
    #[must_use]
    pub fn predictions(&self, id: &str) -> Vec<Prediction> {
        let text = self.ask(|agent, url| {
            let request = agent.get(format!("{url}/prediction/{id}")).header("accept", "application/x-ndjson");
            let mut response = request.call()?;
            assert_eq!(response.status(), 200);
            response.body_mut().with_config().limit(1 << 30).read_to_string()
        });
        text.lines().map(|line| serde_json::from_str(line).expect("a line is a prediction")).collect()
    }

    /// Whether an API answers at once: no second try, and no other is asked.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.agent.get(format!("{}/healthz", self.url())).call().is_ok()
    }

    /// Asks one API, and where it does not answer the next, until one does.
    fn ask<T>(&self, request: impl Fn(&Agent, &str) -> Result<T, ureq::Error>) -> T {
        wait_for("an API to answer", self.deadline, || {
            let turn = self.turn.load(Ordering::Relaxed);
            let answer = request(&self.agent, &self.urls[turn % self.urls.len()]);
            answer.map_err(|_| self.turn.store(turn + 1, Ordering::Relaxed)).ok()
        })
    }

    // ----- scenarios -----

    /// Posts a scenario that must be accepted, each to another API; gives its id.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn post_scenario(&self, scenario: &Value) -> String {
        self.turn.fetch_add(1, Ordering::Relaxed);
        let key = format!("test-{:016x}", fastrand::u64(..));
        let answer = wait_for("the scenario to be taken", self.deadline, || {
            let answer = self.post_with_key("/scenario/init", &key, scenario);
            // A queue may be full, a database away.
            (!matches!(answer.status, 429 | 503)).then_some(answer)
        });
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["id"].as_str().expect("a scenario has an id").to_owned()
    }

    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn scenario(&self, id: &str) -> Value {
        self.read(&format!("/scenario/{id}"))
    }

    /// What can be read once the database can: an API without it says 503.
    ///
    /// # Panics
    /// When the answer is another problem.
    #[must_use]
    pub fn read(&self, path: &str) -> Value {
        let answer = wait_for("the database to be there", self.deadline, || {
            Some(self.get(path)).filter(|answer| answer.status != 503)
        });
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// Waits until a scenario is in one of these states; gives it.
    pub fn wait_for_state(&self, id: &str, states: &[&str]) -> Value {
        self.wait_for_scenario(id, &format!("{states:?}"), |s| {
            states.contains(&s["state"].as_str().unwrap_or_default())
        })
    }

    /// # Panics
    /// At the deadline, with the scenario as it was then.
    pub fn wait_for_scenario(&self, id: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("scenario {id} to be {what}"), self.deadline, || {
                last = self.scenario(id);
                condition(&last).then(|| last.clone())
            })
        }));
        waited.unwrap_or_else(|_| panic!("scenario {id} did not become {what}: {last:#}"))
    }

    /// Waits until the row of frame `frame` of the clip, or a later one, is stored.
    pub fn wait_for_row(&self, id: &str, frame: u64) {
        // The clip has 25 frames a second.
        let path = format!("/prediction/{id}?from_us={}&limit=1", frame * 40_000);
        wait_for(&format!("frame {frame} of scenario {id}"), self.deadline, || {
            let rows = self.get(&path).body;
            rows["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(())
        });
    }

    /// Waits until a scenario completed with this many frames; gives its predictions, one a frame, in order.
    ///
    /// # Panics
    /// When it ends otherwise.
    pub fn completed(&self, id: &str, frames: u64) -> Vec<Prediction> {
        // One that was started again while it stopped passes through `stopped`, and goes on by itself.
        let scenario = self.wait_for_scenario(id, "at its end", |s| match s["state"].as_str() {
            Some("completed" | "failed") => true,
            Some("stopped") => s["desired"] != "running",
            _ => false,
        });
        assert_eq!(scenario["state"], "completed", "{scenario:#}");
        let rows = self.predictions(id);
        invariants::every_frame_once(&rows, frames).unwrap_or_else(|e| panic!("scenario {id}: {e}"));
        let balance = invariants::delivery_balances(&self.delivery(id), ScenarioState::Completed);
        balance.unwrap_or_else(|e| panic!("scenario {id}: {e}"));
        rows
    }

    /// What became of every frame.
    ///
    /// # Panics
    /// When there is no such scenario.
    #[must_use]
    pub fn delivery(&self, id: &str) -> Delivery {
        serde_json::from_value(self.read(&format!("/scenario/{id}/delivery"))).expect("a delivery")
    }

    /// `(from, to)` of every line of a scenario's history.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn transitions(&self, id: &str) -> Vec<(String, String)> {
        let page = self.read(&format!("/scenario/{id}/history?limit=1000"));
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let items = page["items"].as_array().expect("a page has items");
        items.iter().map(|line| (text(&line["from"]), text(&line["to"]))).collect()
    }
}

fn answer(mut response: Response<Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string()?;
    let body = serde_json::from_str(&text).unwrap_or(if text.is_empty() { Value::Null } else { Value::String(text) });
    Ok(Answer { status, body })
}

/// The demo scenario with only `yolo` behind the model: a pure function of the clip.
#[must_use]
pub fn demo_scenario() -> Value {
    json!({
        "source": {"video": "street@1"},
        "model": "street@1",
        "plugins": {"post": [{"use": "yolo", "config": {"labels": ["person", "car", "truck"], "min_score": 0.05}}]},
    })
}

/// The same with a model that takes next to no time, for all that is not about a model, and with a hook whose
/// tracks and counts say on each frame whether it knows all frames before.
#[must_use]
pub fn light_scenario() -> Value {
    let mut scenario = demo_scenario();
    scenario["model"] = "mosaic@1".into();
    let counter = json!({"use": "line-counter", "config": {"line": [[0.5, 0.0], [0.5, 1.0]]}});
    scenario["plugins"]["post"].as_array_mut().expect("a list").push(counter);
    scenario
}

/// The light scenario, at this many milliseconds a frame and more: the clip takes a second otherwise, and
/// what has to be seen while it runs could be over before a busy machine looks. What is found is the same,
/// and waiting takes no processor time.
#[must_use]
pub fn slow_scenario(frame_ms: u64) -> Value {
    slowed(light_scenario(), frame_ms)
}

/// A scenario of the clip, which has a frame each 40 ms, that takes so long for each; with a hook in front.
#[must_use]
pub fn slowed(mut scenario: Value, frame_ms: u64) -> Value {
    scenario["plugins"]["pre"] = json!([{"use": "misbehave", "config": {"mode": "none"}}]);
    scenario["max_speed"] = json!(40.0 / frame_ms as f64);
    scenario
}
