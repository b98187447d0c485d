//! The topics that messages travel through, and how a broker makes them.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Wake-up for the orchestrator: a scenario was created or changed. Key: scenario.
    InitScenario,
    /// Orders for a runner. Key: runner.
    ToDeploy,
    /// One record a frame. Key: scenario.
    Results,
    /// Heartbeats. Key: runner.
    RunnerStatus,
    /// What scenarios log and their shadows find, a batch a second of each at most, and which outputs of
    /// theirs are recorded. Key: scenario.
    ScenarioLogs,
}

impl Topic {
    pub const ALL: [Self; 5] =
        [Self::InitScenario, Self::ToDeploy, Self::Results, Self::RunnerStatus, Self::ScenarioLogs];

    pub const fn name(self) -> &'static str {
        match self {
            Self::InitScenario => "init_scenario",
            Self::ToDeploy => "to_deploy",
            Self::Results => "results",
            Self::RunnerStatus => "runner_status",
            Self::ScenarioLogs => "scenario_logs",
        }
    }

    /// Whether its readers store what it brings, and go on where that ends. Those of the others begin at the
    /// end, and are told again.
    pub const fn is_stored(self) -> bool {
        matches!(self, Self::Results | Self::ScenarioLogs)
    }

    /// What it is made with, where it is missing.
    pub const fn layout(self) -> Layout {
        match self {
            // Wake-ups, orders and heartbeats: their readers take all partitions, so six are for spreading
            // over brokers alone. Readers begin at the end and are told again, so an hour is for people who
            // look for a cause.
            Self::InitScenario | Self::ToDeploy => {
                Layout { partitions: 6, retention: Duration::from_hours(1), compression: "producer" }
            }
            // The newest heartbeat says everything. Ten minutes of a thousand runners are already a gigabyte.
            Self::RunnerStatus => Layout { partitions: 6, retention: Duration::from_mins(10), compression: "producer" },
            // Few bytes beside the results, so fewer inboxes may share them. Only the newest lines are kept;
            // a day is how long the database may be away before some of those are lost.
            Self::ScenarioLogs => Layout { partitions: 6, retention: Duration::from_hours(24), compression: "lz4" },
            // As many inboxes as can ever share the work: more partitions cannot be had later without moving
            // keys. A week is how long the database may be away before frames are lost. JSON of boxes shrinks
            // to a third by lz4.
            Self::Results => Layout { partitions: 24, retention: Duration::from_hours(7 * 24), compression: "lz4" },
        }
    }
}

/// How a topic of a broker is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub partitions: i32,
    pub retention: Duration,
    /// As the producer did it, unless it says so.
    pub compression: &'static str,
}

/// What could not be read of a topic. Rare, and looked at by people: enough partitions to go to several
/// brokers, and a month to find the time.
pub const DEAD_LETTERS: Layout =
    Layout { partitions: 3, retention: Duration::from_hours(30 * 24), compression: "producer" };
