//! Scenarios as the API sees them: create, read, set what is desired.

use async_trait::async_trait;
use framehook_core::{
    delivery::Delivery,
    execution::Execution,
    ids::{Generation, Incarnation, RunnerId, ScenarioId},
    message::Message,
    placement::provided,
    recorded::Part,
    state::{Desired, ScenarioState},
    writes::{self, DesiredChange},
};
use jiff::Timestamp;
use sqlx::error::DatabaseError;

use super::{
    Conn, Database, Row, delivery,
    history::{self, Line},
    identity, key, logs, now_us, one_more, outbox, part, recorded, results, revisions, shadow,
};
use crate::{
    history::Moment,
    row::RowExt as _,
    sql::{artifacts, from_json, signed, to_json},
    store::{
        Created, HistoryEntry, Idempotency, Limit, LogEntry, NewRevision, NewScenario, PredictionQuery, Result,
        Revised, RevisionEntry, Rows, ScenarioFilter, ScenarioRecord, Scenarios, ShadowRecord, StoreError,
        StoredPrediction, WorkerRecord,
    },
};

/// A scenario with its stored position and its newest worker; `$hooks` is a column of that.
macro_rules! whole_scenario {
    ($hooks:literal) => {
        concat!("s.id, s.created_at, s.updated_at, s.spec, s.resolved, s.revision, s.desired, s.state, s.reason,
                    s.generation, s.idempotency_request,
                    p.pts_us AS stored_pts_us, p.frame AS stored_frame,
                    w.generation AS worker_generation, w.runner_id, w.incarnation, w.state AS worker_state, w.status,
                    ", $hooks, " AS hooks
             FROM scenarios s
             LEFT JOIN scenario_progress p ON p.scenario_id = s.id
             LEFT JOIN workers w ON w.scenario_id = s.id AND w.generation = s.generation ")
    };
}

/// Those that meet a condition.
macro_rules! select_scenario {
    ($condition:literal) => {
        concat!("SELECT ", whole_scenario!("w.hooks"), $condition)
    };
}

/// Newest first: identities are time-ordered, so their order is that of creation. The sizes come first, which
/// are known without the rows: those that fit, and how many there are. What became of hooks' calls, which may
/// be as long as all the rest, is not read.
macro_rules! page_of_scenarios {
    ($condition:literal) => {
        concat!(
            "WITH sizes AS MATERIALIZED (
                SELECT s.id, CAST(octet_length(s.spec) + octet_length(s.resolved) AS bigint) AS bytes
                FROM scenarios s
                WHERE s.desired <> 'deleted' AND ",
            $condition,
            " ORDER BY s.id DESC LIMIT $3),
             sums AS (SELECT id, bytes, sum(bytes) OVER (ORDER BY id DESC) AS total FROM sizes)
             SELECT (SELECT count(*) FROM sizes) AS found, ",
            whole_scenario!("CAST(NULL AS text)"),
            "WHERE s.id IN (SELECT id FROM sums WHERE total <= $4 OR total = bytes) ORDER BY s.id DESC"
        )
    };
}

const BY_ID: &str = select_scenario!("WHERE s.id = $1");
const VISIBLE_BY_ID: &str = select_scenario!("WHERE s.id = $1 AND s.desired <> 'deleted'");
const BY_IDEMPOTENCY_KEY: &str = select_scenario!("WHERE s.idempotency_key = $1");
const PURGED_BY_IDEMPOTENCY_KEY: &str =
    "SELECT id, idempotency_request FROM deleted_scenarios WHERE idempotency_key = $1";
const IS_PURGED: &str = "SELECT EXISTS (SELECT 1 FROM deleted_scenarios WHERE id = $1)";
const PAGE: &str = page_of_scenarios!("(s.state = $1 OR $1 IS NULL) AND (s.id < $2 OR $2 IS NULL)");
/// A statement of its own: a plan that serves both could not use the index of names.
pub(in super::super) const PAGE_OF_NAME: &str =
    page_of_scenarios!("(s.state = $1 OR $1 IS NULL) AND (s.id < $2 OR $2 IS NULL) AND s.name = $5");
/// Alone: the statement behind it sees what this one has waited for.
const LOCK: &str = concat!("SELECT traceparent FROM scenarios WHERE id = $1", lock!(update));
/// All rows of a new scenario; what `history` and `outbox` write as well is written here as they do. `$11`
/// lists the artifacts that it names, each as its kind, name and version.
const INSERT: &str = together!(
    scenario: "
    INSERT INTO scenarios (id, idempotency_key, idempotency_request, name, spec, resolved, placement, memory_mib, desired,
                           state, traceparent, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'running', 'pending', $9, $10, $10)",
    names: concat!("
    INSERT INTO scenario_artifacts (kind, name, version, scenario_id)
    SELECT DISTINCT value ->> 0, value ->> 1, value ->> 2, $1 FROM ", elements!("$11")),
    first_line: "
    INSERT INTO scenario_history (scenario_id, at, generation, to_state, desired)
    VALUES ($1, $10, 0, 'pending', 'running')",
    message: "
    INSERT INTO outbox_scenario (id, envelope, scenario_id, created_at) VALUES ($12, $13, $1, $10)",
);
const SET_DESIRED: &str = "UPDATE scenarios SET desired = $2, updated_at = $3 WHERE id = $1";
const MOVE: &str = "UPDATE scenarios SET state = $2, reason = $3, updated_at = $4 WHERE id = $1";

#[async_trait]
impl Scenarios for Database {
    async fn create_scenario(&self, new: NewScenario) -> Result<Created> {
        self.transact(|| create(self, &new)).await
    }

    async fn created_before(&self, idempotency: &Idempotency) -> Result<Option<Created>> {
        let mut conn = self.reader().acquire().await?;
        created_before(&mut conn, idempotency).await
    }

    async fn scenario(&self, id: ScenarioId) -> Result<Option<ScenarioRecord>> {
        let row = sqlx::query(VISIBLE_BY_ID).bind(key(id.0)).fetch_optional(self.reader()).await?;
        row.as_ref().map(record).transpose()
    }

    async fn scenarios(
        &self,
        filter: ScenarioFilter,
        after: Option<ScenarioId>,
        limit: Limit,
    ) -> Result<Rows<ScenarioRecord>> {
        let query = sqlx::query(if filter.name.is_some() { PAGE_OF_NAME } else { PAGE });
        let query = query.bind(filter.state.map(ScenarioState::as_str)).bind(after.map(|id| key(id.0)));
        let query = query.bind(one_more(limit)).bind(signed(limit.bytes));
        let query = match &filter.name {
            Some(name) => query.bind(name),
            None => query,
        };
        part(&query.fetch_all(self.reader()).await?, limit, record)
    }

    async fn set_desired(&self, id: ScenarioId, desired: Desired) -> Result<Option<ScenarioRecord>> {
        self.transact_despite_full(|| set_desired(self, id, desired)).await
    }

    async fn revise(&self, id: ScenarioId, new: &NewRevision) -> Result<Revised> {
        self.transact(|| revisions::revise(self, id, new)).await
    }

    async fn revisions(&self, id: ScenarioId, after: i64, limit: Limit) -> Result<Rows<RevisionEntry>> {
        revisions::page(self, id, after, limit).await
    }

    async fn users_of(&self, plugin: &str, version: &str) -> Result<Vec<ScenarioId>> {
        revisions::users(self, plugin, version).await
    }

    async fn is_purged(&self, id: ScenarioId) -> Result<bool> {
        Ok(sqlx::query_scalar(IS_PURGED).bind(key(id.0)).fetch_one(self.reader()).await?)
    }

    async fn history(&self, id: ScenarioId, after: Option<i64>, limit: u32) -> Result<Vec<HistoryEntry>> {
        history::page(self, id, after, limit).await
    }

    async fn predictions(&self, id: ScenarioId, query: PredictionQuery) -> Result<Option<Rows<StoredPrediction>>> {
        results::range(self, id, query).await
    }

    async fn log(&self, id: ScenarioId, after: i64) -> Result<Option<Vec<LogEntry>>> {
        logs::read(self, id, after).await
    }

    async fn outputs(&self, id: ScenarioId) -> Result<Vec<Part>> {
        recorded::read(self, id).await
    }

    async fn shadow(&self, id: ScenarioId, after: i64) -> Result<Option<ShadowRecord>> {
        shadow::read(self, id, after).await
    }

    async fn delivery(&self, id: ScenarioId) -> Result<Option<Delivery>> {
        delivery::read(self, id).await
    }
}

async fn create(db: &Database, new: &NewScenario) -> Result<Created> {
    let mut tx = db.write().await?;
    let now = now_us(&mut tx).await?;
    let mut placement = new.spec.placement.clone();
    placement.extend(new.resolved.execution().and_then(Execution::label).map(provided));
    let placement = (!placement.is_empty()).then(|| to_json(&placement)).transpose()?;
    let (spec, resolved) = (to_json(&new.spec)?, to_json(&new.resolved)?);
    let message = outbox::envelope(Message::ScenarioChanged { scenario_id: new.id }, new.traceparent.clone(), now);
    let inserted = sqlx::query(INSERT)
        .bind(key(new.id.0))
        .bind(new.idempotency.as_ref().map(|i| &i.key))
        .bind(new.idempotency.as_ref().map(|i| i.request.as_str()))
        .bind(&new.spec.name)
        .bind(&spec)
        .bind(&resolved)
        .bind(placement)
        .bind(new.resolved.memory_mib.map(i64::from))
        .bind(&new.traceparent)
        .bind(now)
        .bind(to_json(&artifacts(&new.resolved))?)
        .bind(key(message.id))
        .bind(to_json(&message)?)
        .execute(&mut *tx)
        .await;
    if let (Some(idempotency), Err(error)) = (&new.idempotency, &inserted)
        && error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
    {
        // The insert has waited for the scenario that has this key, so that one is committed by now.
        tx.rollback().await?;
        let gone = || StoreError::Corrupt(format!("the scenario before {} vanished", new.id));
        return db.created_before(idempotency).await?.ok_or_else(gone);
    }
    inserted?;
    // After the insert, which has waited for a purge that frees the key and remembers it.
    if let Some(idempotency) = &new.idempotency
        && let Some(purged) = purged_before(&mut tx, idempotency).await?
    {
        return Ok(purged);
    }
    if let Some(replay) = &new.resolved.replay {
        recorded::refer(&mut tx, new.id, replay, now).await?;
    }
    db.admit()?;
    tx.commit().await?;
    db.outbox.notify_one();
    created(new.id, now, &spec, &resolved).map(Created::New)
}

/// What a read of a scenario that was just created gives: from the texts as they were stored, without a
/// secret of its source.
fn created(id: ScenarioId, now: i64, spec: &str, resolved: &str) -> Result<ScenarioRecord> {
    let at = Timestamp::from_microsecond(now).unwrap_or_default();
    Ok(ScenarioRecord {
        id,
        created_at: at,
        updated_at: at,
        spec: from_json("spec", spec)?,
        resolved: from_json("resolved", resolved)?,
        revision: 1,
        desired: Desired::Running,
        state: ScenarioState::Pending,
        reason: None,
        generation: 0,
        stored: None,
        worker: None,
    })
}

async fn created_before(conn: &mut Conn, idempotency: &Idempotency) -> Result<Option<Created>> {
    let known = sqlx::query(BY_IDEMPOTENCY_KEY).bind(&idempotency.key).fetch_optional(&mut *conn).await?;
    let Some(row) = known else { return purged_before(conn, idempotency).await };
    if row.parsed_opt("idempotency_request")?.as_ref() != Some(&idempotency.request) {
        return Ok(Some(Created::KeyReused));
    }
    let record = record(&row)?;
    let is_deleted = record.desired == Desired::Deleted;
    Ok(Some(if is_deleted { Created::Deleted(record.id) } else { Created::Repeated(record) }))
}

/// The same of a scenario that is purged.
async fn purged_before(conn: &mut Conn, idempotency: &Idempotency) -> Result<Option<Created>> {
    let purged = sqlx::query(PURGED_BY_IDEMPOTENCY_KEY).bind(&idempotency.key).fetch_optional(conn).await?;
    let Some(row) = purged else { return Ok(None) };
    let is_same = row.parsed_opt("idempotency_request")?.as_ref() == Some(&idempotency.request);
    Ok(Some(if is_same { Created::Deleted(ScenarioId(identity(&row, "id")?)) } else { Created::KeyReused }))
}

async fn set_desired(db: &Database, id: ScenarioId, desired: Desired) -> Result<Option<ScenarioRecord>> {
    let mut tx = db.write().await?;
    let Some((before, traceparent)) = lock(&mut tx, id).await? else { return Ok(None) };
    let change = writes::set_desired(before.desired, before.state, desired);
    if desired == Desired::Running && change != DesiredChange::default() {
        // What runs brings results.
        db.admit()?;
    }
    let at = Moment { now: now_us(&mut tx).await?, most: db.history_lines };
    if desired == Desired::Deleted {
        recorded::give_up(&mut tx, id, at.now).await?;
    }
    if change.is_new {
        sqlx::query(SET_DESIRED).bind(key(id.0)).bind(desired.as_str()).bind(at.now).execute(&mut *tx).await?;
    }
    let ScenarioRecord { state, generation, .. } = before;
    let line = Line { from: state, to: state, desired, generation, reason: None };
    if change.restarts {
        move_state(&mut tx, id, at, Line { to: ScenarioState::Pending, ..line }).await?;
    } else if change.is_new {
        history::add(&mut tx, id, at, line).await?;
    }
    outbox::put(&mut tx, id, Message::ScenarioChanged { scenario_id: id }, traceparent, at.now).await?;
    let after = read(&mut tx, id).await?;
    tx.commit().await?;
    db.outbox.notify_one();
    Ok(after)
}

/// The scenario and the trace it belongs to. Nobody else changes it until the commit.
pub(super) async fn lock(conn: &mut Conn, id: ScenarioId) -> Result<Option<(ScenarioRecord, Option<String>)>> {
    let Some(traceparent) = sqlx::query_scalar(LOCK).bind(key(id.0)).fetch_optional(&mut *conn).await? else {
        return Ok(None);
    };
    Ok(read(conn, id).await?.map(|scenario| (scenario, traceparent)))
}

/// The scenario, deleted or not, as this transaction sees it.
pub(super) async fn read(conn: &mut Conn, id: ScenarioId) -> Result<Option<ScenarioRecord>> {
    let row = sqlx::query(BY_ID).bind(key(id.0)).fetch_optional(conn).await?;
    row.as_ref().map(record).transpose()
}

fn record(row: &Row) -> Result<ScenarioRecord> {
    let worker = row.col::<Option<Generation>>("worker_generation")?.map(|generation| worker(row, generation));
    Ok(ScenarioRecord {
        id: ScenarioId(identity(row, "id")?),
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

fn worker(row: &Row, generation: Generation) -> Result<WorkerRecord> {
    Ok(WorkerRecord {
        generation,
        runner_id: RunnerId(row.col("runner_id")?),
        incarnation: Incarnation(identity(row, "incarnation")?),
        state: row.parsed("worker_state")?,
        status: row.json_opt("status")?,
        hooks: row.json_opt("hooks")?.unwrap_or_default(),
    })
}

/// Takes a scenario from `line.from` to `line.to`, which must be in core's table, and writes the line. The
/// caller has read `line.from` in this transaction.
pub(super) async fn move_state(conn: &mut Conn, id: ScenarioId, at: Moment, line: Line<'_>) -> Result<()> {
    line.from.may_become(line.to).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    set_state(conn, id, at.now, line).await?;
    history::add(conn, id, at, line).await
}

/// State and reason, without history: for a new reason of the same kind.
pub(super) async fn set_state(conn: &mut Conn, id: ScenarioId, now: i64, line: Line<'_>) -> Result<()> {
    let reason = line.reason.map(to_json).transpose()?;
    sqlx::query(MOVE).bind(key(id.0)).bind(line.to.as_str()).bind(reason).bind(now).execute(conn).await?;
    Ok(())
}
