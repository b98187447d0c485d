//! Capacity; a clean end; what belongs to nobody.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use framehook_tests::{
    DEADLINE, asset,
    client::slow_scenario,
    platform::{Platform, patient},
    process::is_alive,
    wait_for,
};

/// A run takes some three seconds, so that it is still running when it is looked at.
const FRAME_MS: u64 = 5;

#[test]
fn the_scenario_past_the_last_worker_waits_and_starts_when_one_ends() {
    let platform = Platform::with_demo(&patient(&[]));
    let ids: Vec<_> = (0..5).map(|_| platform.post_scenario(&slow_scenario(FRAME_MS))).collect();
    let last = platform.wait_for_scenario(&ids[4], "waiting", |s| s["reason"]["code"] == "no_capacity");
    assert_eq!(last["state"], "pending");
    assert!(platform.workers().len() <= 4);
    for id in &ids {
        platform.completed(id, 500);
    }
    let steps = platform.transitions(&ids[4]);
    assert_eq!(steps.last().map(|(_, to)| to.as_str()), Some("completed"));
}

#[test]
fn ctrl_c_drains_the_workers_and_leaves_nothing_running() {
    let mut platform = Platform::with_demo(&patient(&[]));
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    platform.wait_for_row(&id, 20);
    let workers = platform.workers();
    assert_eq!(workers.len(), 1);
    assert_eq!(platform.interrupt(), Some(0), "{}", platform.log());
    assert!(workers.iter().all(|pid| !is_alive(*pid)));
    platform.up();
    platform.completed(&id, 500);
}

#[test]
fn blobs_that_nothing_names_are_removed_at_the_next_start() {
    let mut platform = Platform::start(&[]);
    let model = platform.upload("/model?name=street&version=1", &asset("street.onnx"));
    let hex = model["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let named = platform.data().join("blobs/sha256").join(&hex[..2]).join(&hex);
    // As an upload leaves it when its process dies before the row is written.
    let nobodys = |digit: &str| named.with_file_name(format!("{}{}", &hex[..2], digit.repeat(62)));
    let (dead, young) = (&nobodys("0"), &nobodys("1"));
    for path in [dead, young] {
        fs::write(path, "nobody's").unwrap();
    }
    assert_eq!(platform.interrupt(), Some(0), "{}", platform.log());
    for path in [&named, dead] {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    }
    platform.up();
    wait_for("the blob to be swept", DEADLINE, || (!dead.exists()).then_some(()));
    assert!(named.exists() && young.exists());
}

#[test]
fn two_platforms_cannot_share_a_folder() {
    let platform = Platform::start(&[]);
    let second = std::process::Command::new(framehook_tests::executables().join("framehook"))
        .args(["up", "--port", "0", "--data"])
        .arg(platform.data())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&format!("in use by process {}", platform.pid())), "{text}");
    assert_eq!(platform.get("/readyz").status, 200);
}
