//! What hooks keep between frames, on its way from the worker into the store, and back to the next worker.
//!
//! Invariant: the changes of a frame travel with the frame's record and are stored in the transaction of its
//! row. So the stored state is that behind the frame after which the scenario's newest deployment would go
//! on.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;

use crate::size::json_bytes;

/// Bytes of a key: a name, perhaps with a number in it.
pub const MAX_KEY: usize = 256;
/// Bytes of a value: more is a file.
pub const MAX_VALUE: usize = 64 << 10;
/// Keys and values of one hook, in bytes, unless its scenario says otherwise.
pub const USUAL_HOOK: usize = 1 << 20;
/// The same of all hooks of a scenario: all that they may change on one frame fits into one message.
pub const MAX_SCENARIO: usize = 4 << 20;
/// Keys of one hook: each is a row of the store.
const MAX_KEYS: usize = 4096;
/// Keys of all hooks of a scenario.
const MAX_SCENARIO_KEYS: usize = 4 * MAX_KEYS;

/// On one frame, all that was there may go, as much may come and go, and as much may come to stay.
const MAX_CHANGE: usize = 3;

/// What one hook of a scenario may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateQuota {
    pub bytes: usize,
    pub keys: usize,
}

/// That of a scenario's only hook.
impl Default for StateQuota {
    fn default() -> Self {
        Self::of(1, USUAL_HOOK)
    }
}

impl StateQuota {
    /// That of each of so many hooks, which may keep so many bytes if all of them have room.
    #[must_use]
    pub fn of(hooks: usize, bytes: usize) -> Self {
        let hooks = hooks.max(1);
        Self { bytes: bytes.min(MAX_SCENARIO / hooks), keys: MAX_KEYS.min(MAX_SCENARIO_KEYS / hooks) }
    }
}

/// A value, as base64: whoever passes it on does not decode it. The text is what a decoder takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = String)]
pub struct Value(String);

/// Characters of base64 that stand for three bytes.
const QUARTET: usize = 4;

impl Value {
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(BASE64_STANDARD.encode(bytes))
    }

    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.0).unwrap_or_default()
    }

    /// Number of its bytes.
    fn len(&self) -> usize {
        self.0.len() / QUARTET * 3 - self.0.bytes().rev().take(2).filter(|b| *b == b'=').count()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What is not of the alphabet, and padding, may stand in the last four characters alone.
        let (front, last) = text.as_bytes().split_at(text.len().saturating_sub(QUARTET));
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
        let is_one = front.len().is_multiple_of(QUARTET) && front.iter().all(is_plain);
        if !is_one || BASE64_STANDARD.decode(last).is_err() {
            return Err(D::Error::custom("a value that is no base64"));
        }
        Ok(Self(text))
    }
}

/// What hooks changed, or all that they keep: by hook and key. `null`: the key was removed.
///
/// A hook is named by its stage, its plugin's name and, where the stage has that plugin more than once, its
/// number: `post/line-counter#2`. So its state stays its own when the scenario gets another version of the
/// plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(value_type = BTreeMap<String, BTreeMap<String, Option<String>>>)]
pub struct HookState(BTreeMap<String, BTreeMap<String, Option<Value>>>);

impl HookState {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn set(&mut self, hook: &str, key: String, value: Option<Value>) {
        match self.0.get_mut(hook) {
            Some(keys) => drop(keys.insert(key, value)),
            None => drop(self.0.insert(hook.to_owned(), BTreeMap::from([(key, value)]))),
        }
    }

    /// Bytes that it takes as JSON.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        /// Those of an object, whose entries have a colon and, but for the last, a comma.
        fn object(entries: impl Iterator<Item = usize>) -> usize {
            entries.map(|bytes| bytes + 2).sum::<usize>().max(1) + 1
        }
        let value = |value: &Option<Value>| value.as_ref().map_or("null".len(), |value| value.0.len() + 2);
        let keys =
            |keys: &BTreeMap<String, Option<Value>>| object(keys.iter().map(|(key, of)| json_bytes(key) + value(of)));
        object(self.0.iter().map(|(hook, of)| json_bytes(hook) + keys(of)))
    }

    /// Each key, with its hook; `None`: it was removed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, Option<&Value>)> {
        self.0
            .iter()
            .flat_map(|(hook, keys)| keys.iter().map(move |(key, value)| (hook.as_str(), key.as_str(), value.as_ref())))
    }

    /// What one hook keeps.
    pub fn of(&self, hook: &str) -> impl Iterator<Item = (&str, &Value)> {
        let keys = self.0.get(hook).into_iter().flatten();
        keys.filter_map(|(key, value)| Some((key.as_str(), value.as_ref()?)))
    }

    /// Adds what changed later.
    pub fn extend(&mut self, later: Self) {
        for (hook, keys) in later.0 {
            self.0.entry(hook).or_default().extend(keys);
        }
    }

    /// The state behind these changes: what they removed is gone.
    pub fn apply(&mut self, changes: Self) {
        for (hook, changed) in changes.0 {
            let keys = self.0.entry(hook).or_default();
            for (key, value) in changed {
                match value {
                    Some(_) => drop(keys.insert(key, value)),
                    None => drop(keys.remove(&key)),
                }
            }
        }
        self.0.retain(|_, keys| !keys.is_empty());
    }

    /// What makes `other` of this state.
    #[must_use]
    pub fn changes_to(&self, other: &Self) -> Self {
        let mut changes = Self::default();
        for (hook, key, _) in self.iter().filter(|(hook, key, _)| other.value(hook, key).is_none()) {
            changes.set(hook, key.to_owned(), None);
        }
        for (hook, key, value) in other.iter().filter(|(hook, key, value)| self.value(hook, key) != *value) {
            changes.set(hook, key.to_owned(), value.cloned());
        }
        changes
    }

    fn value(&self, hook: &str, key: &str) -> Option<&Value> {
        self.0.get(hook)?.get(key)?.as_ref()
    }

    /// Whether hooks can have said so: whoever passes it on does not trust the worker it comes from.
    ///
    /// # Errors
    /// With what is too large.
    pub fn check(&self) -> Result<(), String> {
        let (mut bytes, mut keys) = (0, 0);
        for (hook, key, value) in self.iter() {
            let length = value.map_or(0, Value::len);
            if hook.len() > MAX_KEY || key.len() > MAX_KEY || length > MAX_VALUE {
                return Err(format!(
                    "a hook's state has a name of {} bytes, a key of {} and a value of {length}; at most {MAX_KEY}, \
                     {MAX_KEY} and {MAX_VALUE} are allowed",
                    hook.len(),
                    key.len()
                ));
            }
            (bytes, keys) = (bytes + key.len() + length, keys + 1);
        }
        if bytes > MAX_CHANGE * MAX_SCENARIO || keys > MAX_CHANGE * MAX_SCENARIO_KEYS {
            return Err(format!("the state of the hooks has {keys} keys and {bytes} bytes, which is too much"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn changes(of: &[(&str, &str, Option<&str>)]) -> HookState {
        let mut state = HookState::default();
        for (hook, key, value) in of {
            state.set(hook, (*key).to_owned(), value.map(|value| Value::new(value.as_bytes())));
        }
        state
    }

    #[test]
    fn the_changes_between_two_states_make_one_of_the_other() {
        let state = |keys: &[(&str, &str, u8)]| {
            let mut state = HookState::default();
            keys.iter().for_each(|(hook, key, value)| state.set(hook, (*key).to_owned(), Some(Value::new(&[*value]))));
            state
        };
        let one = state(&[("post/a", "same", 1), ("post/a", "other", 1), ("pre/b", "gone", 1)]);
        let two = state(&[("post/a", "same", 1), ("post/a", "other", 2), ("post/c", "new", 3)]);
        for (from, to, count) in [(&one, &two, 3), (&two, &one, 3), (&one, &one, 0), (&one, &HookState::default(), 3)] {
            let changes = from.changes_to(to);
            assert_eq!(changes.iter().count(), count);
            let mut made = from.clone();
            made.apply(changes);
            assert_eq!(&made, to);
        }
    }

    #[test]
    fn it_is_readable_as_json_whatever_its_bytes() {
        let mut state = changes(&[("post/a", "k", Some("x")), ("post/a", "gone", None)]);
        state.set("pre/b#2", "\0\u{1f600}".into(), Some(Value::new(&Vec::from_iter(0..=255))));
        let json = serde_json::to_value(&state).unwrap();
        assert_eq!(json["post/a"], json!({"k": "eA==", "gone": null}));
        assert_eq!(serde_json::from_str::<HookState>(&json.to_string()).unwrap(), state);
        let of = |hook| state.of(hook).map(|(_, value)| value.bytes()).collect::<Vec<_>>();
        assert_eq!((of("post/a"), of("pre/b#2")), (vec![b"x".to_vec()], vec![Vec::from_iter(0..=255)]));
    }

    #[test]
    fn a_later_change_counts_and_what_is_removed_is_gone() {
        let mut state = changes(&[("a", "x", Some("1")), ("a", "y", Some("2")), ("b", "x", Some("3"))]);
        state.apply(changes(&[("a", "x", Some("4")), ("a", "y", None), ("b", "x", None), ("c", "z", None)]));
        assert_eq!(state, changes(&[("a", "x", Some("4"))]));
        assert_eq!(state.of("a").map(|(key, value)| (key, value.bytes())).collect::<Vec<_>>(), [("x", b"4".to_vec())]);
        assert_eq!(state.of("b").count(), 0);
    }

    #[test]
    fn all_quotas_of_a_scenario_fit_into_one_message() {
        for hooks in 0..=32 {
            let quota = StateQuota::of(hooks, USUAL_HOOK);
            assert!(quota.bytes * hooks <= MAX_SCENARIO && quota.keys * hooks <= MAX_SCENARIO_KEYS, "{hooks}");
            assert!(quota.bytes >= 2 * MAX_VALUE && quota.keys >= 512, "{hooks}");
        }
        assert_eq!(StateQuota::of(4, USUAL_HOOK).bytes, 1 << 20);
        assert_eq!([StateQuota::of(2, 9 << 20).bytes, StateQuota::of(2, 9).bytes], [2 << 20, 9]);
        // Keys that went and values, which are base64, with `"":null,` around each key.
        let json = (MAX_CHANGE - 1) * MAX_SCENARIO + MAX_SCENARIO / 3 * 4 + MAX_CHANGE * MAX_SCENARIO_KEYS * 8;
        assert!(json < crate::job::MAX_RECORD, "{json}");
    }

    #[test]
    fn what_no_hook_can_have_said_is_refused() {
        let long = |length: usize| "x".repeat(length);
        let ok = |of: &[(&str, &str, Option<&str>)]| changes(of).check().is_ok();
        assert!(ok(&[("a", &long(MAX_KEY), Some(&long(MAX_VALUE)))]));
        assert!(!ok(&[("a", &long(MAX_KEY + 1), None)]));
        assert!(!ok(&[("a", "k", Some(&long(MAX_VALUE + 1)))]));
        assert!(!ok(&[(&long(MAX_KEY + 1), "k", None)]));
        let mut many = HookState::default();
        (0..=MAX_CHANGE * MAX_SCENARIO_KEYS).for_each(|n| many.set("a", n.to_string(), None));
        assert!(many.check().unwrap_err().contains("keys"));
        let mut large = HookState::default();
        (0..=MAX_CHANGE * MAX_SCENARIO / MAX_VALUE)
            .for_each(|n| large.set("a", n.to_string(), Some(Value::new(&[0; MAX_VALUE]))));
        assert!(large.check().unwrap_err().contains("bytes"));
    }

    fn any_changes() -> impl Strategy<Value = HookState> {
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..3).prop_map(|bytes| Value::new(&bytes)));
        prop::collection::vec((0..2u8, 0..3u8, value), 0..6).prop_map(|all| {
            let mut state = HookState::default();
            for (hook, key, value) in all {
                state.set(&hook.to_string(), key.to_string(), value);
            }
            state
        })
    }

    proptest! {
        #[test]
        fn a_value_is_what_a_decoder_takes(text in prop_oneof!["[A-Za-z0-9+/]{0,9}={0,3}", "[a-c=+ ]{0,8}", ".{0,9}"]) {
            let read = serde_json::from_value::<Value>(json!(text));
            let decoded = BASE64_STANDARD.decode(&text);
            prop_assert_eq!(read.as_ref().ok().map(Value::bytes), decoded.ok());
            prop_assert!(read.is_err() || read.is_ok_and(|value| value.len() == value.bytes().len()));
        }

        #[test]
        fn the_length_of_the_json_is_known_without_writing_it(mut state in any_changes(), key in ".{0,4}") {
            prop_assert_eq!(state.json_bytes(), json_bytes(&state));
            state.set("post/a", key, None);
            prop_assert_eq!(state.json_bytes(), json_bytes(&state));
        }

        #[test]
        fn changes_applied_together_are_changes_applied_one_by_one(all in prop::collection::vec(any_changes(), 0..6)) {
            let (mut one_by_one, mut together, mut at_once) =
                (HookState::default(), HookState::default(), HookState::default());
            for changes in all {
                one_by_one.apply(changes.clone());
                together.extend(changes);
            }
            at_once.apply(together);
            prop_assert_eq!(one_by_one, at_once);
        }
    }
}
