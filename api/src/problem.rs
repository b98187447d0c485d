//! What the API answers when it cannot do what it was asked for: RFC 9457 problems.
//!
//! Invariant: every error leaves the API as a [`Problem`] with a code of core's table; details of a defect of ours go
//! to the log under the problem's `instance`, never into the answer.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use framehook_core::error_code::ErrorCode;
use framehook_infra::{blobs::BlobError, store::StoreError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An RFC 9457 problem, `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:framehook:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same sentence for every occurrence of the code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable: programs match on it.
    pub code: ErrorCode,
    /// What happened this time, and what to do.
    pub detail: String,
    /// What of the request is wrong: a path such as `plugins.post[0].config.min_score`, or a parameter's name.
    pub field: Option<String>,
    pub expected: Option<String>,
    /// Everything that is wrong, when that is more than one thing; the first is also in `detail` and `field`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Names this occurrence in the service's log, for defects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

/// One of several things that are wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    pub code: ErrorCode,
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn new(code: ErrorCode, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: field.into(), message: message.into() }
    }
}

impl Problem {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
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
        }
    }

    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// One problem for all that is wrong. The first error gives code, field and detail; `None` if there is none.
    #[must_use]
    pub fn of_all(errors: Vec<FieldError>) -> Option<Self> {
        let problem = Self::from(errors.first()?.clone());
        Some(if errors.len() > 1 { Self { errors, ..problem } } else { problem })
    }

    /// A defect of ours, or of the machine: `cause` goes to the log only.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let instance = format!("urn:uuid:{}", Uuid::now_v7());
        tracing::error!(instance, "internal error: {cause}");
        let detail = "the request could not be finished; the service's log has the cause under this `instance`";
        Self { instance: Some(instance), ..Self::new(ErrorCode::Internal, detail) }
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
            BlobError::TooLarge { cap } => too_large(cap),
            BlobError::Full => Self::new(
                ErrorCode::StorageFull,
                "free disk space in the data folder or the shared blob store, then retry",
            ),
            BlobError::Unavailable(cause) => {
                tracing::warn!("shared blob store: {cause}");
                Self::new(ErrorCode::Unavailable, "the shared blob store is not available; retry in a moment")
            }
            other => Self::internal(other),
        }
    }
}

/// An upload, or a body, over its cap in bytes.
pub(crate) fn too_large(cap: u64) -> Problem {
    Problem::new(
        ErrorCode::UploadTooLarge,
        format!("at most {cap} bytes are accepted here; whoever runs the platform can raise that"),
    )
    .expected(format!("at most {cap} bytes"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // One second: the period of the services' own retries.
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
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
    fn what_passes_by_itself_is_told_from_what_needs_a_person() {
        let of = |error: StoreError| Problem::from(error).into_response();
        assert_eq!(of(StoreError::Full("x".into())).status(), 507);
        assert_eq!(Problem::from(BlobError::Full).status, 507);
        let unavailable = of(StoreError::Unavailable("x".into()));
        assert_eq!(Problem::from(BlobError::Unavailable("x".into())).status, 503);
        assert_eq!((unavailable.status().as_u16(), unavailable.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    }
}
