//! Skips frames on which nothing moves: compares a small grey picture of the frame with that of the
//! last frame that passed, so that slow motion adds up instead of staying below the threshold.

use framehook_sdk::{ConfigProblem, Decision, Error, Frame, Hook, PixelFormat, PreHook, Rect, Size, Stream, state};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The share of the picture that must have changed, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    threshold: f64,
    /// How much a pixel must change to count, 1 to 255.
    #[schemars(range(min = 1, max = 255))]
    pixel_difference: u8,
    /// After this many skipped frames one passes in any case.
    max_skip: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // 9 of the 2,304 pixels: an object of 2 % of the picture's width and height moving by its own
            // size.
            threshold: 0.004,
            // Above the noise of a compressed video, below the contrast of an object.
            pixel_difference: 12,
            // A second at 25 frames a second.
            max_skip: 25,
        }
    }
}

/// Small, so that noise averages out and a comparison costs nothing.
const THUMBNAIL: Size = Size { width: 64, height: 36 };

struct MotionGate {
    config: Config,
    /// Pixels of the last frame that passed.
    reference: Vec<u8>,
    skipped: u32,
}

/// Their names among what the hook keeps.
const REFERENCE: &str = "reference";
const SKIPPED: &str = "skipped";

impl Hook for MotionGate {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        let (reference, skipped) = (state::load(REFERENCE), state::load(SKIPPED));
        Ok(Self { config, reference: reference.unwrap_or_default(), skipped: skipped.unwrap_or_default() })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let checks = [
            ((0.0..=1.0).contains(&config.threshold), "/threshold", "must be 0 to 1"),
            (config.pixel_difference > 0, "/pixel_difference", "must be 1 to 255"),
        ];
        let problem =
            |(_, path, message): (bool, &str, &str)| ConfigProblem { path: path.into(), message: message.into() };
        checks.into_iter().filter(|(good, ..)| !good).map(problem).collect()
    }
}

impl PreHook for MotionGate {
    fn preprocess(&mut self, frame: &Frame) -> Result<Decision, Error> {
        let size = frame.meta().size;
        let whole = Rect { x: 0, y: 0, width: size.width, height: size.height };
        let picture = frame.read(whole, THUMBNAIL, PixelFormat::Gray)?;
        let decision = self.decide(picture);
        // Two, because only one of them is small and changes often.
        state::save(SKIPPED, &self.skipped)?;
        state::save(REFERENCE, &self.reference)?;
        Ok(decision)
    }
}

impl MotionGate {
    fn decide(&mut self, picture: Vec<u8>) -> Decision {
        let changed = changed_share(&self.reference, &picture, self.config.pixel_difference);
        if changed < self.config.threshold && self.skipped < self.config.max_skip {
            self.skipped += 1;
            return Decision::Skip("nothing moves".into());
        }
        self.skipped = 0;
        self.reference = picture;
        Decision::Pass
    }
}

/// Share of the pixels that differ by at least `difference`; 1 if there is nothing to compare with.
fn changed_share(a: &[u8], b: &[u8], difference: u8) -> f64 {
    if a.len() != b.len() || a.is_empty() {
        return 1.0;
    }
    let changed = a.iter().zip(b).filter(|(a, b)| a.abs_diff(**b) >= difference).count();
    changed as f64 / a.len() as f64
}

framehook_sdk::export!(pre: MotionGate);

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(max_skip: u32) -> MotionGate {
        let config = Config { threshold: 0.1, pixel_difference: 10, max_skip };
        MotionGate { config, reference: Vec::new(), skipped: 0 }
    }

    fn passes(gate: &mut MotionGate, level: u8) -> bool {
        matches!(gate.decide(vec![level; 100]), Decision::Pass)
    }

    #[test]
    fn still_frames_are_skipped_and_motion_passes() {
        let mut gate = gate(100);
        assert!(passes(&mut gate, 50));
        assert!(!passes(&mut gate, 50));
        assert!(!passes(&mut gate, 59));
        // Against the frame that passed, not against the one before.
        assert!(passes(&mut gate, 60));
    }

    #[test]
    fn a_heartbeat_passes() {
        let mut gate = gate(2);
        let pattern: Vec<_> = (0..7).map(|_| passes(&mut gate, 0)).collect();
        assert_eq!(pattern, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn small_changes_do_not_count() {
        let (a, mut b) = (vec![0; 100], vec![0; 100]);
        b[..9].fill(10);
        assert!((changed_share(&a, &b, 10) - 0.09).abs() < 1e-6);
        assert_eq!(changed_share(&a, &b, 11), 0.0);
        assert_eq!(changed_share(&[], &b, 1), 1.0);
    }
}
