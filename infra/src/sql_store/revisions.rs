//! Revisions of scenarios: the API's change and list, and the orchestrator's note of what became of them.
//!
//! Invariants: `scenarios` holds the wanted revision. A scenario has rows here from its first change on, for
//! each revision one, but for the oldest of those that are over. The order of a live worker is of the wanted
//! revision, so repeating it says what is wanted.

use std::collections::BTreeSet;

use framehook_core::{
    ids::{Digest, Generation, ScenarioId},
    message::{DeployOrder, Message},
    reason::{Reason, ReasonCode},
    revision::{Begin, MAX_REVISIONS, RevisionState},
    spec::ResolvedScenario,
    writes::{MayRevise, may_revise},
};

use super::{
    Conn, Database, Row,
    history::{self, Line},
    key, now_us, one_more, outbox, part, scenarios,
};
use crate::{
    history::Moment,
    row::RowExt as _,
    sql::{artifacts, signed, to_json, unsigned},
    store::{Limit, NewRevision, Result, Revised, RevisionEntry, Rows, ScenarioRecord},
};

const ADD: &str = "
    INSERT INTO scenario_revisions (scenario_id, revision, at, spec, resolved, fresh, state, reason)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (scenario_id, revision) DO NOTHING";
const NEWEST: &str = "SELECT max(revision) AS newest FROM scenario_revisions WHERE scenario_id = $1";
const SUPERSEDE_PENDING: &str =
    "UPDATE scenario_revisions SET state = 'superseded' WHERE scenario_id = $1 AND state = 'pending'";
const TRIM: &str = "
    DELETE FROM scenario_revisions
    WHERE scenario_id = $1 AND revision <= $2 AND state IN ('superseded', 'rolled_back')";
const WANT: &str = "
    UPDATE scenarios SET revision = $2, name = $3, spec = $4, resolved = $5, memory_mib = $6, updated_at = $7
    WHERE id = $1";
const NAMES: &str = concat!(
    "INSERT INTO scenario_artifacts (kind, name, version, scenario_id)
    SELECT DISTINCT value ->> 0, value ->> 1, value ->> 2, $1 FROM ",
    elements!("$2"),
    " WHERE true ON CONFLICT (kind, name, version, scenario_id) DO NOTHING"
);
const LIVE_ORDER: &str = "
    SELECT generation, deploy_order FROM workers
    WHERE scenario_id = $1 AND state IN ('pending', 'deployed', 'running') AND NOT stop_ordered";
const CHANGE_ORDER: &str = "
    UPDATE workers SET deploy_order = $3, ordered_at = $4, repeats = 0, updated_at = $4
    WHERE scenario_id = $1 AND generation = $2";
const DROP_STATE: &str = "DELETE FROM hook_state WHERE scenario_id = $1";
const BEGINS_FRESH: &str = "
    SELECT EXISTS (SELECT 1 FROM scenario_revisions
        WHERE scenario_id = $1 AND revision = $2 AND state = 'pending' AND fresh)";
const SUPERSEDE_ACTIVE: &str = "
    UPDATE scenario_revisions SET state = 'superseded' WHERE scenario_id = $1 AND state = 'active' AND revision <> $2";
const ACTIVATE: &str = "
    UPDATE scenario_revisions SET state = $3, from_frame = coalesce(from_frame, $4)
    WHERE scenario_id = $1 AND revision = $2";
const ROLL_BACK: &str = "
    UPDATE scenario_revisions SET state = 'rolled_back', reason = $3
    WHERE scenario_id = $1 AND revision = $2 AND state <> 'rolled_back'";
const BEFORE: &str = "
    SELECT revision, at, spec, resolved, fresh, state, reason, from_frame FROM scenario_revisions
    WHERE scenario_id = $1 AND revision < $2 AND state <> 'rolled_back' ORDER BY revision DESC LIMIT 1";
/// The sizes come first, as of a page of scenarios.
const PAGE: &str = "
    WITH sizes AS MATERIALIZED (
        SELECT revision, CAST(octet_length(spec) + octet_length(resolved) AS bigint) AS bytes
        FROM scenario_revisions WHERE scenario_id = $1 AND revision > $2 ORDER BY revision LIMIT $3),
    sums AS (SELECT revision, bytes, sum(bytes) OVER (ORDER BY revision) AS total FROM sizes)
    SELECT (SELECT count(*) FROM sizes) AS found, revision, at, spec, resolved, fresh, state, reason, from_frame
    FROM scenario_revisions
    WHERE scenario_id = $1 AND revision IN (SELECT revision FROM sums WHERE total <= $4 OR total = bytes)
    ORDER BY revision";
/// Those of scenarios that may still run: a worker that starts anew, or goes back, needs the hooks of these.
const IN_USE: &str = "
    SELECT r.resolved FROM scenario_revisions r JOIN scenarios s ON s.id = r.scenario_id
    WHERE r.state IN ('pending', 'active') AND s.state <> 'completed' AND s.desired <> 'deleted'";
const USERS: &str = "
    SELECT s.id FROM scenario_artifacts a JOIN scenarios s ON s.id = a.scenario_id
    WHERE a.kind = 'plugin' AND a.name = $1 AND a.version = $2 AND s.state <> 'completed' AND s.desired <> 'deleted'
    ORDER BY s.id";

pub(super) async fn revise(db: &Database, id: ScenarioId, new: &NewRevision) -> Result<Revised> {
    let mut tx = db.write().await?;
    let Some((before, _)) = scenarios::lock(&mut tx, id).await? else { return Ok(Revised::NotFound) };
    match may_revise(before.desired, before.state, before.revision, new.based_on) {
        MayRevise::Yes => {}
        MayRevise::Conflict => return Ok(Revised::Conflict { current: before.revision }),
        MayRevise::Ended => return Ok(Revised::Ended),
        MayRevise::Deleted => return Ok(Revised::NotFound),
    }
    db.admit()?;
    let at = Moment { now: now_us(&mut tx).await?, most: db.history_lines };
    let revision = add(&mut tx, at.now, &before, new).await?;
    let mut line = Line {
        from: before.state,
        to: before.state,
        desired: before.desired,
        generation: before.generation,
        reason: None,
    };
    if let Some(reason) = &new.refused {
        line.reason = Some(reason);
        history::add(&mut tx, id, at, line).await?;
    } else {
        want(&mut tx, at.now, id, (revision, new)).await?;
        let reason = Reason::new(ReasonCode::Revised, format!("revision {revision}: {}", new.what));
        line.reason = Some(&reason);
        history::add(&mut tx, id, at, line).await?;
    }
    let after = scenarios::read(&mut tx, id).await?;
    tx.commit().await?;
    db.outbox.notify_one();
    Ok(after.map_or(Revised::NotFound, |record| Revised::Done(Box::new(record))))
}

/// Its row, and that of the one before if this is the first change. Gives its number.
async fn add(conn: &mut Conn, now: i64, before: &ScenarioRecord, new: &NewRevision) -> Result<i64> {
    let scenario = key(before.id.0);
    let first = sqlx::query(ADD).bind(scenario).bind(before.revision).bind(before.created_at.as_microsecond());
    let first = first.bind(to_json(&before.spec)?).bind(to_json(&before.resolved)?).bind(false);
    first.bind(RevisionState::Active.as_str()).bind(None::<String>).execute(&mut *conn).await?;
    let newest: i64 = sqlx::query(NEWEST).bind(scenario).fetch_one(&mut *conn).await?.col("newest")?;
    let revision = newest + 1;
    let state = if new.refused.is_some() { RevisionState::RolledBack } else { RevisionState::Pending };
    if state == RevisionState::Pending {
        sqlx::query(SUPERSEDE_PENDING).bind(scenario).execute(&mut *conn).await?;
    }
    let row = sqlx::query(ADD).bind(scenario).bind(revision).bind(now);
    let row = row.bind(to_json(&new.spec)?).bind(to_json(&new.resolved)?).bind(new.begin == Begin::Fresh);
    let row = row.bind(state.as_str()).bind(new.refused.as_ref().map(to_json).transpose()?);
    row.execute(&mut *conn).await?;
    sqlx::query(TRIM).bind(scenario).bind(revision - MAX_REVISIONS).execute(conn).await?;
    Ok(revision)
}

/// Makes it the wanted one, and tells the worker that runs. Where none does, the next deployment has it.
async fn want(conn: &mut Conn, now: i64, id: ScenarioId, (revision, new): (i64, &NewRevision)) -> Result<()> {
    let wanted = Wanted { revision, name: &new.spec.name, spec: to_json(&new.spec)?, resolved: &new.resolved };
    set(conn, now, id, &wanted).await?;
    let order = change_order(conn, now, id, (revision, &new.resolved, new.begin == Begin::Fresh)).await?;
    let message = match order {
        Some(order) => Message::Deploy(Box::new(order)),
        None => Message::ScenarioChanged { scenario_id: id },
    };
    outbox::put(conn, id, message, None, now).await
}

struct Wanted<'a> {
    revision: i64,
    name: &'a str,
    spec: String,
    resolved: &'a ResolvedScenario,
}

async fn set(conn: &mut Conn, now: i64, id: ScenarioId, wanted: &Wanted<'_>) -> Result<()> {
    let Wanted { revision, name, spec, resolved } = wanted;
    let want = sqlx::query(WANT).bind(key(id.0)).bind(revision).bind(name).bind(spec).bind(to_json(resolved)?);
    want.bind(resolved.memory_mib.map(i64::from)).bind(now).execute(&mut *conn).await?;
    sqlx::query(NAMES).bind(key(id.0)).bind(to_json(&artifacts(resolved))?).execute(conn).await?;
    Ok(())
}

/// Gives the order of the live worker another revision; `None`: there is no worker, or it was told to stop.
async fn change_order(
    conn: &mut Conn,
    now: i64,
    id: ScenarioId,
    (revision, resolved, fresh): (i64, &ResolvedScenario, bool),
) -> Result<Option<DeployOrder>> {
    let Some(row) = sqlx::query(LIVE_ORDER).bind(key(id.0)).fetch_optional(&mut *conn).await? else { return Ok(None) };
    let order: DeployOrder = row.json("deploy_order")?;
    let order = DeployOrder { revision, fresh, scenario: resolved.clone(), ..order };
    let generation: Generation = row.col("generation")?;
    let change = sqlx::query(CHANGE_ORDER).bind(key(id.0)).bind(generation).bind(to_json(&order)?).bind(now);
    change.execute(conn).await?;
    Ok(Some(order))
}

/// Before a deployment: where the revision that it is the first of begins with nothing, nothing is kept.
pub(super) async fn begin(conn: &mut Conn, scenario: &ScenarioRecord) -> Result<()> {
    let begins_fresh = sqlx::query_scalar(BEGINS_FRESH).bind(key(scenario.id.0)).bind(scenario.revision);
    if begins_fresh.fetch_one(&mut *conn).await? {
        sqlx::query(DROP_STATE).bind(key(scenario.id.0)).execute(conn).await?;
    }
    Ok(())
}

/// A worker of `generation` runs it.
pub(super) async fn note(
    conn: &mut Conn,
    id: ScenarioId,
    generation: Generation,
    (revision, from_frame): (i64, Option<u64>),
) -> Result<bool> {
    let scenario = scenarios::lock(conn, id).await?.map(|(scenario, _)| scenario);
    if scenario.is_none_or(|now| (now.generation, now.revision) != (generation, revision)) {
        return Ok(false);
    }
    activate(conn, id, (revision, RevisionState::Active, from_frame)).await?;
    Ok(true)
}

async fn activate(
    conn: &mut Conn,
    id: ScenarioId,
    (revision, state, from_frame): (i64, RevisionState, Option<u64>),
) -> Result<()> {
    sqlx::query(SUPERSEDE_ACTIVE).bind(key(id.0)).bind(revision).execute(&mut *conn).await?;
    let activate = sqlx::query(ACTIVATE).bind(key(id.0)).bind(revision).bind(state.as_str());
    activate.bind(from_frame.map(signed)).execute(conn).await?;
    Ok(())
}

/// A worker of `generation` went back from `revision` to `running`. If that revision is still the wanted one,
/// the newest before that did not fail takes its place.
pub(super) async fn roll_back(
    conn: &mut Conn,
    at: Moment,
    (id, generation): (ScenarioId, Generation),
    (revision, running): (i64, i64),
    reason: &Reason,
) -> Result<bool> {
    let Some((scenario, _)) = scenarios::lock(conn, id).await? else { return Ok(false) };
    let failed = sqlx::query(ROLL_BACK).bind(key(id.0)).bind(revision).bind(to_json(reason)?);
    if scenario.generation != generation || failed.execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let before = sqlx::query(BEFORE).bind(key(id.0)).bind(revision).fetch_optional(&mut *conn).await?;
    let mut message = format!("revision {revision}: {}", reason.message);
    if let Some(before) = before.as_ref().filter(|_| scenario.revision == revision).map(entry).transpose()? {
        let state = if before.revision == running { RevisionState::Active } else { RevisionState::Pending };
        activate(conn, id, (before.revision, state, None)).await?;
        let RevisionEntry { revision, spec, resolved, .. } = &before;
        let wanted = Wanted { revision: *revision, name: &spec.name, spec: to_json(spec)?, resolved };
        set(conn, at.now, id, &wanted).await?;
        change_order(conn, at.now, id, (*revision, resolved, false)).await?;
        message += &format!("; revision {revision} goes on");
    }
    let reason = Reason::new(ReasonCode::RolledBack, message);
    let ScenarioRecord { state, desired, .. } = scenario;
    let line = Line { from: state, to: state, desired, generation, reason: Some(&reason) };
    history::add(conn, id, at, line).await?;
    Ok(true)
}

pub(super) async fn page(db: &Database, id: ScenarioId, after: i64, limit: Limit) -> Result<Rows<RevisionEntry>> {
    let page = sqlx::query(PAGE).bind(key(id.0)).bind(after).bind(one_more(limit)).bind(signed(limit.bytes));
    part(&page.fetch_all(db.reader()).await?, limit, entry)
}

fn entry(row: &Row) -> Result<RevisionEntry> {
    Ok(RevisionEntry {
        revision: row.col("revision")?,
        at: row.time("at")?,
        spec: row.json("spec")?,
        resolved: row.json("resolved")?,
        begin: if row.col("fresh")? { Begin::Fresh } else { Begin::Keep },
        state: row.parsed("state")?,
        reason: row.json_opt("reason")?,
        from_frame: row.col::<Option<i64>>("from_frame")?.map(unsigned),
    })
}

/// Digests of the hooks of revisions that may still run. An artifact need not name them: a plugin in
/// development has other content by now.
pub(super) async fn digests_in_use(db: &Database) -> Result<BTreeSet<Digest>> {
    let rows = sqlx::query(IN_USE).fetch_all(db.reader()).await?;
    let mut digests = BTreeSet::new();
    for row in &rows {
        let resolved: ResolvedScenario = row.json("resolved")?;
        digests.extend(resolved.pre.into_iter().chain(resolved.post).map(|hook| hook.identity.digest));
    }
    Ok(digests)
}

/// Scenarios that name a plugin and may still run.
pub(super) async fn users(db: &Database, name: &str, version: &str) -> Result<Vec<ScenarioId>> {
    let users = sqlx::query(USERS).bind(name).bind(version).fetch_all(db.reader()).await?;
    users.iter().map(|row| Ok(ScenarioId(super::identity(row, "id")?))).collect()
}
