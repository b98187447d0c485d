//! SQLite and the embedded bus under the conformance suites.

use framehook_infra::{bus::SharedBus, sqlite::Sqlite, store::SharedStore};
use tempfile::TempDir;

use crate::fixtures::{BusBackend, StoreBackend};

pub(crate) struct Database(TempDir);

impl Database {
    pub(crate) async fn fresh() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl StoreBackend for Database {
    async fn store(&self) -> SharedStore {
        Sqlite::open(self.0.path()).await.unwrap().store()
    }
}

impl BusBackend for Database {
    async fn bus(&self) -> SharedBus {
        Sqlite::open(self.0.path()).await.unwrap().bus()
    }
}
