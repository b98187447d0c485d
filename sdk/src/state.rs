//! What a hook keeps: it survives the instance (a panic, a missed deadline) and the worker process.
//!
//! What is set while a frame is worked on is stored with the frame's row. So a scenario that goes on after a
//! crash has the state of the last stored frame, and a hook that keeps here all that it needs of earlier
//! frames says the same as if nothing had happened. Values have at most 64 KiB, keys 256 bytes; a hook has 1
//! MiB and 4,096 keys (less where a scenario has more than four hooks).
//!
//! [`load`] and [`save`] keep any type that serde knows. In tests that run natively, the state is that of the
//! thread.

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;
pub use crate::bindings::host::framehook::plugin::state::StateError;

/// Bytes of a value.
const MAX_VALUE: usize = 64 << 10;

#[cfg(target_family = "wasm")]
pub use crate::bindings::host::framehook::plugin::state::{delete, get, set};
#[cfg(not(target_family = "wasm"))]
pub use native::{delete, get, set};

/// What was saved under `key`. `None`: nothing was, or by another version of the plugin, which kept something
/// else.
#[must_use]
pub fn load<T: DeserializeOwned>(key: &str) -> Option<T> {
    let mut bytes = get(key)?;
    let mut read = bytes.len();
    for part in 1.. {
        if read < MAX_VALUE {
            break;
        }
        let more = get(&part_key(key, part))?;
        read = more.len();
        bytes.extend(more);
    }
    let value = postcard::from_bytes(&bytes);
    value.inspect_err(|why| crate::warn!("what was kept as `{key}` cannot be read, so it begins anew: {why}")).ok()
}

/// Keeps `value` under `key`, and in as many further keys (`key.1`, `key.2`, ...) as it needs.
///
/// # Errors
/// When there is no more room for it.
pub fn save<T: Serialize>(key: &str, value: &T) -> Result<(), Error> {
    let bytes = postcard::to_allocvec(value).map_err(|why| Error::Fatal(format!("`{key}` cannot be kept: {why}")))?;
    let full = |why| {
        let bytes = bytes.len();
        Error::Transient(match why {
            StateError::TooLarge => format!("the key `{key}` is too long"),
            StateError::QuotaExceeded => format!("there is no more room to keep `{key}`, which has {bytes} bytes"),
        })
    };
    set(key, &bytes[..bytes.len().min(MAX_VALUE)]).map_err(full)?;
    // Another part follows one that is full, be it empty.
    for part in 1..=bytes.len() / MAX_VALUE {
        let from = part * MAX_VALUE;
        set(&part_key(key, part), &bytes[from..bytes.len().min(from + MAX_VALUE)]).map_err(full)?;
    }
    Ok(())
}

fn part_key(key: &str, part: usize) -> String {
    format!("{key}.{part}")
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::{cell::RefCell, collections::BTreeMap};

    use super::{MAX_VALUE, StateError};

    thread_local! {
        static KEPT: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    #[must_use]
    pub fn get(key: &str) -> Option<Vec<u8>> {
        KEPT.with_borrow(|kept| kept.get(key).cloned())
    }

    /// # Errors
    /// When the key or the value is too long.
    pub fn set(key: &str, value: &[u8]) -> Result<(), StateError> {
        if key.len() > 256 || value.len() > MAX_VALUE {
            return Err(StateError::TooLarge);
        }
        KEPT.with_borrow_mut(|kept| kept.insert(key.to_owned(), value.to_vec()));
        Ok(())
    }

    pub fn delete(key: &str) {
        KEPT.with_borrow_mut(|kept| kept.remove(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_whatever_its_size() {
        for length in [0, 1, MAX_VALUE - 4, MAX_VALUE - 3, MAX_VALUE - 2, MAX_VALUE, 3 * MAX_VALUE - 3, 200_000, 5] {
            let value: Vec<u8> = (0..length).map(|n| n as u8).collect();
            save("numbers", &value).unwrap();
            assert_eq!(load::<Vec<u8>>("numbers"), Some(value), "{length}");
        }
        save("float", &[0.1f32, f32::MIN_POSITIVE]).unwrap();
        assert_eq!(load("float"), Some([0.1f32, f32::MIN_POSITIVE]));
    }

    #[test]
    fn what_was_never_kept_or_is_something_else_is_nothing() {
        assert_eq!(load::<u8>("never"), None);
        save("text", &"x".repeat(300)).unwrap();
        assert_eq!(load::<Vec<(u64, String)>>("text"), None);
        delete("text");
        assert_eq!(load::<String>("text"), None);
        assert!(matches!(save(&"k".repeat(257), &1), Err(Error::Transient(why)) if why.contains("too long")));
    }
}
