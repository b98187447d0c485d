//! A failed try to run a deployment: whether another one may help. Each step on the way to a running worker
//! ends in one of these, and only the supervisor decides what follows from it.

use std::error::Error;

use framehook_core::reason::{Reason, ReasonCode};
use framehook_infra::descriptors;

/// Why a try to run a deployment failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// Another try may help.
    Retry(Reason),
    /// Another try will, once the runner has again what it lacks: the scenario is not to blame.
    Wait(Reason),
    /// None will.
    Fatal(Reason),
}

impl Failure {
    /// What `error` means, which is worth a retry for that reason: unless no descriptor was left.
    pub(crate) fn of(error: &(dyn Error + 'static), reason: Reason) -> Self {
        if !descriptors::ran_out(error) {
            return Self::Retry(reason);
        }
        let message = "the runner has no file descriptor left; it goes on as soon as there are some (`ulimit -n`)";
        Self::Wait(Reason::new(ReasonCode::NoCapacity, message))
    }

    /// The same for another reason.
    pub(crate) fn map(self, change: impl FnOnce(Reason) -> Reason) -> Self {
        match self {
            Self::Retry(reason) => Self::Retry(change(reason)),
            Self::Wait(reason) => Self::Wait(change(reason)),
            Self::Fatal(reason) => Self::Fatal(change(reason)),
        }
    }
}
