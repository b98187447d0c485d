//! What the hooks of one scenario may use, where that is not what its runner gives to all.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{hook_state::MAX_SCENARIO, job::HookLimits};

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
    /// Most that a hook keeps between frames (`state`), keys and values, in KiB. All hooks of a scenario
    /// together keep 4096 KiB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub hook_state_kib: Option<u32>,
}

/// The most that a scenario may ask for in one installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookCeilings {
    pub call_ms: u64,
    pub memory_mib: u32,
    pub state_kib: u32,
}

/// All that the hooks of a scenario keep.
pub const MAX_STATE_KIB: u32 = (MAX_SCENARIO >> 10) as u32;

impl Default for HookCeilings {
    fn default() -> Self {
        // A tenth of the time in which a frame must come, so that ten hooks fit; the most that the engine
        // gives.
        Self { call_ms: 1000, memory_mib: 256, state_kib: MAX_STATE_KIB }
    }
}

impl ScenarioLimits {
    pub fn is_empty(&self) -> bool {
        *self == Self { hook_call_ms: None, hook_memory_mib: None, hook_state_kib: None }
    }

    /// What is no limit or above its ceiling, in a scenario of so many hooks: the field, and what it may be.
    pub fn problems(&self, ceilings: HookCeilings, hooks: usize) -> Vec<(&'static str, String)> {
        let shared = MAX_STATE_KIB / u32::try_from(hooks.max(1)).unwrap_or(u32::MAX);
        let asked = [
            ("hook_call_ms", self.hook_call_ms, ceilings.call_ms, "ms"),
            ("hook_memory_mib", self.hook_memory_mib.map(u64::from), ceilings.memory_mib.into(), "MiB"),
            ("hook_state_kib", self.hook_state_kib.map(u64::from), ceilings.state_kib.min(shared).into(), "KiB"),
        ];
        let wrong = asked.into_iter().filter_map(|(field, asked, most, unit)| {
            let asked = asked.filter(|asked| !(1..=most).contains(asked))?;
            let is_shared = field == "hook_state_kib" && most < ceilings.state_kib.into();
            let why = if is_shared { format!("{hooks} hooks share {MAX_STATE_KIB}") } else { format!("`max_{field}`") };
            Some((field, format!("`{field}` is {asked}; it is 1 to {most} {unit} here ({why})")))
        });
        wrong.collect()
    }

    /// With what this scenario asks for, as far as it is allowed: its runner's ceilings may be lower than
    /// those that it was created under.
    #[must_use]
    pub fn apply(&self, to: HookLimits, ceilings: HookCeilings) -> HookLimits {
        let memory = self.hook_memory_mib.map(|mib| (mib.min(ceilings.memory_mib) as usize) << 20);
        let state = self.hook_state_kib.map(|kib| (kib.min(ceilings.state_kib) as usize) << 10);
        HookLimits {
            call_ms: self.hook_call_ms.map_or(to.call_ms, |ms| ms.min(ceilings.call_ms)),
            memory_bytes: memory.unwrap_or(to.memory_bytes),
            state_bytes: state.unwrap_or(to.state_bytes),
            ..to
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_gets_what_it_asks_for_up_to_the_ceilings() {
        let (ceilings, given) =
            (HookCeilings { call_ms: 100, memory_mib: 128, state_kib: 2048 }, HookLimits::default());
        let limits =
            |hook_call_ms, hook_memory_mib| ScenarioLimits { hook_call_ms, hook_memory_mib, hook_state_kib: None };
        for (asked, call_ms, mib, wrong) in [
            (limits(None, None), 20, 64, vec![]),
            (limits(Some(5), Some(8)), 5, 8, vec![]),
            (limits(Some(100), Some(128)), 100, 128, vec![]),
            (limits(Some(101), Some(129)), 100, 128, vec!["hook_call_ms", "hook_memory_mib"]),
            (limits(Some(0), None), 0, 64, vec!["hook_call_ms"]),
        ] {
            let made = asked.apply(given, ceilings);
            assert_eq!((made.call_ms, made.memory_bytes >> 20), (call_ms, mib), "{asked:?}");
            let problems = asked.problems(ceilings, 1);
            assert_eq!(problems.iter().map(|(field, _)| *field).collect::<Vec<_>>(), wrong, "{asked:?}");
        }
        let (_, message) = &limits(Some(101), None).problems(ceilings, 1)[0];
        assert_eq!(message, "`hook_call_ms` is 101; it is 1 to 100 ms here (`max_hook_call_ms`)");
        let state = |kib| ScenarioLimits { hook_state_kib: Some(kib), ..ScenarioLimits::default() };
        assert_eq!([1, 3000].map(|kib| state(kib).apply(given, ceilings).state_bytes), [1 << 10, 2048 << 10]);
        let said = |kib, hooks| state(kib).problems(ceilings, hooks).into_iter().map(|(_, message)| message).next();
        assert_eq!((said(2048, 2), said(1365, 3)), (None, None));
        let refused = "`hook_state_kib` is 2049; it is 1 to 2048 KiB here (`max_hook_state_kib`)";
        assert_eq!(said(2049, 2).as_deref(), Some(refused));
        let refused = "`hook_state_kib` is 1366; it is 1 to 1365 KiB here (3 hooks share 4096)";
        assert_eq!(said(1366, 3).as_deref(), Some(refused));
    }
}
