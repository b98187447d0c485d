//! Golden cases of the stock plugins, natively: the same outputs as under the platform's engine, the same
//! detections.
//!
//! A case is a folder as `framehook plugin test` reads it, with outputs of a model. That its
//! `expected.ndjson` is what the engine makes of it, `host/engine/tests/engine/golden.rs` shows; what both
//! are equal to is the same file.
//!
//! No plugin of its own.

#![cfg(not(target_family = "wasm"))]

use std::{fs, path::Path};

use framehook_sdk::{
    Detection, InputOptions, Point, PostHook, Size,
    testing::{self, Output, Scene},
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    outputs: Vec<(String, String)>,
    frame: [u32; 2],
    input: Input,
    config: Value,
}

#[derive(Deserialize)]
struct Input {
    size: [u32; 2],
}

#[derive(Deserialize)]
struct Row {
    detections: Vec<Expected>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Expected {
    class_id: u32,
    score: f32,
    #[serde(rename = "box")]
    bbox: [f32; 4],
    #[serde(default)]
    keypoints: Vec<[f32; 2]>,
    #[serde(default)]
    polygon: Vec<[f32; 2]>,
}

/// Runs all cases of the plugin in this folder. To the last bit; the labels are the host's to give.
///
/// # Panics
/// Where something differs, or there is no case.
#[allow(clippy::unwrap_used, reason = "for tests")]
pub fn check<H: PostHook>(plugin: &str) {
    let folder = Path::new(plugin).join("tests/golden");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let folder = entry.unwrap().path();
        let case: Case = serde_json::from_str(&fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
        let expected = fs::read_to_string(folder.join("expected.ndjson")).unwrap();
        let expected: Row = serde_json::from_str(&expected).unwrap();
        let mut hook: H = testing::start(&case.config.to_string()).unwrap();
        let [width, height] = case.input.size;
        let options = InputOptions { size: Some(Size { width, height }), ..H::input() };
        let scene = Scene::new(case.frame[0], case.frame[1]).input(&options);
        let with =
            |scene: Scene, (name, file): &(String, String)| scene.output(Output::npy(name, folder.join(file)).unwrap());
        let scene = case.outputs.iter().fold(scene, with);
        let outcome = hook.postprocess(&scene.inference(), Vec::new()).unwrap();
        let made: Vec<_> = outcome.detections.iter().map(told).collect();
        assert!(!made.is_empty(), "{}: nothing shows nothing", folder.display());
        assert_eq!(made, expected.detections, "{}", folder.display());
        cases += 1;
    }
    assert!(cases > 0, "{} has no cases", folder.display());
}

fn told(of: &Detection) -> Expected {
    let points = |points: &[Point]| points.iter().map(|p| [p.x, p.y]).collect();
    Expected {
        class_id: of.class_id,
        score: of.score,
        bbox: [of.bbox.x, of.bbox.y, of.bbox.width, of.bbox.height],
        keypoints: points(&of.keypoints),
        polygon: points(&of.polygon),
    }
}
