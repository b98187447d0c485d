//! `framehook up` as a user runs it, and a client that speaks HTTP to it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use framehook_core::prediction::Prediction;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::{Agent, Body, http::Response};

use crate::{DEADLINE, asset, executables, plugin, wait_for};

/// One platform at a time: eight workers on two cores would only wait for each other, and a test that measures
/// promptness would measure its neighbours.
static ALONE: Mutex<()> = Mutex::new(());

/// A running platform. Dropping it ends its processes; the folder goes with it.
pub struct Platform {
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
    url: String,
    agent: Agent,
    _alone: MutexGuard<'static, ()>,
}

/// An answer: status and JSON body (`Null` where there is none).
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Platform {
    /// On an empty folder, with these further arguments of `framehook up`; waits until no other platform of this test
    /// process runs.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let agent =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build().new_agent();
        // A test that failed while it held this says nothing about the next.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut platform = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            process: None,
            url: String::new(),
            agent,
            _alone: alone,
        };
        platform.up();
        platform
    }

    /// On an empty folder, with the demo model, clip and stock plugins uploaded.
    #[must_use]
    pub fn with_demo(arguments: &[&str]) -> Self {
        let platform = Self::start(arguments);
        platform.upload("/model?name=street&version=1", &asset("street.onnx"));
        platform.upload("/video?name=street&version=1", &asset("demo1.mp4"));
        for name in ["yolo", "line-counter", "motion-gate", "misbehave"] {
            platform.upload("/plugin", &plugin(name));
        }
        platform
    }

    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the process wrote to stderr so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts the process on whatever the folder holds.
    pub fn up(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let _gone = fs::remove_file(self.data().join("url"));
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log file");
        let out = File::options().create(true).append(true).open(self.folder.path().join("out")).expect("a log file");
        let child = Command::new(executables().join("framehook"))
            .args(["up", "--port", "0", "--data"])
            .arg(self.data())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(log)
            .spawn()
            .expect("target/release/framehook is missing: run `make build`");
        let child = self.process.insert(child);
        let url = self.folder.path().join("data/url");
        let mut ended = None;
        let found = wait_for("framehook up to write its address", DEADLINE, || {
            ended = child.try_wait().expect("a child can be waited for");
            let address = fs::read_to_string(&url).unwrap_or_default();
            (ended.is_some() || !address.is_empty()).then_some(address)
        });
        assert!(ended.is_none(), "framehook up ended: {}", self.log());
        self.url = found;
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the platform runs").id()
    }

    /// The worker processes that have a job, as children of this one; a spare has none, and its executable's name.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        children_of(self.pid()).into_iter().filter(|pid| name_of(*pid) == "framehook-job").collect()
    }

    /// Sends a signal to every worker.
    pub fn signal_workers(&self, to_send: Signal) {
        for worker in self.workers() {
            signal(worker, to_send);
        }
    }

    /// `kill -9`, and every child is gone too.
    pub fn kill(&mut self) {
        let children = children_of(self.pid());
        let mut child = self.process.take().expect("the platform runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        for child in children {
            wait_for("the workers to end with their runner", DEADLINE, || (!is_alive(child)).then_some(()));
        }
    }

    /// Ctrl-C; gives the exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        let mut child = self.process.take().expect("the platform runs");
        signal(child.id(), Signal::INT);
        wait_for("framehook up to end", DEADLINE, || child.try_wait().expect("a child can be waited for")).code()
    }

    // ----- HTTP -----

    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(self.at(path)).call())
    }

    #[must_use]
    pub fn delete(&self, path: &str) -> Answer {
        answer(self.agent.delete(self.at(path)).call())
    }

    /// Sends bytes with a content type.
    #[must_use]
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        answer(self.agent.post(self.at(path)).content_type(content_type).send(body))
    }

    #[must_use]
    pub fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.post(path, "application/json", body.to_string().as_bytes())
    }

    #[must_use]
    pub fn post_with_key(&self, path: &str, key: &str, body: &Value) -> Answer {
        let request = self.agent.post(self.at(path)).content_type("application/json").header("Idempotency-Key", key);
        answer(request.send(body.to_string().as_bytes()))
    }

    /// Uploads a file that must be accepted.
    pub fn upload(&self, path: &str, file: &Path) -> Value {
        let bytes = fs::read(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
        let answer = self.post(path, "application/octet-stream", &bytes);
        assert!(matches!(answer.status, 200 | 201), "{}: {answer:?}", file.display());
        answer.body
    }

    /// All predictions, as NDJSON.
    #[must_use]
    pub fn predictions(&self, id: &str) -> Vec<Prediction> {
        let path = format!("/prediction/{id}");
        let mut response =
            self.agent.get(self.at(&path)).header("accept", "application/x-ndjson").call().expect("an answer");
        assert_eq!(response.status(), 200);
        let text = response.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body");
        text.lines().map(|line| serde_json::from_str(line).expect("a line is a prediction")).collect()
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    // ----- scenarios -----

    /// Posts a scenario that must be accepted; gives its id.
    #[must_use]
    pub fn post_scenario(&self, scenario: &Value) -> String {
        let answer = self.post_json("/scenario/init", scenario);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body["id"].as_str().expect("a scenario has an id").to_owned()
    }

    #[must_use]
    pub fn scenario(&self, id: &str) -> Value {
        let answer = self.get(&format!("/scenario/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// Waits until a scenario is in one of these states; gives it.
    pub fn wait_for_state(&self, id: &str, states: &[&str]) -> Value {
        self.wait_for_scenario(id, &format!("{states:?}"), |s| {
            states.contains(&s["state"].as_str().unwrap_or_default())
        })
    }

    pub fn wait_for_scenario(&self, id: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("scenario {id} to be {what}"), DEADLINE, || {
                last = self.scenario(id);
                condition(&last).then(|| last.clone())
            })
        }));
        waited.unwrap_or_else(|_| {
            panic!("scenario {id} did not become {what}: {last:#}\nlog:\n{}", self.log());
        })
    }

    /// Waits until the row of frame `frame` of the clip, or a later one, is stored.
    pub fn wait_for_row(&self, id: &str, frame: u64) {
        // The clip has 25 frames a second.
        let path = format!("/prediction/{id}?from_us={}&limit=1", frame * 40_000);
        wait_for(&format!("frame {frame} of scenario {id}"), DEADLINE, || {
            let rows = self.get(&path).body;
            rows["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(())
        });
    }

    /// Waits until a scenario completed with this many frames; gives its predictions, one a frame, in order.
    pub fn completed(&self, id: &str, frames: u64) -> Vec<Prediction> {
        // One that was started again while it stopped passes through `stopped`, and goes on by itself.
        let scenario = self.wait_for_scenario(id, "at its end", |s| match s["state"].as_str() {
            Some("completed" | "failed") => true,
            Some("stopped") => s["desired"] != "running",
            _ => false,
        });
        assert_eq!(scenario["state"], "completed", "{scenario:#}\n{}", self.log());
        let rows = self.predictions(id);
        framehook_core::invariants::every_frame_once(&rows, frames).unwrap();
        rows
    }

    /// `(from, to)` of every line of a scenario's history.
    #[must_use]
    pub fn transitions(&self, id: &str) -> Vec<(String, String)> {
        let answer = self.get(&format!("/scenario/{id}/history?limit=1000"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let items = answer.body["items"].as_array().expect("a page has items");
        items.iter().map(|line| (text(&line["from"]), text(&line["to"]))).collect()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // Already ended is as good.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// These arguments of `framehook up`, and those with which no hook is ended for the time it keeps busy.
#[must_use]
pub fn patient<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--hook-call-ms", "5000"]].concat()
}

/// The demo scenario, at this many milliseconds a frame and more: the clip takes a second otherwise, and what has to
/// be seen while it runs could be over before a busy machine looks. What is found is the same.
#[must_use]
pub fn slow_scenario(frame_ms: u64) -> Value {
    let mut scenario = demo_scenario();
    scenario["plugins"]["pre"] = json!([{"use": "misbehave", "config": {"mode": "none", "delay_ms": frame_ms}}]);
    scenario
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

fn answer(result: Result<Response<Body>, ureq::Error>) -> Answer {
    let mut response = result.expect("the platform answers");
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string().expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(if text.is_empty() { Value::Null } else { Value::String(text) });
    Answer { status, body }
}

/// Sends a signal to a process that a test started.
fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid fits")).expect("a pid is not 0");
    // It may have ended by itself meanwhile.
    let _gone = kill_process(pid, signal);
}

#[must_use]
pub fn is_alive(pid: u32) -> bool {
    // A zombie has ended; only its parent has not noticed yet.
    state_of(pid).is_some_and(|(_, _, state)| state != 'Z')
}

fn children_of(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| state_of(*pid).is_some_and(|(_, owner, state)| owner == parent && state != 'Z')).collect()
}

fn name_of(pid: u32) -> String {
    state_of(pid).map_or(String::new(), |(name, _, _)| name)
}

/// Name, parent and state of a process.
fn state_of(pid: u32) -> Option<(String, u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((name, fields.next()?.parse().ok()?, state))
}

/// How soon an answer must come while workers are busy.
pub const PROMPT: Duration = Duration::from_secs(1);
