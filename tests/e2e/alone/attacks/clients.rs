//! What a client sends that means no good: pages of other sites, bodies without end, and the same again and
//! again.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use framehook_tests::{client::light_scenario, platform::Platform};
use serde_json::json;

use super::{SOON, status_kib};

/// Sends a request as it is, and gives the status of the answer; none when the connection is closed without
/// one.
fn status_of(platform: &Platform, request: &[u8]) -> Option<u16> {
    let mut connection = connect(platform);
    // Refused before all of it was sent: the answer may be there nevertheless.
    let _refused = connection.write_all(request);
    answer_of(&mut connection)
}

fn connect(platform: &Platform) -> TcpStream {
    let connection = TcpStream::connect(platform.url().strip_prefix("http://").unwrap()).unwrap();
    connection.set_read_timeout(Some(SOON)).unwrap();
    connection.set_write_timeout(Some(SOON)).unwrap();
    connection
}

fn answer_of(connection: &mut TcpStream) -> Option<u16> {
    let mut head = [0; 12];
    connection.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head).ok()?.split(' ').nth(1)?.parse().ok()
}

fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// A page in a browser cannot choose the name it calls, nor hide whose it is.
pub(super) fn no_page_of_another_site_reads_or_writes(platform: &Platform) {
    let port = platform.url().rsplit(':').next().unwrap();
    let own = format!("127.0.0.1:{port}");
    assert_eq!(status_of(platform, &request("GET", "/scenario", &[("Host", &own)], "")), Some(200));
    let names = [
        "evil.example",
        "evil.example:80",
        "EVIL.example.",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example@localhost",
        "localhost@evil.example",
        "localhost, evil.example",
        "localhost evil.example",
        "0x7f.1.evil.example",
        "10.0.0.1",
        "[::ffff:10.0.0.1]",
        "",
    ];
    for name in names {
        let status = status_of(platform, &request("GET", "/scenario", &[("Host", name)], ""));
        assert!(refuses(status), "`Host: {name}` is answered with {status:?}");
    }
    for (target, headers) in [
        ("/scenario", vec![]),
        ("/scenario", vec![("Host", own.as_str()), ("Host", "evil.example")]),
        ("http://evil.example/scenario", vec![("Host", own.as_str())]),
        ("/scenario", vec![("Host", "evil.example"), ("X-Forwarded-Host", own.as_str())]),
    ] {
        let status = status_of(platform, &request("GET", target, &headers, ""));
        assert!(refuses(status), "{target} {headers:?} is answered with {status:?}");
    }

    let mut scenario = light_scenario();
    scenario["name"] = json!("forged");
    let body = scenario.to_string();
    let (other_port, own_origin) = ("http://127.0.0.1:1", format!("http://{own}"));
    for headers in [
        vec![("Content-Type", "application/json"), ("Origin", "null")],
        vec![("Content-Type", "application/json"), ("Origin", "http://evil.example")],
        vec![("Content-Type", "application/json"), ("Origin", "https://127.0.0.1")],
        vec![("Content-Type", "application/json"), ("Origin", other_port)],
        vec![("Content-Type", "application/json"), ("Origin", &own_origin), ("Origin", "http://evil.example")],
        vec![("Content-Type", "application/json"), ("Sec-Fetch-Site", "cross-site")],
        vec![("Content-Type", "application/json"), ("Sec-Fetch-Site", "same-site")],
        vec![("Content-Type", "text/plain")],
        vec![("Content-Type", "text/plain;application/json")],
        vec![("Content-Type", "application/x-www-form-urlencoded")],
        vec![("Content-Type", "multipart/form-data; boundary=X")],
        vec![],
    ] {
        let headers = [&[("Host", own.as_str())], &headers[..]].concat();
        let status = status_of(platform, &request("POST", "/scenario/init", &headers, &body));
        assert!(refuses(status), "{headers:?} is answered with {status:?}");
    }
    let forged = platform.get("/scenario?name=forged&limit=1000");
    assert_ne!(forged.body["items"][0]["name"], "forged", "{forged:?}");
    let cross = [("Host", own.as_str()), ("Origin", "http://evil.example")];
    for (method, target) in [("DELETE", "/model/street/1"), ("POST", "/model?name=forged"), ("POST", "/plugin")] {
        let status = status_of(platform, &request(method, target, &cross, ""));
        assert!(refuses(status), "{method} {target} is answered with {status:?}");
    }
    assert_eq!(platform.get("/model/street/1").status, 200);
}

fn refuses(status: Option<u16>) -> bool {
    status.is_none_or(|status| (400..500).contains(&status))
}

/// More than any limit of a field, a head or a part.
const MUCH: usize = 64 << 20;

/// Each form begins, goes on for ever, and is cut off by the platform, which keeps little of it.
pub(super) fn no_upload_comes_past_its_limit(platform: &Platform) {
    let before = status_kib(platform.pid(), "VmRSS");
    let field = "--X\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\n";
    for (beginning, again) in [
        ("", "preamble"),
        (field, "a name without end"),
        ("--X\r\nContent-Disposition: form-data; name=\"", "quoted"),
        ("--X\r\n", "X-More: header\r\n"),
        ("", &format!("{field}v\r\n")),
        ("", "--X\r\nContent-Disposition: form-data; name=\"\"\r\n\r\n\r\n"),
    ] {
        let mut connection = connect(platform);
        let head = "POST /model HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.write_all(head.as_bytes()).unwrap();
        let first = format!("{:x}\r\n{beginning}\r\n", beginning.len());
        let _refused = if beginning.is_empty() { Ok(()) } else { connection.write_all(first.as_bytes()) };
        let content = again.repeat((1 << 20) / again.len());
        let chunk = format!("{:x}\r\n{content}\r\n", content.len());
        let sent = (0..MUCH >> 20).take_while(|_| connection.write_all(chunk.as_bytes()).is_ok()).count();
        let status = answer_of(&mut connection);
        assert!(refuses(status), "{beginning}{again} is answered with {status:?}");
        assert!(status.is_some() || sent < MUCH >> 20, "{beginning}{again}: nobody stopped it");
    }
    let grown = status_kib(platform.pid(), "VmRSS").saturating_sub(before);
    assert!(grown < (MUCH >> 10) as u64, "the platform took {grown} KiB more");
}

/// Metrics and logs have no word of a client's choice.
pub(super) fn no_method_leaves_a_trace(platform: &Platform) {
    for n in 0..500 {
        let name = format!("METHOD{n}NOBODYKNOWS");
        for (method, target) in
            [(name.as_str(), "/scenario"), ("GET", &format!("/{name}")), ("GET", &format!("/scenario/{name}"))]
        {
            let status = status_of(platform, &request(method, target, &[("Host", "localhost")], ""));
            assert!(refuses(status), "{method} {target} is answered with {status:?}");
        }
    }
    let metrics = platform.get("/metrics").body;
    assert!(!metrics.as_str().unwrap().contains("NOBODYKNOWS"), "a client chose a label");
}

/// A file that exists and one that does not are refused in the same words.
pub(super) fn no_answer_tells_which_files_exist(platform: &Platform) {
    for pair in [["/etc/passwd", "/etc/passwx"], ["/root", "/roox"], ["/proc/self/environ", "/proc/self/environx"]] {
        let answers = pair.map(|file| {
            let mut scenario = light_scenario();
            scenario["source"] = json!({"file": file});
            let answer = platform.post_json("/scenario/check", &scenario);
            assert_eq!(answer.status, 422, "{answer:?}");
            answer.body["detail"].as_str().unwrap().replace(file, "FILE")
        });
        assert_eq!(answers[0], answers[1]);
    }
}

/// Whatever is asked, and however it ends.
pub(super) fn every_answer_tells_a_browser_what_it_may_do(platform: &Platform) {
    for (method, target) in [
        ("GET", "/scenario"),
        ("GET", "/docs/"),
        ("GET", "/nothing"),
        ("DELETE", "/healthz"),
        ("POST", "/scenario/init"),
    ] {
        let mut connection = connect(platform);
        connection.write_all(&request(method, target, &[("Host", "localhost")], "")).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let head = String::from_utf8_lossy(&answer).to_lowercase();
        for header in [
            "x-content-type-options: nosniff",
            "content-security-policy: default-src 'none'",
            "frame-ancestors 'none'",
            "referrer-policy: no-referrer",
            "x-request-id: ",
        ] {
            assert!(head.contains(header), "{method} {target} has no `{header}`: {head:.800}");
        }
    }
}
