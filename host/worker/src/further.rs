//! Further models of a job, which its hooks run.
//!
//! Invariant: a model has one session, which is lent to one hook at a time, so those of both stages share it.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use framehook_core::{
    input::InputSpec,
    job::{Job, ModelJob, Report},
    memory::FURTHER_ROWS,
};
use framehook_engine::{
    media::{FramePixels, Geometry, PixelFormat, Region, Size, Tensor},
    models::{ModelInfo, Models, NotRun, Run},
};
use parking_lot::Mutex;

use crate::{
    feed::FrameInput,
    image::{BGR_PIXEL, Bgr},
    model::{BoundModel, Model, ModelError, Rows},
    preprocess::Preprocessor,
    report::Reporter,
    runtime::Runtime,
    watch::Watch,
};

/// A run that takes so long is worth a word to the runner, which gives up a worker that says nothing for at
/// least a second.
const ALIVE_FROM: Duration = Duration::from_millis(50);

pub(crate) struct Further {
    list: Vec<ModelInfo>,
    models: Vec<Mutex<Session>>,
    watch: Arc<Watch>,
    reporter: Arc<Reporter>,
    /// The most that one run may take.
    limit_ms: u64,
}

struct Session {
    spec: InputSpec,
    model: BoundModel,
}

impl Further {
    /// Loads the models of a job, if it has any.
    ///
    /// # Errors
    /// When one cannot be loaded or does not run; with its name.
    pub(crate) fn load(
        job: &Job,
        watch: &Arc<Watch>,
        reporter: &Arc<Reporter>,
    ) -> Result<Option<Arc<Self>>, (String, ModelError)> {
        let (watch, reporter) = (Arc::clone(watch), Arc::clone(reporter));
        let mut all = Self { list: Vec::new(), models: Vec::new(), watch, reporter, limit_ms: job.patience.frame_ms };
        for (name, ModelJob { model, input }) in &job.models {
            let load = || Session::load(model, input, job);
            let session = all.watch.during("loading a further model", job.patience.load_ms, load);
            let mut session = session.map_err(|error| (name.clone(), error))?;
            let first = || session.model.run_empty(input);
            let ran = all.watch.during("a further model's first inference", job.patience.first_ms, first);
            ran.map_err(|error| (name.clone(), error))?;
            let (name, input_size) = (name.clone(), Size { width: input.width, height: input.height });
            all.list.push(ModelInfo { name, input_size, labels: session.model.labels() });
            all.models.push(Mutex::new(session));
        }
        Ok((!all.list.is_empty()).then(|| Arc::new(all)))
    }

    fn during<T>(&self, run: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = self.watch.during("an inference of a further model", self.limit_ms, run);
        // Runs of one frame together may take longer than a frame may.
        if begun.elapsed() > ALIVE_FROM {
            self.reporter.send(&Report::Alive);
        }
        done
    }
}

impl Models for Further {
    fn list(&self) -> &[ModelInfo] {
        &self.list
    }

    fn run(
        &self,
        model: usize,
        pixels: &dyn FramePixels,
        regions: &[Region],
        time: Duration,
    ) -> Result<Vec<Run>, NotRun> {
        let (begun, mut runs) = (Instant::now(), Vec::with_capacity(regions.len()));
        let mut session = self.models[model].lock();
        for batch in regions.chunks(session.rows()) {
            if begun.elapsed() >= time {
                return Err(NotRun::TooMuch);
            }
            runs.extend(self.during(|| session.run(pixels, batch))?);
        }
        Ok(runs)
    }

    fn run_tensor(&self, model: usize, tensor: &Tensor) -> Result<Run, NotRun> {
        let mut session = self.models[model].lock();
        self.during(|| session.run_tensor(tensor))
    }
}

/// A region as the model gets it.
struct Part {
    input: Vec<f32>,
    size: Size,
    /// From the region.
    own: Geometry,
    /// From the frame.
    geometry: Geometry,
}

impl Session {
    fn load(file: &Path, spec: &InputSpec, job: &Job) -> Result<Self, ModelError> {
        let file = std::fs::File::open(file).map_err(ModelError::Unreadable)?;
        Ok(Self { spec: spec.clone(), model: Model::read(&file, &Runtime::of(job))?.bind(spec)? })
    }

    /// Regions that are run together.
    fn rows(&self) -> usize {
        match self.model.rows() {
            Rows::Fixed(rows) => rows,
            Rows::Open => FURTHER_ROWS as usize,
        }
    }

    /// On up to [`Session::rows`] regions.
    fn run(&mut self, pixels: &dyn FramePixels, regions: &[Region]) -> Result<Vec<Run>, NotRun> {
        let input_size = Size { width: self.spec.width, height: self.spec.height };
        let parts = regions.iter().map(|region| part(&self.spec, pixels, *region)).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<_> =
            parts.iter().map(|p| FrameInput { image: &p.input, size: p.size, geometry: p.own }).collect();
        let mut outputs = vec![Vec::new(); parts.len()];
        self.model.run_sized(&inputs, input_size, &mut outputs).map_err(failed)?;
        let run = |(part, outputs): (Part, _)| Run { input_size, geometry: part.geometry, outputs };
        Ok(parts.into_iter().zip(outputs).map(run).collect())
    }

    fn run_tensor(&mut self, tensor: &Tensor) -> Result<Run, NotRun> {
        let input_size = self.model.takes(&tensor.shape).map_err(NotRun::Unfit)?;
        let geometry = Geometry { scale_x: 1.0, scale_y: 1.0, pad_x: 0.0, pad_y: 0.0 };
        let input = FrameInput { image: &tensor.data, size: input_size, geometry };
        let mut outputs = [Vec::new()];
        self.model.run_sized(&[input], input_size, &mut outputs).map_err(failed)?;
        let [outputs] = outputs;
        Ok(Run { input_size, geometry, outputs })
    }
}

fn failed(error: ModelError) -> NotRun {
    NotRun::Failed(error.to_string())
}

fn part(spec: &InputSpec, pixels: &dyn FramePixels, region: Region) -> Result<Part, NotRun> {
    let size = Size { width: region.width, height: region.height };
    let bgr = pixels.read(region, size, PixelFormat::Bgr).map_err(|_| NotRun::NoPixels)?;
    let mut preprocessor = Preprocessor::new(spec, size.width, size.height);
    let picture = Bgr { data: &bgr, stride: size.width as usize * BGR_PIXEL, width: size.width, height: size.height };
    let mut input = Vec::new();
    let whole = Region { x: 0, y: 0, ..region };
    preprocessor.fill(picture, whole, &mut input).map_err(|_| NotRun::NoPixels)?;
    let own = preprocessor.geometry();
    Ok(Part { input, size, own, geometry: own.of_part(region) })
}
