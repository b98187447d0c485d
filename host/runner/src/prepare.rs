//! From an order to a job: every blob verified, every plugin compiled, the source within its bounds.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use framehook_compiled::{CompileError, Compiled, CompiledPlugins};
use framehook_core::{
    execution::Execution,
    hook_state::HookState,
    ids::Digest,
    job::{HookJob, Job, ModelJob, PartFile},
    message::DeployOrder,
    prediction::{PluginIdentity, Position, Provenance},
    reason::{Reason, ReasonCode},
    recorded::{Record, Replay},
    spec::{ResolvedHook, ResolvedModel, ResolvedSource},
};
use framehook_infra::{
    blobs::{BlobError, Blobs},
    source_file::{self, Refusal},
};

use crate::{
    config::RunnerConfig,
    failure::Failure,
    providers::{Chosen, Providers},
};

/// What a job reads.
pub(crate) struct Files {
    pub(crate) source: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) models: BTreeMap<String, ModelJob>,
    pub(crate) pre: Vec<HookJob>,
    pub(crate) post: Vec<HookJob>,
    pub(crate) shadow: Vec<HookJob>,
}

/// The job of a worker that has these files and goes on after `resume_after`, in one lane, whatever runs its
/// model.
pub(crate) fn job(config: &RunnerConfig, order: &DeployOrder, resume_after: Option<Position>, files: Files) -> Job {
    let scenario = &order.scenario;
    let Files { source, model, models, pre, post, shadow } = files;
    let plugins = pre.iter().chain(&post).map(|hook| hook.identity.clone()).collect();
    let decoder = scenario.decoder.unwrap_or(config.decoder);
    Job {
        scenario_id: order.scenario_id,
        generation: order.generation,
        created_at: scenario.replay.as_ref().map_or(order.created_at, |replay| replay.created_at),
        source,
        decoder,
        frames: scenario.frames,
        range: scenario.range,
        max_speed: scenario.max_speed,
        max_picture_side: config.max_picture_side,
        model,
        input: scenario.input.clone(),
        record: scenario.record == Record::Outputs && scenario.replay.is_none(),
        replay: Vec::new(),
        models,
        pre,
        post,
        shadow,
        on_plugin_failure: scenario.on_plugin_failure,
        limits: config.limits_of(&scenario.limits),
        memory_mib: None,
        patience: config.patience(),
        resume_after,
        state: HookState::default(),
        provenance: Provenance {
            model: scenario.model.digest.clone(),
            models: scenario.models.iter().map(|(name, model)| (name.clone(), model.artifact.digest.clone())).collect(),
            plugins,
            revision: order.revision,
            decoder: Some(decoder),
            execution: None,
        },
        execution: Execution::default(),
        provider_options: BTreeMap::new(),
        intra_threads: config.intra_threads,
        lanes: 1,
        onnxruntime: config.onnxruntime.clone(),
        later_plugins: None,
    }
}

/// One hook of a job.
pub(crate) fn hook_job(hook: &ResolvedHook, Compiled { path, digest }: Compiled) -> HookJob {
    HookJob { identity: hook.identity.clone(), compiled: path, digest, config: hook.config.clone() }
}

/// What preparing needs.
pub(crate) struct JobBuilder {
    pub(crate) config: Arc<RunnerConfig>,
    pub(crate) blobs: Blobs,
    pub(crate) compiled: CompiledPlugins,
    pub(crate) providers: Providers,
}

impl JobBuilder {
    /// The job of a worker that goes on after `resume_after`; `recording` is its source where that had to be
    /// fetched.
    ///
    /// # Errors
    /// With the reason, and whether another try may help.
    pub(crate) async fn job(
        &self,
        order: &DeployOrder,
        resume_after: Option<Position>,
        recording: Option<&Path>,
    ) -> Result<(Job, Chosen), Failure> {
        let scenario = &order.scenario;
        if let Some(replay) = scenario.replay_of_outputs() {
            return self.replay(order, resume_after, replay).await;
        }
        let source = match &scenario.source {
            ResolvedSource::Video(video) => self.blob("video", &video.name, &video.digest).await?,
            ResolvedSource::File(path) => self.file(path.into()).await?,
            ResolvedSource::Url(_) => recording.map(Path::to_path_buf).ok_or_else(|| {
                Failure::Retry(Reason::new(ReasonCode::SourceUnreachable, "the recording was not fetched"))
            })?,
        };
        let model = self.blob("model", &scenario.model.name, &scenario.model.digest).await?;
        let models = self.models(&scenario.models).await?;
        let pre = self.hooks(&scenario.pre).await?;
        let post = self.hooks(&scenario.post).await?;
        let shadow = self.hooks(&scenario.shadow).await?;
        let mut job = job(&self.config, order, resume_after, Files { source, model, models, pre, post, shadow });
        let chosen = self.providers.choose(order.execution, scenario, &job).await?;
        self.config.execute(&mut job, chosen.execution);
        Ok((job, chosen))
    }

    /// The job of a worker that reads recorded outputs: it needs no source and no model.
    async fn replay(
        &self,
        order: &DeployOrder,
        resume_after: Option<Position>,
        replay: &Replay,
    ) -> Result<(Job, Chosen), Failure> {
        let mut parts = Vec::with_capacity(replay.parts.len());
        for part in &replay.parts {
            let path = self.blob("recorded outputs", &format!("of {}", replay.of), &part.digest).await?;
            parts.push(PartFile { path, until_us: part.until_us });
        }
        let (source, model, models) = (PathBuf::new(), PathBuf::new(), BTreeMap::new());
        let (pre, shadow) = (Vec::new(), Vec::new());
        let post = self.hooks(&order.scenario.post).await?;
        let job = job(&self.config, order, resume_after, Files { source, model, models, pre, post, shadow });
        Ok((Job { replay: parts, ..job }, Chosen::default()))
    }

    async fn models(&self, models: &BTreeMap<String, ResolvedModel>) -> Result<BTreeMap<String, ModelJob>, Failure> {
        let mut jobs = BTreeMap::new();
        for (name, ResolvedModel { artifact, input }) in models {
            let model = self.blob("model", &artifact.name, &artifact.digest).await?;
            jobs.insert(name.clone(), ModelJob { model, input: input.clone() });
        }
        Ok(jobs)
    }

    async fn hooks(&self, hooks: &[ResolvedHook]) -> Result<Vec<HookJob>, Failure> {
        let mut jobs = Vec::with_capacity(hooks.len());
        for hook in hooks {
            jobs.push(hook_job(hook, self.compiled(hook).await?));
        }
        Ok(jobs)
    }

    /// The machine code of a hook's plugin.
    pub(crate) async fn compiled(&self, hook: &ResolvedHook) -> Result<Compiled, Failure> {
        let wasm = self.blob("plugin", &hook.identity.name, &hook.identity.digest).await?;
        let compiled = self.compiled.compiled(&hook.identity.digest, &wasm).await;
        compiled.map_err(|error| not_compiled(&hook.identity, &error))
    }

    async fn file(&self, path: PathBuf) -> Result<PathBuf, Failure> {
        let dirs = self.config.source_dirs.clone();
        // On a thread of its own: a network folder that is away blocks whoever asks for it.
        let checked = tokio::task::spawn_blocking(move || allowed_source(&path, &dirs)).await;
        checked.unwrap_or_else(|error| {
            let message = format!("the source was not checked: {error}");
            Err(Failure::Retry(Reason::new(ReasonCode::SourceUnreachable, message)))
        })
    }

    async fn blob(&self, kind: &str, name: &str, digest: &Digest) -> Result<PathBuf, Failure> {
        self.blobs.verified(digest).await.map_err(|error| {
            // The log has the addresses and paths that the store names.
            tracing::warn!(%digest, "blob: {error}");
            let why = match &error {
                BlobError::Unavailable(_) => "the shared blob store is not available".to_owned(),
                BlobError::Io { source, .. } => source.kind().to_string(),
                told => told.to_string(),
            };
            let message = format!("the {kind} {name} ({digest}) cannot be used: {why}");
            Failure::of(&error, Reason::new(ReasonCode::BlobUnavailable, message))
        })
    }
}

/// Why there is no folder, or no file in it, for a worker's later plugins.
pub(crate) fn no_folder(error: &io::Error) -> Failure {
    let message = format!("the folder of a worker's plugins cannot be used: {}", error.kind());
    Failure::of(error, Reason::new(ReasonCode::WorkerCrash, message))
}

/// Fatal when the plugin is refused; worth a retry when the child could not do its work.
fn not_compiled(plugin: &PluginIdentity, error: &CompileError) -> Failure {
    let message = format!("plugin {}@{} could not be compiled: {error}", plugin.name, plugin.version);
    match error {
        CompileError::Refused(_) | CompileError::TooLong(_) | CompileError::Failed { .. } => {
            Failure::Fatal(Reason::new(ReasonCode::PluginIncompatible, message))
        }
        CompileError::Died(_) | CompileError::Start(_) | CompileError::Folder { .. } => {
            Failure::of(error, Reason::new(ReasonCode::WorkerCrash, message))
        }
    }
}

/// The real path of a file source, if it lies in one of `dirs`.
fn allowed_source(path: &Path, dirs: &[PathBuf]) -> Result<PathBuf, Failure> {
    source_file::resolve(path, dirs).map_err(|refusal| {
        let source = path.display();
        let say = |what| Reason::new(ReasonCode::SourceUnreachable, format!("the source {source} {what}"));
        match refusal {
            // It may appear yet, such as a disk that is mounted late.
            Refusal::Missing => Failure::Retry(say("is not there")),
            Refusal::NotAFile => Failure::Fatal(say("is not a regular file")),
            Refusal::Outside => Failure::Fatal(say(
                "is outside the folders that its runner may read (`source_dirs`); name its folder there, or upload the video",
            )),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{io, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

    use framehook_core::probe::Finding;
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_plugin_that_is_refused_is_not_tried_again_and_a_compiler_that_died_is() {
        let digest = Digest::from_bytes(&[0; 32]);
        let plugin = PluginIdentity { name: "yolo".into(), version: "1".into(), digest };
        let (ended, killed) = (ExitStatus::from_raw(1 << 8), ExitStatus::from_raw(9));
        let findings = ["no component", "no plugin"].map(|message| Finding::new("code", message)).to_vec();
        let io = |errno: Errno| io::Error::from(errno);
        let full = CompileError::Folder { what: "no file in the cache folder", source: io(Errno::NOSPC) };
        for (error, code, words) in [
            (CompileError::Refused(findings), ReasonCode::PluginIncompatible, "no component; no plugin"),
            (CompileError::TooLong(Duration::from_secs(60)), ReasonCode::PluginIncompatible, "longer than 60s"),
            (CompileError::Failed { status: ended, said: "why".into() }, ReasonCode::PluginIncompatible, "why"),
            (CompileError::Died(killed), ReasonCode::WorkerCrash, "the compiler died: signal: 9"),
            (CompileError::Start(io(Errno::AGAIN)), ReasonCode::WorkerCrash, "the compiler did not start"),
            (full, ReasonCode::WorkerCrash, "no file in the cache folder: No space left"),
        ] {
            let (is_fatal, reason) = match not_compiled(&plugin, &error) {
                Failure::Fatal(reason) => (true, reason),
                Failure::Retry(reason) => (false, reason),
                Failure::Wait(reason) => panic!("{reason:?}"),
            };
            assert_eq!((is_fatal, reason.code), (code == ReasonCode::PluginIncompatible, code));
            let message = reason.message.strip_prefix("plugin yolo@1 could not be compiled: ").unwrap();
            assert!(message.contains(words), "{message}");
        }
        let none_left = not_compiled(&plugin, &CompileError::Start(io(Errno::MFILE)));
        assert!(matches!(none_left, Failure::Wait(reason) if reason.code == ReasonCode::NoCapacity));
    }

    #[test]
    fn a_file_source_must_really_lie_in_an_allowed_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        for folder in [&inside, &outside] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("a.mp4"), "x").unwrap();
        }
        std::os::unix::fs::symlink(outside.join("a.mp4"), inside.join("link.mp4")).unwrap();
        let allowed = [inside.clone()];

        let good = allowed_source(&inside.join("../in/a.mp4"), &allowed).unwrap();
        assert_eq!(good, inside.join("a.mp4").canonicalize().unwrap());
        let fatal = |path: &Path, dirs: &[PathBuf], words: &str| match allowed_source(path, dirs) {
            Err(Failure::Fatal(reason)) => assert!(reason.message.contains(words), "{}", reason.message),
            other => panic!("{}: {other:?}", path.display()),
        };
        fatal(&outside.join("a.mp4"), &allowed, "outside the folders");
        fatal(&outside.join("missing.mp4"), &allowed, "outside the folders");
        fatal(&inside.join("link.mp4"), &allowed, "outside the folders");
        fatal(&inside.join("a.mp4"), &[], "`source_dirs`");
        fatal(&inside, &allowed, "not a regular file");
        let missing = allowed_source(&inside.join("missing.mp4"), &allowed);
        assert!(matches!(missing, Err(Failure::Retry(r)) if r.code == ReasonCode::SourceUnreachable));
    }
}
