//! What an earlier release wrote, in `tests/fixtures/release-0.1.0`; its README lists the files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{asset, root, servers::topics::Record};

/// A scenario as that release's API showed it last.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub id: String,
    /// Nothing for one that was deleted.
    #[serde(default)]
    pub scenario: Value,
    #[serde(default)]
    pub rows: usize,
    #[serde(default)]
    pub detections: usize,
    #[serde(default)]
    pub events: usize,
}

/// Scenarios by name.
pub type Scenarios = BTreeMap<String, Seen>;

/// The fixture of `framehook up`, or of the cluster.
///
/// # Panics
/// When the fixture is not there.
#[must_use]
pub fn scenarios(of: &str) -> Scenarios {
    let text = fs::read(file("expected.json")).expect("the fixture is in the tree");
    let mut all: BTreeMap<String, Scenarios> = serde_json::from_slice(&text).expect("scenarios by name");
    all.remove(of).unwrap_or_else(|| panic!("the fixture has nothing of {of}"))
}

/// A data folder of `framehook up`, but for what can be made again.
///
/// # Panics
/// When it cannot be written.
pub fn lay_data(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder can be made");
    fs::write(folder.join("framehook.db"), unpacked("framehook.db")).expect("a file can be written");
    fs::copy(file("key"), folder.join("key")).expect("a file can be copied");
    lay_blobs(&folder.join("blobs"), &scenarios("up")["completed"].scenario);
}

/// What a scenario of the release names, where its digests say.
///
/// # Panics
/// When it cannot be written.
pub fn lay_blobs(folder: &Path, scenario: &Value) {
    let read = |name: &str| fs::read(asset(name)).expect("an asset is in the tree");
    for (digest, bytes) in [
        ("/resolved/model/digest", read("street.onnx")),
        ("/resolved/source/video/digest", read("demo1.mp4")),
        ("/resolved/post/0/digest", unpacked("yolo.wasm")),
        ("/resolved/post/1/digest", unpacked("line_counter.wasm")),
    ] {
        let digest = scenario.pointer(digest).and_then(Value::as_str).expect("a scenario names what it uses");
        let hex = digest.strip_prefix("sha256:").expect("a digest says of which kind it is");
        let blob = folder.join("sha256").join(&hex[..2]).join(hex);
        fs::create_dir_all(blob.parent().expect("a blob lies in a folder")).expect("a folder can be made");
        fs::write(blob, bytes).expect("a file can be written");
    }
}

/// Every record that was in Kafka, by topic, in order.
///
/// # Panics
/// When the fixture is not there.
#[must_use]
pub fn records() -> BTreeMap<String, Vec<Record>> {
    #[derive(Deserialize)]
    struct Line {
        topic: String,
        partition: i32,
        key: String,
        payload: Value,
    }
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let text = unpacked("kafka.ndjson");
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Line { topic, partition, key, payload } = serde_json::from_slice(line).expect("a line is a record");
        let record = Record { partition, key: key.into_bytes(), payload: payload.to_string().into_bytes() };
        all.entry(topic).or_default().push(record);
    }
    all
}

/// A file of the fixture as it was.
///
/// # Panics
/// Without `xz`.
#[must_use]
pub fn unpacked(name: &str) -> Vec<u8> {
    let packed = file(&format!("{name}.xz"));
    let output = Command::new("xz").args(["-dc".as_ref(), packed.as_os_str()]).output();
    let output = output.expect("xz is installed by scripts/setup.sh --tests");
    assert!(output.status.success(), "{}: {}", packed.display(), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn file(name: &str) -> PathBuf {
    root().join("tests/fixtures/release-0.1.0").join(name)
}
