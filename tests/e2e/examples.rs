//! Plugins in other languages, from `plugins/examples`: each keeps to the contract, and finds what the stock
//! plugin finds.
//!
//! `make test` builds that in C, which takes a second. Those in Python and JavaScript take a minute to build
//! and to compile, and `make examples` is for them: it names all of them in FRAMEHOOK_EXAMPLES.

use std::{env, fs, path::Path, process::Command};

use framehook_core::prediction::Prediction;
use framehook_tests::{executables, root};

const LABELS: &str = r#"{"labels": ["person", "car", "truck"], "min_score": 0.3}"#;
/// Frames of the demo's clip.
const FRAMES: &str = "100";

/// What a command says, which ends well.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Compiled plugins are kept here from run to run, as in the cache of a user.
fn framehook(arguments: &[&str]) -> String {
    let cache = root().join("target/examples/cache");
    // The compiler of the largest of them has its time on a busy machine, too.
    let settings = [("FRAMEHOOK_COMPILE_TIMEOUT_S", "600")];
    run(Command::new(executables().join("framehook")).args(arguments).envs(settings).env("XDG_CACHE_HOME", cache))
}

/// What one plugin finds on the demo's clip.
fn found(plugin: &Path) -> Vec<Prediction> {
    let assets = root().join("assets");
    let (clip, model) = (assets.join("demo1.mp4"), assets.join("street.onnx"));
    let plugin = format!("{}={LABELS}", plugin.display());
    let out = tempfile::NamedTempFile::new().unwrap();
    let path = out.path().to_str().unwrap();
    framehook(&[
        "plugin",
        "run",
        clip.to_str().unwrap(),
        "--model",
        model.to_str().unwrap(),
        "--plugin",
        &plugin,
        "--limit",
        FRAMES,
        "--out",
        path,
    ]);
    let lines = fs::read_to_string(path).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Scripts calculate with 64 bits, so the last bits of a box may differ.
fn are_alike(ours: &Prediction, stock: &Prediction) -> bool {
    let pairs = ours.detections.iter().zip(&stock.detections);
    ours.detections.len() == stock.detections.len()
        && pairs.clone().all(|(a, b)| (a.class_id, a.score, &a.label) == (b.class_id, b.score, &b.label))
        && pairs.clone().all(|(a, b)| a.bbox.iter().zip(b.bbox).all(|(a, b)| (a - b).abs() < 1e-6))
}

#[test]
fn plugins_in_other_languages_find_what_the_stock_plugin_finds() {
    let languages = env::var("FRAMEHOOK_EXAMPLES").unwrap_or_else(|_| "c".into());
    let stock = found(&root().join("target/plugins/wasm32-wasip2/release/yolo.wasm"));
    assert!(stock.iter().map(|row| row.detections.len()).sum::<usize>() > 100);
    for language in languages.split_whitespace() {
        let script = root().join("plugins/examples").join(language).join("build.sh");
        let built = run(&mut Command::new(script));
        let plugin = Path::new(built.trim());
        let checks = framehook(&["plugin", "conformance", plugin.to_str().unwrap(), "--json"]);
        let checks: serde_json::Value = serde_json::from_str(&checks).unwrap();
        let not_tried: Vec<_> =
            checks["checks"].as_array().unwrap().iter().filter(|c| c["verdict"] == "skip").collect();
        assert!(
            not_tried.iter().all(|c| c["name"] == "preprocess" || c["name"] == "skipped"),
            "{language}: {checks:#}"
        );
        let ours = found(plugin);
        assert_eq!(ours.len(), stock.len(), "{language}");
        for (ours, stock) in ours.iter().zip(&stock) {
            assert!(ours.hook_failures.is_empty(), "{language}: {:?}", ours.hook_failures);
            assert!(are_alike(ours, stock), "{language}, frame {}: {ours:#?} {stock:#?}", ours.frame);
        }
        let events: Vec<_> = ours.iter().flat_map(|row| &row.events).collect();
        assert!(!events.is_empty() && events.iter().all(|event| event.kind == "crowded"), "{language}: {events:?}");
        assert_eq!(events.last().unwrap().attributes["crowds"].to_string(), events.len().to_string(), "{language}");
    }
}

/// What is wrong with a plugin is told by the check that it fails, and by the exit code.
#[test]
fn a_plugin_that_does_not_keep_to_the_contract_is_told() {
    let plugin = root().join("target/plugins/wasm32-wasip2/release/misbehave.wasm");
    let of = |config: &str| {
        let mut command = Command::new(executables().join("framehook"));
        command.args(["plugin", "conformance", plugin.to_str().unwrap(), "--config", config]);
        let output = command.env("XDG_CACHE_HOME", root().join("target/examples/cache")).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (conforms, told) = of(r#"{"mode": "trap", "every": 3}"#);
    assert!(!conforms && told.contains("FAIL  postprocess"), "{told}");
    assert!(told.contains("on ordinary outputs: trapped") || told.contains("unreachable"), "{told}");
    let (conforms, told) = of(r#"{"mode": "no-such"}"#);
    assert!(!conforms && told.contains("FAIL  defaults") && told.contains("/mode"), "{told}");
}
