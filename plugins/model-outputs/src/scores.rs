//! Scores: from what a model gives to a number from 0 to 1.

/// How far a score may lie outside of 0 to 1 by rounding: twice the step of a quantised one.
const ROUNDING: f32 = 0.008;

/// A score as it leaves a plugin. `None` for what is none.
#[must_use]
pub fn score(value: f32) -> Option<f32> {
    is_score(value).then(|| value.clamp(0.0, 1.0))
}

/// Whether a value can be a score.
#[must_use]
pub fn is_score(value: f32) -> bool {
    (-ROUNDING..=1.0 + ROUNDING).contains(&value)
}

#[must_use]
pub fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// The logit whose sigmoid is `score`: the threshold before the sigmoid.
#[must_use]
pub fn logit(score: f32) -> f32 {
    (score / (1.0 - score)).ln()
}

/// Softmax of one row; NaN where the row has no largest finite value.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<_> = logits.iter().map(|l| (l - highest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

/// The best of a row: its index and value. The first of equals; a value that is not a number is
/// none.
#[must_use]
pub fn best(scores: &[f32]) -> Option<(usize, f32)> {
    let numbers = scores.iter().copied().enumerate().filter(|(_, s)| !s.is_nan());
    numbers.fold(None, |best, (i, s)| if best.is_none_or(|(_, high)| s > high) { Some((i, s)) } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scores_pass() {
        for (value, expected) in [(0.0, Some(0.0)), (0.5, Some(0.5)), (1.004, Some(1.0)), (-0.004, Some(0.0))] {
            assert_eq!(score(value), expected, "{value}");
        }
        for none in [1.1, -0.1, 206.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(score(none), None, "{none}");
        }
    }

    #[test]
    fn activations_are_the_textbook_ones() {
        assert!((sigmoid(0.0) - 0.5).abs() < 1e-7 && sigmoid(-200.0) == 0.0 && sigmoid(200.0) == 1.0);
        assert!((logit(sigmoid(1.5)) - 1.5).abs() < 1e-5);
        assert_eq!((logit(0.0), logit(1.0)), (f32::NEG_INFINITY, f32::INFINITY));
        // NumPy: np.exp(x) / np.exp(x).sum() of [1, 2, 3].
        let expected = [0.090_030_57, 0.244_728_47, 0.665_240_96];
        assert!(softmax(&[1.0, 2.0, 3.0]).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(softmax(&[1000.0, 1001.0]).iter().all(|s| s.is_finite()));
        assert!(softmax(&[f32::INFINITY, 0.0]).iter().any(|s| s.is_nan()));
    }

    #[test]
    fn the_best_is_the_first_of_equals() {
        assert_eq!(best(&[0.1, f32::NAN, 0.7, 0.7]), Some((2, 0.7)));
        assert_eq!(best(&[f32::NAN]), None);
        assert_eq!(best(&[]), None);
    }
}
