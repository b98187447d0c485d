//! Lines in the platform's log, with the scenario and the plugin as fields, and with fields of their own:
//! `framehook_sdk::info!("{n} objects"; zone = "door", seconds = 2.5)`. The host passes on 50 lines a second,
//! and 64 KiB, of all hooks of a scenario together. A line has up to 1 KiB; control characters in it are
//! escaped.

use crate::Attribute;
pub use crate::bindings::host::framehook::plugin::log::Level;

/// One line. `target` says where in the plugin it comes from.
pub fn line(level: Level, target: &str, message: &str, fields: &[Attribute]) {
    #[cfg(target_family = "wasm")]
    crate::bindings::host::framehook::plugin::log::log(level, target, message, fields);
    // Natively, as in unit tests, there is no host.
    #[cfg(not(target_family = "wasm"))]
    {
        eprintln!("{level:?} {target}: {message} {fields:?}");
        crate::testing::keep_line(level, message);
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __line {
    ($level:ident, $message:literal $(, $arg:expr)* $(,)? $(; $($key:ident = $value:expr),+ $(,)?)?) => {
        $crate::log::line(
            $crate::log::Level::$level,
            module_path!(),
            &format!($message $(, $arg)*),
            &[$($($crate::Attribute { key: stringify!($key).to_owned(), value: $crate::Value::from($value) }),+)?],
        )
    };
}

#[macro_export]
macro_rules! trace {
    ($($arg:tt)+) => { $crate::__line!(Trace, $($arg)+) };
}

#[macro_export]
macro_rules! debug {
    ($($arg:tt)+) => { $crate::__line!(Debug, $($arg)+) };
}

#[macro_export]
macro_rules! info {
    ($($arg:tt)+) => { $crate::__line!(Info, $($arg)+) };
}

#[macro_export]
macro_rules! warn {
    ($($arg:tt)+) => { $crate::__line!(Warn, $($arg)+) };
}

#[macro_export]
macro_rules! error {
    ($($arg:tt)+) => { $crate::__line!(Error, $($arg)+) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_written_with_and_without_fields() {
        let (n, zone) = (3, "door");
        crate::info!("{n} objects");
        crate::warn!("{} objects, {n}", n + 1; zone = zone, seconds = 2.5, ids = vec![1.0, 2.0]);
    }
}
