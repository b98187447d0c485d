//! Runs of further models on behalf of a guest.
//!
//! Invariant: a run is no work of the guest, so its deadline waits; but a call has so many runs and so much
//! time for them, and what they give counts as memory of the guest.

use framehook_core::prediction::Position;
use wasmtime::component::Resource;

use super::access::{Shown, check_region};
use crate::{
    media::{Region, Size, Tensor},
    models::{Held, ModelInfo, Models, NotRun, Run},
    sandbox::Ctx,
};

type Runs<T> = wasmtime::Result<Result<T, NotRun>>;

impl Ctx {
    pub(super) fn model_list(&self) -> &[ModelInfo] {
        self.models.as_ref().map_or(&[], |models| models.list())
    }

    /// Runs a model on regions of the call's frame.
    pub(super) fn run_regions(&mut self, name: &str, regions: &[Region]) -> Runs<Vec<Resource<Held>>> {
        let Some(shown) = self.shown() else { return Ok(Err(NotRun::NoPixels)) };
        if regions.iter().any(|region| check_region(shown.size, *region).is_err()) {
            return Ok(Err(NotRun::NoPixels));
        }
        let (position, size) = (shown.position, shown.size);
        let made = self.run(name, regions.len(), |ctx, models, model| {
            let Shown { pixels, .. } = ctx.shown().ok_or(NotRun::NoPixels)?;
            models.run(model, pixels, regions, ctx.model_budget.time)
        });
        self.keep_runs(made, position, size)
    }

    /// Runs a model on a tensor of the guest's own.
    pub(super) fn run_tensor(&mut self, name: &str, tensor: &Resource<Tensor>) -> Runs<Resource<Held>> {
        self.table.get(tensor)?;
        let position = self.shown().map_or(Position { pts_us: 0, frame: 0 }, |shown| shown.position);
        let made = self.run(name, 1, |ctx, models, model| {
            let tensor = ctx.table.get(tensor).map_err(|_| NotRun::NoPixels)?;
            models.run_tensor(model, tensor).map(|run| vec![run])
        });
        let size = made.as_ref().ok().and_then(|runs| runs.first()).map(|run| run.input_size);
        let kept = self.keep_runs(made, position, size.unwrap_or(Size { width: 0, height: 0 }))?;
        Ok(kept.and_then(|mut kept| kept.pop().ok_or(NotRun::TooMuch)))
    }

    /// Within what the call may have.
    fn run(
        &mut self,
        name: &str,
        runs: usize,
        run: impl FnOnce(&Self, &dyn Models, usize) -> Result<Vec<Run>, NotRun>,
    ) -> Result<Vec<Run>, NotRun> {
        let models = self.models.clone().ok_or(NotRun::Unknown)?;
        let model = models.list().iter().position(|model| model.name == name).ok_or(NotRun::Unknown)?;
        if self.model_budget.time.is_zero() {
            return Err(NotRun::TooMuch);
        }
        self.model_budget.runs = self.model_budget.runs.checked_sub(runs).ok_or(NotRun::TooMuch)?;
        let (made, took) = self.apart(|ctx| run(ctx, &*models, model));
        self.model_budget.time = self.model_budget.time.saturating_sub(took);
        made
    }

    fn keep_runs(
        &mut self,
        made: Result<Vec<Run>, NotRun>,
        position: Position,
        size: Size,
    ) -> Runs<Vec<Resource<Held>>> {
        let runs = match made {
            Ok(runs) => runs,
            Err(why) => return Ok(Err(why)),
        };
        let held: Vec<_> = runs.into_iter().map(|run| Held { position, size, run }).collect();
        let bytes = held.iter().map(Held::bytes).sum();
        if !self.has_room(bytes) {
            return Ok(Err(NotRun::TooMuch));
        }
        self.tensor_bytes += bytes;
        held.into_iter().map(|one| Ok(self.table.push(one)?)).collect::<wasmtime::Result<_>>().map(Ok)
    }

    pub(super) fn drop_answer(&mut self, answer: Resource<Held>) -> wasmtime::Result<()> {
        let answer = self.table.delete(answer)?;
        self.tensor_bytes -= answer.bytes();
        Ok(())
    }
}
