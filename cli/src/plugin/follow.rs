//! A job from its first report to its last.

use framehook_core::{
    hook_stats::HookStats,
    job::{Outcome, PluginLog, Report},
    prediction_record::PredictionRecord,
    reason::Reason,
};
use framehook_runner::alone::Alone;

/// What a worker says meanwhile.
pub(super) enum Said {
    /// Everything is loaded.
    Ready,
    Frame(PredictionRecord),
    Log(PluginLog),
    /// What became of the hooks' calls so far.
    HookStats(Vec<HookStats>),
}

/// Hands on what the worker says, of at most so many frames; a Ctrl-C ends it in order.
///
/// # Errors
/// Those of `each`.
pub(super) async fn follow(
    mut alone: Alone,
    limit: Option<u64>,
    mut each: impl FnMut(Said) -> anyhow::Result<()>,
) -> anyhow::Result<(Outcome, Reason)> {
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    let (mut is_interrupted, mut frames) = (false, 0);
    loop {
        let report = tokio::select! {
            report = alone.next() => report,
            _ = &mut interrupt, if !is_interrupted => {
                is_interrupted = true;
                alone.stop();
                continue;
            }
        };
        match report {
            Report::Ready(_) => each(Said::Ready)?,
            Report::Frame(frame) if limit.is_none_or(|most| frames < most) => {
                frames += 1;
                if limit == Some(frames) {
                    alone.stop();
                }
                each(Said::Frame(frame))?;
            }
            Report::Log(line) => each(Said::Log(line))?,
            Report::HookStats(hooks) => each(Said::HookStats(hooks))?,
            Report::Ended { outcome, reason } => return Ok((outcome, reason)),
            _ => {}
        }
    }
}
