//! A plugin is compiled once: when it is uploaded, by the API, for everybody who loads it.

use std::{fs, path::PathBuf};

use framehook_tests::{
    client::light_scenario,
    platform::{Platform, patient},
};
use serde_json::{Value, json};

const FRAMES: u64 = 500;

/// As many as `upload_demo` uploads.
const PLUGINS: usize = 4;

/// How often a plugin was compiled: each time, the process that keeps the outcome says so.
fn compilations(platform: &Platform) -> usize {
    platform.log().matches("compiled a plugin").count()
}

fn compiled_files(platform: &Platform) -> Vec<PathBuf> {
    let files = fs::read_dir(platform.data().join("compiled")).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

/// A platform on which the demo's plugins were uploaded, and nothing else happened.
fn with_plugins() -> Platform {
    let platform = Platform::start_apart(&patient(&[]));
    platform.upload_demo();
    assert_eq!((compilations(&platform), compiled_files(&platform).len()), (PLUGINS, PLUGINS));
    platform
}

/// A scenario whose configurations nobody has asked the plugins for before.
fn scenario(min_score: f64) -> Value {
    let mut scenario = light_scenario();
    scenario["plugins"]["pre"] = json!([{"use": "motion-gate", "config": {"threshold": min_score / 1e6}}]);
    scenario["plugins"]["post"][0]["config"]["min_score"] = min_score.into();
    scenario["plugins"]["post"][1]["config"]["line"][0][1] = min_score.into();
    scenario
}

#[test]
fn what_the_api_compiled_is_what_the_runner_runs_after_a_restart_too() {
    let mut platform = with_plugins();
    platform.completed(&platform.post_scenario(&scenario(0.5)), FRAMES);
    platform.completed(&platform.post_scenario(&scenario(0.6)), FRAMES);
    assert_eq!(platform.interrupt(), Some(0));
    platform.up();
    platform.completed(&platform.post_scenario(&scenario(0.5)), FRAMES);
    assert_eq!(compilations(&platform), PLUGINS, "{}", platform.log());
}

#[test]
fn what_was_changed_or_removed_is_compiled_again_before_a_plugin_is_asked() {
    let platform = with_plugins();
    for file in compiled_files(&platform) {
        let mut bytes = fs::read(&file).unwrap();
        bytes.rotate_left(1);
        fs::write(file, bytes).unwrap();
    }
    let check = |min_score| {
        let answer = platform.post_json("/scenario/check", &scenario(min_score));
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    check(0.5);
    let used = 3;
    assert_eq!(platform.log().matches("a compiled plugin is not used").count(), used, "{}", platform.log());
    assert_eq!(compilations(&platform), PLUGINS + used);

    compiled_files(&platform).into_iter().for_each(|file| fs::remove_file(file).unwrap());
    check(0.6);
    assert_eq!((compilations(&platform), compiled_files(&platform).len()), (PLUGINS + 2 * used, used));
    platform.completed(&platform.post_scenario(&scenario(0.6)), FRAMES);
    assert_eq!(compilations(&platform), PLUGINS + 2 * used);
}
