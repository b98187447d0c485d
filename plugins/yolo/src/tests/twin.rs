//! The plugin as native code, for `bench/hooks.py`, which compiles it with all that the processor has and
//! says where the output lies.

use std::{env, hint::black_box, time::Instant};

use framehook_sdk::{
    InputOptions, PostHook, Resize, Size, default_input,
    testing::{self, Output, Scene},
};

use super::*;

/// Calls before those that count, as many as the host makes.
const WARM_UP: usize = 120;
const CALLS: usize = 2_000;

#[test]
#[ignore = "a benchmark, and no test"]
fn twin() {
    let file = env::var("TWIN_OUTPUT").expect("TWIN_OUTPUT names an output as `numpy.save` writes it");
    let input = InputOptions {
        size: Some(Size { width: 640, height: 640 }),
        resize: Some(Resize::Letterbox),
        ..default_input()
    };
    let scene = Scene::new(1280, 720).input(&input).output(Output::npy("output0", file).unwrap());
    let inference = scene.inference();
    let mut yolo: Yolo = testing::start("{}").unwrap();
    let mut took = Vec::new();
    let mut found = 0;
    for call in 0..WARM_UP + CALLS {
        let began = Instant::now();
        found = black_box(yolo.postprocess(black_box(&inference), Vec::new())).unwrap().detections.len();
        if call >= WARM_UP {
            took.push(began.elapsed());
        }
    }
    took.sort_unstable();
    println!("{{\"p50_us\": {}, \"detections\": {found}}}", 1e6 * took[CALLS / 2].as_secs_f64());
}
