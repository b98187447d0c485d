//! A deployment's settings, changed while its worker runs: the order comes, its plugins are made ready, the
//! worker takes them over and says whether they work.
//!
//! Invariants: the deployment's order is of the revision that a next worker begins with, which is the newest
//! that has not failed. What that took the place of is kept until it has shown that it works. A revision that
//! failed is not tried again.

use std::{fs::Permissions, io, os::unix::fs::PermissionsExt as _, path::Path};

use framehook_compiled::Compiled;
use framehook_core::{
    job::{Change, HookJob, NewHooks},
    message::{DeployOrder, WorkerStatus},
    reason::Reason,
    revision::{RevisionStatus, RolledBack},
    spec::{ResolvedHook, ResolvedScenario},
};

use crate::{
    failure::Failure,
    hooks::Hooks,
    prepare::{JobBuilder, hook_job, no_folder},
    supervisor::Deployment,
};

/// A revision that another one took the place of, until that has shown that it works.
pub(crate) struct Before {
    revision: i64,
    scenario: ResolvedScenario,
    /// What became of its hooks' calls, once the other one has begun.
    hooks: Option<Hooks>,
    /// Its hooks do something else, or begin anew: their calls are counted from 0.
    is_other: bool,
    /// Workers that ended on their own account with the new one.
    ends: u32,
}

/// Ends of workers that a revision on trial may bring about: one may be chance, or somebody's doing.
const ENDS: u32 = 1;

/// Whether hooks of both do the same.
fn are_same(one: &ResolvedScenario, other: &ResolvedScenario) -> bool {
    (&one.pre, &one.post, one.on_plugin_failure, one.limits)
        == (&other.pre, &other.post, other.on_plugin_failure, other.limits)
}

impl Deployment {
    /// The newest order about it, if that is of another revision than what it has, and worth a try.
    pub(crate) fn other_revision(&mut self) -> Option<Box<DeployOrder>> {
        let order = self.orders.borrow_and_update().clone()?;
        let has_failed = self.rolled_back.as_ref().is_some_and(|failed| failed.revision == order.revision);
        (order.revision > self.order.revision && !has_failed).then_some(order)
    }

    /// Takes a revision on: from now on workers begin with it.
    pub(crate) fn take_on(&mut self, order: &DeployOrder) {
        let revision = std::mem::replace(&mut self.order.revision, order.revision);
        let scenario = std::mem::replace(&mut self.order.scenario, order.scenario.clone());
        tracing::info!(revision = order.revision, "new revision");
        let is_other = order.fresh || !are_same(&scenario, &order.scenario);
        self.before = Some(Before { revision, scenario, hooks: None, is_other, ends: 0 });
    }

    /// The same where no worker runs: what its hooks begin with is decided here.
    pub(crate) fn take_on_at_rest(&mut self, order: &DeployOrder) {
        self.take_on(order);
        if order.fresh {
            self.state = Default::default();
        }
        self.count_new_hooks();
    }

    /// Frames are of it from `from_frame` on.
    pub(crate) fn on_changed(&mut self, revision: i64, from_frame: u64) {
        if revision != self.order.revision {
            return;
        }
        self.count_new_hooks();
        self.show_revision(revision, Some(from_frame));
    }

    fn count_new_hooks(&mut self) {
        let Some(before) = &mut self.before else { return };
        if before.is_other {
            before.hooks = Some(std::mem::replace(&mut self.hooks, Hooks::new(&self.order.scenario)));
        }
    }

    pub(crate) fn on_proven(&mut self, revision: i64) {
        if revision == self.order.revision {
            self.before = None;
        }
    }

    /// Goes back to the revision before `revision`, and says so.
    pub(crate) fn go_back(&mut self, revision: i64, reason: Reason) {
        tracing::warn!(revision, why = reason.message, "revision rolled back");
        if revision == self.order.revision
            && let Some(before) = self.before.take()
        {
            (self.order.revision, self.order.scenario) = (before.revision, before.scenario);
            if let Some(hooks) = before.hooks {
                self.hooks = hooks;
            }
        }
        self.rolled_back = Some(RolledBack { revision, reason });
        self.show_revision(self.order.revision, None);
    }

    /// After a worker has ended, or could not be prepared: whether that is for its revision to answer for,
    /// which is given up then.
    pub(crate) fn blames_revision(&mut self, is_for_good: bool, reason: &Reason) -> bool {
        let Some(before) = &mut self.before else { return false };
        before.ends += 1;
        let is_given_up = is_for_good || before.ends > ENDS;
        if is_given_up {
            self.go_back(self.order.revision, reason.clone());
        }
        is_given_up
    }

    pub(crate) fn show_revision(&self, running: i64, from_frame: Option<u64>) {
        let rolled_back = self.rolled_back.clone();
        let told = Some(RevisionStatus { running, from_frame, rolled_back });
        self.update(|status| status.revision = told);
    }

    /// A frame of the worker came: if it is the first of its revision, the heartbeat says so.
    pub(crate) fn note_first_frame(&self, frame: u64) {
        let note = |status: &mut WorkerStatus| {
            if let Some(revision) = &mut status.revision {
                revision.from_frame.get_or_insert(frame);
            }
        };
        self.update(note);
    }
}

impl JobBuilder {
    /// What makes a worker that runs `before` go on with another order; its plugins are laid into the
    /// worker's folder.
    ///
    /// # Errors
    /// With the reason, and whether another try may help.
    pub(crate) async fn change(
        &self,
        order: &DeployOrder,
        before: &ResolvedScenario,
        folder: &Path,
    ) -> Result<Change, Failure> {
        let (scenario, revision) = (&order.scenario, order.revision);
        if are_same(before, scenario) && !order.fresh {
            return Ok(Change { revision, hooks: None });
        }
        let hooks = NewHooks {
            pre: self.later_hooks(&scenario.pre, folder).await?,
            post: self.later_hooks(&scenario.post, folder).await?,
            on_plugin_failure: scenario.on_plugin_failure,
            limits: self.config.limits_of(&scenario.limits),
            fresh: order.fresh,
        };
        forget_others(folder, &hooks).await;
        Ok(Change { revision, hooks: Some(Box::new(hooks)) })
    }

    async fn later_hooks(&self, hooks: &[ResolvedHook], folder: &Path) -> Result<Vec<HookJob>, Failure> {
        let mut jobs = Vec::with_capacity(hooks.len());
        for hook in hooks {
            let Compiled { path, digest } = self.compiled(hook).await?;
            let name = digest.hex().to_owned();
            lay(&path, &folder.join(&name)).await.map_err(|error| no_folder(&error))?;
            jobs.push(hook_job(hook, Compiled { path: name.into(), digest }));
        }
        Ok(jobs)
    }
}

/// Copies a compiled plugin to where a worker without privileges can read it: the folders above are closed to
/// all others, and the worker has its own open.
async fn lay(from: &Path, to: &Path) -> io::Result<()> {
    if tokio::fs::try_exists(to).await? {
        return Ok(());
    }
    let unfinished = to.with_extension("unfinished");
    tokio::fs::copy(from, &unfinished).await?;
    tokio::fs::set_permissions(&unfinished, Permissions::from_mode(0o644)).await?;
    tokio::fs::rename(&unfinished, to).await
}

/// What the worker has loaded it has in memory: only what it is about to load needs to be there.
async fn forget_others(folder: &Path, hooks: &NewHooks) {
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let path = entry.path();
        let is_needed =
            hooks.pre.iter().chain(&hooks.post).any(|hook| Some(hook.compiled.as_os_str()) == path.file_name());
        if !is_needed {
            tokio::fs::remove_file(path).await.ok();
        }
    }
}

/// A folder for the plugins of later changes, readable for a worker of any user.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn folder(parent: &Path) -> io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("plugins-").tempdir_in(parent)?;
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    Ok(folder)
}
