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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_would_be_written() {
        let value = serde_json::json!({"a": [1, 2.5, "x\n"], "b": null});
        assert_eq!(json_bytes(&value), value.to_string().len());
    }

    #[test]
    fn each_plugin_takes_room_and_the_least_limit_leaves_some() {
        let mib = 1 << 20;
        assert_eq!(room_for_outputs(mib, 0), mib - 1024);
        assert_eq!(room_for_outputs(mib, 3), mib - 1024 - 3 * 6144);
        assert_eq!(room_for_outputs(1024, 1), 0);
        let of_32 = room_for_outputs(LEAST_PREDICTION, 32);
        assert!((1..LEAST_PREDICTION / 10).contains(&of_32), "{of_32}");
        assert!(room_for_outputs(MAX_PREDICTION, 2) > 200 * 1000, "a thousand detections of 200 bytes");
    }
}
