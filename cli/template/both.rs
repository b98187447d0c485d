//! Skips dark frames without an inference, and says when the light goes off and on. A scenario lists it
//! twice: under `pre` and under `post`. Each is an instance of its own, so what one knows the other has to be
//! told: here by the reason for which a frame was skipped.

use framehook_sdk::{
    Decision, Detection, Error, Event, Frame, FrameMeta, Hook, Inference, Outcome, PixelFormat, PostHook, PreHook,
    Rect, Size, Stream,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Why dark frames are skipped.
const DARK: &str = "dark";

/// What users may configure. Its JSON Schema is published with the plugin.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Frames are skipped whose mean brightness is lower, from 0 (black) to 255 (white).
    #[serde(default = "default_brightness")]
    min_brightness: u8,
}

fn default_brightness() -> u8 {
    20
}

struct Light {
    config: Config,
    is_on: bool,
}

impl Hook for Light {
    type Config = Config;

    /// `skipped` below is called.
    const WANTS_SKIPPED: bool = true;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        Ok(Self { config, is_on: true })
    }
}

impl PreHook for Light {
    fn preprocess(&mut self, frame: &Frame) -> Result<Decision, Error> {
        let size = frame.meta().size;
        // Made small by the host: a few pixels are enough for a mean, and copying them costs next to nothing.
        let whole = Rect { x: 0, y: 0, width: size.width, height: size.height };
        let pixels = frame.read(whole, Size { width: 16, height: 9 }, PixelFormat::Gray)?;
        Ok(if is_dark(&pixels, self.config.min_brightness) { Decision::Skip(DARK.into()) } else { Decision::Pass })
    }
}

impl PostHook for Light {
    fn postprocess(&mut self, _: &Inference, detections: Vec<Detection>) -> Result<Outcome, Error> {
        Ok(Outcome { detections, events: self.turned(true) })
    }

    fn skipped(&mut self, _: FrameMeta, reason: &str, detections: Vec<Detection>) -> Result<Outcome, Error> {
        let events = if reason == DARK { self.turned(false) } else { Vec::new() };
        Ok(Outcome { detections, events })
    }
}

impl Light {
    /// The event, if it was not so before.
    fn turned(&mut self, is_on: bool) -> Vec<Event> {
        if std::mem::replace(&mut self.is_on, is_on) == is_on {
            return Vec::new();
        }
        vec![Event::new(if is_on { "light_on" } else { "light_off" })]
    }
}

fn is_dark(pixels: &[u8], min_brightness: u8) -> bool {
    let sum: usize = pixels.iter().map(|pixel| usize::from(*pixel)).sum();
    sum < usize::from(min_brightness) * pixels.len()
}

framehook_sdk::export!(pre + post: Light);

#[cfg(test)]
mod tests {
    use framehook_sdk::testing::{self, Picture, Scene};

    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let mut hook: Light = testing::start("{}").unwrap();
        let scene = Scene::new(64, 36);
        let kinds = |outcome: Outcome| outcome.events.into_iter().map(|event| event.kind).collect::<Vec<_>>();
        assert!(kinds(hook.postprocess(&scene.inference(), Vec::new()).unwrap()).is_empty());
        let dark = |hook: &mut Light| hook.skipped(scene.frame().meta(), DARK, Vec::new()).unwrap();
        assert_eq!(kinds(dark(&mut hook)), ["light_off"]);
        assert!(kinds(dark(&mut hook)).is_empty());
        assert_eq!(kinds(hook.postprocess(&scene.inference(), Vec::new()).unwrap()), ["light_on"]);
    }

    #[test]
    fn dark_frames_are_skipped() {
        let mut hook: Light = testing::start("{}").unwrap();
        let mut decide = |grey| hook.preprocess(&Scene::of(Picture::plain(64, 36, [grey; 3])).frame()).unwrap();
        assert!(matches!(decide(10), Decision::Skip(_)));
        assert!(matches!(decide(100), Decision::Pass));
    }
}
