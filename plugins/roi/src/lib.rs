//! Looks at some of the frames only, and at a part of each.
//!
//! The model's input is made of the part alone, natively, so that small things in it are large for the model.
//! Boxes lie in the whole frame all the same: the geometry of the part goes with the input.

use framehook_sdk::{
    ConfigProblem, Decision, Error, Frame, FrameMeta, Hook, PreHook, Prepared, Rect, Size, Stream, state,
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Left, top, width and height, 0 to 1 of the frame. Without it: the whole frame.
    region: Option<[f64; 4]>,
    /// One frame of so many is looked at: those whose number in the source is a multiple of it.
    #[schemars(range(min = 1))]
    every: Option<u64>,
    /// So many frames are looked at in a second of the stream, at most.
    #[schemars(range(min = 0.0, max = 1000.0))]
    fps: Option<f64>,
}

struct Roi {
    config: Config,
    /// Number of the last interval of which a frame was looked at, where there are intervals.
    interval: Option<i64>,
}

/// Its name among what the hook keeps.
const INTERVAL: &str = "interval";

impl Hook for Roi {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        Ok(Self { config, interval: state::load(INTERVAL) })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let is_region = |[x, y, width, height]: [f64; 4]| {
            let is_inside = |from: f64, length: f64| from >= 0.0 && length > 0.0 && from + length <= 1.0 + ROUNDING;
            is_inside(x, width) && is_inside(y, height)
        };
        let is_nothing = config.region.is_none() && config.every.is_none() && config.fps.is_none();
        let checks = [
            (!is_nothing, "", "has none of `region`, `every` and `fps`, so there is nothing to do"),
            (
                config.region.is_none_or(is_region),
                "/region",
                "must be left, top, width and height of a part of the frame, as shares of it",
            ),
            (config.every != Some(0), "/every", "must be 1 or more"),
            (config.fps.is_none_or(|fps| fps > 0.0 && fps <= 1000.0), "/fps", "must be above 0, and 1000 at most"),
            (config.every.is_none() || config.fps.is_none(), "/fps", "cannot be set together with `every`"),
        ];
        let problem =
            |(_, path, message): (bool, &str, &str)| ConfigProblem { path: path.into(), message: message.into() };
        checks.into_iter().filter(|(good, ..)| !good).map(problem).collect()
    }
}

/// 0.7 + 0.3 may be a little more than 1.
const ROUNDING: f64 = 1e-9;

impl PreHook for Roi {
    fn preprocess(&mut self, frame: &Frame) -> Result<Decision, Error> {
        let meta = frame.meta();
        if !self.is_asked_for(&meta) {
            return Ok(Decision::Skip("not sampled".into()));
        }
        if let Some(interval) = self.interval {
            state::save(INTERVAL, &interval)?;
        }
        let Some(region) = self.config.region else { return Ok(Decision::Pass) };
        let (tensor, geometry) = frame.to_tensor(pixels(region, meta.size))?;
        Ok(Decision::Infer(Prepared { tensor, geometry }))
    }
}

impl Roi {
    /// The first frame of each interval of the stream's time is: gaps and uneven times do no harm.
    fn is_asked_for(&mut self, frame: &FrameMeta) -> bool {
        if let Some(every) = self.config.every {
            return frame.sequence.is_multiple_of(every);
        }
        let Some(fps) = self.config.fps else { return true };
        let interval = Some((frame.pts_us as f64 / 1e6 * fps + ROUNDING).floor() as i64);
        std::mem::replace(&mut self.interval, interval) != interval
    }
}

/// All pixels that the region touches, at least one.
fn pixels([x, y, width, height]: [f64; 4], frame: Size) -> Rect {
    let axis = |from: f64, length: f64, side: u32| {
        let first = ((from * f64::from(side) + ROUNDING).floor() as u32).min(side.saturating_sub(1));
        let end = (((from + length) * f64::from(side) - ROUNDING).ceil() as u32).clamp(first + 1, side.max(1));
        (first, end - first)
    };
    let ((x, width), (y, height)) = (axis(x, width, frame.width), axis(y, height, frame.height));
    Rect { x, y, width, height }
}

framehook_sdk::export!(pre: Roi);

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width: 640, height: 360 };

    /// The times, in milliseconds, of the frames that are looked at.
    fn asked_for(config: Config, times_ms: &[i64]) -> Vec<i64> {
        let mut roi = Roi { config, interval: None };
        let frames = (0..).zip(times_ms).map(|(sequence, ms)| FrameMeta { sequence, pts_us: ms * 1000, size: SIZE });
        frames.filter(|frame| roi.is_asked_for(frame)).map(|frame| frame.pts_us / 1000).collect()
    }

    #[test]
    fn frames_are_taken_by_number_or_by_time() {
        let even: Vec<_> = (0..25).map(|n| n * 40).collect();
        assert_eq!(asked_for(Config { every: Some(10), ..Config::default() }, &even), [0, 400, 800]);
        assert_eq!(asked_for(Config { fps: Some(5.0), ..Config::default() }, &even), [0, 200, 400, 600, 800]);
        assert_eq!(asked_for(Config { fps: Some(100.0), ..Config::default() }, &even), even);
        assert_eq!(asked_for(Config::default(), &even), even);
        // A gap, an uneven rate, and a time that goes back.
        let uneven = [0, 30, 90, 110, 150, 900, 910, 1010, 20];
        assert_eq!(asked_for(Config { fps: Some(10.0), ..Config::default() }, &uneven), [0, 110, 900, 1010, 20]);
    }

    #[test]
    fn a_region_is_of_whole_pixels() {
        for (region, expected) in [
            ([0.0, 0.0, 1.0, 1.0], [0, 0, 640, 360]),
            ([0.5, 0.25, 0.5, 0.5], [320, 90, 320, 180]),
            ([0.7, 0.7, 0.3, 0.3], [448, 252, 192, 108]),
            ([0.1001, 0.0, 0.1, 0.001], [64, 0, 65, 1]),
            ([0.9999, 0.9999, 0.0001, 0.0001], [639, 359, 1, 1]),
        ] {
            let Rect { x, y, width, height } = pixels(region, SIZE);
            assert_eq!([x, y, width, height], expected, "{region:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let path = |config: Config| Roi::check(&config).iter().map(|p| p.path.clone()).collect::<Vec<_>>().join(" ");
        let region = |region| Config { region: Some(region), ..Config::default() };
        assert_eq!(path(Config { every: Some(2), fps: Some(1.0), region: None }), "/fps");
        assert_eq!(path(Config { every: Some(0), ..Config::default() }), "/every");
        assert_eq!(path(Config { fps: Some(f64::NAN), ..Config::default() }), "/fps");
        assert_eq!(path(region([0.7, 0.0, 0.4, 1.0])), "/region");
        assert_eq!(path(region([0.7, 0.7, 0.3, 0.3])), "");
        assert_eq!(Roi::check(&Config::default()).len(), 1);
    }
}
