//! The days of `scenario_results`: made ahead, and dropped whole once they have expired.
//!
//! A row never waits for a partition: what no day takes lies in `scenario_results_rest`, and a day whose rows
//! began to arrive there is not made any more.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::{Database, now_us};
use crate::{
    sql::later,
    store::{Result, StoreError},
};

const DAY_US: i64 = 24 * 3600 * 1_000_000;

/// Today and as many days more; who runs maintenance daily may miss two.
const AHEAD: i64 = 3;

const PREFIX: &str = "scenario_results_day_";

/// Two processes must not make the same day; the number only has to differ from that of others.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7205759)";
const EXISTS: &str = "SELECT to_regclass($1) IS NOT NULL";
const REST_HAS: &str =
    "SELECT EXISTS (SELECT 1 FROM scenario_results_rest WHERE captured_at >= $1 AND captured_at < $2)";
const LIST: &str = "
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'scenario_results'::regclass AND c.relname LIKE 'scenario\\_results\\_day\\_%' ORDER BY c.relname";
const EMPTY_REST: &str = "DELETE FROM scenario_results_rest WHERE captured_at < $1";

/// Makes the partitions of the next days.
pub(super) async fn make_partitions(db: &Database) -> Result<()> {
    let mut tx = db.write().await?;
    sqlx::query(LOCK).execute(&mut *tx).await?;
    let today = now_us(&mut tx).await?.div_euclid(DAY_US);
    for day in today..=today + AHEAD {
        make(&mut tx, day).await?;
    }
    Ok(tx.commit().await?)
}

async fn make(conn: &mut PgConnection, day: i64) -> Result<()> {
    let (name, from, until) = (name(day)?, day * DAY_US, (day + 1) * DAY_US);
    let is_there: bool = sqlx::query_scalar(EXISTS).bind(&name).fetch_one(&mut *conn).await?;
    if is_there {
        return Ok(());
    }
    let is_late: bool = sqlx::query_scalar(REST_HAS).bind(from).bind(until).fetch_one(&mut *conn).await?;
    if !is_late {
        let make = format!("CREATE TABLE {name} PARTITION OF scenario_results FOR VALUES FROM ({from}) TO ({until})");
        // Our own name and two numbers.
        sqlx::query(AssertSqlSafe(make)).execute(conn).await?;
    }
    Ok(())
}

/// Drops the days that ended `age` ago, and deletes what is as old in the rest.
pub(super) async fn drop_results(db: &Database, age: Duration) -> Result<()> {
    let mut tx = db.write().await?;
    sqlx::query(LOCK).execute(&mut *tx).await?;
    let before = now_us(&mut tx).await?.saturating_sub(later(0, age));
    let oldest_kept = name(before.div_euclid(DAY_US))?;
    for row in sqlx::query(LIST).fetch_all(&mut *tx).await? {
        let day: String = row.try_get("relname")?;
        if day < oldest_kept {
            // A name that we gave.
            sqlx::query(AssertSqlSafe(format!("DROP TABLE {day}"))).execute(&mut *tx).await?;
        }
    }
    sqlx::query(EMPTY_REST).bind(before).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// Names sort as their days do.
fn name(day: i64) -> Result<String> {
    let time = day.checked_mul(DAY_US).and_then(|us| Timestamp::from_microsecond(us).ok());
    let time = time.ok_or_else(|| StoreError::Corrupt(format!("day {day} is outside of the calendar")))?;
    Ok(format!("{PREFIX}{}", time.to_zoned(TimeZone::UTC).strftime("%Y%m%d")))
}
