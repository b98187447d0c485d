//! What a worker whose decoder was taken over would find. The kernel says it, whatever the worker was told.

use std::fs;

use framehook_tests::{client::slow_scenario, platform::Platform, process::workers_of};

/// Where libraries are, how much to log, and what stops ONNX Runtime from calling home.
const TOLD: [&str; 4] = ["LANG", "LD_LIBRARY_PATH", "ORT_DISABLE_TELEMETRY", "RUST_LOG"];

/// Some seconds a run, so that it can be looked at.
const FRAME_MS: u64 = 10;

pub(super) fn a_worker_has_nothing_of_the_platform(platform: &Platform) {
    let id = platform.post_scenario(&slow_scenario(FRAME_MS));
    platform.wait_for_row(&id, 5);
    let workers = workers_of(platform.pid());
    // The neighbour's may end at any moment.
    let seen: Vec<_> = workers.iter().filter_map(|pid| look(*pid)).collect();
    assert!(!seen.is_empty(), "no worker ran");
    let of_the_platform = look(platform.pid()).unwrap();
    for worker in seen {
        let variables: Vec<_> = worker.environment.split('\0').collect();
        assert!(variables.contains(&"ORT_DISABLE_TELEMETRY=1"), "{variables:?}");
        let names = variables.iter().filter_map(|variable| Some(variable.split_once('=')?.0));
        let others: Vec<_> = names.filter(|name| !TOLD.contains(name)).collect();
        assert!(others.is_empty(), "a worker has the platform's {others:?}");
        assert_eq!(worker.in_its_folder, 0, "a worker's folder is empty");
        for file in &worker.files {
            assert!(!file.contains("framehook.db") && !file.ends_with("/key") && !file.contains("socket:"), "{file}");
        }
        assert!(worker.status.contains("NoNewPrivs:\t1"), "{}", worker.status);
        assert!(worker.status.contains("Seccomp:\t2"), "{}", worker.status);
        assert!(worker.dies > of_the_platform.dies, "the kernel ends a worker before the platform");
    }
    assert_eq!(platform.delete(&format!("/scenario/{id}")).status, 204);
}

struct Seen {
    environment: String,
    files: Vec<String>,
    in_its_folder: usize,
    status: String,
    /// How early, when memory is short.
    dies: i32,
}

fn look(pid: u32) -> Option<Seen> {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    let links = fs::read_dir(of("fd")).ok()?.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    Some(Seen {
        environment: fs::read_to_string(of("environ")).ok()?,
        files: links.map(|link| link.display().to_string()).collect(),
        // One that was removed already has nothing in it, and says so.
        in_its_folder: fs::read_dir(of("cwd")).map_or(0, Iterator::count),
        status: fs::read_to_string(of("status")).ok()?,
        dies: fs::read_to_string(of("oom_score_adj")).ok()?.trim().parse().ok()?,
    })
}
