//! Adapters between the pure domain and the world: store, bus, blobs, cache, keys, traces.
//!
//! Services know the traits (of [`store`], [`bus::Bus`]) and never a database or a broker; SQL lives in
//! the store's adapters only.

pub mod backoff;
pub mod blobs;
pub mod bus;
pub mod cache;
pub mod descriptors;
mod history;
pub mod kafka;
pub mod metrics;
pub mod network;
pub mod postgres;
pub mod private;
pub mod registry;
mod row;
pub mod seal;
pub mod signing;
pub mod source_file;
pub mod space;
mod sql;
pub mod sqlite;
pub mod store;
pub mod telemetry;
pub mod turns;
