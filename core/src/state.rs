//! The states of a scenario and of a worker, and the only transitions there are.
//!
//! One table each. The code asks [`ScenarioState::may_become`]; the SQL checks and the diagram in
//! the documentation are generated from, or tested against, the same tables.

use std::fmt;

// Enums of plain values, each with the word that stands for it everywhere.
//
// `tt` and not `literal`: derive macros see a `literal` wrapped in a group, and utoipa then ignores the
// rename.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:tt),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As in SQL, JSON and URLs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == s).ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    format!("`{s}` is none of {}", names.join(", "))
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What the user wants.
    Desired { Running = "running", Stopped = "stopped", Deleted = "deleted" }
}

words! {
    /// What a scenario does.
    ScenarioState {
        /// Waits for a runner.
        Pending = "pending",
        /// A runner was told; its worker is not up yet.
        Deploying = "deploying",
        /// Its worker is up, and no hook keeps failing.
        Running = "running",
        /// Runs, with a hook that fails.
        Degraded = "degraded",
        /// Was running and is about to be again; `retry_at` says when.
        Recovering = "recovering",
        /// A user wants it stopped or deleted; its worker ends the frames that it has.
        Stopping = "stopping",
        /// A user stopped it; `start` goes on after the last stored frame.
        Stopped = "stopped",
        /// The file came to its end, and everything that was published is stored.
        Completed = "completed",
        /// Will not run again without a `start`.
        Failed = "failed",
    }
}

words! {
    /// One deployment of a scenario: `(scenario_id, generation)`.
    WorkerState {
        /// Decided, the runner not yet told.
        Pending = "pending",
        /// The order is published.
        Deployed = "deployed",
        /// The runner reported it.
        Running = "running",
        /// The file came to its end.
        Finished = "finished",
        /// It ended by itself before the end of the file, and is not started again.
        Failed = "failed",
        /// It ended because a user, or a newer deployment, wanted it to.
        Stopped = "stopped",
        /// Its runner was not heard of.
        Lost = "lost",
    }
}

use ScenarioState as S;
use WorkerState as W;

/// Every transition of a scenario, with what causes it.
pub const SCENARIO_TRANSITIONS: &[(ScenarioState, ScenarioState, &str)] = &[
    (S::Pending, S::Deploying, "a runner has room"),
    (S::Pending, S::Stopped, "stop or delete before it ran"),
    (S::Deploying, S::Running, "worker ready"),
    (S::Deploying, S::Degraded, "worker ready, a hook fails"),
    (S::Deploying, S::Recovering, "worker or runner lost"),
    (S::Deploying, S::Stopping, "stop or delete"),
    (S::Deploying, S::Completed, "file ended"),
    (S::Deploying, S::Failed, "cannot run"),
    (S::Running, S::Degraded, "a hook fails"),
    (S::Running, S::Recovering, "worker or runner lost"),
    (S::Running, S::Stopping, "stop or delete"),
    (S::Running, S::Completed, "file ended"),
    (S::Running, S::Failed, "cannot run"),
    (S::Degraded, S::Running, "hooks are well again"),
    (S::Degraded, S::Recovering, "worker or runner lost"),
    (S::Degraded, S::Stopping, "stop or delete"),
    (S::Degraded, S::Completed, "file ended"),
    (S::Degraded, S::Failed, "cannot run"),
    (S::Recovering, S::Deploying, "placed again"),
    (S::Recovering, S::Pending, "no runner has room"),
    (S::Recovering, S::Running, "worker ready again"),
    (S::Recovering, S::Degraded, "worker ready again, a hook fails"),
    (S::Recovering, S::Stopping, "stop or delete"),
    (S::Recovering, S::Stopped, "stop or delete, nothing runs"),
    (S::Recovering, S::Completed, "file ended"),
    (S::Recovering, S::Failed, "restarts exhausted"),
    (S::Stopping, S::Stopped, "worker ended"),
    (S::Stopping, S::Completed, "file ended first"),
    (S::Stopping, S::Failed, "worker failed first"),
    (S::Stopped, S::Pending, "start"),
    (S::Failed, S::Pending, "start"),
];

/// Every transition of a worker.
pub const WORKER_TRANSITIONS: &[(WorkerState, WorkerState, &str)] = &[
    (W::Pending, W::Deployed, "order published"),
    (W::Pending, W::Running, "reported"),
    (W::Pending, W::Finished, "reported"),
    (W::Pending, W::Failed, "reported"),
    (W::Pending, W::Stopped, "reported"),
    (W::Pending, W::Lost, "runner lost"),
    (W::Deployed, W::Running, "reported"),
    (W::Deployed, W::Finished, "reported"),
    (W::Deployed, W::Failed, "reported"),
    (W::Deployed, W::Stopped, "reported"),
    (W::Deployed, W::Lost, "runner lost"),
    (W::Running, W::Finished, "file ended"),
    (W::Running, W::Failed, "restarts exhausted or fatal"),
    (W::Running, W::Stopped, "stopped"),
    (W::Running, W::Lost, "runner lost"),
];

/// A transition that is in no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} cannot go from {from} to {to}")]
pub struct IllegalTransition {
    pub what: &'static str,
    pub from: &'static str,
    pub to: &'static str,
}

impl ScenarioState {
    /// # Errors
    /// When the transition is not in [`SCENARIO_TRANSITIONS`].
    pub fn may_become(self, to: Self) -> Result<(), IllegalTransition> {
        let legal = SCENARIO_TRANSITIONS.iter().any(|(a, b, _)| (*a, *b) == (self, to));
        legal.then_some(()).ok_or(IllegalTransition { what: "scenario", from: self.as_str(), to: to.as_str() })
    }

    /// A worker exists, or should.
    pub const fn is_live(self) -> bool {
        matches!(self, S::Deploying | S::Running | S::Degraded | S::Recovering | S::Stopping)
    }

    /// Nothing happens any more without a user.
    pub const fn is_ended(self) -> bool {
        matches!(self, S::Stopped | S::Completed | S::Failed)
    }
}

impl WorkerState {
    /// # Errors
    /// When the transition is not in [`WORKER_TRANSITIONS`].
    pub fn may_become(self, to: Self) -> Result<(), IllegalTransition> {
        let legal = WORKER_TRANSITIONS.iter().any(|(a, b, _)| (*a, *b) == (self, to));
        legal.then_some(()).ok_or(IllegalTransition { what: "worker", from: self.as_str(), to: to.as_str() })
    }

    pub const fn is_live(self) -> bool {
        matches!(self, W::Pending | W::Deployed | W::Running)
    }
}

/// A state machine as a Mermaid diagram, for the documentation.
pub fn diagram<State: fmt::Display>(transitions: &[(State, State, &str)]) -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> pending\n");
    for (from, to, why) in transitions {
        text += &format!("    {from} --> {to}: {why}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tables_have_no_duplicates_and_no_loops_to_self() {
        let scenarios: HashSet<_> = SCENARIO_TRANSITIONS.iter().map(|(a, b, _)| (a, b)).collect();
        assert_eq!(scenarios.len(), SCENARIO_TRANSITIONS.len());
        assert!(scenarios.iter().all(|(a, b)| a != b));
        let workers: HashSet<_> = WORKER_TRANSITIONS.iter().map(|(a, b, _)| (a, b)).collect();
        assert_eq!(workers.len(), WORKER_TRANSITIONS.len());
        assert!(workers.iter().all(|(a, b)| a != b && a.is_live()));
    }

    #[test]
    fn every_state_is_reachable_and_every_live_state_can_end() {
        let mut reached = HashSet::from([S::Pending]);
        while let Some((_, to, _)) =
            SCENARIO_TRANSITIONS.iter().find(|(a, b, _)| reached.contains(a) && !reached.contains(b))
        {
            reached.insert(*to);
        }
        assert_eq!(reached.len(), S::ALL.len());
        for state in S::ALL.iter().filter(|s| s.is_live()) {
            assert!(SCENARIO_TRANSITIONS.iter().any(|(a, b, _)| a == state && (b.is_ended() || *b == S::Stopping)));
        }
    }

    #[test]
    fn illegal_transitions_say_what_was_tried() {
        let error = S::Completed.may_become(S::Running).unwrap_err();
        assert_eq!(error.to_string(), "a scenario cannot go from completed to running");
        assert!(W::Finished.may_become(W::Running).is_err());
        assert_eq!(S::Pending.may_become(S::Deploying), Ok(()));
    }

    #[test]
    fn names_round_trip() {
        for state in S::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!("gone".parse::<Desired>().unwrap_err().contains("running, stopped, deleted"));
    }
}
