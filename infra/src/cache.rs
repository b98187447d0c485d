//! A cache that all APIs of an installation share, on Redis.
//!
//! Invariants: no decision depends on it; a cache that dies, hangs, forgets or comes back with old values
//! costs a caller some milliseconds, at most once a second. A value comes back with the time at which what
//! it holds was read, so that a write that Redis executes late, or a file that it restores, makes nothing
//! younger than it is.

use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use redis::{
    Client, Cmd, FromRedisValue, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::{Instant, timeout};

/// Longest call. Redis answers in less than a millisecond; a database read that it saves takes a few.
const CALL_LIMIT: Duration = Duration::from_millis(20);

/// After a failure nobody asks for this long: a Redis that hangs then costs one call a second.
const PAUSE: Duration = Duration::from_secs(1);

/// In front of every key, so that others may use the same database.
const PREFIX: &str = "framehook:";

#[derive(Debug, thiserror::Error)]
#[error("the cache's address cannot be used: {0}; expected redis://USER:PASSWORD@HOST:PORT/DATABASE")]
pub struct NotAnAddress(String);

/// What was stored, and when it was read from the source of truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    pub read_at: Timestamp,
    pub body: Vec<u8>,
}

pub struct Cache {
    client: Client,
    state: Mutex<State>,
}

struct State {
    connection: ConnectionManager,
    /// Nobody asks before.
    paused_until: Option<Instant>,
}

/// The answer of a cache that could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl Cache {
    /// Connects when it is first asked: a Redis may be away at the start as at any time.
    ///
    /// # Errors
    /// When `url` is not one of a Redis; the text does not hold it, because it may have a password.
    pub fn new(url: &str) -> Result<Self, NotAnAddress> {
        let client = Client::open(url).map_err(|error| NotAnAddress(error.category().to_owned()))?;
        let connection = connect(&client).map_err(|error| NotAnAddress(error.category().to_owned()))?;
        warm_up(&connection);
        Ok(Self { client, state: Mutex::new(State { connection, paused_until: None }) })
    }

    /// # Errors
    /// When there is no answer in time, or was none a moment ago.
    pub async fn get(&self, key: &str) -> Result<Option<Cached>, Unavailable> {
        let bytes: Option<Vec<u8>> = self.ask(redis::cmd("GET").arg(format!("{PREFIX}{key}"))).await?;
        Ok(bytes.as_deref().and_then(decode))
    }

    /// Keeps it for `time` at most, unless something is kept there already: that is given back, so that all
    /// who read a key at the same time read the same.
    ///
    /// # Errors
    /// As [`Cache::get`]. A Redis before version 7 does not know how.
    pub async fn keep(&self, key: &str, value: &Cached, time: Duration) -> Result<Option<Cached>, Unavailable> {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut command = redis::cmd("SET");
        command.arg(format!("{PREFIX}{key}")).arg(encode(value)).arg("NX").arg("GET").arg("PX").arg(ms);
        let bytes: Option<Vec<u8>> = self.ask(&command).await?;
        Ok(bytes.as_deref().and_then(decode))
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let mut connection = {
            let state = self.state.lock();
            if state.paused_until.is_some_and(|until| Instant::now() < until) {
                return Err(Unavailable);
            }
            state.connection.clone()
        };
        let failure = match timeout(CALL_LIMIT, command.query_async(&mut connection)).await {
            Ok(Ok(value)) => {
                self.resume();
                return Ok(value);
            }
            Ok(Err(error)) => error.category().to_owned(),
            Err(_) => format!("no answer within {} ms", CALL_LIMIT.as_millis()),
        };
        self.pause(&failure);
        Err(Unavailable)
    }

    fn resume(&self) {
        let mut state = self.state.lock();
        if state.paused_until.take().is_some() {
            tracing::info!("the cache answers again");
        }
    }

    fn pause(&self, why: &str) {
        let mut state = self.state.lock();
        if state.paused_until.replace(Instant::now() + PAUSE).is_none() {
            tracing::warn!("the cache is not asked until it answers again: {why}");
        }
        // A connection whose other end is gone without a word would never fail: the next call gets a new one.
        if let Ok(connection) = connect(&self.client) {
            warm_up(&connection);
            state.connection = connection;
        }
    }
}

/// Connecting takes longer than one call may, by TLS above all: it goes on while nobody asks.
fn warm_up(connection: &ConnectionManager) {
    let mut connection = connection.clone();
    // Whether it worked, the next call finds out.
    tokio::spawn(async move { redis::cmd("PING").query_async::<()>(&mut connection).await.ok() });
}

fn connect(client: &Client) -> RedisResult<ConnectionManager> {
    // Our own limits are shorter, and the first call after a pause tries again.
    let config = ConnectionManagerConfig::new().set_number_of_retries(0).set_connection_timeout(Some(PAUSE));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

/// Eight bytes of time in front.
fn encode(value: &Cached) -> Vec<u8> {
    let mut bytes = value.read_at.as_microsecond().to_be_bytes().to_vec();
    bytes.extend(&value.body);
    bytes
}

/// A value that cannot be decoded counts as a miss.
fn decode(bytes: &[u8]) -> Option<Cached> {
    let (time, body) = bytes.split_first_chunk::<8>()?;
    let read_at = Timestamp::from_microsecond(i64::from_be_bytes(*time)).ok()?;
    Some(Cached { read_at, body: body.to_vec() })
}
