//! Whole maps, judged by RapidOCR; outputs that are none; and where a text lies on the frame.

use framehook_sdk::Element;

use super::*;

const WIDTH: usize = 320;
const HEIGHT: usize = 160;
/// Centre x and y, length, thickness, angle in radians, highest value; as in `plugins/judges/text_db.py`. The
/// last two are too faint and too small.
const BARS: [[f64; 6]; 6] = [
    [60.0, 20.0, 80.0, 10.0, 0.0, 0.95],
    [230.0, 40.0, 100.0, 12.0, 0.2, 0.9],
    [70.0, 100.0, 90.0, 14.0, -0.5, 0.85],
    [170.0, 110.0, 70.0, 9.0, 1.4, 0.99],
    [260.0, 120.0, 60.0, 16.0, 0.7, 0.4],
    [300.0, 90.0, 4.0, 3.0, 0.0, 0.9],
];

/// What `plugins/judges/text_db.py` prints: the boxes of RapidOCR 1.4.4 with OpenCV 5.0 and pyclipper 1.4,
/// and the exact means.
const JUDGED: [([Point; 4], f32); 4] = [
    ([[13.0, 8.0], [107.0, 8.0], [107.0, 32.0], [13.0, 32.0]], 0.854),
    ([[13.5, 111.1], [109.3, 58.4], [125.5, 87.9], [29.7, 140.6]], 0.7945),
    ([[151.9, 70.6], [173.0, 67.0], [187.1, 148.4], [166.0, 152.0]], 0.8791),
    ([[174.8, 14.2], [289.8, 36.3], [284.3, 64.6], [169.4, 42.5]], 0.8267),
];
/// Pixels: the judge makes whole numbers of corners before it grows a box, and after.
const TOLERANCE: f32 = 1.5;

fn map() -> Vec<f32> {
    let value = |index: usize| {
        let (x, y) = ((index % WIDTH) as f64, (index / WIDTH) as f64);
        let of_bar = |[cx, cy, length, thickness, angle, peak]: [f64; 6]| {
            let (sin, cos) = angle.sin_cos();
            let (along, across) = ((x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin);
            let inside = (length / 2.0 - along.abs()).min(thickness / 2.0 - across.abs());
            peak * (0.5 + inside / 2.0).clamp(0.0, 1.0)
        };
        BARS.map(of_bar).into_iter().fold(0.0, f64::max) as f32
    };
    (0..WIDTH * HEIGHT).map(value).collect()
}

#[test]
fn it_finds_what_another_implementation_finds() {
    let mut found = find(&map(), WIDTH, &Config::default()).unwrap();
    found.sort_by(|a, b| a.corners[0][0].total_cmp(&b.corners[0][0]));
    assert_eq!(found.len(), JUDGED.len(), "{found:?}");
    for (text, (corners, score)) in found.iter().zip(JUDGED) {
        let near = |(a, b): (&Point, &Point)| (a[0] - b[0]).abs() < TOLERANCE && (a[1] - b[1]).abs() < TOLERANCE;
        assert!(text.corners.iter().zip(&corners).all(near), "{text:?} instead of {corners:?}");
        assert!((text.score - score).abs() < 1e-3, "{text:?} instead of {score}");
    }
}

#[test]
fn settings_decide_what_is_a_text() {
    let count = |config: Config| find(&map(), WIDTH, &config).unwrap().len();
    assert_eq!(count(Config { min_score: 0.3, ..Config::default() }), 5);
    assert_eq!(count(Config { threshold: 0.96, min_score: 0.0, ..Config::default() }), 1);
    let height = |unclip| find(&map(), WIDTH, &Config { unclip, ..Config::default() }).unwrap()[0].corners[3][1];
    assert!(height(2.0) > height(1.5) + 1.0);
}

#[test]
fn what_is_no_probability_is_told() {
    let error = find(&[0.0, 3.5, 0.0, 0.0], 2, &Config::default()).unwrap_err();
    assert!(error.contains("the value 3.5") && error.contains("sigmoid"), "{error}");
    assert!(find(&[f32::NAN; 400], 20, &Config::default()).unwrap().is_empty());
}

#[test]
fn the_output_is_the_one_that_is_a_map() {
    let output =
        |name: &str, shape: &[u32]| TensorDesc { name: name.into(), shape: shape.to_vec(), element: Element::Float };
    let (a, b) = (output("a", &[1, 1, 160, 320]), output("b", &[1, 1, 80, 160]));
    let logits = output("logits", &[1, 1000]);
    assert_eq!(find_map(&[logits.clone(), a.clone()], None), Ok((1, [160, 320])));
    assert_eq!(find_map(&[a.clone(), b.clone()], Some("b")), Ok((1, [80, 160])));
    let several = find_map(&[a, b], None).unwrap_err();
    assert!(several.contains("several outputs") && several.contains("`output` says which"), "{several}");
    let none = find_map(&[logits], None).unwrap_err();
    assert!(none.contains("no output has the shape") && none.contains("`logits` [1, 1000]"), "{none}");
}

#[test]
fn a_text_is_placed_on_the_frame() {
    // A map of half the input's size; a frame of 640x360 in an input of 320x192, 6 pixels of padding above.
    let geometry = Geometry { scale_x: 0.5, scale_y: 0.5, pad_x: 0.0, pad_y: 6.0 };
    let text = Text { corners: [[9.5, 14.5], [49.5, 14.5], [49.5, 24.5], [9.5, 24.5]], score: 0.9 };
    let found = detection(&text, [2.0, 2.0], &geometry, Size { width: 640, height: 360 }).unwrap();
    let expected = [40.0 / 640.0, 48.0 / 360.0, 160.0 / 640.0, 40.0 / 360.0];
    let b = found.bbox;
    assert!([b.x, b.y, b.width, b.height].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{b:?}");
    assert!((found.polygon[2].x - 200.0 / 640.0).abs() < 1e-6 && found.polygon.len() == 4, "{found:?}");
}

#[test]
fn golden_cases_are_natively_as_under_the_engine() {
    golden::check::<TextDb>(env!("CARGO_MANIFEST_DIR"));
}
