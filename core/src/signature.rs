//! Signatures of plugins: who vouches for which bytes under which name and version.
//!
//! Invariant: what is signed is one text ([`PluginSignature::statement`]), which says what it is for, so that
//! no signature made for anything else is one of a plugin; and it names the plugin beside its bytes, so that
//! a plugin that gives itself another name than it was signed with is noticed. Making and checking signatures
//! is `infra::signing`'s business.
//!
//! A signature has no time and no end: whoever can move a tag of a registry can lead to an older plugin that
//! was signed as well. A reference by digest cannot be moved.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    artifact::{check_name, check_version},
    ids::{Digest, is_hex},
    schemas::{ArtifactName, Version},
};

/// Bytes of a signature as JSON: five times what one has, with names of the longest.
pub const MAX_SIGNATURE: usize = 2 << 10;

/// Names a public key by what it is: `ed25519:` and the first 32 hexadecimal digits of its sha256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(pattern = "^ed25519:[0-9a-f]{32}$")]
pub struct KeyId(String);

impl KeyId {
    const PREFIX: &str = "ed25519:";
    /// Half a sha256: nobody finds another key with the same.
    const DIGITS: usize = 32;

    /// That of the public key with this digest.
    #[must_use]
    pub fn of(public: &Digest) -> Self {
        Self(format!("{}{}", Self::PREFIX, &public.hex()[..Self::DIGITS]))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        is_hex(digits, Self::DIGITS)
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| format!("a key id is `{}` and {} lower-case hexadecimal digits", Self::PREFIX, Self::DIGITS))
    }
}

impl TryFrom<String> for KeyId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

/// As it lies in a file, beside an upload and in a registry: JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginSignature {
    /// What the plugin calls itself.
    #[schema(value_type = ArtifactName)]
    pub name: String,
    #[schema(value_type = Version)]
    pub version: String,
    /// That of the plugin's bytes.
    pub digest: Digest,
    /// Who signed.
    pub key: KeyId,
    /// Ed25519 over the statement, in base64.
    #[schema(min_length = 88, max_length = 88)]
    pub signature: String,
}

impl PluginSignature {
    /// From JSON.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(json: &str) -> Result<Self, String> {
        if json.len() > MAX_SIGNATURE {
            return Err(format!("a signature has at most {MAX_SIGNATURE} bytes"));
        }
        let read: Self = serde_json::from_str(json).map_err(|error| {
            format!("expected a signature as `framehook plugin sign` writes it, a JSON object: {error}")
        })?;
        check_name(&read.name).and_then(|()| check_version(&read.version))?;
        Ok(read)
    }

    /// The text that is signed.
    #[must_use]
    pub fn statement(name: &str, version: &str, digest: &Digest) -> String {
        format!("framehook plugin signature 1\n{name}@{version}\n{digest}\n")
    }
}

/// Who vouched for a plugin when it was taken. With the plugin's name, version and digest it is the whole
/// signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedBy {
    /// What the operator calls the key.
    pub name: String,
    pub key: KeyId,
    /// Ed25519, in base64.
    #[schema(min_length = 88, max_length = 88)]
    pub signature: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signature(name: &str, version: &str) -> PluginSignature {
        let digest = Digest::from_bytes(&[7; 32]);
        let key = KeyId::of(&digest);
        PluginSignature { name: name.into(), version: version.into(), digest, key, signature: "x".into() }
    }

    #[test]
    fn a_file_is_read_strictly() {
        let good = serde_json::to_value(signature("zones", "0.1.0")).unwrap();
        assert_eq!(PluginSignature::parse(&good.to_string()), Ok(signature("zones", "0.1.0")));
        let with = |field: &str, value: &str| {
            let mut changed = good.clone();
            changed[field] = value.into();
            PluginSignature::parse(&changed.to_string()).unwrap_err()
        };
        for (field, value, words) in [
            ("name", "Zones", "name `Zones`"),
            ("name", "zones@1\n", "name `zones@1\\n`"),
            ("version", "1\nsha256:", "version"),
            ("digest", "sha256:7", "64"),
            ("key", "ed25519:7", "32 lower-case"),
            ("key", &"a".repeat(40), "32 lower-case"),
            ("valid_until", "2030", "unknown field `valid_until`"),
            ("signature", &"a".repeat(MAX_SIGNATURE), "2048 bytes"),
        ] {
            let said = with(field, value);
            assert!(said.contains(words), "{field} {value}: {said}");
        }
        for bad in ["", "{}", "[]", "\"a\"", "null"] {
            assert!(PluginSignature::parse(bad).unwrap_err().contains("framehook plugin sign"), "{bad}");
        }
    }

    proptest! {
        /// No two plugins have one statement, whatever they are called.
        #[test]
        fn a_statement_means_one_plugin(a in "[a-z0-9][a-z0-9._-]{0,5}", b in "[A-Za-z0-9][A-Za-z0-9._+-]{0,5}",
            c in "[a-z0-9][a-z0-9._-]{0,5}", d in "[A-Za-z0-9][A-Za-z0-9._+-]{0,5}") {
            let digest = Digest::from_bytes(&[7; 32]);
            let is_same = PluginSignature::statement(&a, &b, &digest) == PluginSignature::statement(&c, &d, &digest);
            prop_assert_eq!(is_same, (a, b) == (c, d));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            PluginSignature::parse(&text).ok();
            text.parse::<KeyId>().ok();
        }
    }
}
