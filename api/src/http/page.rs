//! Pages of a list, and the cursors between them.
//!
//! A cursor is opaque to clients: it names the last item of a page, so that items that come or go meanwhile
//! make no page repeat or lose another item.

use std::borrow::Cow;

use framehook_core::{
    artifact::check_name,
    ids::{RunnerId, ScenarioId},
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, schema::SchemaType, schema::Type},
};

use crate::http::problem::Problem;

/// Items of a page when the client does not say.
const DEFAULT_LIMIT: u32 = 100;
/// A thousand predictions of twenty detections are about 4 MB of JSON; what is larger is cut by its
/// bytes.
pub(crate) const MAX_LIMIT: u32 = 1000;

/// One page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

/// A derive would name it `Page_ScenarioView` and describe its items a second time.
impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let cursor = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("Give it back as `cursor` for the next page; null: this was the last."));
        ObjectBuilder::new()
            .property("items", ArrayBuilder::new().items(Ref::from_schema_name(T::name())))
            .property("next_cursor", cursor)
            .required("items")
            .required("next_cursor")
            .description(Some("One page of a list."))
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    /// `ScenarioPage` of `ScenarioView`.
    fn name() -> Cow<'static, str> {
        let item = T::name();
        format!("{}Page", item.trim_end_matches("View").trim_end_matches("Item")).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into(), T::schema()));
        T::schemas(schemas);
    }
}

/// Which part of a list that has no other parameters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParameters {
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// 1 to 1000, 100 by default.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
}

/// The query string of a route that takes no parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParameters {}

impl<T> Page<T> {
    /// From one item more than `limit`, where there was one more.
    pub(crate) fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let has_more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = if has_more { items.last().map(cursor) } else { None };
        Self { items, next_cursor }
    }
}

/// # Errors
/// When it is not 1 to 1000.
pub(crate) fn limit(wanted: Option<u32>) -> Result<u32, Problem> {
    let limit = wanted.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    let expected = format!("1 to {MAX_LIMIT}");
    Err(Problem::parameter("limit", format!("`limit` is {limit}; expected {expected}")).expected(expected))
}

/// A letter a list, so that a cursor of another list is refused instead of meaning something else.
const SCENARIOS: char = 's';
const HISTORY: char = 'h';
const REVISIONS: char = 'v';
const LOGS: char = 'l';
const SHADOW: char = 'd';
const PREDICTIONS: char = 'p';
const ARTIFACTS: char = 'a';
const RUNNERS: char = 'r';

pub(crate) fn scenario_cursor(id: ScenarioId) -> String {
    format!("{SCENARIOS}{}", id.0.simple())
}

pub(crate) fn parse_scenario_cursor(cursor: Option<&str>) -> Result<Option<ScenarioId>, Problem> {
    parse(cursor, SCENARIOS, |text| text.parse().ok())
}

pub(crate) fn history_cursor(sequence: i64) -> String {
    format!("{HISTORY}{sequence:016x}")
}

pub(crate) fn parse_history_cursor(cursor: Option<&str>) -> Result<Option<i64>, Problem> {
    parse(cursor, HISTORY, number)
}

pub(crate) fn revision_cursor(revision: i64) -> String {
    format!("{REVISIONS}{revision:016x}")
}

pub(crate) fn parse_revision_cursor(cursor: Option<&str>) -> Result<Option<i64>, Problem> {
    parse(cursor, REVISIONS, number)
}

pub(crate) fn log_cursor(sequence: i64) -> String {
    format!("{LOGS}{sequence:016x}")
}

pub(crate) fn parse_log_cursor(cursor: Option<&str>) -> Result<Option<i64>, Problem> {
    parse(cursor, LOGS, number)
}

pub(crate) fn shadow_cursor(sequence: i64) -> String {
    format!("{SHADOW}{sequence:016x}")
}

pub(crate) fn parse_shadow_cursor(cursor: Option<&str>) -> Result<Option<i64>, Problem> {
    parse(cursor, SHADOW, number)
}

/// The place of a frame, then whose it is.
pub(crate) fn prediction_cursor(id: ScenarioId, pts_us: i64) -> String {
    format!("{PREDICTIONS}{pts_us:016x}{}", id.0.simple())
}

/// Release 0.1.0 gave cursors without a scenario.
pub(crate) fn parse_prediction_cursor(id: ScenarioId, cursor: Option<&str>) -> Result<Option<i64>, Problem> {
    parse(cursor, PREDICTIONS, |text| {
        let (pts_us, of) = text.split_at_checked(16)?;
        if !of.is_empty() && of != id.0.simple().to_string() {
            return None;
        }
        number(pts_us)
    })
}

/// The place of an artifact in its list: the sequence number of its upload, then its name.
pub(crate) fn artifact_cursor(name: &str, sequence: i64) -> String {
    format!("{ARTIFACTS}{sequence:016x}{name}")
}

pub(crate) fn parse_artifact_cursor(cursor: Option<&str>) -> Result<Option<(String, i64)>, Problem> {
    parse(cursor, ARTIFACTS, |text| {
        let (sequence, name) = text.split_at_checked(16)?;
        check_name(name).ok()?;
        Some((name.to_owned(), number(sequence)?))
    })
}

pub(crate) fn runner_cursor(id: &RunnerId) -> String {
    format!("{RUNNERS}{id}")
}

pub(crate) fn parse_runner_cursor(cursor: Option<&str>) -> Result<Option<RunnerId>, Problem> {
    parse(cursor, RUNNERS, |text| Some(RunnerId(text.to_owned())))
}

fn number(text: &str) -> Option<i64> {
    // Not every number that `from_str_radix` takes: a sign is none of ours.
    let ours = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    ours.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(u64::cast_signed)
}

fn parse<T>(cursor: Option<&str>, list: char, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    cursor.strip_prefix(list).and_then(read).map(Some).ok_or_else(|| {
        Problem::parameter("cursor", "this is no cursor of this list")
            .expected("a `next_cursor` of the page before, unchanged")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_others_are_refused() {
        let (id, other) = (ScenarioId::generate(), ScenarioId::generate());
        for n in [0, 1, -1, i64::MAX, i64::MIN] {
            let cursor = prediction_cursor(id, n);
            assert_eq!(parse_prediction_cursor(id, Some(&cursor)).unwrap(), Some(n));
            assert!(parse_prediction_cursor(other, Some(&cursor)).is_err());
            let of_the_first_release = format!("p{n:016x}");
            assert_eq!(parse_prediction_cursor(id, Some(&of_the_first_release)).unwrap(), Some(n));
            assert_eq!(parse_history_cursor(Some(&history_cursor(n))).unwrap(), Some(n));
            assert!(parse_history_cursor(Some(&cursor)).is_err());
            assert_eq!(parse_log_cursor(Some(&log_cursor(n))).unwrap(), Some(n));
            assert_eq!(parse_shadow_cursor(Some(&shadow_cursor(n))).unwrap(), Some(n));
            assert_eq!(parse_artifact_cursor(Some(&artifact_cursor("yolo", n))).unwrap(), Some(("yolo".into(), n)));
        }
        assert_eq!(parse_scenario_cursor(Some(&scenario_cursor(id))).unwrap(), Some(id));
        for bad in ["", "p", "p1", "px", "s1", "é", "p+000000000000001"] {
            assert!(parse_prediction_cursor(id, Some(bad)).is_err(), "{bad}");
            assert!(parse_scenario_cursor(Some(bad)).is_err(), "{bad}");
        }
        for bad in ["a", "a000000000000000", "a0000000000000001", "a0000000000000001X", "a000000000000000éa"] {
            assert!(parse_artifact_cursor(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_has_a_next_only_if_there_is_more() {
        let page = |n: i64, limit| Page::cut((0..n).collect(), limit, |i| history_cursor(*i));
        assert_eq!((page(2, 2).items.len(), page(2, 2).next_cursor), (2, None));
        assert_eq!((page(3, 2).items.len(), page(3, 2).next_cursor), (2, Some(history_cursor(1))));
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err());
        assert_eq!(limit(None).unwrap(), 100);
    }
}
