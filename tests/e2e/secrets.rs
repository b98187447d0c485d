//! A canary in the credentials of a source: it works, and is nowhere to be found.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use framehook_tests::{asset, client::light_scenario, cluster::Cluster, platform::Platform, servers::topics};
use serde_json::{Value, json};

const PASSWORD: &str = "canary-7Qx2-password";
const TOKEN: &str = "canary-9Lm4-token";
/// `me` and the password, as Basic authentication sends them.
const BASIC: &str = "bWU6Y2FuYXJ5LTdReDItcGFzc3dvcmQ=";

/// Serves the demo clip to whoever knows both secrets; gives its address.
fn serve_clip() -> String {
    let clip = fs::read(asset("demo1.mp4")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().for_each(|connection| answer(connection.unwrap(), &clip)));
    address
}

fn answer(mut connection: TcpStream, clip: &[u8]) {
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let head: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let has_token = head[0].starts_with(&format!("GET /clip.mp4?token={TOKEN} "));
    let (status, body) = match has_token && head.iter().any(|line| line.ends_with(&format!("Basic {BASIC}"))) {
        true => ("200 OK", clip),
        false => ("401 Unauthorized", &b""[..]),
    };
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    // A client that has gone says so itself.
    let _gone = connection.write_all(&[head.as_bytes(), body].concat());
}

fn scenario(url: &str) -> Value {
    let mut scenario = light_scenario();
    scenario["source"] = json!({"url": url});
    scenario
}

#[test]
fn credentials_of_a_source_are_used_and_found_nowhere() {
    let server = serve_clip();
    // The log of everything, the libraries included.
    let mut platform = Platform::with_demo(&["--source-network", "127.0.0.0/8", "--log", "trace"]);
    let url = format!("http://me:{PASSWORD}@{server}/clip.mp4?token={TOKEN}");

    let mut answers = vec![platform.post_json("/scenario/check", &scenario(&url))];
    let posted = platform.post_with_key("/scenario/init", "key", &scenario(&url));
    let good = posted.body["id"].as_str().unwrap_or_else(|| panic!("{posted:?}")).to_owned();
    answers.extend([posted, platform.post_with_key("/scenario/init", "key", &scenario(&url))]);
    assert!(answers.iter().all(|a| a.status == 200), "{answers:?}");
    let refused = platform.post_json("/scenario/init", &scenario(&url.replace("clip.mp4", "closed.mp4")));
    let closed = refused.body["id"].as_str().unwrap_or_else(|| panic!("{refused:?}")).to_owned();
    let mut misplaced = light_scenario();
    misplaced["source"] = json!({"video": url});
    let live = scenario(&url.replace("http:", "rtsp:"));
    for wrong in [misplaced, live, json!({"source": url, "model": "street@1"})] {
        let answer = platform.post_json("/scenario/init", &wrong);
        assert_eq!(answer.status, 422, "{answer:?}");
        answers.push(answer);
    }

    let rows = platform.completed(&good, 500);
    assert!(!rows[0].detections.is_empty());
    let failed = platform.wait_for_state(&closed, &["failed"]);
    assert_eq!(failed["reason"]["code"], "source_auth", "{failed:#}");
    let paths = ["/scenario", "/runner", "/metrics", "/openapi.json"].map(str::to_owned);
    let of = |id| ["", "/history"].map(|rest| format!("/scenario/{id}{rest}"));
    let look = |platform: &Platform| {
        paths.iter().cloned().chain(of(&good)).chain(of(&closed)).map(|path| platform.get(&path)).collect::<Vec<_>>()
    };
    answers.extend(look(&platform));
    answers.push(platform.get(&format!("/prediction/{good}?limit=1000")));
    let folder = platform.data().parent().unwrap().to_owned();
    assert_nowhere(&folder);
    // They would be found: what stands beside them is, in the database and in what the HTTP library logs.
    let address = format!("http://{server}/closed.mp4");
    assert!(files_with(&folder, &address).iter().any(|path| path.starts_with(platform.data())));
    let is_library = |line: &str| [" TRACE ", "hyper_util", &server].iter().all(|word| line.contains(word));
    assert!(platform.log().lines().any(is_library), "the log is not that of everything");
    let recordings: Vec<_> = fs::read_dir(platform.data().join("recordings")).unwrap().collect();
    assert!(recordings.is_empty(), "{recordings:?}");

    // At its end SQLite writes its log back into the file, and the next process reads what the first has
    // written.
    assert_eq!(platform.interrupt(), Some(0));
    assert_nowhere(&folder);
    platform.up();
    answers.extend(look(&platform));
    platform.kill();
    assert_nowhere(&folder);
    for secret in [PASSWORD, TOKEN, BASIC] {
        assert!(!format!("{answers:?}").contains(secret), "{secret} is in an answer: {answers:?}");
    }
}

#[test]
fn nor_in_the_servers_of_a_cluster() {
    let server = serve_clip();
    let key = "00112233445566778899aabbccddeeff".repeat(2);
    let settings =
        [("FRAMEHOOK_KEY", key.as_str()), ("FRAMEHOOK_SOURCE_NETWORKS", "127.0.0.0/8"), ("FRAMEHOOK_LOG", "trace")];
    let mut cluster = Cluster::start(&settings);
    let id = cluster.post_scenario(&scenario(&format!("http://me:{PASSWORD}@{server}/clip.mp4?token={TOKEN}")));
    cluster.settle(std::slice::from_ref(&id));

    let mut seen = vec![("the database".to_owned(), cluster.dump())];
    for topic in ["init_scenario", "to_deploy", "results", "runner_status"] {
        let records = topics::read(cluster.brokers(), &cluster.topic(topic));
        assert!(!records.is_empty(), "{topic}");
        seen.push((topic.to_owned(), records.into_iter().flat_map(|record| record.payload).collect()));
    }
    for path in [
        format!("/scenario/{id}"),
        format!("/scenario/{id}/history"),
        format!("/scenario/{id}/logs"),
        "/runner".into(),
        "/metrics".into(),
    ] {
        let answer = cluster.get(&path);
        seen.push((path, answer.body.to_string().into_bytes()));
    }
    for (place, bytes) in &seen {
        assert!(!bytes.is_empty(), "{place}");
        for secret in [PASSWORD, TOKEN, BASIC, key.as_str()] {
            assert!(!holds(bytes, secret), "{secret} is in {place}");
        }
    }
    assert_nowhere(cluster.folder());
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// No file below a folder (database, log and output among them) holds a secret.
fn assert_nowhere(folder: &Path) {
    for secret in [PASSWORD, TOKEN, BASIC] {
        let files = files_with(folder, secret);
        assert!(files.is_empty(), "{secret} is in {files:?}");
    }
}

fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    // A file may be gone again.
    let found = files.into_iter().filter(|path| holds(&fs::read(path).unwrap_or_default(), text));
    found.chain(folders.iter().flat_map(|folder| files_with(folder, text))).collect()
}
