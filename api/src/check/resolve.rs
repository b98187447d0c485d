//! From a scenario as written to a scenario that can run: names to digests, settings checked and completed.
//!
//! Invariant: `POST /scenario/init` and `POST /scenario/check` go through [`resolve`], so what the one
//! accepts the other does. Everything that is wrong is reported at once, in the order of the scenario's
//! fields.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef, Manifest},
    error_code::ErrorCode,
    input::{InputError, InputOptions, InputSpec},
    memory::{self, Needs},
    model_use::{self, ModelUse},
    spec::{
        Lanes, PluginUse, ResolvedArtifact, ResolvedHook, ResolvedModel, ResolvedScenario, ResolvedSource,
        ScenarioSpec, SourceSpec,
    },
};
use framehook_infra::{
    seal::{self, SealError},
    store::{Artifact, ArtifactQuery},
};
use tokio::time::timeout;

use crate::{
    App,
    check::{
        hooks::{self, Hook},
        probe,
        sizes::check_sizes,
        source,
    },
    http::problem::{FieldError, Problem},
};

/// Names of what exists, in a message.
const MAX_LISTED: usize = 10;

fn too_slow(limit: Duration) -> Problem {
    let detail = format!(
        "the plugins took longer than {limit:?} to judge their configurations (`max_configs_s`); those that accepted theirs are \
         remembered, so the same request may succeed later"
    );
    Problem::new(ErrorCode::TooBusy, detail).field("plugins")
}

/// Collects what is wrong; gives the resolved scenario if nothing is.
///
/// # Errors
/// A problem with everything that was found, or why the store could not be asked.
pub(crate) async fn resolve(app: &App, spec: &ScenarioSpec) -> Result<ResolvedScenario, Problem> {
    let mut errors = check_sizes(spec, app.config.memory.worker_mib, app.config.limits);
    if let Some(problem) = Problem::of_all(errors.clone()) {
        // Looking up a thousand plugins would be the harm these limits prevent.
        return Err(problem);
    }
    let found = Found::of(app, spec).await?;
    let source = resolve_source(app, &found, &spec.source).await?.map_err(|error| errors.push(error)).ok();
    let model = found.look_up(ArtifactKind::Model, &spec.model, "model");
    let model = model.map_err(|error| errors.push(error)).ok();
    let further = resolve_models(&found, spec).map_err(|found| errors.extend(found)).ok();
    let [pre, post, shadow] = judged(app, &found, spec, &mut errors).await?;

    let options = input_options(&spec.input, pre.iter().map(|hook| &hook.input), post.iter().map(|hook| &hook.input));
    let input = match &model {
        Some(Artifact { manifest: Manifest::Model(model), .. }) => {
            let input = options.resolve(&model.inputs);
            input.map_err(|error| errors.push(mismatch(error))).ok()
        }
        _ => None,
    };
    match (Problem::of_all(errors), source, model.zip(further), input) {
        (None, Some((source, picture)), Some((model, (models, further))), Some(input)) => {
            let hook_mib = spec.limits.hook_memory_mib.unwrap_or(app.config.memory.hook_mib);
            let (hooks, hook_bytes) = (pre.len() + post.len(), u64::from(hook_mib) << 20);
            let (image, batch) = ([input.width, input.height], input.batch);
            let lanes = if let Some(Lanes::Fixed(lanes)) = spec.lanes { lanes } else { 1 };
            let model_bytes = model.size_bytes;
            let shadows = shadow.len();
            let needs =
                Needs { model_bytes, input: image, batch, picture, lanes, further, hooks, hook_bytes, shadow: shadows };
            let estimate = || memory::estimate_mib(&needs, app.config.memory);
            Ok(ResolvedScenario {
                source,
                model: identity(model),
                input,
                models,
                pre: pre.into_iter().map(|hook| hook.resolved).collect(),
                post: post.into_iter().map(|hook| hook.resolved).collect(),
                shadow: shadow.into_iter().map(|hook| hook.resolved).collect(),
                on_plugin_failure: spec.on_plugin_failure,
                limits: spec.limits,
                memory_mib: Some(spec.memory_mib.unwrap_or_else(estimate)),
                decoder: spec.decoder,
                provider: spec.provider,
                precision: spec.precision,
                provider_fallback: spec.provider_fallback,
                lanes: spec.lanes,
                frames: spec.frames,
                range: spec.range,
                max_speed: spec.max_speed,
                record: spec.record,
                replay: None,
            })
        }
        (Some(problem), ..) => Err(problem),
        (None, ..) => Err(Problem::internal("a part of a scenario is missing without an error")),
    }
}

/// The hooks of its shadow; none: it has no shadow.
pub(crate) fn shadow_of(spec: &ScenarioSpec) -> &[PluginUse] {
    spec.shadow.as_ref().map_or(&[], |shadow| &shadow.post)
}

/// The lists of hooks of a scenario, by the kinds of their hooks.
pub(super) fn lists(spec: &ScenarioSpec) -> [(Hook, &[PluginUse]); 3] {
    [(Hook::Pre, &spec.plugins.pre), (Hook::Post, &spec.plugins.post), (Hook::Shadow, shadow_of(spec))]
}

/// The hooks of a scenario, and the input that its model has with them.
pub(crate) struct Hooks {
    pub(crate) pre: Vec<ResolvedHook>,
    pub(crate) post: Vec<ResolvedHook>,
    pub(crate) shadow: Vec<ResolvedHook>,
    pub(crate) input: InputSpec,
}

/// The same without its source, and of its models with the first one only: those stay as they are.
///
/// # Errors
/// As of [`resolve`].
pub(crate) async fn resolve_hooks(app: &App, spec: &ScenarioSpec) -> Result<Hooks, Problem> {
    let mut errors = check_sizes(spec, app.config.memory.worker_mib, app.config.limits);
    if let Some(problem) = Problem::of_all(errors.clone()) {
        return Err(problem);
    }
    let found = Found::of(app, spec).await?;
    let [pre, post, shadow] = judged(app, &found, spec, &mut errors).await?;
    let options = input_options(&spec.input, pre.iter().map(|hook| &hook.input), post.iter().map(|hook| &hook.input));
    let input = match found.look_up(ArtifactKind::Model, &spec.model, "model") {
        Ok(Artifact { manifest: Manifest::Model(model), .. }) => options.resolve(&model.inputs).map_err(mismatch),
        Ok(_) => Err(FieldError::new(ErrorCode::UnknownModel, "model", "this is no model")),
        Err(error) => Err(error),
    };
    let input = input.map_err(|error| errors.push(error));
    let [pre, post, shadow] = [pre, post, shadow].map(|hooks| hooks.into_iter().map(|hook| hook.resolved).collect());
    match (Problem::of_all(errors), input) {
        (None, Ok(input)) => Ok(Hooks { pre, post, shadow, input }),
        (problem, _) => Err(problem.unwrap_or_else(|| Problem::internal("an input is missing without an error"))),
    }
}

/// Its hooks by their lists, each content with its configuration; what is wrong goes to `errors`.
async fn judged(
    app: &App,
    found: &Found,
    spec: &ScenarioSpec,
    errors: &mut Vec<FieldError>,
) -> Result<[Vec<hooks::Resolved>; 3], Problem> {
    let judge = async {
        let mut judged = <[Vec<hooks::Resolved>; 3]>::default();
        for ((hook, uses), judged) in lists(spec).into_iter().zip(&mut judged) {
            *judged = hooks::resolve(app, found, hook, uses, errors).await?;
        }
        Ok(judged)
    };
    let limit = app.config.limits.configs_time;
    timeout(limit, judge).await.map_err(|_| too_slow(limit))?
}

fn mismatch(error: InputError) -> FieldError {
    FieldError::new(ErrorCode::ModelInputMismatch, error.field, error.message)
}

/// How a frame becomes the model's input: the scenario has the first word, then the hooks from the last to
/// the first, as later hooks see more.
pub fn input_options<'a>(
    scenario: &InputOptions,
    pre: impl DoubleEndedIterator<Item = &'a InputOptions>,
    post: impl DoubleEndedIterator<Item = &'a InputOptions>,
) -> InputOptions {
    post.rev().chain(pre.rev()).cloned().fold(scenario.clone(), InputOptions::or)
}

/// The artifacts that a scenario names, or why there is none: each name looked up once, however often it is
/// written.
pub(crate) struct Found(HashMap<(ArtifactKind, ArtifactRef), Result<Artifact, FieldError>>);

impl Found {
    async fn of(app: &App, spec: &ScenarioSpec) -> Result<Self, Problem> {
        let mut wanted = HashSet::from([(ArtifactKind::Model, spec.model.clone())]);
        if let SourceSpec::Video(video) = &spec.source {
            wanted.insert((ArtifactKind::Video, video.clone()));
        }
        wanted.extend(spec.models.values().map(|further| (ArtifactKind::Model, further.model.clone())));
        let hooks = lists(spec).into_iter().flat_map(|(_, hooks)| hooks);
        wanted.extend(hooks.map(|hook| (ArtifactKind::Plugin, hook.plugin.clone())));
        let wanted: Vec<_> = wanted.into_iter().collect();
        let stored = app.store.artifacts_of(&wanted).await?;
        let mut found = HashMap::new();
        for ((kind, reference), artifact) in wanted.into_iter().zip(stored) {
            let judged = judge(app, kind, &reference, artifact).await?;
            found.insert((kind, reference), judged);
        }
        Ok(Self(found))
    }

    /// The artifact that `field` of the scenario names.
    pub(crate) fn look_up(
        &self,
        kind: ArtifactKind,
        reference: &ArtifactRef,
        field: &str,
    ) -> Result<&Artifact, FieldError> {
        let found = self.0[&(kind, reference.clone())].as_ref();
        found.map_err(|error| FieldError { field: field.to_owned(), ..error.clone() })
    }
}

/// The one artifact that `field` of a request names.
///
/// # Errors
/// When there is none; the problem says what there is.
pub(crate) async fn named(
    app: &App,
    kind: ArtifactKind,
    reference: &ArtifactRef,
    field: &str,
) -> Result<Artifact, Problem> {
    let stored = app.store.artifact(kind, reference).await?;
    let judged = judge(app, kind, reference, stored).await?;
    judged.map_err(|error| FieldError { field: field.to_owned(), ..error }.into())
}

/// If there is no such artifact, or its version must be named and is not, says what there is. The field is
/// left open.
async fn judge(
    app: &App,
    kind: ArtifactKind,
    reference: &ArtifactRef,
    artifact: Option<Artifact>,
) -> Result<Result<Artifact, FieldError>, Problem> {
    let (code, message) = match (reference, artifact) {
        (ArtifactRef::Newest { name }, _) if app.config.require_versions => {
            let message = format!(
                "`{name}` names no version, and this installation asks for one (require_versions), so that no later \
                 upload takes its place"
            );
            (ErrorCode::InvalidScenario, message)
        }
        (_, Some(artifact)) => {
            let objection = app.config.signing.objection(&artifact).filter(|_| kind == ArtifactKind::Plugin);
            let refused = |message| FieldError::new(ErrorCode::UnsignedPlugin, "", message);
            return Ok(objection.map_or(Ok(artifact), |message| Err(refused(message))));
        }
        (_, None) => (unknown(kind), format!("there is no {kind} `{reference}`")),
    };
    let there_is = what_there_is(app, kind, reference).await?;
    Ok(Err(FieldError::new(code, "", format!("{message}; {there_is}"))))
}

const fn unknown(kind: ArtifactKind) -> ErrorCode {
    match kind {
        ArtifactKind::Plugin => ErrorCode::UnknownPlugin,
        ArtifactKind::Model => ErrorCode::UnknownModel,
        ArtifactKind::Video => ErrorCode::UnknownVideo,
    }
}

/// The versions of the name that was asked for, else some of all there are.
async fn what_there_is(app: &App, kind: ArtifactKind, reference: &ArtifactRef) -> Result<String, Problem> {
    let name = match reference {
        ArtifactRef::Version { name, .. } | ArtifactRef::Newest { name } => Some(name.clone()),
        ArtifactRef::Digest(_) => None,
    };
    let limit = MAX_LISTED as u32 + 1;
    let mut existing = Vec::new();
    if name.is_some() {
        existing = app.store.artifacts(kind, ArtifactQuery { name, limit, after: None }).await?;
    }
    if existing.is_empty() {
        existing = app.store.artifacts(kind, ArtifactQuery { limit, ..ArtifactQuery::default() }).await?;
    }
    let listed: Vec<_> = existing.iter().take(MAX_LISTED).map(|a| format!("`{}@{}`", a.name, a.version)).collect();
    Ok(match listed.as_slice() {
        [] => format!("there is none now, see POST /{kind}"),
        listed if existing.len() > listed.len() => format!("there is {} and more, see GET /{kind}", listed.join(", ")),
        listed => format!("there is {}", listed.join(", ")),
    })
}

/// Sides of a picture, where they are known.
type Picture = Option<[u32; 2]>;

async fn resolve_source(
    app: &App,
    found: &Found,
    source: &SourceSpec,
) -> Result<Result<(ResolvedSource, Picture), FieldError>, Problem> {
    let path = match source {
        SourceSpec::Video(reference) => {
            let video = found.look_up(ArtifactKind::Video, reference, "source.video");
            return Ok(video.map(|video| {
                let picture = picture(&video.manifest);
                (ResolvedSource::Video(identity(video)), picture)
            }));
        }
        // Fetched by the runner, from where it is: what this process could reach says nothing.
        SourceSpec::Url(url) => match seal::seal(app.config.key.as_ref(), url) {
            Ok(sealed) => return Ok(Ok((ResolvedSource::Url(sealed), None))),
            Err(SealError::NoKey) => return Ok(Err(no_key())),
            Err(error) => return Err(Problem::internal(error)),
        },
        SourceSpec::File(path) => path,
    };
    let file = match source::resolve(path, &app.config.source_dirs).await {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let picture = match probe::inspect_source(app, &file).await {
        Ok(manifest) => picture(&manifest),
        Err(Problem { code: code @ ErrorCode::InvalidVideo, detail, .. }) => {
            return Ok(Err(FieldError::new(code, "source.file", detail)));
        }
        Err(problem) => return Err(problem),
    };
    // What is not UTF-8 did not come out of a JSON string, unless a link led to it.
    let not_utf8 = "the file behind this link has a name that is not UTF-8";
    let path = file.into_os_string().into_string();
    let path = path.map_err(|_| FieldError::new(ErrorCode::InvalidScenario, "source.file", not_utf8));
    Ok(path.map(|path| (ResolvedSource::File(path), picture)))
}

pub(crate) fn no_key() -> FieldError {
    let message = "the URL has user info or a query, which must be sealed, and this service has no key for that: set \
                   FRAMEHOOK_KEY, the same for all APIs and runners";
    FieldError::new(ErrorCode::SecretNotAccepted, "source.url", message)
}

const fn picture(manifest: &Manifest) -> Picture {
    match manifest {
        Manifest::Video(video) => Some([video.width, video.height]),
        Manifest::Model(_) | Manifest::Plugin(_) => None,
    }
}

/// Further models with their inputs, and the bytes that they take in a worker.
fn resolve_models(
    found: &Found,
    spec: &ScenarioSpec,
) -> Result<(BTreeMap<String, ResolvedModel>, u64), Vec<FieldError>> {
    let (mut models, mut bytes, mut errors) = (BTreeMap::new(), 0_u64, Vec::new());
    for (name, ModelUse { model, input }) in &spec.models {
        let field = format!("models.{name}");
        let resolved = found.look_up(ArtifactKind::Model, model, &field).and_then(|artifact| {
            let Manifest::Model(manifest) = &artifact.manifest else {
                return Err(FieldError::new(ErrorCode::UnknownModel, &field, "this is no model"));
            };
            let (input, needed) = model_use::fit(input, manifest, artifact.size_bytes).map_err(|e| {
                let field = if e.field == "model" { field.clone() } else { format!("{field}.{}", e.field) };
                FieldError::new(ErrorCode::ModelInputMismatch, field, e.message)
            })?;
            Ok((artifact, input, needed))
        });
        match resolved {
            Ok((artifact, input, needed)) => {
                bytes = bytes.saturating_add(needed);
                models.insert(name.clone(), ResolvedModel { artifact: identity(artifact), input });
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok((models, bytes)) } else { Err(errors) }
}

fn identity(artifact: &Artifact) -> ResolvedArtifact {
    let Artifact { name, version, digest, .. } = artifact;
    ResolvedArtifact { name: name.clone(), version: version.clone(), digest: digest.clone() }
}
