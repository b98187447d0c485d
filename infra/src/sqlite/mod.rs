//! The embedded default: store and bus in one SQLite file, `<data>/framehook.db`.
//!
//! Invariants:
//! - One process at a time opens a data folder (a lock file says so): readers of the bus and the relay are
//!   woken inside the process, and this process's clock is the database's clock.
//! - One connection writes, in `BEGIN IMMEDIATE` transactions, so that no write ever finds what it has read
//!   changed; readers have connections of their own and never wait for it (WAL).
//! - One file means one history: after a power cut the store and the log are as of the same moment, so that
//!   a stored offset is never ahead of the log.

/// What a statement locks the rows that it reads with: nothing, because a transaction that writes holds the
/// one lock.
macro_rules! lock {
    ($($how:tt)*) => {
        ""
    };
}

/// Named statements in one call, one after the other. They share their parameters.
macro_rules! together {
    ($($name:ident: $statement:expr,)+) => {
        concat!($($statement, ";",)+)
    };
}

/// A parameter that is a JSON array, as rows with a column `value`.
macro_rules! elements {
    ($parameter:literal) => {
        concat!("json_each(", $parameter, ")")
    };
}

mod bus;
mod error;
mod handoff;
mod heartbeats;
mod relay;
mod room;
mod rows;
mod shrink;
#[path = "../sql_store/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "it is compiled for each database")]
mod sql_store;
mod window;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    Connection as _, Sqlite as Db, SqliteConnection, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};
use tokio::{sync::Notify, task::JoinSet};
use uuid::{Uuid, fmt::Hyphenated};

pub(crate) use error::from_code;

use self::{room::Room, sql_store::housekeeping};
use crate::{
    bus::SharedBus,
    private,
    row::RowExt as _,
    space::{self, Disk, Reserve},
    store::{HISTORY_LINES, Result, SharedStore, StoreError},
};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Every commit waits for the disk: an answered request and a published frame survive a power cut. It is
/// affordable: 77,000 rows a second in batches of 64 and 24,000 records from four publishers (`NORMAL`:
/// 129,000 and 172,000), 0.6 ms for a publication alone (0.2 ms), on a virtual disk that takes 0.4 ms a
/// flush. Two hundred streams need 5,000.
const SYNCHRONOUS: SqliteSynchronous = SqliteSynchronous::Full;

/// The database's file in the data folder.
pub const DATABASE: &str = "framehook.db";

/// The API's reads are short; more connections than this only wait for the same two or four cores.
const READERS: u32 = 4;

/// Only a person with a database shell can hold the lock that this waits for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer than any transaction here takes: a queue this long means that the disk has stopped answering.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of WAL kept on the disk after a burst: what the 1,000 pages take after which SQLite writes it back
/// by itself.
const WAL_LIMIT: &str = "4120032";

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the data folder {path} cannot be used: {source}; let the user that this runs as write to it, or choose another \
         folder with --data"
    )]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "the data folder {path} is in use by process {process}; stop that one, or choose another folder with --data"
    )]
    InUse { path: PathBuf, process: String },
    #[error("{path} was written by a newer release; use that release, or another folder with --data")]
    Newer { path: PathBuf },
    #[error("{path} cannot be opened as a framehook database: {source}")]
    Database { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

/// An open data folder. It is closed when this and all its stores and buses are dropped.
pub struct Sqlite {
    store: Arc<Database>,
    bus: Arc<bus::EmbeddedBus>,
}

impl Sqlite {
    /// Opens `<data>/framehook.db`, making the folder and the tables if need be, and uses the disk until it
    /// is full.
    pub async fn open(data: &Path) -> Result<Self, OpenError> {
        Self::open_with(data, Reserve::NONE, HISTORY_LINES).await
    }

    /// The same, and takes nothing in that would not leave `reserve`; a scenario's history has
    /// `history_lines` at most.
    pub async fn open_with(data: &Path, reserve: Reserve, history_lines: u32) -> Result<Self, OpenError> {
        Self::open_as(data, reserve, history_lines, SYNCHRONOUS).await
    }

    async fn open_as(
        data: &Path,
        reserve: Reserve,
        history_lines: u32,
        synchronous: SqliteSynchronous,
    ) -> Result<Self, OpenError> {
        let unusable = |source| OpenError::Folder { path: data.to_owned(), source };
        private::folder(data).map_err(unusable)?;
        let lock = lock(data)?;
        let path = data.join(DATABASE);
        // SQLite gives the files beside it the mode of this one.
        for name in ["framehook.db-wal", "framehook.db-shm"] {
            private::close(&data.join(name)).map_err(unusable)?;
        }
        private::file(&path).map_err(unusable)?;
        let failed = |source| OpenError::Database { path: path.clone(), source };

        let options = options(&path, synchronous);
        let writer = pool(1).connect_with(options.clone()).await.map_err(|e| failed(e.into()))?;
        MIGRATIONS.run(&writer).await.map_err(|error| match error {
            MigrateError::VersionMissing(_) => OpenError::Newer { path: path.clone() },
            other => failed(other.into()),
        })?;
        let free = space::free(data).map_err(|e| failed(e.into()))?;
        if let Err(error) = shrink::convert(&writer, free).await {
            tracing::warn!("the database stays as an earlier release made it: {error}");
        }
        let reader = options.create_if_missing(false).pragma("query_only", "on");
        let reader = pool(READERS).connect_with(reader).await.map_err(|e| failed(e.into()))?;

        let room = Arc::new(Room::new(Disk::new(data, reserve), writer.clone(), data));
        let mut chores = JoinSet::new();
        chores.spawn(shrink::keep_small(writer.clone()));
        chores.spawn({
            let room = Arc::clone(&room);
            async move { room.keep_ballast().await }
        });
        let database = Arc::new(Database {
            reader,
            writer,
            room,
            outbox: Notify::new(),
            history_lines,
            _chores: chores,
            _lock: lock,
        });
        let bus = bus::EmbeddedBus::open(Arc::clone(&database)).await.map_err(|e| failed(e.into()))?;
        Ok(Self { store: database, bus: Arc::new(bus) })
    }

    pub fn store(&self) -> SharedStore {
        self.store.clone()
    }

    pub fn bus(&self) -> SharedBus {
        self.bus.clone()
    }
}

/// The connections, and what has to be woken after a commit.
struct Database {
    reader: SqlitePool,
    writer: SqlitePool,
    room: Arc<Room>,
    outbox: Notify,
    history_lines: u32,
    /// They end with this.
    _chores: JoinSet<()>,
    _lock: File,
}

impl Database {
    fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    /// A transaction in which all statements see the same commit.
    async fn read(&self) -> sqlx::Result<Transaction<'static, Db>> {
        self.reader.begin().await
    }

    /// A transaction that holds the write lock from its beginning.
    async fn write(&self) -> sqlx::Result<Transaction<'static, Db>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    /// Once is enough: a single writer meets no conflict.
    async fn transact<T, F: Future<Output = Result<T>>>(&self, transaction: impl FnOnce() -> F) -> Result<T> {
        transaction().await
    }

    /// Runs a write that must work on a full disk.
    async fn transact_despite_full<T, F: Future<Output = Result<T>>>(&self, write: impl Fn() -> F) -> Result<T> {
        self.room.despite_full(write).await
    }

    /// Refuses what takes room, which is a byte at least, while the disk is short of it.
    fn admit(&self) -> Result<()> {
        Ok(self.room.disk.admit(1)?)
    }

    async fn probe(&self) -> Result<()> {
        let checked = self.check().await.map_err(StoreError::from);
        if matches!(checked, Ok(()) | Err(StoreError::Full(_))) {
            // It has the numbers.
            self.admit()?;
        }
        checked
    }

    /// A cheap read, and a commit: nothing less shows that the disk still takes one.
    async fn check(&self) -> sqlx::Result<()> {
        const WRITE: &str =
            "INSERT INTO write_check (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at";
        sqlx::query("SELECT 1").execute(&self.reader).await?;
        sqlx::query(WRITE).bind(clock_us()).execute(&self.writer).await?;
        Ok(())
    }
}

/// As text.
fn key(id: Uuid) -> Hyphenated {
    id.hyphenated()
}

fn identity(row: &SqliteRow, column: &str) -> Result<Uuid> {
    Ok(row.col::<Hyphenated>(column)?.into_uuid())
}

/// The database's clock: one process, so the process's. To be read with the write lock held.
fn clock_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// The same, as it is asked of any database.
async fn now_us(_: &mut SqliteConnection) -> sqlx::Result<i64> {
    Ok(clock_us())
}

/// Nothing to do: a transaction that writes holds the one lock.
async fn one_artifact_at_a_time(_: &mut SqliteConnection) -> sqlx::Result<()> {
    Ok(())
}

/// In steps: the rows were written in the order of their times, nearly.
async fn drop_results(db: &Database, age: Duration) -> Result<()> {
    const RESULTS: &str = "
        DELETE FROM scenario_results WHERE rowid IN
            (SELECT rowid FROM scenario_results WHERE captured_at < $1 ORDER BY rowid LIMIT $2)";
    housekeeping::drop_older(db, RESULTS, age).await
}

/// Nothing to do: results lie in one table.
async fn make_partitions(_: &Database) -> Result<()> {
    Ok(())
}

fn options(path: &Path, synchronous: SqliteSynchronous) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("journal_size_limit", WAL_LIMIT)
}

fn pool(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A connection to a file does not go stale: no test before use, no end of life.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        // On a full disk SQLite itself rolls the transaction back; the driver's own rollback fails then, and
        // it believes for ever to be inside a transaction. Such a connection is replaced.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
}

fn lock(data: &Path) -> Result<File, OpenError> {
    let path = data.join("framehook.lock");
    let folder_error = |source| OpenError::Folder { path: data.to_owned(), source };
    let Some(mut file) = private::lock(&path).map_err(folder_error)? else {
        // Not yet written is not worth waiting for: the name only helps a person.
        let process = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
        return Err(OpenError::InUse { path: data.to_owned(), process });
    };
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(folder_error)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
