//! What the hooks of one scenario may use, where that is not what its runner gives to all.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::job::HookLimits;

/// Limits of a scenario's hooks. What is left out is as its runner is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioLimits {
    /// Longest that a hook may take for one frame, in milliseconds of processor time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub hook_call_ms: Option<u64>,
    /// Most memory of an instance of a plugin, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub hook_memory_mib: Option<u32>,
}

/// The most that a scenario may ask for in one installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookCeilings {
    pub call_ms: u64,
    pub memory_mib: u32,
}

impl Default for HookCeilings {
    fn default() -> Self {
        // A tenth of the time in which a frame must come, so that ten hooks fit; the most that the engine
        // gives.
        Self { call_ms: 1000, memory_mib: 256 }
    }
}

impl ScenarioLimits {
    pub const fn is_empty(&self) -> bool {
        self.hook_call_ms.is_none() && self.hook_memory_mib.is_none()
    }

    /// What is no limit or above its ceiling: the field, and what it may be.
    pub fn problems(&self, ceilings: HookCeilings) -> Vec<(&'static str, String)> {
        let asked = [
            ("hook_call_ms", self.hook_call_ms, ceilings.call_ms, "ms"),
            ("hook_memory_mib", self.hook_memory_mib.map(u64::from), ceilings.memory_mib.into(), "MiB"),
        ];
        let wrong = asked.into_iter().filter_map(|(field, asked, most, unit)| {
            let asked = asked.filter(|asked| !(1..=most).contains(asked))?;
            Some((field, format!("`{field}` is {asked}; it is 1 to {most} {unit} here (`max_{field}`)")))
        });
        wrong.collect()
    }

    /// With what this scenario asks for, as far as it is allowed: its runner's ceilings may be lower than
    /// those that it was created under.
    #[must_use]
    pub fn apply(&self, to: HookLimits, ceilings: HookCeilings) -> HookLimits {
        let memory = self.hook_memory_mib.map(|mib| (mib.min(ceilings.memory_mib) as usize) << 20);
        HookLimits {
            call_ms: self.hook_call_ms.map_or(to.call_ms, |ms| ms.min(ceilings.call_ms)),
            memory_bytes: memory.unwrap_or(to.memory_bytes),
            ..to
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_gets_what_it_asks_for_up_to_the_ceilings() {
        let (ceilings, given) = (HookCeilings { call_ms: 100, memory_mib: 128 }, HookLimits::default());
        let limits = |hook_call_ms, hook_memory_mib| ScenarioLimits { hook_call_ms, hook_memory_mib };
        for (asked, call_ms, mib, wrong) in [
            (limits(None, None), 20, 64, vec![]),
            (limits(Some(5), Some(8)), 5, 8, vec![]),
            (limits(Some(100), Some(128)), 100, 128, vec![]),
            (limits(Some(101), Some(129)), 100, 128, vec!["hook_call_ms", "hook_memory_mib"]),
            (limits(Some(0), None), 0, 64, vec!["hook_call_ms"]),
        ] {
            let made = asked.apply(given, ceilings);
            assert_eq!((made.call_ms, made.memory_bytes >> 20), (call_ms, mib), "{asked:?}");
            let problems = asked.problems(ceilings);
            assert_eq!(problems.iter().map(|(field, _)| *field).collect::<Vec<_>>(), wrong, "{asked:?}");
        }
        let (_, message) = &limits(Some(101), None).problems(ceilings)[0];
        assert_eq!(message, "`hook_call_ms` is 101; it is 1 to 100 ms here (`max_hook_call_ms`)");
    }
}
