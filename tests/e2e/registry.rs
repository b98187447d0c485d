//! A plugin from its author's hands through a registry to a platform that takes only what is signed.
//! Registries that lie and lead astray are met where the client of registries is tested, in `infra`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use framehook_tests::{
    asset,
    client::{Answer, demo_scenario},
    executables, onnx,
    platform::Platform,
    plugin,
    servers::Registry,
};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with an author's key, that of somebody else, and a copy of a stock plugin.
struct Author {
    folder: TempDir,
}

impl Author {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("trusted")).unwrap();
        fs::copy(plugin("yolo"), folder.path().join("yolo.wasm")).unwrap();
        let author = Self { folder };
        for name in ["alice", "mallory"] {
            author.done(&["keygen", name]);
        }
        fs::copy(author.path("alice.pub.pem"), author.path("trusted/alice.pub.pem")).unwrap();
        author
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(executables().join("framehook"));
        command.arg("plugin").args(arguments).current_dir(&self.folder);
        // Compiled plugins are kept for the next run of this test, and nobody's passwords are read.
        let cache = executables().join("author-cache");
        command.env("XDG_CACHE_HOME", cache).env("DOCKER_CONFIG", self.folder.path()).output().unwrap()
    }

    /// What a command prints that does what it should.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command says that does not.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Pushes; gives the reference by digest.
    fn push(&self, file: &str, to: &str) -> String {
        let said = self.done(&["push", file, to]);
        said.split([' ', ',', '\n']).find(|word| word.contains("@sha256:")).unwrap().to_owned()
    }
}

fn import(platform: &Platform, from: &str) -> Answer {
    platform.post(&format!("/plugin/import?from={from}"), "application/octet-stream", b"")
}

#[track_caller]
fn is_problem(answer: &Answer, status: u16, code: &str, words: &str) {
    assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{}", answer.body);
    assert!(answer.body["detail"].as_str().unwrap().contains(words), "{}", answer.body);
}

/// The same component with a custom section more: other bytes, which work the same.
fn changed(wasm: &Path, to: &Path) {
    let wasm = fs::read(wasm).unwrap();
    fs::write(to, [&wasm[..], &[0, 3, 1, b'x', 7]].concat()).unwrap();
}

#[test]
fn a_signed_plugin_goes_through_a_registry_to_a_scenario() {
    let (author, registry) = (Author::new(), Registry::start());
    let at = |name: &str| format!("oci://{}/plugins/{name}", registry.host());

    // The author signs, and pushes what is signed; what comes back is the same.
    author.done(&["sign", "yolo.wasm", "--key", "alice.pem"]);
    let verified = author.done(&["verify", "yolo.wasm", "--trusted-keys", "trusted"]);
    assert!(verified.contains("is signed by alice (ed25519:"), "{verified}");
    let pinned = author.push("yolo.wasm", &at("yolo:1"));
    assert_eq!(author.push("yolo.wasm", &at("yolo:1")), pinned, "the same bytes have the same digest");
    author.done(&["pull", &at("yolo:1"), "-o", "again.wasm", "--trusted-keys", "trusted"]);
    for (pulled, pushed) in [("again.wasm", "yolo.wasm"), ("again.wasm.sig", "yolo.wasm.sig")] {
        assert_eq!(fs::read(author.path(pulled)).unwrap(), fs::read(author.path(pushed)).unwrap(), "{pulled}");
    }
    // A signature is of its bytes and its name.
    changed(&author.path("yolo.wasm"), &author.path("changed.wasm"));
    let said = author.refused(&["verify", "changed.wasm", "--signature", "yolo.wasm.sig", "--trusted-keys", "trusted"]);
    assert!(said.contains("and the plugin is sha256:"), "{said}");
    let said = author.refused(&["push", "changed.wasm", &at("yolo:2"), "--signature", "yolo.wasm.sig"]);
    assert!(said.contains("of other bytes"), "{said}");

    // What else lies in the registry: unsigned, signed by somebody else, with a signature of other bytes.
    let unsigned = author.push("changed.wasm", &at("unsigned:1"));
    assert!(author.refused(&["pull", &unsigned, "--trusted-keys", "trusted"]).contains("has no signature"));
    author.done(&["sign", "changed.wasm", "--key", "mallory.pem"]);
    author.push("changed.wasm", &at("mallory:1"));
    let said = author.refused(&["pull", &at("mallory:1"), "--trusted-keys", "trusted"]);
    assert!(said.contains("no trusted key is ed25519:") && said.contains("`alice`"), "{said}");

    let trusted = author.path("trusted").display().to_string();
    let signed_only = ["--trusted-keys", &trusted, "--require-signed", "--registry", &registry.host()];
    let platform = Platform::start(&signed_only);
    is_problem(&import(&platform, &unsigned), 422, "unsigned_plugin", "require_signed");
    is_problem(&import(&platform, &at("mallory:1")), 422, "invalid_signature", "no trusted key");
    is_problem(&import(&platform, &at("yolo:none")), 502, "registry_failed", "has no oci://");
    is_problem(&import(&platform, "oci://ghcr.io/example/yolo:1"), 422, "registry_not_allowed", "those are");
    is_problem(&import(&platform, "https://ghcr.io/example"), 400, "invalid_parameter", "oci://HOST");
    let upload = platform.post("/plugin", "application/wasm", &fs::read(plugin("yolo")).unwrap());
    is_problem(&upload, 422, "unsigned_plugin", "no signature");
    assert_eq!(platform.read("/plugin")["items"], Value::Array(vec![]));

    // The tag moves; the digest leads to what was signed.
    author.push("changed.wasm", &at("yolo:1"));
    is_problem(&import(&platform, &at("yolo:1")), 422, "invalid_signature", "no trusted key");
    let imported = import(&platform, &pinned);
    assert_eq!(imported.status, 201, "{}", imported.body);
    assert_eq!(imported.body["signed_by"]["name"], "alice");
    assert_eq!(import(&platform, &pinned).status, 200, "once");
    assert_eq!(platform.read("/plugin/yolo/0.1.0"), imported.body);
    // The same by hand.
    author.done(&["push", "yolo.wasm", "--api", platform.url()]);

    // And works.
    platform.upload_bytes("/model?name=mosaic&version=1", &onnx::mosaic());
    platform.upload("/video?name=street&version=1", &asset("demo1.mp4"));
    let mut scenario = demo_scenario();
    scenario["model"] = "mosaic@1".into();
    let id = platform.post_scenario(&scenario);
    let rows = platform.completed(&id, 500);
    assert!(rows.iter().any(|row| !row.detections.is_empty()));
}
