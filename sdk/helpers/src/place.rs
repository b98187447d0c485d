//! Where a frame lies in a model's input.

/// Left, top, width and height in an input of that size, in pixels: all of it where the frame is stretched,
/// else in its own proportions, in the middle or in the corner. `frame` and `input` are width and height,
/// none of them 0.
#[must_use]
pub fn place(frame: [u32; 2], input: [u32; 2], is_stretched: bool, is_centered: bool) -> [u32; 4] {
    if is_stretched {
        return [0, 0, input[0], input[1]];
    }
    let share = |axis: usize| f64::from(input[axis]) / f64::from(frame[axis]);
    let scale = share(0).min(share(1));
    // A very flat frame keeps at least one row.
    let side = |axis: usize| ((f64::from(frame[axis]) * scale).round() as u32).clamp(1, input[axis]);
    let [width, height] = [side(0), side(1)];
    let [x, y] = if is_centered { [(input[0] - width) / 2, (input[1] - height) / 2] } else { [0, 0] };
    [x, y, width, height]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letterbox_keeps_proportions() {
        assert_eq!(place([640, 360], [320, 192], false, true), [0, 6, 320, 180]);
        assert_eq!(place([640, 360], [320, 192], false, false), [0, 0, 320, 180]);
        assert_eq!(place([640, 360], [320, 192], true, true), [0, 0, 320, 192]);
        assert_eq!(place([4000, 1], [64, 64], false, true), [0, 31, 64, 1]);
    }
}
