//! `POST /plugin/import`: a plugin out of a registry, then as an upload.
//!
//! Invariants: only registries that the operator names are asked; what they give is judged as an upload is,
//! its signature before its bytes are fetched; and it is fetched once, here: no runner ever asks a registry.

use std::time::Duration;

use axum::{extract::State, response::Response};
use framehook_core::{artifact::ArtifactKind, error_code::ErrorCode, signature::PluginSignature};
use framehook_infra::{
    blobs::Staged,
    registry::{Reference, RegistryError},
    store::Artifact,
};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;

use crate::{
    App, SharedApp, UploadCaps,
    check::upload::Received,
    http::{
        extract::Query,
        problem::{AnyProblem, Problem, too_large},
    },
    resource::artifact::{self, Answer, Naming},
};

/// For all that is fetched: the largest plugin that is taken by default, at 300 KiB a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// Each has a connection and a file open; more wait.
pub(crate) const MAX_AT_ONCE: usize = 4;

/// Where a plugin is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// `oci://HOST/REPOSITORY:TAG`, or `oci://HOST/REPOSITORY@sha256:...`, which nobody can move.
    #[param(max_length = 512, pattern = "^oci://", example = "oci://ghcr.io/example/zones:1.0.0")]
    from: String,
}

#[utoipa::path(post, path = "/plugin/import", tag = "/plugin", operation_id = "import_plugin",
    summary = "Take a plugin out of a registry, as an upload with the signature that it has there",
    params(Parameters),
    responses(
        (status = 201, description = "Stored", body = Artifact),
        (status = 200, description = "The same content was there already", body = Artifact),
        AnyProblem))]
pub(crate) async fn import(
    State(app): State<SharedApp>,
    Query(Parameters { from }): Query<Parameters>,
) -> Result<Response, Problem> {
    let reference = from.parse().map_err(|error| Problem::parameter("from", format!("{error}")))?;
    artifact::answered(ArtifactKind::Plugin, take_import(&app, &reference).await)
}

async fn take_import(app: &SharedApp, reference: &Reference) -> Result<Answer, Problem> {
    let slow = |_| {
        let detail = format!("{reference} did not come within {} s", PATIENCE.as_secs());
        Err(Problem::new(ErrorCode::RegistryFailed, detail).field("from"))
    };
    let (staged, signature) = timeout(PATIENCE, fetch(app, reference)).await.unwrap_or_else(slow)?;
    let received = Received { signature, ..Received::raw(staged) };
    artifact::take(app, ArtifactKind::Plugin, Naming::default(), received).await
}

async fn fetch(app: &App, reference: &Reference) -> Result<(Staged, Option<PluginSignature>), Problem> {
    let failed = |error| problem(reference, &error);
    let _turn = app.imports.acquire().await.map_err(Problem::internal)?;
    let mut pulled = app.config.registries.pull(reference).await.map_err(failed)?;
    let cap = app.config.upload_caps.plugin;
    if pulled.size > cap {
        return Err(too_large(cap, Some(UploadCaps::setting(ArtifactKind::Plugin))));
    }
    // What will be refused is not fetched.
    app.config.signing.judge(pulled.signature.as_ref(), &pulled.digest)?;
    let mut upload = app.blobs.begin(cap).await?;
    while let Some(bytes) = pulled.chunk().await.map_err(failed)? {
        upload.write(&bytes).await?;
    }
    tracing::info!(plugin = pulled.digest.hex(), "fetched {}", pulled.reference);
    Ok((upload.finish().await?, pulled.signature))
}

/// The log has the cause, which may tell of addresses inside.
fn problem(reference: &Reference, error: &RegistryError) -> Problem {
    let code = match error {
        RegistryError::NotListed { .. } => ErrorCode::RegistryNotAllowed,
        _ => ErrorCode::RegistryFailed,
    };
    if let Some(mut cause) = std::error::Error::source(error) {
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        tracing::warn!(%reference, "{error}: {cause}");
    }
    Problem::new(code, format!("{reference}: {error}")).field("from")
}
