//! Revisions: the settings of a scenario, by number, and how a new one shows whether it works.
//!
//! Invariants: a frame is wholly of one revision, which its row names. A worker goes from one revision to the
//! next between two frames, and keeps what it had until the new one has worked on some of them: if that
//! fails, it goes back by itself and says so. The store follows what workers say (`planner`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{job::HookJob, prediction::HookFailure, reason::Reason, state::words};

words! {
    /// What became of a revision.
    RevisionState {
        /// No worker has run it yet.
        Pending = "pending",
        /// The one that the scenario's frames are of, or were last.
        Active = "active",
        /// A later one took its place.
        Superseded = "superseded",
        /// Its hooks failed: the one before went on.
        RolledBack = "rolled_back",
    }
}

words! {
    /// What the hooks of a new revision begin with.
    Begin {
        /// What those before kept, hook by hook: a hook is the same if its stage and its plugin's name are.
        Keep = "keep",
        /// Nothing.
        Fresh = "fresh",
    }
}

/// Revisions of a scenario that are kept besides those in use: two weeks of a change every twenty minutes.
pub const MAX_REVISIONS: i64 = 1000;

/// What a worker says about the revisions it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct RevisionStatus {
    /// That of its frames.
    pub running: i64,
    /// The first frame of that revision in this deployment; absent: there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_frame: Option<u64>,
    /// The newest one that it went back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
}

/// A revision that failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct RolledBack {
    pub revision: i64,
    pub reason: Reason,
}

/// What is on record of the revision that a scenario shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RevisionFacts {
    pub number: i64,
    /// No worker has told yet that it runs it.
    pub is_pending: bool,
    /// The newest one that was rolled back; 0: none.
    pub rolled_back: i64,
}

impl Default for RevisionFacts {
    fn default() -> Self {
        Self { number: 1, is_pending: false, rolled_back: 0 }
    }
}

/// Failures in a row, from any frame of the trial on, that a revision does not survive: as many as open the
/// breaker of a plugin, so what goes on failing costs no more frames than that.
const FAILURES_IN_A_ROW: u32 = 3;
/// Frames of a trial: two seconds of a camera. What fails now and then shows itself within them.
const FRAMES: u32 = 50;
/// Failures among them: more than half.
const FAILURES: u32 = FRAMES / 2;

/// The first frames of a revision, on which its hooks show that they work.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The hooks that are new in it, as `name@version`: what others fail on is not its fault.
    watched: BTreeSet<String>,
    frames: u32,
    failures: u32,
    in_a_row: u32,
}

/// What a trial has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing yet.
    Open,
    Works,
    Fails(Reason),
}

impl Trial {
    /// Begins for a revision with the hooks `new` in the place of `before`; all of them are new if their
    /// limits are.
    #[must_use]
    pub fn of<'a, H: PartialEq + 'a>(
        before: impl IntoIterator<Item = &'a H>,
        new: impl IntoIterator<Item = &'a H>,
        name: impl Fn(&H) -> String,
        are_all_new: bool,
    ) -> Self {
        let before: Vec<_> = before.into_iter().collect();
        let new = new.into_iter().filter(|hook| are_all_new || !before.contains(hook));
        Self { watched: new.map(name).collect(), ..Self::default() }
    }

    /// Takes note of a frame with its failures.
    pub fn frame(&mut self, failures: &[HookFailure]) -> Shown {
        self.frames += 1;
        let Some(failure) = failures.iter().find(|failure| self.watched.contains(&failure.plugin)) else {
            self.in_a_row = 0;
            return if self.frames < FRAMES { Shown::Open } else { Shown::Works };
        };
        self.failures += 1;
        self.in_a_row += 1;
        let counted = if self.in_a_row >= FAILURES_IN_A_ROW {
            format!("on {} frames in a row", self.in_a_row)
        } else if self.failures > FAILURES {
            format!("on {} of its first {} frames", self.failures, self.frames)
        } else {
            return if self.frames < FRAMES { Shown::Open } else { Shown::Works };
        };
        let Reason { code, message } = &failure.reason;
        Shown::Fails(Reason::new(*code, format!("hooks failed {counted}; the last failure: {message}")))
    }
}

/// How a hook of a job is called in a failure.
#[must_use]
pub fn name_of_job(hook: &HookJob) -> String {
    format!("{}@{}", hook.identity.name, hook.identity.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::ReasonCode;

    /// A letter a frame: `.` is well, `x` a failure of a new hook, `o` one of another.
    fn shown(frames: &str) -> (usize, Shown) {
        let (before, new) = (["old@1".to_owned()], ["old@1".to_owned(), "new@2".to_owned()]);
        let mut trial = Trial::of(&before, &new, String::clone, false);
        let failure =
            |plugin: &str| HookFailure { plugin: plugin.into(), reason: Reason::new(ReasonCode::PluginTrap, "why") };
        for (n, frame) in frames.chars().enumerate() {
            let failures = match frame {
                'x' => vec![failure("old@1"), failure("new@2")],
                'o' => vec![failure("old@1")],
                _ => vec![],
            };
            match trial.frame(&failures) {
                Shown::Open => {}
                shown => return (n + 1, shown),
            }
        }
        (frames.len(), Shown::Open)
    }

    #[test]
    fn a_revision_is_given_up_early_or_works() {
        let fails = |words: &str| {
            let message = format!("hooks failed {words}; the last failure: why");
            Shown::Fails(Reason::new(ReasonCode::PluginTrap, message))
        };
        for (frames, expected) in [
            ("xxx".to_owned(), (3, fails("on 3 frames in a row"))),
            ("....xx.xxx".to_owned(), (10, fails("on 3 frames in a row"))),
            ("xx.".repeat(17), (38, fails("on 26 of its first 38 frames"))),
            ("x.".repeat(25), (50, Shown::Works)),
            (".".repeat(50), (50, Shown::Works)),
            (".".repeat(49), (49, Shown::Open)),
            ("o".repeat(50), (50, Shown::Works)),
            (format!("{}x", ".".repeat(49)), (50, Shown::Works)),
        ] {
            assert_eq!(shown(&frames), expected, "{frames}");
        }
    }

    #[test]
    fn new_limits_make_every_hook_a_new_one() {
        let hooks = ["a@1".to_owned()];
        let mut trial = Trial::of(&hooks, &hooks, String::clone, true);
        let failure = HookFailure { plugin: "a@1".into(), reason: Reason::new(ReasonCode::PluginTimeout, "slow") };
        assert_eq!((0..2).map(|_| trial.frame(std::slice::from_ref(&failure))).last(), Some(Shown::Open));
        assert!(matches!(trial.frame(&[failure]), Shown::Fails(_)));
    }
}
