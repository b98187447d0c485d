//! From a request's body to a file that is hashed and capped on its way.
//!
//! Invariant: the bytes are never in memory as a whole, and whatever goes wrong leaves nothing behind: the staged file
//! removes itself.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use framehook_core::error_code::ErrorCode;
use framehook_infra::blobs::{Blobs, Staged, Upload};
use futures::{Stream, StreamExt};

use crate::problem::{Problem, too_large};

/// A client that sends nothing for this long is gone.
const IDLE: Duration = Duration::from_secs(60);
/// Of a `name` or `version` field: more than any valid one, so that the message can show what is wrong with it.
const MAX_FIELD: usize = 1024;
/// Boundaries and headers of a multipart body around its file.
const MULTIPART_OVERHEAD: u64 = 64 << 10;

/// What came in.
pub(crate) struct Received {
    pub staged: Staged,
    /// From multipart fields.
    pub name: Option<String>,
    pub version: Option<String>,
}

fn unreadable(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidUpload, detail)
}

/// Takes a raw body, or the field `file` of a multipart one.
///
/// # Errors
/// `upload_too_large`, `invalid_upload`, or why it could not be stored.
pub(crate) async fn receive(blobs: &Blobs, cap: u64, request: Request) -> Result<Received, Problem> {
    let is_multipart = starts_with(request.headers(), "multipart/form-data");
    let overhead = if is_multipart { MULTIPART_OVERHEAD } else { 0 };
    if content_length(request.headers()).is_some_and(|length| length > cap + overhead) {
        return Err(too_large(cap));
    }
    let upload = blobs.begin(cap).await?;
    if is_multipart {
        receive_multipart(upload, request).await
    } else {
        let staged = store(upload, request.into_body().into_data_stream()).await?;
        Ok(Received { staged, name: None, version: None })
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn starts_with(headers: &HeaderMap, kind: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind)))
}

async fn receive_multipart(upload: Upload, request: Request<Body>) -> Result<Received, Problem> {
    let mut parts =
        Multipart::from_request(request, &()).await.map_err(|e| unreadable(e.body_text()).field("Content-Type"))?;
    let mut upload = Some(upload);
    let (mut staged, mut name, mut version) = (None, None, None);
    while let Some(part) = within(parts.next_field()).await?.map_err(|e| unreadable(e.body_text()))? {
        match part.name() {
            Some("name") => name = Some(text(part, "name").await?),
            Some("version") => version = Some(text(part, "version").await?),
            Some("file") => {
                let upload = upload.take().ok_or_else(|| unreadable("there are two files").field("file"))?;
                staged = Some(store(upload, part).await?);
            }
            other => {
                let other = other.unwrap_or_default().to_owned();
                return Err(unreadable(format!("unknown field `{}`", other.escape_debug()))
                    .field(other)
                    .expected("`name`, `version` and `file`"));
            }
        }
    }
    let staged = staged.ok_or_else(|| unreadable("there is no file").field("file").expected("a field `file`"))?;
    Ok(Received { staged, name, version })
}

async fn text(mut part: Field<'_>, field: &str) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = within(part.chunk()).await?.map_err(|e| unreadable(e.body_text()).field(field))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_FIELD {
            return Err(unreadable(format!("`{field}` is longer than {MAX_FIELD} bytes")).field(field));
        }
    }
    String::from_utf8(bytes).map_err(|_| unreadable(format!("`{field}` is not UTF-8")).field(field))
}

/// Streams into the staged file.
async fn store<E: std::fmt::Display>(
    mut upload: Upload,
    stream: impl Stream<Item = Result<Bytes, E>>,
) -> Result<Staged, Problem> {
    let mut stream = std::pin::pin!(stream);
    while let Some(chunk) = within(stream.next()).await? {
        let chunk = chunk.map_err(|e| unreadable(format!("the upload ended early: {e}")))?;
        upload.write(&chunk).await?;
    }
    let staged = upload.finish().await?;
    if staged.size == 0 {
        return Err(unreadable("the upload is empty").expected("the bytes of the file"));
    }
    Ok(staged)
}

async fn within<F: Future>(next: F) -> Result<F::Output, Problem> {
    let idle = || unreadable(format!("nothing came for {} s", IDLE.as_secs()));
    tokio::time::timeout(IDLE, next).await.map_err(|_| idle())
}
