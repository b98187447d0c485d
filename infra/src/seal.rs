//! The platform key: what only a runner may read is sealed with it before it reaches a database or a broker.
//!
//! Invariants: a sealed URL opens only with the key that sealed it, and only beside its own address, so that
//! nobody can move credentials to another host; no error, and no `Debug`, tells anything of a key or of what
//! was sealed.
//!
//! Deliberately absent: a change of keys. With another key, scenarios whose source has credentials have to be
//! posted again.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use framehook_core::{
    ids::Digest,
    source_url::{SealedUrl, SourceUrl},
};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
    rand::{SecureRandom as _, SystemRandom},
};

const KEY_BYTES: usize = 32;

/// The key that all APIs and runners of a platform share.
#[derive(Clone)]
pub struct Key {
    seal: LessSafeKey,
    sign: hmac::Key,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "expected {KEY_BYTES} random bytes as base64 or as hexadecimal digits, such as `openssl rand -base64 32` prints"
    )]
    Form,
    #[error("the key file {} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the key file {} is not usable: {source}", path.display())]
    File { path: PathBuf, source: Box<Self> },
    #[error("the key file {} cannot be made: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("there is no key")]
    NoKey,
    #[error("it was sealed with another key, or for another address")]
    Refused,
}

/// What is stored and sent of a source URL. One without a secret needs no key.
///
/// # Errors
/// When there is a secret and no key.
pub fn seal(key: Option<&Key>, url: &SourceUrl) -> Result<SealedUrl, SealError> {
    let address = url.address();
    let whole = || key.ok_or(SealError::NoKey)?.seal(url.expose().as_str(), &address);
    Ok(SealedUrl { sealed: url.has_secret().then(whole).transpose()?, address })
}

/// The whole URL again.
///
/// # Errors
/// When it is sealed and the key is not there, or not the one.
pub fn open(key: Option<&Key>, url: &SealedUrl) -> Result<SourceUrl, SealError> {
    let whole = match &url.sealed {
        Some(sealed) => key.ok_or(SealError::NoKey)?.open(sealed, &url.address)?,
        None => url.address.clone(),
    };
    whole.parse().map_err(|_| SealError::Refused)
}

impl Key {
    /// From 32 bytes in base64 or hexadecimal digits.
    ///
    /// # Errors
    /// When the text is not 32 bytes in base64 or hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let bytes = if text.len() == 2 * KEY_BYTES { from_hex(text) } else { BASE64.decode(text).ok() };
        let bytes: [u8; KEY_BYTES] = bytes.and_then(|b| b.try_into().ok()).ok_or(KeyError::Form)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// # Errors
    /// When the file is missing or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|error| KeyError::File { path: path.into(), source: error.into() })
    }

    /// Reads the file, which is made with a new key if there is none.
    ///
    /// # Errors
    /// When neither works.
    pub fn read_or_make(path: &Path) -> Result<Self, KeyError> {
        if !path.exists() {
            make(path).map_err(|source| KeyError::Make { path: path.into(), source })?;
        }
        Self::read(path)
    }

    /// A digest of a text that holds a secret. A plain one would let whoever reads it try passwords.
    pub fn digest(&self, text: &str) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.sign, text.as_bytes()).as_ref());
        Digest::from_bytes(&bytes)
    }

    /// HKDF subkeys, one for each purpose.
    fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        const WHY: &str = "one key is never too long to derive";
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"framehook").extract(bytes);
        let seal = UnboundKey::from(root.expand(&[b"seal"], &CHACHA20_POLY1305).expect(WHY));
        let sign = hmac::Key::from(root.expand(&[b"digest"], hmac::HMAC_SHA256).expect(WHY));
        Self { seal: LessSafeKey::new(seal), sign }
    }

    /// Base64 of a nonce and what is encrypted with it. Random nonces repeat only after some billion URLs.
    fn seal(&self, secret: &str, address: &str) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Refused)?;
        let mut text = secret.as_bytes().to_vec();
        let with = Nonce::assume_unique_for_key(nonce);
        self.seal.seal_in_place_append_tag(with, Aad::from(address), &mut text).map_err(|_| SealError::Refused)?;
        Ok(BASE64.encode([nonce.as_slice(), &text].concat()))
    }

    fn open(&self, sealed: &str, address: &str) -> Result<String, SealError> {
        let mut bytes = BASE64.decode(sealed).map_err(|_| SealError::Refused)?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(SealError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Refused)?;
        let text = self.seal.open_in_place(nonce, Aad::from(address), text).map_err(|_| SealError::Refused)?;
        String::from_utf8(text.to_vec()).map_err(|_| SealError::Refused)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

/// Whole or not at all: a process that dies leaves a file of another name. And once: of several processes
/// that have no key, one at a time is in here, and who comes second finds it made.
fn make(path: &Path) -> io::Result<()> {
    let part = path.with_extension("part");
    // For nobody but the user who runs the platform, from its first moment on.
    let mut file = fs::File::options().write(true).create(true).truncate(false).mode(0o600).open(&part)?;
    file.lock()?;
    if path.exists() {
        // What was opened is the key itself by now, or a file that nobody needs.
        return fs::remove_file(part).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) });
    }
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    file.set_len(0)?;
    writeln!(file, "{}", BASE64.encode(bytes))?;
    file.sync_all()?;
    fs::rename(part, path)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|c| c.to_digit(16)).collect();
    digits?.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, os::unix::fs::PermissionsExt as _, sync::Barrier, thread};

    use super::*;

    const WHOLE: &str = "https://me:s3cret@cameras.example/clip.mp4?token=s3cret";

    fn key(byte: u8) -> Key {
        Key::from_bytes(&[byte; KEY_BYTES])
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_beside_its_address_only() {
        let whole: SourceUrl = WHOLE.parse().unwrap();
        let sealed = seal(Some(&key(1)), &whole).unwrap();
        assert!(!serde_json::to_string(&sealed).unwrap().contains("s3cret"));
        assert_eq!(open(Some(&key(1)), &sealed), Ok(whole.clone()));
        assert_ne!(seal(Some(&key(1)), &whole).unwrap(), sealed, "each time with another nonce");

        let moved = SealedUrl { address: "https://elsewhere.example/clip.mp4".into(), ..sealed.clone() };
        let mut bytes = BASE64.decode(sealed.sealed.as_ref().unwrap()).unwrap();
        bytes[20] ^= 1;
        let damaged = SealedUrl { sealed: Some(BASE64.encode(bytes)), ..sealed.clone() };
        let short = SealedUrl { sealed: Some("AAAA".into()), ..sealed.clone() };
        let nonsense = SealedUrl { sealed: Some("*".into()), ..sealed.clone() };
        for (key, url, why) in [
            (Some(key(2)), &sealed, SealError::Refused),
            (None, &sealed, SealError::NoKey),
            (Some(key(1)), &moved, SealError::Refused),
            (Some(key(1)), &damaged, SealError::Refused),
            (Some(key(1)), &short, SealError::Refused),
            (Some(key(1)), &nonsense, SealError::Refused),
        ] {
            assert_eq!(open(key.as_ref(), url), Err(why), "{url:?}");
        }
        assert_eq!(seal(None, &whole), Err(SealError::NoKey));
    }

    #[test]
    fn what_has_no_secret_needs_no_key() {
        let plain: SourceUrl = "https://cameras.example/clip.mp4".parse().unwrap();
        let sealed = seal(None, &plain).unwrap();
        assert_eq!(sealed, SealedUrl { address: plain.address(), sealed: None });
        assert_eq!(open(None, &sealed), Ok(plain));
    }

    #[test]
    fn a_key_is_32_bytes_in_either_form() {
        let hex = "0123456789abcdefABCDEF0123456789".repeat(2);
        let bytes = from_hex(&hex).unwrap();
        let base64 = BASE64.encode(&bytes);
        let digest = |key: Key| key.digest("x");
        assert_eq!(digest(Key::parse(&hex).unwrap()), digest(Key::parse(&format!("{base64}\n")).unwrap()));
        assert_ne!(digest(key(1)), digest(key(2)));
        assert_ne!(key(1).digest("x"), key(1).digest("y"));
        for bad in ["", "s3cret", &hex[2..], &format!("{}s3", &hex[2..]), &BASE64.encode(&bytes[1..])] {
            let error = Key::parse(bad).unwrap_err().to_string();
            assert!(error.contains("32") && !error.contains("s3"), "{error}");
        }
        assert_eq!(format!("{:?}", key(1)), "Key(***)");
    }

    #[test]
    fn a_key_file_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(Key::read(&path).unwrap_err().to_string().contains("cannot be read"));
        let made = Key::read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(Key::read_or_make(&path).unwrap().digest("x"), made.digest("x"));
        fs::write(&path, "s3cret").unwrap();
        let error = Key::read_or_make(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn of_many_who_make_a_key_at_a_time_all_have_the_same() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("key");
            let begin = Barrier::new(8);
            let digests: HashSet<_> = thread::scope(|scope| {
                let make = || {
                    begin.wait();
                    Key::read_or_make(&path).unwrap().digest("x")
                };
                let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).collect()
            });
            assert_eq!(digests, HashSet::from([Key::read(&path).unwrap().digest("x")]));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
