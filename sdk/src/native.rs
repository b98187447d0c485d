//! The host's side of the contract for native tests: the same types and functions as in a plugin, on what a
//! test made ([`crate::testing`]). What they compute is what the engine computes (`framehook-helpers`), and
//! what the host refuses they refuse.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
    time::SystemTime,
};

use framehook_helpers::{masks, scan, suppress as suppression};

use crate::{
    AccessError, Candidate, ClassScores, Element, FrameMeta, Geometry, Mask, MaskedBox, PixelFormat, Rect, ScoredBox,
    Size, TensorDesc,
    model::{ModelError, ModelInfo},
    pixels,
    testing::{Elements, Output, Scene},
};

type Access<T> = Result<T, AccessError>;

/// Copied to a plugin in one call.
const MAX_TRANSFER: usize = 32 << 20;
/// Pixels of a side that pixels are scaled to.
const MAX_SIDE: u32 = 8_192;
/// Rows of scores that are looked through at once.
const MAX_ROWS: u32 = 1 << 20;

/// A model input, 32-bit floats, row-major.
#[derive(Debug)]
pub struct Tensor {
    shape: Vec<u32>,
    data: Vec<f32>,
}

impl Tensor {
    /// # Errors
    /// `OutOfBounds` if the product of `shape` is not the number of elements.
    pub fn from_f32(shape: &[u32], data: &[f32]) -> Access<Self> {
        let elements = shape.iter().try_fold(1u64, |n, side| n.checked_mul(u64::from(*side)));
        let made = || Self { shape: shape.to_vec(), data: data.to_vec() };
        (elements == Some(data.len() as u64)).then(made).ok_or(AccessError::OutOfBounds)
    }

    #[must_use]
    pub fn shape(&self) -> Vec<u32> {
        self.shape.clone()
    }

    /// For tests: a plugin cannot read a tensor that it made.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}

/// A decoded frame, before the inference.
#[derive(Clone, Debug)]
pub struct Frame(pub(crate) Rc<Scene>);

impl Frame {
    #[must_use]
    pub fn meta(&self) -> FrameMeta {
        self.0.meta
    }

    /// That of the model's input.
    #[must_use]
    pub fn input_size(&self) -> Size {
        self.0.input.size
    }

    /// A region, scaled to `target` and converted. Where it is scaled, a value may be one more or less than
    /// the host's.
    ///
    /// # Errors
    /// As the host's.
    pub fn read(&self, region: Rect, target: Size, format: PixelFormat) -> Access<Vec<u8>> {
        read(&self.0, region, target, format)
    }

    /// A region made into the model's input. What of the host's differs is less than two of 255 steps.
    ///
    /// # Errors
    /// As the host's.
    pub fn to_tensor(&self, region: Rect) -> Access<(Tensor, Geometry)> {
        check_region(self.0.meta.size, region)?;
        let picture = self.0.picture.as_ref().ok_or(AccessError::Unavailable)?;
        let (data, geometry) = self.0.input.fill(picture, region);
        let Size { width, height } = self.0.input.size;
        Ok((Tensor { shape: vec![1, 3, height, width], data }, geometry))
    }
}

/// The outputs of the model for one frame, addressed in row-major order.
#[derive(Clone, Debug)]
pub struct Inference(pub(crate) Rc<Scene>);

/// Each as the host's: see the WIT package.
#[allow(clippy::missing_errors_doc)]
impl Inference {
    #[must_use]
    pub fn meta(&self) -> FrameMeta {
        self.0.meta
    }

    #[must_use]
    pub fn geometry(&self) -> Geometry {
        let Size { width, height } = self.0.meta.size;
        self.0.input.geometry(Rect { x: 0, y: 0, width, height })
    }

    #[must_use]
    pub fn input_size(&self) -> Size {
        self.0.input.size
    }

    #[must_use]
    pub fn outputs(&self) -> Vec<TensorDesc> {
        let desc = |Output { name, shape, elements }: &Output| {
            let element = match elements {
                Elements::Floats(_) => Element::Float,
                Elements::Small(_) | Elements::Integers(_) => Element::Integer,
                Elements::Texts(_) => Element::Text,
            };
            TensorDesc { name: name.clone(), shape: shape.clone(), element }
        };
        self.0.outputs.iter().map(desc).collect()
    }

    pub fn read_f32(&self, output: u32, offset: u32, count: u32) -> Access<Vec<f32>> {
        let range = range(offset, count, size_of::<f32>())?;
        self.floats(output)?.get(range).map(<[f32]>::to_vec).ok_or(AccessError::OutOfBounds)
    }

    pub fn read_i64(&self, output: u32, offset: u32, count: u32) -> Access<Vec<i64>> {
        let range = range(offset, count, size_of::<i64>())?;
        let part = match &self.output(output)?.elements {
            Elements::Integers(all) => all.get(range).map(<[i64]>::to_vec),
            Elements::Small(all) => all.get(range).map(|part| part.iter().map(|n| *n as i64).collect()),
            Elements::Floats(_) | Elements::Texts(_) => return Err(AccessError::WrongType),
        };
        part.ok_or(AccessError::OutOfBounds)
    }

    pub fn read_u8(&self, output: u32, offset: u32, count: u32) -> Access<Vec<u8>> {
        range(offset, count, 1)?;
        let small = |n: i64| u8::try_from(n).map_err(|_| AccessError::WrongType);
        self.read_i64(output, offset, count)?.into_iter().map(small).collect()
    }

    pub fn read_text(&self, output: u32, offset: u32, count: u32) -> Access<Vec<String>> {
        let range = range(offset, count, 1)?;
        match &self.output(output)?.elements {
            Elements::Texts(all) => all.get(range).map(<[String]>::to_vec).ok_or(AccessError::OutOfBounds),
            _ => Err(AccessError::WrongType),
        }
    }

    pub fn gather_f32(&self, output: u32, elements: &[u32]) -> Access<Vec<f32>> {
        let data = self.floats(output)?;
        elements.iter().map(|at| data.get(*at as usize).copied().ok_or(AccessError::OutOfBounds)).collect()
    }

    pub fn argmax_rows(&self, output: u32, scores: ClassScores, threshold: f32, limit: u32) -> Access<Vec<Candidate>> {
        if scores.rows > MAX_ROWS || limit as usize > MAX_TRANSFER / size_of::<scan::Candidate>() {
            return Err(AccessError::TooLarge);
        }
        let layout = scan::Layout {
            rows: scores.rows as usize,
            classes: scores.classes as usize,
            offset: scores.offset as usize,
            row_stride: scores.row_stride as usize,
            class_stride: scores.class_stride as usize,
        };
        let found = scan::argmax_rows(&self.floats(output)?, &layout, threshold, limit as usize);
        let told = |c: scan::Candidate| Candidate { row: c.row, class_id: c.class_id, score: c.score };
        found.map(|found| found.into_iter().map(told).collect()).ok_or(AccessError::OutOfBounds)
    }

    pub fn top_k(&self, output: u32, offset: u32, count: u32, k: u32) -> Access<Vec<(u32, f32)>> {
        if k as usize > MAX_TRANSFER / size_of::<(u32, f32)>() {
            return Err(AccessError::TooLarge);
        }
        let range = offset as usize..offset as usize + count as usize;
        let data = self.floats(output)?;
        data.get(range).map(|part| scan::highest(part, k as usize)).ok_or(AccessError::OutOfBounds)
    }

    pub fn masks(&self, prototypes: u32, boxes: &[MaskedBox]) -> Access<Vec<Mask>> {
        let output = self.output(prototypes)?;
        let Elements::Floats(data) = &output.elements else { return Err(AccessError::WrongType) };
        let [1, channels, height, width] = output.shape[..] else { return Err(AccessError::OutOfBounds) };
        if data.is_empty() {
            return Err(AccessError::OutOfBounds);
        }
        let [channels, height, width] = [channels, height, width].map(|side| side as usize);
        let geometry = self.geometry();
        let pair = |size: Size| [size.width, size.height];
        let view = masks::View {
            scale: [geometry.scale_x, geometry.scale_y],
            pad: [geometry.pad_x, geometry.pad_y],
            frame: pair(self.0.meta.size),
            input: pair(self.0.input.size),
        };
        let own = |b: &MaskedBox| masks::MaskedBox {
            bbox: [b.bbox.x, b.bbox.y, b.bbox.width, b.bbox.height],
            coefficients: b.coefficients.clone(),
        };
        let boxes: Vec<_> = boxes.iter().map(own).collect();
        let made = masks::decode(masks::Prototypes { data, channels, height, width }, view, &boxes);
        let told = |masks::Mask { grid: [width, height], runs }| Mask { grid: Size { width, height }, runs };
        made.map(|made| made.into_iter().map(told).collect()).map_err(|why| match why {
            masks::NoMasks::Unfit => AccessError::OutOfBounds,
            masks::NoMasks::TooMany => AccessError::TooLarge,
        })
    }

    pub fn read_pixels(&self, region: Rect, target: Size, format: PixelFormat) -> Access<Vec<u8>> {
        read(&self.0, region, target, format)
    }

    fn output(&self, index: u32) -> Access<&Output> {
        self.0.outputs.get(index as usize).ok_or(AccessError::OutOfBounds)
    }

    /// Its elements as floats, rounded where they are others.
    fn floats(&self, index: u32) -> Access<std::borrow::Cow<'_, [f32]>> {
        match &self.output(index)?.elements {
            Elements::Floats(all) | Elements::Small(all) => Ok(all.into()),
            Elements::Integers(all) => Ok(all.iter().map(|n| *n as f32).collect()),
            Elements::Texts(_) => Err(AccessError::WrongType),
        }
    }
}

thread_local! {
    static MODELS: RefCell<Vec<Model>> = const { RefCell::new(Vec::new()) };
}

/// A further model of a test.
pub(crate) struct Model {
    pub(crate) info: ModelInfo,
    pub(crate) outputs: Box<dyn Fn(Rect) -> Vec<Output>>,
}

pub(crate) fn add_model(model: Model) {
    MODELS.with_borrow_mut(|all| {
        all.retain(|other| other.info.name != model.info.name);
        all.push(model);
    });
}

/// All of them.
#[must_use]
pub fn models() -> Vec<ModelInfo> {
    MODELS.with_borrow(|all| all.iter().map(|model| model.info.clone()).collect())
}

/// One inference for each region, in their order.
///
/// # Errors
/// When the test has no model of this name.
pub fn run(name: &str, regions: &[Rect]) -> Result<Vec<Inference>, ModelError> {
    MODELS.with_borrow(|all| {
        let model = all.iter().find(|model| model.info.name == name).ok_or(ModelError::Unknown)?;
        let Size { width, height } = model.info.input_size;
        let run = |region: &Rect| {
            let outputs = (model.outputs)(*region);
            Inference(Rc::new(outputs.into_iter().fold(Scene::new(width, height), Scene::output)))
        };
        Ok(regions.iter().map(run).collect())
    })
}

/// An inference on a tensor.
///
/// # Errors
/// When the test has no model of this name.
pub fn run_tensor(name: &str, input: &Tensor) -> Result<Inference, ModelError> {
    let &[1, _, height, width] = &input.shape[..] else {
        return Err(ModelError::Unfit(format!("the tensor has {:?}", input.shape)));
    };
    let mut made = run(name, &[Rect { x: 0, y: 0, width, height }])?;
    Ok(made.remove(0))
}

fn range(offset: u32, count: u32, bytes: usize) -> Access<Range<usize>> {
    if count as usize > MAX_TRANSFER / bytes {
        return Err(AccessError::TooLarge);
    }
    Ok(offset as usize..offset as usize + count as usize)
}

fn read(scene: &Scene, region: Rect, target: Size, format: PixelFormat) -> Access<Vec<u8>> {
    check_region(scene.meta.size, region)?;
    let channels = if format == PixelFormat::Gray { 1 } else { 3 };
    let area = u64::from(target.width) * u64::from(target.height);
    if area == 0 {
        return Err(AccessError::OutOfBounds);
    }
    if target.width.max(target.height) > MAX_SIDE || area * channels > MAX_TRANSFER as u64 {
        return Err(AccessError::TooLarge);
    }
    let picture = scene.picture.as_ref().ok_or(AccessError::Unavailable)?;
    Ok(pixels::read(picture, region, target, format))
}

fn check_region(frame: Size, Rect { x, y, width, height }: Rect) -> Access<()> {
    let is_inside =
        |start: u32, length: u32, of: u32| length > 0 && start.checked_add(length).is_some_and(|end| end <= of);
    let fits = is_inside(x, width, frame.width) && is_inside(y, height, frame.height);
    if fits { Ok(()) } else { Err(AccessError::OutOfBounds) }
}

/// Greedy suppression, as the host does it.
#[must_use]
pub fn suppress(boxes: &[ScoredBox], max_overlap: f32, across_classes: bool, limit: u32) -> Vec<u32> {
    let own = |b: &ScoredBox| suppression::ScoredBox {
        center: [b.center_x, b.center_y],
        size: [b.width, b.height],
        angle: b.angle,
        class_id: b.class_id,
        score: b.score,
    };
    let boxes: Vec<_> = boxes.iter().map(own).collect();
    suppression::greedy(&boxes, max_overlap, across_classes, limit as usize)
}

/// A model input that a plugin made.
#[derive(Debug)]
pub struct Prepared {
    pub tensor: Tensor,
    pub geometry: Geometry,
}

/// What a pre hook wants done with a frame.
#[derive(Debug)]
pub enum Decision {
    /// Go on with the next hook, then the native preprocessing.
    Pass,
    /// No inference for this frame, and why.
    Skip(String),
    /// Use this as the model's input.
    Infer(Prepared),
}

thread_local! {
    static NOW: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Sets the clock of this thread.
pub(crate) fn set_clock(now_us: u64) {
    NOW.set(Some(now_us));
}

pub mod clock {
    use super::{NOW, SystemTime};

    /// Microseconds since the Unix epoch: what a test set, or the time that it is.
    #[must_use]
    pub fn now_us() -> u64 {
        let real = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        NOW.get().unwrap_or_else(|| u64::try_from(real().as_micros()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bbox, testing::Picture};

    fn inference() -> Inference {
        Scene::new(640, 360)
            .at(3, 120_000)
            .output(Output::floats("scores", &[2, 3], vec![0.1, 0.9, 0.2, 0.8, f32::NAN, 0.3]))
            .output(Output::integers("ids", &[3], vec![7, 300, -1]))
            .output(Output::texts("names", &[1], vec!["a".into()]))
            .inference()
    }

    #[test]
    fn outputs_are_read_as_the_host_gives_them() {
        let inference = inference();
        let meta = inference.meta();
        assert_eq!((meta.sequence, meta.pts_us, meta.size.width), (3, 120_000, 640));
        let kinds: Vec<_> = inference.outputs().into_iter().map(|o| (o.name, o.element)).collect();
        assert_eq!(kinds[0], ("scores".into(), Element::Float));
        assert_eq!((kinds[1].1, kinds[2].1), (Element::Integer, Element::Text));
        assert_eq!(inference.read_f32(0, 1, 2).unwrap(), [0.9, 0.2]);
        assert_eq!(inference.read_f32(1, 0, 3).unwrap(), [7.0, 300.0, -1.0]);
        assert_eq!(inference.read_i64(1, 1, 2).unwrap(), [300, -1]);
        assert_eq!(inference.read_u8(1, 0, 1).unwrap(), [7]);
        assert_eq!(inference.read_text(2, 0, 1).unwrap(), ["a"]);
        assert_eq!(inference.gather_f32(0, &[5, 0]).unwrap(), [0.3, 0.1]);
        assert_eq!(inference.top_k(0, 0, 6, 2).unwrap(), [(1, 0.9), (3, 0.8)]);
        let rows = ClassScores { rows: 2, classes: 3, offset: 0, row_stride: 3, class_stride: 1 };
        let found = inference.argmax_rows(0, rows, 0.5, 9).unwrap();
        assert_eq!(found.iter().map(|c| (c.row, c.class_id, c.score)).collect::<Vec<_>>(), [(0, 1, 0.9), (1, 0, 0.8)]);
    }

    #[test]
    fn what_the_host_refuses_is_refused() {
        let (inference, most) = (inference(), u32::MAX);
        let refused = [
            (inference.read_f32(9, 0, 1).err(), AccessError::OutOfBounds),
            (inference.read_f32(0, 5, 2).err(), AccessError::OutOfBounds),
            (inference.read_f32(0, 0, most).err(), AccessError::TooLarge),
            (inference.read_f32(2, 0, 1).err(), AccessError::WrongType),
            (inference.read_i64(0, 0, 1).err(), AccessError::WrongType),
            (inference.read_u8(1, 1, 1).err(), AccessError::WrongType),
            (inference.gather_f32(0, &[6]).err(), AccessError::OutOfBounds),
            (inference.top_k(0, 0, 6, most).err(), AccessError::TooLarge),
            (inference.masks(0, &[]).err(), AccessError::OutOfBounds),
        ];
        for (at, (given, expected)) in refused.into_iter().enumerate() {
            assert_eq!(given, Some(expected), "{at}");
        }
        let whole = Rect { x: 0, y: 0, width: 640, height: 360 };
        let small = Size { width: 2, height: 1 };
        let read = |region, target| inference.read_pixels(region, target, PixelFormat::Gray).err();
        assert_eq!(read(whole, small), Some(AccessError::Unavailable), "there are no pixels");
        assert_eq!(read(Rect { x: 1, ..whole }, small), Some(AccessError::OutOfBounds));
        assert_eq!(read(whole, Size { width: 8_193, height: 1 }), Some(AccessError::TooLarge));
        assert!(Tensor::from_f32(&[2, 2], &[0.0; 3]).is_err());
    }

    #[test]
    fn pixels_masks_and_the_clock_are_there() {
        let frame = Scene::of(Picture::plain(8, 8, [255, 0, 0])).frame();
        let whole = Rect { x: 0, y: 0, width: 8, height: 8 };
        let (tensor, geometry) = frame.to_tensor(whole).unwrap();
        assert_eq!((tensor.shape(), tensor.data()[0], geometry.scale_x), (vec![1, 3, 8, 8], 1.0, 1.0));
        let half: Vec<f32> = (0..16).map(|at| if at % 4 < 2 { 1.0 } else { -1.0 }).collect();
        let inference = Scene::new(4, 4).output(Output::floats("prototypes", &[1, 1, 4, 4], half)).inference();
        let bbox = Bbox { x: 0.0, y: 0.0, width: 1.0, height: 0.25 };
        let masks = inference.masks(0, &[MaskedBox { bbox, coefficients: vec![1.0] }]).unwrap();
        assert_eq!((masks[0].grid.width, &masks[0].runs[..]), (4, &[0, 2, 2][..]));
        crate::testing::set_clock(7);
        assert_eq!(clock::now_us(), 7);
        let one =
            ScoredBox { center_x: 0.0, center_y: 0.0, width: 1.0, height: 1.0, angle: 0.0, class_id: 0, score: 1.0 };
        assert_eq!(suppress(&[one, ScoredBox { score: 0.5, ..one }], 0.5, false, 9), [0]);
    }
}
