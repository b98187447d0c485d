//! What a client sends is judged before it is taken: uploads, and scenarios with the configurations in them.

pub(crate) mod canonical;
pub(crate) mod change;
pub(crate) mod hooks;
pub(crate) mod plugin;
pub(crate) mod probe;
pub(crate) mod queue;
pub(crate) mod resolve;
pub(crate) mod signature;
mod sizes;
pub(crate) mod source;
pub(crate) mod upload;
