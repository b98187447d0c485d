//! Looks at the frames at which something may be seen: the others are skipped without an inference.

use framehook_sdk::{Decision, Error, Frame, Hook, PixelFormat, PreHook, Rect, Size, Stream, info};
use schemars::JsonSchema;
use serde::Deserialize;

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

struct Dark {
    config: Config,
}

impl Hook for Dark {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        info!("skips what is darker than {}", config.min_brightness);
        Ok(Self { config })
    }
}

impl PreHook for Dark {
    fn preprocess(&mut self, frame: &Frame) -> Result<Decision, Error> {
        let size = frame.meta().size;
        // Made small by the host: a few pixels are enough for a mean, and copying them costs next to nothing.
        let whole = Rect { x: 0, y: 0, width: size.width, height: size.height };
        let pixels = frame.read(whole, Size { width: 16, height: 9 }, PixelFormat::Gray)?;
        Ok(if is_dark(&pixels, self.config.min_brightness) { Decision::Skip("dark".into()) } else { Decision::Pass })
    }
}

fn is_dark(pixels: &[u8], min_brightness: u8) -> bool {
    let sum: usize = pixels.iter().map(|pixel| usize::from(*pixel)).sum();
    sum < usize::from(min_brightness) * pixels.len()
}

framehook_sdk::export!(pre: Dark);

#[cfg(test)]
mod tests {
    use framehook_sdk::testing::{self, Picture, Scene};

    use super::*;

    #[test]
    fn dark_frames_are_skipped() {
        let mut hook: Dark = testing::start("{}").unwrap();
        let mut decide = |grey| hook.preprocess(&Scene::of(Picture::plain(64, 36, [grey; 3])).frame()).unwrap();
        assert!(matches!(decide(10), Decision::Skip(_)));
        assert!(matches!(decide(100), Decision::Pass));
    }
}
