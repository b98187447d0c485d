//! Faces with five landmarks from the four outputs of CenterFace, at a quarter of the input's size:
//! a heat map `[1, 1, h, w]`, the logarithm of height and width `[1, 2, h, w]`, the offset of the
//! centre `[1, 2, h, w]` (y, x), and the landmarks `[1, 10, h, w]` (y, x each, relative to the box).
//! Source: Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019.

use framehook_sdk::{
    Anchor, Channels, ClassScores, ConfigProblem, Detection, Error, Geometry, Hook, Inference, InputOptions, Outcome,
    PostHook, Resize, Size, Stream, TensorDesc, default_input,
    geometry::{box_to_frame, nms, to_frame},
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Faces with a lower score are dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_score: f64,
    /// Where two faces overlap by more than this, the one with the lower score is dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    iou: f64,
}

impl Default for Config {
    fn default() -> Self {
        // The heat map is calibrated: real faces lie well above. The overlap is what the model's authors use.
        Self { min_score: 0.35, iou: 0.3 }
    }
}

/// Pixels of the input a cell of the outputs.
const STRIDE: f32 = 4.0;
const LANDMARKS: usize = 5;
/// Cells above the threshold; a face covers tens.
const MAX_CANDIDATES: u32 = 2_000;
/// More than a picture of this size can hold.
const MAX_FACES: usize = 500;

struct CenterFace(Config);

impl Hook for CenterFace {
    type Config = Config;

    fn new(_: &Stream, config: Config) -> Result<Self, Error> {
        Ok(Self(config))
    }

    fn check(config: &Config) -> Vec<ConfigProblem> {
        [(config.min_score, "/min_score"), (config.iou, "/iou")]
            .into_iter()
            .filter(|(share, _)| !(0.0..=1.0).contains(share))
            .map(|(_, path)| ConfigProblem { path: path.into(), message: "must be 0 to 1".into() })
            .collect()
    }

    /// The values as they are, no scaling; the frame at the top left.
    fn input() -> InputOptions {
        InputOptions {
            resize: Some(Resize::Letterbox),
            anchor: Some(Anchor::TopLeft),
            channels: Some(Channels::Rgb),
            pad: Some(0),
            scale: Some(1.0),
            ..default_input()
        }
    }

    fn labels(&self) -> Vec<String> {
        vec!["face".into()]
    }
}

impl PostHook for CenterFace {
    fn postprocess(&mut self, inference: &Inference, mut detections: Vec<Detection>) -> Result<Outcome, Error> {
        let outputs = Outputs::find(&inference.outputs()).map_err(Error::InvalidConfig)?;
        let cells = outputs.cells();
        let scores = ClassScores { rows: cells, classes: 1, offset: 0, row_stride: 1, class_stride: cells };
        let candidates = inference.argmax_rows(outputs.heat, scores, self.0.min_score as f32, MAX_CANDIDATES)?;
        let read = |output: u32, channels: u32| {
            let elements: Vec<_> =
                candidates.iter().flat_map(|c| (0..channels).map(move |n| c.row + n * cells)).collect();
            inference.gather_f32(output, &elements)
        };
        let (sizes, offsets) = (read(outputs.size, 2)?, read(outputs.offset, 2)?);
        let landmarks = read(outputs.landmarks, 2 * LANDMARKS as u32)?;
        let (geometry, frame) = (inference.geometry(), inference.meta().size);
        let numbers = sizes.chunks_exact(2).zip(offsets.chunks_exact(2)).zip(landmarks.chunks_exact(2 * LANDMARKS));
        let faces = candidates.iter().zip(numbers).filter_map(|(candidate, ((size, offset), landmarks))| {
            let cell = (candidate.row % outputs.width, candidate.row / outputs.width);
            face(candidate.score, cell, [size, offset, landmarks], &geometry, frame)
        });
        detections.extend(nms(faces.collect(), self.0.iou as f32, MAX_FACES));
        Ok(Outcome { detections, events: Vec::new() })
    }
}

/// One face from the numbers of its cell.
fn face(
    score: f32,
    cell: (u32, u32),
    [size, offset, landmarks]: [&[f32]; 3],
    geometry: &Geometry,
    frame: Size,
) -> Option<Detection> {
    let (height, width) = (size[0].exp() * STRIDE, size[1].exp() * STRIDE);
    let centre_x = (cell.0 as f32 + offset[1] + 0.5) * STRIDE;
    let centre_y = (cell.1 as f32 + offset[0] + 0.5) * STRIDE;
    let (left, top) = (centre_x - width / 2.0, centre_y - height / 2.0);
    let bbox = box_to_frame(geometry, frame, [left, top, left + width, top + height])?;
    let keypoints: Vec<_> = landmarks
        .chunks_exact(2)
        .map(|yx| to_frame(geometry, frame, left + yx[1] * width, top + yx[0] * height))
        .collect();
    let finite = keypoints.iter().all(|p| p.x.is_finite() && p.y.is_finite());
    finite.then_some(Detection { keypoints, ..Detection::new(0, score, bbox) })
}

/// Which output is which, by their shapes; size and offset have the same one and come in this order.
#[derive(Debug, PartialEq)]
struct Outputs {
    heat: u32,
    size: u32,
    offset: u32,
    landmarks: u32,
    width: u32,
    height: u32,
}

impl Outputs {
    fn find(outputs: &[TensorDesc]) -> Result<Self, String> {
        let with = |channels: u32| {
            (0u32..).zip(outputs).filter(move |(_, o)| matches!(o.shape[..], [1, c, _, _] if c == channels))
        };
        let found = || {
            let (heat, map) = with(1).next()?;
            let mut pairs = with(2).map(|(index, _)| index);
            let (size, offset, landmarks) = (pairs.next()?, pairs.next()?, with(2 * LANDMARKS as u32).next()?.0);
            let (height, width) = (map.shape[2], map.shape[3]);
            let same_map = [size, offset, landmarks]
                .iter()
                .all(|i| outputs.get(*i as usize).is_some_and(|o| o.shape[2..] == [height, width]));
            same_map.then_some(Self { heat, size, offset, landmarks, width, height })
        };
        found().ok_or_else(|| {
            let shapes: Vec<_> = outputs.iter().map(|o| format!("`{}` {:?}", o.name, o.shape)).collect();
            let expected = "[1, 1, h, w], two of [1, 2, h, w], [1, 10, h, w]";
            format!("expected the outputs of CenterFace, {expected}; found {}", shapes.join(", "))
        })
    }

    fn cells(&self) -> u32 {
        self.width * self.height
    }
}

framehook_sdk::export!(post: CenterFace);

#[cfg(test)]
mod tests {
    use framehook_sdk::Element;

    use super::*;

    fn outputs(channels: &[u32]) -> Vec<TensorDesc> {
        channels
            .iter()
            .map(|c| TensorDesc { name: c.to_string(), shape: vec![1, *c, 120, 160], element: Element::Float })
            .collect()
    }

    #[test]
    fn outputs_are_told_apart_by_shape() {
        let found = Outputs::find(&outputs(&[1, 2, 2, 10])).unwrap();
        assert_eq!(found, Outputs { heat: 0, size: 1, offset: 2, landmarks: 3, width: 160, height: 120 });
        let error = Outputs::find(&outputs(&[1, 2, 10])).unwrap_err();
        assert!(error.contains("`2` [1, 2, 120, 160]"), "{error}");
        let mut uneven = outputs(&[1, 2, 2, 10]);
        uneven[3].shape[3] = 80;
        assert!(Outputs::find(&uneven).is_err());
    }

    #[test]
    fn a_cell_becomes_a_face_on_the_frame() {
        // 176x144 in 640x480 at the top left: scaled by 480/144.
        let scale = 480.0 / 144.0;
        let geometry = Geometry { scale_x: scale, scale_y: scale, pad_x: 0.0, pad_y: 0.0 };
        let (side, nose) = ((50.0f32 * scale / STRIDE).ln(), [0.5; 10]);
        let face =
            face(0.9, (40, 60), [&[side, side], &[0.0, 0.0], &nose], &geometry, Size { width: 176, height: 144 });
        let face = face.unwrap();
        assert!((face.bbox.width * 176.0 - 50.0).abs() < 1e-3 && (face.bbox.height * 144.0 - 50.0).abs() < 1e-3);
        let centre = (face.bbox.x + face.bbox.width / 2.0, face.bbox.y + face.bbox.height / 2.0);
        assert!((centre.0 * 176.0 - 162.0 / scale).abs() < 1e-3 && (centre.1 * 144.0 - 242.0 / scale).abs() < 1e-3);
        assert_eq!(face.keypoints.len(), LANDMARKS);
        assert!((face.keypoints[0].x - centre.0).abs() < 1e-6);
    }
}
