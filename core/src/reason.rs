//! Why a scenario or a worker is in the state it is in: stable codes for programs, and a message
//! for people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Stable codes; adding one is compatible, changing the meaning of one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The source could not be opened.
    SourceUnreachable,
    /// The source wants credentials it was not given.
    SourceAuth,
    /// The source delivered no frame for longer than the frame timeout.
    SourceStalled,
    /// The source's bytes could not be decoded, or ended before they should.
    DecodeError,
    /// The model could not be loaded or run.
    ModelLoad,
    /// A plugin could not be loaded, or refused its configuration.
    PluginIncompatible,
    /// A plugin trapped, or ran out of memory.
    PluginTrap,
    /// A plugin ran longer than its deadline.
    PluginTimeout,
    /// A plugin reported an error of its own.
    PluginError,
    /// No runner has a free worker, or none has the labels that the scenario asks for.
    NoCapacity,
    /// The worker process ended unexpectedly.
    WorkerCrash,
    /// The runner was not heard of within its lease.
    LeaseLost,
    /// The runner's disk has no room for the source.
    StorageFull,
    /// A blob the runner needs is missing or damaged.
    BlobUnavailable,
    /// A user stopped it.
    StoppedByUser,
    /// The file came to its end.
    EndOfStream,
}

/// A code with the sentence a person reads. The message says what happened and what to do, and
/// never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    pub code: ReasonCode,
    pub message: String,
}

impl Reason {
    pub fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
