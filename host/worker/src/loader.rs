//! Loads the model of a job, once for each lane.
//!
//! Invariant: the file is opened once. Later lanes read the same bytes, whatever became of its name and of
//! the right to open it.

use std::{fs::File, sync::Arc};

use framehook_core::{
    artifact::VideoManifest,
    job::{Job, Patience},
    memory::{MODEL_COPIES, lane_pixel},
};

use crate::{
    model::{BoundModel, Model, ModelError},
    process,
    runtime::Runtime,
    watch::Watch,
};

/// A thread, and what a decoder may take later on.
const SPARE_MIB: u64 = 32;

pub struct Loader {
    file: File,
    job: Arc<Job>,
    watch: Arc<Watch>,
    /// What the first session took, in MiB, and what else was loaded meanwhile.
    taken_mib: u64,
}

impl Loader {
    /// With the model of the first lane.
    ///
    /// # Errors
    /// When the model cannot be loaded or does not run.
    pub fn new(job: &Arc<Job>, watch: &Arc<Watch>) -> Result<(Self, BoundModel), ModelError> {
        let before = process::data_mib().unwrap_or_default();
        let file = File::open(&job.model).map_err(ModelError::Unreadable)?;
        let mut loader = Self { file, job: Arc::clone(job), watch: Arc::clone(watch), taken_mib: 0 };
        let model = loader.load(job.patience)?;
        loader.taken_mib = process::data_mib().unwrap_or_default().saturating_sub(before);
        Ok((loader, model))
    }

    /// For one more lane: nothing waits for it, so it may take its time.
    ///
    /// # Errors
    /// When the model cannot be loaded or does not run, as for lack of memory.
    pub fn load_another(&self) -> Result<BoundModel, ModelError> {
        self.load(Patience { load_ms: u64::MAX, first_ms: u64::MAX, frame_ms: u64::MAX })
    }

    fn load(&self, patience: Patience) -> Result<BoundModel, ModelError> {
        let input = &self.job.input;
        let load = || Model::read(&self.file, &Runtime::of(&self.job));
        let mut model = self.watch.during("loading the model", patience.load_ms, load)?.bind(input)?;
        // The first run allocates what later ones keep, three times their time; and a model that cannot run
        // at all says so before the scenario is called running.
        self.watch.during("the model's first inference", patience.first_ms, || model.run_empty(input))?;
        Ok(model)
    }

    /// Whether one more lane leaves the others what they may need.
    #[must_use]
    pub fn has_room(&self, video: &VideoManifest) -> bool {
        let Some(limit) = self.job.memory_mib else { return true };
        let Some(used) = process::data_mib() else { return false };
        let needed = used.saturating_add(self.lane_mib(video)).saturating_add(self.reserve_mib());
        let has_room = needed <= u64::from(limit);
        if !has_room {
            eprintln!("one more lane would take this worker to {needed} MiB, and it may have {limit}");
        }
        has_room
    }

    /// A second session needs what the first one did; while it loads, perhaps more.
    fn lane_mib(&self, &VideoManifest { width, height, .. }: &VideoManifest) -> u64 {
        let model = self.file.metadata().map_or(0, |file| file.len()).saturating_mul(MODEL_COPIES);
        let pictures = u64::from(width).saturating_mul(height.into()).saturating_mul(lane_pixel(self.job.input.batch));
        self.taken_mib.max(model >> 20).saturating_add(pictures >> 20)
    }

    /// What may be asked for later on, and be refused if it is not left free: a worker does not live through
    /// that.
    fn reserve_mib(&self) -> u64 {
        let hooks = self.job.pre.len() + self.job.post.len() + self.job.shadow.len();
        let hooks = (hooks as u64).saturating_mul(self.job.limits.memory_bytes as u64);
        (hooks >> 20).saturating_add(SPARE_MIB)
    }
}
