//! Recordings whose server means no good.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use framehook_tests::{DEADLINE, client::light_scenario, cluster::FRAMES, platform::Platform, wait_for};
use serde_json::json;

/// How a server answers, until it is told to stop.
type Answer = fn(&mut TcpStream) -> std::io::Result<()>;

const ANSWERS: [Answer; 4] = [
    // Nothing at all.
    |_| Ok(()),
    // A head without end.
    |to| to.write_all(b"X-More: header\r\n"),
    // A byte now and then of a body that is announced.
    |to| to.write_all(b"a"),
    // Another place, for ever.
    |to| to.write_all(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"),
];
const BEGINNINGS: [&str; 4] = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", ""];

/// The pace of what is slow, and not a wait for anything.
const PACE: Duration = Duration::from_millis(200);

/// Listens on a port of its own; each connection is answered at that pace.
fn serve(form: usize, over: &Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let over = over.clone();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (Ok(mut connection), over) = (connection, over.clone()) else { return };
            thread::spawn(move || {
                let _request = connection.read(&mut [0; 4096]);
                let mut sent = connection.write_all(BEGINNINGS[form].as_bytes());
                while sent.is_ok() && !over.load(Ordering::Relaxed) {
                    sent = ANSWERS[form](&mut connection);
                    thread::park_timeout(PACE);
                }
            });
        }
    });
    port
}

/// More than a runner fetches at a time, and more than there are slots.
const SLOW: usize = 48;

pub(super) fn a_source_that_trickles_takes_no_slot(platform: &Platform) {
    let over = Arc::new(AtomicBool::new(false));
    let ports: Vec<_> = (0..ANSWERS.len()).map(|form| serve(form, &over)).collect();
    let ids: Vec<_> = (0..SLOW)
        .map(|n| {
            let port = ports[n % ANSWERS.len()];
            let mut scenario = light_scenario();
            scenario["source"] = json!({"url": format!("http://127.0.0.1:{port}/clip-{n}.mp4")});
            platform.post_scenario(&scenario)
        })
        .collect();
    let waits = |id: &String| {
        let reason = platform.scenario(id)["reason"]["message"].to_string();
        reason.contains("recordings at a time are fetched")
    };
    wait_for("some to wait for others to be fetched", DEADLINE, || ids.iter().any(waits).then_some(()));
    // Whoever comes behind them finds room.
    platform.completed(&platform.post_scenario(&light_scenario()), FRAMES);
    assert!(ids.iter().any(waits), "it waited for them");
    for id in &ids {
        assert_eq!(platform.delete(&format!("/scenario/{id}")).status, 204);
    }
    let is_known = |id: &String| platform.get(&format!("/scenario/{id}")).status != 404;
    wait_for("them to be gone", DEADLINE, || (!ids.iter().any(is_known)).then_some(()));
    over.store(true, Ordering::Relaxed);
}
