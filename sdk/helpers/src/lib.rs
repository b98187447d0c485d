//! What the host computes for hooks: the best of many scores, suppression of duplicates, masks out of prototypes.
//!
//! The engine calls it, and so do the doubles of the host that the SDK has for native tests: there is one
//! implementation, so a test sees what the platform will say. It depends on nothing.

pub mod masks;
pub mod scan;
pub mod suppress;
