//! The shape of the project itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use framehook_tests::root;
use serde_json::Value;

/// Which crates of ours a crate may depend on. A new edge is a decision, and this is where it shows.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("framehook-core", &[]),
    // What the engine computes for hooks, and what the SDK's doubles of the host compute in native tests, is
    // one code.
    ("framehook-helpers", &[]),
    ("framehook-sdk", &["framehook-helpers"]),
    ("framehook-infra", &["framehook-core"]),
    ("framehook-confine", &["framehook-core"]),
    ("framehook-compiled", &["framehook-confine", "framehook-core", "framehook-infra"]),
    ("framehook-engine", &["framehook-core", "framehook-helpers"]),
    ("framehook-formats", &[]),
    ("framehook-worker", &["framehook-confine", "framehook-core", "framehook-engine", "framehook-formats"]),
    ("framehook-runner", &["framehook-compiled", "framehook-confine", "framehook-core", "framehook-infra"]),
    ("framehook-api", &["framehook-compiled", "framehook-confine", "framehook-core", "framehook-infra"]),
    ("framehook-orchestrator", &["framehook-core", "framehook-infra"]),
    (
        "framehook",
        &[
            "framehook-core",
            "framehook-infra",
            "framehook-api",
            "framehook-orchestrator",
            "framehook-runner",
            "framehook-compiled",
            "framehook-confine",
            "framehook-engine",
        ],
    ),
    ("framehook-tests", &["framehook-core"]),
];

/// What the pure core must never know.
const IMPURE: &[&str] = &["tokio", "sqlx", "rdkafka", "wasmtime", "axum", "opencv", "ort", "async-trait"];

/// Names of each crate's normal dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |v: &Value| v["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap();
            (name(package), all.iter().filter(|d| d["kind"].is_null()).map(name).collect())
        })
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let actual = dependencies();
    let known: BTreeSet<_> = MAY_DEPEND_ON.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(actual.keys().cloned().collect::<BTreeSet<_>>(), known);
    for (name, allowed) in MAY_DEPEND_ON {
        let ours = actual[*name].iter().filter(|d| known.contains(*d));
        let forbidden: Vec<_> = ours.filter(|d| !allowed.contains(&d.as_str())).collect();
        assert!(forbidden.is_empty(), "{name} must not depend on {forbidden:?}");
    }
    let impure: Vec<_> = actual["framehook-core"].iter().filter(|d| IMPURE.contains(&d.as_str())).collect();
    assert!(impure.is_empty(), "core must stay pure, but depends on {impure:?}");
}

#[test]
fn the_architecture_document_shows_the_states_there_are() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let diagram = framehook_core::state::diagram(framehook_core::state::SCENARIO_TRANSITIONS);
    assert!(text.contains(diagram.trim()), "ARCHITECTURE.md must contain this diagram:\n{diagram}");
}
