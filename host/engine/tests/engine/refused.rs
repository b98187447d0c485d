//! What is refused at upload, and what is said about it.

use std::{fs::File, io::Write as _};

use framehook_core::{ids::Digest, probe::Verdict};
use framehook_engine::{compile::cache_key, judge::Judge};
use serde_json::Value;

use crate::support::{COMPILER, ENGINE, digest_of, inspect, job, wasm};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// The judge of a stock plugin.
fn of(plugin: &str) -> Judge {
    let job = job(plugin, Value::Null);
    Judge::load(&job.compiled, &job.digest).unwrap()
}

/// Checks that `bytes` are refused with these findings: a code and words of the message each.
fn refused(bytes: &[u8], expected: &[(&str, &str)]) {
    let Verdict::Findings(findings) = inspect(bytes) else { panic!("accepted, expected {expected:?}") };
    assert_eq!(findings.len(), expected.len(), "{findings:?}");
    for (finding, (code, words)) in findings.iter().zip(expected) {
        assert_eq!(finding.code, *code, "{findings:?}");
        assert!(finding.message.contains(words), "{words:?} is not in {findings:?}");
    }
}

#[test]
fn what_is_no_component() {
    refused(b"", &[("not_wasm", "begins with `nothing`")]);
    refused(&[0x9c, 0x41, 0xff, 0x00, 0x13, 0x37], &[("not_wasm", "`9c 41 ff 00 13 37`")]);
    refused(b"just some text", &[("not_wasm", "--target wasm32-wasip2")]);
    refused(b" (component)", &[("wasm_text", "as text")]);
    refused(&wat("(module)"), &[("core_module", "core WebAssembly module")]);
    refused(&COMPILER.compile(&wasm("yolo")).unwrap(), &[("precompiled", "upload the `.wasm`")]);
    let whole = wasm("yolo");
    refused(&whole[..whole.len() / 2], &[("invalid_component", "damaged")]);
}

#[test]
fn what_is_no_plugin() {
    refused(&wat("(component)"), &[("wrong_world", "this component exports nothing")]);
    refused(
        &wat(r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)) (import "acme:gpu/run" (instance)))"#),
        &[("unknown_import", "`wasi:sockets/tcp@0.2.0`"), ("unknown_import", "`acme:gpu/run`")],
    );
    refused(
        &wat(r#"(component (import "framehook:plugin/log@0.3.0" (instance)))"#),
        &[(
            "unknown_abi",
            "framehook:plugin@0.3.0, but this host runs framehook:plugin@0.1.0 and framehook:plugin@0.2.0",
        )],
    );
    refused(
        &wat(r#"(component
                (import "framehook:plugin/log@0.2.0" (instance)) (import "framehook:plugin/state@0.1.0" (instance)))"#),
        &[("unknown_abi", "framehook:plugin@0.1.0 and 0.2.0, but a plugin keeps to one version")],
    );
    // An interface that only a later version has.
    refused(
        &wat(
            r#"(component (import "framehook:plugin/log@0.1.0" (instance)) (import "framehook:plugin/model@0.1.0" (instance)))"#,
        ),
        &[("unknown_import", "`framehook:plugin/model@0.1.0`")],
    );
    refused(
        &wat(r#"(component
                (instance $empty)
                (export "framehook:plugin/lifecycle@0.2.0" (instance $empty))
                (export "framehook:plugin/preprocess@0.2.0" (instance $empty)))"#),
        &[("wrong_world", "are not those of framehook:plugin@0.2.0")],
    );
    refused(
        &wat(r#"(component
                (instance $empty)
                (export "framehook:plugin/lifecycle@0.1.0" (instance $empty))
                (export "framehook:plugin/postprocess@0.1.0" (instance $empty)))"#),
        &[("wrong_world", "are not those of framehook:plugin@0.1.0")],
    );
}

#[test]
fn stock_plugins_describe_themselves() {
    for (name, pre, post) in [
        ("motion-gate", true, false),
        ("yolo", false, true),
        ("line-counter", false, true),
        ("centerface", false, true),
        ("boxes-scores", false, true),
        ("classify", false, true),
        ("detr", false, true),
        ("privacy-blur", false, true),
        ("roi", true, false),
        ("text-db", false, true),
        ("tracker", false, true),
        ("zones", false, true),
        ("misbehave", true, true),
        ("witness", false, true),
    ] {
        let Verdict::Ok(manifest) = inspect(&wasm(name)) else { panic!("{name}: {:?}", inspect(&wasm(name))) };
        assert_eq!((manifest.name.as_str(), manifest.pre, manifest.post), (name, pre, post));
        assert_eq!((manifest.version.as_str(), manifest.abi.as_str()), ("0.1.0", "0.2.0"));
        assert_eq!(manifest.config_schema["type"], "object", "{name}");
        assert!(manifest.capabilities.iter().any(|what| what == "media"), "{name}: {:?}", manifest.capabilities);
        assert!(manifest.capabilities.iter().all(|what| what != "types"), "{name}: {:?}", manifest.capabilities);
        assert!(manifest.instantiation_us.is_some(), "{name}");
    }
    let Verdict::Ok(classifier) = inspect(&wasm("classify-objects")) else { panic!() };
    assert!(["model", "state", "wasi"].iter().all(|what| classifier.capabilities.iter().any(|own| own == what)));
    assert_eq!(classifier.defaults["max_objects"], 32);
    assert!(!classifier.defaults.contains_key("model"), "there is none that would do");
    let Verdict::Ok(faces) = inspect(&wasm("centerface")) else { panic!() };
    assert!(!faces.capabilities.iter().any(|what| what == "pixels"), "{:?}", faces.capabilities);
    assert_eq!((faces.input.scale, faces.input.pad), (Some(1.0), Some(0)));
}

#[test]
fn a_configuration_is_judged_by_the_plugin() {
    let problems = |plugin: &str, config: &str| {
        let problems = of(plugin).validate_config(config).unwrap();
        problems.into_iter().map(|p| (p.path, p.message)).collect::<Vec<_>>()
    };
    assert_eq!(problems("yolo", "{}"), []);
    let [(path, message)] = &problems("yolo", r#"{"min_score": 2}"#)[..] else { panic!() };
    assert!(path == "/min_score" && message.contains("greater than the maximum of 1"), "{message}");
    let unknown = &problems("yolo", r#"{"min_scor": 0.5}"#)[0];
    assert!(unknown.0 == "/min_scor" && unknown.1.contains("knows no such setting"), "{unknown:?}");
    let line = &problems("line-counter", r#"{"line": [[0, 0], [1, "x"]]}"#)[0];
    assert_eq!(line.0, "/line/1/1");
}

#[test]
fn a_plugin_that_ends_while_it_judges_says_why() {
    let judged = |config: &str| of("misbehave").validate_config(config).unwrap_err().to_string();
    let error = judged(r#"{"mode": "panic", "at_check": true}"#);
    assert!(error.contains("could not check its configuration: panicked at "), "{error}");
    assert!(error.contains("src/lib.rs") && error.contains("this plugin panics on purpose"), "{error}");
    let error = judged(r#"{"mode": "loop", "at_check": true}"#);
    assert!(error.ends_with("its deadline of 250 ms and was stopped"), "{error}");
}

#[test]
fn a_schema_that_takes_for_ever_ends() {
    let problems = |config: &str| of("misbehave").validate_config(config);
    assert_eq!(problems(r#"{"mode": "none"}"#).unwrap(), []);
    let error = problems(r#"{"mode": "none", "bomb": true}"#).unwrap_err().to_string();
    assert!(error.contains("schema cannot be used") && error.contains("longer than 2 s"), "{error}");
}

#[test]
fn a_worker_loads_only_what_was_compiled_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.cwasm");
    let load_as = |digest: &Digest| ENGINE.load(&path, digest).map(|_| ()).map_err(|e| e.to_string());
    let load = || load_as(&digest_of(&path));
    assert!(load_as(&Digest::from_bytes(&[0; 32])).unwrap_err().contains("could not be read"));
    std::fs::write(&path, wasm("yolo")).unwrap();
    assert!(load().unwrap_err().contains("is not a compiled plugin"));
    let judge = Judge::load(&path, &digest_of(&path)).map(drop).unwrap_err();
    assert!(judge.to_string().contains("is not a compiled plugin"), "{judge}");
    std::fs::write(&path, COMPILER.compile(&wasm("yolo")).unwrap()).unwrap();
    assert_eq!(load(), Ok(()));
    // What a file is signed with stands behind the code.
    let digest = digest_of(&path);
    File::options().append(true).open(&path).unwrap().write_all(&[b'a'; 64]).unwrap();
    assert!(load_as(&digest).unwrap_err().contains("has changed since"));
    assert_eq!(load(), Ok(()));
    let key = cache_key().unwrap();
    assert_eq!(key, cache_key().unwrap());
    assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{key}");
}
