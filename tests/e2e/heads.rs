//! The stock plugins that read a model's outputs, over HTTP: models of the kinds that people have,
//! each with the same two objects, whose places, classes and scores are known beforehand.

use framehook_core::prediction::{Detection, Mask};
use framehook_tests::{
    asset,
    onnx::{FLOAT, INT, attribute, body, bytes, floats, model, node, number, value},
    platform::{Platform, patient},
    plugin,
};
use serde_json::{Value, json};

/// The input of the models.
const WIDTH: usize = 320;
const HEIGHT: usize = 240;
/// Left, top, width and height in pixels of the input, and the class.
const OBJECTS: [([f32; 4], usize); 2] = [([100.0, 50.0, 120.0, 80.0], 2), ([15.0, 155.0, 50.0, 70.0], 0)];
const SCORE: f32 = 0.53;
/// Frames of the clip that are looked at, and microseconds until the next one.
const FRAMES: u64 = 2;
const UNTIL_US: u64 = 80_000;
/// More than is decoded before a hook refuses the first frame.
const LONG_US: u64 = 4_000_000;

/// A name, a shape and the elements.
type Output = (&'static str, Vec<u64>, Vec<f32>);

struct Case {
    name: &'static str,
    outputs: Vec<Output>,
    hook: Value,
    /// Class, score, left, top, width and height, and how many points: keypoints, or corners of its outline.
    found: Vec<(u32, f32, [f32; 4], usize)>,
}

/// Whatever the picture, each output is what is given here.
fn constant(outputs: &[Output]) -> Vec<u8> {
    let scalar = attribute("keepdims", INT, &number(3, 0));
    let mut nodes =
        vec![node("ReduceMean", &["x"], &["mean"], &[scalar]), node("Mul", &["mean", "none"], &["zero"], &[])];
    let mut constants = bytes(5, &floats("none", &[1], &[0.0]));
    for (name, shape, data) in outputs {
        let constant = format!("{name}_constant");
        constants.extend(bytes(5, &floats(&constant, shape, data)));
        nodes.push(node("Add", &[&constant, "zero"], &[name], &[]));
    }
    let input = value("x", FLOAT, Some(&[1, 3, HEIGHT as u64, WIDTH as u64]));
    let outputs: Vec<_> = outputs.iter().map(|(name, ..)| value(name, FLOAT, None)).collect();
    model(&[body(&nodes, &[input], &outputs), constants].concat(), &[])
}

fn centre([left, top, width, height]: [f32; 4]) -> [f32; 4] {
    [left + width / 2.0, top + height / 2.0, width, height]
}

fn corners([left, top, width, height]: [f32; 4]) -> [f32; 4] {
    [left, top, left + width, top + height]
}

fn shares([x, y, width, height]: [f32; 4]) -> [f32; 4] {
    [x / WIDTH as f32, y / HEIGHT as f32, width / WIDTH as f32, height / HEIGHT as f32]
}

/// Small boxes in the corner, of which the first are the objects. `score` puts an object's class
/// into its row.
fn grid(boxes: usize, width: usize, score: impl Fn(&mut [f32], usize)) -> Vec<Vec<f32>> {
    let mut rows = vec![[vec![5.0, 5.0, 4.0, 4.0], vec![0.0; width - 4]].concat(); boxes];
    for (row, (object, class)) in rows.iter_mut().zip(OBJECTS) {
        row[..4].copy_from_slice(&centre(object));
        score(row, class);
    }
    rows
}

fn rows(name: &'static str, rows: &[Vec<f32>]) -> Output {
    (name, vec![1, rows.len() as u64, rows[0].len() as u64], rows.concat())
}

fn columns(name: &'static str, rows: &[Vec<f32>]) -> Output {
    let data = (0..rows[0].len()).flat_map(|n| rows.iter().map(move |row| row[n])).collect();
    (name, vec![1, rows[0].len() as u64, rows.len() as u64], data)
}

fn objects(scores: [f32; 2]) -> Vec<(u32, f32, [f32; 4], usize)> {
    OBJECTS.iter().zip(scores).map(|((bbox, class), score)| (*class as u32, score, *bbox, 0)).collect()
}

fn yolo_cases() -> Vec<Case> {
    let yolo =
        |name, output: Output, found: Vec<_>| Case { name, outputs: vec![output], hook: json!({"use": "yolo"}), found };
    let end2end: Vec<_> = (0..300)
        .map(|i| match OBJECTS.get(i) {
            Some((object, class)) => [&corners(*object)[..], &[SCORE, *class as f32]].concat(),
            None => vec![0.0; 6],
        })
        .collect();
    let mut pose = grid(1500, 56, |row, class| row[4] = if class == 2 { SCORE } else { 0.0 });
    for k in 0..17 {
        pose[0][5 + 3 * k..][..3].copy_from_slice(&[110.0 + 6.0 * k as f32, 60.0 + 4.0 * k as f32, 0.9]);
    }
    let many = grid(525, 605, |row, class| row[4 + 250 * class] = SCORE);
    let mut bad = grid(1500, 7, |row, class| row[4 + class] = SCORE);
    (bad[5][4], bad[7][0], bad[7][5]) = (f32::NAN, f32::NAN, 0.9);
    bad[9].copy_from_slice(&[200.0, 200.0, 20.0, 20.0, f32::INFINITY, 0.0, 0.0]);
    let v5 = grid(1500, 8, |row, class| (row[4], row[5 + class]) = (0.8, SCORE / 0.8));
    let mut obb = grid(1500, 8, |row, class| row[4 + class] = SCORE);
    obb.iter_mut().skip(2).for_each(|row| row[7] = -0.5);
    let with_class = |class| vec![(class, SCORE, OBJECTS[0].0, 0), (0, SCORE, OBJECTS[1].0, 0)];
    let with_corners = objects([SCORE; 2]).into_iter().map(|(class, score, bbox, _)| (class, score, bbox, 4)).collect();
    vec![
        yolo("end2end", rows("output0", &end2end), objects([SCORE; 2])),
        yolo("pose", columns("output0", &pose), vec![(0, SCORE, OBJECTS[0].0, 17)]),
        yolo("more classes than boxes", columns("output0", &many), with_class(500)),
        yolo("NaN and infinite values", columns("output0", &bad), objects([SCORE; 2])),
        yolo("v5", rows("output0", &v5), objects([SCORE; 2])),
        yolo("obb", columns("output0", &obb), with_corners),
    ]
}

/// A head whose second prototype is above 0 in a circle, and whose first is 1.
fn segmented() -> Vec<Output> {
    const CELLS: [usize; 2] = [60, 80];
    let mut head = grid(1500, 39, |row, class| row[4 + class] = SCORE);
    // The first object is the circle in it, the second is all of its box.
    (head[0][8], head[1][7]) = (1.0, 1.0);
    let [rows, columns] = CELLS;
    let mut prototypes = vec![0.0; 32 * rows * columns];
    let [x, y, ..] = centre(OBJECTS[0].0);
    for cell in 0..rows * columns {
        let middle = |at: usize| 4.0 * at as f32 + 2.0;
        prototypes[cell] = 1.0;
        prototypes[rows * columns + cell] = RADIUS - (middle(cell % columns) - x).hypot(middle(cell / columns) - y);
    }
    vec![self::columns("output0", &head), ("output1", vec![1, 32, rows as u64, columns as u64], prototypes)]
}

/// Pixels of the input.
const RADIUS: f32 = 30.0;

#[test]
fn a_segmentation_head_gives_masks() {
    let platform = start();
    let masks = |config: Value, number: usize| {
        let id = post(&platform, number, &segmented(), &json!({"use": "yolo", "config": config}), UNTIL_US);
        let rows = platform.completed(&id, FRAMES);
        check("seg", &rows[0].detections, &objects([SCORE; 2]));
        rows[0].detections.iter().map(|detection| detection.mask.clone()).collect::<Vec<_>>()
    };
    let [Some(circle), Some(whole)] = &masks(json!({"labels": ["a", "b", "c"]}), 0)[..] else { panic!() };
    let inside = |mask: &Mask| mask.runs.iter().skip(1).step_by(2).sum::<u32>();
    // Cells of 4 x 4 pixels of the input.
    assert_eq!(circle.grid, [30, 20]);
    let area = inside(circle) as f32 * 16.0;
    let expected = std::f32::consts::PI * RADIUS * RADIUS;
    assert!((area - expected).abs() < expected * 0.05, "{area} {expected}");
    assert_eq!(inside(whole), whole.grid.iter().product::<u32>());
    assert_eq!(masks(json!({"labels": ["a", "b", "c"], "masks": false}), 1), [None, None]);
}

fn other_cases() -> Vec<Case> {
    let many = |head: &[[f32; 4]; 2], rest: [f32; 4]| [head.concat(), rest.repeat(98)].concat();
    let boxes = OBJECTS.map(|(object, _)| object);
    // NumPy: exp(5) / (exp(5) + exp(1) + 2) = 0.96919, exp(4) / (exp(4) + exp(2) + 2) = 0.85327.
    let logits = many(&[[0.0, 0.0, 5.0, 1.0], [4.0, 0.0, 0.0, 2.0]], [0.0, 0.0, 0.0, 6.0]);
    let pixels = [OBJECTS[0].0, OBJECTS[1].0].map(|[x, y, w, h]| [x * 2.0, y * 1.5, (x + w) * 2.0, (y + h) * 1.5]);
    vec![
        Case {
            name: "boxes and scores",
            outputs: vec![
                ("scores", vec![1, 2, 3], vec![0.1, 0.2, SCORE, SCORE, 0.2, 0.1]),
                ("boxes", vec![1, 2, 4], boxes.map(|b| shares(corners(b))).concat()),
            ],
            hook: json!({"use": "boxes-scores", "config": {"format": "xyxy", "units": "normalised"}}),
            found: objects([SCORE; 2]),
        },
        Case {
            name: "classes of the whole frame",
            // NumPy: softmax of these is 0.09003, 0.24473, 0.66524.
            outputs: vec![("logits", vec![1, 3], vec![1.0, 2.0, 3.0])],
            hook: json!({"use": "classify", "config": {"top_k": 2}}),
            found: vec![(2, 0.66524, [0.0, 0.0, 320.0, 240.0], 0), (1, 0.24473, [0.0, 0.0, 320.0, 240.0], 0)],
        },
        Case {
            name: "logits and boxes",
            outputs: vec![
                ("logits", vec![1, 100, 4], logits),
                ("pred_boxes", vec![1, 100, 4], many(&boxes.map(|b| shares(centre(b))), [0.5, 0.5, 0.1, 0.1])),
            ],
            hook: json!({"use": "detr"}),
            found: objects([0.96919, 0.85327]),
        },
        Case {
            name: "class ids, boxes on the frame and scores",
            // The frame has 640x360 pixels.
            outputs: vec![
                ("labels", vec![1, 2], vec![2.0, 0.0]),
                ("boxes", vec![1, 2, 4], pixels.concat()),
                ("scores", vec![1, 2], vec![SCORE, SCORE]),
            ],
            hook: json!({"use": "detr"}),
            found: objects([SCORE; 2]),
        },
    ]
}

/// Posts a scenario with this model on the first part of the clip; gives its id.
fn post(platform: &Platform, number: usize, outputs: &[Output], hook: &Value, until_us: u64) -> String {
    let name = format!("m{number}");
    platform.upload_bytes(&format!("/model?name={name}&version=1"), &constant(outputs));
    platform.post_scenario(&json!({
        "source": {"video": "street@1"},
        "model": name,
        "input": {"resize": "stretch"},
        "range": {"until_us": until_us},
        "plugins": {"post": [hook]},
    }))
}

fn check(name: &str, found: &[Detection], expected: &[(u32, f32, [f32; 4], usize)]) {
    assert_eq!(found.len(), expected.len(), "{name}: {found:#?}");
    for (detection, (class, score, bbox, points)) in found.iter().zip(expected) {
        let has = detection.keypoints.len() + detection.polygon.len();
        assert_eq!((detection.class_id, has), (*class, *points), "{name}: {detection:?}");
        let is_near = |(a, b): (&f32, f32)| (a - b).abs() < 1e-4;
        assert!((detection.score - score).abs() < 1e-4, "{name}: {detection:?}");
        assert!(detection.bbox.iter().zip(shares(*bbox)).all(is_near), "{name}: {detection:?}");
    }
}

fn start() -> Platform {
    let platform = Platform::start(&patient(&[]));
    platform.upload("/video?name=street&version=1", &asset("demo1.mp4"));
    for name in ["yolo", "boxes-scores", "classify", "detr"] {
        platform.upload("/plugin", &plugin(name));
    }
    platform
}

#[test]
fn heads_are_read_as_what_they_are() {
    let platform = start();
    let cases: Vec<_> = yolo_cases().into_iter().chain(other_cases()).collect();
    let posted = cases.iter().enumerate().map(|(i, case)| post(&platform, i, &case.outputs, &case.hook, UNTIL_US));
    let ids: Vec<_> = posted.collect();
    for (case, id) in cases.iter().zip(&ids) {
        let rows = platform.completed(id, FRAMES);
        rows.iter().for_each(|row| check(case.name, &row.detections, &case.found));
    }

    // What fits two heads, and an output that is not there, end a scenario with a reason.
    let end2end = || {
        let row = |class: f32| [&corners(OBJECTS[0].0)[..], &[SCORE, class]].concat();
        rows("output0", &[row(1.0), row(0.0), vec![0.0; 6], vec![0.0; 6], vec![0.0; 6]])
    };
    for (number, config, words) in [
        (90, json!({}), "and `end2end` with 5 boxes: set `head`"),
        (
            91,
            json!({"output": "none"}),
            "`output`: the model has no output `none`; its outputs are `output0` [1, 5, 6]",
        ),
    ] {
        let id = post(&platform, number, &[end2end()], &json!({"use": "yolo", "config": config}), LONG_US);
        let ended = platform.wait_for_state(&id, &["failed", "completed"]);
        assert_eq!(ended["reason"]["code"], "plugin_incompatible", "{ended:#}");
        assert!(ended["reason"]["message"].as_str().unwrap().contains(words), "{ended:#}");
    }
}
