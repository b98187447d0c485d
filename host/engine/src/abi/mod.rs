//! The released versions of the package `framehook:plugin`, one module each.
//!
//! The plain records of the newest one are the engine's own ([`crate::media`]). What `framehook_core` or
//! another version has in another form is converted, so that the rest of the engine knows one form only.

pub(crate) mod v0_1;

/// The version a new plugin is built against.
pub(crate) const NEWEST: &str = "0.1.0";
/// Package of the interfaces that plugins import and export.
pub(crate) const PACKAGE: &str = "framehook:plugin";
