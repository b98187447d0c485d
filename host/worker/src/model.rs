//! The model: an ONNX Runtime session, one image in, any number of tensors out.
//!
//! Invariants: a model is loaded from bytes that [`framehook_formats::onnx`] has checked, so it reads no other
//! file. Every run uses the same settings, also in benchmarks. Outputs reach the hooks as `f32`,
//! whatever the model gives.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use framehook_core::{artifact::ModelManifest, input::TensorInfo};
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
            Self::Output { .. } => "unsuitable_output",
        }
    }
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
        let session = session(&environment, &bytes, intra_threads).map_err(ModelError::Load)?;
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
        Err(ModelError::NoSuchInput { wanted: wanted.into(), inputs: names.join(", ") })
    }

    /// Runs the model on one image of `shape`. Outputs are copied into `outputs`, if given: the
    /// session keeps its own.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the input or fails, or an output cannot be read as `f32`.
    pub fn run(
        &mut self,
        tensor: &str,
        shape: [usize; 4],
        image: &[f32],
        outputs: Option<&mut Vec<OutputTensor>>,
    ) -> Result<(), ModelError> {
        let failed = |error: ort::Error| ModelError::Run(error.to_string());
        let image = TensorRef::from_array_view((shape, image)).map_err(failed)?;
        let values = self.session.run(ort::inputs![tensor => image]).map_err(failed)?;
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
    let mut kept = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*kept {
        return Ok(environment.clone());
    }
    let builder = ort::init_from(library).map_err(|error| failed(error.to_string()))?;
    let environment = builder.with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
    Ok(kept.insert(environment).clone())
}

/// The only place that decides how a model runs.
fn session(environment: &Environment, bytes: &[u8], intra_threads: usize) -> Result<Session, String> {
    fn text<E: std::fmt::Display>(error: E) -> String {
        error.to_string()
    }
    let builder = Session::builder(environment).map_err(text)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(text)?;
    let builder = builder.with_intra_threads(intra_threads.max(1)).map_err(text)?;
    // A spinning pool takes the core that decodes the next frame.
    let mut builder = builder.with_intra_op_spinning(false).map_err(text)?;
    builder.commit_from_memory(bytes).map_err(text)
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
