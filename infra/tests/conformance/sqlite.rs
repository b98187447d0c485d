//! SQLite and the embedded bus under the conformance suites.

use framehook_infra::{bus::SharedBus, sqlite::Sqlite, store::SharedStore};
use tempfile::TempDir;

use crate::fixtures::{Backend, BusBackend};

pub(crate) struct Database(TempDir);

impl Database {
    pub(crate) async fn fresh() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Backend for Database {
    async fn open(&self) -> (SharedStore, SharedBus) {
        let sqlite = Sqlite::open(self.0.path()).await.unwrap();
        (sqlite.store(), sqlite.bus())
    }
}

impl BusBackend for Database {
    async fn open(&self) -> SharedBus {
        Sqlite::open(self.0.path()).await.unwrap().bus()
    }
}
