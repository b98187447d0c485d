//! `oci://HOST/REPOSITORY:TAG` and `oci://HOST/REPOSITORY@sha256:...`: where a plugin lies in a registry.

use std::{fmt, net::IpAddr, str::FromStr};

use framehook_core::ids::Digest;
use url::{Host, Url};

const SCHEME: &str = "oci://";
/// As the distribution specification has it.
const MAX_TAG: usize = 128;
/// Bytes of host and repository together, as registries take them.
const MAX_NAME: usize = 255;

/// A plugin in a registry. Where both are written, the digest says which; the tag is a note for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, and port if it has one.
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    /// That of the manifest.
    pub digest: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `oci://HOST/REPOSITORY:TAG` or `oci://HOST/REPOSITORY@sha256:<64 hexadecimal digits>`, such as \
     oci://ghcr.io/example/zones:1.0.0; {0}"
)]
pub struct BadReference(String);

impl Reference {
    /// What the registry's routes call it: the digest, else the tag.
    pub(super) fn selector(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag.as_deref().unwrap_or_default(), Digest::as_str)
    }

    /// The same by its digest.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), tag: None, ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = BadReference;
    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = |why: &str| BadReference(why.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| bad("it does not begin with `oci://`"))?;
        let (host, rest) = rest.split_once('/').ok_or_else(|| bad("it names no repository"))?;
        check_host(host).map_err(|why| bad(&why))?;
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|error| bad(&format!("the digest: {error}")))?)),
            None => (rest, None),
        };
        let (repository, tag) = match name.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (name, None),
        };
        if repository.is_empty() || !repository.split('/').all(is_part) || host.len() + repository.len() > MAX_NAME {
            return Err(bad(
                "a repository is lower-case letters and digits in parts between `/`, with `.`, `_`, `__` or `-` inside",
            ));
        }
        if !tag.as_deref().is_none_or(is_tag) {
            return Err(bad("a tag is 1 to 128 letters, digits and `_`, and `.` or `-` after the first"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(bad("it has neither tag nor digest"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, tag, digest } = self;
        write!(f, "{SCHEME}{host}/{repository}")?;
        tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
        digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// A registry that the operator names: `HOST[:PORT]`, with `http://` in front where it speaks no TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryHost {
    pub(super) host: String,
    pub(super) is_plain: bool,
}

impl FromStr for RegistryHost {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.strip_prefix("http://");
        let host = plain.unwrap_or(text);
        check_host(host)?;
        Ok(Self { host: host.to_owned(), is_plain: plain.is_some() || is_loopback(host) })
    }
}

/// # Errors
/// A sentence.
fn check_host(host: &str) -> Result<(), String> {
    let is_plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let parsed = Url::parse(&format!("https://{host}/")).ok();
    // What a URL would write in another way would not be found on a list.
    let authority = parsed.as_ref().map(|url| match (url.host_str().unwrap_or_default(), url.port()) {
        (name, Some(port)) => format!("{name}:{port}"),
        (name, None) => name.to_owned(),
    });
    let is_host = host.bytes().all(is_plain) && authority.is_some_and(|authority| authority == host);
    is_host
        .then_some(())
        .ok_or_else(|| "a host is a lower-case name or an address, and a port that is not 443".to_owned())
}

/// Whether it is this machine, which needs no TLS to itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("https://{host}/")) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_part(part: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(is_word) && part.bytes().last().is_some_and(is_word);
    let mut between = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_separator = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    ends && between.all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let begins = tag.bytes().next().is_some_and(is_word);
    begins && tag.len() <= MAX_TAG && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = format!("sha256:{}", "7".repeat(64));
        for (text, host, repository, tag, has_digest) in [
            ("oci://ghcr.io/example/zones:1.0.0", "ghcr.io", "example/zones", Some("1.0.0"), false),
            ("oci://127.0.0.1:5000/z:latest", "127.0.0.1:5000", "z", Some("latest"), false),
            ("oci://[::1]:5000/a/b/c:_x", "[::1]:5000", "a/b/c", Some("_x"), false),
            (&format!("oci://localhost:1/a__b.c-d--e@{digest}"), "localhost:1", "a__b.c-d--e", None, true),
            (&format!("oci://r.example/z:1@{digest}"), "r.example", "z", Some("1"), true),
        ] {
            let read: Reference = text.parse().unwrap();
            assert_eq!((read.host.as_str(), read.repository.as_str()), (host, repository), "{text}");
            assert_eq!((read.tag.as_deref(), read.digest.is_some()), (tag, has_digest), "{text}");
            assert_eq!(read.to_string(), text);
            assert_eq!(read.selector(), if has_digest { digest.as_str() } else { tag.unwrap() });
        }
    }

    #[test]
    fn what_is_no_reference_says_why() {
        for (text, why) in [
            ("", "begin with"),
            ("https://ghcr.io/a:1", "begin with"),
            ("oci://ghcr.io", "no repository"),
            ("oci://ghcr.io/", "a repository is"),
            ("oci:///a:1", "a host is"),
            ("oci://GHCR.io/a:1", "a host is"),
            ("oci://me:pw@ghcr.io/a:1", "a host is"),
            ("oci://ghcr.io:443/a:1", "a host is"),
            ("oci://ghcr.io:99999/a:1", "a host is"),
            ("oci://0x7f.1/a:1", "a host is"),
            ("oci://ghcr.io?/a:1", "a host is"),
            ("oci://ghcr.io/a", "neither tag nor digest"),
            ("oci://ghcr.io/A:1", "a repository is"),
            ("oci://ghcr.io/../a:1", "a repository is"),
            ("oci://ghcr.io/a//b:1", "a repository is"),
            ("oci://ghcr.io/a_-b:1", "a repository is"),
            ("oci://ghcr.io/a%2f:1", "a repository is"),
            ("oci://ghcr.io/a:", "a tag is"),
            ("oci://ghcr.io/a:.1", "a tag is"),
            ("oci://ghcr.io/a:1/2", "a tag is"),
            ("oci://ghcr.io/a:1?x=2", "a tag is"),
            ("oci://ghcr.io/a@sha256:7", "64"),
            ("oci://ghcr.io/a@md5:7", "64"),
        ] {
            let said = text.parse::<Reference>().unwrap_err().to_string();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_registry_is_a_host_and_loopback_needs_no_tls() {
        for (text, host, is_plain) in [
            ("ghcr.io", "ghcr.io", false),
            ("http://registry.example:5000", "registry.example:5000", true),
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("localhost", "localhost", true),
            ("[::1]:5000", "[::1]:5000", true),
            ("10.0.0.1", "10.0.0.1", false),
        ] {
            assert_eq!(text.parse(), Ok(RegistryHost { host: host.into(), is_plain }));
        }
        for bad in ["", "https://ghcr.io", "ghcr.io/example", "http://", "a b"] {
            assert!(bad.parse::<RegistryHost>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// What is read is written as it was, so that a list, a log and a request mean the same.
        #[test]
        fn reading_and_writing_agree(text in "oci://[a-z0-9.:@/_-]{0,40}") {
            if let Ok(read) = text.parse::<Reference>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            text.parse::<Reference>().ok();
            format!("oci://{text}").parse::<Reference>().ok();
        }
    }
}
