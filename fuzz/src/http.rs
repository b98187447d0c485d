//! A part of the API's module of this name, with a problem that is less than the API's.

#[path = "../../api/src/http/page.rs"]
#[allow(dead_code, unreachable_pub, reason = "the API uses what is not used here")]
pub mod page;
#[path = "problem.rs"]
mod problem;
