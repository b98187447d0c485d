//! What slow, silent and many clients can do over real sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use framehook_api::{App, HttpLimits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::app::{TestApp, eventually, model, video};

/// Far more than any of these takes, on any machine.
const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    address: SocketAddr,
    app: TestApp,
    _running: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(limits: HttpLimits) -> Self {
        let mut app = TestApp::new().await;
        app.config.http = limits;
        app.config.upload_caps.video = 1 << 30;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (store, bus, blobs) = (app.store.clone(), app.bus.clone(), app.blobs.clone());
        let serving = framehook_api::serve(
            App::new(app.config.clone(), store, bus, blobs, None, CancellationToken::new()),
            listener,
        );
        Self { address, _running: AbortOnDropHandle::new(tokio::spawn(serving)), app }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that has sent this, which may not be all of a request.
    async fn sent(&self, bytes: &str) -> TcpStream {
        let mut connection = self.connect().await;
        connection.write_all(bytes.as_bytes()).await.unwrap();
        connection
    }

    async fn answers(&self) -> bool {
        let ask = async {
            let mut connection = self.connect().await;
            connection
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await
                .ok()?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        };
        ask.await.is_some()
    }
}

/// All that comes until the other side closes.
async fn rest(mut connection: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it, too.
    timeout(DEADLINE, connection.read_to_end(&mut bytes)).await.expect("it is closed").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The same, while a byte goes out now and then.
async fn rest_trickling(connection: TcpStream) -> String {
    let (mut reader, mut writer) = connection.into_split();
    let _trickling = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while writer.write_all(b"a").await.is_ok() {
            ticks.tick().await;
        }
    }));
    let mut bytes = Vec::new();
    timeout(DEADLINE, reader.read_to_end(&mut bytes)).await.expect("it is closed").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

const SLOW_HEAD: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
const SLOW_UPLOAD: &str =
    "POST /video?name=v HTTP/1.1\r\nHost: localhost\r\nContent-Type: video/mp4\r\nContent-Length: 1000000\r\n\r\nabc";
const SLOW_CHUNKS: &str =
    "POST /video?name=v HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\nabc";
const SLOW_FORM: &str = "POST /video?name=v HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\
                         Content-Type: multipart/form-data; boundary=X\r\n\r\n--X\r\nContent-Disp";
const SLOW_JSON: &str = "POST /scenario/init HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                         Content-Length: 100000\r\n\r\n{";

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let limits = HttpLimits { head: Duration::from_millis(200), ..HttpLimits::default() };
    let server = Server::start(limits).await;
    for beginning in ["", "G", SLOW_HEAD] {
        assert_eq!(rest(server.sent(beginning).await).await, "", "{beginning}");
    }
    assert_eq!(rest_trickling(server.sent(SLOW_HEAD).await).await, "");
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_but_not_for_ever() {
    let limits = HttpLimits { keep_alive: Duration::from_millis(200), ..HttpLimits::default() };
    let server = Server::start(limits).await;
    let answer = rest(server.sent("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_answered() {
    let second = Duration::from_secs(1);
    let limits = HttpLimits { rate_window: second, small_body: second / 2, ..HttpLimits::default() };
    let server = Server::start(limits).await;
    for beginning in [SLOW_UPLOAD, SLOW_CHUNKS, SLOW_FORM, SLOW_JSON] {
        for answer in [rest(server.sent(beginning).await).await, rest_trickling(server.sent(beginning).await).await] {
            assert!(answer.starts_with("HTTP/1.1 408"), "{beginning}: {answer}");
            assert!(answer.contains(r#""code":"request_timeout""#) && answer.contains("setting"), "{answer}");
        }
    }
    assert_eq!(server.app.blob_files(), 0);
}

/// For the connections of both sides.
fn may_open_files(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_hundred_slow_connections_do_not_keep_others_out() {
    may_open_files(4000);
    let server = Server::start(HttpLimits::default()).await;
    let read_nothing = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    for beginning in ["", SLOW_HEAD, SLOW_UPLOAD, SLOW_FORM, SLOW_JSON, &read_nothing] {
        let mut slow = Vec::new();
        for number in 0..1500 {
            // One that was driven out while it wrote is as good.
            let mut connection = server.connect().await;
            connection.write_all(beginning.as_bytes()).await.ok();
            slow.push(connection);
            if number % 100 == 99 {
                timeout(DEADLINE, server.answers()).await.expect("an answer comes");
            }
        }
        for _ in 0..20 {
            assert!(timeout(DEADLINE, server.answers()).await.expect("an answer comes"), "{beginning}");
        }
        let open = |slow: &Vec<TcpStream>| {
            let is_open = |connection: &&TcpStream| {
                let mut bytes = [0; 4096];
                loop {
                    match connection.try_read(&mut bytes) {
                        Ok(0) => return false,
                        Ok(_) => {}
                        Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                    }
                }
            };
            slow.iter().filter(is_open).count()
        };
        eventually("the slow ones to be driven out", async || (open(&slow) <= 512).then_some(())).await;
    }
}

#[tokio::test]
async fn who_is_being_served_keeps_the_place_and_who_comes_is_told() {
    let server = Server::start(HttpLimits { connections: 1, ..HttpLimits::default() }).await;
    let uploads =
        "POST /video?name=v HTTP/1.1\r\nHost: localhost\r\nContent-Type: video/mp4\r\nContent-Length: 4\r\n\r\n";
    // A probe that does not end.
    let _served = server.sent(&format!("{uploads}slow")).await;
    eventually("its upload to be there", async || (server.app.blob_files() == 1).then_some(())).await;
    eventually("a refusal", async || {
        let answer = rest(server.sent(SLOW_HEAD).await).await;
        let refused = answer.starts_with("HTTP/1.1 503") && answer.contains(r#""code":"too_many_connections""#);
        (refused && answer.contains("max_connections")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upload_gets_through_a_flood_of_slow_ones() {
    let app = Arc::new(TestApp::new().await);
    let mut flood = JoinSet::new();
    for number in 0..20 {
        let app = Arc::clone(&app);
        flood.spawn(async move { app.post(&format!("/model?name=slow-{number}"), "slow").await });
    }
    // Half of the places are one client's at most; the others are told at once.
    for _ in 0..20 - 2 - 8 {
        let answer = flood.join_next().await.unwrap().unwrap();
        answer.problem(429, "too_busy");
        assert_eq!(answer.headers["retry-after"], "5");
    }
    // Another kind of file goes before more of the same, the same kind goes in turn.
    let full = app.upload("/video?name=v", &video(1)).await;
    assert!(full.status == 201 || full.status == 429, "{}", full.text());
    eventually("the other upload to get through", async || {
        let answer = app.upload("/model?name=quick", &model(&[1, 3, 8, 8])).await;
        assert!(answer.status == 201 || answer.json()["code"] == "too_busy", "{}", answer.text());
        (answer.status == 201).then_some(())
    })
    .await;
    assert!(flood.len() >= 2, "the slow ones that went on without a turn still do");
}

#[tokio::test]
async fn an_upload_that_keeps_its_rate_is_not_cut() {
    let limits =
        HttpLimits { rate_window: Duration::from_secs(1), head: Duration::from_millis(200), ..HttpLimits::default() };
    let server = Server::start(limits).await;
    let verdict = video(1).to_string();
    let body = format!("{verdict}{}", " ".repeat(40_000));
    let mut connection = server
        .sent(&format!(
            "POST /video?name=v HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: video/mp4\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    // In all two seconds, at ten times the least rate.
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for chunk in body.as_bytes().chunks(1000) {
        ticks.tick().await;
        connection.write_all(chunk).await.unwrap();
    }
    let answer = rest(connection).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test]
async fn what_could_be_two_requests_is_none() {
    let server = Server::start(HttpLimits::default()).await;
    for (headers, status) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "400"),
        ("Content-Length: 5\r\nContent-Length: 6", "400"),
        ("Transfer-Encoding: chunked, identity", "400"),
        ("Content-Length: +5", "400"),
        ("Host: evil.example", "421"),
    ] {
        let head = format!(
            "POST /video?name=v HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: video/mp4\r\n{headers}\r\n\r\n"
        );
        let answer =
            rest(server.sent(&format!("{head}0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")).await).await;
        let ok = answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.matches("HTTP/1.1").count() == 1;
        assert!(ok, "{headers}: {answer}");
    }
}
