//! What a native test makes instead of the host: frames, a model's outputs, a stream, a clock.
//!
//! ```
//! use framehook_sdk::{Detection, Error, Hook, Inference, Outcome, PostHook, Stream};
//! use framehook_sdk::testing::{self, Output, Scene};
//!
//! struct Best;
//!
//! impl Hook for Best {
//!     type Config = testing::NoConfig;
//!
//!     fn new(_: &Stream, _: testing::NoConfig) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//! }
//!
//! impl PostHook for Best {
//!     fn postprocess(&mut self, inference: &Inference, mut all: Vec<Detection>) -> Result<Outcome, Error> {
//!         let best = inference.top_k(0, 0, 3, 1)?;
//!         all.extend(best.iter().map(|(class, score)| Detection::new(*class, *score, Default::default())));
//!         Ok(Outcome { detections: all, events: Vec::new() })
//!     }
//! }
//!
//! let mut hook: Best = testing::start("{}").unwrap();
//! let scene = Scene::new(640, 360).output(Output::floats("scores", &[1, 3], vec![0.1, 0.7, 0.2]));
//! let outcome = hook.postprocess(&scene.inference(), Vec::new()).unwrap();
//! assert_eq!(outcome.detections[0].class_id, 1);
//! ```
//!
//! The state of a hook and the clock belong to the thread, and each test has one of its own.

use std::{cell::RefCell, path::Path, rc::Rc};

use framehook_helpers::npy;
use schemars::JsonSchema;
use serde::Deserialize;

pub use crate::pixels::Picture;
use crate::{
    Error, Frame, FrameMeta, Hook, Inference, InputOptions, Rect, Size, Source, SourceKind, Start, Stream,
    default_input, glue, log::Level, model::ModelInfo, native, pixels::Input,
};

/// For hooks without settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// A frame, and what the model said of it.
#[derive(Clone, Debug)]
pub struct Scene {
    pub(crate) meta: FrameMeta,
    pub(crate) input: Input,
    pub(crate) picture: Option<Picture>,
    pub(crate) outputs: Vec<Output>,
}

/// One output of a model.
#[derive(Clone, Debug)]
pub struct Output {
    pub(crate) name: String,
    pub(crate) shape: Vec<u32>,
    pub(crate) elements: Elements,
}

/// As the host keeps them.
#[derive(Clone, Debug)]
pub(crate) enum Elements {
    Floats(Vec<f32>),
    /// Whole numbers of up to 16 bits, and booleans.
    Small(Vec<f32>),
    Integers(Vec<i64>),
    Texts(Vec<String>),
}

impl Scene {
    /// The first frame of a stream of this size, without pixels. The model takes it as it is, unless
    /// [`Self::input`] says otherwise.
    #[must_use]
    pub fn new(width: u32, height: u32) -> Self {
        let size = Size { width, height };
        let input = Input::new(&default_input(), size);
        Self { meta: FrameMeta { sequence: 0, pts_us: 0, size }, input, picture: None, outputs: Vec::new() }
    }

    /// The first frame of a stream, with its pixels.
    #[must_use]
    pub fn of(picture: Picture) -> Self {
        let Size { width, height } = picture.size;
        Self { picture: Some(picture), ..Self::new(width, height) }
    }

    /// Another frame: its number and its time in microseconds.
    #[must_use]
    pub fn at(mut self, sequence: u64, pts_us: i64) -> Self {
        (self.meta.sequence, self.meta.pts_us) = (sequence, pts_us);
        self
    }

    /// How the frame becomes the model's input.
    #[must_use]
    pub fn input(self, options: &InputOptions) -> Self {
        Self { input: Input::new(options, self.meta.size), ..self }
    }

    /// With one more output of the model.
    #[must_use]
    pub fn output(mut self, output: Output) -> Self {
        self.outputs.push(output);
        self
    }

    /// What a pre hook is given.
    #[must_use]
    pub fn frame(&self) -> Frame {
        native::Frame(Rc::new(self.clone()))
    }

    /// What a post hook is given.
    #[must_use]
    pub fn inference(&self) -> Inference {
        native::Inference(Rc::new(self.clone()))
    }
}

/// Gives the thread's tests a further model, whose outputs for a region of the frame are these.
pub fn model(name: &str, input_size: Size, labels: &[&str], outputs: impl Fn(Rect) -> Vec<Output> + 'static) {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let info = ModelInfo { name: name.to_owned(), input_size, labels };
    native::add_model(native::Model { info, outputs: Box::new(outputs) });
}

impl Output {
    /// # Panics
    /// When `shape` is not that of so many elements.
    #[must_use]
    pub fn floats(name: &str, shape: &[u32], elements: Vec<f32>) -> Self {
        Self::new(name, shape, elements.len(), Elements::Floats(elements))
    }

    /// # Panics
    /// When `shape` is not that of so many elements.
    #[must_use]
    pub fn integers(name: &str, shape: &[u32], elements: Vec<i64>) -> Self {
        Self::new(name, shape, elements.len(), Elements::Integers(elements))
    }

    /// # Panics
    /// When `shape` is not that of so many elements.
    #[must_use]
    pub fn texts(name: &str, shape: &[u32], elements: Vec<String>) -> Self {
        Self::new(name, shape, elements.len(), Elements::Texts(elements))
    }

    /// What a `.npy` file holds, which `numpy.save` writes.
    ///
    /// # Errors
    /// When it cannot be read, or holds what no model gives.
    pub fn npy(name: &str, file: impl AsRef<Path>) -> Result<Self, String> {
        let file = file.as_ref();
        let bytes = std::fs::read(file).map_err(|why| format!("{}: {why}", file.display()))?;
        let (shape, elements) = npy::read(&bytes).map_err(|why| format!("{}: {why}", file.display()))?;
        let elements = match elements {
            npy::Elements::Floats(all) => Elements::Floats(all),
            npy::Elements::Small(all) => Elements::Small(all),
            npy::Elements::Integers(all) => Elements::Integers(all),
        };
        Ok(Self { name: name.into(), shape, elements })
    }

    fn new(name: &str, shape: &[u32], length: usize, elements: Elements) -> Self {
        let wanted: u64 = shape.iter().map(|side| u64::from(*side)).product();
        assert_eq!(length as u64, wanted, "output `{name}` has the shape {shape:?}");
        Self { name: name.into(), shape: shape.to_vec(), elements }
    }
}

/// A hook with this configuration, at the beginning of a stream, as the platform makes it.
///
/// # Errors
/// What is wrong with the configuration, or what the hook says.
pub fn start<H: Hook>(config: &str) -> Result<H, Error> {
    start_in(&stream(), config)
}

/// The same in a stream that the test describes.
///
/// # Errors
/// As [`start`].
pub fn start_in<H: Hook>(stream: &Stream, config: &str) -> Result<H, Error> {
    H::new(stream, glue::accepted::<H>(config)?)
}

/// A file at its beginning.
#[must_use]
pub fn stream() -> Stream {
    Stream {
        id: "test".into(),
        start: Start::Fresh,
        source: Source { kind: SourceKind::File, size: None, frames_per_second: None, frames: None },
        model_labels: Vec::new(),
    }
}

/// Sets the clock of this thread, in microseconds since the Unix epoch; it stays there.
pub fn set_clock(now_us: u64) {
    native::set_clock(now_us);
}

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// What hooks of this thread logged since the last call, without fields.
#[must_use]
pub fn take_log() -> Vec<(Level, String)> {
    LINES.take()
}

pub(crate) fn keep_line(level: Level, message: &str) {
    LINES.with_borrow_mut(|lines| lines.push((level, message.to_owned())));
}
