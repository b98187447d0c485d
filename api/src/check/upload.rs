//! From a request's body to a file that is hashed and capped on its way.
//!
//! Invariant: the bytes are never in memory as a whole, and whatever goes wrong leaves nothing behind: the
//! staged file removes itself. How slowly a body may come is the connection's business (`listen`).

use axum::{
    body::BodyDataStream,
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use framehook_core::{
    error_code::ErrorCode,
    signature::{MAX_SIGNATURE, PluginSignature},
};
use framehook_infra::blobs::{Blobs, Staged, Upload};
use futures::{Stream, StreamExt};
use multer::{Constraints, Field, Multipart, SizeLimit};

use crate::{
    check::signature,
    http::{
        guard::is_of_a_page,
        multipart::{InDoses, Progress},
        problem::{Problem, shortened, too_large, too_slow},
    },
};

/// Bytes of a `name` or `version` field: more than any valid one, so that the message can show what is wrong
/// with it.
const MAX_FIELD: usize = 1024;
/// Bytes of a `signature` field: one that is longer is told so, and not that the form is.
const MAX_SIGNATURE_FIELD: usize = 2 * MAX_SIGNATURE;
/// Boundaries, headers and other fields of a multipart body around its file.
const MULTIPART_OVERHEAD: u64 = 64 << 10;
/// As RFC 2046 has it.
const MAX_BOUNDARY: usize = 70;
/// Those that say what a file of ours is, and the one that says nothing.
const TYPES: [&str; 4] = ["application/octet-stream", "application/wasm", "application/onnx", "application/x-onnx"];
/// What a browser sends for any page without asking first, and what curl says of `--data-binary`.
const CARELESS_TYPES: [&str; 3] = ["application/x-www-form-urlencoded", "text/plain", ""];

/// What came in.
pub(crate) struct Received {
    pub staged: Staged,
    /// From multipart fields.
    pub name: Option<String>,
    pub version: Option<String>,
    /// That of a plugin.
    pub signature: Option<PluginSignature>,
}

impl Received {
    /// A file without anything beside it.
    pub(crate) const fn raw(staged: Staged) -> Self {
        Self { staged, name: None, version: None, signature: None }
    }
}

fn unreadable(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::InvalidUpload, detail)
}

/// Takes a raw body, or the field `file` of a multipart one.
///
/// # Errors
/// `unsupported_media_type`, `upload_too_large`, `invalid_upload`, `invalid_signature`, `request_timeout`, or
/// why it could not be stored.
pub(crate) async fn receive(blobs: &Blobs, cap: u64, request: Request) -> Result<Received, Problem> {
    let form = form(request.headers())?;
    let most = if form.is_some() { cap.saturating_add(MULTIPART_OVERHEAD) } else { cap };
    if content_length(request.headers()).is_some_and(|length| length > most) {
        return Err(too_large(cap, None));
    }
    let upload = blobs.begin(cap).await?;
    let body = request.into_body().into_data_stream();
    match form {
        Some(boundary) => receive_form(upload, cap, boundary, body).await,
        None => Ok(Received::raw(store(upload, body).await?)),
    }
}

/// The boundary, if it is a form; an error if the content type is not taken.
///
/// A browser sends forms and the careless types for pages of any site without asking first. Forms are taken,
/// because `guard` has refused writes from pages of other sites. The careless types, which `curl
/// --data-binary` sends, are taken only if no page sent them, in case a browser does not say whose page it
/// is.
fn form(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refused = |detail: String| {
        Problem::new(ErrorCode::UnsupportedMediaType, detail).field("Content-Type").expected(
            "`application/octet-stream`, `application/wasm`, `application/onnx`, `video/...` or `multipart/form-data`",
        )
    };
    let value = headers.get(header::CONTENT_TYPE).map_or(Ok(""), |value| value.to_str());
    let Ok(value) = value else { return Err(refused("the content type is not text".into())) };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "multipart/form-data" {
        let boundary = multer::parse_boundary(value).map_err(|e| unreadable(e.to_string()).field("Content-Type"))?;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            let detail = format!("the boundary has {} bytes; expected 1 to {MAX_BOUNDARY}", boundary.len());
            return Err(unreadable(detail).field("Content-Type"));
        }
        return Ok(Some(boundary));
    }
    let is_ours = TYPES.contains(&essence.as_str()) || essence.starts_with("video/");
    let is_careless = CARELESS_TYPES.contains(&essence.as_str()) && !is_of_a_page(headers);
    if is_ours || is_careless { Ok(None) } else { Err(refused(format!("`{}` is not taken here", shortened(&essence)))) }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn receive_form(upload: Upload, cap: u64, boundary: String, body: BodyDataStream) -> Result<Received, Problem> {
    let whole = SizeLimit::new().whole_stream(cap.saturating_add(MULTIPART_OVERHEAD));
    let (body, progress) = InDoses::new(body);
    let mut parts = Multipart::with_constraints(body, boundary, Constraints::new().size_limit(whole));
    let mut upload = Some(upload);
    let (mut staged, mut name, mut version, mut signature) = (None, None, None, None);
    while let Some(part) = parts.next_field().await.map_err(|error| broken(cap, &error))? {
        progress.made();
        match part.name() {
            Some("name") if name.is_none() => name = Some(text(part, "name", MAX_FIELD, cap).await?),
            Some("version") if version.is_none() => version = Some(text(part, "version", MAX_FIELD, cap).await?),
            Some("signature") if signature.is_none() => {
                let json = text(part, "signature", MAX_SIGNATURE_FIELD, cap).await?;
                signature = Some(PluginSignature::parse(&json).map_err(signature::invalid)?);
            }
            Some("file") if upload.is_some() => {
                let Some(upload) = upload.take() else { continue };
                staged = Some(store_part(upload, part, cap, &progress).await?);
            }
            Some(twice @ ("name" | "version" | "signature" | "file")) => {
                return Err(unreadable(format!("there are two fields `{twice}`")).field(twice));
            }
            other => {
                let other = shortened(other.unwrap_or_default());
                return Err(unreadable(format!("unknown field `{other}`"))
                    .field(other)
                    .expected("`name`, `version`, `signature` and `file`"));
            }
        }
    }
    let staged = staged.ok_or_else(|| unreadable("there is no file").field("file").expected("a field `file`"))?;
    Ok(Received { staged, name, version, signature })
}

/// Why a form could not be read on.
fn broken(cap: u64, error: &multer::Error) -> Problem {
    match error {
        multer::Error::StreamSizeExceeded { .. } => too_large(cap, None),
        error => too_slow(error).unwrap_or_else(|| unreadable(format!("the form cannot be read: {error}"))),
    }
}

async fn text(mut part: Field<'_>, field: &str, most: usize, cap: u64) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| broken(cap, &error).field(field))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > most {
            return Err(unreadable(format!("`{field}` is longer than {most} bytes")).field(field));
        }
    }
    String::from_utf8(bytes).map_err(|_| unreadable(format!("`{field}` is not UTF-8")).field(field))
}

async fn store_part(upload: Upload, part: Field<'_>, cap: u64, progress: &Progress) -> Result<Staged, Problem> {
    let chunks = part.map(|chunk| {
        progress.made();
        chunk.map_err(|error| broken(cap, &error))
    });
    write(upload, chunks).await
}

/// Streams into the staged file.
async fn store(upload: Upload, body: BodyDataStream) -> Result<Staged, Problem> {
    let ended = |error| too_slow(&error).unwrap_or_else(|| unreadable(format!("the upload ended early: {error}")));
    write(upload, body.map(|chunk| chunk.map_err(ended))).await
}

async fn write(mut upload: Upload, chunks: impl Stream<Item = Result<Bytes, Problem>>) -> Result<Staged, Problem> {
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.next().await {
        upload.write(&chunk?).await?;
    }
    let staged = upload.finish().await?;
    if staged.size == 0 {
        return Err(unreadable("the upload is empty").expected("the bytes of the file"));
    }
    Ok(staged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_type_of_ours_and_a_page_must_say_so() {
        let taken = |kind: Option<&str>, of_a_page: bool| {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            if of_a_page {
                headers.insert("sec-fetch-mode", "no-cors".parse().unwrap());
            }
            form(&headers).map_err(|problem| problem.status)
        };
        for kind in ["application/octet-stream", "Application/WASM", "video/mp4", "application/onnx; a=b"] {
            assert_eq!((taken(Some(kind), false), taken(Some(kind), true)), (Ok(None), Ok(None)), "{kind}");
        }
        for kind in [Some("application/x-www-form-urlencoded"), Some("text/plain;charset=UTF-8"), Some(""), None] {
            assert_eq!((taken(kind, false), taken(kind, true)), (Ok(None), Err(415)), "{kind:?}");
        }
        for kind in ["application/json", "text/html", "multipart/mixed; boundary=a", "application", "\u{e9}"] {
            assert_eq!((taken(Some(kind), false), taken(Some(kind), true)), (Err(415), Err(415)), "{kind}");
        }
        let with = |boundary: &str| taken(Some(&format!("multipart/form-data; boundary={boundary}")), true);
        assert_eq!(with("abc"), Ok(Some("abc".into())));
        assert_eq!((with(""), with(&"a".repeat(71))), (Err(400), Err(400)));
        assert_eq!(taken(Some("multipart/form-data"), false), Err(400));
    }
}
