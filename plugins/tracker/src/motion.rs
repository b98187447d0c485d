//! Where an object is and how it moves: a Kalman filter with a constant velocity, with the noise that
//! ByteTrack and DeepSORT use (Wojke et al., "Simple Online and Realtime Tracking with a Deep Association
//! Metric", 2017).
//!
//! Theirs is a filter of eight numbers: centre, aspect and height of a box, and the velocity of each. None of
//! its matrices joins two of the four, and the noise of centre and height is the same. So it is kept here as
//! what it comes to: two covariances of two numbers each. Units are heights of the frame, and steps.

use serde::{Deserialize, Serialize};

/// Steps a second: the noise below is that of a video with 30 frames a second.
const STEPS_PER_SECOND: f32 = 30.0;
/// Deviations of centre and height, and of their velocities, as shares of the object's height.
const PLACE: [f32; 2] = [1.0 / 20.0, 1.0 / 160.0];
/// Deviations of the aspect and its velocity from step to step; a shape hardly changes.
const ASPECT: [f32; 2] = [1e-2, 1e-5];
/// How exactly a detector tells the aspect.
const MEASURED_ASPECT: f32 = 1e-1;
/// How much less is known of a new object than of one that is followed, for place and velocity.
const NEW: [f32; 2] = [2.0, 10.0];

/// A box as the filter has it: centre x, centre y, width by height, height. In heights of the frame.
pub(crate) type State = [f32; 4];
const WIDTH_BY_HEIGHT: usize = 2;
const HEIGHT: usize = 3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Motion {
    state: State,
    /// A step.
    velocity: State,
    /// One for each of the two coordinates of the centre, and for the height.
    place: Covariance,
    aspect: Covariance,
}

impl Motion {
    pub(crate) fn new(measured: State) -> Self {
        let h = measured[HEIGHT];
        Self {
            state: measured,
            velocity: [0.0; 4],
            place: Covariance::of([NEW[0] * PLACE[0] * h, NEW[1] * PLACE[1] * h]),
            aspect: Covariance::of(ASPECT),
        }
    }

    /// Goes on for so many seconds. Of an object that nobody sees, only the centre moves.
    pub(crate) fn advance(&mut self, seconds: f32, is_seen: bool) {
        let steps = seconds * STEPS_PER_SECOND;
        if !is_seen {
            self.velocity[HEIGHT] = 0.0;
        }
        let h = self.state[HEIGHT];
        self.place.advance(steps, PLACE.map(|share| share * h));
        self.aspect.advance(steps, ASPECT);
        for (value, velocity) in self.state.iter_mut().zip(self.velocity) {
            *value += velocity * steps;
        }
        // Far ahead, a shrinking object would turn inside out.
        for side in [WIDTH_BY_HEIGHT, HEIGHT] {
            self.state[side] = self.state[side].max(SMALLEST);
        }
    }

    pub(crate) fn measure(&mut self, measured: State) {
        let place = self.place.measure(PLACE[0] * self.state[HEIGHT]);
        let aspect = self.aspect.measure(MEASURED_ASPECT);
        for (number, value) in measured.into_iter().enumerate() {
            let [gain, of_velocity] = if number == WIDTH_BY_HEIGHT { aspect } else { place };
            let surprise = value - self.state[number];
            self.state[number] += gain * surprise;
            self.velocity[number] += of_velocity * surprise;
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }
}

/// A hundredth of a pixel in a picture of 1,000 rows: less is nothing.
const SMALLEST: f32 = 1e-5;

/// That of a number and its velocity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Covariance {
    value: f32,
    both: f32,
    velocity: f32,
}

impl Covariance {
    fn of([value, velocity]: [f32; 2]) -> Self {
        Self { value: value * value, both: 0.0, velocity: velocity * velocity }
    }

    fn advance(&mut self, steps: f32, noise: [f32; 2]) {
        let [value, velocity] = noise.map(|deviation| deviation * deviation * steps);
        self.value += 2.0 * steps * self.both + steps * steps * self.velocity + value;
        self.both += steps * self.velocity;
        self.velocity += velocity;
    }

    /// Takes in a measurement of that deviation; how far the number and its velocity follow it.
    fn measure(&mut self, deviation: f32) -> [f32; 2] {
        let whole = self.value + deviation * deviation;
        let gains = [self.value / whole, self.both / whole];
        self.velocity -= gains[1] * self.both;
        self.both *= 1.0 - gains[0];
        self.value *= 1.0 - gains[0];
        gains
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter of eight numbers with whole matrices says, which ByteTrack in `supervision` 0.26.1
    /// has. `plugins/judges/tracker.py` prints it.
    #[test]
    fn it_is_the_filter_of_eight_numbers() {
        let mut motion = Motion::new([0.5, 0.5, 0.4, 0.2]);
        for measured in [[0.51, 0.5, 0.42, 0.2], [0.53, 0.49, 0.4, 0.21], [0.54, 0.49, 0.41, 0.2]] {
            motion.advance(1.0 / STEPS_PER_SECOND, true);
            motion.measure(measured);
        }
        for (found, expected) in motion.state.iter().zip(JUDGED[0]).chain(motion.velocity.iter().zip(JUDGED[1])) {
            assert!((found - expected).abs() < 1e-5, "{motion:?}");
        }
    }

    const JUDGED: [State; 2] = [[0.5384944, 0.4897433, 0.4007398, 0.2027772], [0.0097893, -0.002964, 0.0, 0.0004234]];

    #[test]
    fn several_steps_at_once_lead_to_the_same_place() {
        let mut once = Motion::new([0.5, 0.5, 0.4, 0.2]);
        once.velocity = [0.01, -0.02, 0.0, 0.001];
        let mut thrice = once.clone();
        once.advance(0.1, true);
        (0..3).for_each(|_| thrice.advance(1.0 / STEPS_PER_SECOND, true));
        assert!(once.state.iter().zip(thrice.state).all(|(a, b)| (a - b).abs() < 1e-6), "{once:?} {thrice:?}");
        assert!(once.place.value > Motion::new([0.5, 0.5, 0.4, 0.2]).place.value, "less is known of the future");
    }

    #[test]
    fn a_shrinking_object_stays_one() {
        let mut motion = Motion::new([0.5, 0.5, 0.4, 0.2]);
        motion.velocity[HEIGHT] = -0.1;
        motion.advance(10.0, true);
        assert!(motion.state[HEIGHT] > 0.0);
        motion.measure([0.5, 0.5, 0.4, 0.2]);
        assert!(motion.state.iter().all(|n| n.is_finite()), "{motion:?}");
    }
}
