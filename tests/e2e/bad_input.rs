//! Bad input gives a clear problem and harms nothing.

use std::fs;

use framehook_tests::{
    asset,
    client::{Answer, demo_scenario},
    executables, onnx,
    platform::Platform,
    plugin,
};
use serde_json::{Value, json};

/// The answer is an RFC 9457 problem with this status and code, and its text contains these words.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str, words: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.body["code"], code, "{answer:?}");
    assert_eq!(answer.body["status"], status, "{answer:?}");
    assert!(answer.body["title"].is_string() && answer.body["type"].is_string(), "{answer:?}");
    let text = answer.body.to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in {text}");
    }
}

fn with(path: &str, value: Value) -> Value {
    let mut scenario = demo_scenario();
    *scenario.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
    scenario
}

#[test]
fn a_scenario_that_cannot_be() {
    let inside = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::copy(asset("demo1.mp4"), outside.path().join("clip.mp4")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("clip.mp4"), inside.path().join("link.mp4")).unwrap();
    let platform = Platform::with_demo(&["--source-dir", inside.path().to_str().unwrap()]);

    for (body, words) in [("{", "line 1"), ("", "JSON"), ("not json", "JSON")] {
        let answer = platform.post("/scenario/init", "application/json", body.as_bytes());
        assert_problem(&answer, 400, "invalid_json", &[words]);
    }
    let mut unknown_field = demo_scenario();
    unknown_field["modle"] = json!("street");
    let config = "/plugins/post/0/config";
    let cases: Vec<(Value, &str, Vec<&str>)> = vec![
        (json!([]), "invalid_scenario", vec![]),
        (unknown_field, "invalid_scenario", vec!["modle"]),
        (json!({"model": "street@1"}), "invalid_scenario", vec!["source"]),
        (with("/model", json!(7)), "invalid_scenario", vec!["model"]),
        (with("/model", json!("../x")), "invalid_scenario", vec!["model", "name@version"]),
        (with("/model", json!("nothing@1")), "unknown_model", vec!["model", "nothing@1"]),
        (with("/source/video", json!("nothing")), "unknown_video", vec!["source.video"]),
        (with("/plugins/post/0/use", json!("nothing")), "unknown_plugin", vec!["plugins.post[0].use"]),
        (with("/plugins/post/0/use", json!("motion-gate")), "plugin_hook_mismatch", vec!["plugins.post[0].use"]),
        (with(config, json!({"min_score": "high"})), "invalid_plugin_config", vec!["plugins.post[0].config.min_score"]),
        (with(config, json!({"min_scor": 0.5})), "invalid_plugin_config", vec!["min_scor"]),
        (with(config, json!({"min_score": 7})), "invalid_plugin_config", vec!["plugins.post[0].config.min_score"]),
        (with("/source", json!({"file": "/etc/passwd"})), "source_not_allowed", vec!["source.file"]),
        (with("/source", json!({"file": "relative.mp4"})), "invalid_scenario", vec!["source.file", "absolute"]),
        (with("/source", json!({"file": inside.path().join("link.mp4")})), "source_not_allowed", vec!["source.file"]),
        (
            with("/source", json!({"file": format!("{}/../clip.mp4", inside.path().display())})),
            "source_not_allowed",
            vec!["source.file"],
        ),
    ];
    let mut sized = demo_scenario();
    sized["input"] = json!({"size": [640, 640]});
    for (scenario, code, words) in cases.into_iter().chain([(sized, "model_input_mismatch", vec!["input.size", "320"])])
    {
        for route in ["/scenario/init", "/scenario/check"] {
            assert_problem(&platform.post_json(route, &scenario), 422, code, &words);
        }
    }
    assert_eq!(platform.get("/scenario").body["items"], json!([]), "a refused scenario must not exist");
    assert_eq!(platform.post_json("/scenario/check", &demo_scenario()).status, 200);
    assert_eq!(platform.get("/scenario").body["items"], json!([]), "a checked scenario must not exist");

    for (path, code) in [
        ("/scenario/00000000-0000-7000-8000-000000000000", "scenario_not_found"),
        ("/prediction/00000000-0000-7000-8000-000000000000", "scenario_not_found"),
        ("/model/nothing/1", "artifact_not_found"),
        ("/nothing", "route_not_found"),
    ] {
        assert_problem(&platform.get(path), 404, code, &[]);
    }
    for path in ["/scenario/not-a-uuid", "/scenario?limit=0", "/scenario?cursor=%2A", "/scenario?colour=red"] {
        assert_problem(&platform.get(path), 400, "invalid_parameter", &[]);
    }
    assert_problem(&platform.delete("/healthz"), 405, "method_not_allowed", &[]);
}

#[test]
fn an_idempotency_key_stands_for_one_scenario() {
    let platform = Platform::with_demo(&[]);
    let first = platform.post_with_key("/scenario/init", "order-7", &demo_scenario());
    let again = platform.post_with_key("/scenario/init", "order-7", &demo_scenario());
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.body["id"], again.body["id"]);
    let mut other = demo_scenario();
    other["name"] = json!("another");
    let reused = platform.post_with_key("/scenario/init", "order-7", &other);
    assert_problem(&reused, 409, "idempotency_key_reused", &["Idempotency-Key", "another body"]);
    assert_eq!(platform.get("/scenario").body["items"].as_array().unwrap().len(), 1);
}

#[test]
fn an_upload_that_is_not_what_it_should_be() {
    let platform = Platform::start(&["--max-plugin-mib", "2"]);
    let yolo = fs::read(plugin("yolo")).unwrap();
    let compiled = tempfile::NamedTempFile::new().unwrap();
    let child = std::process::Command::new(executables().join("framehook"))
        .args(["plugin-host", "compile"])
        .arg(plugin("yolo"))
        .stdout(compiled.reopen().unwrap())
        .status()
        .unwrap();
    assert!(child.success());
    let plugins = [
        (b"just text".to_vec(), "component"),
        ((0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(), "component"),
        (wat::parse_str("(module)").unwrap(), "core WebAssembly module"),
        (fs::read(compiled.path()).unwrap(), "compiled"),
        (wat::parse_str("(component)").unwrap(), "framehook:plugin"),
        (wat::parse_str(r#"(component (import "evil:net/sockets@1.0.0" (instance)))"#).unwrap(), "evil:net/sockets"),
        (yolo[..yolo.len() / 2].to_vec(), ""),
    ];
    for (bytes, words) in plugins {
        assert_problem(&platform.post("/plugin", "application/wasm", &bytes), 422, "invalid_plugin", &[words]);
    }
    let big = vec![0; 3 << 20];
    assert_problem(&platform.post("/plugin", "application/wasm", &big), 413, "upload_too_large", &["2097152 bytes"]);

    let model = fs::read(asset("street.onnx")).unwrap();
    let models = [
        (b"model: street".to_vec(), "not_onnx"),
        (model[..model.len() / 2].to_vec(), "truncated"),
        (onnx::model(&onnx::graph(&onnx::PICTURE, &[], &onnx::bytes(5, &onnx::external("w"))), &[]), "external_data"),
        (onnx::identity(&[1, 2, 32, 32]), "1, 3 or 4 channels"),
        (onnx::identity(&[1, 1000]), "a frame is fed in 4 dimensions"),
    ];
    for (bytes, words) in models {
        let answer = platform.post("/model?name=m&version=1", "application/octet-stream", &bytes);
        assert_problem(&answer, 422, "invalid_model", &[words]);
    }

    let clip = fs::read(asset("demo1.mp4")).unwrap();
    let videos = [
        (b"a text about a video".to_vec(), "not_a_video"),
        (without_box(&clip, b"moov"), "no_moov"),
        (clip[..clip.len() / 2].to_vec(), "truncated"),
        (wav(), "no video track"),
        (jpeg_header(), "image_not_video"),
    ];
    for (bytes, words) in videos {
        let answer = platform.post("/video?name=v&version=1", "application/octet-stream", &bytes);
        assert_problem(&answer, 422, "invalid_video", &[words]);
    }
    assert_problem(&platform.post("/model", "application/octet-stream", &model), 400, "invalid_parameter", &["name"]);
    assert_problem(
        &platform.post("/model?name=Not%20A%20Name", "application/octet-stream", &model),
        400,
        "invalid_parameter",
        &["name"],
    );

    for route in ["/plugin", "/model?name=m", "/video?name=v"] {
        assert_problem(&platform.post(route, "application/octet-stream", &[]), 400, "invalid_upload", &["empty"]);
    }

    // Nothing of all that was kept, and what is good is still taken.
    for kind in ["plugin", "model", "video"] {
        assert_eq!(platform.get(&format!("/{kind}")).body["items"], json!([]));
    }
    let blobs = platform.data().join("blobs");
    assert_eq!(files_below(&blobs), Vec::<String>::new());
    platform.upload("/plugin", &plugin("yolo"));
    assert_eq!(files_below(&blobs).len(), 1);
}

#[test]
fn a_schema_that_takes_for_ever_holds_up_nobody() {
    let platform = Platform::with_demo(&[]);
    platform.upload("/plugin", &plugin("misbehave"));
    let bomb = with("/plugins/post/0", json!({"use": "misbehave", "config": {"mode": "none", "bomb": true}}));
    std::thread::scope(|scope| {
        // Once for each thread that the API has on a small machine.
        let checks: Vec<_> = (0..2).map(|_| scope.spawn(|| platform.post_json("/scenario/check", &bomb))).collect();
        while !checks.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert_eq!(platform.get("/scenario").status, 200);
        }
        for check in checks {
            let words = ["plugins.post[0].config", "schema cannot be used", "longer than 2 s"];
            assert_problem(&check.join().unwrap(), 422, "invalid_plugin_config", &words);
        }
    });
}

#[test]
fn multipart_uploads_work_as_well() {
    let platform = Platform::start(&[]);
    let mut body = vec![];
    for (name, value) in [("name", "street"), ("version", "7")] {
        body.extend(format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    let head = "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"street.onnx\"\r\n\r\n";
    body.extend(head.bytes());
    body.extend(fs::read(asset("street.onnx")).unwrap());
    body.extend(b"\r\n--X--\r\n");
    let answer = platform.post("/model", "multipart/form-data; boundary=X", &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(platform.get("/model/street/7").body["manifest"]["inputs"][0]["name"], "images");
}

#[test]
fn a_source_that_goes_bad_after_it_was_accepted_fails_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("clip.mp4");
    fs::copy(asset("demo1.mp4"), &clip).unwrap();
    let platform = Platform::with_demo(&["--source-dir", folder.path().to_str().unwrap(), "--max-workers", "1"]);
    let busy = platform.post_scenario(&demo_scenario());
    let mut scenario = demo_scenario();
    scenario["source"] = json!({"file": clip});
    let id = platform.post_scenario(&scenario);
    fs::write(&clip, "gone").unwrap();
    platform.completed(&busy, 500);
    let failed = platform.wait_for_state(&id, &["failed"]);
    assert!(["source_unreachable", "decode_error"].contains(&failed["reason"]["code"].as_str().unwrap()), "{failed:#}");
    assert!(!failed["reason"]["message"].as_str().unwrap().is_empty());
    fs::copy(asset("demo1.mp4"), &clip).unwrap();
    assert_eq!(platform.post_json(&format!("/scenario/{id}/start"), &Value::Null).status, 200);
    platform.completed(&id, 500);
}

fn files_below(folder: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut files = vec![];
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files
}

/// An MP4 without its top-level boxes of one kind.
fn without_box(file: &[u8], kind: &[u8; 4]) -> Vec<u8> {
    let mut rest = file;
    let mut kept = vec![];
    while rest.len() >= 8 {
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        if &rest[4..8] != kind {
            kept.extend_from_slice(&rest[..size]);
        }
        rest = &rest[size..];
    }
    kept
}

/// A tenth of a second of silence.
fn wav() -> Vec<u8> {
    let samples = 800u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + samples * 2).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend([1, 0, 1, 0]);
    file.extend(8000u32.to_le_bytes());
    file.extend(16000u32.to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend((samples * 2).to_le_bytes());
    file.extend(vec![0; samples as usize * 2]);
    file
}

fn jpeg_header() -> Vec<u8> {
    [&[0xff, 0xd8, 0xff, 0xe0, 0, 16][..], b"JFIF\0", &[1, 1, 0, 0, 1, 0, 1, 0, 0]].concat()
}

#[test]
fn a_panic_over_a_configuration_is_told_and_logged() {
    let platform = Platform::with_demo(&[]);
    platform.upload("/plugin", &plugin("misbehave"));
    let panics = with("/plugins/post/0", json!({"use": "misbehave", "config": {"mode": "panic", "at_check": true}}));
    let words = ["plugins.post[0].config", "panicked at ", "this plugin panics on purpose"];
    assert_problem(&platform.post_json("/scenario/check", &panics), 422, "invalid_plugin_config", &words);
    let log = platform.log();
    assert!(log.contains("a configuration was not judged") && log.contains("this plugin panics on purpose"), "{log}");
}
