//! A runner that has no file descriptor left.

use std::{collections::BTreeSet, env, fs::File, process::Command};

use framehook_core::{message::WorkerPhase as P, reason::ReasonCode};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    support::{eventually, is_gone},
    with_prewarmed,
};

/// Set for the process that has few.
const VARIABLE: &str = "FRAMEHOOK_TEST_FEW_DESCRIPTORS";

/// Soon taken, and more than the test needs before.
const FEW: u64 = 256;

/// More than a worker is started again for a fault of its own.
const WAITS: usize = 5;

#[test]
fn without_descriptors_it_waits_and_blames_nobody() {
    if env::var_os(VARIABLE).is_some() {
        let limit = Rlimit { current: Some(FEW), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, limit).unwrap();
        return Runtime::new().unwrap().block_on(starve());
    }
    // The other tests of this process need theirs.
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "shortage::without_descriptors_it_waits_and_blames_nobody"]).env(VARIABLE, "");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

async fn starve() {
    let (world, _script, prewarmed) = with_prewarmed().await;
    assert!(WAITS > world.config.restarts.max_attempts as usize);
    kill_process(Pid::from_raw(prewarmed.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("its end", || is_gone(prewarmed)).await;
    let clip = world.clip(json!({"frames": 20}));
    let taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    world.deploy(&clip, 1).await;
    let waits = || {
        let history = world.history(&clip, 1);
        let failed = history.iter().find(|status| status.phase == P::Failed);
        assert!(failed.is_none(), "{failed:?}");
        let mut waits = history.iter().filter(|status| status.phase == P::Recovering);
        let times: BTreeSet<_> = waits.clone().filter_map(|status| status.retry_at).collect();
        (times.len() >= WAITS).then(|| waits.next_back().unwrap().clone())
    };
    let waiting = world.bus.wait("more tries than a fault is worth", waits).await;
    let reason = waiting.reason.unwrap();
    assert_eq!((waiting.attempt, reason.code), (0, ReasonCode::NoCapacity));
    assert!(reason.message.contains("no file descriptor left"), "{}", reason.message);
    drop(taken);
    let last = world.phase(&clip, 1, P::Finished).await;
    assert_eq!((last.attempt, clip.starts()), (0, vec![0]));
}
