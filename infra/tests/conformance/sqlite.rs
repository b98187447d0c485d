//! SQLite and the embedded bus under the conformance suites.

use framehook_infra::{bus::SharedBus, space::Reserve, sqlite::Sqlite, store::SharedStore};
use tempfile::TempDir;

use crate::fixtures::{BusBackend, StoreBackend};

pub(crate) struct Database(TempDir);

impl Database {
    pub(crate) async fn fresh() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl StoreBackend for Database {
    async fn store_with(&self, history_lines: u32) -> SharedStore {
        Sqlite::open_with(self.0.path(), Reserve::NONE, history_lines).await.unwrap().store()
    }
}

impl BusBackend for Database {
    async fn bus(&self) -> SharedBus {
        Sqlite::open(self.0.path()).await.unwrap().bus()
    }
}
