//! Counts what cannot be used, and says so once and at the end, not at each frame.

use framehook_sdk::warn;

/// Boxes that were dropped because they held NaN, infinite values, or a score outside of 0 to 1.
#[derive(Debug, Default)]
pub struct Dropped(u64);

impl Dropped {
    pub fn add(&mut self, boxes: usize) {
        if boxes > 0 && self.0 == 0 {
            warn!("dropped {boxes} boxes of a frame: they hold NaN, infinite values or scores outside of 0 to 1");
        }
        self.0 += boxes as u64;
    }

    /// At the end of the stream.
    pub fn report(&self) {
        if self.0 > 0 {
            warn!("dropped {} boxes in all: they hold NaN, infinite values or scores outside of 0 to 1", self.0);
        }
    }

    #[must_use]
    pub const fn count(&self) -> u64 {
        self.0
    }
}
