//! What the model can take out of the protocol, and what must hold whatever fails.

/// One check that the protocol makes; each names where production makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A new leader gets a new epoch: `core::writes::Lease`.
    EpochGrows,
    /// An action commits only under the epoch in force: `apply`, `EPOCH`.
    EpochOfAction,
    /// So does a heartbeat: `record_heartbeat`, `EPOCH`.
    EpochOfHeartbeat,
    /// An action commits only from the state it was planned from: `in_state`, `MOVE_WORKER`.
    StateOfAction,
    /// A deployment is of the next generation: `core::writes::Deployment`, and the primary key of `workers`.
    NextGeneration,
    /// One live worker a scenario: `core::writes::Deployment`, and the index `workers_one_live`.
    OneLiveWorker,
    /// Publishing an order moves a worker on only while it is pending: `DEPLOYED`.
    MarkOnlyPending,
    /// A runner starts only a newer generation than any it has heard of: `core::fences`.
    GenerationOfOrder,
    /// What was told to stop counts as heard of: `core::fences`.
    StopRemembered,
    /// A runner takes only orders to its own incarnation: `Runner::take`.
    IncarnationOfOrder,
    /// Records of a worker reach the bus in their order: the idempotent producer.
    PublishedInOrder,
    /// A worker has finished once the bus has all its frames: the runner's `publisher`.
    FinishedWhenPublished,
    /// A row never goes back to an older generation: `NEVER_BACK`.
    GenerationOfRow,
    /// What hooks keep is that of the newest generation alone: `core::writes::goes_on_behind`.
    GenerationOfState,
    /// The inbox moves the offset from where it read: `MOVE_OFFSET`.
    OffsetCompared,
    /// Offset and rows are one transaction: `store_results`.
    OffsetWithRows,
    /// Results of a deleted scenario are dropped: `ACCEPTS_RESULTS`.
    DeletedDropped,
    /// A heartbeat that is older than the one recorded changes nothing: `IS_PAST`, by sequence.
    SequenceOfHeartbeat,
    /// Nor does one of an incarnation that a newer one has replaced: `IS_PAST`.
    ReplacedIncarnation,
    /// An order that no heartbeat answers is given again: `RepeatDeploy`, and `Stop` while it is overdue.
    OrdersRepeated,
    // ----- of a leader that may be late (`late`): `core::evidence` -----
    /// A lease is over only by what was heard: `is_over`.
    HeardUntil,
    /// Leases begin anew after a time in which nobody could be heard: `Hearing::is_gap`.
    LeaseAfterGap,
    /// A heartbeat shows an order only if it came behind it: `arrived_after_us`.
    ArrivedAfter,
    /// An order that still lies in the outbox is not given again: `with_worker`.
    PublishedFirst,
}

/// The protocol without some of its guards.
#[derive(Clone, Copy)]
pub(crate) struct Without(pub(crate) &'static [Guard]);

impl Without {
    pub(crate) fn has(self, guard: Guard) -> bool {
        !self.0.contains(&guard)
    }
}

/// What was broken; I1 to I12 are the design's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// I2: an epoch has one holder, and epochs of committed writes never decrease.
    Epochs,
    /// I3: generations increase, and one at most is live.
    OneLiveGeneration,
    /// I3: a generation starts once, and never after its runner heard it stop.
    StartsOnce,
    /// I5. A worker that was fenced may still add rows that nobody wrote yet: they are what anybody would
    /// have written.
    RowWentBack,
    /// I7: each result takes effect once, exactly when the offset passes it.
    OffsetAndRows,
    /// What hooks keep counts each frame once, up to the one behind which a deployment would go on.
    CountedTwice,
    /// I9 and I6: what was stored is complete, and what completed has one row a frame.
    FrameLost,
    /// Every transition is in core's tables.
    IllegalTransition,
    /// What is at rest has no live worker.
    WorkerAtRest,
    /// Nothing is left of a purged scenario.
    LeftOver,
    /// I10: a runner that never stopped telling was written off.
    HealthyLost,
    /// I10: a worker of such a runner was told to stop.
    HealthyStopped,
    /// Such a runner was given an order more than twice.
    OrderedAgain,
}
