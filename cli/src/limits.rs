//! How much one client, one scenario or one plugin may make everybody carry: the table `[limits]`
//! of the settings.

use anyhow::bail;
use clap::Args;
use framehook_core::{
    log_budget::LogLimits,
    size::{LEAST_PREDICTION, MAX_PREDICTION},
};
use framehook_infra::store::{HISTORY_LINES, LEAST_HISTORY_LINES};
use serde::{Deserialize, Serialize};

/// What somebody set; absent means "as it is".
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitOptions {
    /// Most of the items of one page of a list, in MiB; the rest is behind its cursor [default: 8]
    #[arg(long, env = "FRAMEHOOK_MAX_PAGE_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_page_mib: Option<u64>,

    /// Largest configuration of one hook, in KiB of JSON [default: 64]
    #[arg(long, env = "FRAMEHOOK_MAX_CONFIG_KIB", value_name = "KIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_config_kib: Option<usize>,

    /// Largest configurations of all hooks of a scenario together, in KiB of JSON [default: 256]
    #[arg(long, env = "FRAMEHOOK_MAX_CONFIGS_KIB", value_name = "KIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_configs_kib: Option<usize>,

    /// Longest that all hooks of a scenario together may take to judge their configurations, in
    /// seconds [default: 60]
    #[arg(long, env = "FRAMEHOOK_MAX_CONFIGS_S", value_name = "S")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_configs_s: Option<u64>,

    /// Most pages of predictions that are read at a time; a request for another one waits
    /// [default: 16]
    #[arg(long, env = "FRAMEHOOK_MAX_PAGES_AT_ONCE", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_pages_at_once: Option<usize>,

    /// Most stops and starts of a scenario in a minute, a sixth of them at once [default: 60]
    #[arg(long, env = "FRAMEHOOK_MAX_STARTS_MIN", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_starts_min: Option<u32>,

    /// Most lines of a scenario's history; of a longer one, lines in its middle are counted and
    /// not kept [default: 600]
    #[arg(long, env = "FRAMEHOOK_MAX_HISTORY_LINES", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_history_lines: Option<u32>,

    /// Days after which messages that could not be read are removed [default: 30]
    #[arg(long, env = "FRAMEHOOK_KEEP_DEAD_LETTERS_DAYS", value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_dead_letters_days: Option<u32>,

    /// Largest prediction of one frame, in KiB of JSON; a hook that makes it larger has failed on
    /// the frame [default: 256]
    #[arg(long, env = "FRAMEHOOK_MAX_PREDICTION_KIB", value_name = "KIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_prediction_kib: Option<usize>,

    /// Most predictions that a scenario publishes in a second, in MiB; one that makes more becomes
    /// slower [default: 4]
    #[arg(long, env = "FRAMEHOOK_MAX_PREDICTION_MIB_S", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_prediction_mib_s: Option<u64>,

    /// Most lines that the hooks of a scenario log in a second, all together [default: 50]
    #[arg(long, env = "FRAMEHOOK_MAX_LOG_LINES", value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_log_lines: Option<u32>,

    /// The same in KiB [default: 64]
    #[arg(long, env = "FRAMEHOOK_MAX_LOG_KIB", value_name = "KIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_log_kib: Option<u32>,

    /// Refuse a scenario that names an artifact without its version, so that no later upload is
    /// taken for it
    #[arg(
        long,
        env = "FRAMEHOOK_REQUIRE_VERSIONS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    require_versions: Option<bool>,
}

/// The limits in force.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) max_page_mib: u64,
    pub(crate) max_config_kib: usize,
    pub(crate) max_configs_kib: usize,
    pub(crate) max_configs_s: u64,
    pub(crate) max_pages_at_once: usize,
    pub(crate) max_starts_min: u32,
    pub(crate) max_history_lines: u32,
    pub(crate) keep_dead_letters_days: u32,
    pub(crate) max_prediction_kib: usize,
    pub(crate) max_prediction_mib_s: u64,
    pub(crate) max_log_lines: u32,
    pub(crate) max_log_kib: u32,
    pub(crate) require_versions: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_page_mib: 8,
            max_config_kib: 64,
            max_configs_kib: 256,
            // The reasons stand beside those of the libraries.
            max_configs_s: framehook_api::Limits::default().configs_time.as_secs(),
            max_pages_at_once: framehook_api::Limits::default().pages_at_once,
            max_starts_min: framehook_api::Limits::default().starts_a_minute,
            max_history_lines: HISTORY_LINES,
            keep_dead_letters_days: 30,
            max_prediction_kib: MAX_PREDICTION >> 10,
            max_prediction_mib_s: 4,
            max_log_lines: LogLimits::default().lines,
            max_log_kib: LogLimits::default().bytes >> 10,
            // Scenarios written for earlier releases name what is newest.
            require_versions: false,
        }
    }
}

/// A gibibyte as MiB or KiB of one thing in memory; more is a mistake.
const MAX_MIB: u64 = 1 << 10;
const MAX_KIB: u64 = 1 << 20;

/// A MiB: they are in each order to a runner and in each page of a list, which are made in memory.
const MAX_CONFIG_KIB: u64 = 1 << 10;

/// Clients and balancers have given up by then.
const MAX_CONFIGS_S: u64 = 3600;

/// More than there are connections to ask for them.
const MAX_PAGES: u64 = 1 << 16;

/// A thousand a second: no limit, but a number that its arithmetic can divide a minute by.
const MAX_STARTS_MIN: u64 = 60_000;

/// Some 30 MB of one scenario.
const MAX_HISTORY_LINES: u64 = 100_000;

/// A century.
const MAX_DAYS: u64 = 36_500;

impl Limits {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (name, value, least, most) in [
            ("max_page_mib", self.max_page_mib, 1, MAX_MIB),
            ("max_config_kib", self.max_config_kib as u64, 1, MAX_CONFIG_KIB),
            ("max_configs_kib", self.max_configs_kib as u64, 1, MAX_CONFIG_KIB),
            ("max_configs_s", self.max_configs_s, 1, MAX_CONFIGS_S),
            ("max_pages_at_once", self.max_pages_at_once as u64, 1, MAX_PAGES),
            ("max_starts_min", self.max_starts_min.into(), 1, MAX_STARTS_MIN),
            ("max_history_lines", self.max_history_lines.into(), LEAST_HISTORY_LINES.into(), MAX_HISTORY_LINES),
            ("keep_dead_letters_days", self.keep_dead_letters_days.into(), 1, MAX_DAYS),
            ("max_prediction_kib", self.max_prediction_kib as u64, LEAST_PREDICTION as u64 >> 10, MAX_KIB),
            ("max_prediction_mib_s", self.max_prediction_mib_s, 1, MAX_MIB),
            ("max_log_lines", self.max_log_lines.into(), 2, MAX_KIB),
            // A line of its own has up to a KiB.
            ("max_log_kib", self.max_log_kib.into(), 2, MAX_KIB),
        ] {
            if value < least || value > most {
                bail!("limits.{name} is {value}; it must be {least} to {most}");
            }
        }
        if self.max_config_kib > self.max_configs_kib {
            bail!(
                "limits.max_config_kib is {}, but limits.max_configs_kib is {}: one hook may not have more than all of them",
                self.max_config_kib,
                self.max_configs_kib
            );
        }
        Ok(())
    }
}
