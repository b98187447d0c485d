//! `/scenario/{id}/logs`: what a scenario's hooks log and the platform says of them, as a page, as lines, or
//! as lines that go on.
//!
//! Invariant: a request holds at most the lines that are kept of one scenario, which are bounded; one that
//! follows holds nothing while it waits.

use std::{
    collections::BTreeSet,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use framehook_core::{
    error_code::ErrorCode, hook_stats::HookStats, ids::ScenarioId, job::LogLevel, probe::printable,
    scenario_log::PLATFORM,
};
use framehook_infra::store::{LogEntry, Scenarios};
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::{sync::OwnedSemaphorePermit, time::sleep};
use utoipa::IntoParams;

use crate::{
    SharedApp,
    http::{
        extract::{BY_ACCEPT, NDJSON, Query, ScenarioPath, check_takes_json, wants_ndjson},
        page::{self, Page},
        problem::{AnyProblem, Problem},
        server::Flowing,
    },
    resource::scenario::not_found,
};

/// Requests that follow at a time, those of all scenarios: each looks into the database twice a second.
pub(crate) const MAX_FOLLOWERS: usize = 64;
/// Between two looks for new lines, of which a runner publishes a batch a second.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A runner publishes the last lines before it tells of the end, so by then they have been stored.
const LINGER: Duration = Duration::from_secs(1);
/// An empty line goes out when there was none for this long: half of what proxies usually wait for.
const HEARTBEAT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Only lines of this plugin, by its name or as `name@version`. `framehook`: only what the platform says
    /// of the whole scenario.
    plugin: Option<String>,
    /// Only lines of this level and above.
    level: Option<LogLevel>,
    /// Goes on with new lines as they come, until the scenario is at rest.
    #[param(default = false)]
    follow: Option<bool>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000; without it a page has 100, and a stream all.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

type LogPage = Page<LogEntry>;

/// What a scenario's hooks log, oldest first
///
/// Lines of the plugins, what they print, and what the platform says of them: failures, when a plugin is not
/// called for a while, lines that were left out, a worker that went down. Of each scenario the newest 2,000
/// lines are kept, and at most 512 KiB; `sequence` tells whether some went between two of yours. Lines are
/// published once a second. Those that a runner had not published when it died are missing.
///
/// With `Accept: application/x-ndjson` the answer is one JSON object a line. With `follow` it is that,
/// whatever `Accept` says: the lines so far, then new ones as they come, until the scenario has completed,
/// failed or been stopped. An empty line, which stands for nothing, comes while there is none for half a
/// minute. An answer that is cut off is not complete: ask again.
#[utoipa::path(get, path = "/scenario/{id}/logs", tag = "/scenario", operation_id = "get_logs",
    params(("id" = ScenarioId, Path), Parameters),
    responses((status = 200, description = "A page of lines", body = LogPage), AnyProblem))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Parameters { plugin, level, follow, cursor, limit } = parameters;
    let follows = follow.unwrap_or_default();
    let as_lines = follows || wants_ndjson(&headers);
    if !as_lines {
        check_takes_json(&headers)?;
    }
    let after = page::parse_log_cursor(cursor.as_deref())?.unwrap_or_default();
    let of_page = page::limit(limit)?;
    let left = limit.map_or(usize::MAX, |limit| limit as usize);
    if let Some(plugin) = &plugin {
        check_plugin(&app, id, plugin).await?;
    }
    let mut reader = Reader { store: app.store.clone(), id, after, plugin, level };
    if follows {
        return Ok((NDJSON, self::follow(app, reader, left).await?).into_response());
    }
    let entries = {
        let _turn = app.page_turns.acquire().await;
        reader.next().await?.ok_or_else(|| not_found(id))?
    };
    if as_lines {
        return Ok((BY_ACCEPT, NDJSON, lines(&entries[..left.min(entries.len())])?).into_response());
    }
    let page = Page::cut(entries, of_page, |last| page::log_cursor(last.sequence));
    Ok((BY_ACCEPT, axum::Json(page)).into_response())
}

/// Reads a scenario's log from front to back.
struct Reader {
    store: Arc<dyn Scenarios>,
    id: ScenarioId,
    /// The last line that was looked at.
    after: i64,
    plugin: Option<String>,
    level: Option<LogLevel>,
}

impl Reader {
    /// All lines that are there now and match; `None`: there is no such scenario.
    async fn next(&mut self) -> Result<Option<Vec<LogEntry>>, Problem> {
        let Some(mut entries) = self.store.log(self.id, self.after).await? else { return Ok(None) };
        self.after = entries.last().map_or(self.after, |last| last.sequence);
        entries.retain(|entry| self.takes(entry));
        Ok(Some(entries))
    }

    fn takes(&self, LogEntry { line, .. }: &LogEntry) -> bool {
        let is_of = |wanted: &str| is_named(&line.plugin, wanted);
        self.plugin.as_deref().is_none_or(is_of) && self.level.is_none_or(|least| line.level >= least)
    }
}

/// Whether `name@version` is what somebody names so.
fn is_named(plugin: &str, wanted: &str) -> bool {
    plugin.strip_prefix(wanted).is_some_and(|behind| behind.is_empty() || behind.starts_with('@'))
}

/// A name that the scenario does not have would give nothing, for ever.
async fn check_plugin(app: &SharedApp, id: ScenarioId, wanted: &str) -> Result<(), Problem> {
    let scenario = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    let hooks = HookStats::of(&scenario.resolved).into_iter().map(|hook| hook.plugin);
    let mut names: BTreeSet<_> = hooks.chain([PLATFORM.to_owned()]).collect();
    if names.iter().any(|name| is_named(name, wanted)) {
        return Ok(());
    }
    // It may have had it.
    let logged = app.store.log(id, 0).await?.unwrap_or_default();
    names.extend(logged.into_iter().map(|entry| entry.line.plugin));
    if names.iter().any(|name| is_named(name, wanted)) {
        return Ok(());
    }
    let names = Vec::from_iter(names).join(", ");
    let detail = format!("the scenario has no plugin `{}`; there are {names}", printable(wanted));
    Err(Problem::parameter("plugin", detail))
}

/// Each as a line of JSON.
pub(crate) fn lines<T: Serialize>(entries: &[T]) -> Result<String, Problem> {
    let mut lines = String::new();
    for entry in entries {
        lines.push_str(&serde_json::to_string(entry).map_err(Problem::internal)?);
        lines.push('\n');
    }
    Ok(lines)
}

/// An answer that goes on. An error midway cuts the connection, so that it is not taken for the whole.
async fn follow(app: SharedApp, reader: Reader, left: usize) -> Result<impl IntoResponse, Problem> {
    // A stream that has begun can give no problem any more.
    app.store.scenario(reader.id).await?.ok_or_else(|| not_found(reader.id))?;
    let place = app.followers.clone().try_acquire_owned().map_err(|_| {
        let detail = format!("{MAX_FOLLOWERS} requests follow a log already; read pages, or follow later");
        Problem::new(ErrorCode::TooBusy, detail).field("follow")
    })?;
    let follower = Follower { app, reader, left, is_at_rest: false, silent_since: Instant::now(), _place: place };
    let body = Body::from_stream(stream::try_unfold(follower, async |mut follower| {
        let piece = follower.next().await?;
        Ok::<_, io::Error>(piece.map(|piece| (piece, follower)))
    }));
    Ok((Flowing::extension(), body))
}

struct Follower {
    app: SharedApp,
    reader: Reader,
    /// Lines that are still wanted.
    left: usize,
    is_at_rest: bool,
    silent_since: Instant,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// Waits for lines; `None`: there will be no more.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let failed = |problem: Problem| io::Error::other(problem.detail);
        while self.left > 0 {
            let Some(entries) = self.reader.next().await.map_err(failed)? else { break };
            let wanted = &entries[..self.left.min(entries.len())];
            if !wanted.is_empty() {
                self.left -= wanted.len();
                self.silent_since = Instant::now();
                return lines(wanted).map(|lines| Some(lines.into())).map_err(failed);
            }
            if self.is_at_rest {
                break;
            }
            let scenario = self.app.store.scenario(self.reader.id).await.map_err(|error| failed(error.into()))?;
            self.is_at_rest = scenario.is_none_or(|scenario| scenario.state.is_ended());
            if self.silent_since.elapsed() >= HEARTBEAT {
                self.silent_since = Instant::now();
                return Ok(Some(Bytes::from_static(b"\n")));
            }
            tokio::select! {
                () = sleep(if self.is_at_rest { LINGER } else { LOOK_AGAIN }) => {}
                () = self.app.draining.cancelled() => return Err(io::Error::other("the API is stopping")),
            }
        }
        Ok(None)
    }
}
