//! What a provider can do on this machine: whether it runs at all, and how fast and how exact it runs a
//! scenario's model on its own first frames.

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use framehook_core::{
    execution::{Execution, Measured, Precision, Provider},
    input::InputOptions,
    job::Job,
    reason::Reason,
};
use framehook_engine::media::{Elements, Output, Size};

use crate::{
    feed::FrameInput,
    image::{BgrCache, Image},
    model::{BoundModel, Model, ModelError},
    preprocess::Preprocessor,
    runtime::Runtime,
    source::{FrameSource, SourceError},
};

/// A convolution of 3 by 3 pixels: what detectors consist of.
const CONVOLUTION: &[u8] = include_bytes!("conv.onnx");

/// Runs a small model with a provider in each precision that this processor has for it, and tells in which it
/// ran.
///
/// # Errors
/// When it ran in none.
pub fn check(
    provider: Provider,
    library: &Path,
    options: &BTreeMap<String, String>,
) -> Result<Vec<Precision>, ModelError> {
    let run = |precision| {
        let runtime = Runtime { library, intra_threads: 1, execution: Execution { provider, precision }, options };
        let model = Model::of_bytes(CONVOLUTION, &runtime)?;
        let input = InputOptions::default().resolve(&model.manifest().inputs);
        let input = input.map_err(|error| ModelError::load(&error.to_string()))?;
        model.bind(&input)?.run_empty(&input)
    };
    // Why a provider cannot be used is what this one says: every provider has it.
    run(Precision::F32)?;
    let works = |precision: &Precision| {
        *precision == Precision::F32 || (is_native(provider, *precision) && run(*precision).is_ok())
    };
    Ok(provider.precisions().iter().copied().filter(works).collect())
}

/// Whether the hardware computes in it: OpenVINO takes a hint on every processor, and is slower by it where
/// the processor has no such instructions.
fn is_native(provider: Provider, precision: Precision) -> bool {
    match (provider, precision) {
        (Provider::Openvino, Precision::Bf16) => has_any(&["avx512_bf16", "amx_bf16"]),
        (Provider::Openvino, Precision::F16) => has_any(&["avx512_fp16", "amx_fp16"]),
        _ => true,
    }
}

/// Whether the processor has one of these features, as the kernel calls them.
fn has_any(features: &[&str]) -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let known = text.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    known.split_whitespace().any(|flag| features.contains(&flag))
}

/// Frames that are measured, or as many as there is time for: a choice must not delay a scenario by more than
/// it may gain.
const FRAMES: u32 = 50;
const TIME: Duration = Duration::from_secs(6);
/// Whatever the time: fewer have no median.
const LEAST: u32 = 5;
/// The first inferences plan memory and choose kernels.
const WARM_UP: u32 = 2;

/// Runs a job's model on the first frames of its source, with its provider and with the processor in f32, in
/// turns.
///
/// # Errors
/// With the reason, when the source or the model cannot be used.
pub fn measure(job: &Job, mut source: Box<dyn FrameSource>) -> Result<Measured, Reason> {
    let of_model = |error: ModelError| Reason::new(error.reason_code(), error.to_string());
    let ours = Runtime::of(job);
    let plain = Runtime::cpu(ours.library, ours.intra_threads);
    let mut runs = [Run::new(job, &plain).map_err(of_model)?, Run::new(job, &ours).map_err(of_model)?];
    let (picture, bgr) = (Image::default(), BgrCache::default());
    let mut frames = Frames { job, picture, bgr, input: Vec::new(), preprocessor: None };
    let (started, mut compared) = (Instant::now(), Deviation::default());
    while compared.frames < FRAMES && (compared.frames < LEAST || started.elapsed() < TIME) {
        let Some(_) = source.advance().map_err(|error| error.reason())? else { break };
        source.picture(&mut frames.picture).map_err(|error| error.reason())?;
        let frame = frames.prepare()?;
        runs.iter_mut().try_for_each(|run| run.frame(&frame)).map_err(of_model)?;
        compared.add(&runs[0].outputs, &runs[1].outputs);
    }
    let [plain, ours] = runs.map(Run::median_ms);
    Ok(Measured {
        execution: job.execution,
        ms: ours,
        cpu_ms: plain,
        frames: compared.frames,
        mean_deviation: compared.sum / compared.numbers.max(1) as f64,
        max_deviation: compared.max,
    })
}

/// Makes a model's input of a frame, as the pipeline does where no hook makes it.
struct Frames<'a> {
    job: &'a Job,
    picture: Image,
    bgr: BgrCache,
    input: Vec<f32>,
    preprocessor: Option<Preprocessor>,
}

impl Frames<'_> {
    fn prepare(&mut self) -> Result<FrameInput<'_>, Reason> {
        let (width, height) = (self.picture.width(), self.picture.height());
        let preprocessor = Preprocessor::kept(&mut self.preprocessor, &self.job.input, width, height);
        self.bgr.clear();
        let filled = preprocessor.fill_whole(&self.picture, &mut self.bgr, &mut self.input);
        filled.map_err(|why| SourceError::Unshown { frame: 0, why }.reason())?;
        let size = Size { width, height };
        Ok(FrameInput { image: &self.input, size, geometry: preprocessor.geometry() })
    }
}

/// One of the two that take turns.
struct Run {
    model: BoundModel,
    outputs: Vec<Output>,
    took_ms: Vec<f64>,
}

impl Run {
    fn new(job: &Job, runtime: &Runtime<'_>) -> Result<Self, ModelError> {
        let file = File::open(&job.model).map_err(ModelError::Unreadable)?;
        let mut model = Model::read(&file, runtime)?.bind(&job.input)?;
        (0..WARM_UP).try_for_each(|_| model.run_empty(&job.input))?;
        Ok(Self { model, outputs: Vec::new(), took_ms: Vec::new() })
    }

    fn frame(&mut self, frame: &FrameInput<'_>) -> Result<(), ModelError> {
        let started = Instant::now();
        self.model.run(frame, Some(&mut self.outputs))?;
        self.took_ms.push(started.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    /// 0 if there was no frame.
    fn median_ms(mut self) -> f64 {
        self.took_ms.sort_by(f64::total_cmp);
        self.took_ms.get(self.took_ms.len() / 2).copied().unwrap_or_default()
    }
}

/// How far numbers are apart. What only one side has, as where fewer boxes are found, counts from 0.
#[derive(Default)]
struct Deviation {
    frames: u32,
    numbers: usize,
    sum: f64,
    max: f64,
}

impl Deviation {
    fn add(&mut self, expected: &[Output], given: &[Output]) {
        self.frames += 1;
        for (expected, given) in expected.iter().zip(given) {
            let (expected, given) = (numbers(&expected.data), numbers(&given.data));
            for at in 0..expected.len().max(given.len()) {
                let of = |all: &[f64]| all.get(at).copied().unwrap_or_default();
                let apart = (of(&expected) - of(&given)).abs();
                // Neither is a number, or both are infinite.
                let apart = if apart.is_nan() { 0.0 } else { apart };
                self.numbers += 1;
                self.sum += apart;
                self.max = self.max.max(apart);
            }
        }
    }
}

fn numbers(data: &Elements) -> Vec<f64> {
    match data {
        Elements::F32(all) => all.iter().copied().map(f64::from).collect(),
        Elements::F64(all) => all.clone(),
        Elements::I64(all) => all.iter().map(|n| *n as f64).collect(),
        Elements::U64(all) => all.iter().map(|n| *n as f64).collect(),
        Elements::Text(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use framehook_engine::media::{Element, TensorDesc};

    use super::*;

    #[test]
    fn deviations_are_those_of_each_number_and_of_what_one_side_lacks() {
        let tensor = |values: &[f32]| {
            vec![Output {
                desc: TensorDesc { name: "out".into(), shape: vec![values.len() as u32], element: Element::Float },
                data: Elements::F32(values.to_vec()),
            }]
        };
        let mut deviation = Deviation::default();
        deviation.add(&tensor(&[1.0, -2.0, f32::NAN]), &tensor(&[1.5, -2.0, f32::NAN]));
        deviation.add(&tensor(&[1.0]), &tensor(&[1.0, 3.0]));
        assert_eq!((deviation.frames, deviation.numbers), (2, 5));
        assert!((deviation.sum - 3.5).abs() < 1e-9 && (deviation.max - 3.0).abs() < 1e-9);
    }
}
