//! What measures how prompt something is, or needs the whole machine: beside others it would measure those.
//!
//! The harness runs tests in the order of their names, so these come first, one after the other, and nobody
//! waits for the machine later.

mod attacks;
mod crowd;
mod promptness;
