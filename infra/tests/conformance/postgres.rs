//! PostgreSQL under the store's conformance suite, each check on a database of its own.

use framehook_infra::{postgres::Postgres, store::SharedStore};
use framehook_tests::servers::postgres_url;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::fixtures::StoreBackend;

/// Checks race up to eight writers, and many run at once on one server.
const CONNECTIONS: u32 = 8;

/// Not dropped with the test: a server of ours goes with its folder.
pub(crate) struct Database {
    url: String,
}

impl Database {
    pub(crate) async fn fresh() -> Self {
        let server = spawn_blocking(postgres_url).await.unwrap();
        let name = format!("framehook_{}", Uuid::now_v7().simple());
        let mut connection = PgConnection::connect(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        let (server, _) = server.rsplit_once('/').expect("a URL names a database");
        Self { url: format!("{server}/{name}") }
    }
}

impl StoreBackend for Database {
    async fn store_with(&self, history_lines: u32) -> SharedStore {
        Postgres::connect(&self.url, CONNECTIONS, history_lines).await.unwrap().store()
    }
}
