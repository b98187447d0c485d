//! The store on PostgreSQL, shared by any number of processes.
//!
//! Invariants:
//! - Writes run in READ COMMITTED. What a write decides by, it has read behind a row lock; one statement
//!   takes the lock and the next one reads, so that it sees what it waited for.
//! - Locks are taken in one order: consumer offset, leader lease, scenarios (by id), runner, workers (by
//!   scenario), outbox (by sequence); the relay's mark alone meets outbox and workers the other way round. A
//!   deadlock or a conflict that arises all the same is tried again in one place, `Database::transact`.
//! - All times are the server's `clock_timestamp()`, read after the locks, never this machine's.
//! - No error and no log shows the password of the URL.
//!
//! There is no bus here, and no notification between processes: a relay looks once a second for what others
//! wrote.

/// The database's clock, in microseconds.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    };
}

/// What a statement locks the rows that it reads with.
macro_rules! lock {
    (share) => {
        " FOR SHARE"
    };
    (update) => {
        " FOR UPDATE"
    };
    (update, or skip) => {
        " FOR UPDATE SKIP LOCKED"
    };
}

/// Named statements as one, so that they take one round trip. They share their parameters, and none
/// sees what another writes.
macro_rules! together {
    ($first:ident: $statement:expr, $($name:ident: $another:expr,)+) => {
        concat!(
            "WITH ", stringify!($first), " AS (", $statement, ")",
            $(", ", stringify!($name), " AS (", $another, ")",)+
            " SELECT 1"
        )
    };
}

/// A parameter that is a JSON array, as rows with a column `value`.
macro_rules! elements {
    ($parameter:literal) => {
        concat!("json_array_elements(", $parameter, "::json)")
    };
}

mod error;
mod heartbeats;
mod partitions;
mod relay;
mod rows;
#[path = "../sql_store/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "it is compiled for each database")]
mod sql_store;

use std::{str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{
    Connection as _, PgConnection, PgPool, Postgres as Db, Transaction,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

pub(crate) use error::from_code;

use self::partitions::{drop_results, make_partitions};
use crate::{
    row::RowExt as _,
    store::{Result, SharedStore, StoreError},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// Longer than any transaction here takes, and short enough for a probe to say that the database is gone.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at a server that is starting.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// No server restarts within this time.
const TRUSTED: Duration = Duration::from_millis(50);

/// Limits of a session, in milliseconds. The largest statement is a purge of some thousand rows; a lock is
/// held for one transaction; and a process that was stopped within a transaction must not keep its locks from
/// the others.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "30000"), ("lock_timeout", "10000"), ("idle_in_transaction_session_timeout", "10000")];

/// Each one lets somebody else's transaction through, so one is nearly always enough.
const ATTEMPTS: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the database URL cannot be read; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url,
    #[error("PostgreSQL at {server} cannot be used: {why}")]
    Unreachable { server: String, why: String },
    #[error("the database at {server} was written by a newer release; use that release, or another database")]
    Newer { server: String },
    #[error("the tables of the database at {server} cannot be brought up to date: {why}")]
    Migration { server: String, why: String },
}

/// Connections to one database.
pub struct Postgres {
    store: Arc<Database>,
}

impl Postgres {
    /// Connects, and makes or updates the tables. Several processes may do so at once: migrations hold an
    /// advisory lock. A scenario's history has `history_lines` at most.
    pub async fn connect(url: &str, connections: u32, history_lines: u32) -> Result<Self, OpenError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(OpenError::Url);
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url)?;
        let options = options.application_name("framehook").options(LIMITS);
        let server = format!("{}:{}", options.get_host(), options.get_port());
        let unreachable = |error| OpenError::Unreachable { server: server.clone(), why: error::advice(&error) };
        // A pool would only report that it timed out.
        first_connection(&options).await.map_err(unreachable)?;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(is_usable(connection, meta.idle_for)));
        let pool = pool.connect_with(options).await.map_err(unreachable)?;
        MIGRATIONS.run(&pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(_) => OpenError::Newer { server: server.clone() },
            error => OpenError::Migration { server: server.clone(), why: error.to_string() },
        })?;
        let store = Arc::new(Database { pool, outbox: Notify::new(), history_lines });
        let made = make_partitions(&store).await;
        made.map_err(|error| OpenError::Migration { server, why: error.to_string() })?;
        Ok(Self { store })
    }

    pub fn store(&self) -> SharedStore {
        self.store.clone()
    }
}

/// After a restart of the server each connection is found dead before it is used, and replaced. One that was
/// used a moment ago is not asked: the question takes as long as most statements.
async fn is_usable(connection: &mut PgConnection, idle: Duration) -> sqlx::Result<bool> {
    Ok(idle < TRUSTED || connection.ping().await.is_ok())
}

/// Connects once, and waits for a server that is only just starting.
async fn first_connection(options: &PgConnectOptions) -> sqlx::Result<()> {
    let start = Instant::now();
    loop {
        let attempt = timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(options)).await;
        match attempt.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(connection) => return connection.close().await,
            Err(error) if error::is_starting(&error) && start.elapsed() < ACQUIRE_TIMEOUT => sleep(LOOK_AGAIN).await,
            Err(error) => return Err(error),
        }
    }
}

/// The connections, and what has to be woken after a commit.
struct Database {
    pool: PgPool,
    outbox: Notify,
    history_lines: u32,
}

impl Database {
    fn reader(&self) -> &PgPool {
        &self.pool
    }

    /// A transaction in which all statements see the same commit.
    async fn read(&self) -> sqlx::Result<Transaction<'static, Db>> {
        self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn write(&self) -> sqlx::Result<Transaction<'static, Db>> {
        self.pool.begin().await
    }

    /// Runs a whole transaction again when the server has sacrificed it to another.
    async fn transact<T, F: Future<Output = Result<T>>>(&self, mut transaction: impl FnMut() -> F) -> Result<T> {
        for _ in 1..ATTEMPTS {
            match transaction().await {
                Err(StoreError::Contended(why)) => tracing::debug!("a transaction is tried again: {why}"),
                outcome => return outcome,
            }
        }
        transaction().await
    }

    /// The same: what a server does about a full disk is not decided here.
    async fn transact_despite_full<T, F: Future<Output = Result<T>>>(&self, write: impl FnMut() -> F) -> Result<T> {
        self.transact(write).await
    }

    /// The server's disk is not known here.
    fn admit(&self) -> Result<()> {
        Ok(())
    }

    /// A cheap read, and a commit: nothing less shows that the disk still takes one.
    async fn probe(&self) -> Result<()> {
        const WRITE: &str = concat!(
            "INSERT INTO write_check (id, at) VALUES (1, ",
            now!(),
            ") ON CONFLICT (id) DO UPDATE SET at = excluded.at"
        );
        sqlx::query(WRITE).execute(&self.pool).await?;
        Ok(())
    }
}

fn key(id: Uuid) -> Uuid {
    id
}

fn identity(row: &PgRow, column: &str) -> Result<Uuid> {
    row.col(column)
}

/// The database's clock. To be read behind the locks: who waited for one must not go by the time before.
async fn now_us(conn: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(concat!("SELECT ", now!())).fetch_one(conn).await
}

/// Whether a digest is orphaned is told by the rows of others, so nobody else writes; reading goes on.
async fn one_artifact_at_a_time(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("LOCK TABLE artifacts IN SHARE ROW EXCLUSIVE MODE").execute(conn).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
