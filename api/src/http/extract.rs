//! Extractors whose refusals are [`Problem`]s: parameters, query strings, JSON bodies, headers.
//!
//! Invariant: an unknown query parameter or field is an error, never ignored.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
};
use framehook_core::{
    artifact::{check_name, check_version},
    error_code::ErrorCode,
    ids::{RunnerId, ScenarioId},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::Span;

use crate::{
    SharedApp,
    check::canonical,
    http::{
        misread::misread,
        page::MAX_LIMIT,
        problem::{Problem, shortened, too_large, too_slow},
    },
};

async fn path<T, S>(parts: &mut Parts, state: &S, field: &str) -> Result<T, Problem>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    let read = Path::<T>::from_request_parts(parts, state).await;
    read.map(|Path(read)| read).map_err(|error| Problem::parameter(field, error.body_text()))
}

/// `{id}` of a path.
pub(crate) struct ScenarioPath(pub ScenarioId);

impl<S: Send + Sync> FromRequestParts<S> for ScenarioPath {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = path::<String, _>(parts, state, "id").await.and_then(|text| {
            text.parse().map_err(|e| Problem::parameter("id", format!("`{}` is not a UUID: {e}", text.escape_debug())))
        });
        let id = id.map_err(|problem| problem.expected("the UUID of a scenario"))?;
        Span::current().record("scenario_id", tracing::field::display(id));
        Ok(Self(id))
    }
}

/// `{id}` of a path: a runner may have any name.
pub(crate) struct RunnerPath(pub RunnerId);

impl<S: Send + Sync> FromRequestParts<S> for RunnerPath {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path(parts, state, "id").await.map(|id| Self(RunnerId(id)))
    }
}

/// `{name}` and `{version}` of a path.
pub(crate) struct VersionPath {
    pub name: String,
    pub version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (name, version) = path::<(String, String), _>(parts, state, "name").await?;
        check_name(&name).map_err(|e| Problem::parameter("name", e))?;
        check_version(&version).map_err(|e| Problem::parameter("version", e))?;
        Ok(Self { name, version })
    }
}

/// The parameters of a query string.
pub(crate) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|e| Problem::new(ErrorCode::InvalidParameter, format!("the query string cannot be read: {e}")))?;
    let deserializer = serde::de::value::MapDeserializer::new(pairs.into_iter().map(|(k, v)| (k, Text(v))));
    serde_path_to_error::deserialize(deserializer)
        .map_err(|e: serde_path_to_error::Error<ParameterError>| misread(ErrorCode::InvalidParameter, &e))
}

type ParameterError = serde::de::value::Error;

/// A parameter's text, read as whatever its field wants.
struct Text(String);

macro_rules! read_from_text {
    ($($method:ident => $visit:ident, $what:expr;)+) => {
        $(fn $method<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
            let value = self.0.parse().map_err(|_| {
                serde::de::Error::custom(format!("invalid value `{}`, expected {}", self.0.escape_debug(), $what))
            })?;
            visitor.$visit(value)
        })+
    };
}

impl<'de> serde::de::IntoDeserializer<'de, ParameterError> for Text {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> serde::Deserializer<'de> for Text {
    type Error = ParameterError;
    read_from_text! {
        deserialize_i64 => visit_i64, "a whole number";
        // Each is the limit of a page.
        deserialize_u32 => visit_u32, format_args!("a whole number from 1 to {MAX_LIMIT}");
        deserialize_u8 => visit_u8, "a whole number from 0 to 255";
        deserialize_f32 => visit_f32, "a number";
        deserialize_bool => visit_bool, "`true` or `false`";
    }
    fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_string(self.0)
    }
    fn deserialize_option<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_some(self)
    }
    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParameterError> {
        visitor.visit_enum(serde::de::value::StringDeserializer::new(self.0))
    }
    serde::forward_to_deserialize_any! {
        i8 i16 i32 u16 u64 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A JSON body, as text and as what the handler wants.
pub(crate) struct Body<T> {
    pub json: Value,
    pub parsed: T,
}

impl<T: DeserializeOwned> FromRequest<SharedApp> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, app: &SharedApp) -> Result<Self, Problem> {
        check_is_json(request.headers())?;
        let limit = app.config.http.small_body;
        let bytes = tokio::time::timeout(limit, Bytes::from_request(request, app)).await.map_err(|_| {
            let detail = format!("the body did not come within {} s (setting `body_timeout_s`)", limit.as_secs());
            Problem::new(ErrorCode::RequestTimeout, detail)
        })?;
        let bytes = bytes.map_err(|e| {
            if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
                too_large(app.config.limits.body_bytes() as u64, Some("max_configs_kib"))
            } else {
                let ended = || Problem::new(ErrorCode::InvalidJson, format!("the body ended early: {}", e.body_text()));
                too_slow(&e).unwrap_or_else(ended)
            }
        })?;
        parse_body(&bytes)
    }
}

/// `application/json`, or a format that is written in it. A browser asks us before it sends that for a page
/// of another site.
fn check_is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let detail = match essence.as_str() {
        "" => "the body has no content type".to_owned(),
        other => format!("the body is `{}`", shortened(other)),
    };
    let problem =
        Problem::new(ErrorCode::UnsupportedMediaType, format!("{detail}; send `Content-Type: application/json`"));
    Err(problem.field("Content-Type").expected("application/json"))
}

/// Syntax first, so that a misplaced comma has a line and a column, then meaning, so that a misplaced value
/// has a path.
pub(crate) fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<Body<T>, Problem> {
    let json: Value = serde_json::from_slice(bytes).map_err(|e| {
        let detail = if bytes.is_empty() { "the body is empty".to_owned() } else { e.to_string() };
        Problem::new(ErrorCode::InvalidJson, detail).expected("a JSON object, UTF-8")
    })?;
    // A type that is read from an object would be from a list, too: its fields in their order.
    if !json.is_object() {
        let problem = Problem::new(ErrorCode::InvalidScenario, "`body`: expected an object").field("body");
        return Err(problem.expected("an object"));
    }
    let mut parsed = json.clone();
    canonical::whole_numbers(&mut parsed);
    let parsed = serde_path_to_error::deserialize(parsed).map_err(|e| misread(ErrorCode::InvalidScenario, &e))?;
    Ok(Body { json, parsed })
}

/// The `Idempotency-Key` header.
///
/// # Errors
/// When it is not 1 to 255 visible ASCII characters.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const NAME: &str = "Idempotency-Key";
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    let key = value.to_str().ok().filter(|k| (1..=255).contains(&k.len()) && k.bytes().all(|b| b.is_ascii_graphic()));
    key.map(|k| Some(k.to_owned())).ok_or_else(|| {
        Problem::parameter(NAME, "the idempotency key cannot be used")
            .expected("1 to 255 visible ASCII characters without spaces")
    })
}

/// The media types that the client takes, without their parameters.
fn accepted(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let types = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    types.filter_map(|t| t.split(';').next()).map(|t| t.trim().to_ascii_lowercase())
}

/// For caches: the answer is in one format or the other.
pub(crate) const BY_ACCEPT: [(HeaderName, &str); 1] = [(header::VARY, "accept")];
/// One JSON object a line.
pub(crate) const NDJSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/x-ndjson")];

/// Whether the client wants one JSON object a line.
pub(crate) fn wants_ndjson(headers: &HeaderMap) -> bool {
    accepted(headers).any(|t| t == "application/x-ndjson")
}

/// # Errors
/// When the client takes no JSON.
pub(crate) fn check_takes_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = accepted(headers).peekable();
    let is_json = |t: String| matches!(&*t, "" | "*/*" | "application/*" | "application/json") || t.ends_with("+json");
    if types.peek().is_none() || types.any(is_json) {
        return Ok(());
    }
    let detail = "the answer is a page of JSON (`application/json`) or JSON lines (`application/x-ndjson`)";
    Err(Problem::new(ErrorCode::NotAcceptable, detail).field("Accept"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn a_body_says_that_it_is_json() {
        let check = |kind: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
            check_is_json(&headers).map_err(|problem| problem.status)
        };
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.example+json"] {
            assert_eq!(check(kind), Ok(()), "{kind}");
        }
        for kind in ["", "text/plain", "text/plain;application/json", "text/json", "application/x-www-form-urlencoded"]
        {
            assert_eq!(check(kind), Err(415), "{kind}");
        }
        assert!(check_is_json(&HeaderMap::new()).is_err());
    }

    #[test]
    fn parameters_are_typed_and_known() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parameters {
            limit: Option<u32>,
            from_us: Option<i64>,
        }
        let good = parse_query::<Parameters>("limit=3&from_us=-1").unwrap();
        assert_eq!((good.limit, good.from_us), (Some(3), Some(-1)));
        for (query, field, words) in [
            ("limit=-1", "limit", "whole number from 1 to 1000"),
            ("limit=99999999999999", "limit", "whole number from 1 to 1000"),
            ("limit=x", "limit", "whole number"),
            ("offset=1", "offset", "expected `limit` or `from_us`"),
            ("limit=1&limit=2", "limit", "duplicate parameter `limit`"),
        ] {
            let problem = parse_query::<Parameters>(query).unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field), "{query}: {}", problem.detail);
            assert!(problem.detail.contains(words), "{query}: {}", problem.detail);
        }
        let none = parse_query::<crate::http::page::NoParameters>("name=foo").err().unwrap();
        assert_eq!(none.detail, "`name`: unknown parameter `name`; this route takes none");
    }

    #[test]
    fn headers_are_read_strictly_or_not_at_all() {
        let with =
            |name: &'static str, value: &str| HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
        assert_eq!(idempotency_key(&with("idempotency-key", "a-1")), Ok(Some("a-1".into())));
        for bad in ["", "a b", &"a".repeat(256)] {
            assert!(idempotency_key(&with("idempotency-key", bad)).is_err(), "{bad}");
        }
        assert!(wants_ndjson(&with("accept", "text/html, application/x-ndjson;q=0.9")));
        assert!(!wants_ndjson(&with("accept", "application/json")));
    }
}
