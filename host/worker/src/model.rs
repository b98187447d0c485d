//! The model: an ONNX Runtime session, one image in, any number of tensors out.
//!
//! Invariants: a model is loaded from bytes that [`framehook_formats::onnx`] has checked, so it reads no
//! other file: the bytes that are checked are the bytes that are loaded. The size of outputs is checked
//! before they are copied.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    path::Path,
    slice,
};

use framehook_core::{
    artifact::ModelManifest,
    input::{InputSpec, Layout, TensorInfo},
    probe::{MAX_TENSOR_NAME, MAX_TENSORS, printable},
    reason::{ReasonCode, without_source_places},
};
use framehook_engine::media::{Output, Size};
use framehook_formats::onnx::{self, OnnxError};
use ort::{
    session::Session,
    value::{Outlet, TensorElementType, ValueType},
};

use crate::{
    feed::{Feeder, FrameInput},
    metadata,
    outputs::{self, MAX_OUTPUT_BYTES, OutputReader, f32_bytes},
    runtime::Runtime,
};

/// Why a model cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(
        "the ONNX Runtime library `{path}` cannot be loaded: {why}; fetch it with `scripts/onnxruntime.sh`, or set FRAMEHOOK_ONNXRUNTIME to a libonnxruntime.so of version 1.24 or newer"
    )]
    Library { path: String, why: String },
    #[error("the model file cannot be read: {0}; upload it again")]
    Unreadable(std::io::Error),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(
        "ONNX Runtime cannot load the model: {0}; check it in Python with `onnx.checker` and `onnxruntime.InferenceSession`, and export it again"
    )]
    Load(String),
    #[error("the model has no input `{wanted}`; its inputs are {inputs}")]
    NoSuchInput { wanted: String, inputs: String },
    #[error("the model failed: {0}")]
    Run(String),
    #[error(
        "the model has {count} {what}, but at most {MAX_TENSORS} are read; export it with fewer, joined in its last layer"
    )]
    Count { what: &'static str, count: usize },
    #[error(
        "a name among the model's {what} is longer than {MAX_TENSOR_NAME} bytes or has control characters: `{name}`; rename it"
    )]
    Name { what: &'static str, name: String },
    #[error(
        "the model's outputs have {mib} MiB as float32, but at most {} MiB of one frame are handed to hooks; export it with smaller outputs",
        MAX_OUTPUT_BYTES >> 20
    )]
    OutputSize { mib: u64 },
    #[error("the provider `{provider}` cannot run the model here: {why}")]
    Provider { provider: &'static str, why: String },
    #[error("the model needs more memory than the worker may have: {0}")]
    OutOfMemory(String),
}

impl ModelError {
    /// What ONNX Runtime says of a model that it does not load.
    pub(crate) fn load(message: &str) -> Self {
        classify(message, Self::Load)
    }

    /// The same where a provider should load it.
    pub(crate) fn provider(provider: &'static str, message: &str) -> Self {
        match classify(message, Self::Load) {
            Self::Load(why) => Self::Provider { provider, why: without_source_places(in_short(&why)) },
            no_memory => no_memory,
        }
    }

    /// A stable code for an upload's verdict.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Library { .. } => "no_onnxruntime",
            Self::Provider { .. } => "no_provider",
            Self::Unreadable(_) => "unreadable",
            Self::Onnx(error) => error.code(),
            Self::Load(_) | Self::Run(_) => "model_load",
            Self::NoSuchInput { .. } => "unsuitable_input",
            Self::OutputSize { .. } => "unsuitable_output",
            Self::Count { .. } | Self::Name { .. } => "unsuitable_tensors",
            Self::OutOfMemory(_) => "out_of_memory",
        }
    }

    /// The same as the reason of a scenario.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::OutOfMemory(_) => ReasonCode::OutOfMemory,
            Self::Provider { .. } => ReasonCode::ProviderUnavailable,
            _ => ReasonCode::ModelLoad,
        }
    }
}

/// What ONNX Runtime says, as an error: that there is no memory is not the fault of the model's form.
fn classify(message: &str, otherwise: fn(String) -> ModelError) -> ModelError {
    const NO_MEMORY: [&str; 3] = ["bad_alloc", "bad allocation", "Failed to allocate memory"];
    let no_memory = NO_MEMORY.iter().any(|words| message.contains(words));
    // It quotes names out of the model.
    let message = printable(message);
    if no_memory { ModelError::OutOfMemory(message) } else { otherwise(message) }
}

/// CUDA's own words without the C++ around them.
fn in_short(why: &str) -> &str {
    let from = why.find("CUDA failure").map_or(why, |at| &why[at..]);
    from.split_once(" ; ").map_or(from, |(words, _)| words)
}

/// A loaded model.
pub struct Model {
    session: Session,
}

/// A model that knows what its inputs are made of.
pub struct BoundModel {
    session: Session,
    feeder: Feeder,
    reader: OutputReader,
    frames: usize,
    /// What the model leaves open.
    open: Open,
}

/// How many frames a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// At most so many.
    Fixed(usize),
    Open,
}

/// What the shape of a model's input leaves open.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Each output has a row for each of the input.
    rows: bool,
    width: bool,
    height: bool,
}

/// Frames that wait for each other in a batch, at most: each keeps its picture.
const MAX_FRAMES: u32 = 64;

impl Model {
    /// Reads, checks and loads a model file.
    ///
    /// # Errors
    /// When the library, the file or the model is not usable; the message says what to do.
    pub fn load(file: &Path, onnxruntime: &Path, intra_threads: usize) -> Result<Self, ModelError> {
        let file = File::open(file).map_err(ModelError::Unreadable)?;
        Self::read(&file, &Runtime::cpu(onnxruntime, intra_threads))
    }

    /// The same with a file that is open already, and whatever runs it.
    ///
    /// # Errors
    /// As of [`Self::load`].
    pub fn read(mut file: &File, runtime: &Runtime<'_>) -> Result<Self, ModelError> {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(ModelError::Unreadable)?;
        Self::of_bytes(&bytes, runtime)
    }

    pub(crate) fn of_bytes(bytes: &[u8], runtime: &Runtime<'_>) -> Result<Self, ModelError> {
        onnx::check(bytes)?;
        let session = runtime.session(bytes)?;
        check_outlets("inputs", session.inputs())?;
        check_outlets("outputs", session.outputs())?;
        outputs::check_size(session.outputs().iter().map(|outlet| f32_bytes(outlet.dtype())))?;
        Ok(Self { session })
    }

    /// Inputs without those that have a value in the model, and outputs; nothing of what may be
    /// said about them.
    #[must_use]
    pub fn manifest(&self) -> ModelManifest {
        ModelManifest {
            inputs: self.session.inputs().iter().map(tensor_info).collect(),
            outputs: self.session.outputs().iter().map(tensor_info).collect(),
            input: None,
            warnings: Vec::new(),
            metadata: metadata::of(&self.session),
        }
    }

    /// A sentence about each output that no hook, or not each, is shown.
    pub fn left_out(&self) -> impl Iterator<Item = String> {
        let outputs = self.session.outputs().iter().filter(|outlet| !outputs::has_numbers(outlet.dtype()));
        outputs.map(|outlet| {
            let TensorInfo { name, element, .. } = tensor_info(outlet);
            if outputs::has_text(outlet.dtype()) {
                return format!("output `{name}` is text: hooks built for framehook:plugin@0.1.0 do not see it");
            }
            format!("output `{name}` is {element}, neither numbers nor text: no hook sees it")
        })
    }

    /// Makes it ready for frames that become its input as `spec` says.
    ///
    /// # Errors
    /// When the model has no input of that name.
    pub fn bind(self, spec: &InputSpec) -> Result<BoundModel, ModelError> {
        let Self { session } = self;
        let names: Vec<_> = session.inputs().iter().map(Outlet::name).collect();
        if !names.contains(&spec.tensor.as_str()) {
            return Err(ModelError::NoSuchInput { wanted: spec.tensor.clone(), inputs: printable(&names.join(", ")) });
        }
        let reader = OutputReader::new(session.outputs(), spec.batch);
        let feeder = Feeder::new(spec);
        let by_rows = feeder.takes_batches() && outputs::not_by_rows(session.outputs(), spec.batch).is_none();
        let frames = if by_rows { spec.batch.min(MAX_FRAMES) as usize } else { 1 };
        let open = Open::of(&session, spec);
        Ok(BoundModel { session, feeder, reader, frames, open })
    }

    /// The first output that does not have the rows of the batch as its first dimension, so that a
    /// run gives what belongs to one frame only.
    #[must_use]
    pub fn not_by_rows(&self, batch: u32) -> Option<TensorInfo> {
        outputs::not_by_rows(self.session.outputs(), batch).map(tensor_info)
    }
}

impl BoundModel {
    /// So many frames can be run at a time, those of a fixed batch; with one, the other rows are
    /// zeros.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// The same where every run may have as many as it likes.
    #[must_use]
    pub const fn rows(&self) -> Rows {
        if self.open.rows { Rows::Open } else { Rows::Fixed(self.frames) }
    }

    /// The size of a tensor of one frame, if it can be the model's input.
    ///
    /// # Errors
    /// What the model takes.
    pub fn takes(&self, shape: &[u32]) -> Result<Size, String> {
        let Self { open, .. } = self;
        let InputSpec { planes, width, height, .. } = self.feeder.spec();
        let fits = |side: u32, own: u32, is_open: bool| side == own || (is_open && side > 0);
        let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
        match *shape {
            [1, channels, h, w]
                if channels == *planes
                    && fits(h, *height, open.height)
                    && fits(w, *width, open.width)
                    && area(w, h) <= area(*width, *height) =>
            {
                Ok(Size { width: w, height: h })
            }
            _ => {
                let side = |own: u32, is_open: bool| if is_open { "any".to_owned() } else { own.to_string() };
                let (h, w) = (side(*height, open.height), side(*width, open.width));
                let most =
                    if open.height || open.width { format!(", and at most {height} x {width}") } else { String::new() };
                Err(format!("the model takes [1, {planes}, {h}, {w}]{most}; the tensor has {shape:?}"))
            }
        }
    }

    /// Names of the classes, as the model's file has them.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        metadata::of(&self.session).labels
    }

    /// Runs the model on one frame. Outputs are copied into `outputs`, if given: the session keeps
    /// its own.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the input or fails, or the outputs are too large.
    pub fn run(&mut self, frame: &FrameInput<'_>, outputs: Option<&mut Vec<Output>>) -> Result<(), ModelError> {
        self.run_together(slice::from_ref(frame), outputs.map(slice::from_mut))
    }

    /// The same on 1 to [`BoundModel::frames`] frames; `outputs` has as many entries.
    ///
    /// # Errors
    /// As [`BoundModel::run`].
    pub fn run_together(
        &mut self,
        frames: &[FrameInput<'_>],
        outputs: Option<&mut [Vec<Output>]>,
    ) -> Result<(), ModelError> {
        let failed = |error: ort::Error| classify(&error.to_string(), ModelError::Run);
        let inputs = self.feeder.feed(frames).map_err(failed)?;
        let values = self.session.run(inputs).map_err(failed)?;
        outputs::check_size(values.values().map(|value| f32_bytes(value.dtype())))?;
        let outputs = outputs.unwrap_or_default().iter_mut().enumerate();
        for (row, outputs) in outputs {
            self.reader.read(&values, row, outputs).map_err(failed)?;
        }
        Ok(())
    }

    /// The same on frames of any size that [`BoundModel::takes`], as many as [`BoundModel::rows`].
    ///
    /// # Errors
    /// As [`BoundModel::run`].
    pub fn run_sized(
        &mut self,
        frames: &[FrameInput<'_>],
        Size { width, height }: Size,
        outputs: &mut [Vec<Output>],
    ) -> Result<(), ModelError> {
        let rows = frames.len() as u32;
        self.feeder.resize(self.open.rows.then_some(rows), [width, height]);
        if self.open.rows {
            self.reader = OutputReader::by_rows(self.session.outputs(), rows);
        }
        self.run_together(frames, Some(outputs))
    }

    /// The same on a picture of zeros.
    ///
    /// # Errors
    /// As [`BoundModel::run`].
    pub fn run_empty(&mut self, spec: &InputSpec) -> Result<(), ModelError> {
        let zeros = vec![0.0; spec.frame_len()];
        self.run(&FrameInput::of_input_size(spec, &zeros), None)
    }
}

impl Open {
    fn of(session: &Session, spec: &InputSpec) -> Self {
        let outlet = session.inputs().iter().find(|input| input.name() == spec.tensor);
        let sides = match outlet.map(Outlet::dtype) {
            Some(ValueType::Tensor { shape, .. }) => shape.iter().copied().collect(),
            _ => Vec::new(),
        };
        let is_open = |at: usize| sides.get(at) == Some(&-1);
        let (height, width) = match spec.layout {
            Layout::Nchw => (2, 3),
            Layout::Nhwc => (1, 2),
        };
        // Other inputs have the numbers of so many frames as the scenario was resolved for.
        let rows = spec.inputs.is_empty() && outlet.is_some_and(|input| outputs::follow(session.outputs(), input));
        Self { rows, width: is_open(width), height: is_open(height) }
    }
}

fn check_outlets(what: &'static str, outlets: &[Outlet]) -> Result<(), ModelError> {
    if outlets.len() > MAX_TENSORS {
        return Err(ModelError::Count { what, count: outlets.len() });
    }
    let unusable = |name: &&str| name.len() > MAX_TENSOR_NAME || name.contains(char::is_control);
    match outlets.iter().map(Outlet::name).find(unusable) {
        Some(name) => Err(ModelError::Name { what, name: printable(name) }),
        None => Ok(()),
    }
}

fn tensor_info(outlet: &Outlet) -> TensorInfo {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            (element_name(*ty), shape.iter().map(|side| u32::try_from(*side).ok()).collect())
        }
        ValueType::Sequence(_) => ("sequence".into(), Vec::new()),
        ValueType::Map { .. } => ("map".into(), Vec::new()),
        ValueType::Optional(_) => ("optional".into(), Vec::new()),
    };
    TensorInfo { name: outlet.name().to_owned(), element, shape }
}

/// As ONNX spells it.
fn element_name(ty: TensorElementType) -> String {
    match ty {
        TensorElementType::Float16 => "float16".into(),
        TensorElementType::Float32 => "float32".into(),
        TensorElementType::Float64 => "float64".into(),
        TensorElementType::Bfloat16 => "bfloat16".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}
