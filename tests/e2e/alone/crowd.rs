//! Many clients at once, most of them of no use.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use framehook_tests::{client::light_scenario, platform::Platform};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Too few for the connections that come, and enough for what works inside.
const FILES: u32 = 256;
const CONNECTIONS: usize = 1500;

/// Opens connections that send a byte now and then, and another for each that is closed, until told to stop.
fn crowd(address: &str, beginning: &str, over: &AtomicBool) {
    let connect = || {
        let mut connection = TcpStream::connect(address).ok()?;
        connection.write_all(beginning.as_bytes()).ok()?;
        Some(connection)
    };
    let mut connections: Vec<Option<TcpStream>> = (0..CONNECTIONS).map(|_| None).collect();
    while !over.load(Ordering::Relaxed) {
        for slot in &mut connections {
            let is_open = slot.as_mut().is_some_and(|connection| connection.write_all(b"a").is_ok());
            if !is_open {
                *slot = connect();
            }
        }
        // The pace of what is slow, and not a wait for anything.
        thread::park_timeout(Duration::from_millis(200));
    }
}

/// Ends the crowd, whatever ends the test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn scenarios_run_while_more_connections_are_open_than_files_may_be() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let platform = Platform::start_with_files(FILES, &[]);
    platform.upload_demo();
    let address = platform.url().trim_start_matches("http://").to_owned();
    for beginning in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        "POST /video?name=slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
    ] {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| crowd(&address, beginning, &over));
            let _over = Over(&over);
            for _ in 0..3 {
                let id = platform.post_scenario(&light_scenario());
                platform.completed(&id, 500);
            }
        });
    }
    assert!(!platform.log().contains("ERROR"), "{}", platform.log());
}
