//! In steady state nothing is allocated for a frame, from the decoder to the model's input; and no
//! buffer of the size of a picture or a tensor anywhere, however many lanes there are.
//!
//! Counted is what Rust code allocates; FFmpeg's buffers come from a pool of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "worker/process.rs"]
mod process;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::{self, File},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use framehook_core::{
    hook_metrics,
    hook_state::{HookState, StateQuota},
    job::{DEFAULT_PICTURE_SIDE, Job, Outcome},
};
use framehook_engine::{
    Engine, Log,
    chain::{Chain, ChainSettings, Stage},
    compile::Compiler,
    media::Start,
};
use framehook_worker::{
    change::Changes,
    image::Image,
    lanes::Lanes,
    loader::Loader,
    pipeline::{self, Parts, StopFlag},
    preprocess::Preprocessor,
    report::Reporter,
    source,
    watch::Watch,
};
use process::{asset, hook, job, root};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Those of at least [`LARGE`] bytes.
static LARGE_ONES: AtomicU64 = AtomicU64::new(0);
/// More than a row has, and less than a picture or a tensor.
const LARGE: usize = 32 << 10;

/// Both tests count what the whole process allocates.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        LARGE_ONES.fetch_add(u64::from(layout.size() >= LARGE), Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Decoders, pools and tables have filled by then.
const WARM_UP: u64 = 50;

#[test]
fn a_frame_allocates_nothing() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let spec = job("demo1.mp4").input;
    let mut source = source::open(&asset("demo1.mp4"), DEFAULT_PICTURE_SIDE).unwrap();
    let mut preprocessor = Preprocessor::new(&spec, source.info().width, source.info().height);
    let (mut image, mut tensor, mut before) = (Image::default(), Vec::new(), 0);
    while let Some(position) = source.advance().unwrap() {
        source.picture(&mut image).unwrap();
        preprocessor.fill_planar(&image.as_yuv420().unwrap(), &mut tensor);
        if position.frame == WARM_UP {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
    }
    let frames = source.info().frames.unwrap() - WARM_UP;
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "in {frames} frames");
}

/// The large allocations of a run of the pipeline, and its frames.
fn run(job: Job) -> (u64, u64) {
    let job = Arc::new(job);
    let reporter = Arc::new(Reporter::new(File::create("/dev/null").unwrap()));
    let (watch, lanes) = (Watch::start(Arc::clone(&reporter)), Arc::new(Lanes::new(job.lanes, Arc::clone(&reporter))));
    let (loader, model) = Loader::new(&job, &watch).unwrap();
    let source = source::open(&job.source, job.max_picture_side).unwrap();
    let frames = source.info().frames.unwrap();
    let settings = ChainSettings {
        start: Start::default(),
        limits: job.limits,
        on_failure: job.on_plugin_failure,
        room: job.limits.prediction_bytes,
        quota: StateQuota::of(job.pre.len() + job.post.len(), job.limits.state_bytes),
        metric_names: hook_metrics::names_of(job.pre.len() + job.post.len()),
        state: HookState::default(),
        before: None,
        models: None,
        log: Log::new(Arc::new(|_| {}), job.limits.log),
    };
    let engine = Engine::loader().unwrap();
    let start = |stage, hooks| Chain::start(&engine, stage, hooks, &settings).unwrap();
    let (pre, post) = (start(Stage::Pre, &job.pre), start(Stage::Post, &job.post));
    let before = LARGE_ONES.load(Ordering::Relaxed);
    let changes = Arc::new(Changes::new(&job));
    let parts = Parts { source, model, loader, pre, post, shadow: None, changes, opening: None };
    let (outcome, reason) = pipeline::run(parts, &job, &reporter, &watch, &lanes, &StopFlag::default());
    assert_eq!(outcome, Outcome::Finished, "{reason:?}");
    (LARGE_ONES.load(Ordering::Relaxed) - before, frames)
}

#[test]
fn buffers_are_used_again_in_all_lanes() {
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (wasm, compiled) = (root().join("target/plugins/wasm32-wasip2/release/yolo.wasm"), folder.path().join("yolo"));
    let wasm = fs::read(wasm).expect("`make plugins` was run");
    fs::write(&compiled, Compiler::new().unwrap().compile(&wasm).unwrap()).unwrap();
    let post = vec![hook("yolo", &compiled, serde_json::json!({"labels": ["person", "car", "truck"]}))];
    for lanes in 1..4 {
        let (large, frames) = run(Job { lanes, post: post.clone(), ..job("demo1.mp4") });
        // A lane loads the model once more, and has a frame or two.
        let few = 20 + 20 * u64::from(lanes);
        assert!(large <= few && few < frames / 4, "{large} in {frames} frames with {lanes} lanes");
    }
}
