//! How much one client, one scenario or one plugin may make everybody carry: the table `[limits]`
//! of the settings.

use std::time::Duration;

use clap::{ArgAction, Args};
use framehook_api::Limits as ApiLimits;
use framehook_core::{
    limits::{HookCeilings, MAX_STATE_KIB},
    log_budget::LogLimits,
    size::{LEAST_PREDICTION, MAX_PREDICTION},
};
use framehook_infra::store::{HISTORY_LINES, LEAST_HISTORY_LINES};

use crate::settings::{MAX_HOOK_MEMORY_MIB, PARENTS, parsers::number};

/// A default that is no number here has its reason in the library that it comes from.
#[derive(Args, Clone, Copy)]
#[group(id = "limits")]
pub(crate) struct Limits {
    /// Largest page of a list, in MiB; further items come with its cursor
    #[arg(long, value_name = "MIB", group = "api")]
    #[arg(default_value_t = api().page_bytes >> 20, value_parser = number::<u64>(1..=MAX_MIB))]
    pub(crate) max_page_mib: u64,

    /// Largest configuration of one hook, in KiB of JSON
    #[arg(long, value_name = "KIB", group = "api")]
    #[arg(default_value_t = api().config_bytes >> 10, value_parser = number::<usize>(1..=MAX_CONFIG_KIB))]
    pub(crate) max_config_kib: usize,

    /// Largest sum of the configurations of all hooks of a scenario, in KiB of JSON. The whole body of a
    /// request may have 768 KiB more than this
    #[arg(long, value_name = "KIB", group = "api")]
    #[arg(default_value_t = api().configs_bytes >> 10, value_parser = number::<usize>(1..=MAX_CONFIG_KIB))]
    pub(crate) max_configs_kib: usize,

    /// Longest that all hooks of a scenario together may take to judge their configurations, in seconds
    #[arg(long, value_name = "S", group = "api")]
    #[arg(default_value_t = api().configs_time.as_secs(), value_parser = number::<u64>(1..=MAX_CONFIGS_S))]
    pub(crate) max_configs_s: u64,

    /// Most pages of predictions that are read at a time; a request for another one waits
    #[arg(long, value_name = "N", group = "api")]
    #[arg(default_value_t = api().pages_at_once, value_parser = number::<usize>(1..=MAX_PAGES))]
    pub(crate) max_pages_at_once: usize,

    /// Most stops and starts of a scenario in a minute, a sixth of them at once
    #[arg(long, value_name = "N", group = "api")]
    #[arg(default_value_t = api().starts_a_minute, value_parser = number::<u32>(1..=MAX_STARTS_MIN))]
    pub(crate) max_starts_min: u32,

    /// Most lines of a scenario's history, the same for all; of a longer one, lines in its middle
    /// are counted and not kept
    #[arg(long, value_name = "N", groups = ["api", "orchestrator"])]
    #[arg(default_value_t = HISTORY_LINES, value_parser = number::<u32>(LEAST_HISTORY_LINES.into()..=MAX_LINES))]
    pub(crate) max_history_lines: u32,

    /// Days after which messages that could not be read are removed
    #[arg(long, value_name = "DAYS", group = "orchestrator")]
    #[arg(default_value_t = 30, value_parser = number::<u32>(1..=MAX_DAYS))]
    pub(crate) keep_dead_letters_days: u32,

    /// Largest prediction of one frame, in KiB of JSON, the same for all; a hook that makes it
    /// larger has failed on the frame
    #[arg(long, value_name = "KIB", groups = PARENTS, default_value_t = MAX_PREDICTION >> 10)]
    #[arg(value_parser = number::<usize>(LEAST_PREDICTION as u64 >> 10..=MAX_KIB))]
    pub(crate) max_prediction_kib: usize,

    /// Most predictions that a scenario publishes in a second, in MiB; one that makes more becomes slower
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = number::<u64>(1..=MAX_MIB), group = "runner")]
    pub(crate) max_prediction_mib_s: u64,

    /// Most lines that the hooks of a scenario log in a second, all together
    #[arg(long, value_name = "N", group = "runner")]
    #[arg(default_value_t = LogLimits::default().lines, value_parser = number::<u32>(2..=MAX_KIB))]
    pub(crate) max_log_lines: u32,

    // At least 2: a line of its own has up to a KiB.
    /// Most that the hooks of a scenario log in a second, all together, in KiB
    #[arg(long, value_name = "KIB", group = "runner")]
    #[arg(default_value_t = LogLimits::default().bytes >> 10, value_parser = number::<u32>(2..=MAX_KIB))]
    pub(crate) max_log_kib: u32,

    /// Longest that a scenario may let its hooks take for one frame (`limits.hook_call_ms`), in milliseconds
    #[arg(long, value_name = "MS", groups = PARENTS)]
    #[arg(default_value_t = HookCeilings::default().call_ms, value_parser = number::<u64>(1..=MAX_CALL_MS))]
    pub(crate) max_hook_call_ms: u64,

    /// Most memory that a scenario may give to each of its plugins (`limits.hook_memory_mib`), in MiB
    #[arg(long, value_name = "MIB", groups = PARENTS)]
    #[arg(default_value_t = HookCeilings::default().memory_mib, value_parser = number::<u32>(1..=MAX_HOOK_MEMORY_MIB))]
    pub(crate) max_hook_memory_mib: u32,

    /// Most that a scenario may let each of its hooks keep between frames (`limits.hook_state_kib`), in KiB
    #[arg(long, value_name = "KIB", groups = PARENTS)]
    #[arg(default_value_t = HookCeilings::default().state_kib, value_parser = number::<u32>(1..=MAX_STATE_KIB.into()))]
    pub(crate) max_hook_state_kib: u32,
    // The default: fifty thousand frames of a small detector, half an hour of video.
    /// Most recorded outputs that are kept of a scenario (`"record": "outputs"`), in MiB; the oldest go first
    #[arg(long, value_name = "MIB", group = "runner", default_value_t = 1024, value_parser = number::<u64>(1..=MAX_KIB))]
    pub(crate) max_outputs_mib: u64,

    // The default: who looks at it the next day still finds it.
    /// Hours after which recorded outputs are removed
    #[arg(long, value_name = "HOURS", group = "api", default_value_t = 48, value_parser = number::<u32>(1..=MAX_HOURS))]
    pub(crate) outputs_age_h: u32,

    // The default: scenarios written for earlier releases name what is newest.
    /// Refuse a scenario that names an artifact without its version, so that no later upload is taken for it
    #[arg(long, value_name = "BOOL", group = "api")]
    #[arg(num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = ArgAction::Set)]
    pub(crate) require_versions: bool,
}

impl Limits {
    pub(crate) fn outputs_age(&self) -> Duration {
        Duration::from_secs(u64::from(self.outputs_age_h) * 3600)
    }
}

fn api() -> ApiLimits {
    ApiLimits::default()
}

/// A gibibyte as MiB or KiB of one thing in memory; more is a mistake.
const MAX_MIB: u64 = 1 << 10;
const MAX_KIB: u64 = 1 << 20;

/// A MiB: they are in each order to a runner and in each page of a list, which are made in memory.
const MAX_CONFIG_KIB: u64 = 1 << 10;

/// A minute: no frame waits for longer.
const MAX_CALL_MS: u64 = 60_000;

/// Clients and balancers have given up by then.
const MAX_CONFIGS_S: u64 = 3600;

/// More than there are connections to ask for them.
const MAX_PAGES: u64 = 1 << 16;

/// A thousand a second: no limit, but a number that its arithmetic can divide a minute by.
const MAX_STARTS_MIN: u64 = 60_000;

/// Some 30 MB of one scenario.
const MAX_LINES: u64 = 100_000;

/// A century.
const MAX_HOURS: u64 = 24 * MAX_DAYS;
/// The same.
const MAX_DAYS: u64 = 36_500;
