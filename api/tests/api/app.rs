//! One API on a data folder of its own, and what tests say to it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Request, StatusCode},
};
use framehook_api::{ApiConfig, App, HttpLimits, Limits, Signing, UploadCaps};
use framehook_compiled::{COMPILE_TIMEOUT, CompiledPlugins};
use framehook_confine::Sandbox;
use framehook_core::{
    ids::{Digest, ScenarioId},
    memory::MemoryCaps,
    prediction::{Detection, Event, FrameTimings, Prediction, Provenance, Severity},
    scenario_log::LoggedLines,
    shadow::ShadowFindings,
};
use framehook_infra::{
    blobs::{Blobs, Shared},
    bus::SharedBus,
    cache::Cache,
    registry::{Credentials, Registries},
    seal::Key,
    space::Reserve,
    sqlite::Sqlite,
    store::{ApiStore, ResultBatch, SharedStore, StoreOutcome},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) struct TestApp {
    pub router: Router,
    pub store: SharedStore,
    pub bus: SharedBus,
    pub blobs: Blobs,
    pub config: ApiConfig,
    pub dir: TempDir,
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// A problem with this code, in the shape all have.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:framehook:problem:{code}"));
        assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
        problem
    }
}

/// The routes of a process that does not stop.
pub(crate) fn router(
    config: ApiConfig,
    store: Arc<dyn ApiStore>,
    bus: SharedBus,
    blobs: Blobs,
    cache: Option<Cache>,
) -> Router {
    framehook_api::router(App::new(config, store, bus, blobs, cache, CancellationToken::new()))
}

impl TestApp {
    pub(crate) async fn new() -> Self {
        Self::sharing(None).await
    }

    /// The same with other settings.
    pub(crate) fn with(self, change: impl FnOnce(&mut ApiConfig)) -> Self {
        let mut config = self.config.clone();
        change(&mut config);
        let (store, bus, blobs) = (self.store.clone(), self.bus.clone(), self.blobs.clone());
        let router = router(config.clone(), store, bus, blobs, None);
        Self { router, config, ..self }
    }

    /// With the blobs of a store that others share.
    pub(crate) async fn sharing(shared: Option<Shared>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(dir.path()).await.unwrap();
        let blobs = Blobs::open(dir.path(), shared, Reserve::NONE).await.unwrap();
        let videos = dir.path().join("videos");
        std::fs::create_dir(&videos).unwrap();
        let fake = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api/fake-probe.sh");
        let config = ApiConfig {
            memory: MemoryCaps::default(),
            worker: fake.clone(),
            compiled: compiled_plugins(dir.path(), &fake, &Sandbox::default()),
            plugin_host: fake,
            onnxruntime: "libonnxruntime.so".into(),
            sandbox: Sandbox::default(),
            source_dirs: vec![videos],
            key: Some(Key::parse(&"7".repeat(64)).unwrap()),
            max_picture_side: 8192,
            upload_caps: UploadCaps { plugin: 4096, model: 4096, video: 4096 },
            http: HttpLimits::default(),
            limits: Limits::default(),
            require_versions: false,
            lame_duck: Duration::ZERO,
            signing: Signing::default(),
            registries: Registries::listed(vec![], Credentials::None),
        };
        let (store, bus) = (sqlite.store(), sqlite.bus());
        let router = router(config.clone(), store.clone(), bus.clone(), blobs.clone(), None);
        Self { router, store, bus, blobs, config, dir }
    }

    /// With a model `m@1`, a video `v@1` and the plugins `gate@1.0.0` (pre) and `yolo@1.0.0` (post).
    pub(crate) async fn stocked() -> Self {
        let app = Self::new().await;
        app.upload("/model?name=m", &model(&[1, 3, 32, 64])).await.ok(201);
        app.upload("/video?name=v", &video(500)).await.ok(201);
        app.upload("/plugin", &plugin("gate", true, false, json!({}))).await.ok(201);
        app.upload("/plugin", &plugin("yolo", false, true, json!({"pad": 7, "scale": 1.0}))).await.ok(201);
        app
    }

    /// With the headers that every client sends.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        let is_json = request.uri().path().starts_with("/scenario") && request.method() == "POST";
        let kind = if is_json { "application/json" } else { "application/octet-stream" };
        let headers = request.headers_mut();
        headers.entry("host").or_insert(HeaderValue::from_static("localhost"));
        headers.entry("content-type").or_insert(HeaderValue::from_static(kind));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec();
        Answer { status, headers, body }
    }

    pub(crate) async fn call(&self, method: &str, uri: &str) -> Answer {
        self.send(Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.call("GET", uri).await
    }

    pub(crate) async fn post(&self, uri: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::post(uri).body(body.into()).unwrap()).await
    }

    pub(crate) async fn upload(&self, uri: &str, verdict: &Value) -> Answer {
        self.post(uri, verdict.to_string()).await
    }

    pub(crate) async fn init(&self, spec: &Value) -> Answer {
        self.post("/scenario/init", spec.to_string()).await
    }

    /// A scenario that is there.
    pub(crate) async fn scenario(&self) -> ScenarioId {
        let view = self.init(&smallest()).await.ok(200);
        view["id"].as_str().unwrap().parse().unwrap()
    }

    /// Stores predictions as the inbox would, at the front of a partition that only this test uses.
    pub(crate) async fn store(&self, predictions: Vec<Prediction>) {
        self.store_batch(predictions, vec![], vec![]).await;
    }

    /// The same with lines of scenarios' logs.
    pub(crate) async fn log(&self, logged: Vec<LoggedLines>) {
        self.store_batch(vec![], logged, vec![]).await;
    }

    /// The same with what a shadow found.
    pub(crate) async fn find(&self, found: ShadowFindings) {
        self.store_batch(vec![], vec![], vec![found]).await;
    }

    async fn store_batch(&self, predictions: Vec<Prediction>, logged: Vec<LoggedLines>, found: Vec<ShadowFindings>) {
        let (consumer, topic) = ("test".to_owned(), "results".to_owned());
        let expected = self.store.consumer_offset(&consumer, &topic, 0).await.unwrap();
        let batch = ResultBatch {
            consumer,
            topic,
            expected,
            next: expected + 1,
            rows: predictions.iter().map(Into::into).collect(),
            logged,
            found,
            ..ResultBatch::default()
        };
        assert_eq!(self.store.store_results(&batch).await.unwrap(), StoreOutcome::Stored);
    }

    /// Files anywhere below the blob folder.
    pub(crate) fn blob_files(&self) -> usize {
        files_below(&self.dir.path().join("blobs"))
    }
}

/// Those that `plugin_host` compiles, in a folder below `dir`.
pub(crate) fn compiled_plugins(dir: &Path, plugin_host: &Path, sandbox: &Sandbox) -> CompiledPlugins {
    let settings = framehook_compiled::Settings {
        folder: dir.join("compiled"),
        engine: "test".into(),
        plugin_host: plugin_host.to_owned(),
        sandbox: sandbox.clone(),
        timeout: COMPILE_TIMEOUT,
    };
    CompiledPlugins::open(settings).unwrap()
}

pub(crate) fn files_below(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { files_below(&e.path()) } else { 1 }).sum()
}

pub(crate) fn smallest() -> Value {
    json!({"source": {"video": "v@1"}, "model": "m@1"})
}

pub(crate) fn model(shape: &[i64]) -> Value {
    let shape: Vec<_> = shape.iter().map(|&n| if n < 0 { Value::Null } else { n.into() }).collect();
    json!({"ok": {"inputs": [{"name": "images", "element": "float32", "shape": shape}], "outputs": []}})
}

pub(crate) fn video(frames: u64) -> Value {
    json!({"ok": {"width": 1280, "height": 720, "fps": 25.0, "frames": frames}})
}

pub(crate) fn plugin(name: &str, pre: bool, post: bool, input: Value) -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "min_score": {"type": "number", "minimum": 0, "maximum": 1},
            "labels": {"type": "array", "items": {"type": "string"}}
        },
        "additionalProperties": false
    });
    json!({"ok": {"name": name, "version": "1.0.0", "abi": "0.1.0", "pre": pre, "post": post,
        "config_schema": schema, "input": input}})
}

/// Frame `frame` at 40 ms a frame, with a car of 0.9 and, on even frames, a person of 0.5.
pub(crate) fn prediction(scenario_id: ScenarioId, frame: u64) -> Prediction {
    let detection = |label: &str, score| Detection {
        label: Some(label.into()),
        score,
        bbox: [0.1, 0.2, 0.3, 0.4],
        ..Default::default()
    };
    let mut detections = vec![detection("car", 0.9)];
    if frame.is_multiple_of(2) {
        detections.insert(0, detection("person", 0.5));
    }
    let subjects = (0..u32::try_from(detections.len()).unwrap()).collect();
    Prediction {
        scenario_id,
        generation: 1,
        pts_us: i64::try_from(frame).unwrap() * 40_000,
        frame,
        left_out: 0,
        size: None,
        captured_at: Timestamp::UNIX_EPOCH,
        detections,
        events: vec![Event {
            kind: "seen".into(),
            severity: Severity::Info,
            subjects,
            attributes: Default::default(),
            episode: None,
        }],
        skipped: None,
        hook_failures: vec![],
        timings: FrameTimings::default(),
        provenance: Provenance {
            model: Digest::from_bytes(&[1; 32]),
            models: Default::default(),
            plugins: vec![],
            revision: 1,
            decoder: None,
            execution: None,
        },
    }
}

/// Waits until `check` gives something; a minute is far more than any of these takes, on any machine.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let waiting = async {
        loop {
            ticks.tick().await;
            if let Some(value) = check().await {
                return value;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}
