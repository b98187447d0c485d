//! What the store's writes decide, as pure functions of what a write has read in its own transaction. They
//! stand here, and not in the adapters, so that each database and the model check run the same code.

use uuid::Uuid;

use crate::{
    ids::{Epoch, Generation},
    prediction::Position,
    state::{Desired, ScenarioState},
};

/// The lease of the orchestrator that leads. The default is that of nobody: no one has led yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    pub epoch: Epoch,
    pub holder: Uuid,
    pub expires_at_us: i64,
}

/// What an orchestrator that asks for the lease gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub epoch: Epoch,
    /// The epoch begins with this. Nobody could have renewed the runners' leases before, so all of them are
    /// extended.
    pub is_new: bool,
}

impl Lease {
    /// `None`: somebody else leads. The epoch grows when the holder changes, when the lease had expired, and
    /// with `fresh`, the first request of a process.
    #[must_use]
    pub fn grant(self, holder: Uuid, fresh: bool, now_us: i64) -> Option<Granted> {
        let is_mine = self.holder == holder;
        let is_expired = self.expires_at_us <= now_us;
        let is_new = !is_mine || is_expired || fresh;
        (is_mine || is_expired).then(|| Granted { epoch: self.epoch + Epoch::from(is_new), is_new })
    }
}

/// What a user's request for another desired state changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DesiredChange {
    pub is_new: bool,
    /// The scenario becomes `pending`.
    pub restarts: bool,
}

/// A deleted scenario stays deleted. To desire `running` also restarts what has stopped or failed, even if
/// that was desired before; what has completed stays completed.
#[must_use]
pub fn set_desired(before: Desired, state: ScenarioState, desired: Desired) -> DesiredChange {
    if before == Desired::Deleted {
        return DesiredChange::default();
    }
    let is_startable = matches!(state, ScenarioState::Stopped | ScenarioState::Failed);
    DesiredChange { is_new: before != desired, restarts: desired == Desired::Running && is_startable }
}

/// Whether the settings of a scenario may be changed, from one revision to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayRevise {
    Yes,
    /// It has another revision than the change is for.
    Conflict,
    /// It has completed, and runs no more.
    Ended,
    Deleted,
}

/// `based_on` is the revision that whoever changes it has seen. What has stopped or failed may be started
/// again, with the new settings.
#[must_use]
pub fn may_revise(desired: Desired, state: ScenarioState, revision: i64, based_on: i64) -> MayRevise {
    match (desired, state) {
        (Desired::Deleted, _) => MayRevise::Deleted,
        (_, ScenarioState::Completed) => MayRevise::Ended,
        _ if revision != based_on => MayRevise::Conflict,
        _ => MayRevise::Yes,
    }
}

/// What is true of a scenario that shall be deployed, and of the runner that shall run it.
#[derive(Clone, Copy, Debug)]
pub struct Deployment {
    pub desired: Desired,
    pub generation: Generation,
    pub has_live_worker: bool,
    pub is_runner_present: bool,
}

impl Deployment {
    /// Whether it may become one of generation `next`.
    pub fn may_begin(self, next: Generation) -> bool {
        self.desired == Desired::Running
            && self.generation + 1 == next
            && !self.has_live_worker
            && self.is_runner_present
    }
}

/// Whether a stored row, one of generation `of`, is where the scenario's next deployment goes on, with the
/// state of its hooks. A row of an earlier generation than the newest is not: that one began before it, so
/// what both count would be counted twice. `resume_after` is where it would go on so far; a record that comes
/// again is behind it.
pub fn goes_on_behind(resume_after: Option<Position>, newest: Generation, of: Generation, row: Position) -> bool {
    of == newest && resume_after.is_none_or(|before| before <= row)
}

/// Whether the rows of a scenario may be removed.
pub fn may_purge(desired: Desired, state: ScenarioState, has_live_worker: bool) -> bool {
    desired == Desired::Deleted && state.is_ended() && !has_live_worker
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_by_its_holder_and_taken_by_another_once_it_is_over() {
        let [me, other] = [1, 2].map(Uuid::from_u128);
        let lease = Lease { epoch: 7, holder: me, expires_at_us: 100 };
        let granted = |epoch, is_new| Some(Granted { epoch, is_new });
        for (holder, fresh, now_us, expected) in [
            (me, false, 99, granted(7, false)),
            (me, true, 99, granted(8, true)),
            (me, false, 100, granted(8, true)),
            (other, false, 99, None),
            (other, true, 99, None),
            (other, false, 100, granted(8, true)),
        ] {
            assert_eq!(lease.grant(holder, fresh, now_us), expected, "{holder} {fresh} {now_us}");
        }
        assert_eq!(Lease::default().grant(me, false, 0), granted(1, true));
    }

    #[test]
    fn what_is_desired_restarts_what_stands_still_and_never_what_is_deleted() {
        let change = |is_new, restarts| DesiredChange { is_new, restarts };
        for (before, state, desired, expected) in [
            (Desired::Running, ScenarioState::Running, Desired::Running, change(false, false)),
            (Desired::Running, ScenarioState::Running, Desired::Stopped, change(true, false)),
            (Desired::Running, ScenarioState::Failed, Desired::Running, change(false, true)),
            (Desired::Running, ScenarioState::Failed, Desired::Stopped, change(true, false)),
            (Desired::Stopped, ScenarioState::Stopped, Desired::Running, change(true, true)),
            (Desired::Stopped, ScenarioState::Stopping, Desired::Running, change(true, false)),
            (Desired::Running, ScenarioState::Completed, Desired::Running, change(false, false)),
            (Desired::Stopped, ScenarioState::Stopped, Desired::Deleted, change(true, false)),
            (Desired::Deleted, ScenarioState::Stopped, Desired::Running, change(false, false)),
        ] {
            assert_eq!(set_desired(before, state, desired), expected, "{before:?} {state:?} {desired:?}");
        }
    }

    #[test]
    fn settings_change_from_the_revision_that_was_seen_while_the_scenario_may_run() {
        use {Desired as D, MayRevise as M, ScenarioState as S};
        for (desired, state, revision, based_on, expected) in [
            (D::Running, S::Running, 3, 3, M::Yes),
            (D::Stopped, S::Stopping, 3, 3, M::Yes),
            (D::Running, S::Failed, 3, 3, M::Yes),
            (D::Running, S::Running, 3, 2, M::Conflict),
            (D::Running, S::Completed, 3, 2, M::Ended),
            (D::Deleted, S::Completed, 3, 3, M::Deleted),
        ] {
            assert_eq!(may_revise(desired, state, revision, based_on), expected, "{desired} {state}");
        }
    }

    #[test]
    fn a_deployment_needs_all_its_conditions() {
        let may = |desired, generation, has_live_worker, is_runner_present| {
            Deployment { desired, generation, has_live_worker, is_runner_present }.may_begin(4)
        };
        assert!(may(Desired::Running, 3, false, true));
        for refused in [
            may(Desired::Stopped, 3, false, true),
            may(Desired::Deleted, 3, false, true),
            may(Desired::Running, 2, false, true),
            may(Desired::Running, 4, false, true),
            may(Desired::Running, 3, true, true),
            may(Desired::Running, 3, false, false),
        ] {
            assert!(!refused);
        }
    }

    #[test]
    fn a_scenario_goes_on_behind_the_last_row_of_its_newest_generation() {
        let at = |frame| Position { pts_us: i64::try_from(frame).unwrap() * 40_000, frame };
        for (before, newest, of, row, expected) in [
            (None, 2, 2, at(0), true),
            (None, 2, 1, at(9), false),
            (Some(at(3)), 2, 2, at(4), true),
            (Some(at(3)), 2, 2, at(3), true),
            (Some(at(3)), 2, 2, at(2), false),
            (Some(at(3)), 2, 1, at(9), false),
        ] {
            assert_eq!(goes_on_behind(before, newest, of, row), expected, "{before:?} {newest} {of} {row:?}");
        }
    }

    #[test]
    fn only_what_is_deleted_and_at_rest_is_purged() {
        assert!(may_purge(Desired::Deleted, ScenarioState::Stopped, false));
        assert!(!may_purge(Desired::Stopped, ScenarioState::Stopped, false));
        assert!(!may_purge(Desired::Deleted, ScenarioState::Stopping, false));
        assert!(!may_purge(Desired::Deleted, ScenarioState::Stopped, true));
    }
}
