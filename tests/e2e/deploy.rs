//! What `deploy/` and the guides say is what the executables know. The test of the cluster looks at the
//! board's metrics.

use std::{collections::BTreeSet, fs, process::Command};

use framehook_tests::{executables, root};
use serde_json::Value;

/// Where a person or a machine is told to set something.
const TOLD_IN: &[&str] = &[
    "README.md",
    "docs/operate.md",
    "deploy/README.md",
    "deploy/Dockerfile",
    "deploy/compose.yaml",
    "deploy/framehook@.service",
    "scripts/up_cluster.py",
];

/// Variables of `deploy/haproxy.cfg`, not of an executable.
const OF_THE_BALANCER: [&str; 3] = ["FRAMEHOOK_LISTEN", "FRAMEHOOK_API_1", "FRAMEHOOK_API_2"];

/// Variables of other programs share no prefix with ours, but for these.
const OTHERS: [&str; 3] = ["DATABASE_URL", "KAFKA_BROKERS", "REDIS_URL"];

#[test]
fn every_setting_that_is_told_exists() {
    let known: BTreeSet<_> =
        ["up", "api", "orchestrator", "runner"].iter().flat_map(|role| settings(&help(role))).collect();
    assert!(known.contains("FRAMEHOOK_DATA") && OTHERS.iter().all(|name| known.contains(*name)), "{known:?}");
    let mut told = BTreeSet::new();
    for path in TOLD_IN {
        let names = settings(&fs::read_to_string(root().join(path)).unwrap());
        let unknown: Vec<_> =
            names.iter().filter(|n| !known.contains(*n) && !OF_THE_BALANCER.contains(&n.as_str())).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}, which no role knows");
        told.extend(names);
    }
    assert!(told.len() > 5, "{told:?}");
}

#[test]
fn every_image_is_named_with_its_digest() {
    let mut images = 0;
    for (path, keyword) in [("deploy/Dockerfile", "FROM "), ("deploy/compose.yaml", "image: ")] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let named = text.lines().filter_map(|line| line.trim().strip_prefix(keyword)).map(str::trim);
        // `framehook` is what the Dockerfile makes.
        for image in named.filter(|image| *image != "framehook") {
            let digest = image.split_once("@sha256:").map_or("", |(_, rest)| rest.split(' ').next().unwrap());
            let is_hex = digest.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(digest.len() == 64 && is_hex, "{path}: {image} is a tag, which may name another image tomorrow");
            images += 1;
        }
    }
    assert_eq!(images, 6);
}

/// Which metrics the board shows and the alerts look at.
pub(crate) fn metrics_in_use() -> BTreeSet<String> {
    let board: Value = serde_json::from_str(&fs::read_to_string(root().join("deploy/grafana.json")).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let shown: BTreeSet<_> = targets.flat_map(|t| words(t["expr"].as_str().unwrap(), "framehook_")).collect();
    let alerts = words(&fs::read_to_string(root().join("deploy/alerts.yml")).unwrap(), "framehook_");
    assert!(shown.len() > 5 && alerts.len() > 3, "{shown:?} {alerts:?}");
    shown.union(&alerts).cloned().collect()
}

fn help(role: &str) -> String {
    let output = Command::new(executables().join("framehook")).args([role, "--help"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Variables of the environment that a text names.
fn settings(text: &str) -> BTreeSet<String> {
    let ours = words(text, "FRAMEHOOK_").into_iter();
    ours.chain(OTHERS.iter().filter(|name| text.contains(**name)).map(ToString::to_string)).collect()
}

/// Words of letters, digits and underscores that begin so.
fn words(text: &str, prefix: &str) -> BTreeSet<String> {
    let all = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    all.filter(|word| word.starts_with(prefix)).map(ToOwned::to_owned).collect()
}
