//! The planner's actions, each in one transaction that checks the epoch and the state it starts from.

use framehook_core::{
    hook_state::{HookState, Value},
    ids::{Epoch, Generation, ScenarioId},
    message::{DeployOrder, Message, StopOrder},
    planner::{Action, Deploy},
    prediction::Position,
    reason::Reason,
    state::{ScenarioState, WorkerState},
    writes::Deployment,
};

use super::{
    Conn, Database,
    history::{self, Line},
    key, now_us, orchestrator, outbox, purge, revisions, scenarios,
};
use crate::{
    history::Moment,
    row::RowExt as _,
    sql::{to_json, unreadable},
    store::{Fenced, Result, ScenarioRecord, StoreError},
};

const IS_PRESENT: &str =
    concat!("SELECT 1 FROM runners WHERE incarnation = $1 AND runner_id = $2 AND NOT lost", lock!(share));
pub(super) const HAS_LIVE_WORKER: &str = "
    SELECT EXISTS (SELECT 1 FROM workers WHERE scenario_id = $1 AND state IN ('pending', 'deployed', 'running'))";
const ADD_WORKER: &str = "
    INSERT INTO workers (scenario_id, generation, runner_id, incarnation, state, deploy_order, ordered_at, created_at,
                         updated_at)
    VALUES ($1, $2, $3, $4, 'pending', $5, $6, $6, $6)";
const RESUME_AFTER: &str = "
    SELECT resume_pts_us AS stored_pts_us, resume_frame AS stored_frame FROM scenario_progress WHERE scenario_id = $1";
const HOOK_STATE: &str = "SELECT hook, key, value FROM hook_state WHERE scenario_id = $1";
const SET_GENERATION: &str = "UPDATE scenarios SET generation = $1 WHERE id = $2";
const TRACE: &str = "SELECT traceparent FROM scenarios WHERE id = $1";
const ORDER_AGAIN: &str = "
    UPDATE workers SET ordered_at = $3, repeats = repeats + 1, updated_at = $3
    WHERE scenario_id = $1 AND generation = $2 AND state IN ('pending', 'deployed', 'running')
    RETURNING deploy_order";
const ORDER_STOP: &str = "
    UPDATE workers SET stop_ordered = true, ordered_at = $4, updated_at = $4,
        repeats = CASE WHEN stop_ordered THEN repeats + 1 ELSE 0 END
    WHERE scenario_id = $1 AND generation = $2 AND incarnation = $3 AND state IN ('pending', 'deployed', 'running')";
const MOVE_WORKER: &str = "
    UPDATE workers SET state = $4, reason = $5, updated_at = $6 WHERE scenario_id = $1 AND generation = $2 AND state = $3";
const LOSE_RUNNER: &str = "UPDATE runners SET lost = true WHERE incarnation = $1 AND runner_id = $2 AND NOT lost";

pub(super) async fn apply(db: &Database, epoch: Epoch, action: &Action) -> Result<Fenced> {
    let mut tx = db.write().await?;
    if !orchestrator::leads(&mut tx, epoch).await? {
        return Ok(Fenced::NotLeader);
    }
    let at = Moment { now: now_us(&mut tx).await?, most: db.history_lines };
    if !execute(&mut tx, at, action).await? {
        return Ok(Fenced::Stale);
    }
    tx.commit().await?;
    if matches!(action, Action::Deploy(_) | Action::RepeatDeploy { .. } | Action::Stop(_)) {
        db.outbox.notify_one();
    }
    Ok(Fenced::Done)
}

/// `false`: the state the action starts from is gone, and nothing was written.
async fn execute(conn: &mut Conn, at: Moment, action: &Action) -> Result<bool> {
    let now = at.now;
    match action {
        Action::Deploy(action) => deploy(conn, at, action).await,
        Action::RepeatDeploy { scenario_id, generation } => repeat_deploy(conn, now, *scenario_id, *generation).await,
        Action::Stop(order) => stop(conn, now, order).await,
        Action::MoveWorker { scenario_id, generation, from, to, reason } => {
            move_worker(conn, now, (*scenario_id, *generation), *from, *to, reason.as_ref()).await
        }
        Action::MoveScenario { scenario_id, from, to, reason } => {
            let Some(scenario) = in_state(conn, *scenario_id, *from).await? else { return Ok(false) };
            scenarios::move_state(conn, *scenario_id, at, line(&scenario, *to, reason.as_ref())).await?;
            Ok(true)
        }
        Action::Explain { scenario_id, state, reason } => {
            let Some(scenario) = in_state(conn, *scenario_id, *state).await? else { return Ok(false) };
            let line = line(&scenario, *state, reason.as_ref());
            scenarios::set_state(conn, *scenario_id, now, line).await?;
            // A message that only counts on (such as a number of failures) would fill the history.
            if scenario.reason.map(|r| r.code) != reason.as_ref().map(|r| r.code) {
                history::add(conn, *scenario_id, at, line).await?;
            }
            Ok(true)
        }
        Action::NoteRevision { scenario_id, generation, revision, from_frame } => {
            revisions::note(conn, *scenario_id, *generation, (*revision, *from_frame)).await
        }
        Action::RollBack { scenario_id, generation, revision, running, reason } => {
            revisions::roll_back(conn, at, (*scenario_id, *generation), (*revision, *running), reason).await
        }
        Action::LoseRunner { runner_id, incarnation } => {
            let lose = sqlx::query(LOSE_RUNNER).bind(key(incarnation.0)).bind(&runner_id.0);
            Ok(lose.execute(conn).await?.rows_affected() > 0)
        }
        Action::Purge { scenario_id } => purge::purge(conn, now, *scenario_id).await,
    }
}

/// The scenario, if it is in `state`.
async fn in_state(conn: &mut Conn, id: ScenarioId, state: ScenarioState) -> Result<Option<ScenarioRecord>> {
    let locked = scenarios::lock(conn, id).await?;
    Ok(locked.map(|(scenario, _)| scenario).filter(|scenario| scenario.state == state))
}

fn line<'a>(scenario: &ScenarioRecord, to: ScenarioState, reason: Option<&'a Reason>) -> Line<'a> {
    let ScenarioRecord { desired, generation, .. } = *scenario;
    Line { from: scenario.state, to, desired, generation, reason }
}

async fn deploy(conn: &mut Conn, at: Moment, action: &Deploy) -> Result<bool> {
    let &Deploy { scenario_id: id, from, generation, ref runner_id, incarnation, execution } = action;
    let Some(scenario) = in_state(conn, id, from).await? else { return Ok(false) };
    let is_present = sqlx::query(IS_PRESENT).bind(key(incarnation.0)).bind(&runner_id.0);
    let now = Deployment {
        desired: scenario.desired,
        generation: scenario.generation,
        has_live_worker: sqlx::query_scalar(HAS_LIVE_WORKER).bind(key(id.0)).fetch_one(&mut *conn).await?,
        is_runner_present: is_present.fetch_optional(&mut *conn).await?.is_some(),
    };
    if !now.may_begin(generation) {
        return Ok(false);
    }
    let moved = Line { generation, ..line(&scenario, ScenarioState::Deploying, None) };
    revisions::begin(conn, &scenario).await?;
    let order = DeployOrder {
        scenario_id: id,
        generation,
        runner_id: runner_id.clone(),
        incarnation,
        revision: scenario.revision,
        fresh: false,
        created_at: scenario.created_at,
        scenario: scenario.resolved,
        resume_after: resume_after(conn, id).await?,
        state: hook_state(conn, id).await?,
        execution,
    };
    sqlx::query(ADD_WORKER)
        .bind(key(id.0))
        .bind(generation)
        .bind(&runner_id.0)
        .bind(key(incarnation.0))
        .bind(to_json(&order)?)
        .bind(at.now)
        .execute(&mut *conn)
        .await?;
    sqlx::query(SET_GENERATION).bind(generation).bind(key(id.0)).execute(&mut *conn).await?;
    scenarios::move_state(conn, id, at, moved).await?;
    send(conn, at.now, id, Message::Deploy(Box::new(order))).await?;
    Ok(true)
}

/// Behind which frame a deployment goes on. Read with the scenario's lock, as what its hooks keep is: no row
/// comes between the two, and those of an earlier deployment change neither from now on.
async fn resume_after(conn: &mut Conn, id: ScenarioId) -> Result<Option<Position>> {
    let row = sqlx::query(RESUME_AFTER).bind(key(id.0)).fetch_optional(conn).await?;
    row.map_or(Ok(None), |row| row.stored())
}

async fn hook_state(conn: &mut Conn, id: ScenarioId) -> Result<HookState> {
    let mut state = HookState::default();
    for row in sqlx::query(HOOK_STATE).bind(key(id.0)).fetch_all(conn).await? {
        let (hook, name, value): (&str, &[u8], Vec<u8>) = (row.col("hook")?, row.col("key")?, row.col("value")?);
        let name = std::str::from_utf8(name).map_err(|e| unreadable("key", e))?;
        state.set(hook, name.to_owned(), Some(Value::new(&value)));
    }
    Ok(state)
}

async fn repeat_deploy(conn: &mut Conn, now: i64, id: ScenarioId, generation: Generation) -> Result<bool> {
    let order = sqlx::query(ORDER_AGAIN).bind(key(id.0)).bind(generation).bind(now);
    let Some(row) = order.fetch_optional(&mut *conn).await? else { return Ok(false) };
    let order: DeployOrder = row.json("deploy_order")?;
    send(conn, now, id, Message::Deploy(Box::new(order))).await?;
    Ok(true)
}

/// Never stale: stopping what runs no more does no harm, and the runner may know a worker that the store does
/// not.
async fn stop(conn: &mut Conn, now: i64, order: &StopOrder) -> Result<bool> {
    let mark = sqlx::query(ORDER_STOP).bind(key(order.scenario_id.0)).bind(order.generation);
    mark.bind(key(order.incarnation.0)).bind(now).execute(&mut *conn).await?;
    send(conn, now, order.scenario_id, Message::Stop(order.clone())).await?;
    Ok(true)
}

async fn send(conn: &mut Conn, now: i64, id: ScenarioId, message: Message) -> Result<()> {
    let traceparent: Option<Option<String>> =
        sqlx::query_scalar(TRACE).bind(key(id.0)).fetch_optional(&mut *conn).await?;
    outbox::put(conn, id, message, traceparent.flatten(), now).await
}

async fn move_worker(
    conn: &mut Conn,
    now: i64,
    (id, generation): (ScenarioId, Generation),
    from: WorkerState,
    to: WorkerState,
    reason: Option<&Reason>,
) -> Result<bool> {
    from.may_become(to).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    let update = sqlx::query(MOVE_WORKER).bind(key(id.0)).bind(generation).bind(from.as_str()).bind(to.as_str());
    let update = update.bind(reason.map(to_json).transpose()?).bind(now);
    Ok(update.execute(conn).await?.rows_affected() > 0)
}
