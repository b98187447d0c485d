//! Detections from a head in the layout of YOLOv8: centre x, centre y, width and height in pixels of
//! the model's input, then one score a class, as `[1, 4 + classes, n]` or `[1, n, 4 + classes]`.
//!
//! A pure function of the output: the same tensor gives the same detections.

use framehook_sdk::{
    Candidate, ClassScores, ConfigProblem, Detection, Error, Geometry, Hook, Inference, Outcome, PostHook, Size,
    TensorDesc,
    geometry::{box_to_frame, nms},
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Names of the classes, by class id.
    labels: Vec<String>,
    /// Detections with a lower score are dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// Where two detections of one class overlap by more than this, the one with the lower score is
    /// dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    iou: f64,
    /// Those with the highest scores are kept.
    #[schemars(range(min = 1, max = 10_000))]
    max_detections: u32,
    /// Name of the output to read. Needed only if several have the layout.
    output: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            labels: Vec::new(),
            // What the family's own tools use.
            min_score: 0.25,
            // Tight enough for people side by side, loose enough for one person found twice.
            iou: 0.45,
            // More than a person can look at.
            max_detections: 300,
            output: None,
        }
    }
}

/// Boxes that go into the suppression, whose cost grows with their square.
const MAX_CANDIDATES: u32 = 3_000;
/// Numbers of a box, before the class scores.
const BOX: u32 = 4;

struct Yolo {
    config: Config,
}

impl Hook for Yolo {
    type Config = Config;

    fn new(_stream: &str, config: Config) -> Result<Self, Error> {
        Ok(Self { config })
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        let share = |n: f64| (0.0..=1.0).contains(&n);
        let checks = [
            (share(config.min_score), "/min_score", "must be 0 to 1"),
            (share(config.iou), "/iou", "must be 0 to 1"),
            ((1..=10_000).contains(&config.max_detections), "/max_detections", "must be 1 to 10000"),
        ];
        let problem =
            |(_, path, message): (bool, &str, &str)| ConfigProblem { path: path.into(), message: message.into() };
        checks.into_iter().filter(|(good, ..)| !good).map(problem).collect()
    }

    fn labels(&self) -> Vec<String> {
        self.config.labels.clone()
    }
}

impl PostHook for Yolo {
    fn postprocess(&mut self, inference: &Inference, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        let outputs = inference.outputs();
        let (index, head) = find_head(&outputs, &self.config).map_err(Error::InvalidConfig)?;
        let candidates = inference.argmax_rows(index, head.scores(), self.config.min_score as f32, MAX_CANDIDATES)?;
        let boxes = inference.gather_f32(index, &head.box_elements(&candidates))?;
        let found = decode(&candidates, &boxes, &inference.geometry(), inference.meta().size);
        detections.extend(nms(found, self.config.iou as f32, self.config.max_detections as usize));
        Ok(Outcome { detections, events: Vec::new() })
    }
}

/// How the numbers of `n` boxes lie in the tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    boxes: u32,
    classes: u32,
    /// The boxes are the last dimension.
    columns: bool,
}

impl Head {
    /// There are always more boxes than numbers a box.
    fn new(shape: &[u32]) -> Option<Self> {
        let &[1, a, b] = shape else { return None };
        let (width, boxes, columns) = if a <= b { (a, b, true) } else { (b, a, false) };
        (width > BOX).then(|| Self { boxes, classes: width - BOX, columns })
    }

    fn scores(self) -> ClassScores {
        let (row_stride, class_stride) = self.strides();
        ClassScores { rows: self.boxes, classes: self.classes, offset: BOX * class_stride, row_stride, class_stride }
    }

    /// From one box to the next, and from one of its numbers to the next.
    fn strides(self) -> (u32, u32) {
        if self.columns { (1, self.boxes) } else { (BOX + self.classes, 1) }
    }

    fn box_elements(self, candidates: &[Candidate]) -> Vec<u32> {
        let (row_stride, number_stride) = self.strides();
        candidates.iter().flat_map(|c| (0..BOX).map(move |n| c.row * row_stride + n * number_stride)).collect()
    }
}

fn find_head(outputs: &[TensorDesc], config: &Config) -> Result<(u32, Head), String> {
    let named = |o: &TensorDesc| config.output.as_ref().is_none_or(|name| *name == o.name);
    // With labels given, their number is the number of classes.
    let fits = |h: &Head| config.labels.is_empty() || config.labels.len() == h.classes as usize;
    let mut heads =
        (0..).zip(outputs).filter(|(_, o)| named(o)).filter_map(|(i, o)| Head::new(&o.shape).map(|h| (i, h)));
    let shapes = || outputs.iter().map(|o| format!("`{}` {:?}", o.name, o.shape)).collect::<Vec<_>>().join(", ");
    let (index, head) = heads
        .next()
        .ok_or_else(|| format!("no output has the shape [1, 4 + classes, boxes] or its transpose: {}", shapes()))?;
    if !fits(&head) {
        let (classes, labels) = (head.classes, config.labels.len());
        return Err(format!("the model has {classes} classes, but /labels names {labels}: {}", shapes()));
    }
    Ok((index, head))
}

fn decode(candidates: &[Candidate], boxes: &[f32], geometry: &Geometry, frame: Size) -> Vec<Detection> {
    let detection = |(c, b): (&Candidate, &[f32])| {
        let (cx, cy, half_width, half_height) = (b[0], b[1], b[2] / 2.0, b[3] / 2.0);
        let corners = [cx - half_width, cy - half_height, cx + half_width, cy + half_height];
        let bbox = box_to_frame(geometry, frame, corners)?;
        Some(Detection { class_id: c.class_id, score: c.score, bbox, track_id: None, keypoints: Vec::new() })
    };
    candidates.iter().zip(boxes.chunks_exact(BOX as usize)).filter_map(detection).collect()
}

framehook_sdk::export!(post: Yolo);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(labels: usize) -> Config {
        Config { labels: vec![String::new(); labels], ..Config::default() }
    }

    fn output(name: &str, shape: &[u32]) -> TensorDesc {
        TensorDesc { name: name.into(), shape: shape.to_vec() }
    }

    #[test]
    fn both_layouts_are_recognised() {
        let columns = Head { boxes: 960, classes: 3, columns: true };
        assert_eq!(Head::new(&[1, 7, 960]), Some(columns));
        assert_eq!(Head::new(&[1, 960, 7]), Some(Head { columns: false, ..columns }));
        for other in [&[1, 4, 960][..], &[2, 7, 960], &[1, 1, 7, 960], &[1000]] {
            assert_eq!(Head::new(other), None, "{other:?}");
        }
    }

    #[test]
    fn elements_of_a_box_follow_the_layout() {
        let candidate = [Candidate { row: 5, class_id: 0, score: 1.0 }];
        let columns = Head { boxes: 960, classes: 3, columns: true };
        assert_eq!(columns.box_elements(&candidate), [5, 965, 1925, 2885]);
        assert_eq!((columns.scores().offset, columns.scores().class_stride), (3840, 960));
        let rows = Head { columns: false, ..columns };
        assert_eq!(rows.box_elements(&candidate), [35, 36, 37, 38]);
        assert_eq!((rows.scores().offset, rows.scores().row_stride), (4, 7));
    }

    #[test]
    fn the_head_is_found_among_other_outputs_or_by_name() {
        let outputs = [output("proto", &[1, 32, 160, 160]), output("a", &[1, 7, 960]), output("b", &[1, 84, 8400])];
        assert_eq!(find_head(&outputs, &config(3)).unwrap().0, 1);
        let named = Config { output: Some("b".into()), ..config(0) };
        assert_eq!(find_head(&outputs, &named).unwrap().0, 2);
        assert!(find_head(&outputs, &config(80)).unwrap_err().contains("3 classes, but /labels names 80"));
        assert!(find_head(&outputs[..1], &config(0)).unwrap_err().contains("`proto` [1, 32, 160, 160]"));
    }

    #[test]
    fn a_box_is_centre_and_size_in_input_pixels() {
        let geometry = Geometry { scale_x: 0.5, scale_y: 0.5, pad_x: 0.0, pad_y: 6.0 };
        let candidates = [Candidate { row: 0, class_id: 2, score: 0.5 }];
        let found = decode(&candidates, &[120.0, 96.0, 80.0, 90.0], &geometry, Size { width: 640, height: 360 });
        let b = found[0].bbox;
        assert_eq!((b.x, b.y, b.width, b.height, found[0].class_id), (0.25, 0.25, 0.25, 0.5, 2));
    }
}
