//! The attack review, one platform for all of it: every attack is tried in several forms while a neighbour,
//! the demo scenario, runs again and again beside them.
//!
//! An attack must be answered with a problem or end as its own scenario's failure; every run of the neighbour
//! must give the rows of an undisturbed one; and in the end the platform must be what it was.

mod clients;
mod hooks;
mod models;
mod neighbour;
mod sources;
mod workers;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use framehook_tests::{
    client::Client,
    platform::{Platform, patient},
};

use self::neighbour::Neighbour;

/// The platform's own process, without its workers: it took 74 MiB at its highest.
const MEMORY_KIB: u64 = 200 << 10;

/// It was 39 kB; each name that a client could choose would add to it for ever.
const METRICS_BYTES: usize = 100 << 10;

type Attack = (&'static str, fn(&Platform));

const ATTACKS: &[Attack] = &[
    ("models that refer to other files", models::no_model_refers_to_another_file),
    ("models that take memory", models::memory_without_measure_is_refused_or_fails_once),
    ("models that take time", models::an_inference_without_end_gives_its_slot_back),
    ("pages of other sites", clients::no_page_of_another_site_reads_or_writes),
    ("multipart without end", clients::no_upload_comes_past_its_limit),
    ("methods that nobody knows", clients::no_method_leaves_a_trace),
    ("files that may not be named", clients::no_answer_tells_which_files_exist),
    ("answers that a browser shows", clients::every_answer_tells_a_browser_what_it_may_do),
    ("sources that trickle", sources::a_source_that_trickles_takes_no_slot),
    ("configurations that take for ever", hooks::configurations_that_take_for_ever_hold_nobody_up),
    ("what a worker finds", workers::a_worker_has_nothing_of_the_platform),
    ("compiled code of another plugin", hooks::compiled_code_of_another_plugin_is_not_run),
];

#[test]
fn the_neighbour_of_every_attack_is_not_disturbed() {
    // Sources of this machine, because there are no others here.
    // And less time for hooks that judge their configurations as slowly as they can.
    // It has compiled plugins of its own, which one of the attacks changes.
    let platform = Platform::start_apart(&patient(&["--source-network", "127.0.0.0/8", "--max-configs-s", "20"]));
    platform.upload_demo();
    let kept = contents(&platform);
    let neighbour = Neighbour::moves_in(platform.url());
    let mut fell = Vec::new();
    for (name, attack) in ATTACKS {
        let began = Instant::now();
        // All are tried, whichever falls.
        let outcome = catch_unwind(AssertUnwindSafe(|| attack(&platform)));
        println!("{name}: {:.1} s", began.elapsed().as_secs_f64());
        fell.extend(outcome.err().map(|_| *name));
    }
    let runs = neighbour.moves_out();
    assert!(runs >= 3, "the neighbour ran {runs} times");
    assert_eq!(platform.get("/readyz").status, 200);
    let now = contents(&platform);
    assert!(kept.iter().all(|(file, bytes)| now.get(file) == Some(bytes)), "the key or a blob is another one");
    let peak = status_kib(platform.pid(), "VmHWM");
    assert!(peak < MEMORY_KIB, "the platform took {peak} KiB at its highest");
    let metrics = platform.get("/metrics").body.as_str().map_or(0, str::len);
    println!("the neighbour ran {runs} times; the platform took {peak} KiB; /metrics is {metrics} bytes long");
    assert!(metrics < METRICS_BYTES, "/metrics is {metrics} bytes long");
    assert!(!platform.log().contains("panicked"), "something panicked");
    assert!(fell.is_empty(), "these attacks succeeded: {fell:?}");
}

/// The key and the blobs: nothing that was there may change.
fn contents(platform: &Platform) -> BTreeMap<PathBuf, Vec<u8>> {
    let below = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let blobs = below(platform.data().join("blobs/sha256")).flat_map(below);
    blobs.chain([platform.data().join("key")]).map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// Scenarios that fail by themselves, and are not tried again and again.
fn failed_once(client: &Client, ids: &[String]) {
    for id in ids {
        let scenario = client.wait_for_state(id, &["failed"]);
        let again = client.transitions(id).iter().filter(|(_, to)| to == "recovering").count();
        assert!(again <= 1, "it was tried {again} times again: {scenario:#}");
    }
}

/// A line of `/proc/PID/status`.
fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// A deadline for what must not take long, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
