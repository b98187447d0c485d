//! Scenarios as the API sees them: create, read, wish, history.

use framehook_core::{
    ids::{Generation, ScenarioId},
    message::{Envelope, Message},
    reason::Reason,
    state::{Desired, ScenarioState},
};
use jiff::Timestamp;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{Database, now_us, outbox};
use crate::{
    history::{self, Moment},
    row::RowExt as _,
    sql::{artifacts, one_more, part, signed, to_json, unsigned},
    store::{
        Created, HistoryEntry, Idempotency, Limit, NewScenario, Result, Rows, ScenarioFilter, ScenarioRecord,
        StoreError, WorkerRecord,
    },
};

/// A scenario with its stored position and its newest worker.
macro_rules! whole_scenario {
    () => {
        "s.id, s.created_at, s.updated_at, s.spec, s.resolved, s.revision, s.desired, s.state, s.reason,
                    s.generation, s.traceparent, s.idempotency_request,
                    p.pts_us AS stored_pts_us, p.frame AS stored_frame,
                    w.generation AS worker_generation, w.runner_id, w.incarnation, w.state AS worker_state, w.status
             FROM scenarios s
             LEFT JOIN scenario_progress p ON p.scenario_id = s.id
             LEFT JOIN workers w ON w.scenario_id = s.id AND w.generation = s.generation "
    };
}

/// The same, and what is asked of it.
macro_rules! select_scenario {
    ($condition:literal) => {
        concat!("SELECT ", whole_scenario!(), $condition)
    };
}

/// Newest first: identities are time-ordered, so their order is that of creation. The sizes come
/// first, which are known without the rows: those that fit, and how many there are.
macro_rules! page_of_scenarios {
    ($condition:literal) => {
        concat!(
            "WITH sizes AS MATERIALIZED (
                SELECT s.id, octet_length(s.spec) + octet_length(s.resolved) AS bytes FROM scenarios s
                WHERE s.desired <> 'deleted' AND ",
            $condition,
            " ORDER BY s.id DESC LIMIT ?4),
             sums AS (SELECT id, bytes, sum(bytes) OVER (ORDER BY id DESC) AS total FROM sizes)
             SELECT (SELECT count(*) FROM sizes) AS found, ",
            whole_scenario!(),
            "WHERE s.id IN (SELECT id FROM sums WHERE total <= ?5 OR total = bytes) ORDER BY s.id DESC"
        )
    };
}

const BY_ID: &str = select_scenario!("WHERE s.id = ?");
const VISIBLE_BY_ID: &str = select_scenario!("WHERE s.id = ? AND s.desired <> 'deleted'");
const BY_IDEMPOTENCY_KEY: &str = select_scenario!("WHERE s.idempotency_key = ?");
const PURGED_BY_IDEMPOTENCY_KEY: &str =
    "SELECT id, idempotency_request FROM deleted_scenarios WHERE idempotency_key = ?";
const IS_PURGED: &str = "SELECT EXISTS (SELECT 1 FROM deleted_scenarios WHERE id = ?)";
const PAGE: &str =
    page_of_scenarios!("(?1 IS NULL OR s.state = ?1) AND (?2 IS NULL OR s.name = ?2) AND (?3 IS NULL OR s.id < ?3)");
const INSERT: &str = "
    INSERT INTO scenarios (id, idempotency_key, idempotency_request, name, spec, resolved, placement, memory_mib, desired,
                           state, traceparent, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'running', 'pending', ?9, ?10, ?10)";
const INSERT_ARTIFACT: &str =
    "INSERT OR IGNORE INTO scenario_artifacts (kind, name, version, scenario_id) VALUES (?, ?, ?, ?)";
const WISH: &str = "UPDATE scenarios SET desired = ?2, updated_at = ?3 WHERE id = ?1";
const MOVE: &str = "UPDATE scenarios SET state = ?2, reason = ?3, updated_at = ?4 WHERE id = ?1";
/// With the number of lines there are; whether this one is counted makes no difference.
const ADD_HISTORY: &str = "
    INSERT INTO scenario_history (scenario_id, at, generation, from_state, to_state, desired, reason)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    RETURNING (SELECT count(*) FROM scenario_history h WHERE h.scenario_id = ?1)";
const RECENT: &str = "
    SELECT sequence, at, generation, from_state, to_state, desired, reason, folded
    FROM scenario_history WHERE scenario_id = ?1 ORDER BY sequence DESC LIMIT ?2";
/// The first and the last of `?3` lines behind the first `?2`.
const SPAN: &str = "
    SELECT min(sequence) AS first, max(sequence) AS last FROM (
        SELECT sequence FROM scenario_history WHERE scenario_id = ?1 ORDER BY sequence LIMIT ?3 OFFSET ?2) span";
/// The line behind those that go says how many went. `?2`, `?3`: the first and the last that go.
const FOLD_INTO_NEXT: &str = "
    UPDATE scenario_history SET folded = folded + (
        SELECT count(*) + sum(gone.folded) FROM scenario_history gone
        WHERE gone.scenario_id = ?1 AND gone.sequence BETWEEN ?2 AND ?3)
    WHERE sequence = (SELECT min(sequence) FROM scenario_history WHERE scenario_id = ?1 AND sequence > ?3)";
const FOLD_AWAY: &str = "DELETE FROM scenario_history WHERE scenario_id = ?1 AND sequence BETWEEN ?2 AND ?3";
const HISTORY: &str = "
    SELECT sequence, at, generation, from_state, to_state, desired, reason, folded
    FROM scenario_history WHERE scenario_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3";

pub(super) async fn create(db: &Database, new: NewScenario) -> Result<Created> {
    let mut tx = db.write().await?;
    if let Some(idempotency) = &new.idempotency
        && let Some(created) = created_before(&mut tx, idempotency).await?
    {
        return Ok(created);
    }
    db.room.disk.admit(1)?;
    let now = now_us();
    let placement = (!new.spec.placement.is_empty()).then(|| to_json(&new.spec.placement)).transpose()?;
    sqlx::query(INSERT)
        .bind(new.id.to_string())
        .bind(new.idempotency.as_ref().map(|i| &i.key))
        .bind(new.idempotency.as_ref().map(|i| i.request.as_str()))
        .bind(&new.spec.name)
        .bind(to_json(&new.spec)?)
        .bind(to_json(&new.resolved)?)
        .bind(placement)
        .bind(new.resolved.memory_mib.map(i64::from))
        .bind(&new.traceparent)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    for (kind, name, version) in artifacts(&new.resolved) {
        let insert = sqlx::query(INSERT_ARTIFACT).bind(kind.as_str()).bind(name).bind(version);
        insert.bind(new.id.to_string()).execute(&mut *tx).await?;
    }
    let first = Line { from: None, to: ScenarioState::Pending, desired: Desired::Running, generation: 0, reason: None };
    add_history(&mut tx, new.id, Moment { now, most: db.history_lines }, first).await?;
    wake_up(&mut tx, new.id, now, new.traceparent).await?;
    let record = read(&mut tx, new.id).await?.ok_or_else(|| gone(new.id))?;
    tx.commit().await?;
    db.outbox.notify_one();
    Ok(Created::New(record))
}

pub(super) async fn created_before(conn: &mut SqliteConnection, idempotency: &Idempotency) -> Result<Option<Created>> {
    let known = sqlx::query(BY_IDEMPOTENCY_KEY).bind(&idempotency.key).fetch_optional(&mut *conn).await?;
    let Some(row) = known else { return purged_before(conn, idempotency).await };
    let is_same = row.parsed_opt("idempotency_request")?.as_ref() == Some(&idempotency.request);
    Ok(Some(if is_same { Created::repeated(record(&row)?) } else { Created::KeyReused }))
}

/// The same of a scenario that is purged.
async fn purged_before(conn: &mut SqliteConnection, idempotency: &Idempotency) -> Result<Option<Created>> {
    let purged = sqlx::query(PURGED_BY_IDEMPOTENCY_KEY).bind(&idempotency.key).fetch_optional(conn).await?;
    let Some(row) = purged else { return Ok(None) };
    let is_same = row.parsed_opt("idempotency_request")?.as_ref() == Some(&idempotency.request);
    Ok(Some(if is_same { Created::Deleted(row.parsed("id")?) } else { Created::KeyReused }))
}

pub(super) async fn is_purged(db: &Database, id: ScenarioId) -> Result<bool> {
    Ok(sqlx::query_scalar(IS_PURGED).bind(id.to_string()).fetch_one(&db.reader).await?)
}

pub(super) async fn find(db: &Database, id: ScenarioId) -> Result<Option<ScenarioRecord>> {
    let row = sqlx::query(VISIBLE_BY_ID).bind(id.to_string()).fetch_optional(&db.reader).await?;
    row.as_ref().map(record).transpose()
}

pub(super) async fn page(
    db: &Database,
    filter: ScenarioFilter,
    after: Option<ScenarioId>,
    limit: Limit,
) -> Result<Rows<ScenarioRecord>> {
    let query = sqlx::query(PAGE).bind(filter.state.map(ScenarioState::as_str)).bind(filter.name);
    let query = query.bind(after.map(|id| id.to_string())).bind(one_more(limit)).bind(signed(limit.bytes));
    part(&query.fetch_all(&db.reader).await?, limit, record)
}

pub(super) async fn set_desired(db: &Database, id: ScenarioId, desired: Desired) -> Result<Option<ScenarioRecord>> {
    let mut tx = db.write().await?;
    let Some(row) = sqlx::query(BY_ID).bind(id.to_string()).fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let (before, traceparent) = (record(&row)?, row.col("traceparent")?);
    let now = now_us();
    let at = Moment { now, most: db.history_lines };
    if before.desired != Desired::Deleted {
        let is_new = before.desired != desired;
        let restarts =
            desired == Desired::Running && matches!(before.state, ScenarioState::Stopped | ScenarioState::Failed);
        if desired == Desired::Running && (is_new || restarts) {
            // What runs brings results.
            db.room.disk.admit(1)?;
        }
        if is_new {
            sqlx::query(WISH).bind(id.to_string()).bind(desired.as_str()).bind(now).execute(&mut *tx).await?;
        }
        let line =
            Line { from: Some(before.state), to: before.state, desired, generation: before.generation, reason: None };
        if restarts {
            move_state(&mut tx, id, at, Line { to: ScenarioState::Pending, ..line }).await?;
        } else if is_new {
            add_history(&mut tx, id, at, line).await?;
        }
    }
    wake_up(&mut tx, id, now, traceparent).await?;
    let after = read(&mut tx, id).await?;
    tx.commit().await?;
    db.outbox.notify_one();
    Ok(after)
}

/// The scenario, deleted or not, as this transaction sees it.
pub(super) async fn read(conn: &mut SqliteConnection, id: ScenarioId) -> Result<Option<ScenarioRecord>> {
    let row = sqlx::query(BY_ID).bind(id.to_string()).fetch_optional(conn).await?;
    row.as_ref().map(record).transpose()
}

async fn wake_up(
    conn: &mut SqliteConnection,
    scenario_id: ScenarioId,
    now: i64,
    traceparent: Option<String>,
) -> Result<()> {
    let time = Timestamp::from_microsecond(now).unwrap_or_default();
    let envelope = Envelope { traceparent, ..Envelope::new(Message::ScenarioChanged { scenario_id }, time) };
    outbox::put(conn, scenario_id, &envelope, now).await
}

fn record(row: &SqliteRow) -> Result<ScenarioRecord> {
    let worker = row.col::<Option<Generation>>("worker_generation")?.map(|generation| worker(row, generation));
    Ok(ScenarioRecord {
        id: row.parsed("id")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        spec: row.json("spec")?,
        resolved: row.json("resolved")?,
        revision: row.col("revision")?,
        desired: row.parsed("desired")?,
        state: row.parsed("state")?,
        reason: row.json_opt("reason")?,
        generation: row.col("generation")?,
        stored: row.stored()?,
        worker: worker.transpose()?,
    })
}

fn worker(row: &SqliteRow, generation: Generation) -> Result<WorkerRecord> {
    Ok(WorkerRecord {
        generation,
        runner_id: framehook_core::ids::RunnerId(row.col("runner_id")?),
        incarnation: row.parsed("incarnation")?,
        state: row.parsed("worker_state")?,
        status: row.json_opt("status")?,
    })
}

/// One line of history: what a transition wants to remember.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) from: Option<ScenarioState>,
    pub(super) to: ScenarioState,
    pub(super) desired: Desired,
    pub(super) generation: Generation,
    pub(super) reason: Option<&'a Reason>,
}

/// Takes a scenario from `line.from` to `line.to`, which must be in core's table, and writes the line. The caller has read
/// `line.from` in this transaction.
pub(super) async fn move_state(conn: &mut SqliteConnection, id: ScenarioId, at: Moment, line: Line<'_>) -> Result<()> {
    if let Some(from) = line.from {
        from.may_become(line.to).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    }
    set_state(conn, id, at.now, line).await?;
    add_history(conn, id, at, line).await
}

/// State and reason, without history: for a new reason of the same kind.
pub(super) async fn set_state(conn: &mut SqliteConnection, id: ScenarioId, now: i64, line: Line<'_>) -> Result<()> {
    let reason = line.reason.map(to_json).transpose()?;
    sqlx::query(MOVE).bind(id.to_string()).bind(line.to.as_str()).bind(reason).bind(now).execute(conn).await?;
    Ok(())
}

pub(super) async fn add_history(conn: &mut SqliteConnection, id: ScenarioId, at: Moment, line: Line<'_>) -> Result<()> {
    let lines: i64 = sqlx::query_scalar(ADD_HISTORY)
        .bind(id.to_string())
        .bind(at.now)
        .bind(line.generation)
        .bind(line.from.map(ScenarioState::as_str))
        .bind(line.to.as_str())
        .bind(line.desired.as_str())
        .bind(line.reason.map(to_json).transpose()?)
        .fetch_one(&mut *conn)
        .await?;
    let Some((first, last)) = to_fold(conn, id, at.most, lines).await? else { return Ok(()) };
    for statement in [FOLD_INTO_NEXT, FOLD_AWAY] {
        sqlx::query(statement).bind(id.to_string()).bind(first).bind(last).execute(&mut *conn).await?;
    }
    Ok(())
}

/// The first and the last line of those that are not kept, of a history of `lines` that may have `most`.
async fn to_fold(conn: &mut SqliteConnection, id: ScenarioId, most: u32, lines: i64) -> Result<Option<(i64, i64)>> {
    if lines <= history::WHOLE {
        return Ok(None);
    }
    let recent = sqlx::query(RECENT).bind(id.to_string()).bind(history::RECENT).fetch_all(&mut *conn).await?;
    // A line that nobody can read is none that anything repeats, and keeps no scenario from going on.
    let recent: Vec<_> = recent.iter().map_while(|row| entry(row).ok()).collect();
    if let Some(repeated) = history::repeated(&recent) {
        return Ok(Some(repeated));
    }
    let Some((behind, count)) = history::too_many(lines, most) else { return Ok(None) };
    let span = sqlx::query(SPAN).bind(id.to_string()).bind(behind).bind(count).fetch_one(conn).await?;
    Ok(Some((span.col("first")?, span.col("last")?)))
}

pub(super) async fn history(
    db: &Database,
    id: ScenarioId,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<HistoryEntry>> {
    let query = sqlx::query(HISTORY).bind(id.to_string()).bind(after.unwrap_or_default()).bind(limit);
    query.fetch_all(&db.reader).await?.iter().map(entry).collect()
}

fn entry(row: &SqliteRow) -> Result<HistoryEntry> {
    Ok(HistoryEntry {
        sequence: row.col("sequence")?,
        at: row.time("at")?,
        generation: row.col("generation")?,
        from: row.parsed_opt("from_state")?,
        to: row.parsed("to_state")?,
        desired: row.parsed("desired")?,
        reason: row.json_opt("reason")?,
        folded: unsigned(row.col("folded")?),
    })
}

fn gone(id: ScenarioId) -> StoreError {
    StoreError::Corrupt(format!("scenario {id} vanished within a transaction"))
}
