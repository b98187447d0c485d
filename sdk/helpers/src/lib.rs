//! What the host computes for hooks: the best of many scores, suppression of duplicates, masks out of
//! prototypes. And what its tests share: where a frame lies in a model's input, and arrays as NumPy saves
//! them.
//!
//! The engine calls it, and so do the doubles of the host that the SDK has for native tests: there is one
//! implementation, so a test sees what the platform will say. It depends on nothing.

pub mod masks;
pub mod npy;
pub mod place;
pub mod scan;
pub mod suppress;
