//! What a hook keeps on the host, and what it changed since it was last asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use framehook_core::{
    hook_state::{HookState, MAX_KEY, MAX_VALUE, StateQuota, Value},
    size::json_bytes,
};
use parking_lot::Mutex;

/// The state of one hook. Clones share it, so it outlives an instance.
pub(crate) type State = Arc<Mutex<Kept>>;

#[derive(Debug, Default)]
pub(crate) struct Kept {
    quota: StateQuota,
    values: BTreeMap<String, Vec<u8>>,
    /// Bytes of keys and values.
    bytes: usize,
    changed: BTreeSet<String>,
    /// Bytes of the keys in `changed`.
    changed_bytes: usize,
}

/// Why a value is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotKept {
    TooLarge,
    QuotaExceeded,
}

/// As JSON, so that a key of control characters takes what it will take in a message.
fn key_bytes(key: &str) -> usize {
    json_bytes(key) - 2
}

impl Kept {
    /// What `hook` kept when the stream stood where it goes on.
    pub(crate) fn restore(quota: StateQuota, state: &HookState, hook: &str) -> Self {
        let values: BTreeMap<_, _> = state.of(hook).map(|(key, value)| (key.to_owned(), value.bytes())).collect();
        let bytes = values.iter().map(|(key, value)| key_bytes(key) + value.len()).sum();
        Self { quota, values, bytes, ..Self::default() }
    }

    /// Has what `hook` kept in another instance, in the place of all that is here.
    pub(crate) fn take_over(&mut self, state: &HookState, hook: &str) {
        *self = Self::restore(self.quota, state, hook);
    }

    /// Adds all that is kept.
    pub(crate) fn all(&self, hook: &str, state: &mut HookState) {
        for (key, value) in &self.values {
            state.set(hook, key.clone(), Some(Value::new(value)));
        }
    }

    /// Bytes of keys and values.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.values.get(key).cloned()
    }

    pub(crate) fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), NotKept> {
        if key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(NotKept::TooLarge);
        }
        let before = self.values.get(&key);
        if before == Some(&value) {
            return Ok(());
        }
        let name = key_bytes(&key);
        let bytes = self.bytes - before.map_or(0, |old| name + old.len()) + name + value.len();
        let keys = self.values.len() + usize::from(before.is_none());
        let is_new_change = !self.changed.contains(&key);
        // What comes and goes within a frame is told as well, so it is bounded, too.
        let is_too_much = is_new_change
            && (self.changed_bytes + name > self.quota.bytes || self.changed.len() >= 2 * self.quota.keys);
        if bytes > self.quota.bytes || keys > self.quota.keys || is_too_much {
            return Err(NotKept::QuotaExceeded);
        }
        self.bytes = bytes;
        self.note(&key, name);
        self.values.insert(key, value);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &str) {
        if let Some(value) = self.values.remove(key) {
            let name = key_bytes(key);
            self.bytes -= name + value.len();
            self.note(key, name);
        }
    }

    fn note(&mut self, key: &str, name: usize) {
        if self.changed.insert(key.to_owned()) {
            self.changed_bytes += name;
        }
    }

    /// Adds what changed since the last call.
    pub(crate) fn take_changes(&mut self, hook: &str, changes: &mut HookState) {
        self.changed_bytes = 0;
        for key in std::mem::take(&mut self.changed) {
            let value = self.values.get(&key).map(|value| Value::new(value));
            changes.set(hook, key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = "post/a";

    fn kept(bytes: usize, keys: usize) -> Kept {
        Kept::restore(StateQuota { bytes, keys }, &HookState::default(), HOOK)
    }

    fn changes(kept: &mut Kept) -> Vec<(String, Option<Vec<u8>>)> {
        let mut changes = HookState::default();
        kept.take_changes(HOOK, &mut changes);
        changes.iter().map(|(_, key, value)| (key.to_owned(), value.map(Value::bytes))).collect()
    }

    #[test]
    fn what_changed_is_told_once_and_what_did_not_is_not() {
        let mut kept = kept(100, 10);
        kept.set("a".into(), vec![1]).unwrap();
        kept.set("b".into(), vec![2]).unwrap();
        kept.delete("b");
        kept.delete("never there");
        assert_eq!(changes(&mut kept), [("a".into(), Some(vec![1])), ("b".into(), None)]);
        kept.set("a".into(), vec![1]).unwrap();
        assert!(changes(&mut kept).is_empty(), "the same value is no change");
        kept.set("a".into(), vec![3]).unwrap();
        assert_eq!((kept.get("a"), kept.get("b")), (Some(vec![3]), None));
        assert_eq!(changes(&mut kept), [("a".into(), Some(vec![3]))]);
    }

    #[test]
    fn state_goes_on_where_it_was_for_its_hook_alone() {
        let mut kept = kept(100, 10);
        kept.set("a".into(), vec![1; 50]).unwrap();
        let mut all = HookState::default();
        kept.take_changes(HOOK, &mut all);
        all.set("post/a#2", "a".into(), Some(Value::new(&[9])));
        let mut again = Kept::restore(kept.quota, &all, HOOK);
        assert_eq!(again.get("a"), Some(vec![1; 50]));
        assert!(changes(&mut again).is_empty());
        assert_eq!(again.set("b".into(), vec![0; 49]), Err(NotKept::QuotaExceeded), "the old values count");
        assert_eq!(again.set("b".into(), vec![0; 48]), Ok(()), "to the last byte");
        assert_eq!(Kept::restore(kept.quota, &all, "pre/a").get("a"), None);
    }

    #[test]
    fn a_flood_is_refused_and_what_is_removed_makes_room() {
        let mut kept = kept(1 << 20, 4);
        assert_eq!(kept.set("k".repeat(MAX_KEY + 1), vec![]), Err(NotKept::TooLarge));
        assert_eq!(kept.set("k".into(), vec![0; MAX_VALUE + 1]), Err(NotKept::TooLarge));
        (0..4).for_each(|n| kept.set(n.to_string(), vec![]).unwrap());
        assert_eq!(kept.set("4".into(), vec![]), Err(NotKept::QuotaExceeded));
        kept.delete("0");
        kept.set("4".into(), vec![]).unwrap();
        // On one frame a hook may not name keys without end either.
        let named = (5..100).take_while(|n| {
            kept.delete(&(n - 1).to_string());
            kept.set(n.to_string(), vec![]).is_ok()
        });
        assert_eq!(named.count(), 3);
        assert_eq!(changes(&mut kept).len(), 8);
        assert_eq!(kept.set("\u{1}".repeat(MAX_KEY), vec![0; 9]), Ok(()));
        assert_eq!(kept.changed_bytes, 6 * MAX_KEY, "a control character takes six bytes of a message");
    }
}
