//! One store: what a plugin's instance owns on the host, its limits, and the only way in.
//!
//! Invariants: [`Guarded::enter`] is the only function that runs guest code; what it lends to the
//! guest is gone when it returns; after a trap the store must be dropped, which
//! [`Failure::store_is_lost`] tells the caller.

use std::{
    cell::Cell,
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use framehook_core::{
    job::{HookLimits, LogLevel},
    reason::{Reason, ReasonCode},
    size::MAX_REASON,
    text::short_line,
};
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::{
    engine::{MEMORY_CEILING, TICK},
    log::{LastWords, Logger, Printed, STDERR},
    media::{Frame, Inference},
    metrics::Metrics,
    models::Models,
    state::State,
    stats::Used,
};

/// Handles a plugin may hold at once; a plugin needs a handful.
const MAX_HANDLES: usize = 256;
/// Bytes that one call of the host by the guest, or one result of the guest, may make the host
/// allocate: a float image of 1,600 x 1,600 pixels, twice over what a read may return.
const HOSTCALL_BYTES: usize = 64 << 20;
/// Elements of all tables of an instance: 10 times the functions of a large plugin.
const MAX_TABLE_ELEMENTS: usize = 100_000;
/// A random seed is tens of bytes.
const MAX_RANDOM: u64 = 64 << 10;
/// A deadline is CPU time, so that a busy machine fails no plugin; but a plugin that waits instead
/// of working is ended after this many times its deadline.
const WALL_FACTOR: u32 = 50;

/// Runs of further models in one call: the faces of a crowd, the lines of a page. Half of the handles that a
/// plugin may hold.
const MAX_RUNS: usize = 128;

/// What a call shows to the guest.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    Frame(Frame<'a>),
    /// With the class names that earlier hooks gave.
    Inference(Inference<'a>, &'a [String]),
}

/// Host side of one instance.
pub(crate) struct Ctx {
    pub(crate) table: ResourceTable,
    wasi: WasiCtx,
    limits: Limits,
    pub(crate) logger: Logger,
    pub(crate) state: State,
    pub(crate) metrics: Metrics,
    /// Bytes of the tensors that the guest holds.
    pub(crate) tensor_bytes: usize,
    /// Bytes of pixels and elements that were copied into the guest.
    pub(crate) copied_bytes: Cell<u64>,
    /// What was not the guest's work.
    apart: Duration,
    pub(crate) highest: Cell<Highest>,
    pub(crate) now_us: u64,
    pub(crate) models: Option<Arc<dyn Models>>,
    /// What the running call may still have of them.
    pub(crate) model_budget: ModelBudget,
    deadline: Deadline,
    lent: Option<Lent>,
}

/// What a hook works with, besides what a call shows to it.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) logger: Logger,
    pub(crate) state: State,
    pub(crate) metrics: Metrics,
    pub(crate) models: Option<Arc<dyn Models>>,
}

/// Runs of further models, and the time for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelBudget {
    pub(crate) runs: usize,
    pub(crate) time: Duration,
}

/// The highest value that a guest had looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Highest {
    pub(crate) value: Option<f32>,
    /// Searches below the threshold of the guest.
    pub(crate) searches: u32,
}

impl Ctx {
    /// What was lent to the running call; `None` outside of a hook.
    pub(crate) fn view(&self) -> Option<View<'_>> {
        // SAFETY: `enter` sets the pointer from a reference that outlives the call and takes it back
        // before it returns; host functions, the only callers, run inside `enter`. The lifetime of
        // the result is cut to that of the borrow of `self`.
        self.lent.as_ref().map(|lent| *unsafe { lent.0.cast::<View<'_>>().as_ref() })
    }

    /// Does what is not the guest's work: its deadline waits meanwhile. Gives the time that it took, too.
    pub(crate) fn apart<R>(&mut self, work: impl FnOnce(&Self) -> R) -> (R, Duration) {
        let (cpu, wall) = (thread_cpu_time(), Instant::now());
        let done = work(self);
        let took = wall.elapsed();
        self.deadline.cpu_start += thread_cpu_time().saturating_sub(cpu);
        self.deadline.wall_end += took;
        self.apart += took;
        (done, took)
    }

    /// Whether the guest may hold a tensor of so many bytes more.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.tensor_bytes.saturating_add(bytes) <= self.limits.memory_bytes
    }
}

/// A [`View`] without its lifetime.
struct Lent(NonNull<()>);

// SAFETY: the pointer is only there while `enter` runs, which stays on one thread.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

struct Deadline {
    cpu_limit: Duration,
    cpu_start: Duration,
    wall_end: Instant,
}

impl Deadline {
    fn starting_now(limit: Duration) -> Self {
        Self { cpu_limit: limit, cpu_start: thread_cpu_time(), wall_end: Instant::now() + limit * WALL_FACTOR }
    }

    /// Ticks until it is worth looking again; `None` when the time is over.
    fn remaining_ticks(&self) -> Option<u64> {
        let left = self.cpu_limit.checked_sub(thread_cpu_time().saturating_sub(self.cpu_start))?;
        let wall_left = self.wall_end.checked_duration_since(Instant::now())?;
        (!left.is_zero() && !wall_left.is_zero()).then(|| ticks(left.min(wall_left)))
    }
}

fn ticks(duration: Duration) -> u64 {
    // The current tick is already under way.
    u64::try_from(duration.as_micros() / TICK.as_micros()).unwrap_or(u64::MAX / 2) + 1
}

pub(crate) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Memory of one instance, all its memories together.
struct Limits {
    memory_bytes: usize,
    used_bytes: usize,
    table_elements: usize,
    /// The guest asked for more than it may have.
    refused: bool,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used_bytes.saturating_add(desired.saturating_sub(current));
        let allowed = used <= self.memory_bytes;
        if allowed {
            self.used_bytes = used;
        } else {
            self.refused = true;
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements.saturating_add(desired.saturating_sub(current));
        let allowed = elements <= MAX_TABLE_ELEMENTS;
        if allowed {
            self.table_elements = elements;
        }
        Ok(allowed)
    }
}

/// Why a call into a plugin gave no result.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ReasonCode,
    pub(crate) message: String,
    /// The store must not be used again.
    pub(crate) store_is_lost: bool,
    /// The plugin answered that it cannot do it, which it may.
    pub(crate) is_its_word: bool,
}

impl Failure {
    /// The plugin returned something that cannot be used; its instance is fine.
    pub(crate) fn unusable_result(message: impl Into<String>) -> Self {
        Self { code: ReasonCode::PluginError, message: message.into(), store_is_lost: false, is_its_word: false }
    }

    pub(crate) fn reason(self, plugin: &str) -> Reason {
        // In the plugin's own words, perhaps: they end up in rows, in the history and in logs.
        Reason::new(self.code, short_line(&format!("{plugin}: {}", self.message), MAX_REASON))
    }
}

/// A store that only [`Guarded::enter`] runs.
pub(crate) struct Guarded {
    store: Store<Ctx>,
    model_time: Duration,
}

impl Guarded {
    pub(crate) fn new(engine: &wasmtime::Engine, limits: &HookLimits, given: Given) -> Self {
        let Given { logger, state, metrics, models } = given;
        let model_time = Duration::from_millis(limits.model_ms);
        let memory_bytes = limits.memory_bytes;
        let wasi = WasiCtx::builder()
            .stdout(Printed::new(logger.clone(), LogLevel::Info, "stdout"))
            .stderr(Printed::new(logger.clone(), LogLevel::Warn, STDERR))
            .max_random_size(MAX_RANDOM)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let limits =
            Limits { memory_bytes: memory_bytes.min(MEMORY_CEILING), used_bytes: 0, table_elements: 0, refused: false };
        let ctx = Ctx {
            table,
            wasi,
            limits,
            logger,
            state,
            metrics,
            tensor_bytes: 0,
            copied_bytes: Cell::new(0),
            apart: Duration::ZERO,
            highest: Cell::default(),
            now_us: 0,
            models,
            model_budget: ModelBudget { runs: 0, time: Duration::ZERO },
            deadline: Deadline::starting_now(Duration::ZERO),
            lent: None,
        };
        let mut store = Store::new(engine, ctx);
        store.limiter(|ctx| &mut ctx.limits);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.epoch_deadline_callback(|ctx| {
            Ok(ctx.data().deadline.remaining_ticks().map_or(UpdateDeadline::Interrupt, UpdateDeadline::Continue))
        });
        Self { store, model_time }
    }

    /// Runs guest code: sets its deadline, lends it `view`, and says what went wrong.
    /// The only function that does.
    pub(crate) fn enter<R>(
        &mut self,
        limit: Duration,
        view: Option<&View<'_>>,
        call: impl FnOnce(&mut Store<Ctx>) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        let ctx = self.store.data_mut();
        ctx.logger.begin_call();
        ctx.lent = view.map(|view| Lent(NonNull::from(view).cast()));
        ctx.deadline = Deadline::starting_now(limit);
        ctx.model_budget = ModelBudget { runs: MAX_RUNS, time: self.model_time };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        ctx.now_us = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        self.store.set_epoch_deadline(ticks(limit));
        let result = call(&mut self.store);
        let ctx = self.store.data_mut();
        ctx.lent = None;
        let refused_memory = std::mem::take(&mut ctx.limits.refused);
        result.map_err(|error| self.failure(&error, limit, refused_memory))
    }

    pub(crate) fn used(&self) -> Used {
        let ctx = self.store.data();
        // A memory never shrinks, so this is the most that it had.
        let memory_bytes = ctx.limits.used_bytes as u64;
        let (copied_bytes, highest_score) = (ctx.copied_bytes.get(), ctx.highest.get().value);
        Used { memory_bytes, copied_bytes, models: ctx.apart, highest_score }
    }

    /// For what is not guest code: lifting handles out of results.
    pub(crate) fn ctx(&mut self) -> &mut Ctx {
        self.store.data_mut()
    }

    fn failure(&self, error: &wasmtime::Error, limit: Duration, refused_memory: bool) -> Failure {
        let (code, message) = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => (
                ReasonCode::PluginTimeout,
                format!("ran longer than its deadline of {} ms and was stopped", limit.as_millis()),
            ),
            _ if refused_memory => (
                ReasonCode::PluginTrap,
                format!(
                    "ended because it wanted more memory than its limit of {} MiB",
                    self.store.data().limits.memory_bytes >> 20
                ),
            ),
            Some(trap) => (ReasonCode::PluginTrap, self.explained(format!("trapped: {trap}"))),
            None => (ReasonCode::PluginTrap, self.explained(format!("ended unexpectedly: {}", error.root_cause()))),
        };
        Failure { code, message, store_is_lost: true, is_its_word: false }
    }

    /// In the plugin's own words, if it had any. A trap is how a panic ends and says nothing of its cause.
    fn explained(&self, how: String) -> String {
        match self.store.data().logger.last_words() {
            LastWords::Panic(words) => words,
            LastWords::Printed(words) => format!("{how}; it printed: {words}"),
            LastWords::None => how,
        }
    }
}
