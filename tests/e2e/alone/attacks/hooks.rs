//! Plugins: their configurations, and what is made of them.

use std::{fs, thread, time::Instant};

use framehook_tests::{
    client::light_scenario,
    cluster::{FRAMES, found},
    platform::{PROMPT, Platform},
};
use serde_json::json;

/// Schemas that take for ever: in each place of a scenario, many at a time.
pub(super) fn configurations_that_take_for_ever_hold_nobody_up(platform: &Platform) {
    let bomb = json!({"use": "misbehave", "config": {"mode": "none", "bomb": true}});
    let with = |pre: usize, post: usize| {
        let mut scenario = light_scenario();
        scenario["plugins"] = json!({"pre": vec![&bomb; pre], "post": vec![&bomb; post]});
        scenario
    };
    let scenarios = [with(0, 1), with(4, 0), with(4, 8)];
    thread::scope(|scope| {
        let asked: Vec<_> = (0..20)
            .map(|n| {
                let (scenario, route) = (&scenarios[n % 3], ["/scenario/check", "/scenario/init"][n % 2]);
                scope.spawn(move || platform.post_json(route, scenario))
            })
            .collect();
        let mut times = vec![];
        while !asked.iter().all(thread::ScopedJoinHandle::is_finished) {
            let began = Instant::now();
            assert_eq!(platform.get("/scenario?limit=1").status, 200);
            times.push(began.elapsed());
        }
        // A busy machine may take its time now and then.
        times.sort_unstable();
        let most = times[times.len() * 9 / 10];
        assert!(most < PROMPT, "one of ten of {} is answered after {most:?}", times.len());
        for answer in asked.into_iter().map(|asked| asked.join().unwrap()) {
            assert!(matches!(answer.status, 422 | 429), "{answer:?}");
        }
    });
}

/// Whoever can write beside a runner puts another plugin's compiled code under the name of `yolo`'s.
pub(super) fn compiled_code_of_another_plugin_is_not_run(platform: &Platform) {
    let mut gated = light_scenario();
    gated["plugins"]["pre"] = json!([{"use": "motion-gate", "config": {"threshold": 0.0}}]);
    let reference = platform.completed(&platform.post_scenario(&gated), FRAMES);
    let compiled: Vec<_> =
        fs::read_dir(platform.data().join("compiled")).unwrap().map(|file| file.unwrap().path()).collect();
    let contents: Vec<_> = compiled.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(contents.len() > 1);
    // Each file gets what another one has, and then what nobody made.
    for forged in [[&contents[1..], &contents[..1]].concat(), contents.iter().map(|bytes| flipped(bytes)).collect()] {
        for (file, bytes) in compiled.iter().zip(forged) {
            let beside = file.with_extension("forged");
            fs::write(&beside, bytes).unwrap();
            fs::rename(beside, file).unwrap();
        }
        let rows = platform.completed(&platform.post_scenario(&gated), FRAMES);
        assert!(found(&rows) == found(&reference), "a plugin's code was another one");
    }
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}
