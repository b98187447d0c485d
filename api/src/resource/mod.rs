//! The resources of the API, one file each, and how they are shown.

pub(crate) mod artifact;
pub(crate) mod comparison;
pub(crate) mod import;
pub(crate) mod log;
pub(crate) mod operation;
pub(crate) mod prediction;
pub(crate) mod preview;
pub(crate) mod replay;
pub(crate) mod response_cache;
pub(crate) mod revision;
pub(crate) mod runner;
pub(crate) mod scenario;
pub(crate) mod shadow;
pub(crate) mod start_rate;
pub(crate) mod view;
