//! Machines that lack a part of what children are confined by: a kernel without it, a container whose filter
//! refuses it, an ordinary user. The platform says what is missing and runs, or refuses to run where it must
//! not.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, time::Duration};

use framehook_tests::{
    client::light_scenario,
    platform::{Platform, patient, refusal_lacking},
    wait_for,
};
const FRAMES: u64 = 500;

/// A heartbeat comes twice a second.
const HEARD_OF: Duration = Duration::from_secs(20);

/// What `GET /runner` calls off, without what depends on the machine that the test runs on.
fn off(platform: &Platform) -> BTreeSet<String> {
    let runner =
        wait_for("the runner to be heard of", HEARD_OF, || platform.get("/runner").body["items"].get(0).cloned());
    let rows = runner["confinement"].as_array().unwrap().clone();
    let off = rows.iter().filter(|row| row["on"] == false && row["name"] != "cgroup");
    let log = platform.log();
    off.map(|row| {
        let (name, why) = (row["name"].as_str().unwrap(), row["why"].as_str().unwrap());
        assert!(log.contains(&format!("children are not confined by {name}: {why}")), "{name} is not in the log");
        name.to_owned()
    })
    .collect()
}

/// Runs the demo on a machine that lacks this; gives what it says is off beyond what is off here anyway.
fn runs_lacking(lacking: &[&str], here: &BTreeSet<String>) -> Vec<String> {
    let platform = Platform::start_lacking(lacking, &patient(&[]));
    platform.upload_demo();
    let id = platform.post_scenario(&light_scenario());
    platform.completed(&id, FRAMES);
    off(&platform).difference(here).cloned().collect()
}

#[test]
fn what_a_machine_lacks_is_said_and_the_demo_runs() {
    let here = {
        let platform = Platform::start(&[]);
        off(&platform)
    };
    let files = ["files", "network"];
    let is_root = rustix::process::geteuid().is_root();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["landlock"], &files),
        (&["landlock=EPERM"], &files),
        (&["seccomp=EPERM"], &["system_calls"]),
        (&["seccomp=EINVAL", "close_range"], &["descriptors", "system_calls"]),
        (&["root"], if is_root { &["user"] } else { &[] }),
        // Nothing is left but what needs no kernel newer than Linux itself.
        (
            &["root", "landlock", "seccomp", "close_range"],
            &["descriptors", "files", "network", "signals", "system_calls", "user"],
        ),
    ];
    for (lacking, expected) in cases {
        let found = runs_lacking(lacking, &here);
        let expected: Vec<_> = expected.iter().filter(|name| !here.contains(**name)).collect();
        assert!(found.iter().eq(expected.iter().copied()), "{lacking:?}: {found:?} is off, and not {expected:?}");
    }
}

#[test]
fn a_library_that_is_no_onnx_runtime_keeps_the_platform_from_starting() {
    for content in ["", "no library"] {
        let file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o644)).tempfile().unwrap();
        fs::write(file.path(), content).unwrap();
        let path = file.path().to_str().unwrap();
        let said = refusal_lacking(&[], &["--onnxruntime", path]);
        assert!(
            said.contains(path) && said.contains("cannot be loaded") && said.contains("FRAMEHOOK_ONNXRUNTIME"),
            "{said}"
        );
    }
}

#[test]
fn a_required_sandbox_that_is_missing_keeps_the_platform_from_starting() {
    for (lacking, missing) in
        [("landlock=EPERM", "files"), ("seccomp=EINVAL", "system_calls"), ("close_range", "descriptors")]
    {
        let said = refusal_lacking(&[lacking], &["--require-sandbox"]);
        let words = format!("require_sandbox is set, and children would not be confined by {missing} (");
        assert!(said.contains(&words), "{lacking}: {said}");
    }
}
