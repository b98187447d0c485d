//! Tells compiled plugins that were signed here from files that somebody else put in their place.
//!
//! Invariants: what is loaded as machine code was written by a compiler of whoever has the key. A file ends
//! with a MAC of its name and its code, by a key that no child can read; and a child loads it only if it has
//! the digest that was found when the MAC was checked, so that a file that is changed in between is refused.
//! The engine ignores the bytes behind the code. No file is in memory as a whole.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
};

use framehook_core::ids::Digest;
use framehook_infra::seal::{Key, KeyError};
use sha2::{Digest as _, Sha256};

/// Hexadecimal digits of a MAC.
const MAC: u64 = 64;

/// Signs and recognises compiled plugins.
#[derive(Debug)]
pub(crate) struct Authority(Key);

impl Authority {
    /// With the key in this file, which is made if there is none.
    ///
    /// # Errors
    /// When neither works.
    pub(crate) fn open(key: &Path) -> Result<Self, KeyError> {
        Key::read_or_make(key).map(Self)
    }

    /// Signs the code in `file` as that of `name`. Gives the digest of the whole.
    ///
    /// # Errors
    /// When the file holds nothing, or cannot be read or written.
    pub(crate) fn sign(&self, name: &str, file: &mut File) -> io::Result<Digest> {
        let mut hash = Sha256::new();
        file.rewind()?;
        if io::copy(file, &mut hash)? == 0 {
            return Err(io::Error::other("the compiler wrote nothing"));
        }
        let mac = self.mac(name, &hash);
        file.write_all(mac.as_bytes())?;
        Ok(digest(hash.chain_update(mac)))
    }

    /// The digest of the whole file, if its code was signed as that of `name`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn verify(&self, name: &str, path: &Path) -> io::Result<Option<Digest>> {
        let mut file = File::open(path)?;
        let Some(code) = file.metadata()?.len().checked_sub(MAC) else { return Ok(None) };
        let (mut hash, mut mac) = (Sha256::new(), Vec::new());
        io::copy(&mut (&mut file).take(code), &mut hash)?;
        file.read_to_end(&mut mac)?;
        Ok((self.mac(name, &hash).as_bytes() == mac).then(|| digest(hash.chain_update(mac))))
    }

    /// In hexadecimal digits.
    fn mac(&self, name: &str, code: &Sha256) -> String {
        // A digest has one length, so nothing of the name can pass for code.
        self.0.digest(&format!("{} {name}", digest(code.clone()).hex())).hex().to_owned()
    }
}

fn digest(hash: Sha256) -> Digest {
    Digest::from_bytes(&hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_by_this_key_for_this_name_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let authority = Authority::open(&dir.path().join("key")).unwrap();
        let sign = |code: &[u8]| {
            let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            file.write_all(code).unwrap();
            authority.sign("a", &mut file)
        };
        let signed = sign(b"code").unwrap();
        assert_eq!(authority.verify("a", &path).unwrap(), Some(signed));
        assert_eq!(authority.verify("b", &path).unwrap(), None, "another plugin's");
        let other = Authority::open(&dir.path().join("other")).unwrap();
        assert_eq!(other.verify("a", &path).unwrap(), None, "another key's");
        let again = Authority::open(&dir.path().join("key")).unwrap();
        assert!(again.verify("a", &path).unwrap().is_some(), "the same key after a restart");

        let good = std::fs::read(&path).unwrap();
        for k in 0..good.len() {
            let mut bad = good.clone();
            bad[k] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(authority.verify("a", &path).unwrap(), None, "byte {k} changed");
            std::fs::write(&path, &good[..k]).unwrap();
            assert_eq!(authority.verify("a", &path).unwrap(), None, "cut at {k}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(authority.verify("a", &path).is_err());
        assert!(sign(b"").is_err());
    }
}
