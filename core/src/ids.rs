//! Identities. Each is its own type, so that one cannot be passed where another is meant.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new, time-ordered identity (UUIDv7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// One scenario, for as long as it exists.
    ScenarioId
}
uuid_id! {
    /// One life of a runner process. A newer one of the same runner replaces it for ever.
    Incarnation
}

/// The configured name of a runner host; stable over restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct RunnerId(pub String);

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the deployments of one scenario; the fencing token of its results.
/// 0 means "never deployed".
pub type Generation = i64;

/// Counts the changes of leadership; the fencing token of the orchestrator's writes.
pub type Epoch = i64;

/// The sha256 of an immutable blob, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(pattern = "^sha256:[0-9a-f]{64}$")]
pub struct Digest(String);

impl Digest {
    const PREFIX: &str = "sha256:";

    /// From the 32 raw bytes of a sha256.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::from(Self::PREFIX);
        for byte in bytes {
            // Writing to a String cannot fail.
            write!(text, "{byte:02x}").ok();
        }
        Self(text)
    }

    /// The 64 hexadecimal digits without the prefix: safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is not a [`Digest`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected `sha256:` and 64 lower-case hexadecimal digits")]
pub struct NotADigest;

/// Whether a text is so many hexadecimal digits, in lower case.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl FromStr for Digest {
    type Err = NotADigest;
    fn from_str(s: &str) -> Result<Self, NotADigest> {
        let hex = s.strip_prefix(Self::PREFIX).ok_or(NotADigest)?;
        if is_hex(hex, 64) { Ok(Self(s.to_owned())) } else { Err(NotADigest) }
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;
    fn try_from(s: String) -> Result<Self, NotADigest> {
        s.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_as_they_are_written() {
        assert_eq!(RunnerId("edge-7".into()).to_string(), "edge-7");
        let id = ScenarioId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn digest_round_trips_and_rejects_everything_else() {
        let digest = Digest::from_bytes(&[0xab; 32]);
        assert_eq!(digest.as_str(), format!("sha256:{}", "ab".repeat(32)));
        assert_eq!(digest.as_str().parse::<Digest>(), Ok(digest.clone()));
        assert_eq!(digest.hex().len(), 64);
        for bad in [
            "",
            "sha256:",
            &"ab".repeat(32),
            &format!("sha256:{}", "AB".repeat(32)),
            &format!("sha256:{}", "ab".repeat(31)),
            &format!("sha256:{}/.", "ab".repeat(31)),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(NotADigest), "{bad}");
        }
    }
}
