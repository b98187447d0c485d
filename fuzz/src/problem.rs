//! Stands in for the API's problems, which `api/src/http/page.rs` makes: the rest of the API is not linked here.

use framehook_core::error_code::ErrorCode;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem;

impl Problem {
    pub(crate) fn new(_: ErrorCode, _: impl Into<String>) -> Self {
        Self
    }

    pub(crate) fn field(self, _: &str) -> Self {
        self
    }

    pub(crate) fn expected(self, _: impl Into<String>) -> Self {
        self
    }
}
