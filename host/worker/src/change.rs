//! Other settings for a job that runs: made beside the frames, taken over between two of them, kept or given
//! up.
//!
//! Invariants: a frame has the settings of one revision from its pre hooks to its row. The first stage
//! decides on which frame a revision begins or ends, and the last one follows when that frame comes to it.
//! Plugins are loaded and started on a thread of its own ([`Maker`]); between two frames, only a hook that
//! goes on with something kept is started once more.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
};

use framehook_core::{
    hook_metrics,
    hook_state::{HookState, StateQuota},
    job::{Change, HookJob, HookLimits, Job, NewHooks, Report},
    prediction::{Position, Provenance},
    reason::Reason,
    revision::{Trial, name_of_job},
    size::room_for_outputs,
    spec::OnPluginFailure,
};
use framehook_engine::{
    Engine, Plugin,
    chain::{self, Chain, ChainSettings, Stage},
};
use parking_lot::Mutex;

use crate::{process, report::Reporter};

/// The settings that a frame is of.
pub struct Settings {
    pub provenance: Provenance,
    pub pre: Vec<HookJob>,
    pub post: Vec<HookJob>,
    on_failure: OnPluginFailure,
    limits: HookLimits,
}

impl Settings {
    /// Those that a job begins with.
    #[must_use]
    pub fn of(job: &Job) -> Arc<Self> {
        Arc::new(Self {
            provenance: job.provenance.clone(),
            pre: job.pre.clone(),
            post: job.post.clone(),
            on_failure: job.on_plugin_failure,
            limits: job.limits,
        })
    }

    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.provenance.revision
    }

    /// How many hooks they have.
    #[must_use]
    pub const fn hooks(&self) -> usize {
        self.pre.len() + self.post.len()
    }

    fn with(&self, revision: i64, hooks: Option<&NewHooks>) -> Self {
        let (mut provenance, mut pre, mut post) = (self.provenance.clone(), self.pre.clone(), self.post.clone());
        let (mut on_failure, mut limits) = (self.on_failure, self.limits);
        provenance.revision = revision;
        if let Some(new) = hooks {
            (pre, post, on_failure, limits) = (new.pre.clone(), new.post.clone(), new.on_plugin_failure, new.limits);
            provenance.plugins = pre.iter().chain(&post).map(|hook| hook.identity.clone()).collect();
        }
        Self { provenance, pre, post, on_failure, limits }
    }
}

/// Chains in the place of those that run.
pub struct Chains {
    pub pre: Chain,
    pub post: Chain,
    /// They begin with nothing kept.
    pub is_fresh: bool,
    pub trial: Trial,
}

/// Settings that are ready to be taken over. Without chains, only their number is another.
pub struct Ready {
    pub settings: Arc<Settings>,
    pub chains: Option<Chains>,
}

/// What the first stage is to do next.
pub enum Next {
    Begin(Box<Ready>),
    /// This revision failed.
    GoBack(i64),
    /// This one works.
    Keep(i64),
}

/// What waits for the first stage.
pub struct Changes {
    waiting: AtomicBool,
    queue: Mutex<VecDeque<Next>>,
    now: Mutex<Now>,
}

struct Now {
    settings: Arc<Settings>,
    /// The frame that was worked on last.
    last: Option<Position>,
}

impl Changes {
    #[must_use]
    pub fn new(job: &Job) -> Self {
        let now = Now { settings: Settings::of(job), last: job.resume_after };
        Self { waiting: AtomicBool::new(false), queue: Mutex::default(), now: Mutex::new(now) }
    }

    pub fn push(&self, next: Next) {
        let mut queue = self.queue.lock();
        queue.push_back(next);
        self.waiting.store(true, Ordering::Release);
    }

    /// What is to be done before the next frame. Costs next to nothing where that is nothing.
    pub fn next(&self) -> Option<Next> {
        if !self.waiting.load(Ordering::Acquire) {
            return None;
        }
        let mut queue = self.queue.lock();
        let next = queue.pop_front();
        self.waiting.store(!queue.is_empty(), Ordering::Release);
        next
    }

    /// The settings of the frames from now on.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.now.lock().settings)
    }

    pub fn set(&self, settings: Arc<Settings>) {
        self.now.lock().settings = settings;
    }

    /// A frame is through the first stage.
    pub fn worked_on(&self, at: Position) {
        self.now.lock().last = Some(at);
    }

    fn now(&self) -> (Arc<Settings>, Option<Position>) {
        let now = self.now.lock();
        (Arc::clone(&now.settings), now.last)
    }
}

/// What new chains are made of.
pub struct Maker {
    pub engine: Engine,
    /// Those of the job's chains.
    pub settings: ChainSettings,
    pub changes: Arc<Changes>,
    pub reporter: Arc<Reporter>,
    /// Where plugins come to that the job did not name.
    pub folder: Option<File>,
}

impl Maker {
    /// Makes each change ready that comes; one that cannot begin is given up at once.
    pub fn run(self, orders: Receiver<Change>) {
        for Change { revision, hooks } in orders {
            match self.make(revision, hooks.as_deref()) {
                Ok(ready) => self.changes.push(Next::Begin(Box::new(ready))),
                Err(reason) => self.reporter.send(&Report::RolledBack { revision, reason }),
            }
        }
    }

    fn make(&self, revision: i64, hooks: Option<&NewHooks>) -> Result<Ready, Reason> {
        let (before, last) = self.changes.now();
        let settings = Arc::new(before.with(revision, hooks));
        let Some(new) = hooks else { return Ok(Ready { settings, chains: None }) };
        let count = settings.hooks();
        let of = |stage, before: &[HookJob]| ChainSettings {
            start: framehook_engine::media::Start { after: last, ..self.settings.start.clone() },
            limits: new.limits,
            on_failure: new.on_plugin_failure,
            room: room_for_outputs(new.limits.prediction_bytes, count),
            quota: StateQuota::of(count, new.limits.state_bytes),
            metric_names: hook_metrics::names_of(count),
            state: HookState::default(),
            before: Some(if new.fresh { Default::default() } else { chain::versions(stage, before) }),
            ..self.settings.clone()
        };
        let pre = Chain::with(&self.load(&new.pre)?, Stage::Pre, &new.pre, &of(Stage::Pre, &before.pre))?;
        let post = Chain::with(&self.load(&new.post)?, Stage::Post, &new.post, &of(Stage::Post, &before.post))?;
        if let Some(reason) = pre.failing().or_else(|| post.failing()) {
            return Err(reason);
        }
        let all = |settings: &Settings| settings.pre.iter().chain(&settings.post).map(of_trial).collect::<Vec<_>>();
        let are_all_new = before.limits != new.limits || new.fresh;
        let trial = Trial::of(&all(&before), &all(&settings), |(name, ..)| name.clone(), are_all_new);
        Ok(Ready { settings, chains: Some(Chains { pre, post, is_fresh: new.fresh, trial }) })
    }

    fn load(&self, hooks: &[HookJob]) -> Result<Vec<Plugin>, Reason> {
        let load = |job: &HookJob| {
            let plugin = self.engine.load_bytes(&job.compiled, self.read(&job.compiled), &job.digest);
            plugin.map_err(|error| error.reason(&job.identity))
        };
        hooks.iter().map(load).collect()
    }

    fn read(&self, name: &Path) -> io::Result<Vec<u8>> {
        let folder = self.folder.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut code = Vec::new();
        process::open_in(folder, name)?.read_to_end(&mut code)?;
        Ok(code)
    }
}

/// What makes a hook another one.
fn of_trial(hook: &HookJob) -> (String, framehook_core::ids::Digest, serde_json::Value) {
    (name_of_job(hook), hook.identity.digest.clone(), hook.config.clone())
}
