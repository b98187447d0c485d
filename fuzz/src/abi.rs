//! What of the engine's contract its checks of results need.

#[path = "../../host/engine/src/abi/names.rs"]
mod names;

pub(crate) use names::Names;
