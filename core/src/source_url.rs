//! The URL of a recording, with what it may hide: a password in the user info, a token in the query.
//!
//! Invariant: whatever shows, logs, stores or sends a [`SourceUrl`] gets its address, which is the URL
//! without user info and query. The whole is only in what [`SourceUrl::expose`] gives.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use url::{Position, Url};
use utoipa::ToSchema;

/// Longer than any token one meets, and short enough for a log line.
pub(crate) const MAX_LENGTH: usize = 4096;

/// An `http` or `https` URL. As JSON it is read whole and written as its address.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceUrl(Url);

impl SourceUrl {
    /// Scheme, host, port and path: what may be seen.
    pub fn address(&self) -> String {
        let url = &self.0;
        format!("{}{}", &url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPath])
    }

    /// Whether it is more than its address.
    pub fn has_secret(&self) -> bool {
        self.0.as_str() != self.address()
    }

    /// All of it, to be sealed or to be fetched.
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

/// A source URL as it is stored, sent and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SealedUrl {
    /// The URL without user info and query.
    pub address: String,
    /// The whole URL, readable only with the platform's key; absent if it is no more than the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

/// Says what is wrong without repeating any of the text, which may be a password in the wrong place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSourceUrl {
    #[error("not a URL ({0}); expected one such as `https:` with a host and the path of a recording")]
    NotAUrl(url::ParseError),
    #[error("expected an `http` or `https` URL of a recording; live sources, such as `rtsp`, cannot be read yet")]
    Scheme,
    #[error("longer than the {MAX_LENGTH} bytes a URL may have")]
    TooLong,
}

impl FromStr for SourceUrl {
    type Err = BadSourceUrl;
    fn from_str(text: &str) -> Result<Self, BadSourceUrl> {
        if text.len() > MAX_LENGTH {
            return Err(BadSourceUrl::TooLong);
        }
        let mut url = Url::parse(text).map_err(BadSourceUrl::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BadSourceUrl::Scheme);
        }
        // Never sent to a server, so it says nothing to anybody.
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl TryFrom<String> for SourceUrl {
    type Error = BadSourceUrl;
    fn try_from(text: String) -> Result<Self, BadSourceUrl> {
        text.parse()
    }
}

impl From<SourceUrl> for String {
    fn from(url: SourceUrl) -> Self {
        url.address()
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_is_shown() {
        for (text, address, has_secret) in [
            ("https://cameras.example/clip.mp4", "https://cameras.example/clip.mp4", false),
            ("HTTP://Cameras.Example:80/a/../clip.mp4#t=3", "http://cameras.example/clip.mp4", false),
            ("https://cameras.example", "https://cameras.example/", false),
            ("https://me:s3cret@cameras.example:8443/clip.mp4", "https://cameras.example:8443/clip.mp4", true),
            ("https://s3cret@cameras.example/clip.mp4", "https://cameras.example/clip.mp4", true),
            ("https://:s3cret@[::1]/clip.mp4", "https://[::1]/clip.mp4", true),
            ("https://me:p@s3cret@cameras.example/a@b", "https://cameras.example/a@b", true),
            ("https://cameras.example/clip.mp4?token=s3cret#x", "https://cameras.example/clip.mp4", true),
        ] {
            let url: SourceUrl = text.parse().unwrap();
            assert_eq!((url.address().as_str(), url.has_secret()), (address, has_secret), "{text}");
            for shown in [format!("{url}"), format!("{url:?}"), serde_json::to_string(&url).unwrap()] {
                assert!(shown.contains(address) && !shown.contains("s3cret"), "{shown}");
            }
            assert_eq!(url.expose().as_str().contains("s3cret"), has_secret);
            assert_eq!(url.expose().as_str().parse(), Ok(url.clone()), "what is sealed is what was meant");
            assert_eq!(url.address().parse::<SourceUrl>().unwrap().address(), address);
        }
    }

    #[test]
    fn the_longest_url_is_taken() {
        let begin = "https://cameras.example/";
        let url = |length: usize| format!("{begin}{}", "x".repeat(length - begin.len())).parse::<SourceUrl>();
        assert!(url(MAX_LENGTH).is_ok());
        assert_eq!(url(MAX_LENGTH + 1), Err(BadSourceUrl::TooLong));
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        for text in [
            "",
            "s3cret",
            "//me:s3cret@cameras.example/clip.mp4",
            "https://",
            "https://me:s3cret@/clip.mp4",
            "https://me:s3cret@host:port/clip.mp4",
            "https://me:s3cret@ho st/",
            "rtsp://me:s3cret@cameras.example/live",
            "file:///s3cret",
            "s3cret:me@cameras.example/clip.mp4",
            "data:video/mp4;base64,s3cret",
            &format!("https://cameras.example/?s3cret={}", "x".repeat(MAX_LENGTH)),
        ] {
            let error = text.parse::<SourceUrl>().unwrap_err().to_string();
            assert!(!error.contains("s3cret") && !error.contains("me@"), "{error}");
        }
    }
}
