//! `/scenario/{id}/replay` and `/scenario/{id}/outputs`: the frames of a scenario once more, with other
//! hooks.
//!
//! Invariant: a replay has the model, the input and the frames of its original, byte by byte, whatever their
//! names stand for by now. Nothing of the original changes, and a replay's settings never do.

use axum::{Extension, Json, extract::State, http::HeaderMap};
use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef, Manifest},
    error_code::ErrorCode,
    ids::ScenarioId,
    prediction::Position,
    recorded::{self, Gap, Part, Record, Replay, ReplayFrom, ReplayedPart},
    spec::{PluginUse, ResolvedHook, ResolvedScenario, ResolvedSource, ScenarioSpec, SourceSpec},
};
use framehook_infra::store::{Idempotency, NewScenario, ScenarioRecord};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    App, SharedApp,
    check::{canonical, resolve::resolve},
    http::{
        extract::{Body, Query, ScenarioPath, idempotency_key},
        observe::Traceparent,
        page::NoParameters,
        problem::{AnyProblem, JsonResult, Problem},
    },
    resource::{
        scenario::{answer, not_found},
        view::ScenarioView,
    },
};

/// Capabilities of a plugin (see `PluginManifest`) behind which there is nothing in a replay of outputs.
const PIXELS: &str = "pixels";
const MODEL: &str = "model";

/// What is to be different.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"plugins": {"post": [{"use": "yolo@0.2.0", "config": {"min_score": 0.4}}]}}))]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayRequest {
    /// For people; that of the original if absent.
    #[serde(default)]
    #[schema(max_length = 200)]
    name: Option<String>,
    #[serde(default)]
    plugins: ReplayPlugins,
    /// What is read: if absent, the recorded outputs where they are whole and no post hook can ask for pixels
    /// or further models, else the source.
    #[serde(default)]
    from: Option<ReplayFrom>,
}

/// The hooks of a replay; a list that is absent is that of the original.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayPlugins {
    /// Others than those of the original need the source.
    #[serde(default)]
    #[schema(max_items = 16)]
    pre: Option<Vec<PluginUse>>,
    #[serde(default)]
    #[schema(max_items = 16)]
    post: Option<Vec<PluginUse>>,
}

/// Run the frames of a scenario through other hooks
///
/// Makes a scenario of its own, with the model, the input and the frames of the original, and the times of
/// capture of its predictions; `replay_of` in its view names the original. `GET /scenario/{id}/comparison`
/// compares the two. It is stopped and deleted as any other.
///
/// A scenario that records its outputs (`"record": "outputs"`) is replayed from them: nothing is decoded and
/// no model runs. Its pre hooks do not run again, and post hooks get no pixels and no further models: what
/// needs those is replayed from the source.
#[utoipa::path(post, path = "/scenario/{id}/replay", tag = "/scenario", operation_id = "replay_scenario",
    params(("id" = ScenarioId, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, carried through the platform; made if absent")),
    request_body = ReplayRequest,
    responses(
        (status = 200, description = "Created, or created before with this key", body = ScenarioView),
        AnyProblem))]
pub(crate) async fn post(
    State(app): State<SharedApp>,
    Extension(Traceparent(traceparent)): Extension<Traceparent>,
    ScenarioPath(id): ScenarioPath,
    headers: HeaderMap,
    _: Query<NoParameters>,
    body: Body<ReplayRequest>,
) -> JsonResult<ScenarioView> {
    let request = canonical::digest(&json!({"replay_of": id, "request": body.json}));
    let idempotency = idempotency_key(&headers)?.map(|key| Idempotency { key, request });
    if let Some(idempotency) = &idempotency
        && let Some(created) = app.store.created_before(idempotency).await?
    {
        return answer(created);
    }
    let original = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    if let Some(Replay { of, .. }) = &original.resolved.replay {
        let detail = format!("scenario {id} is a replay itself, of scenario {of}; replay that one");
        return Err(Problem::new(ErrorCode::InvalidScenario, detail).field("id"));
    }
    let (spec, resolved) = replay(&app, &original, body.parsed).await?;
    let (id, traceparent) = (ScenarioId::generate(), Some(traceparent));
    answer(app.store.create_scenario(NewScenario { id, spec, resolved, idempotency, traceparent }).await?)
}

/// What the new scenario is, as written and as it runs.
async fn replay(
    app: &App,
    original: &ScenarioRecord,
    ReplayRequest { name, plugins, from }: ReplayRequest,
) -> Result<(ScenarioSpec, ResolvedScenario), Problem> {
    let then = &original.resolved;
    let mut pinned = pinned(original);
    let mut spec = original.spec.clone();
    (spec.record, spec.shadow, spec.max_speed) = (Record::None, None, None);
    if let Some(name) = name {
        pinned.name.clone_from(&name);
        spec.name = name;
    }
    for (asked, pinned, shown) in [
        (plugins.pre, &mut pinned.plugins.pre, &mut spec.plugins.pre),
        (plugins.post, &mut pinned.plugins.post, &mut spec.plugins.post),
    ] {
        if let Some(asked) = asked {
            pinned.clone_from(&asked);
            *shown = asked;
        }
    }
    let now = resolve(app, &pinned).await?;
    let used = recorded::in_order(app.store.outputs(original.id).await?);
    let lacking = lacking(original, &now, &used);
    let from = match (from, lacking) {
        (Some(ReplayFrom::Outputs), Some(lacking)) => {
            let detail = format!("the recorded outputs do not do: {lacking}; replay it from the source");
            return Err(Problem::new(ErrorCode::InvalidScenario, detail).field("from").expected("`source`"));
        }
        (Some(from), _) => from,
        (None, None) if recorded::gaps(&used, original.stored).is_empty() && !asks_for_more(app, &now).await? => {
            ReplayFrom::Outputs
        }
        (None, _) => ReplayFrom::Source,
    };
    let reads_outputs = from == ReplayFrom::Outputs;
    let parts = used.into_iter().filter(|_| reads_outputs);
    let parts = parts.map(|(part, until_us)| ReplayedPart { digest: part.digest, until_us }).collect();
    let replay = Replay { of: original.id, from, created_at: original.created_at, parts };
    let mut resolved = ResolvedScenario {
        source: then.source.clone(),
        model: then.model.clone(),
        input: then.input.clone(),
        models: then.models.clone(),
        memory_mib: then.memory_mib,
        replay: Some(replay),
        ..now
    };
    if reads_outputs {
        // Nothing of it runs.
        resolved.pre.clear();
        (resolved.provider, resolved.precision, resolved.provider_fallback) = (None, None, false);
    }
    Ok((spec, resolved))
}

/// The original as it was written, with what its names stood for.
fn pinned(original: &ScenarioRecord) -> ScenarioSpec {
    let then = &original.resolved;
    let mut spec = original.spec.clone();
    (spec.record, spec.shadow, spec.max_speed) = (Record::None, None, None);
    spec.model = ArtifactRef::Digest(then.model.digest.clone());
    for (name, model) in &mut spec.models {
        if let Some(resolved) = then.models.get(name) {
            model.model = ArtifactRef::Digest(resolved.artifact.digest.clone());
        }
    }
    if let ResolvedSource::Video(video) = &then.source {
        spec.source = SourceSpec::Video(ArtifactRef::Digest(video.digest.clone()));
    }
    let hooks = |resolved: &[ResolvedHook]| {
        let pin = |hook: &ResolvedHook| PluginUse {
            plugin: ArtifactRef::Digest(hook.identity.digest.clone()),
            config: hook.config.clone(),
        };
        resolved.iter().map(pin).collect()
    };
    (spec.plugins.pre, spec.plugins.post) = (hooks(&then.pre), hooks(&then.post));
    spec
}

/// Why these hooks cannot be run on the recorded outputs, if they cannot.
fn lacking(original: &ScenarioRecord, now: &ResolvedScenario, used: &[(Part, Option<i64>)]) -> Option<&'static str> {
    if used.is_empty() {
        return Some(match original.resolved.record {
            Record::None => "the scenario does not record them (`\"record\": \"outputs\"`)",
            Record::Outputs => "there are none, or none any more",
        });
    }
    let same = |a: &ResolvedHook, b: &ResolvedHook| a.identity.digest == b.identity.digest && a.config == b.config;
    let (before, after) = (&original.resolved.pre, &now.pre);
    let are_same = before.len() == after.len() && before.iter().zip(after).all(|(before, after)| same(before, after));
    (!are_same).then_some("they are what came behind the pre hooks, and these are others")
}

/// Whether a post hook can ask for what is not recorded. Whether it does, only its calls show: in some
/// languages a plugin names all that there is.
async fn asks_for_more(app: &App, now: &ResolvedScenario) -> Result<bool, Problem> {
    let wanted: Vec<_> =
        now.post.iter().map(|hook| (ArtifactKind::Plugin, ArtifactRef::Digest(hook.identity.digest.clone()))).collect();
    let is_more = |what: &String| what == PIXELS || (what == MODEL && !now.models.is_empty());
    Ok(app.store.artifacts_of(&wanted).await?.into_iter().flatten().any(
        |artifact| matches!(&artifact.manifest, Manifest::Plugin(plugin) if plugin.capabilities.iter().any(is_more)),
    ))
}

/// What there is of a scenario's recorded outputs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputsView {
    /// What the scenario asked for.
    record: Record,
    frames: u64,
    /// As they are kept: packed.
    bytes: u64,
    /// The first and the last frame with outputs; null: there is none.
    first: Option<Position>,
    last: Option<Position>,
    /// Where the outputs of stored frames are missing: those that were too many, too old or too large, and
    /// those that a runner had not stored when it died.
    gaps: Vec<Gap>,
}

/// The recorded outputs of a scenario
///
/// How many there are, and where some are missing. Of a scenario that runs, those of the last half minute or
/// so are not stored yet.
#[utoipa::path(get, path = "/scenario/{id}/outputs", tag = "/scenario", operation_id = "get_outputs",
    params(("id" = ScenarioId, Path)),
    responses((status = 200, description = "What there is", body = OutputsView), AnyProblem))]
pub(crate) async fn outputs(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    _: Query<NoParameters>,
) -> JsonResult<OutputsView> {
    let scenario = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    let used = recorded::in_order(app.store.outputs(id).await?);
    let record = scenario.resolved.record;
    let gaps = if record == Record::Outputs { recorded::gaps(&used, scenario.stored) } else { Vec::new() };
    Ok(Json(OutputsView {
        record,
        frames: used.iter().map(|(part, _)| part.frames).sum(),
        bytes: used.iter().map(|(part, _)| part.bytes).sum(),
        first: used.first().map(|(part, _)| part.first),
        last: used.last().map(|(part, _)| part.last),
        gaps,
    }))
}
