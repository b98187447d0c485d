//! One job outside of any runner, for tools: the same job, in the same worker, confined in the same way.
//! Nothing is published, and a worker that ends is not started again.

use std::{collections::BTreeMap, io, path::PathBuf};

use framehook_compiled::Compiled;
use framehook_core::{
    execution::Execution,
    job::{Control, ModelJob, Outcome, Report},
    message::DeployOrder,
    reason::{Reason, ReasonCode},
    spec::{Lanes, MAX_LANES, ResolvedHook},
};
use tokio::time::timeout;

use crate::{
    config::RunnerConfig,
    cores::Cores,
    ending,
    prepare::{self, hook_job},
    process::{self, Kind, Worker},
    scenario_log::ScenarioLog,
};

pub use crate::scenario_log::told;

/// What a job reads: models and hooks as the scenario of its order has them.
pub struct Files {
    pub source: PathBuf,
    pub model: PathBuf,
    pub models: BTreeMap<String, ModelJob>,
    pub pre: Vec<Compiled>,
    pub post: Vec<Compiled>,
}

/// A worker at its job.
pub struct Alone {
    config: RunnerConfig,
    worker: Option<Worker>,
    is_ready: bool,
    killed_before: Option<u64>,
}

impl Alone {
    /// Starts a worker. Where the scenario leaves open what runs its model, and the runner is set to whatever
    /// is fastest, that is the processor: nothing is measured for one job.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(config: RunnerConfig, order: &DeployOrder, files: Files) -> io::Result<Self> {
        let scenario = &order.scenario;
        let hooks = |hooks: &[ResolvedHook], compiled: Vec<Compiled>| {
            hooks.iter().zip(compiled).map(|(hook, compiled)| hook_job(hook, compiled)).collect()
        };
        let (pre, post) = (hooks(&scenario.pre, files.pre), hooks(&scenario.post, files.post));
        let files = prepare::Files {
            source: files.source,
            model: files.model,
            models: files.models,
            pre,
            post,
            shadow: Vec::new(),
        };
        let mut job = prepare::job(&config, order, None, files);
        let provider = scenario.provider.unwrap_or(config.provider).provider().unwrap_or_default();
        let precision = scenario.precision.unwrap_or(config.precision);
        config.execute(&mut job, Execution { provider, precision });
        job.lanes = match scenario.lanes.unwrap_or(config.lanes) {
            Lanes::Auto => Cores::new(config.cores, config.intra_threads).enter(Lanes::Auto).lanes(),
            Lanes::Fixed(lanes) => lanes.clamp(1, MAX_LANES),
        };
        let most = config.worker_memory_mib;
        job.memory_mib = Some(scenario.memory_mib.unwrap_or(most).min(most) + process::extra_mib(provider));
        let killed_before = ending::oom_kills();
        let child = process::start(&config, Kind::of(&job))?;
        let worker = Worker::new(child, &job, ScenarioLog::new(config.hook_limits.log))?;
        Ok(Self { config, worker: Some(worker), is_ready: false, killed_before })
    }

    /// The next report. The last one is [`Report::Ended`], whatever becomes of the process.
    pub async fn next(&mut self) -> Report {
        let Some(worker) = &mut self.worker else { return lost(crash("it has ended")) };
        let patience = if self.is_ready { self.config.frame_timeout } else { self.config.start_timeout };
        let why = match timeout(patience, worker.report()).await {
            Ok(Ok(Some(report))) => {
                self.is_ready |= matches!(report, Report::Ready(_));
                return report;
            }
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some(crash(&format!("the worker sent what no worker may send: {error}"))),
            Err(_) => {
                let message = format!("the worker said nothing for {} s", patience.as_secs());
                Some(Reason::new(ReasonCode::SourceStalled, message))
            }
        };
        let Some(mut worker) = self.worker.take() else { return lost(crash("it has ended")) };
        if why.is_some() {
            worker.kill();
        }
        let exit = worker.end().await;
        lost(why.unwrap_or_else(|| ending::crash(&exit, ending::oom_kills() != self.killed_before)))
    }

    /// Lets the frames in flight be finished.
    pub fn stop(&self) {
        if let Some(worker) = &self.worker {
            worker.tell(Control::Stop);
        }
    }
}

fn crash(message: &str) -> Reason {
    Reason::new(ReasonCode::WorkerCrash, message)
}

const fn lost(reason: Reason) -> Report {
    Report::Ended { outcome: Outcome::Retry, reason }
}
