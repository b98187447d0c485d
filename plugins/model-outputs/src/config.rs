//! Checks of settings that several plugins have.

use framehook_sdk::ConfigProblem;

/// The largest `max_detections`.
pub const MOST: u32 = 10_000;

/// Those of these checks that failed: whether it holds, the field, and what must hold.
#[must_use]
pub fn problems(checks: &[(bool, &str, &str)]) -> Vec<ConfigProblem> {
    let failed = checks.iter().filter(|(good, ..)| !good);
    failed.map(|(_, path, message)| ConfigProblem { path: (*path).into(), message: (*message).into() }).collect()
}

/// The check of a setting from 0 to 1.
#[must_use]
pub fn share(value: f64, field: &str) -> (bool, &str, &'static str) {
    ((0.0..=1.0).contains(&value), field, "must be 0 to 1")
}

/// The check of a count.
#[must_use]
pub fn count(value: u32, field: &str) -> (bool, &str, &'static str) {
    ((1..=MOST).contains(&value), field, "must be 1 to 10000")
}
