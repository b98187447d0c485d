//! What a scenario logs: the lines of its hooks, and what the platform says of them. The newest are kept.
//!
//! Which lines are new, and which go, is the business of [`ring`](crate::ring).
//!
//! Deliberately absent: a promise that a line arrives. What a runner has not published when it dies is lost.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{Generation, ScenarioId},
    job::LogLevel,
    prediction::Attribute,
    ring::{Batch, Ring},
    spec::is_false,
};

/// Lines of one scenario that are kept: forty seconds of as many as it may log by default, and a day of one a
/// minute.
pub const MAX_LINES: i64 = 2_000;
/// Bytes of JSON of one scenario's lines, give or take one line: as many lines of 260 bytes, which is a long
/// sentence with its names. The API reads all of it at a time.
pub const MAX_BYTES: i64 = 512 << 10;

/// Bytes of JSON of one line. A hook may log 1 KiB at a time, which JSON makes six of at worst; the rest is
/// for times and names.
pub const MAX_LINE: usize = 8 << 10;

/// Who a line is of that no hook wrote.
pub const PLATFORM: &str = "framehook";

/// A line of a scenario's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When its runner heard it.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The frame that the hook was last called for; absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    pub level: LogLevel,
    /// The plugin, as `name@version`; `framehook`: the platform says it.
    pub plugin: String,
    /// Where in the plugin it comes from; `stdout` and `stderr`: it was printed; `panic`: a panic said it;
    /// `framehook`: the platform says it of the plugin.
    pub target: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Attribute>,
    /// The hook is one of the scenario's shadow.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shadow: bool,
}

/// Lines that one deployment of a scenario logged, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LoggedLines {
    pub scenario_id: ScenarioId,
    #[schema(value_type = i64)]
    pub generation: Generation,
    /// The number of the first line among those of this deployment, from 0; the others follow.
    pub first: u64,
    pub lines: Vec<LogLine>,
}

/// What is kept of one scenario's lines.
pub const RING: Ring = Ring { items: MAX_LINES, bytes: MAX_BYTES };

impl<'a> From<&'a LoggedLines> for Batch<'a, LogLine> {
    fn from(logged: &'a LoggedLines) -> Self {
        Self { generation: logged.generation, first: logged.first, items: &logged.lines }
    }
}
