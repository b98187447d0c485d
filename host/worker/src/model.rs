//! The model: an ONNX Runtime session, one image in, any number of tensors out.
//!
//! Invariants: a model is loaded from bytes that [`framehook_formats::onnx`] has checked, so it reads no
//! other file: the bytes that are checked are the bytes that are loaded. Every run uses the same settings,
//! also in benchmarks. Outputs reach the hooks as `f32`, whatever the model gives; their size is checked
//! before they are copied.

use std::path::Path;

use parking_lot::Mutex;

use framehook_core::{
    artifact::ModelManifest,
    input::TensorInfo,
    probe::{MAX_TENSOR_NAME, MAX_TENSORS, printable},
    reason::ReasonCode,
};
use framehook_engine::media::TensorDesc;
use framehook_formats::onnx::{self, OnnxError};
use ort::{
    environment::Environment,
    session::{Session, builder::GraphOptimizationLevel},
    value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType},
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
        "output `{name}` has elements of type {element}, which no hook can read; export the model with numeric outputs"
    )]
    Output { name: String, element: String },
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
    #[error("the model needs more memory than the worker may have: {0}")]
    OutOfMemory(String),
}

impl ModelError {
    /// A stable code for an upload's verdict.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Library { .. } => "no_onnxruntime",
            Self::Unreadable(_) => "unreadable",
            Self::Onnx(error) => error.code(),
            Self::Load(_) | Self::Run(_) => "model_load",
            Self::NoSuchInput { .. } => "unsuitable_input",
            Self::Output { .. } | Self::OutputSize { .. } => "unsuitable_output",
            Self::Count { .. } | Self::Name { .. } => "unsuitable_tensors",
            Self::OutOfMemory(_) => "out_of_memory",
        }
    }

    /// The same as the reason of a scenario.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::OutOfMemory(_) => ReasonCode::OutOfMemory,
            _ => ReasonCode::ModelLoad,
        }
    }
}

/// The outputs of one run together, as `f32`: a segmentation of 2,048 x 1,024 pixels into 19 classes has 152
/// MiB, a detector at 1,280 x 1,280 pixels 16 MiB.
const MAX_OUTPUT_BYTES: u64 = 256 << 20;

/// What ONNX Runtime says, as an error: that there is no memory is not the fault of the model's form.
fn classify(message: &str, otherwise: fn(String) -> ModelError) -> ModelError {
    const NO_MEMORY: [&str; 3] = ["bad_alloc", "bad allocation", "Failed to allocate memory"];
    let no_memory = NO_MEMORY.iter().any(|words| message.contains(words));
    // It quotes names out of the model.
    let message = printable(message);
    if no_memory { ModelError::OutOfMemory(message) } else { otherwise(message) }
}

/// One output of one run; kept and filled again.
#[derive(Debug)]
pub struct OutputTensor {
    pub desc: TensorDesc,
    pub data: Vec<f32>,
}

/// A loaded model.
pub struct Model {
    session: Session,
}

impl Model {
    /// Reads, checks and loads a model file.
    ///
    /// # Errors
    /// When the library, the file or the model is not usable; the message says what to do.
    pub fn load(file: &Path, onnxruntime: &Path, intra_threads: usize) -> Result<Self, ModelError> {
        let bytes = std::fs::read(file).map_err(ModelError::Unreadable)?;
        onnx::check(&bytes)?;
        let environment = environment(onnxruntime)?;
        let session = session(&environment, &bytes, intra_threads);
        let session = session.map_err(|error| classify(&error.to_string(), ModelError::Load))?;
        check_outlets("inputs", session.inputs())?;
        check_outlets("outputs", session.outputs())?;
        check_output_size(session.outputs().iter().map(|outlet| f32_bytes(outlet.dtype())))?;
        Ok(Self { session })
    }

    /// Inputs without those that have a value in the model, and outputs.
    #[must_use]
    pub fn manifest(&self) -> ModelManifest {
        ModelManifest {
            inputs: self.session.inputs().iter().map(tensor_info).collect(),
            outputs: self.session.outputs().iter().map(tensor_info).collect(),
        }
    }

    /// # Errors
    /// When the model has no input of that name.
    pub fn check_input(&self, wanted: &str) -> Result<(), ModelError> {
        let names: Vec<_> = self.session.inputs().iter().map(Outlet::name).collect();
        if names.contains(&wanted) {
            return Ok(());
        }
        Err(ModelError::NoSuchInput { wanted: wanted.into(), inputs: printable(&names.join(", ")) })
    }

    /// Runs the model on one image of `shape`. Outputs are copied into `outputs`, if given: the
    /// session keeps its own.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the input or fails, or the outputs are too large or cannot be read as `f32`.
    pub fn run(
        &mut self,
        tensor: &str,
        shape: [usize; 4],
        image: &[f32],
        outputs: Option<&mut Vec<OutputTensor>>,
    ) -> Result<(), ModelError> {
        let failed = |error: ort::Error| classify(&error.to_string(), ModelError::Run);
        let image = TensorRef::from_array_view((shape, image)).map_err(failed)?;
        let values = self.session.run(ort::inputs![tensor => image]).map_err(failed)?;
        check_output_size(values.values().map(|value| f32_bytes(value.dtype())))?;
        let Some(outputs) = outputs else { return Ok(()) };
        let empty = || OutputTensor { desc: TensorDesc { name: String::new(), shape: Vec::new() }, data: Vec::new() };
        outputs.resize_with(values.len(), empty);
        for ((name, value), output) in values.iter().zip(outputs) {
            copy_output(name, &value, output)?;
        }
        Ok(())
    }
}

/// Loads ONNX Runtime ahead of the first model.
///
/// # Errors
/// When the library is not usable.
pub fn preload(onnxruntime: &Path) -> Result<(), ModelError> {
    environment(onnxruntime).map(drop)
}

/// ONNX Runtime allows one environment a process, so the first library that loads stays.
fn environment(library: &Path) -> Result<Environment, ModelError> {
    static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);
    let failed = |why: String| ModelError::Library { path: library.display().to_string(), why };
    let mut kept = ENVIRONMENT.lock();
    if let Some(environment) = &*kept {
        return Ok(environment.clone());
    }
    let builder = ort::init_from(library).map_err(|error| failed(error.to_string()))?;
    let environment = builder.with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
    Ok(kept.insert(environment).clone())
}

/// The only place that decides how a model runs.
fn session(environment: &Environment, bytes: &[u8], intra_threads: usize) -> ort::Result<Session> {
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(intra_threads.max(1))?
        // A spinning pool takes the core that decodes the next frame.
        .with_intra_op_spinning(false)?
        .commit_from_memory(bytes)
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

/// What a value takes as `f32`. Sides that are not known yet count as one; they are checked when they are.
fn f32_bytes(ty: &ValueType) -> u64 {
    let ValueType::Tensor { shape, .. } = ty else { return 0 };
    let sides = shape.iter().map(|side| u64::try_from(*side).unwrap_or(1));
    sides.fold(size_of::<f32>() as u64, u64::saturating_mul)
}

fn check_output_size(bytes: impl Iterator<Item = u64>) -> Result<(), ModelError> {
    let total = bytes.fold(0, u64::saturating_add);
    if total > MAX_OUTPUT_BYTES { Err(ModelError::OutputSize { mib: total >> 20 }) } else { Ok(()) }
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

fn copy_output(name: &str, value: &DynValue, output: &mut OutputTensor) -> Result<(), ModelError> {
    let failed = |element: String| ModelError::Output { name: name.into(), element };
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(failed("sequence or map".into()));
    };
    if output.desc.name != name {
        name.clone_into(&mut output.desc.name);
    }
    output.desc.shape.clear();
    output.desc.shape.extend(shape.iter().map(|side| u32::try_from(*side).unwrap_or_default()));
    output.data.clear();
    // An empty tensor may have no memory behind it.
    if output.desc.shape.contains(&0) {
        return Ok(());
    }
    macro_rules! copy {
        ($element:ty, $convert:expr) => {{
            let (_, data) = value.try_extract_tensor::<$element>().map_err(|e| ModelError::Run(e.to_string()))?;
            output.data.extend(data.iter().map($convert));
        }};
    }
    match ty {
        TensorElementType::Float32 => copy!(f32, |v| *v),
        TensorElementType::Float16 => copy!(half::f16, |v| v.to_f32()),
        TensorElementType::Bfloat16 => copy!(half::bf16, |v| v.to_f32()),
        TensorElementType::Float64 => copy!(f64, |v| *v as f32),
        TensorElementType::Int64 => copy!(i64, |v| *v as f32),
        TensorElementType::Int32 => copy!(i32, |v| *v as f32),
        TensorElementType::Int16 => copy!(i16, |v| f32::from(*v)),
        TensorElementType::Int8 => copy!(i8, |v| f32::from(*v)),
        TensorElementType::Uint64 => copy!(u64, |v| *v as f32),
        TensorElementType::Uint32 => copy!(u32, |v| *v as f32),
        TensorElementType::Uint16 => copy!(u16, |v| f32::from(*v)),
        TensorElementType::Uint8 => copy!(u8, |v| f32::from(*v)),
        TensorElementType::Bool => copy!(bool, |v| f32::from(u8::from(*v))),
        other => return Err(failed(element_name(*other))),
    }
    Ok(())
}
