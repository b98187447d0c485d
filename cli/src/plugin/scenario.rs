//! A scenario of files: judged, completed and compiled as one of uploads would be.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use framehook_api::judge;
use framehook_compiled::Compiled;
use framehook_core::{
    artifact::{ModelManifest, PluginManifest, VideoManifest},
    ids::{Digest, Generation, Incarnation, RunnerId, ScenarioId},
    input::InputOptions,
    job::ModelJob,
    memory::{self, Needs},
    message::DeployOrder,
    model_use,
    prediction::PluginIdentity,
    probe::Verdict,
    spec::{OnPluginFailure, ResolvedArtifact, ResolvedHook, ResolvedModel, ResolvedScenario, ResolvedSource},
};
use framehook_runner::alone::Files;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    check::wrong,
    local::{Local, Named, named},
};

/// What somebody names.
pub(super) struct Wanted<'a> {
    pub(super) video: &'a Path,
    pub(super) model: &'a Path,
    /// Further models, by their names.
    pub(super) models: Vec<(String, PathBuf)>,
    /// In the order in which they are called.
    pub(super) plugins: Vec<PluginFile>,
    pub(super) input: InputOptions,
}

/// A component with its configuration.
pub(super) struct PluginFile {
    pub(super) path: PathBuf,
    pub(super) config: Value,
}

/// What can run, and what is known of it.
pub(super) struct Prepared {
    pub(super) order: DeployOrder,
    pub(super) files: Files,
    pub(super) model: ModelManifest,
    pub(super) video: VideoManifest,
    /// In the order in which they were named.
    pub(super) plugins: Vec<PluginManifest>,
}

pub(super) struct Plugin {
    pub(super) manifest: PluginManifest,
    pub(super) hook: ResolvedHook,
    pub(super) compiled: Compiled,
}

/// # Errors
/// When a file cannot be read, and with everything that is wrong with one.
pub(super) async fn prepare(local: &Local, wanted: Wanted<'_>) -> anyhow::Result<Prepared> {
    let model_file = named(wanted.model)?;
    let source = wanted.video.canonicalize().with_context(|| format!("cannot read {}", wanted.video.display()))?;
    let (video, model) =
        tokio::join!(judge::video(&local.api, &source), judge::model(&local.api, &model_file.path, model_file.size));
    let video = accepted(video?, wanted.video)?;
    let model = accepted(model?, wanted.model)?;
    let mut plugins = Vec::new();
    for file in &wanted.plugins {
        plugins.push(plugin(local, file).await?);
    }
    let (pre, post): (Vec<_>, Vec<_>) =
        (plugins.iter().filter(|p| p.manifest.pre).collect(), plugins.iter().filter(|p| p.manifest.post).collect());
    let declared = |hooks: &[&Plugin]| hooks.iter().map(|p| p.manifest.input.clone()).collect::<Vec<_>>();
    let options = judge::input_options(&wanted.input, declared(&pre).iter(), declared(&post).iter());
    let input = options.resolve(&model.inputs).map_err(|e| anyhow::anyhow!("{}: {} (--input)", e.field, e.message))?;
    let (models, further) = further_models(local, &wanted.models).await?;
    let caps = local.api.memory;
    let needs = Needs {
        model_bytes: model_file.size,
        input: [input.width, input.height],
        batch: input.batch,
        picture: Some([video.width, video.height]),
        lanes: 1,
        further,
        hooks: pre.len() + post.len(),
        hook_bytes: u64::from(caps.hook_mib) << 20,
        shadow: 0,
    };
    let hooks = |of: &[&Plugin]| of.iter().map(|p| p.hook.clone()).collect();
    let compiled = |of: &[&Plugin]| of.iter().map(|p| p.compiled.clone()).collect();
    let scenario = ResolvedScenario {
        source: ResolvedSource::File(source.to_string_lossy().into_owned()),
        model: artifact(wanted.model, &model_file.digest),
        input,
        models: models.iter().map(|(name, (resolved, _))| (name.clone(), resolved.clone())).collect(),
        pre: hooks(&pre),
        post: hooks(&post),
        shadow: Vec::new(),
        on_plugin_failure: OnPluginFailure::default(),
        limits: Default::default(),
        memory_mib: Some(memory::estimate_mib(&needs, caps)),
        decoder: None,
        provider: None,
        precision: None,
        provider_fallback: false,
        lanes: None,
        frames: None,
        range: None,
        max_speed: None,
        record: Default::default(),
        replay: None,
    };
    let models = models.into_iter().map(|(name, (resolved, model))| (name, ModelJob { model, input: resolved.input }));
    let files =
        Files { source, model: model_file.path, models: models.collect(), pre: compiled(&pre), post: compiled(&post) };
    let plugins = plugins.into_iter().map(|plugin| plugin.manifest).collect();
    Ok(Prepared { order: order(scenario), files, model, video, plugins })
}

type FurtherModels = BTreeMap<String, (ResolvedModel, PathBuf)>;

/// Further models with their files, and the bytes that they take in a worker.
async fn further_models(local: &Local, wanted: &[(String, PathBuf)]) -> anyhow::Result<(FurtherModels, u64)> {
    let names = model_use::check_names(wanted.iter().map(|(name, _)| &**name));
    names.map_err(|message| anyhow::anyhow!("--further-model: {message}"))?;
    let (mut models, mut bytes) = (BTreeMap::new(), 0);
    for (name, path) in wanted {
        let file = named(path)?;
        let manifest = accepted(judge::model(&local.api, &file.path, file.size).await?, path)?;
        let fit = model_use::fit(&InputOptions::default(), &manifest, file.size);
        let (input, needed) = fit.map_err(|e| anyhow::anyhow!("--further-model {name}: {}: {}", e.field, e.message))?;
        bytes += needed;
        let resolved = ResolvedModel { artifact: artifact(path, &file.digest), input };
        models.insert(name.clone(), (resolved, file.path));
    }
    Ok((models, bytes))
}

/// `NAME=FILE`.
///
/// # Errors
/// When it is something else.
pub(super) fn named_model(text: &str) -> anyhow::Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((name, file)) => Ok((name.to_owned(), file.into())),
        None => bail!("--further-model {text}: expected NAME=FILE"),
    }
}

/// The order that a runner would get.
fn order(scenario: ResolvedScenario) -> DeployOrder {
    DeployOrder {
        scenario_id: ScenarioId::generate(),
        generation: Generation::from(1u8),
        runner_id: RunnerId("none".into()),
        incarnation: Incarnation::generate(),
        revision: 1,
        created_at: Timestamp::now(),
        scenario,
        resume_after: None,
        fresh: false,
        state: Default::default(),
        execution: None,
    }
}

/// # Errors
/// When it cannot be read, and with everything that is wrong with it or its configuration.
pub(super) async fn plugin(local: &Local, PluginFile { path, config }: &PluginFile) -> anyhow::Result<Plugin> {
    let file: Named = named(path)?;
    let manifest = accepted(judge::plugin(&local.api, &file.digest, &file.path).await?, path)?;
    let verdict = judge::plugin_config(&local.api, &file.digest, &file.path, config).await?;
    if !verdict.problems.is_empty() {
        let problem = |p: &framehook_core::probe::ConfigProblem| {
            let place = if p.path.is_empty() { "the whole" } else { &p.path };
            format!("{}: configuration, {place}: {}", path.display(), p.message)
        };
        bail!("{}", verdict.problems.iter().map(problem).collect::<Vec<_>>().join("\n"));
    }
    let compiled = local.compiled.compiled(&file.digest, &file.path).await?;
    let (name, version) = (manifest.name.clone(), manifest.version.clone());
    let identity = PluginIdentity { name, version, digest: file.digest };
    Ok(Plugin { manifest, hook: ResolvedHook { identity, config: config.clone() }, compiled })
}

fn accepted<T>(verdict: Verdict<T>, file: &Path) -> anyhow::Result<T> {
    match verdict {
        Verdict::Ok(manifest) => Ok(manifest),
        Verdict::Findings(findings) => bail!("{}", wrong(&findings, &file.display().to_string())),
    }
}

fn artifact(file: &Path, digest: &Digest) -> ResolvedArtifact {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    ResolvedArtifact { name, version: "file".into(), digest: digest.clone() }
}

/// JSON, or that of a file whose name follows an `@`.
///
/// # Errors
/// When it is none.
pub(crate) fn json(text: &str, what: &str) -> anyhow::Result<Value> {
    let text = match text.strip_prefix('@') {
        Some(file) => fs::read_to_string(file).with_context(|| format!("cannot read {file}, {what}"))?,
        None => text.to_owned(),
    };
    serde_json::from_str(&text).with_context(|| format!("{what} is no JSON: {}", text.trim()))
}

impl PluginFile {
    /// `FILE` or `FILE=CONFIG`.
    ///
    /// # Errors
    /// When the configuration is no JSON.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        match text.split_once('=') {
            Some((path, config)) if !Path::new(text).is_file() => {
                let config = json(config, &format!("the configuration of {path}"))?;
                Ok(Self { path: path.into(), config })
            }
            _ => Ok(Self { path: text.into(), config: Value::Object(serde_json::Map::new()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plugin_has_a_configuration_behind_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.json");
        fs::write(&config, "{\"keep\": [\"car\"]}").unwrap();
        let odd = folder.path().join("a={}.wasm");
        fs::write(&odd, "").unwrap();
        let (at, odd) = (format!("p.wasm=@{}", config.display()), odd.display().to_string());
        for (text, path, given) in [
            ("p.wasm", "p.wasm", json!({})),
            (r#"p.wasm={"crowd": 2}"#, "p.wasm", json!({"crowd": 2})),
            (&at, "p.wasm", json!({"keep": ["car"]})),
            (&odd, &odd, json!({})),
        ] {
            let parsed = PluginFile::parse(text).unwrap();
            assert_eq!((parsed.path, parsed.config), (PathBuf::from(path), given), "{text}");
        }
        let error = PluginFile::parse("p.wasm={").err().unwrap().to_string();
        assert!(error.contains("the configuration of p.wasm is no JSON: {"), "{error}");
        assert!(PluginFile::parse("p.wasm=@missing").is_err());
    }
}
