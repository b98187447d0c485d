//! Configurations of plugins.

use std::{thread, time::Instant};

use framehook_tests::{
    client::demo_scenario,
    platform::{PROMPT, Platform},
};
use serde_json::json;

/// Schemas that take for ever: in each place of a scenario, many at a time.
pub(super) fn configurations_that_take_for_ever_hold_nobody_up(platform: &Platform) {
    let bomb = json!({"use": "misbehave", "config": {"mode": "none", "bomb": true}});
    let with = |pre: usize, post: usize| {
        let mut scenario = demo_scenario();
        scenario["plugins"] = json!({"pre": vec![&bomb; pre], "post": vec![&bomb; post]});
        scenario
    };
    let scenarios = [with(0, 1), with(1, 0), with(1, 2)];
    thread::scope(|scope| {
        let asked: Vec<_> = (0..20)
            .map(|n| {
                let (scenario, route) = (&scenarios[n % 3], ["/scenario/check", "/scenario/init"][n % 2]);
                scope.spawn(move || platform.post_json(route, scenario))
            })
            .collect();
        while !asked.iter().all(thread::ScopedJoinHandle::is_finished) {
            let began = Instant::now();
            assert_eq!(platform.get("/scenario?limit=1").status, 200);
            assert!(began.elapsed() < PROMPT, "answered after {:?}", began.elapsed());
        }
        for answer in asked.into_iter().map(|asked| asked.join().unwrap()) {
            assert!(matches!(answer.status, 422 | 429), "{answer:?}");
        }
    });
}
