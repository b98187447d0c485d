//! The released versions of the package `framehook:plugin`, one module each.
//!
//! Each converts to the engine's own types ([`crate::media`], `framehook_core`), so that the rest
//! of the engine knows one shape only.

pub(crate) mod v0_1;

/// The version a new plugin is built against.
pub(crate) const NEWEST: &str = "0.1.0";
/// Package of the interfaces that plugins import and export.
pub(crate) const PACKAGE: &str = "framehook:plugin";
