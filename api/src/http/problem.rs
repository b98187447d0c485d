//! What the API answers when it cannot do what it was asked for: RFC 9457 problems.
//!
//! Invariant: every error leaves the API as a [`Problem`] with a code of core's table; details of a defect of
//! ours go to the log under the problem's `instance`, never into the answer.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use framehook_core::error_code::ErrorCode;
use framehook_infra::{blobs::BlobError, store::StoreError};
use rustix::io::Errno;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};
use uuid::Uuid;

use crate::http::{listen::TooSlow, observe::request_id};

/// Bytes of a text in a problem: a screen full. A list of names that a client sent may have any length.
const MAX_TEXT: usize = 4 << 10;
/// Whoever has mended these sees the next.
const MAX_ERRORS: usize = 64;

/// An RFC 9457 problem, `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// `urn:framehook:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same sentence for every occurrence of the code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable: programs match on it. `docs/errors.md` says of each what it means and what to do.
    pub code: ErrorCode,
    /// What happened this time, and what to do.
    pub detail: String,
    /// What of the request is wrong: a path such as `plugins.post[0].config.min_score`, or a parameter's
    /// name.
    pub field: Option<String>,
    pub expected: Option<String>,
    /// Everything that is wrong, when that is more than one thing; the first is also in `detail` and `field`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Names this occurrence in the service's log, for defects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Names the request in the service's log; the same as the header `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Seconds for the header `Retry-After`, where they are known better than by the status.
    #[serde(skip)]
    pub(crate) retry_after_s: Option<u64>,
}

/// What the request's line in the log says of its problem.
#[derive(Clone)]
pub(crate) struct Logged {
    pub code: ErrorCode,
    /// Where the fault is ours: then it holds nothing that the client sent.
    pub detail: Option<String>,
}

/// What a handler gives.
pub(crate) type JsonResult<T> = Result<axum::Json<T>, Problem>;

/// A problem
#[derive(IntoResponses)]
#[response(status = "default", content_type = "application/problem+json")]
#[expect(dead_code, reason = "what the description says of every route")]
pub(crate) struct AnyProblem(Problem);

/// One of several things that are wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    pub code: ErrorCode,
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub(crate) fn new(code: ErrorCode, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: field.into(), message: message.into() }
    }
}

impl Problem {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:framehook:problem:{}", code.as_str()),
            title: code.title().into(),
            status: code.status(),
            code,
            detail: detail.into(),
            field: None,
            expected: None,
            errors: Vec::new(),
            instance: None,
            request_id: None,
            retry_after_s: None,
        }
    }

    /// A parameter of a path or a query string, or a header, that cannot be used.
    pub(crate) fn parameter(field: &str, detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidParameter, detail).field(field)
    }

    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// One problem for all that is wrong. The first error gives code, field and detail; `None` if there is
    /// none.
    pub(crate) fn of_all(errors: Vec<FieldError>) -> Option<Self> {
        let problem = Self::from(errors.first()?.clone());
        Some(if errors.len() > 1 { Self { errors, ..problem } } else { problem })
    }

    /// A defect of ours, or of the machine: `cause` goes to the log only.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        let instance = format!("urn:uuid:{}", Uuid::now_v7());
        tracing::error!(instance, "internal error: {cause}");
        let detail = "the request could not be finished; the service's log has the cause under this `instance`";
        Self { instance: Some(instance), ..Self::new(ErrorCode::Internal, detail) }
    }

    /// What goes out: bounded, whatever somebody else's text in it is, and with the request's number.
    fn bounded(mut self) -> Self {
        let texts = [Some(&mut self.detail), self.field.as_mut(), self.expected.as_mut()];
        texts.into_iter().flatten().for_each(cut);
        self.errors.truncate(MAX_ERRORS);
        for error in &mut self.errors {
            cut(&mut error.field);
            cut(&mut error.message);
        }
        self.request_id = self.request_id.or_else(request_id);
        self
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Self::new(error.code, error.message).field(error.field)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Short(shortage) => Self::new(ErrorCode::StorageFull, shortage.to_string()),
            StoreError::Full(_) => Self::new(ErrorCode::StorageFull, "free disk space in the data folder, then retry"),
            StoreError::Unavailable(cause) | StoreError::Contended(cause) => {
                tracing::warn!("store: {cause}");
                Self::new(ErrorCode::Unavailable, "the database is not available; retry in a moment")
            }
            StoreError::Corrupt(cause) => Self::internal(cause),
        }
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge { cap } => too_large(cap, None),
            BlobError::Short(shortage) => Self::new(ErrorCode::StorageFull, shortage.to_string()),
            BlobError::Full => Self::new(
                ErrorCode::StorageFull,
                "free disk space in the data folder or the shared blob store, then retry",
            ),
            BlobError::Unavailable(cause) => {
                tracing::warn!("shared blob store: {cause}");
                Self::new(ErrorCode::Unavailable, "the shared blob store is not available; retry in a moment")
            }
            BlobError::Io { source, .. } if is_passing(&source) => {
                tracing::warn!("blobs: {source}");
                Self::new(ErrorCode::Unavailable, "no more files can be opened at this moment; retry in a moment")
            }
            other => Self::internal(other),
        }
    }
}

/// Whether the machine lacks descriptors, processes or memory, of which there are more once others have
/// ended.
pub(crate) fn is_passing(error: &std::io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOBUFS].contains(&errno))
}

/// A client's word as far as it helps to see what is wrong, on one line.
pub(crate) fn shortened(text: &str) -> String {
    /// As long as a domain's name may be.
    const MOST: usize = 253;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        short.push_str("...");
    }
    short
}

/// If `error` is, or comes from, a body that came too slowly.
pub(crate) fn too_slow(error: &(dyn std::error::Error + 'static)) -> Option<Problem> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let slow = chain.into_iter().find_map(|error| error.downcast_ref::<TooSlow>())?;
    Some(Problem::new(ErrorCode::RequestTimeout, format!("{slow} (setting `min_upload_rate`)")))
}

/// An upload, or a body, over its cap in bytes, which follows from `setting`.
pub(crate) fn too_large(cap: u64, setting: Option<&str>) -> Problem {
    let raise = setting.map(|name| format!("; whoever runs the platform can raise that (setting `{name}`)"));
    let detail = format!("at most {cap} bytes are accepted here{}", raise.unwrap_or_default());
    Problem::new(ErrorCode::UploadTooLarge, detail).expected(format!("at most {cap} bytes"))
}

/// To [`MAX_TEXT`] bytes, between two characters.
fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push_str("...");
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let problem = self.bounded();
        // One second is the period of the services' own retries, five are about what a check takes.
        let usual = match problem.code {
            code if code.status() == 503 => Some(1),
            ErrorCode::TooBusy => Some(5),
            _ => None,
        };
        let retry_after = problem.retry_after_s.or(usual);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        let detail = status.is_server_error().then_some(problem.detail);
        response.extensions_mut().insert(Logged { code: problem.code, detail });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_speaks_for_all() {
        let error = |field: &str| FieldError::new(ErrorCode::UnknownModel, field, format!("no {field}"));
        assert_eq!(Problem::of_all(vec![]), None);
        let one = Problem::of_all(vec![error("a")]).unwrap();
        assert_eq!((one.field.as_deref(), one.detail.as_str(), one.errors.len()), (Some("a"), "no a", 0));
        let two = Problem::of_all(vec![error("a"), error("b")]).unwrap();
        assert_eq!((two.field.as_deref(), two.errors.len()), (Some("a"), 2));
    }

    #[test]
    fn a_defect_tells_the_log_and_not_the_client() {
        let problem = Problem::from(StoreError::Corrupt("row 7 of table secrets".into()));
        assert_eq!(problem.status, 500);
        assert!(!serde_json::to_string(&problem).unwrap().contains("secrets"));
        assert!(problem.instance.is_some());
    }

    #[test]
    fn the_log_has_the_detail_of_faults_of_ours_only() {
        let logged = |problem: Problem| problem.into_response().extensions().get::<Logged>().unwrap().clone();
        let ours = logged(StoreError::Unavailable("x".into()).into());
        assert!(ours.code == ErrorCode::Unavailable && ours.detail.unwrap().contains("database"));
        assert_eq!(logged(Problem::parameter("id", "a client's word")).detail, None);
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_needs_a_person() {
        let of = |error: StoreError| Problem::from(error).into_response();
        assert_eq!(of(StoreError::Full("x".into())).status(), 507);
        assert_eq!(Problem::from(BlobError::Full).status, 507);
        let io = |errno: Errno| Problem::from(BlobError::Io { path: "/data".into(), source: errno.into() });
        assert_eq!((io(Errno::MFILE).status, io(Errno::IO).status), (503, 500));
        let unavailable = of(StoreError::Unavailable("x".into()));
        assert_eq!(Problem::from(BlobError::Unavailable("x".into())).status, 503);
        assert_eq!((unavailable.status().as_u16(), unavailable.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    }
}
