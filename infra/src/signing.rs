//! Keys that sign plugins, and keys of whom the operator trusts.
//!
//! Keys are Ed25519 in the form that OpenSSL writes and reads, PEM: a private one is PKCS #8 (RFC 8410), a
//! public one a `SubjectPublicKeyInfo`. So `openssl pkey` and `openssl pkeyutl` can make them and check what
//! was signed with them.
//!
//! Invariant: a signature is worth something only as [`TrustedKeys::verify`] gives it back, which has
//! compared the bytes that are there with those that were signed.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use framehook_core::{
    ids::Digest,
    signature::{KeyId, PluginSignature, SignedBy},
};
use ring::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use sha2::{Digest as _, Sha256};

const KEY_BYTES: usize = 32;

/// DER in front of the 32 bytes of a public key: a sequence, Ed25519's number (1.3.101.112), a bit string.
const PUBLIC_DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// DER in front of the 32 bytes of a private key: a sequence, version 0, Ed25519's number, an octet string in
/// another.
const PRIVATE_DER: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

const PUBLIC: &str = "PUBLIC KEY";
const PRIVATE: &str = "PRIVATE KEY";

/// Bytes of a file with a key; one has 120.
const MAX_FILE: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be made: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("{} is not an Ed25519 {expected} in PEM{hint}", path.display())]
    Form { path: PathBuf, expected: &'static str, hint: &'static str },
    #[error("{} holds no public key (*.pem); `framehook plugin keygen` makes one", path.display())]
    Empty { path: PathBuf },
    #[error("the keys `{one}` and `{other}` in {} are the same; remove one", path.display())]
    Twice { path: PathBuf, one: String, other: String },
}

/// Why a signature is worth nothing here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    #[error("no trusted key is {key}, which signed it; the trusted ones are {known}")]
    UnknownKey { key: KeyId, known: String },
    #[error("the signature is for {signed}, and the plugin is {actual}")]
    OtherBytes { signed: Digest, actual: Digest },
    #[error("the signature was not made with the key {key}, or not for `{plugin}`")]
    Forged { key: KeyId, plugin: String },
}

/// A private key.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Makes a new pair: `private` for its owner alone, `public` for everybody.
    ///
    /// # Errors
    /// When a file is there already, or cannot be written.
    pub fn generate(private: &Path, public: &Path) -> Result<Self, KeyError> {
        let mut seed = [0; KEY_BYTES];
        let no_random =
            |_| KeyError::Make { path: private.into(), source: io::Error::other("the system gives no random bytes") };
        SystemRandom::new().fill(&mut seed).map_err(no_random)?;
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed is any 32 bytes");
        let key = Self(key);
        let write = |path: &Path, mode: u32, text: String| {
            let file = fs::File::options().write(true).create_new(true).mode(mode).open(path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
            written.map_err(|source| KeyError::Make { path: path.into(), source })
        };
        write(private, 0o600, pem(PRIVATE, &[&PRIVATE_DER[..], &seed].concat()))?;
        write(public, 0o644, pem(PUBLIC, &[&PUBLIC_DER[..], key.public()].concat()))?;
        Ok(key)
    }

    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = read(path)?;
        let hint = if unpem(PUBLIC, &text).is_some() { "; it is a public one, which cannot sign" } else { "" };
        let form = || KeyError::Form { path: path.into(), expected: "private key", hint };
        let der = unpem(PRIVATE, &text).ok_or_else(form)?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Self).map_err(|_| form())
    }

    #[must_use]
    pub fn id(&self) -> KeyId {
        id_of(self.public())
    }

    /// Vouches for these bytes under this name and version.
    #[must_use]
    pub fn sign(&self, name: &str, version: &str, digest: &Digest) -> PluginSignature {
        let signature = self.0.sign(PluginSignature::statement(name, version, digest).as_bytes());
        PluginSignature {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: digest.clone(),
            key: self.id(),
            signature: BASE64.encode(signature),
        }
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

/// Public keys with their names.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(BTreeMap<KeyId, (String, Vec<u8>)>);

impl TrustedKeys {
    /// From one file, or from all `*.pem` of a folder; each is called as its file, without `.pub` and `.pem`.
    ///
    /// # Errors
    /// When there is none, or one cannot be read, or a file holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Read { path: path.into(), source };
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let entries = fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
            files = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "pem"));
            files.sort();
        }
        let mut keys = Self::default();
        for file in files {
            let public = read_public(&file)?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let name = name.strip_suffix(".pub").unwrap_or(&name).to_owned();
            if let Some((other, _)) = keys.0.insert(id_of(&public), (name.clone(), public)) {
                return Err(KeyError::Twice { path: path.into(), one: other, other: name });
            }
        }
        if keys.0.is_empty() { Err(KeyError::Empty { path: path.into() }) } else { Ok(keys) }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn holds(&self, key: &KeyId) -> bool {
        self.0.contains_key(key)
    }

    /// Whether one of them vouches for the bytes with this digest, under the name that the signature has.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, signature: &PluginSignature, actual: &Digest) -> Result<SignedBy, Untrusted> {
        let PluginSignature { name, version, digest, key, signature } = signature;
        let Some((signer, public)) = self.0.get(key) else {
            let known: Vec<_> = self.0.iter().map(|(id, (name, _))| format!("`{name}` ({id})")).collect();
            return Err(Untrusted::UnknownKey { key: key.clone(), known: known.join(", ") });
        };
        if digest != actual {
            return Err(Untrusted::OtherBytes { signed: digest.clone(), actual: actual.clone() });
        }
        let forged = || Untrusted::Forged { key: key.clone(), plugin: format!("{name}@{version}") };
        let bytes = BASE64.decode(signature).map_err(|_| forged())?;
        let statement = PluginSignature::statement(name, version, digest);
        UnparsedPublicKey::new(&ED25519, public).verify(statement.as_bytes(), &bytes).map_err(|_| forged())?;
        Ok(SignedBy { name: signer.clone(), key: key.clone(), signature: signature.clone() })
    }
}

fn id_of(public: &[u8]) -> KeyId {
    KeyId::of(&Digest::from_bytes(&Sha256::digest(public).into()))
}

fn read(path: &Path) -> Result<String, KeyError> {
    let failed = |source| KeyError::Read { path: path.into(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(failed(io::Error::other("it is too large for a key")));
    }
    fs::read_to_string(path).map_err(failed)
}

fn read_public(path: &Path) -> Result<Vec<u8>, KeyError> {
    let text = read(path)?;
    // A private key has no business where the public ones lie.
    let hint = if unpem(PRIVATE, &text).is_some() { "; it is a private one: move it away from here" } else { "" };
    let der = unpem(PUBLIC, &text);
    let key = der.as_deref().and_then(|der| der.strip_prefix(&PUBLIC_DER)).filter(|key| key.len() == KEY_BYTES);
    key.map(<[u8]>::to_vec).ok_or(KeyError::Form { path: path.into(), expected: "public key", hint })
}

fn pem(label: &str, der: &[u8]) -> String {
    // Shorter than a line may be.
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}

fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    BASE64.decode(body.split_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    /// `alice` in a folder of her own, and `bob` in that of those who are trusted, with her.
    struct Keys {
        dir: tempfile::TempDir,
        alice: SigningKey,
        bob: SigningKey,
        trusted: TrustedKeys,
    }

    fn keys() -> Keys {
        let dir = tempfile::tempdir().unwrap();
        let trusted = dir.path().join("trusted");
        fs::create_dir(&trusted).unwrap();
        let make = |name: &str| {
            let private = dir.path().join(format!("{name}.pem"));
            SigningKey::generate(&private, &trusted.join(format!("{name}.pub.pem"))).unwrap()
        };
        let (alice, bob) = (make("alice"), make("bob"));
        fs::write(trusted.join("README"), "not a key").unwrap();
        let trusted = TrustedKeys::read(&trusted).unwrap();
        Keys { dir, alice, bob, trusted }
    }

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes(&[byte; 32])
    }

    #[test]
    fn only_what_was_signed_is_trusted() {
        let Keys { alice, bob, trusted, .. } = keys();
        let good = alice.sign("zones", "1.0.0", &digest(1));
        let by = trusted.verify(&good, &digest(1)).unwrap();
        assert_eq!((by.name.as_str(), by.key), ("alice", alice.id()));

        let changed = |change: &dyn Fn(&mut PluginSignature)| {
            let mut changed = good.clone();
            change(&mut changed);
            trusted.verify(&changed, &changed.digest).unwrap_err()
        };
        let forged = |error| matches!(error, Untrusted::Forged { .. });
        assert!(forged(changed(&|s| s.name = "zones2".into())));
        assert!(forged(changed(&|s| s.version = "1.0.1".into())));
        assert!(forged(changed(&|s| s.digest = digest(2))));
        assert!(forged(changed(&|s| s.key = bob.id())));
        assert!(forged(changed(&|s| s.signature = "AAAA".into())));
        assert!(forged(changed(&|s| s.signature = "no base64".into())));
        assert!(forged(changed(&|s| s.signature = bob.sign("zones", "1.0.0", &digest(1)).signature)));
        let stranger = changed(&|s| s.key = KeyId::of(&digest(9)));
        assert!(matches!(&stranger, Untrusted::UnknownKey { known, .. } if known.contains("`bob`")), "{stranger}");
        let swapped = Untrusted::OtherBytes { signed: digest(1), actual: digest(3) };
        assert_eq!(trusted.verify(&good, &digest(3)), Err(swapped));
    }

    #[test]
    fn files_are_what_they_should_be_or_say_what_they_are() {
        let Keys { dir, alice, .. } = keys();
        let (private, public) = (dir.path().join("alice.pem"), dir.path().join("trusted/alice.pub.pem"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&private), mode(&public) & 0o600), (0o600, 0o600));
        assert_eq!(SigningKey::read(&private).unwrap().id(), alice.id());
        assert!(TrustedKeys::read(&public).unwrap().holds(&alice.id()), "one file");

        let error = SigningKey::generate(&private, &public).err().unwrap();
        assert!(matches!(error, KeyError::Make { .. }), "no key is written over: {error}");
        let error = SigningKey::read(&public).err().unwrap().to_string();
        assert!(error.contains("a public one"), "{error}");
        let error = TrustedKeys::read(&private).unwrap_err().to_string();
        assert!(error.contains("a private one"), "{error}");
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(matches!(TrustedKeys::read(&empty).unwrap_err(), KeyError::Empty { .. }));
        fs::copy(&public, dir.path().join("trusted/carol.pem")).unwrap();
        let error = TrustedKeys::read(&dir.path().join("trusted")).unwrap_err().to_string();
        assert!(error.contains("`alice` and `carol`"), "{error}");
        for text in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            fs::write(empty.join("a.pem"), text).unwrap();
            assert!(matches!(TrustedKeys::read(&empty).unwrap_err(), KeyError::Form { .. }), "{text}");
        }
    }

    /// An independent judge: it takes our keys and our signature, and we take its key.
    #[test]
    fn openssl_reads_the_keys_and_verifies_what_was_signed() {
        let Keys { dir, alice, .. } = keys();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let signed = alice.sign("zones", "1.0.0", &digest(1));
        fs::write(dir.path().join("statement"), PluginSignature::statement("zones", "1.0.0", &digest(1))).unwrap();
        fs::write(dir.path().join("signature"), BASE64.decode(&signed.signature).unwrap()).unwrap();
        openssl("pkeyutl -verify -rawin -pubin -inkey trusted/alice.pub.pem -in statement -sigfile signature");
        openssl("pkey -in alice.pem -pubout -out again.pem");
        assert!(TrustedKeys::read(&dir.path().join("again.pem")).unwrap().holds(&alice.id()));
        openssl("genpkey -algorithm ed25519 -out carol.pem");
        openssl("pkey -in carol.pem -pubout -out carol.pub.pem");
        let carol = SigningKey::read(&dir.path().join("carol.pem")).unwrap();
        let trusted = TrustedKeys::read(&dir.path().join("carol.pub.pem")).unwrap();
        assert_eq!(trusted.verify(&carol.sign("a", "1", &digest(2)), &digest(2)).unwrap().name, "carol");
    }
}
