//! Lines in the platform's log, with the scenario and the plugin as fields:
//! `framehook_sdk::info!("{n} objects")`. The host passes on 50 lines a second, and 64 KiB, of all
//! hooks of a scenario together. A line has up to 1 KiB; control characters in it are escaped.

pub use crate::bindings::host::framehook::plugin::log::Level;

/// One line. `target` says where in the plugin it comes from.
pub fn line(level: Level, target: &str, message: &str) {
    #[cfg(target_family = "wasm")]
    crate::bindings::host::framehook::plugin::log::log(level, target, message, &[]);
    // Natively, as in unit tests, there is no host.
    #[cfg(not(target_family = "wasm"))]
    eprintln!("{level:?} {target}: {message}");
}

#[macro_export]
macro_rules! trace {
    ($($arg:tt)+) => { $crate::log::line($crate::log::Level::Trace, module_path!(), &format!($($arg)+)) };
}

#[macro_export]
macro_rules! debug {
    ($($arg:tt)+) => { $crate::log::line($crate::log::Level::Debug, module_path!(), &format!($($arg)+)) };
}

#[macro_export]
macro_rules! info {
    ($($arg:tt)+) => { $crate::log::line($crate::log::Level::Info, module_path!(), &format!($($arg)+)) };
}

#[macro_export]
macro_rules! warn {
    ($($arg:tt)+) => { $crate::log::line($crate::log::Level::Warn, module_path!(), &format!($($arg)+)) };
}

#[macro_export]
macro_rules! error {
    ($($arg:tt)+) => { $crate::log::line($crate::log::Level::Error, module_path!(), &format!($($arg)+)) };
}
