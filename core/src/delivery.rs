//! What became of every frame of a scenario, as a sum that anybody can check.
//!
//! Invariant: `decoded` never comes from counting rows. It is the number of the last frame as runners report
//! it, or as it stands in the furthest record that arrived, where that was faster; so a frame that was lost
//! on the way is missing on the other side, and one that was counted twice is too much there.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{message::Progress, prediction::Position};

/// `decoded` = `stored` + `skipped` + `left_out` + each of `dropped` + `inbox.frames`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// Frames of the source, from its first on, that were decoded and given to the bus by whatever
    /// deployment; a frame that was published again, or computed again by a later deployment, counts once.
    pub decoded: u64,
    /// Predictions with an inference.
    pub stored: u64,
    /// Predictions without one: a hook skipped the frame, or failed on it.
    pub skipped: u64,
    /// Frames of the source that the scenario did not ask for (`frames`, `range`): up to the last
    /// prediction, and at the end of the source those behind it.
    pub left_out: u64,
    pub dropped: Drops,
    /// Frames of the source that were damaged, as its decoder says; no part of the sum. Those that it could
    /// not decode at all have no number, and are in no other count.
    pub damaged: u64,
    pub inbox: InboxLag,
    pub outbox: OutboxLag,
}

/// Frames without a prediction, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drops {
    /// The record was not readable; it is in the dead letters, and no readable one followed.
    pub unreadable: u64,
}

/// On the way from the bus to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InboxLag {
    /// Frames that are published and not stored yet.
    pub frames: u64,
    /// Unreadable records with the key of this scenario that do not say of which frame they are: no runner
    /// writes such.
    pub unreadable: u64,
}

/// On the way from the store to the bus: wake-ups and orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutboxLag {
    pub messages: u64,
    /// Null if there is none.
    pub oldest_age_ms: Option<u64>,
}

impl Drops {
    pub const fn total(self) -> u64 {
        self.unreadable
    }
}

impl Delivery {
    /// With `decoded` and the inbox's frames from what the runners `reported` in each deployment, and from
    /// the furthest frame that `arrived`, readable or not.
    #[must_use]
    pub fn witnessed(self, arrived: Option<Position>, reported: impl IntoIterator<Item = Progress>) -> Self {
        let (mut damaged, mut published, mut behind) = (0, arrived, 0);
        for progress in reported {
            damaged += progress.damaged;
            published = published.max(progress.published);
            // Only the deployment that came to the end has some.
            behind = behind.max(progress.left_out);
        }
        let decoded = published.map_or(0, |last| last.frame + 1) + behind;
        let left_out = self.left_out + behind;
        let frames = decoded.saturating_sub(self.stored + self.skipped + left_out + self.dropped.total());
        Self { decoded, damaged, left_out, inbox: InboxLag { frames, ..self.inbox }, ..self }
    }
}
