//! How large a row may be, and how large a thing is as JSON.
//!
//! Invariant: a row whose detections and events are within [`room_for_outputs`] is within the
//! limit, whatever its hooks say of their failures.

use std::io;

use serde::Serialize;

/// Largest prediction, unless the operator says otherwise: a thousand detections with labels and
/// ten keypoints each.
pub const MAX_PREDICTION: usize = 256 << 10;

/// Bytes of a plugin's message about its failure.
pub const MAX_REASON: usize = 1100;

/// What a row has besides detections, events and plugins: identities, times, the model's digest.
const FIXED: usize = 1 << 10;

/// What a row has for each plugin of the scenario: its identity, and two failures (on the frame, and
/// at the end of the stream), each with a message of [`MAX_REASON`] bytes that JSON may double.
const PER_PLUGIN: usize = 6 << 10;

/// Smallest limit that leaves room for something in a scenario of 16 hooks before and 16 behind the model.
pub const LEAST_PREDICTION: usize = 200 << 10;

/// Bytes of JSON that the detections and events of a frame may take.
pub const fn room_for_outputs(max_prediction: usize, plugins: usize) -> usize {
    max_prediction.saturating_sub(FIXED + plugins * PER_PLUGIN)
}

/// Bytes of the value as JSON, which is not kept.
pub fn json_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written as JSON fits nowhere.
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}
