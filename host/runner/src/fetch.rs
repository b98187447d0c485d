//! Fetches a recording over HTTP into the runner's own folder, before any worker sees it.
//!
//! Invariants:
//! - A connection goes only to an address that was checked (`network`), after each redirect anew: what a name
//!   resolves to a moment later changes nothing.
//! - Credentials go to the server they were given for and to no other.
//! - What is said about a source holds its address, and nothing of what a server or a library says about the
//!   whole URL, of where it leads or of an address inside; the log has that.
//! - A server that delivers slower than it must, or for longer than it may, is given up.
//!
//! Deliberately absent: any authentication but Basic; going on with half a file; noticing that a recording is
//! another one than in an earlier deployment.

use std::{error::Error, fmt::Display, io, net::SocketAddr};

use framehook_core::{
    ids::ScenarioId,
    message::Fetching,
    reason::{Reason, ReasonCode},
    source_url::SealedUrl,
};
use framehook_infra::{
    network::{self, NoAddress},
    seal,
    space::{Disk, Shortage},
};
use reqwest::{Response, StatusCode};
use tempfile::TempPath;
use tokio::{
    fs::File,
    io::{AsyncWrite, AsyncWriteExt as _, BufWriter},
    time::{Instant, timeout, timeout_at},
};
use url::Url;

use crate::{config::RunnerConfig, failure::Failure};

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
    tell: impl Fn(Fetching),
) -> Result<TempPath, Failure> {
    let fetch = Fetch { config, address: &source.address };
    let late = |_| {
        let message = format!("was not fetched within {} s (`fetch_timeout_s`)", config.fetch_timeout.as_secs());
        Err(fetch.fatal(ReasonCode::SourceStalled, message))
    };
    timeout(config.fetch_timeout, fetch.whole(scenario, source, tell)).await.unwrap_or_else(late)
}

struct Fetch<'a> {
    config: &'a RunnerConfig,
    /// What may be said of the URL.
    address: &'a str,
}

impl Fetch<'_> {
    async fn whole(
        &self,
        scenario: ScenarioId,
        source: &SealedUrl,
        tell: impl Fn(Fetching),
    ) -> Result<TempPath, Failure> {
        let config = self.config;
        let url = seal::open(config.key.as_ref(), source).map_err(|error| {
            let advice = "all APIs and runners need the same key (FRAMEHOOK_KEY)";
            self.fatal(ReasonCode::SourceAuth, format!("has credentials that cannot be opened: {error}; {advice}"))
        })?;
        let slow =
            |_| Err(self.retry(ReasonCode::SourceStalled, format!("gave no answer for {:?}", config.rate_window)));
        let answer = timeout(config.rate_window, self.follow(url.expose().clone()));
        let response = answer.await.unwrap_or_else(slow)?;
        let file = tempfile::Builder::new().prefix(&format!("{scenario}-")).tempfile_in(&config.recordings_dir);
        let (file, path) = file.map_err(|error| self.not_stored(&error))?.into_parts();
        self.save(response, File::from_std(file), tell).await?;
        Ok(path)
    }

    /// The first answer that is a recording.
    async fn follow(&self, mut url: Url) -> Result<Response, Failure> {
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&url).await?;
            let status = response.status();
            url = match status {
                StatusCode::OK => return Ok(response),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    let message = "wants other credentials than its URL has, or another authentication than Basic";
                    return Err(self.fatal(ReasonCode::SourceAuth, format!("answers {status}: it {message}")));
                }
                _ if status.is_redirection() => network::redirect_target(&url, &response).ok_or_else(|| {
                    let message = "with a redirect that leads nowhere, or away from `http` and `https`";
                    self.fatal(ReasonCode::SourceUnreachable, format!("answers {status} {message}"))
                })?,
                _ => return Err(self.retry(ReasonCode::SourceUnreachable, format!("answers {status}"))),
            };
        }
        Err(self.fatal(ReasonCode::SourceUnreachable, format!("redirects more than {MAX_REDIRECTS} times")))
    }

    async fn ask(&self, url: &Url) -> Result<Response, Failure> {
        let addresses = self.addresses(url).await?;
        let client = network::client(url, &addresses, self.config.frame_timeout).map_err(|error| self.lost(error))?;
        client.get(url.clone()).send().await.map_err(|error| self.lost(error))
    }

    /// Where a connection may go.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, Failure> {
        let networks = &self.config.source_networks;
        let found = network::addresses(url, networks, self.config.frame_timeout).await;
        found.map_err(|no_address| match no_address {
            NoAddress::Unknown(error) => {
                self.log(&format!("{} cannot be resolved: {error}", url.host_str().unwrap_or_default()));
                let what = "cannot be reached: its host, or one it leads to, is not known";
                Failure::of(&error, self.reason(ReasonCode::SourceUnreachable, what))
            }
            NoAddress::NotAllowed(address) => {
                self.log(&format!("leads to {address}, which no network of `source_networks` holds"));
                let message = "leads to an address that is not public; allow its network in the runner's `source_networks`, \
                               or upload the video";
                self.fatal(ReasonCode::SourceUnreachable, message)
            }
        })
    }

    async fn save(
        &self,
        mut response: Response,
        file: impl AsyncWrite + Unpin,
        tell: impl Fn(Fetching),
    ) -> Result<(), Failure> {
        let cap = self.config.max_recording_bytes;
        let too_large = || {
            let message = format!("is larger than the {cap} bytes a video may have (`max_video_mib`)");
            self.fatal(ReasonCode::SourceUnreachable, message)
        };
        let no_room = |shortage: Shortage| self.retry(ReasonCode::StorageFull, format!("does not fit: {shortage}"));
        let total = response.content_length();
        if total.is_some_and(|size| size > cap) {
            return Err(too_large());
        }
        let disk = Disk::new(&self.config.recordings_dir, self.config.disk_reserve);
        let mut file = BufWriter::with_capacity(WRITE_BUFFER, file);
        let (mut size, mut least) = (0, self.least_by_then(0));
        loop {
            let Ok(chunk) = timeout_at(least.at, response.chunk()).await else {
                if size < least.size {
                    return Err(self.too_slow());
                }
                least = self.least_by_then(size);
                continue;
            };
            let Some(bytes) = chunk.map_err(|error| self.lost(error))? else { break };
            size += bytes.len() as u64;
            if size > cap {
                return Err(too_large());
            }
            disk.admit(bytes.len() as u64).map_err(no_room)?;
            file.write_all(&bytes).await.map_err(|error| self.not_stored(&error))?;
            tell(Fetching { bytes: size, total });
        }
        file.flush().await.map_err(|error| self.not_stored(&error))
    }

    /// What must be here at the end of a window that begins now.
    fn least_by_then(&self, size: u64) -> Least {
        let RunnerConfig { rate_window, least_rate, .. } = *self.config;
        let due = u128::from(least_rate) * rate_window.as_millis() / 1000;
        Least { at: Instant::now() + rate_window, size: size.saturating_add(u64::try_from(due).unwrap_or(u64::MAX)) }
    }

    fn too_slow(&self) -> Failure {
        let RunnerConfig { rate_window, least_rate, .. } = self.config;
        let message =
            format!("delivered less than {} KiB a second for {rate_window:?} (`fetch_least_kib_s`)", least_rate >> 10);
        self.retry(ReasonCode::SourceStalled, message)
    }

    /// The log has the error without the URL, which would tell the query. The reason has not even the rest: a
    /// certificate tells other names of a server, and a failed connection where a redirect led.
    fn lost(&self, error: reqwest::Error) -> Failure {
        if error.is_timeout() && !error.is_connect() {
            let message = format!("delivered nothing for {:?}", self.config.frame_timeout);
            return self.retry(ReasonCode::SourceStalled, message);
        }
        let error = error.without_url();
        let mut cause: &dyn Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        self.log(&format!("cannot be fetched: {cause}"));
        let what = if error.is_connect() { "no connection could be made" } else { "the connection broke off" };
        let reason = self.reason(ReasonCode::SourceUnreachable, format!("cannot be fetched: {what}"));
        Failure::of(&error, reason)
    }

    fn log(&self, what: &str) {
        tracing::warn!(source = self.address, "{what}");
    }

    fn not_stored(&self, error: &io::Error) -> Failure {
        self.log(&format!("cannot be stored in {}: {error}", self.config.recordings_dir.display()));
        let what = "cannot be stored: the runner's disk takes no more; free space there";
        Failure::of(error, self.reason(ReasonCode::StorageFull, what))
    }

    fn retry(&self, code: ReasonCode, what: impl Display) -> Failure {
        Failure::Retry(self.reason(code, what))
    }

    fn reason(&self, code: ReasonCode, what: impl Display) -> Reason {
        Reason::new(code, format!("the source {} {what}", self.address))
    }

    fn fatal(&self, code: ReasonCode, what: impl Display) -> Failure {
        Failure::Fatal(self.reason(code, what))
    }
}

/// How large a recording must be by when.
struct Least {
    at: Instant,
    size: u64,
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use axum::http;
    use framehook_core::ids::RunnerId;
    use framehook_infra::space::Reserve;

    use super::*;

    const ADDRESS: &str = "https://cameras.example/clip.mp4";

    fn config() -> RunnerConfig {
        let none = PathBuf::new;
        RunnerConfig::new(RunnerId("r".into()), none(), none(), "recordings".into(), none())
    }

    fn answer(status: u16, location: &str) -> Response {
        let answer = http::Response::builder().status(status).header("location", location);
        answer.body(vec![7_u8; 5]).unwrap().into()
    }

    #[tokio::test]
    async fn a_full_disk_and_a_large_file_have_their_reasons() {
        let config = config();
        let fetch = Fetch { config: &config, address: ADDRESS };
        let full = File::options().write(true).open("/dev/full").await.unwrap();
        let Err(Failure::Retry(reason)) = fetch.save(answer(200, ""), full, |_| {}).await else {
            panic!("it was stored")
        };
        assert_eq!(reason.code, ReasonCode::StorageFull);
        assert!(
            reason.message.contains("takes no more") && !reason.message.contains("recordings"),
            "{}",
            reason.message
        );

        for (cap, fits) in [(5, true), (4, false)] {
            let config = RunnerConfig { max_recording_bytes: cap, ..config.clone() };
            let mut stored = Vec::new();
            let saved = Fetch { config: &config, address: ADDRESS }.save(answer(200, ""), &mut stored, |_| {}).await;
            match saved {
                Ok(()) => assert!(fits && stored == [7; 5]),
                Err(Failure::Fatal(reason)) => assert!(!fits && reason.message.contains("larger than the 4 bytes")),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_recording_leaves_the_reserve_and_comes_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            |disk_reserve| RunnerConfig { recordings_dir: folder.path().to_owned(), disk_reserve, ..self::config() };
        for (reserve, fits) in [(Reserve::Bytes(u64::MAX), false), (Reserve::Bytes(1), true)] {
            let (config, mut stored) = (config(reserve), Vec::new());
            match (Fetch { config: &config, address: ADDRESS }).save(answer(200, ""), &mut stored, |_| {}).await {
                Ok(()) => assert!(fits && stored == [7; 5]),
                Err(Failure::Retry(reason)) => {
                    assert!(!fits && stored.is_empty());
                    assert_eq!(reason.code, ReasonCode::StorageFull);
                    assert!(reason.message.contains("disk_reserve_mib"), "{}", reason.message);
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
