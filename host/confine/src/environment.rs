//! A child's environment: made from nothing, so that no credential stays in it by oversight.

use std::ffi::{OsStr, OsString};

/// What every child is told.
const FIXED: [(&str, &str); 2] = [
    // Messages of libraries are matched by tests and read by people of any language.
    ("LANG", "C"),
    // `with_telemetry(false)` alone does not keep ONNX Runtime from looking up the host it would report to
    // (microsoft/onnxruntime#27379).
    ("ORT_DISABLE_TELEMETRY", "1"),
];

/// What a child keeps of ours: where libraries are, and how much to log. Not `RUST_BACKTRACE`: to write a
/// backtrace takes memory, and a child that panics because it has none left would wait for its own lock for
/// ever.
const KEPT: [&str; 2] = ["LD_LIBRARY_PATH", "RUST_LOG"];

/// Whether a child may have this variable.
pub(crate) fn is_known(name: &OsStr) -> bool {
    FIXED.iter().map(|(fixed, _)| fixed).chain(&KEPT).any(|known| name == *known)
}

pub(crate) fn environment() -> impl Iterator<Item = (OsString, OsString)> {
    let fixed = FIXED.into_iter().map(|(name, value)| (name.into(), value.into()));
    fixed.chain(KEPT.into_iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))))
}
