//! What the bytes of an upload say, before any library that trusts them sees them.
//!
//! Invariants: nothing here panics, whatever the bytes are; nothing is copied but what a message quotes, and
//! what recorded outputs hold; time and memory are linear in the length of the input. No codec, no runtime
//! and no other crate of ours: so the fuzz targets need nothing native.

pub mod cut;
pub mod isobmff;
pub mod onnx;
pub mod outputs;
