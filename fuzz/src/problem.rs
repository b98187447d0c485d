//! Stands in for the API's problems, which `api/src/http/page.rs` makes: the rest of the API is not linked
//! here.

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem;

impl Problem {
    pub(crate) fn parameter(_: &str, _: impl Into<String>) -> Self {
        Self
    }

    pub(crate) fn expected(self, _: impl Into<String>) -> Self {
        self
    }
}
