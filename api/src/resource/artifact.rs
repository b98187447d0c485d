//! `/plugin`, `/model`, `/video`: upload, list, get, delete.
//!
//! Invariants: an artifact exists once its file passed a probe, lies in the blob store and has its row, in
//! this order; a name and version, once given to some bytes, never mean others unless the artifact was
//! deleted in between. The version `dev` of a plugin is the exception, for whoever develops it.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use framehook_core::{
    artifact::{ArtifactKind, ArtifactRef, DEV, Manifest, check_name, check_version},
    error_code::ErrorCode,
    schemas::{ArtifactName, Version},
};
use framehook_infra::store::{Artifact, ArtifactQuery, ArtifactSummary, DeleteArtifact, PutArtifact};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    App, SharedApp, UploadCaps,
    check::{
        probe, signature,
        upload::{self, Received},
    },
    http::{
        extract::{Query, VersionPath},
        page::{self, NoParameters, Page},
        problem::{AnyProblem, JsonResult, Problem, too_large},
    },
    metrics,
    resource::revision::follow_development,
};

/// How a model or a video is called.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Naming {
    /// Lower-case letters, digits, `.`, `_`, `-`. A form may have it as a field instead.
    #[param(value_type = ArtifactName, required = true)]
    name: Option<String>,
    /// `1` if neither here nor a field of a form.
    #[param(value_type = Option<Version>)]
    version: Option<String>,
}

/// How a plugin is called otherwise than by what it says.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PluginNaming {
    /// `dev`: the plugin is stored as `name@dev`, whatever it says of its version, in the place of what was
    /// there. Scenarios that use it change to it while they run. `digest`: a part of its digest is added to
    /// the version, such as `0.1.0+3f9a2c01b7de`, so that no other plugin has it.
    #[param(value_type = Option<String>, pattern = "^(dev|digest)$")]
    version: Option<String>,
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// Exact name: its versions.
    #[param(value_type = Option<ArtifactName>)]
    name: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000, 100 by default.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

type ArtifactPage = Page<ArtifactSummary>;

/// The bytes of a file, as they are.
#[derive(ToSchema)]
#[schema(format = Binary, min_length = 1)]
#[expect(dead_code, reason = "only its description is used: an upload is never in memory as a whole")]
struct FileBytes(String);

/// A file with its name.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its description is used: an upload is never in memory as a whole")]
struct UploadForm {
    #[schema(format = Binary, min_length = 1)]
    file: String,
    #[schema(value_type = Option<ArtifactName>, nullable = false)]
    name: Option<String>,
    #[schema(value_type = Option<Version>, nullable = false)]
    version: Option<String>,
}

/// The same with a signature.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its description is used: an upload is never in memory as a whole")]
struct PluginForm {
    #[schema(format = Binary, min_length = 1)]
    file: String,
    /// Taken no notice of, as the version: a plugin says itself what it is called.
    #[schema(value_type = Option<ArtifactName>, nullable = false)]
    name: Option<String>,
    #[schema(value_type = Option<Version>, nullable = false)]
    version: Option<String>,
    /// As `framehook plugin sign` writes it: JSON.
    #[schema(max_length = 2048, nullable = false)]
    signature: Option<String>,
}

impl Naming {
    /// # Errors
    /// When the name or the version cannot be one.
    fn check(&self) -> Result<(), Problem> {
        self.name.as_deref().map_or(Ok(()), check_name).map_err(|e| Problem::parameter("name", e))?;
        self.version.as_deref().map_or(Ok(()), check_version).map_err(|e| Problem::parameter("version", e))
    }

    /// Name and version.
    fn complete(self) -> Result<(String, String), Problem> {
        self.check()?;
        let missing = || Problem::parameter("name", "the upload has no name: add `?name=...`");
        let name = self.name.ok_or_else(missing)?;
        Ok((name, self.version.unwrap_or_else(|| "1".into())))
    }
}

async fn upload(app: SharedApp, kind: ArtifactKind, naming: Naming, request: Request) -> Result<Response, Problem> {
    answered(kind, take_upload(&app, kind, naming, request).await)
}

/// What became of something that came in, counted.
pub(crate) fn answered(kind: ArtifactKind, answer: Result<Answer, Problem>) -> Result<Response, Problem> {
    let outcome = match &answer {
        Ok((StatusCode::CREATED, _)) => "created",
        Ok(_) => "unchanged",
        Err(problem) => problem.code.as_str(),
    };
    metrics::global().uploaded(kind.as_str(), outcome);
    answer.map(IntoResponse::into_response)
}

pub(crate) type Answer = (StatusCode, Json<Artifact>);

async fn take_upload(app: &SharedApp, kind: ArtifactKind, naming: Naming, request: Request) -> Result<Answer, Problem> {
    // What can be refused before a gigabyte is sent is.
    naming.check()?;
    let cap = app.config.upload_caps.of(kind);
    let received = upload::receive(&app.blobs, cap, request).await.map_err(|problem| match problem.code {
        ErrorCode::UploadTooLarge => too_large(cap, Some(UploadCaps::setting(kind))),
        _ => problem,
    })?;
    take(app, kind, naming, received).await
}

/// Takes what came in, from a client or from a registry.
pub(crate) async fn take(
    app: &SharedApp,
    kind: ArtifactKind,
    naming: Naming,
    received: Received,
) -> Result<Answer, Problem> {
    let Received { staged, name, version, signature } = received;
    // By the query alone: of a plugin, name and version in a form say nothing.
    let asked = naming.version.clone().filter(|_| kind == ArtifactKind::Plugin);
    let naming = Naming { name: name.or(naming.name), version: version.or(naming.version) };
    if let Some(version) = asked.as_ref().filter(|version| ![DEV, BY_DIGEST].contains(&version.as_str())) {
        let detail =
            format!("a plugin says itself which version it is; `{version}` can only be `{DEV}` or `{BY_DIGEST}`");
        return Err(Problem::parameter("version", detail).expected(format!("`{DEV}` or `{BY_DIGEST}`")));
    }
    let given = match kind {
        // A plugin says itself what it is called, but for what is asked for.
        ArtifactKind::Plugin => None,
        ArtifactKind::Model | ArtifactKind::Video => Some(naming.complete()?),
    };
    // Before the plugin is asked anything.
    let signed_by = match kind {
        ArtifactKind::Plugin => app.config.signing.judge(signature.as_ref(), &staged.digest)?,
        ArtifactKind::Model | ArtifactKind::Video if signature.is_some() => {
            return Err(signature::invalid(format!("a {kind} has no signature; only plugins are signed")));
        }
        ArtifactKind::Model | ArtifactKind::Video => None,
    };
    if let Some((name, version)) = &given {
        let reference = ArtifactRef::Version { name: name.clone(), version: version.clone() };
        match app.store.artifact(kind, &reference).await? {
            Some(there) if there.digest == staged.digest => {
                // Kept all the same: it takes the place of a blob that was lost or damaged.
                let _turn = app.artifact_writes.lock().await;
                app.blobs.commit(staged).await?;
                return Ok((StatusCode::OK, Json(there)));
            }
            Some(there) => return Err(version_exists(&there)),
            None => {}
        }
    }
    let manifest = probe::inspect(app, kind, &staged).await?;
    let (name, version) = match (given, &manifest) {
        (Some(given), _) => given,
        (None, Manifest::Plugin(plugin)) => {
            let version = match asked.as_deref() {
                None => plugin.version.clone(),
                Some(BY_DIGEST) => with_digest(&plugin.version, staged.digest.hex()),
                Some(named) => named.to_owned(),
            };
            (plugin.name.clone(), version)
        }
        (None, _) => return Err(Problem::internal("a probe gave the manifest of another kind")),
    };
    if let Some(signature) = &signature {
        signature::check_name(signature, &name, &version)?;
    }
    let (digest, size_bytes) = (staged.digest.clone(), staged.size);
    // A delete between these two steps could take the blob away from under the new row.
    let turn = app.artifact_writes.lock().await;
    app.blobs.commit(staged).await?;
    // The store keeps microseconds; so the first answer is the same as every later one.
    let created_at = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).map_err(Problem::internal)?;
    let artifact = Artifact { kind, name, version, digest, size_bytes, manifest, created_at, signed_by };
    match app.store.put_artifact(artifact.clone()).await? {
        PutArtifact::Created => Ok((StatusCode::CREATED, Json(artifact))),
        PutArtifact::Replaced => {
            drop(turn);
            follow_development(app, &artifact.name).await?;
            Ok((StatusCode::CREATED, Json(artifact)))
        }
        PutArtifact::Unchanged(there) => Ok((StatusCode::OK, Json(there))),
        PutArtifact::Conflict(there) => {
            if !app.store.live_digests().await?.contains(&artifact.digest) {
                app.blobs.remove(&artifact.digest).await?;
            }
            Err(version_exists(&there))
        }
    }
}

/// The word for a version that has a part of the digest behind it.
const BY_DIGEST: &str = "digest";
/// Digits of a digest that tell the versions of one plugin apart: 48 bits.
const DIGITS: usize = 12;
/// Bytes of a version before that, so that the whole is one.
const MAX_BEFORE: usize = 63 - 1 - DIGITS;

fn with_digest(version: &str, digest: &str) -> String {
    // A version is ASCII.
    format!("{}+{}", &version[..version.len().min(MAX_BEFORE)], &digest[..DIGITS])
}

fn version_exists(there: &Artifact) -> Problem {
    let Artifact { kind, name, version, digest, .. } = there;
    let detail = format!(
        "{kind} `{name}@{version}` is {digest} and stays that; give the new content another version, or delete that one first"
    );
    Problem::new(ErrorCode::VersionExists, detail).field("version")
}

async fn list(app: SharedApp, kind: ArtifactKind, parameters: ListParameters) -> JsonResult<ArtifactPage> {
    let ListParameters { name, cursor, limit } = parameters;
    name.as_deref().map_or(Ok(()), check_name).map_err(|e| Problem::parameter("name", e))?;
    let limit = page::limit(limit)?;
    let after = page::parse_artifact_cursor(cursor.as_deref())?;
    let found = app.store.artifacts(kind, ArtifactQuery { name, after, limit: limit + 1 }).await?;
    Ok(Json(Page::cut(found, limit, |a| page::artifact_cursor(&a.name, a.sequence))))
}

/// What a path names.
///
/// # Errors
/// `artifact_not_found`.
pub(crate) async fn stored(app: &App, kind: ArtifactKind, path: VersionPath) -> Result<Artifact, Problem> {
    let VersionPath { name, version } = path;
    let reference = ArtifactRef::Version { name: name.clone(), version: version.clone() };
    let found = app.store.artifact(kind, &reference).await?;
    found.ok_or_else(|| not_found(kind, &name, &version))
}

async fn delete(app: SharedApp, kind: ArtifactKind, path: VersionPath) -> Result<StatusCode, Problem> {
    let VersionPath { name, version } = path;
    let _turn = app.artifact_writes.lock().await;
    match app.store.delete_artifact(kind, &name, &version).await? {
        DeleteArtifact::Deleted { digest, orphaned } => {
            if orphaned {
                app.blobs.remove(&digest).await?;
            }
            Ok(StatusCode::NO_CONTENT)
        }
        DeleteArtifact::NotFound => Err(not_found(kind, &name, &version)),
        DeleteArtifact::InUse { by, state } => {
            let detail = format!(
                "scenario {by}, which is {state}, needs {kind} `{name}@{version}`; first delete the scenario, and with it its predictions"
            );
            Err(Problem::new(ErrorCode::ArtifactInUse, detail))
        }
    }
}

fn not_found(kind: ArtifactKind, name: &str, version: &str) -> Problem {
    let detail = format!("there is no {kind} `{name}@{version}`; see GET /{kind}");
    Problem::new(ErrorCode::ArtifactNotFound, detail)
}

/// The five routes of one kind: the same for each but for words, which OpenAPI wants literal.
macro_rules! routes_of {
    ($module:ident, $kind:ident, $path:literal, $one:literal, $naming:ty, $form:ty, $into:expr, ($($params:tt)*)) => {
        pub(crate) mod $module {
            use super::*;

            #[utoipa::path(post, path = $path, tag = $path, operation_id = concat!("upload_", stringify!($module)),
                summary = concat!("Upload a ", stringify!($module), ": raw, or the field `file` of a multipart form"),
                // openapi-python-client 0.29 needs an optional parameter beside two kinds of body:
                // without one, the module that it makes cannot be imported.
                params($($params)* ("traceparent" = Option<String>, Header, description = "W3C trace context")),
                request_body(description = "The file",
                    content((inline(FileBytes) = "application/octet-stream"), ($form = "multipart/form-data"))),
                responses(
                    (status = 201, description = "Stored", body = Artifact),
                    (status = 200, description = "The same content was there already", body = Artifact),
                    AnyProblem))]
            pub(crate) async fn upload(
                State(app): State<SharedApp>,
                Query(naming): Query<$naming>,
                request: Request,
            ) -> Result<Response, Problem> {
                let into: fn($naming) -> Naming = $into;
                super::upload(app, ArtifactKind::$kind, into(naming), request).await
            }

            #[utoipa::path(get, path = $path, tag = $path, operation_id = concat!("list_", stringify!($module)),
                summary = concat!("Every ", stringify!($module), ", by name, newest upload of each first, without manifests"),
                params(ListParameters),
                responses((status = 200, description = "A page of them", body = ArtifactPage), AnyProblem))]
            pub(crate) async fn list(
                State(app): State<SharedApp>,
                Query(parameters): Query<ListParameters>,
            ) -> JsonResult<ArtifactPage> {
                super::list(app, ArtifactKind::$kind, parameters).await
            }

            #[utoipa::path(get, path = $one, tag = $path, operation_id = concat!("get_", stringify!($module)),
                summary = concat!("One ", stringify!($module), " with its manifest"),
                params(("name" = ArtifactName, Path), ("version" = Version, Path)),
                responses((status = 200, description = "It, with its manifest", body = Artifact), AnyProblem))]
            pub(crate) async fn get(
                State(app): State<SharedApp>,
                path: VersionPath,
                _: Query<NoParameters>,
            ) -> JsonResult<Artifact> {
                super::stored(&app, ArtifactKind::$kind, path).await.map(Json)
            }

            #[utoipa::path(delete, path = $one, tag = $path, operation_id = concat!("delete_", stringify!($module)),
                summary = concat!("Delete a ", stringify!($module), " that no scenario needs"),
                params(("name" = ArtifactName, Path), ("version" = Version, Path)),
                responses((status = 204, description = "Deleted"), AnyProblem))]
            pub(crate) async fn delete(
                State(app): State<SharedApp>,
                path: VersionPath,
                _: Query<NoParameters>,
            ) -> Result<StatusCode, Problem> {
                super::delete(app, ArtifactKind::$kind, path).await
            }
        }
    };
}

routes_of!(
    plugin,
    Plugin,
    "/plugin",
    "/plugin/{name}/{version}",
    PluginNaming,
    PluginForm,
    |naming| Naming { name: None, version: naming.version },
    (PluginNaming,)
);
routes_of!(model, Model, "/model", "/model/{name}/{version}", Naming, UploadForm, |naming| naming, (Naming,));
routes_of!(video, Video, "/video", "/video/{name}/{version}", Naming, UploadForm, |naming| naming, (Naming,));
