//! Fetches a recording over HTTP into the runner's own folder, before any worker sees it.
//!
//! Invariants:
//! - A connection goes only to an address that was checked (`network`), after each redirect anew: what a name resolves to
//!   a moment later changes nothing.
//! - Credentials go to the server they were given for and to no other.
//! - What is said about a source holds its address, and nothing of what a server or a library says about the whole URL.
//!
//! Deliberately absent: any authentication but Basic; going on with half a file; noticing that a recording is another one
//! than in an earlier deployment.

use std::{error::Error, fmt::Display, io, net::SocketAddr, time::Duration};

use framehook_core::{
    ids::ScenarioId,
    reason::{Reason, ReasonCode},
    source_url::SealedUrl,
};
use framehook_infra::seal;
use reqwest::{Client, Response, StatusCode, header::LOCATION, redirect};
use tempfile::TempPath;
use tokio::{
    fs::File,
    io::{AsyncWrite, AsyncWriteExt as _, BufWriter},
    task,
    time::timeout,
};
use url::Url;

use crate::{config::RunnerConfig, network, supervisor::Setback};

/// A link to a file store that leads to a mirror takes two or three.
const MAX_REDIRECTS: usize = 5;

/// What comes in pieces of some KiB is written in larger ones.
const WRITE_BUFFER: usize = 1 << 20;

/// The recording of a scenario in a file of its own, which goes with the path that is given.
///
/// # Errors
/// With the reason, and whether another try may help.
pub(crate) async fn fetch(
    config: &RunnerConfig,
    scenario: ScenarioId,
    source: &SealedUrl,
) -> Result<TempPath, Setback> {
    let fetch = Fetch { config, address: &source.address };
    let url = seal::open(config.key.as_ref(), source).map_err(|error| {
        let advice = "all APIs and runners need the same key (FRAMEHOOK_KEY)";
        fetch.fatal(ReasonCode::SourceAuth, format!("has credentials that cannot be opened: {error}; {advice}"))
    })?;
    let response = fetch.follow(url.expose().clone()).await?;
    let file = tempfile::Builder::new().prefix(&format!("{scenario}-")).tempfile_in(&config.recordings_dir);
    let (file, path) = file.map_err(|error| fetch.not_stored(&error))?.into_parts();
    fetch.save(response, File::from_std(file)).await?;
    Ok(path)
}

struct Fetch<'a> {
    config: &'a RunnerConfig,
    /// What may be said of the URL.
    address: &'a str,
}

impl Fetch<'_> {
    /// The first answer that is a recording.
    async fn follow(&self, mut url: Url) -> Result<Response, Setback> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&url).await?;
            let status = response.status();
            url = match status {
                StatusCode::OK => return Ok(response),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let message = "wants other credentials than its URL has, or another authentication than Basic";
                    return Err(self.fatal(ReasonCode::SourceAuth, format!("answers {status}: it {message}")));
                }
                _ if status.is_redirection() => target(&url, &response).ok_or_else(|| {
                    let message = "with a redirect that leads nowhere, or away from `http` and `https`";
                    self.fatal(ReasonCode::SourceUnreachable, format!("answers {status} {message}"))
                })?,
                _ => return Err(self.retry(ReasonCode::SourceUnreachable, format!("answers {status}"))),
            };
        }
        Err(self.fatal(ReasonCode::SourceUnreachable, format!("redirects more than {MAX_REDIRECTS} times")))
    }

    async fn ask(&self, url: &Url) -> Result<Response, Setback> {
        let addresses = self.addresses(url).await?;
        let client = client(url, &addresses, self.config.frame_timeout).map_err(|error| self.lost(error))?;
        client.get(url.clone()).send().await.map_err(|error| self.lost(error))
    }

    /// Where a connection may go.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, Setback> {
        let host = url.host_str().unwrap_or_default();
        let to_resolve = url.clone();
        let resolving = task::spawn_blocking(move || to_resolve.socket_addrs(|| None));
        let found = match timeout(self.config.frame_timeout, resolving).await {
            Ok(found) => found.unwrap_or_else(|panic| Err(io::Error::other(panic))),
            Err(late) => Err(late.into()),
        };
        let found = found.map_err(|error| {
            let message = format!("cannot be reached: the host {host} cannot be resolved: {error}");
            self.retry(ReasonCode::SourceUnreachable, message)
        })?;
        let networks = &self.config.source_networks;
        let (allowed, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| network::is_allowed(address.ip(), networks));
        match (allowed.as_slice(), refused.first()) {
            ([], Some(address)) => {
                let message = format!(
                    "leads to {}, which is no public address; allow its network in the runner's `source_networks`, or \
                     upload the video",
                    address.ip()
                );
                Err(self.fatal(ReasonCode::SourceUnreachable, message))
            }
            _ => Ok(allowed),
        }
    }

    async fn save(&self, mut response: Response, file: impl AsyncWrite + Unpin) -> Result<(), Setback> {
        let cap = self.config.max_recording_bytes;
        let too_large = || {
            let message = format!("is larger than the {cap} bytes a video may have (`max_video_mib`)");
            self.fatal(ReasonCode::SourceUnreachable, message)
        };
        if response.content_length().is_some_and(|size| size > cap) {
            return Err(too_large());
        }
        let mut file = BufWriter::with_capacity(WRITE_BUFFER, file);
        let mut size = 0;
        while let Some(bytes) = response.chunk().await.map_err(|error| self.lost(error))? {
            size += bytes.len() as u64;
            if size > cap {
                return Err(too_large());
            }
            file.write_all(&bytes).await.map_err(|error| self.not_stored(&error))?;
        }
        file.flush().await.map_err(|error| self.not_stored(&error))
    }

    /// The URL is taken out of the error, which would tell the query.
    fn lost(&self, error: reqwest::Error) -> Setback {
        if error.is_timeout() && !error.is_connect() {
            let message = format!("delivered nothing for {:?}", self.config.frame_timeout);
            return self.retry(ReasonCode::SourceStalled, message);
        }
        let error = error.without_url();
        let mut cause: &dyn Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        self.retry(ReasonCode::SourceUnreachable, format!("cannot be fetched: {cause}"))
    }

    fn not_stored(&self, error: &io::Error) -> Setback {
        let folder = self.config.recordings_dir.display();
        self.retry(ReasonCode::StorageFull, format!("cannot be stored in {folder}: {error}; free space there"))
    }

    fn retry(&self, code: ReasonCode, what: impl Display) -> Setback {
        Setback::Retry(Reason::new(code, format!("the source {} {what}", self.address)))
    }

    fn fatal(&self, code: ReasonCode, what: impl Display) -> Setback {
        Setback::Fatal(Reason::new(code, format!("the source {} {what}", self.address)))
    }
}

/// A client for one request, which knows no other address of the host than these.
fn client(url: &Url, addresses: &[SocketAddr], patience: Duration) -> reqwest::Result<Client> {
    Client::builder()
        .resolve_to_addrs(url.host_str().unwrap_or_default(), addresses)
        // It would resolve names itself.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(patience)
        .read_timeout(patience)
        .user_agent(concat!("framehook/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Where a redirect leads; none out of TLS. Credentials stay with the server they were given for, and what another says
/// about them is not taken.
fn target(from: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut to = from.join(location).ok()?;
    if to.scheme() != "https" && (to.scheme(), from.scheme()) != ("http", "http") {
        return None;
    }
    let is_same_server = to.origin() == from.origin();
    let (user, password) = if is_same_server { (from.username(), from.password()) } else { ("", None) };
    to.set_username(user).ok()?;
    to.set_password(password).ok()?;
    Some(to)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use axum::http;
    use framehook_core::ids::RunnerId;
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    const ADDRESS: &str = "https://cameras.example/clip.mp4";

    fn config() -> RunnerConfig {
        let none = PathBuf::new;
        RunnerConfig::new(RunnerId("r".into()), none(), none(), none(), none(), "recordings".into())
    }

    fn answer(status: u16, location: &str) -> Response {
        let answer = http::Response::builder().status(status).header("location", location);
        answer.body(vec![7_u8; 5]).unwrap().into()
    }

    #[test]
    fn a_redirect_takes_credentials_nowhere_else() {
        for (from, location, to) in [
            ("https://me:p%40@a.example/x?q=1", "/y?z=2", Some("https://me:p%40@a.example/y?z=2")),
            ("https://me:pw@a.example/x/", "y", Some("https://me:pw@a.example/x/y")),
            ("https://me:pw@a.example/x", "https://b.example/y", Some("https://b.example/y")),
            ("https://me:pw@a.example/x", "//b.example/y", Some("https://b.example/y")),
            ("https://me:pw@a.example/x", "https://a.example:444/y", Some("https://a.example:444/y")),
            ("http://me:pw@a.example/x", "https://a.example/y", Some("https://a.example/y")),
            ("https://me:pw@a.example/x", "https://you:pw2@b.example/y", Some("https://b.example/y")),
            ("https://me:pw@a.example/x", "https://you:pw2@a.example/y", Some("https://me:pw@a.example/y")),
            ("http://a.example/x", "http://b.example/y", Some("http://b.example/y")),
            ("https://a.example/x", "http://a.example/y", None),
            ("https://a.example/x", "file:///etc/passwd", None),
            ("https://a.example/x", "ftp://a.example/y", None),
            ("https://a.example/x", "https://", None),
        ] {
            let to_url = target(&from.parse().unwrap(), &answer(302, location));
            assert_eq!(to_url.as_ref().map(Url::as_str), to, "{from} -> {location}");
        }
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_checked_address_and_no_name_is_resolved_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // However it is written. Nobody can own a name that ends with this.
        for host in ["cameras.invalid", "CAMERAS.invalid.", "kameras-süd.invalid"] {
            let url = format!("http://{host}:{}/clip.mp4", address.port()).parse().unwrap();
            let client = client(&url, &[address], Duration::from_secs(60)).unwrap();
            let serve = async {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1000];
                let length = connection.read(&mut request).await.unwrap();
                connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                String::from_utf8_lossy(&request[..length]).to_lowercase()
            };
            let answered = async { client.get(url.clone()).send().await.unwrap() };
            let (request, answer) = timeout(Duration::from_secs(60), async { tokio::join!(serve, answered) })
                .await
                .expect("the server of this test is asked");
            assert_eq!(answer.status(), 204);
            assert!(request.contains(&format!("host: {}", url.host_str().unwrap())), "{request}");
        }
    }

    #[tokio::test]
    async fn a_full_disk_and_a_large_file_have_their_reasons() {
        let config = config();
        let fetch = Fetch { config: &config, address: ADDRESS };
        let full = File::options().write(true).open("/dev/full").await.unwrap();
        let Err(Setback::Retry(reason)) = fetch.save(answer(200, ""), full).await else { panic!("it was stored") };
        assert_eq!(reason.code, ReasonCode::StorageFull);
        assert!(reason.message.contains("recordings: No space left"), "{}", reason.message);

        for (cap, fits) in [(5, true), (4, false)] {
            let config = RunnerConfig { max_recording_bytes: cap, ..config.clone() };
            let mut stored = Vec::new();
            let saved = Fetch { config: &config, address: ADDRESS }.save(answer(200, ""), &mut stored).await;
            match saved {
                Ok(()) => assert!(fits && stored == [7; 5]),
                Err(Setback::Fatal(reason)) => assert!(!fits && reason.message.contains("larger than the 4 bytes")),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
